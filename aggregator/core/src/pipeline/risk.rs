//! Filter 6: high-risk moves need `risk_confidence_multiplier` times the confidence. Needs calibrated confidence first.

use evenkeel_common::decision::{Step, Verdict};

use super::{Context, Filter};
use crate::snapshot::Move;

/// Holds its place in the order; it answers "not enabled" until this version can judge it.
pub(super) struct Risk;

impl Filter for Risk {
    fn step(&self) -> Step {
        Step::Risk
    }

    fn judge(&self, _: &Move<'_>, _: &Context<'_>) -> Verdict {
        Verdict::NotEnabled
    }
}
