//! Why a piece of a history file is no record: typed, so that screens, logs and tests say the same.

use std::fmt;

/// Longest record that is read, in bytes: the seven fields of a real one take a few hundred.
pub const LONGEST_RECORD: usize = 64 << 10;
/// Deepest nesting within a record. The fields have none; what lies in fields we do not know is passed over.
pub const DEEPEST: u32 = 32;

/// Why a piece of the input is no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A value of another kind stands where a record should.
    NotAnObject {
        /// What it is instead.
        found: &'static str,
    },
    /// The braces match, but what they hold is no JSON.
    NotJson {
        /// What the JSON reader says.
        detail: String,
    },
    /// Text that can not stand in JSON outside quotes.
    Garbage,
    /// The line ends inside quotes.
    OpenQuote,
    /// The next record begins before this one has ended.
    NextBegins,
    /// Longer than [`LONGEST_RECORD`].
    TooLong,
    /// Nested deeper than [`DEEPEST`].
    TooDeep,
    /// The input ends before the record does.
    CutOff,
    /// A field that every record needs is not there.
    Missing {
        /// Which.
        field: &'static str,
    },
    /// A field holds what it can not.
    Bad {
        /// Which.
        field: &'static str,
        /// What it holds, cut.
        found: String,
        /// What it may hold.
        expected: &'static str,
    },
}

impl Fault {
    /// Stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotAnObject { .. } => "not_an_object",
            Self::NotJson { .. } => "not_json",
            Self::Garbage => "garbage",
            Self::OpenQuote => "open_quote",
            Self::NextBegins => "next_begins",
            Self::TooLong => "too_long",
            Self::TooDeep => "too_deep",
            Self::CutOff => "cut_off",
            Self::Missing { .. } => "missing",
            Self::Bad { .. } => "bad",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnObject { found } => write!(f, "expected a record in braces, found {found}"),
            Self::NotJson { detail } => write!(f, "not JSON: {detail}"),
            Self::Garbage => f.write_str("not JSON: text outside quotes"),
            Self::OpenQuote => f.write_str("not JSON: the line ends inside quotes"),
            Self::NextBegins => f.write_str("not JSON: the next record begins before this one ends"),
            Self::TooLong => write!(f, "longer than {} KiB", LONGEST_RECORD >> 10),
            Self::TooDeep => write!(f, "nested deeper than {DEEPEST} levels"),
            Self::CutOff => f.write_str("the input ends in the middle of it"),
            Self::Missing { field } => write!(f, "no {field}"),
            Self::Bad { field, found, expected } => write!(f, "{field} is {found}; expected {expected}"),
        }
    }
}
