//! Filter 13: the cluster must be measurably better after the move, and the target within its limits.
//!
//! Memory with its reserve is a hard limit. CPU and pressure are limits too, except that a target may go over its
//! threshold while it stays below what the source had: on a cluster that is full everywhere, evening out helps, and
//! no move may make a hot spot as hot as the one it relieves.

use evenkeel_common::decision::{Resource, Step, Verdict};
use evenkeel_common::reason::Reason;
use evenkeel_common::units::Bytes;

use super::{Context, Filter, must_leave};
use crate::policy::Policy;
use crate::recommend;
use crate::score::fleet::Fleet;
use crate::snapshot::Move;

pub(super) struct Improvement;

impl Filter for Improvement {
    fn step(&self) -> Step {
        Step::Improvement
    }

    fn judge(&self, migration: &Move<'_>, context: &Context<'_>) -> Verdict {
        let Move { guest_index, target_index, .. } = *migration;
        let (fleet, policy) = (context.fleet, context.policy);
        let target = migration.target.id.clone();
        if !fleet.fits(guest_index, target_index) {
            let after = fleet.nodes[target_index].with(&fleet.guests[guest_index]);
            return Verdict::Filtered(Reason::TargetMemory {
                target,
                free_after: bytes(after.memory - after.memory_used),
                reserve: bytes(fleet.reserve_of(target_index)),
            });
        }
        let over = over_limit(migration, fleet, policy).filter(|_| !migration.source.maintenance);
        if let Some((resource, percent, limit_percent)) = over {
            return Verdict::Filtered(Reason::TargetOverLimit { target, resource, percent, limit_percent });
        }
        let before = recommend::objective(&context.rules());
        let improvement = recommend::improvement(&context.rules(), guest_index, target_index);
        let after = before - improvement;
        let needed = match must_leave(migration) {
            Some(_) => 0.0,
            None => recommend::needed(migration.guest, policy, context.price),
        };
        if improvement < needed {
            return Verdict::Filtered(Reason::ImprovementTooSmall { before, after, improvement, needed });
        }
        Verdict::Pass(Some(Reason::Improvement { before, after, improvement }))
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Saturates; for people to read.
fn bytes(value: f64) -> Bytes {
    Bytes(value.max(0.0) as u64)
}

/// The limit that the target would exceed: resource, percent after the move, limit in percent.
pub(super) fn over_limit(
    migration: &Move<'_>,
    fleet: &Fleet,
    policy: &Policy,
) -> Option<(Resource, f64, f64)> {
    let guest = &fleet.guests[migration.guest_index];
    let source = fleet.nodes[migration.source_index];
    // Asked of the cluster as it will be, the source has lost the guest already.
    let source = if fleet.place[migration.guest_index] == migration.source_index {
        source
    } else {
        source.with(guest)
    };
    let target = fleet.nodes[migration.target_index].with(guest);
    let limits = [
        (Resource::Cpu, target.ahead_percent(), policy.cpu_threshold, source.ahead_percent()),
        (Resource::Pressure, target.pressure_percent(), policy.pressure_threshold, source.pressure_percent()),
    ];
    let over = limits.iter().find(|(_, after, limit, had)| after > limit && after >= had);
    over.map(|&(resource, after, limit, _)| (resource, after, limit))
}
