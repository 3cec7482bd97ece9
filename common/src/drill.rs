//! Fault drills: readings distorted on purpose, to see whether the alarm reaches those it should.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::Vmid;

/// Longest drill, in milliseconds: one hour. Agents end it then, whatever they are told.
pub const LONGEST_MS: u64 = 3_600_000;

/// What a drill makes worse, and the unit of its amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrillKind {
    /// Milliseconds more of probe latency and disk await.
    Delay,
    /// Errors and drops a second more on every NIC, and as many points of probe loss.
    Error,
    /// Points of CPU more; of a guest: cores.
    Cpu,
    /// Points of memory more; of a guest: GiB.
    Memory,
}

impl DrillKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Delay, Self::Error, Self::Cpu, Self::Memory];

    /// Stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delay => "delay",
            Self::Error => "error",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }

    /// Largest amount.
    #[must_use]
    pub const fn largest(self) -> f64 {
        match self {
            Self::Delay => 60_000.0,
            Self::Error => 100_000.0,
            Self::Cpu => 1_024.0,
            Self::Memory => 4_096.0,
        }
    }

    /// Whether a guest has series of this kind.
    #[must_use]
    pub const fn of_guests(self) -> bool {
        matches!(self, Self::Cpu | Self::Memory)
    }
}

impl fmt::Display for DrillKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DrillKind {
    type Err = BadDrill;
    fn from_str(name: &str) -> Result<Self, BadDrill> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or(BadDrill::Kind)
    }
}

/// A drill on one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drill {
    /// Given by the aggregator, unique.
    pub id: String,
    /// What it makes worse.
    pub kind: DrillKind,
    /// Which guest; `None` = the node itself.
    pub guest: Option<Vmid>,
    /// By how much, in the unit of its kind; finite and above zero.
    pub amount: f64,
    /// How long it lasts, or how much longer, in milliseconds.
    pub ms: u64,
}

/// Why a drill can not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDrill {
    /// Its kind.
    #[error("there is no such drill: expected delay, error, cpu or memory")]
    Kind,
    /// Its amount.
    #[error("the amount must be above zero and sensible for its kind")]
    Amount,
    /// Its subject.
    #[error("delay and error are of a node; leave the guest out")]
    NotOfGuests,
    /// Its length.
    #[error("a drill lasts from a second to an hour")]
    Length,
}

impl Drill {
    /// Whether it can be done.
    ///
    /// # Errors
    /// [`BadDrill`].
    pub fn check(&self) -> Result<(), BadDrill> {
        if !(self.amount > 0.0 && self.amount <= self.kind.largest()) {
            return Err(BadDrill::Amount);
        }
        if self.guest.is_some() && !self.kind.of_guests() {
            return Err(BadDrill::NotOfGuests);
        }
        if !(1_000..=LONGEST_MS).contains(&self.ms) {
            return Err(BadDrill::Length);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused() {
        let good = Drill { id: "1".into(), kind: DrillKind::Cpu, guest: None, amount: 30.0, ms: 60_000 };
        assert_eq!(good.check(), Ok(()));
        for amount in [0.0, -1.0, f64::NAN, f64::INFINITY, 2_000.0] {
            assert_eq!(Drill { amount, ..good.clone() }.check(), Err(BadDrill::Amount), "{amount}");
        }
        let guest = Vmid::new(100).ok();
        assert_eq!(Drill { guest, ..good.clone() }.check(), Ok(()));
        let delay = Drill { guest, kind: DrillKind::Delay, ..good.clone() };
        assert_eq!(delay.check(), Err(BadDrill::NotOfGuests));
        for ms in [0, 999, LONGEST_MS + 1, u64::MAX] {
            assert_eq!(Drill { ms, ..good.clone() }.check(), Err(BadDrill::Length), "{ms}");
        }
        for kind in DrillKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert!("fire".parse::<DrillKind>().is_err());
    }
}
