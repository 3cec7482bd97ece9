//! Filter 11: a move must earn its minutes.
//!
//! The rule: improvement over cost, both in node-score points, below `min_cost_benefit_ratio` (1.0) is filtered. One
//! expected minute of migration costs one point: memory and local disks have to cross `migration_link_mbps`, memory
//! more than once. A guest on a node that is to be emptied is not weighed: it has to leave at any price, and what
//! the points would say is how large it is.

use evenkeel_common::decision::{Step, Verdict};
use evenkeel_common::reason::Reason;

use super::{Context, Filter, must_leave};
use crate::recommend;
use crate::snapshot::Move;

pub(super) struct CostBenefit;

impl Filter for CostBenefit {
    fn step(&self) -> Step {
        Step::CostBenefit
    }

    fn judge(&self, migration: &Move<'_>, context: &Context<'_>) -> Verdict {
        let Move { guest_index, target_index, .. } = *migration;
        let policy = context.policy;
        if !policy.toggles().cost_benefit {
            return Verdict::NotEnabled;
        }
        if let Some(leaving) = must_leave(migration) {
            return Verdict::Pass(Some(leaving));
        }
        let minutes = recommend::minutes(&context.rules(), guest_index, policy);
        let improvement = recommend::improvement(&context.rules(), guest_index, target_index);
        // A migration always takes some time, so this divides by more than zero.
        let ratio = improvement / minutes;
        let needed = policy.intelligent_migrations.min_cost_benefit_ratio;
        if ratio >= needed {
            Verdict::Pass(Some(Reason::CostWorthIt { improvement, minutes, ratio, needed }))
        } else {
            Verdict::Filtered(Reason::CostTooHigh { improvement, minutes, ratio, needed })
        }
    }
}
