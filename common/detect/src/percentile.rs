//! Rolling percentile of what a series reaches: its tails, on the scale of a day.
//!
//! A heavy-tailed series (throughput, pressure) exceeds any multiple of its sigma as a matter of routine, so
//! the question is not "how many sigma" but "has it been there before". The last day is cut into stretches of
//! ten minutes; of each the highest and the lowest *held* level are kept. The known range ends at the fourth
//! highest peak of 144 (the 97.5th percentile) and the fourth lowest low: what happened in four stretches of
//! the last day is no news, whatever its sigma, and fewer bad stretches than that can not teach it. Beyond the
//! range, distance is measured in widths of the tail, from the spacing of the upper order statistics (for an
//! exponential tail, peak of rank k less peak of rank 4k is `width * ln 4`; Weissman 1978):
//!
//! `score = (held - bound) / max(width, floor)`, zero inside the range.
//!
//! Warm-up: six stretches, one hour. Flat series: the floor is the width. Gap: the stretch goes on after it.

use evenkeel_common::anomaly::DetectorKind;
use serde::{Deserialize, Serialize};

use crate::config::PercentileConfig;
use crate::detector::{Detector, Finding};
use crate::ring::Ring;
use crate::scale::Scale;
use crate::step::{Hold, Step};

/// Length of a stretch in seconds.
pub const STRETCH_S: f64 = 600.0;
/// Stretches before it says anything.
const WARM_UP: usize = 6;
/// Stretches before it knows what bursts a series has.
const BURSTS_KNOWN: usize = 2 * WARM_UP;
/// Bad stretches that can not teach, plus one.
const MIN_RANK: usize = 4;

/// One end of the known range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Bound {
    at: f64,
    width: f64,
}

/// The rolling percentile of one series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    config: PercentileConfig,
    steps_per_stretch: u16,
    peaks: Ring,
    lows: Ring,
    /// Steps in the stretch under way, and what they reached.
    steps: u16,
    peak: f32,
    low: f32,
    high_bound: Bound,
    low_bound: Bound,
}

impl Percentile {
    /// The name under which it votes.
    pub const KIND: DetectorKind = DetectorKind::Percentile;

    /// Knows nothing yet. `step_s`: seconds in a step.
    #[must_use]
    pub fn new(config: PercentileConfig, step_s: f64) -> Self {
        Self {
            config,
            steps_per_stretch: (STRETCH_S / step_s).clamp(1.0, 60_000.0) as u16,
            peaks: Ring::default(),
            lows: Ring::default(),
            steps: 0,
            peak: f32::NEG_INFINITY,
            low: f32::INFINITY,
            high_bound: Bound::default(),
            low_bound: Bound::default(),
        }
    }

    /// How many stretches a day reach the bound of the known range, by the record.
    pub(crate) fn known_per_day(&self) -> f64 {
        let known = self.peaks.len();
        self.rank(known) as f64 / known.max(1) as f64 * (86_400.0 / STRETCH_S)
    }

    /// Whether it has seen enough of a series that works in bursts to tell a new one from the usual ones.
    pub(crate) fn knows_bursts(&self) -> bool {
        self.peaks.len() >= BURSTS_KNOWN
    }

    pub(crate) fn votes(&self, score: f64) -> bool {
        score.abs() >= self.config.threshold
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.peaks.heap_bytes() + self.lows.heap_bytes()
    }

    /// Rank of the bound among `known` peaks, from 1.
    fn rank(&self, known: usize) -> usize {
        let by_percentile = ((1.0 - self.config.percentile / 100.0) * known as f64).round() as usize;
        by_percentile.max(MIN_RANK).min(known.div_ceil(2)).max(1)
    }

    /// The bound from peaks (or from lows with their sign turned).
    fn bound(&self, peaks: &Ring, sign: f32) -> Bound {
        let mut sorted: Vec<f32> = peaks.values().iter().map(|v| v * sign).collect();
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        let rank = self.rank(sorted.len());
        let inner = (4 * rank).min(sorted.len());
        let (Some(&bound), Some(&within)) = (sorted.get(rank - 1), sorted.get(inner - 1)) else {
            return Bound::default();
        };
        let ratio = (inner as f64 / rank as f64).ln();
        let width = if ratio > 0.0 { f64::from(bound - within) / ratio } else { 0.0 };
        Bound { at: f64::from(bound * sign), width }
    }
}

impl Detector for Percentile {
    fn observe(&mut self, step: &Step, scale: &Scale) -> Option<Finding> {
        let Hold { low, high, .. } = step.hold.filter(|_| self.peaks.len() >= WARM_UP)?;
        let (value, bound) = if low > self.high_bound.at {
            (low, self.high_bound)
        } else if high < self.low_bound.at {
            (high, self.low_bound)
        } else {
            (step.median, Bound { at: step.median, width: 0.0 })
        };
        let width = bound.width.max(scale.floor_at(bound.at));
        Some(Finding { score: (value - bound.at) / width, value, expected: bound.at, scale: width })
    }

    fn learn(&mut self, step: &Step, _: &Scale) {
        let Some(Hold { low, high, .. }) = step.hold else { return };
        self.peak = self.peak.max(low as f32);
        self.low = self.low.min(high as f32);
        self.steps = self.steps.saturating_add(1);
        if self.steps < self.steps_per_stretch {
            return;
        }
        self.peaks.push(self.peak, self.config.window);
        self.lows.push(self.low, self.config.window);
        (self.steps, self.peak, self.low) = (0, f32::NEG_INFINITY, f32::INFINITY);
        self.high_bound = self.bound(&self.peaks, 1.0);
        self.low_bound = self.bound(&self.lows, -1.0);
    }

    fn rearm(&mut self) {}

    fn restart(&mut self) {
        self.peaks.clear();
        self.lows.clear();
        (self.steps, self.peak, self.low) = (0, f32::NEG_INFINITY, f32::INFINITY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::test::step;
    use evenkeel_common::sample::Metric;

    /// A detector that has seen one stretch per value.
    fn taught(stretches: impl IntoIterator<Item = f64>) -> (Percentile, Scale) {
        let scale = crate::scale::scale_floor(Metric::CpuUsed);
        let mut percentile = Percentile::new(PercentileConfig::default(), 600.0);
        stretches.into_iter().for_each(|v| percentile.learn(&step(v), &scale));
        (percentile, scale)
    }

    #[test]
    fn what_happened_in_four_stretches_is_known_and_in_three_is_not() {
        for (times, known) in [(3, false), (4, true)] {
            let (mut p, scale) =
                taught((0..144).map(|i| if i < times { 90.0 } else { 10.0 + f64::from(i % 3) }));
            let finding = p.observe(&step(88.0), &scale).unwrap();
            assert_eq!(finding.score == 0.0, known, "{times}: {finding:?}");
        }
    }

    #[test]
    fn both_tails_are_measured_in_their_own_width() {
        let (mut p, scale) = taught((0..144).map(|i| 40.0 + f64::from(i % 20)));
        let up = p.observe(&step(99.0), &scale).unwrap();
        let down = p.observe(&step(1.0), &scale).unwrap();
        assert!(up.score > 5.0 && down.score < -5.0, "{up:?} {down:?}");
        assert_eq!(p.observe(&step(50.0), &scale).unwrap().score, 0.0);
    }

    #[test]
    fn warm_up_is_one_hour_and_a_flat_series_has_the_floor() {
        let (mut p, scale) = taught(vec![0.1; 5]);
        assert_eq!(p.observe(&step(50.0), &scale), None);
        p.learn(&step(0.1), &scale);
        assert!(p.observe(&step(1.5), &scale).unwrap().score < 1.0);
        assert!(p.known_per_day() > 30.0, "an hour of record must not promise a quiet day");
    }
}
