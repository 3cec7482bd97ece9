//! Filter 4: the recommendation's confidence against `confidence_threshold`. Needs calibrated confidence first.

use evenkeel_common::decision::{Step, Verdict};

use super::{Context, Filter};
use crate::snapshot::Move;

/// Holds its place in the order; it answers "not enabled" until this version can judge it.
pub(super) struct Confidence;

impl Filter for Confidence {
    fn step(&self) -> Step {
        Step::Confidence
    }

    fn judge(&self, _: &Move<'_>, _: &Context<'_>) -> Verdict {
        Verdict::NotEnabled
    }
}
