//! The level of the last hours against that of the last day: shifts that stay.
//!
//! Two EWMA baselines with time constants of 24 and 144 ticks; the statistic is their distance in standard
//! deviations of single values around the slower one. Says nothing before 336 ticks.

use serde::{Deserialize, Serialize};

const FAST: f64 = 24.0;
const SLOW: f64 = 144.0;
const WARM_UP: u16 = 336;

/// Two levels of one series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Level {
    fast: f64,
    slow: f64,
    variance: f64,
    seen: u16,
}

impl Level {
    /// Learns a value with a weight, and says how far the levels are apart; `floor`: the smallest deviation.
    pub fn observe(&mut self, value: f64, floor: f64, weight: f64) -> Option<f64> {
        self.seen = self.seen.saturating_add(1).min(WARM_UP);
        if self.seen == 1 {
            (self.fast, self.slow) = (value, value);
        }
        let seen = f64::from(self.seen);
        self.fast += (value - self.fast) / seen.min(FAST);
        let apart = (self.fast - self.slow).abs() / self.variance.sqrt().max(floor);
        let (offset, alpha) = (value - self.slow, weight / seen.min(SLOW));
        self.variance = (1.0 - alpha) * (self.variance + alpha * offset * offset);
        self.slow += alpha * offset;
        (self.seen >= WARM_UP).then_some(apart)
    }

    /// After a gap the fast level begins at the slow one.
    pub fn rearm(&mut self) {
        self.fast = self.slow;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_stands_out_and_a_spike_does_not() {
        let mut level = Level::default();
        let noise = |i: usize| (i * 7 % 5) as f64;
        let calm = (0..2000).filter_map(|i| level.observe(noise(i), 0.1, 1.0)).fold(0.0, f64::max);
        let spike = level.clone().observe(12.0, 0.1, 1.0).unwrap();
        let shift = (0..24).filter_map(|i| level.observe(10.0 + noise(i), 0.1, 1.0)).fold(0.0, f64::max);
        assert!(calm < 0.2 && spike < 0.5 && shift > 1.0, "{calm} {spike} {shift}");
    }

    #[test]
    fn says_nothing_during_warm_up() {
        let mut level = Level::default();
        assert!((1..336).all(|i| level.observe(f64::from(i), 0.1, 1.0).is_none()));
        assert!(level.observe(1.0, 0.1, 1.0).is_some());
    }
}
