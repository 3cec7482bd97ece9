//! Distance from a rolling mean in standard deviations: sudden changes, on the scale of minutes.
//!
//! `z = (held - mean) / max(sd, floor)`, mean and standard deviation over the last 100 steps (Shewhart 1931).
//! Naively, the window learns an anomaly within seconds and then calls the end of it one; so steps teach at
//! most three sigma away from the mean, and none at all while the caller keeps an anomaly open.
//!
//! Warm-up: 12 steps. Flat series: the floor is the sigma. Gap: the window stays.

use evenkeel_common::anomaly::DetectorKind;
use serde::{Deserialize, Serialize};

use crate::config::ZScoreConfig;
use crate::detector::{Detector, Finding, TEACH_LIMIT, WARM_UP_STEPS, cautious};
use crate::ring::Ring;
use crate::scale::Scale;
use crate::step::Step;

/// The z-score detector of one series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ZScore {
    config: ZScoreConfig,
    window: Ring,
    mean: f64,
    deviation: f64,
}

impl ZScore {
    /// The name under which it votes.
    pub const KIND: DetectorKind = DetectorKind::ZScore;

    /// Knows nothing yet.
    #[must_use]
    pub fn new(config: ZScoreConfig) -> Self {
        Self { config, window: Ring::default(), mean: 0.0, deviation: 0.0 }
    }

    pub(crate) fn votes(&self, score: f64) -> bool {
        score.abs() >= self.config.threshold
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.window.heap_bytes()
    }

    fn warm(&self) -> bool {
        self.window.len() >= usize::from(WARM_UP_STEPS)
    }

    fn sigma(&self, scale: &Scale) -> f64 {
        cautious(self.deviation, self.window.len()).max(scale.floor_at(self.mean))
    }
}

impl Detector for ZScore {
    fn observe(&mut self, step: &Step, scale: &Scale) -> Option<Finding> {
        let value = step.held(self.mean).filter(|_| self.warm())?;
        let sigma = self.sigma(scale);
        Some(Finding { score: (value - self.mean) / sigma, value, expected: self.mean, scale: sigma })
    }

    fn learn(&mut self, step: &Step, scale: &Scale) {
        let Some(hold) = step.hold else { return };
        let reach = TEACH_LIMIT * self.sigma(scale);
        let value =
            if self.warm() { hold.middle.max(self.mean - reach).min(self.mean + reach) } else { hold.middle };
        self.window.push(value as f32, self.config.window);
        // Over the whole window each time: sums that are added to and taken from drift for months.
        (self.mean, self.deviation) = mean_and_deviation(self.window.values());
    }

    fn rearm(&mut self) {}

    fn restart(&mut self) {
        self.window.clear();
        (self.mean, self.deviation) = (0.0, 0.0);
    }
}

/// Mean and standard deviation of a population in two passes; four sums side by side, so that the additions do
/// not wait for each other.
fn mean_and_deviation(values: &[f32]) -> (f64, f64) {
    let sum = |of: &dyn Fn(f64) -> f64| {
        let mut sums = [0.0; 4];
        let blocks = values.chunks_exact(4);
        let rest: f64 = blocks.remainder().iter().map(|&v| of(f64::from(v))).sum();
        for block in blocks {
            for (sum, &v) in sums.iter_mut().zip(block) {
                *sum += of(f64::from(v));
            }
        }
        sums.iter().sum::<f64>() + rest
    };
    let n = values.len().max(1) as f64;
    let mean = sum(&|v| v) / n;
    (mean, (sum(&|v| (v - mean) * (v - mean)) / n).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::test::step;
    use evenkeel_common::sample::Metric;

    fn taught(values: impl IntoIterator<Item = f64>) -> (ZScore, Scale) {
        let scale = crate::scale::scale_floor(Metric::CpuUsed);
        let mut z = ZScore::new(ZScoreConfig::default());
        values.into_iter().for_each(|v| z.learn(&step(v), &scale));
        (z, scale)
    }

    #[test]
    fn measures_in_standard_deviations_of_the_window() {
        let (mut z, scale) = taught((0..400).map(|i| if i % 2 == 0 { 40.0 } else { 60.0 }));
        let finding = z.observe(&step(90.0), &scale).unwrap();
        // Mean 50, deviation 10, times 1.1 for 100 steps.
        assert!((finding.score - 40.0 / 11.0).abs() < 1e-3, "{finding:?}");
        assert!((finding.deviation() - finding.score).abs() < 1e-12);
    }

    #[test]
    fn says_nothing_during_warm_up() {
        let (mut z, scale) = taught(vec![10.0; 11]);
        assert_eq!(z.observe(&step(99.0), &scale), None);
        z.learn(&step(10.0), &scale);
        assert!(z.observe(&step(99.0), &scale).is_some());
    }

    #[test]
    fn a_flat_series_has_the_floor_for_a_sigma() {
        let (mut z, scale) = taught(vec![0.1; 200]);
        let finding = z.observe(&step(1.5), &scale).unwrap();
        assert!(finding.score < 0.5 && finding.scale >= scale.floor, "{finding:?}");
    }

    #[test]
    fn outliers_that_do_teach_teach_little() {
        let (mut z, scale) = taught((0..100).map(|i| if i % 20 == 19 { 1e6 } else { 10.0 }));
        let finding = z.observe(&step(100.0), &scale).unwrap();
        assert!(finding.score > 10.0, "{finding:?}");
    }
}
