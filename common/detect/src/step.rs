//! From samples to steps: what a detector gets to see.
//!
//! One second is not news. Samples of 1 s are strongly autocorrelated and heavy-tailed: a shell completion, a
//! cron job or a log flush peaks for one to three of them. So five samples become one step, their median, and a
//! value is judged only as far as it has been *held*: over the last three steps (15 s) the series was nowhere
//! nearer to the expectation than that. A burst shorter than about 13 s thereby never exists for a detector,
//! and a sustained one is seen 13 to 17 s after it began. (Running medians: Tukey 1977, Exploratory Data
//! Analysis.)

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Samples in a step, at most.
const SAMPLES: usize = 5;
/// Steps over which a value must be held.
const HOLD: usize = 3;
/// A step's length where samples come more often.
const STEP: Duration = Duration::from_secs(5);

/// One step of a series, in the domain of its metric (see [`crate::scale`]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Median of the step's samples.
    pub median: f64,
    /// The medians of the last three steps; `None` until there are three without a gap.
    pub hold: Option<Hold>,
}

/// Three medians in a row, by size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hold {
    /// The lowest: the series was not below it for 15 s.
    pub low: f64,
    /// The middle one: what a detector learns, for one spike can not shift it.
    pub middle: f64,
    /// The highest: the series was not above it for 15 s.
    pub high: f64,
}

impl Step {
    /// What was held: of the last three steps the median nearest to `expected`, or `expected` itself when they
    /// lie on both sides of it.
    #[must_use]
    pub fn held(&self, expected: f64) -> Option<f64> {
        self.hold.map(|hold| expected.max(hold.low).min(hold.high))
    }
}

/// Collects samples into steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stepper {
    samples: [f32; SAMPLES],
    filled: u8,
    per_step: u8,
    held: u8,
    medians: [f32; HOLD],
}

impl Stepper {
    /// For samples that come every `interval`: as many to a step as 5 s hold, one at least.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        let per_step = (STEP.as_millis() / interval.as_millis().max(1)).clamp(1, SAMPLES as u128) as u8;
        Self { samples: [0.0; SAMPLES], filled: 0, per_step, held: 0, medians: [0.0; HOLD] }
    }

    /// Samples in a step.
    #[must_use]
    pub fn samples_per_step(&self) -> u8 {
        self.per_step
    }

    /// Takes a finite sample; the step, when this one completes it. `enter` maps a value to the metric's domain;
    /// it must be monotonic, for it is applied to the median only.
    pub fn push(&mut self, value: f64, enter: impl Fn(f64) -> f64) -> Option<Step> {
        let at = usize::from(self.filled).min(SAMPLES - 1);
        self.samples[at] = value as f32;
        self.filled = at as u8 + 1;
        if self.filled < self.per_step {
            return None;
        }
        let samples = &mut self.samples[..=at];
        self.filled = 0;
        samples.sort_unstable_by(f32::total_cmp);
        let median = enter(f64::from(samples[samples.len() / 2]));
        self.medians.rotate_left(1);
        self.medians[HOLD - 1] = median as f32;
        self.held = (self.held + 1).min(HOLD as u8);
        let hold = (usize::from(self.held) == HOLD).then(|| {
            let mut sorted = self.medians;
            sorted.sort_unstable_by(f32::total_cmp);
            let [low, middle, high] = sorted.map(f64::from);
            Hold { low, middle, high }
        });
        Some(Step { median: f64::from(median as f32), hold })
    }

    /// Forgets what is half collected: values on both sides of a gap are no neighbours.
    pub fn clear(&mut self) {
        self.filled = 0;
        self.held = 0;
    }
}

#[cfg(test)]
pub(crate) mod test {
    use super::*;

    /// A step of a series that stands at `value`.
    pub(crate) fn step(value: f64) -> Step {
        Step { median: value, hold: Some(Hold { low: value, middle: value, high: value }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(values: &[f64]) -> Vec<Step> {
        let mut stepper = Stepper::new(Duration::from_secs(1));
        values.iter().filter_map(|&v| stepper.push(v, |v| v)).collect()
    }

    #[test]
    fn a_burst_of_ten_seconds_is_never_held_and_one_of_fifteen_always() {
        for phase in 0..5 {
            for (length, held) in [(1, false), (3, false), (10, false), (15, true), (60, true)] {
                let mut values = vec![10.0; 20 + phase];
                values.extend(vec![90.0; length]);
                values.extend(vec![10.0; 30]);
                let seen = steps(&values).iter().any(|s| s.held(10.0).is_some_and(|v| v > 10.0));
                assert_eq!(seen, held, "{length} s at phase {phase}");
            }
        }
    }

    #[test]
    fn slow_samples_are_steps_of_their_own() {
        let mut stepper = Stepper::new(Duration::from_secs(30));
        assert!(stepper.push(1.0, |v| v).is_some());
    }

    #[test]
    fn a_gap_starts_the_hold_again() {
        let mut stepper = Stepper::new(Duration::from_secs(5));
        for _ in 0..3 {
            stepper.push(1.0, |v| v);
        }
        stepper.clear();
        assert_eq!(stepper.push(1.0, |v| v).unwrap().hold, None);
    }
}
