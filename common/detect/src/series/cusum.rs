//! Cumulated deviations: small shifts that last (Page 1954).
//!
//! `high = max(0, high + z - slack)`, likewise for falls, with `z` the deviation from what is usual at this hour,
//! at most 4. A shift of two deviations reaches 10 after eight ticks.

use serde::{Deserialize, Serialize};

const SLACK: f64 = 0.7;
const REACH: f64 = 4.0;
const CAP: f64 = 60.0;

/// Both sums of one series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cusum {
    high: f64,
    low: f64,
}

impl Cusum {
    /// Adds a deviation and says the larger sum.
    pub fn observe(&mut self, z: f64) -> f64 {
        let z = z.clamp(-REACH, REACH);
        self.high = (self.high + z - SLACK).clamp(0.0, CAP);
        self.low = (self.low - z - SLACK).clamp(0.0, CAP);
        self.high.max(self.low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_deviations_that_last_add_up_and_noise_does_not() {
        let mut cusum = Cusum::default();
        let noise = (0..1000).map(|i| cusum.observe(if i % 2 == 0 { 1.5 } else { -1.5 })).fold(0.0, f64::max);
        let shift = (0..8).map(|_| cusum.observe(-2.0)).last();
        assert!(noise < 1.0 && shift.unwrap() > 9.9, "{noise} {shift:?}");
    }
}
