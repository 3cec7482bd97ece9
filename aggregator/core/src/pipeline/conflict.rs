//! Filter 5: moves that contradict each other. Always on.
//!
//! The guest may be on its way already, or this run's earlier moves have filled the target: alone the move would be
//! fine, together they would overload it.

use evenkeel_common::decision::{Step, Verdict};
use evenkeel_common::reason::Reason;

use super::improvement::over_limit;
use super::{Context, Filter};
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
        // Its place in this run differs from where it was: an earlier move of the run took it.
        if context.before.place[migration.guest_index] != migration.source_index {
            return Verdict::Filtered(Reason::ConflictSameGuest {
                guest,
                target: migration.source.id.clone(),
            });
        }
        let Some((resource, percent, limit_percent)) = over_limit(migration, context.fleet, context.policy)
        else {
            return Verdict::PASS;
        };
        if over_limit(migration, context.before, context.policy).is_some() {
            return Verdict::PASS; // Too much even alone: filter 13 says so.
        }
        let target = migration.target.id.clone();
        Verdict::Filtered(Reason::ConflictOverload { target, resource, percent, limit_percent })
    }
}
