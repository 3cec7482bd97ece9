//! Filter 12: avoids guests with a poor record. Needs judged outcomes.

use evenkeel_common::decision::{Step, Verdict};

use super::{Context, Filter};
use crate::snapshot::Move;

/// Holds its place in the order; it answers "not enabled" until this version can judge it.
pub(super) struct GuestSuccess;

impl Filter for GuestSuccess {
    fn step(&self) -> Step {
        Step::GuestSuccess
    }

    fn judge(&self, _: &Move<'_>, _: &Context<'_>) -> Verdict {
        Verdict::NotEnabled
    }
}
