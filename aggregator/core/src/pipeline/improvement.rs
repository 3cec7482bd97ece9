//! Filter 13: the cluster must be measurably better after the move, and the target within its limits.
//!
//! Memory with its reserve is a hard limit. CPU, network (where known) and pressure are limits too, except that a target may go over its
//! threshold while it stays below what the source had: on a cluster that is full everywhere, evening out helps, and
//! no move may make a hot spot as hot as the one it relieves.
//!
//! A cluster that could lose any of its nodes is to stay so: a move after which more guests would find no memory if
//! their node failed has to gain as much more as those guests would weigh on a node that is to be emptied.

use evenkeel_common::decision::{Resource, Step, Verdict};
use evenkeel_common::reason::Reason;
use evenkeel_common::units::Bytes;

use super::{Context, Filter, must_leave};
use crate::bundle;
use crate::policy::Policy;
use crate::recommend;
use crate::repair::Rules;
use crate::score::STRANDED;
use crate::score::fleet::NodeLoad;
use crate::score::spare::Supposed;
use crate::snapshot::Move;

/// Percent of what its NICs can carry that a target is not to be brought over.
const NETWORK_LIMIT: f64 = 80.0;

pub(super) struct Improvement;

impl Filter for Improvement {
    fn step(&self) -> Step {
        Step::Improvement
    }

    fn judge(&self, migration: &Move<'_>, context: &Context<'_>) -> Verdict {
        let Move { guest_index, target_index, .. } = *migration;
        let (rules, policy) = (context.rules(), context.policy);
        let target = migration.target.id.clone();
        if let Some(short) = too_full(&rules, guest_index, target_index) {
            return Verdict::Filtered(short);
        }
        let (_, after) = bundle::moved(&rules, guest_index, target_index);
        let source = bundle::source_then(&rules, migration);
        let over = over_limit(&source, &after, policy).filter(|_| !migration.source.maintenance);
        if let Some((resource, percent, limit_percent)) = over {
            return Verdict::Filtered(Reason::TargetOverLimit { target, resource, percent, limit_percent });
        }
        let before = recommend::objective(&rules);
        let improvement = recommend::improvement(&rules, guest_index, target_index);
        let after = before - improvement;
        let needed = match must_leave(migration) {
            Some(_) => 0.0,
            None => recommend::needed(&rules, guest_index, policy, context.price),
        };
        if improvement < needed {
            return Verdict::Filtered(Reason::ImprovementTooSmall { before, after, improvement, needed });
        }
        let lost = spare_lost(&rules, guest_index, target_index, improvement, needed);
        if let Some(lost) = lost.filter(|_| must_leave(migration).is_none()) {
            return Verdict::Filtered(lost);
        }
        Verdict::Pass(Some(Reason::Improvement { before, after, improvement }))
    }
}

/// That a move leaves guests without refuge, and does not gain enough for that.
fn spare_lost(
    rules: &Rules<'_>,
    guest: usize,
    target: usize,
    improvement: f64,
    needed: f64,
) -> Option<Reason> {
    let stranded = |supposed: Supposed<'_>| supposed.stranded().iter().map(|node| node.guests).sum::<u32>();
    let after = stranded(Supposed::moved(rules.fleet, rules.facts.bundles.unit(&guest), target));
    if after == 0 {
        return None;
    }
    let guests = after.saturating_sub(stranded(Supposed::as_is(rules.fleet)));
    let needed = needed + STRANDED * f64::from(guests);
    (improvement < needed).then_some(Reason::SpareLost { guests, improvement, needed })
}

/// Why a target has too little memory for a guest and who moves with it; `None` when its reserve is kept.
pub(crate) fn too_full(rules: &Rules<'_>, guest: usize, target: usize) -> Option<Reason> {
    let short = !rules.fleet.fits(rules.facts.bundles.unit(&guest), target);
    let (_, after) = bundle::moved(rules, guest, target);
    short.then(|| Reason::TargetMemory {
        target: rules.snapshot.nodes[target].id.clone(),
        free_after: Bytes::from_f64(after.memory - after.memory_used),
        reserve: Bytes::from_f64(rules.fleet.reserve_of(target)),
    })
}

/// The limit that a target (as it will be) would exceed, for a source as it is: resource, percent after the move, limit in percent.
pub(super) fn over_limit(
    source: &NodeLoad,
    target: &NodeLoad,
    policy: &Policy,
) -> Option<(Resource, f64, f64)> {
    let limits = [
        (Resource::Cpu, target.ahead_percent(), policy.cpu_threshold, source.ahead_percent()),
        (Resource::Network, 100.0 * target.network(), NETWORK_LIMIT, 100.0 * source.network()),
        (Resource::Pressure, target.pressure_percent(), policy.pressure_threshold, source.pressure_percent()),
    ];
    let over = limits.iter().find(|(_, after, limit, had)| after > limit && after >= had);
    over.map(|&(resource, after, limit, _)| (resource, after, limit))
}
