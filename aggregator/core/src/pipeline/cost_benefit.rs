//! Filter 11: improvement over cost against `min_cost_benefit_ratio`. Needs measured costs.

use evenkeel_common::decision::{Step, Verdict};

use super::{Context, Filter};
use crate::snapshot::Move;

/// Holds its place in the order; it answers "not enabled" until this version can judge it.
pub(super) struct CostBenefit;

impl Filter for CostBenefit {
    fn step(&self) -> Step {
        Step::CostBenefit
    }

    fn judge(&self, _: &Move<'_>, _: &Context<'_>) -> Verdict {
        Verdict::NotEnabled
    }
}
