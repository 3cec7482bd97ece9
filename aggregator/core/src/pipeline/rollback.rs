//! Filter 2: not back to the node the guest just left.

use std::time::Duration;

use evenkeel_common::decision::{Step, Verdict};
use evenkeel_common::reason::Reason;

use super::{Context, Filter, must_leave};
use crate::snapshot::Move;

/// Hours a left node stays left. A hard rule costs nothing on real traces (measured with the simulator's policies).
const WINDOW_H: u32 = 48;

pub(super) struct Rollback;

impl Filter for Rollback {
    fn step(&self) -> Step {
        Step::Rollback
    }

    fn judge(&self, migration: &Move<'_>, context: &Context<'_>) -> Verdict {
        if let Some(leaving) = must_leave(migration) {
            return Verdict::Pass(Some(leaving));
        }
        let window = Duration::from_secs(3600 * u64::from(WINDOW_H));
        match context.moves_of(migration.guest.vmid, window).next_back() {
            Some(last) if last.from == migration.target.id => Verdict::Filtered(Reason::Rollback {
                node: last.from.clone(),
                hours_ago: context.minutes_since(last.at) / 60.0,
                window_h: WINDOW_H.into(),
            }),
            _ => Verdict::PASS,
        }
    }
}
