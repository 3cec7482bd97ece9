//! Filter 8: avoids pairs of nodes with a poor record. Needs judged outcomes.

use evenkeel_common::decision::{Step, Verdict};

use super::{Context, Filter};
use crate::snapshot::Move;

/// Holds its place in the order; it answers "not enabled" until this version can judge it.
pub(super) struct Outcome;

impl Filter for Outcome {
    fn step(&self) -> Step {
        Step::Outcome
    }

    fn judge(&self, _: &Move<'_>, _: &Context<'_>) -> Verdict {
        Verdict::NotEnabled
    }
}
