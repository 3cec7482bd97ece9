//! The tail of a fleet detector's own statistic: how often normal variation brings the like.
//!
//! The same idea as [`crate::calibrate`], for statistics without a natural scale (a path length, a
//! reconstruction error) and with a longer memory: of every ten minutes the largest value is kept, which takes
//! care of autocorrelation and counts what an admin counts, episodes. Beyond the value that one in ten of the
//! last two weeks' peaks exceeds, the excess is taken for generalised Pareto (Pickands 1975, Davison and Smith
//! 1990):
//!
//! `P(peak > s) = rate * (1 + shape * (s - bound) / scale) ^ (-1 / shape)`.
//!
//! Shape and scale follow from the mean and variance of the excesses (Hosking and Wallis 1987), the shape drawn
//! towards 0, the exponential tail, while there are few. The statistics differ: the score of an isolation forest
//! has an end, a z-score has none, and one fixed shape made the first too timid and the second too bold.
//!
//! The record is bounded, begins with the peaks of the training (of days that the model did not learn from) and
//! rolls on, so that a node which has changed for good stops alarming after some days. What is far beyond the
//! tail enters winsorised: an anomaly widens the tail a little, never by its own size.

use serde::{Deserialize, Serialize};

use evenkeel_common::time::Timestamp;

/// Seconds of which one peak is kept.
pub const BLOCK_S: i64 = 600;
/// Blocks in a day.
pub const BLOCKS_PER_DAY: f64 = 144.0;
/// Peaks kept: two weeks.
pub const MEMORY: usize = 2016;
/// Peaks from which the tail says anything: six hours.
pub const MIN_PEAKS: usize = 36;
/// Share of the peaks that make the tail.
const TAIL_SHARE: f64 = 0.1;
/// Shapes that are believed: from an end five scales away to a tail heavier than any that was measured.
const SHAPES: (f64, f64) = (-0.2, 0.3);
/// Excesses at which a measured shape counts for one half.
const SHAPE_DOUBT: f64 = 30.0;
/// Expected number beyond the end of a tail that has one.
const RAREST: f64 = 1e-9;
/// Largest excess, in scales, that enters the record: about one in thirty days.
const TEACH_LIMIT: f64 = 6.0;

/// The tail of one statistic of one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tail {
    peaks: Vec<f32>,
    next: u16,
    bound: f64,
    scale: f64,
    shape: f64,
    block: i64,
    peak: Option<f32>,
}

impl Tail {
    /// A tail that begins with peaks of the past, oldest first; what is not finite is left out.
    #[must_use]
    pub fn from_peaks(peaks: impl IntoIterator<Item = f64>) -> Self {
        let mut tail = Self::default();
        for peak in peaks {
            tail.push(peak as f32);
        }
        tail.refit();
        tail
    }

    /// Whether it knows enough to judge.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.peaks.len() >= MIN_PEAKS
    }

    /// Peaks known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peaks.len()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peaks.is_empty()
    }

    /// How many stretches of ten minutes of a day reach `score` by normal variation alone, at most 144;
    /// `None` until [`Self::is_ready`] and for scores that are not finite.
    #[must_use]
    pub fn per_day(&self, score: f64) -> Option<f64> {
        if !self.is_ready() || !score.is_finite() {
            return None;
        }
        let excess = (score - self.bound) / self.scale;
        if excess <= 0.0 {
            // Within the bulk the figure only has to be large and monotonic.
            return Some(BLOCKS_PER_DAY * (TAIL_SHARE + (1.0 - TAIL_SHARE) * (-excess / (1.0 - excess))));
        }
        let share = (1.0 + self.shape * excess).max(0.0).powf(-1.0 / self.shape);
        Some((BLOCKS_PER_DAY * TAIL_SHARE * share).max(RAREST / (1.0 + excess)))
    }

    /// Learns a score, in order of time.
    pub fn learn(&mut self, at: Timestamp, score: f64) {
        if !score.is_finite() {
            return;
        }
        let block = at.as_secs().div_euclid(BLOCK_S);
        if let Some(peak) = self.peak.filter(|_| block != self.block) {
            let limit = self.bound + TEACH_LIMIT * self.scale;
            self.push(if self.is_ready() { peak.min(limit as f32) } else { peak });
            self.refit();
            self.peak = None;
        }
        self.block = block;
        self.peak = Some(self.peak.map_or(score as f32, |peak| peak.max(score as f32)));
    }

    /// Whether a stored state can be believed.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.peaks.len() <= MEMORY
            && usize::from(self.next) < MEMORY
            && self.peaks.iter().all(|peak| peak.is_finite())
            && self.bound.is_finite()
            && self.scale.is_finite()
            && (self.peaks.is_empty() || self.scale > 0.0 && (1e-3..=0.3).contains(&self.shape.abs()))
            && self.peak.is_none_or(f32::is_finite)
    }

    /// Quantiles of the peaks; 0 of none.
    #[must_use]
    pub fn quantiles<const N: usize>(&self, shares: [f64; N]) -> [f32; N] {
        let mut sorted = self.peaks.clone();
        sorted.sort_by(f32::total_cmp);
        let last = sorted.len().saturating_sub(1);
        shares.map(|share| {
            sorted.get((share.clamp(0.0, 1.0) * last as f64).round() as usize).copied().unwrap_or(0.0)
        })
    }

    fn push(&mut self, peak: f32) {
        if !peak.is_finite() {
            return;
        }
        if self.peaks.len() < MEMORY {
            self.peaks.push(peak);
        } else {
            let at = usize::from(self.next) % MEMORY;
            self.peaks[at] = peak;
            self.next = ((at + 1) % MEMORY) as u16;
        }
    }

    fn refit(&mut self) {
        if self.peaks.is_empty() {
            return;
        }
        let mut sorted: Vec<f64> = self.peaks.iter().map(|&peak| f64::from(peak)).collect();
        let beyond = ((sorted.len() as f64 * TAIL_SHARE).ceil() as usize).clamp(1, sorted.len());
        let at = sorted.len() - beyond;
        let middle = sorted.len() / 2;
        sorted.sort_by(f64::total_cmp);
        self.bound = sorted[at.saturating_sub(1)];
        let n = beyond as f64;
        let mean = sorted[at..].iter().map(|peak| peak - self.bound).sum::<f64>() / n;
        let variance = sorted[at..].iter().map(|peak| (peak - self.bound - mean).powi(2)).sum::<f64>() / n;
        let measured = 0.5 * (1.0 - mean * mean / variance.max(1e-30));
        let shape = (measured * n / (n + SHAPE_DOUBT)).clamp(SHAPES.0, SHAPES.1);
        // Exactly 0 would divide by it; the difference is none.
        self.shape = if shape.abs() < 1e-3 { 1e-3 } else { shape };
        // Few peaks underestimate their tail; and a flat record must not make the first blip infinite.
        let cautious = 1.0 + 8.0 / n;
        let floor = 0.05 * (self.bound - sorted[middle]) + 1e-3 * self.bound.abs() + 1e-9;
        self.scale = (mean * (1.0 - self.shape) * cautious).max(floor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;

    fn at(block: i64) -> Timestamp {
        Timestamp::from_millis(block * BLOCK_S * 1000)
    }

    #[test]
    fn keeps_its_promise_on_exponential_noise() {
        let (mut chance, mut tail) = (Chance::new(5), Tail::default());
        let (mut days, mut surprises) = (0.0, 0.0);
        for block in 0..400 * 144 {
            let score = -(1.0 - chance.unit()).ln();
            if let Some(per_day) = tail.per_day(score) {
                days += 1.0 / 144.0;
                surprises += f64::from(u8::from(per_day <= 1.0));
            }
            tail.learn(at(block), score);
        }
        assert!(surprises / days < 1.1 && surprises / days > 0.2, "{surprises} in {days} days");
    }

    #[test]
    fn falls_with_the_score_and_stays_within_the_day() {
        let tail = Tail::from_peaks((0..500).map(|i| f64::from(i % 17)));
        let numbers: Vec<f64> = (-100..400).map(|i| tail.per_day(f64::from(i) / 4.0).unwrap()).collect();
        assert!(numbers.windows(2).all(|w| w[0] >= w[1]) && numbers[0] <= 144.0 && numbers[499] > 0.0);
    }

    #[test]
    fn says_nothing_while_it_knows_little_and_survives_flat_and_wild_records() {
        assert_eq!(Tail::from_peaks(vec![1.0; MIN_PEAKS - 1]).per_day(5.0), None);
        let flat = Tail::from_peaks(vec![0.0; 100]);
        assert!(flat.per_day(0.0).unwrap() > 1.0 && flat.per_day(1.0).unwrap() < 1e-3 && flat.is_sound());
        let wild = Tail::from_peaks((0..100).map(|i| if i % 2 == 0 { f64::NAN } else { 1e30 }));
        assert!(wild.is_sound() && wild.per_day(f64::INFINITY).is_none());
    }

    #[test]
    fn one_anomaly_does_not_teach_its_own_size() {
        let mut tail = Tail::from_peaks((0..1000).map(|i| f64::from(i % 10)));
        (0..3).for_each(|block| tail.learn(at(block), 1e6));
        let after = tail.per_day(50.0).unwrap();
        assert!(after < 0.1, "{after}");
    }
}
