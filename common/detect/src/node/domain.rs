//! In which unit a channel is compared: by difference, or by ratio when its values are heavy-tailed.
//!
//! Rates and times are near log-normal: their noise grows with their level, and a variance learned from them is
//! that of their bursts. Where nothing is known about the unit (a column of a table), the values decide: never
//! negative, and spread over more than a quarter of their average. Everything behind this stage works on numbers of
//! the order of one, which is what makes 32 bits enough.

use serde::{Deserialize, Serialize};

/// Values after which a first choice is made.
const FIRST_CHOICE: u32 = 32;
/// Spread over average from which a non-negative channel is compared by ratio.
const HEAVY: f64 = 0.25;
/// Bound of what leaves this stage.
const BOUND: f64 = 1e9;

/// The choice, and what it rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Domain {
    seen: u32,
    mean: f64,
    /// Sum of squared differences from the average (Welford 1962).
    squares: f64,
    lowest: f64,
    chosen: Option<Unit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Unit {
    Linear { zero: f64, unit: f64 },
    Log { unit: f64 },
}

impl Domain {
    pub(super) fn new() -> Self {
        Self { seen: 0, mean: 0.0, squares: 0.0, lowest: f64::INFINITY, chosen: None }
    }

    /// A value in the domain, once there is one. True when the domain has just been chosen or changed: what was
    /// learned before is void. `day`: steps of a day, after which the choice is made for good.
    pub(super) fn enter(&mut self, value: f64, day: u32) -> (Option<f32>, bool) {
        let value = value.clamp(-1e150, 1e150);
        let mut changed = false;
        if self.seen < day.max(FIRST_CHOICE) {
            self.seen += 1;
            let offset = value - self.mean;
            self.mean += offset / f64::from(self.seen);
            self.squares += offset * (value - self.mean);
            self.lowest = self.lowest.min(value);
            if self.seen == FIRST_CHOICE || self.seen == day {
                changed = self.choose();
            }
        }
        let entered = self.chosen.map(|unit| {
            let entered = match unit {
                Unit::Linear { zero, unit } => (value - zero) / unit,
                Unit::Log { unit } => (value.max(0.0) / unit).ln_1p(),
            };
            entered.clamp(-BOUND, BOUND) as f32
        });
        (entered, changed)
    }

    fn choose(&mut self) -> bool {
        let spread = (self.squares / f64::from(self.seen.max(1))).sqrt();
        let positive = |value: f64, otherwise: f64| if value > 1e-300 { value } else { otherwise };
        let heavy = self.lowest >= 0.0 && spread > HEAVY * self.mean;
        let unit = if heavy {
            Unit::Log { unit: positive(self.mean, 1.0) }
        } else {
            // What rounding leaves of a constant is no spread.
            let rounding = 1e-9 * self.mean.abs();
            let unit = if spread > rounding { spread } else { self.mean.abs() };
            Unit::Linear { zero: self.mean, unit: positive(unit, 1.0) }
        };
        let changed = match (self.chosen, unit) {
            // A second look only corrects the kind; a new unit of the same kind would void a day's learning.
            (Some(Unit::Linear { .. }), Unit::Linear { .. }) | (Some(Unit::Log { .. }), Unit::Log { .. }) => {
                false
            }
            _ => true,
        };
        if changed {
            self.chosen = Some(unit);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entered(values: impl IntoIterator<Item = f64>) -> Vec<f32> {
        let mut domain = Domain::new();
        values.into_iter().filter_map(|value| domain.enter(value, 144).0).collect()
    }

    #[test]
    fn heavy_tails_are_compared_by_ratio_and_gauges_by_difference() {
        let bursts =
            entered((0..40).map(|i| if i % 8 == 0 { 1000.0 } else { 1.0 }).chain([10_000.0, 100_000.0]));
        let [.., a, b] = bursts[..] else { panic!("{bursts:?}") };
        assert!((b - a - 10f32.ln()).abs() < 0.1, "{a} {b}");
        let gauge = entered((0..40).map(|i| 50.0 + f64::from(i % 2)).chain([60.0, 70.0, 80.0]));
        let [.., a, b, c] = gauge[..] else { panic!("{gauge:?}") };
        assert!((c - b - (b - a)).abs() < 1e-3 && b > a);
    }

    #[test]
    fn nothing_leaves_that_is_not_finite() {
        for level in [0.0, f64::MAX, f64::MIN_POSITIVE, -1e300] {
            let wild = [f64::MAX, f64::MIN, 1e-320, 0.0];
            let values = entered(std::iter::repeat_n(level, 40).chain(wild));
            assert!(values.len() > 10 && values.iter().all(|v| v.is_finite()), "{level} {values:?}");
        }
    }
}
