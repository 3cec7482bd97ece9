//! Wire to vocabulary and back, a file per noun, round-trip tested.
//!
//! From the vocabulary to the wire nothing can fail. The other way is the border of the trusted world: what
//! arrives is checked once, here, and an [`InvalidMessage`] names the field that is wrong.

mod anomaly;
mod drill;
mod event;
mod guest;
mod node;
mod series;

use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Probability;

/// Longest guest name taken, in characters.
pub const MAX_NAME_CHARS: usize = 128;
/// Most tags taken of a guest.
pub const MAX_TAGS: usize = 64;
/// Longest tag, collector name or other short word taken, in characters.
pub const MAX_WORD_CHARS: usize = 64;
/// Longest sentence taken (fault messages, blind spots), in characters.
pub const MAX_MESSAGE_CHARS: usize = 1024;
/// Most votes taken of an anomaly, and most blind spots of a node.
pub const MAX_ITEMS: usize = 64;

/// Why a message is not what it claims to be. The sender is broken, hostile, or speaks a newer protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidMessage {
    /// The field, as in the protocol: `anomaly.confidence`.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A field that must be there is not.
    #[error("is missing")]
    Missing,
    /// A number outside its range, or not finite.
    #[error("is out of range")]
    OutOfRange,
    /// A value of an enumeration that this version does not know.
    #[error("is not known to this version")]
    Unknown,
    /// Too many characters or items.
    #[error("is longer than {0}")]
    TooLong(usize),
}

fn invalid(field: &'static str, problem: Problem) -> InvalidMessage {
    InvalidMessage { field, problem }
}

fn present<T>(field: &'static str, value: Option<T>) -> Result<T, InvalidMessage> {
    value.ok_or(invalid(field, Problem::Missing))
}

fn finite(field: &'static str, value: f64) -> Result<f64, InvalidMessage> {
    if value.is_finite() { Ok(value) } else { Err(invalid(field, Problem::OutOfRange)) }
}

fn probability(field: &'static str, value: f64) -> Result<Probability, InvalidMessage> {
    Probability::new(value).map_err(|_| invalid(field, Problem::OutOfRange))
}

/// Checks a text's length in characters. Bytes are compared first: a megabyte is not counted through.
fn text(field: &'static str, value: String, most: usize) -> Result<String, InvalidMessage> {
    if value.len() <= most || (value.len() <= 4 * most && value.chars().count() <= most) {
        Ok(value)
    } else {
        Err(invalid(field, Problem::TooLong(most)))
    }
}

fn at_most<T>(field: &'static str, items: Vec<T>, most: usize) -> Result<Vec<T>, InvalidMessage> {
    if items.len() <= most { Ok(items) } else { Err(invalid(field, Problem::TooLong(most))) }
}

fn time(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

/// What the round-trip tests of the nouns share.
#[cfg(test)]
mod strategies {
    use evenkeel_common::id::Vmid;
    use evenkeel_common::time::Timestamp;
    use evenkeel_common::units::Probability;
    use proptest::prelude::*;

    pub(super) fn vmid() -> impl Strategy<Value = Vmid> {
        (100u32..=999_999_999).prop_map(|n| Vmid::new(n).unwrap())
    }

    pub(super) fn timestamp() -> impl Strategy<Value = Timestamp> {
        any::<i64>().prop_map(Timestamp::from_millis)
    }

    pub(super) fn probability() -> impl Strategy<Value = Probability> {
        (0.0..=1.0).prop_map(Probability::clamped)
    }

    pub(super) fn finite() -> impl Strategy<Value = f64> {
        prop_oneof![-1e12..1e12, Just(f64::MAX), Just(f64::MIN_POSITIVE), Just(0.0)]
    }

    /// Up to `most` characters of any script.
    pub(super) fn text(most: usize) -> impl Strategy<Value = String> {
        prop::collection::vec(any::<char>(), 0..=most).prop_map(String::from_iter)
    }
}
