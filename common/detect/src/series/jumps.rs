//! How often the series jumps: bursts of change, where no single one need be large.
//!
//! A jump is a step from one tick to the next of more than four times the mean step; the statistic is the
//! exponentially weighted number of them in the last 50 ticks.

use serde::{Deserialize, Serialize};

use crate::series::baseline::Baseline;

const STEPS: f64 = 4.0;
const RATE: f64 = 0.02;
const MEMORY: f32 = 2000.0;

/// The jumps of one series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Jumps {
    steps: Baseline,
    rate: f64,
}

impl Jumps {
    /// Learns the step from the last tick to this, and says how many jumps there were of late, times 0.4.
    pub fn observe(&mut self, step: f64, floor: f64, weight: f64) -> f64 {
        self.steps.learn(step.abs(), MEMORY, weight);
        let jumped = f64::from(u8::from(step.abs() > STEPS * self.steps.mean.max(floor)));
        self.rate += RATE * (jumped - self.rate);
        self.rate * 20.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_jumps_counts_and_a_ramp_does_not() {
        let mut jumps = Jumps::default();
        let ramp = (0..500).map(|_| jumps.observe(1.0, 0.1, 1.0)).fold(0.0, f64::max);
        let burst = (0..10).map(|i| jumps.observe(if i % 2 == 0 { 9.0 } else { -9.0 }, 0.1, 1.0)).last();
        assert!(ramp == 0.0 && burst.unwrap() > 3.0, "{ramp} {burst:?}");
    }
}
