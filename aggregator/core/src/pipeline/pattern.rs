//! Filter 9: not in the daily peak.
//!
//! The rule: deferred while the guest (a cyclical one), the source or the target is in its learned daily peak (see
//! [`crate::score::season`] for what that is), because a migration costs most where there is least to spare; the reason
//! names the next hours without peak, in the cluster's local time. Not deferred when the source can not wait (see
//! [`crate::urgent`]): then the peak is the very reason to move.

use evenkeel_common::decision::{Step, Verdict};
use evenkeel_common::guest::ProfileClass;
use evenkeel_common::reason::Reason;

use super::{Context, Filter};
use crate::score::season::{Day, local_second};
use crate::snapshot::Move;
use crate::urgent::urgent;

pub(super) struct Pattern;

impl Filter for Pattern {
    fn step(&self) -> Step {
        Step::Pattern
    }

    fn judge(&self, migration: &Move<'_>, context: &Context<'_>) -> Verdict {
        let Move { guest, source, target, source_index, target_index, .. } = *migration;
        let (snapshot, days) = (context.snapshot, &context.facts.days);
        if !context.policy.toggles().pattern {
            return Verdict::NotEnabled;
        }
        if let Some(reason) = urgent(source, &context.fleet.nodes[source_index], context.policy) {
            return Verdict::Pass(Some(reason));
        }
        if context.facts.bundles.follows(migration.guest_index).is_some() {
            return Verdict::PASS; // A group that is split waits for nothing.
        }
        let peak = |day: Option<Day>| {
            let peak = day?.peak(snapshot.at)?;
            let [from_s, until_s] =
                [peak.good_from, peak.good_until].map(|hour| local_second(hour, snapshot.utc_offset_s));
            Some((peak.usual, peak.mean, from_s, until_s))
        };
        let cyclical = guest.profile.as_ref().is_some_and(|profile| profile.class == ProfileClass::Cyclical);
        if let Some((cores, mean_cores, from_s, until_s)) = peak(Day::of_guest(guest).filter(|_| cyclical)) {
            return Verdict::Deferred(Reason::PeakGuest { cores, mean_cores, from_s, until_s });
        }
        if let Some((cores, mean_cores, from_s, until_s)) = peak(days[source_index]) {
            let node = source.id.clone();
            return Verdict::Deferred(Reason::PeakSource { node, cores, mean_cores, from_s, until_s });
        }
        if let Some((cores, mean_cores, from_s, until_s)) = peak(days[target_index]) {
            let node = target.id.clone();
            return Verdict::Deferred(Reason::PeakTarget { node, cores, mean_cores, from_s, until_s });
        }
        Verdict::PASS
    }
}
