//! Filter 12: a guest that has disappointed wherever it went stays.
//!
//! The rule: filtered when the record of the guest over all pairs of nodes is poor (see [`super::track`]). Some guests
//! never migrate well: they change memory faster than it is sent, or sit where their clients are. A record with some
//! poor outcomes that is not poor yet ranks the guest lower: another one that helps as much goes first.

use evenkeel_common::decision::{Step, Verdict};
use evenkeel_common::id::Vmid;
use evenkeel_common::reason::Reason;

use super::{Context, Facts, Filter, must_leave};
use crate::policy::Policy;
use crate::snapshot::Move;

pub(super) struct GuestSuccess;

/// What an improvement by moving this guest is worth when moves are ranked: 1.0 with a clean record, down to 0.5.
pub(crate) fn rank_factor(guest: Vmid, facts: &Facts, policy: &Policy) -> f64 {
    if policy.toggles().guest_success { facts.tracks.of_guest(guest).rank() } else { 1.0 }
}

impl Filter for GuestSuccess {
    fn step(&self) -> Step {
        Step::GuestSuccess
    }

    fn judge(&self, migration: &Move<'_>, context: &Context<'_>) -> Verdict {
        if !context.policy.toggles().guest_success {
            return Verdict::NotEnabled;
        }
        if let Some(leaving) = must_leave(migration) {
            return Verdict::Pass(Some(leaving));
        }
        let guest = migration.guest.vmid;
        let track = context.facts.tracks.of_guest(guest);
        let (poor, judged) = (track.poor, track.judged);
        if track.is_poor() {
            Verdict::Filtered(Reason::GuestPoor { poor, judged, rate_percent: 100.0 * track.rate() })
        } else if poor > 0 {
            let rank_percent = 100.0 * rank_factor(guest, context.facts, context.policy);
            Verdict::Pass(Some(Reason::GuestRankedLower { poor, judged, rank_percent }))
        } else {
            Verdict::PASS
        }
    }
}
