//! Filter 7: waits while the source's load falls by itself. Needs a significance test on the source's history.

use evenkeel_common::decision::{Step, Verdict};

use super::{Context, Filter};
use crate::snapshot::Move;

/// Holds its place in the order; it answers "not enabled" until this version can judge it.
pub(super) struct Trend;

impl Filter for Trend {
    fn step(&self) -> Step {
        Step::Trend
    }

    fn judge(&self, _: &Move<'_>, _: &Context<'_>) -> Verdict {
        Verdict::NotEnabled
    }
}
