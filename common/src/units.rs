//! Numbers with a meaning: bounded, never NaN, shown the way admins read them.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A number outside what its unit allows.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{value} is not a valid {unit}: expected {low} to {high}")]
pub struct OutOfRange {
    /// What was given; may be NaN.
    pub value: f64,
    /// Name of the unit.
    pub unit: &'static str,
    /// Lowest good value.
    pub low: f64,
    /// Highest good value.
    pub high: f64,
}

macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident, $unit:literal, $low:expr, $high:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "f64", into = "f64")]
        pub struct $name(f64);

        impl $name {
            /// The lowest value.
            pub const MIN: Self = Self($low);
            /// The highest value.
            pub const MAX: Self = Self($high);

            /// Checks and wraps.
            ///
            /// # Errors
            /// [`OutOfRange`] outside the unit's bounds, NaN included.
            pub fn new(value: f64) -> Result<Self, OutOfRange> {
                // Asks for the good range: `value < low || value > high` lets NaN through.
                if ($low..=$high).contains(&value) {
                    Ok(Self(value))
                } else {
                    Err(OutOfRange { value, unit: $unit, low: $low, high: $high })
                }
            }

            /// Pulls a finite value into the bounds; NaN becomes the lowest.
            #[must_use]
            pub fn clamped(value: f64) -> Self {
                Self(if value.is_nan() { $low } else { value.clamp($low, $high) })
            }

            /// The number.
            #[must_use]
            pub fn get(self) -> f64 {
                self.0
            }
        }

        impl TryFrom<f64> for $name {
            type Error = OutOfRange;
            fn try_from(value: f64) -> Result<Self, OutOfRange> {
                Self::new(value)
            }
        }

        impl From<$name> for f64 {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    };
}

bounded!(
    /// A share of a whole in percent, 0.0 to 100.0. Never NaN.
    Percent, "percentage", 0.0, 100.0
);
bounded!(
    /// A load or health score, 0.0 to 100.0. Never NaN.
    Score, "score", 0.0, 100.0
);
bounded!(
    /// A probability, 0.0 to 1.0. Never NaN.
    Probability, "probability", 0.0, 1.0
);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.1} %", self.0))
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.1}", self.0))
    }
}

impl Percent {
    /// This share of `whole`, rounded to the nearest byte.
    #[must_use]
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn of(self, whole: Bytes) -> Bytes {
        Bytes((whole.0 as f64 * self.0 / 100.0).round() as u64)
    }
}

/// An amount of memory or data in bytes. Shown with binary prefixes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Whole mebibytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// Whole gibibytes.
    #[must_use]
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// As a float, for arithmetic that mixes units; exact below 8 PiB.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn as_f64(self) -> f64 {
        self.0 as f64
    }

    /// The whole bytes of a figure; nothing for one that is negative or no number, held at the largest value.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub const fn from_f64(bytes: f64) -> Self {
        Self(bytes as u64)
    }

    /// Difference, zero when `other` is larger.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Sum, held at the largest value.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::iter::Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self(0), Self::saturating_add)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        let (mut value, mut unit) = (self.as_f64() / 1024.0, 0);
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        f.pad(&format!("{value:.1} {}", UNITS[unit]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_never_a_percentage() {
        assert!(Percent::new(f64::NAN).is_err());
        assert!(Percent::new(-0.1).is_err() && Percent::new(100.1).is_err());
        assert!(Percent::new(0.0).is_ok() && Percent::new(100.0).is_ok());
        assert_eq!(Score::clamped(f64::NAN), Score::MIN);
        assert!(serde_json::from_str::<Percent>("101").is_err());
    }

    #[test]
    fn bytes_read_well() {
        for (n, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_048_575, "1.0 MiB"), (6 << 30, "6.0 GiB")]
        {
            assert_eq!(Bytes(n).to_string(), text);
        }
        assert_eq!(Percent::clamped(15.0).of(Bytes::gib(64)), Bytes(10_307_921_510));
    }
}
