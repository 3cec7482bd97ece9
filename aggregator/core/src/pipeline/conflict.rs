//! Filter 5: moves that contradict each other. Always on.
//!
//! The guest may be on its way already, or this run's earlier moves have filled the target: alone the move would be
//! fine, together they would overload it. That the run recommends a guest twice can not be: who is decided on leaves
//! the search.

use evenkeel_common::decision::{Step, Verdict};
use evenkeel_common::reason::Reason;

use super::improvement::over_limit;
use super::{Context, Filter};
use crate::bundle;
use crate::repair::Rules;
use crate::snapshot::Move;

pub(super) struct Conflict;

impl Filter for Conflict {
    fn step(&self) -> Step {
        Step::Conflict
    }

    fn judge(&self, migration: &Move<'_>, context: &Context<'_>) -> Verdict {
        let guest = migration.guest.vmid;
        if let Some(flight) = context.snapshot.in_flight.iter().find(|flight| flight.guest == guest) {
            return Verdict::Filtered(Reason::ConflictInFlight {
                guest,
                target: flight.to.clone(),
                by: flight.by,
            });
        }
        let source = bundle::source_then(&context.rules(), migration);
        let over = |rules: &Rules<'_>| {
            let (_, target) = bundle::moved(rules, migration.guest_index, migration.target_index);
            over_limit(&source, &target, context.policy)
        };
        let rules = context.rules();
        let Some((resource, percent, limit_percent)) = over(&rules) else { return Verdict::PASS };
        // The target as it was, the source as it will be: a guest that has left it heats neither.
        if over(&Rules { fleet: context.before, ..rules }).is_some() {
            return Verdict::PASS; // Too much even alone: filter 13 says so.
        }
        let target = migration.target.id.clone();
        Verdict::Filtered(Reason::ConflictOverload { target, resource, percent, limit_percent })
    }
}
