//! From a detector's statistic to a probability: one scale for all detectors.
//!
//! A sigma means something else on every series: on a calm one five are unheard of, on a bursty one they come
//! twice an hour. What an admin needs is how often *this* series does *this* without any cause. So each detector
//! keeps the tail of its own statistic from the time in which nothing was wrong, and the confidence of a
//! finding follows from the number of equally extreme stretches that normal variation would bring in a day.
//!
//! Peaks over threshold (Pickands 1975, Davison and Smith 1990): of every minute the largest `|score|` is kept
//! (which also takes care of the autocorrelation within a minute); beyond `u = 2` the excess follows a
//! generalised Pareto distribution
//!
//! `P(peak > s) = rate * (1 + shape * (s - u) / mean)^(-1 / shape)`.
//!
//! The shape is fixed at 0.1, heavier than any Gaussian or exponential tail: to underestimate the tail means to
//! wake someone. Rate and mean excess are learned over a day and start from a cautious prior, which weighs as
//! much as two hours: little data gives little confidence.

use evenkeel_common::units::Probability;
use serde::{Deserialize, Serialize};

/// Score beyond which the tail begins.
const TAIL_FROM: f64 = 2.0;
/// Weight of the tail beyond exponential; see the module text.
const TAIL_SHAPE: f64 = 0.1;
/// Real anomalies a series has in a day, assumed: one in ten days. The smaller, the harder to convince.
const REAL_PER_DAY: f64 = 0.1;
/// Minutes that are remembered.
const MEMORY: f64 = 1440.0;
/// What is assumed at first: two hours in which one minute in twenty went beyond, by 0.8 on average.
const PRIOR_MINUTES: f64 = 120.0;
const PRIOR_BEYOND: f64 = 6.0;
const PRIOR_MEAN_EXCESS: f64 = 0.8;

/// Probability that a finding is no normal variation, when normal variation brings the like `per_day` times:
/// `1 / (1 + per_day / real_per_day)`, the share of real ones among all that look like this (Bayes).
#[must_use]
pub fn confidence(per_day: f64) -> Probability {
    Probability::clamped(1.0 / (1.0 + per_day.max(0.0) / REAL_PER_DAY))
}

/// How many times a day a score beyond a bound of the record is to be expected, when the bound itself is
/// reached `bound_per_day` times and `score` is the distance from it in widths of the tail.
#[must_use]
pub fn beyond_record(bound_per_day: f64, score: f64) -> f64 {
    bound_per_day * tail(score.abs())
}

/// Share of an exceeding population that exceeds by more than `excess` times its mean.
fn tail(excess: f64) -> f64 {
    // (1 + x/10)^-10: an integer power, because this runs on every step of every series.
    (1.0 + TAIL_SHAPE * excess).powi(-((1.0 / TAIL_SHAPE) as i32))
}

/// The tail of one detector's statistic on one series, while nothing was wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TailModel {
    /// Minutes learned, faded.
    minutes: f32,
    /// How many of them went beyond.
    beyond: f32,
    /// By how much, summed.
    excess: f32,
    /// Largest `|score|` of the minute under way, and the steps in it.
    peak: f32,
    steps: u16,
}

impl TailModel {
    /// Learns the score of a step in which nothing is wrong. `steps_per_minute`: at least 1.
    pub fn learn(&mut self, score: f64, steps_per_minute: u16) {
        self.peak = self.peak.max(score.abs() as f32);
        self.steps = self.steps.saturating_add(1);
        if self.steps < steps_per_minute {
            return;
        }
        if f64::from(self.minutes) >= MEMORY {
            let fade = (1.0 - 1.0 / MEMORY) as f32;
            self.minutes *= fade;
            self.beyond *= fade;
            self.excess *= fade;
        }
        self.minutes += 1.0;
        if f64::from(self.peak) > TAIL_FROM {
            self.beyond += 1.0;
            self.excess += self.peak - TAIL_FROM as f32;
        }
        self.end_minute();
    }

    /// Forgets the minute under way: it held something that is not normal.
    pub fn end_minute(&mut self) {
        (self.peak, self.steps) = (0.0, 0);
    }

    /// How many times a day normal variation brings a minute with at least this score. `minutes_per_day`: how
    /// many "minutes" of [`Self::learn`] there are in a day.
    #[must_use]
    pub fn per_day(&self, score: f64, minutes_per_day: f64) -> f64 {
        let beyond = f64::from(self.beyond) + PRIOR_BEYOND;
        let rate = beyond / (f64::from(self.minutes) + PRIOR_MINUTES);
        let mean = (f64::from(self.excess) + PRIOR_BEYOND * PRIOR_MEAN_EXCESS) / beyond;
        let excess = score.abs() - TAIL_FROM;
        let share = if excess > 0.0 {
            rate * tail(excess / mean)
        } else {
            // Within the bulk the figure only has to be large and monotonic.
            rate + (1.0 - rate) * (-excess / TAIL_FROM)
        };
        share * minutes_per_day
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taught(minutes: usize, score: impl Fn(usize) -> f64) -> TailModel {
        let mut model = TailModel::default();
        (0..minutes).for_each(|i| model.learn(score(i), 1));
        model
    }

    #[test]
    fn the_same_score_convinces_on_a_calm_series_and_not_on_a_wild_one() {
        let calm = taught(1440, |i| if i % 50 == 0 { 2.2 } else { 0.5 });
        let wild = taught(1440, |i| if i % 10 == 0 { 9.0 } else { 1.5 });
        let by = |model: &TailModel| confidence(model.per_day(9.0, 1440.0)).get();
        assert!(by(&calm) > 0.9 && by(&wild) < 0.1, "{} {}", by(&calm), by(&wild));
    }

    #[test]
    fn little_data_gives_little_confidence() {
        let (young, old) = (taught(2, |_| 0.5), taught(1440, |_| 0.5));
        let by = |model: &TailModel| confidence(model.per_day(9.0, 1440.0)).get();
        assert!(by(&young) < 0.5 && by(&old) > 0.8, "{} {}", by(&young), by(&old));
    }

    #[test]
    fn expected_numbers_fall_with_the_score() {
        let model = taught(500, |i| (i % 7) as f64);
        let numbers: Vec<f64> = (0..200).map(|i| model.per_day(f64::from(i) / 4.0, 1440.0)).collect();
        assert!(numbers.windows(2).all(|w| w[0] >= w[1]) && numbers[0] <= 1440.0 + 1e-6);
    }

    /// The promise itself: for statistics with an exponential tail, minutes that get a confidence of at least c
    /// are no more frequent than c allows.
    #[test]
    fn confidence_keeps_its_promise_on_exponential_noise() {
        let mut state = 7_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            -(((state >> 11) as f64 + 1.0) / (1_u64 << 53) as f64).ln() * 1.5
        };
        let mut model = TailModel::default();
        let days = 400.0;
        let mut surprises = [0.0; 2];
        for _ in 0..(days as usize * 1440) {
            let score = noise();
            for (count, per_day) in surprises.iter_mut().zip([1.0, 0.1]) {
                *count += f64::from(u8::from(model.per_day(score, 1440.0) <= per_day));
            }
            model.learn(score, 1);
        }
        assert!(surprises[0] / days <= 1.0 && surprises[1] / days <= 0.1, "{surprises:?} in {days} days");
        assert!(surprises[0] > 0.0, "a bound that nothing ever reaches says nothing");
    }
}
