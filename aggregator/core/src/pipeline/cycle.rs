//! Filter 3: no circle A->B->C->A within `cycle_window_hours`. A circle means that the moves in it gained nothing.
//! From a node that is to be emptied a guest may go anywhere: of two nodes there is only the one it came from.

use std::time::Duration;

use evenkeel_common::decision::{Step, Verdict};
use evenkeel_common::reason::Reason;

use super::{Context, Filter, must_leave};
use crate::snapshot::Move;

pub(super) struct Cycle {
    pub(super) enabled: bool,
}

impl Filter for Cycle {
    fn step(&self) -> Step {
        Step::Cycle
    }

    fn judge(&self, migration: &Move<'_>, context: &Context<'_>) -> Verdict {
        if !self.enabled {
            return Verdict::NotEnabled;
        }
        if let Some(leaving) = must_leave(migration) {
            return Verdict::Pass(Some(leaving));
        }
        let hours = context.policy.intelligent_migrations.cycle_window_hours;
        let window = Duration::from_secs(3600 * u64::from(hours));
        let moves: Vec<_> = context.moves_of(migration.guest.vmid, window).collect();
        // The latest stay on the target gives the shortest circle.
        let Some(start) = moves.iter().rposition(|past| past.from == migration.target.id) else {
            return Verdict::PASS;
        };
        let mut path = vec![migration.target.id.clone()];
        for past in &moves[start..] {
            // What moved it in between may not be on record; where it came from is a stop then too.
            if path.last() != Some(&past.from) {
                path.push(past.from.clone());
            }
            path.push(past.to.clone());
        }
        if path.last() != Some(&migration.source.id) {
            path.push(migration.source.id.clone());
        }
        path.push(migration.target.id.clone());
        Verdict::Filtered(Reason::Cycle { path, window_h: hours.into() })
    }
}
