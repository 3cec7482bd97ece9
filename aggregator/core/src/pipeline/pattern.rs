//! Filter 9: waits out learned daily peaks. Needs peak windows learned in local time.

use evenkeel_common::decision::{Step, Verdict};

use super::{Context, Filter};
use crate::snapshot::Move;

/// Holds its place in the order; it answers "not enabled" until this version can judge it.
pub(super) struct Pattern;

impl Filter for Pattern {
    fn step(&self) -> Step {
        Step::Pattern
    }

    fn judge(&self, _: &Move<'_>, _: &Context<'_>) -> Verdict {
        Verdict::NotEnabled
    }
}
