//! What people said about anomalies moves thresholds, within bounds.
//!
//! Per detector the answers are counted; the share of false alarms is given with its 95 % interval (Wilson
//! 1927), and only what the interval leaves no doubt about changes anything: two answers change nothing, twenty
//! do. The multiplier acts on how rare a finding must be (the logarithm of its probability), so 2 asks for the
//! square of the rarity and 0.5 for its root.

use serde::{Deserialize, Serialize};

use crate::ensemble::FleetDetector;

/// Smallest and largest multiplier.
pub const MULTIPLIERS: (f64, f64) = (0.5, 2.0);
/// Share of false alarms above which a threshold rises, and below which it falls.
const TOO_MANY: f64 = 0.3;
const FEW: f64 = 0.1;
/// Normal quantile of a two-sided 95 % interval.
const Z: f64 = 1.959_964;

/// Answers about one detector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// Anomalies that were real.
    pub good: u32,
    /// Anomalies that were none.
    pub bad: u32,
}

impl Answers {
    /// Share of false alarms, and its 95 % interval: `(observed, low, high)`; `None` without answers.
    #[must_use]
    pub fn false_alarms(&self) -> Option<(f64, f64, f64)> {
        let n = f64::from(self.good) + f64::from(self.bad);
        if n == 0.0 {
            return None;
        }
        let share = f64::from(self.bad) / n;
        let spread = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        let (centre, norm) = (share + Z * Z / (2.0 * n), 1.0 + Z * Z / n);
        Some((share, ((centre - spread) / norm).max(0.0), ((centre + spread) / norm).min(1.0)))
    }

    /// By how much the threshold moves: 1 = not at all, above = harder to convince; within [`MULTIPLIERS`].
    #[must_use]
    pub fn multiplier(&self) -> f64 {
        let exponent = match self.false_alarms() {
            Some((_, low, _)) if low > TOO_MANY => (low - TOO_MANY) / (0.8 - TOO_MANY),
            Some((_, _, high)) if high < FEW => (high - FEW) / FEW,
            _ => 0.0,
        };
        exponent.exp2().clamp(MULTIPLIERS.0, MULTIPLIERS.1)
    }
}

impl Answers {
    /// Counts one.
    pub fn record(&mut self, good: bool) {
        let count = if good { &mut self.good } else { &mut self.bad };
        *count = count.saturating_add(1);
    }
}

/// Answers about all detectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feedback {
    answers: [Answers; 4],
    /// Answers about the comparison of nodes with their peers.
    #[serde(default)]
    pub peers: Answers,
}

impl Feedback {
    /// Counts an answer about an anomaly that `detectors` voted for.
    pub fn record(&mut self, detectors: &[FleetDetector], good: bool) {
        for detector in detectors {
            self.answers[detector.index()].record(good);
        }
    }

    /// The answers about one detector.
    #[must_use]
    pub fn of(&self, detector: FleetDetector) -> Answers {
        self.answers[detector.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wilsons_interval_is_the_published_one() {
        let (share, low, high) = Answers { good: 8, bad: 2 }.false_alarms().unwrap();
        assert!((share - 0.2).abs() < 1e-12 && (low - 0.0567).abs() < 1e-4 && (high - 0.5098).abs() < 1e-4);
        assert_eq!(Answers::default().false_alarms(), None);
    }

    #[test]
    fn few_answers_change_nothing_and_many_do_what_they_say() {
        assert_eq!(Answers { good: 0, bad: 1 }.multiplier(), 1.0);
        assert_eq!(Answers { good: 3, bad: 1 }.multiplier(), 1.0);
        assert!(Answers { good: 2, bad: 18 }.multiplier() > 1.4);
        assert_eq!(Answers { good: 0, bad: 10_000 }.multiplier(), 1.0_f64.max((1.4_f64).exp2()).min(2.0));
        let trusted = Answers { good: 200, bad: 0 }.multiplier();
        assert!((0.5..1.0).contains(&trusted), "{trusted}");
    }

    #[test]
    fn answers_go_to_those_who_voted() {
        let mut feedback = Feedback::default();
        feedback.record(&[FleetDetector::ZScore], false);
        feedback.record(&[FleetDetector::ZScore, FleetDetector::SeasonalEsd], true);
        assert_eq!(feedback.of(FleetDetector::ZScore), Answers { good: 1, bad: 1 });
        assert_eq!(feedback.of(FleetDetector::SeasonalEsd), Answers { good: 1, bad: 0 });
        assert_eq!(feedback.of(FleetDetector::IsolationForest), Answers::default());
    }

    proptest! {
        #[test]
        fn multipliers_stay_within_bounds_and_rise_with_false_alarms(good: u32, bad in 0..u32::MAX) {
            let at = |bad| Answers { good, bad }.multiplier();
            prop_assert!((MULTIPLIERS.0..=MULTIPLIERS.1).contains(&at(bad)));
            prop_assert!(at(bad) <= at(bad + 1) + 1e-9);
        }
    }
}
