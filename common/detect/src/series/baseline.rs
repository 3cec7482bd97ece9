//! A winsorised, exponentially weighted mean and mean absolute deviation.
//!
//! A plain mean until its memory is full. After the first values a value teaches as if it were at most four
//! deviations away (winsorising: Tukey 1962), so that one giant does not move the baseline.

use serde::{Deserialize, Serialize};

/// Values before it winsorises.
const WARM_UP: f32 = 20.0;
/// Deviations beyond which a value teaches as if it were there.
const REACH: f64 = 4.0;

/// Level and spread of a series over some time constant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Baseline {
    /// The level.
    pub mean: f64,
    /// Mean absolute deviation from it.
    pub spread: f64,
    seen: f32,
}

impl Baseline {
    /// Learns a value with a weight of 0 to 1. `memory`: the time constant in values.
    pub fn learn(&mut self, value: f64, memory: f32, weight: f64) {
        if self.seen == 0.0 {
            self.mean = value;
        }
        let reach = if self.seen < WARM_UP { f64::MAX } else { REACH * self.spread.max(f64::MIN_POSITIVE) };
        self.seen = (self.seen + 1.0).min(memory.max(1.0));
        let alpha = weight / f64::from(self.seen);
        let offset = (value - self.mean).clamp(-reach, reach);
        self.mean += alpha * offset;
        self.spread += alpha * (offset.abs() - self.spread);
    }

    /// Distance of a value in deviations, which are not below `floor`.
    pub fn distance(&self, value: f64, floor: f64) -> f64 {
        (value - self.mean).abs() / self.spread.max(floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learns_level_and_spread_and_shrugs_off_a_giant() {
        let mut baseline = Baseline::default();
        for i in 0..1000 {
            baseline.learn(if i % 2 == 0 { 9.0 } else { 11.0 }, 100.0, 1.0);
        }
        baseline.learn(1e30, 100.0, 1.0);
        assert!((baseline.mean - 10.0).abs() < 0.2 && (baseline.spread - 1.0).abs() < 0.2, "{baseline:?}");
    }

    #[test]
    fn a_weight_of_zero_teaches_nothing() {
        let mut baseline = Baseline::default();
        (0..50).for_each(|_| baseline.learn(1.0, 100.0, 1.0));
        (0..50).for_each(|_| baseline.learn(2.0, 100.0, 0.0));
        assert_eq!(baseline.mean, 1.0);
    }
}
