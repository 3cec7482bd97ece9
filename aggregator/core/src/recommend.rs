//! Which move would help, by how much, at what cost.
//!
//! A move is worth the fall of the cluster's score (see [`crate::score`]): the source is credited, the target
//! charged, both with what the guest is expected to need. It has to beat `min_improvement` plus a price that grows
//! with the minutes it takes, unless the guest stands on a node that is to be emptied: what has to leave has no price.
//! As every other accepted move lowers one and the same score by at least that much, a series of moves ends by itself:
//! no swinging.

use evenkeel_common::decision::{Cost, Recommendation, Resource};
use evenkeel_common::guest::GuestKind;
use evenkeel_common::reason::Reason;
use evenkeel_common::units::Bytes;

use crate::bundle;
use crate::confidence;
use crate::policy::Policy;
use crate::repair::Rules;
use crate::risk;
use crate::score::fleet::Fleet;
use crate::score::{self, season, strain};
use crate::snapshot::{GuestState, Move, Snapshot, takes_part};

/// Points that a minute of migration must earn on top of `min_improvement`. Keeps a move for next to nothing from
/// being made because it is cheap to compute; filter 11 asks for more.
const POINTS_PER_MINUTE: f64 = 0.1;

/// How steeply the price of a move rises with the share of the day's moves that is used.
const SCARCITY: f64 = 3.0;

/// How many times `min_improvement` a move must gain on top, where nothing waits.
const EASE: f64 = 3.0;

/// Points of waiting for each node, on average, at which half of that is left.
const AT_EASE: f64 = 0.3;

/// How much of its memory a guest of which nothing is known sends again, because it goes on writing.
const RESEND: f64 = 1.3;

/// Seconds that a guest stands still at most while the rest of its memory is sent: QEMU's `downtime-limit`.
const STILL_S: f64 = 0.3;

/// Share of the link's speed at which a guest writes at most: where it writes faster, QEMU slows it down.
const MOST_DIRTY: f64 = 0.95;

/// Times that memory is sent again at most.
const ROUNDS: u32 = 60;

/// Start, hand-over and clean-up of a migration, in minutes.
const OVERHEAD_MINUTES: f64 = 0.1;

/// The cluster's score: lower is better.
pub(crate) fn objective(rules: &Rules<'_>) -> f64 {
    rules.fleet.nodes.iter().map(strain).sum::<f64>() + rules.points()
}

/// By how much the cluster's score falls when a guest, and who moves with it, goes to a target, in points; below zero
/// when it rises.
pub(crate) fn improvement(rules: &Rules<'_>, guest: usize, target: usize) -> f64 {
    if rules.facts.bundles.bundle(guest).is_some() {
        let fleet = rules.fleet;
        let (left, joined) = bundle::moved(rules, guest, target);
        let (source, goal) = (&fleet.nodes[fleet.place[guest]], &fleet.nodes[target]);
        return strain(source) - strain(&left) + strain(goal) - strain(&joined) + rules.gain(guest, target);
    }
    relief(rules.fleet, guest) + charge(rules.fleet, guest, target) + rules.gain(guest, target)
}

/// What its source gains when a guest leaves.
pub(crate) fn relief(fleet: &Fleet, guest: usize) -> f64 {
    let source = &fleet.nodes[fleet.place[guest]];
    strain(source) - strain(&source.without(&fleet.guests[guest]))
}

/// What the target gains when a guest comes; as a rule below zero.
pub(crate) fn charge(fleet: &Fleet, guest: usize, target: usize) -> f64 {
    let target = &fleet.nodes[target];
    strain(target) - strain(&target.with(&fleet.guests[guest]))
}

/// What of an improvement is that the nodes become more even; nothing where that does not count.
pub(crate) fn evening(rules: &Rules<'_>, guest: usize, target: usize) -> f64 {
    let fleet = rules.fleet;
    if !fleet.evens_out {
        return 0.0;
    }
    let (left, joined) = bundle::moved(rules, guest, target);
    let (source, target) = (&fleet.nodes[fleet.place[guest]], &fleet.nodes[target]);
    source.uneven() + target.uneven() - left.uneven() - joined.uneven()
}

/// What moving a guest costs: its memory, sent again where it changes meanwhile, and its local disks. A container is
/// stopped and started, so only its disks cross. `pace`: by how much earlier ones took longer than this.
pub(crate) fn cost(guest: &GuestState, policy: &Policy, pace: f64) -> Cost {
    let bytes_per_s = f64::from(policy.migration_link_mbps) * 1e6 / 8.0;
    let memory = match guest.kind {
        GuestKind::Qemu => precopy(guest.memory_used.as_f64(), guest.dirty_mb_s, bytes_per_s),
        GuestKind::Lxc => 0.0,
    };
    let bytes = memory + guest.local_disk_bytes.as_f64();
    Cost { minutes: pace * (bytes / bytes_per_s / 60.0 + OVERHEAD_MINUTES), bytes: Bytes::from_f64(bytes) }
}

/// Bytes of memory that a live migration sends: all of it, what was written meanwhile, what was written during that, and
/// so on, until what is left takes no more than [`STILL_S`].
fn precopy(memory: f64, dirty_mb_s: Option<f64>, bytes_per_s: f64) -> f64 {
    let known = dirty_mb_s.filter(|dirty| (0.0..1e9).contains(dirty));
    let Some(dirty) = known else { return memory * RESEND };
    let again = (dirty * 1e6 / bytes_per_s).min(MOST_DIRTY);
    let (mut sent, mut left) = (memory, memory * again);
    for _ in 0..ROUNDS {
        if left <= STILL_S * bytes_per_s {
            break;
        }
        sent += left;
        left *= again;
    }
    sent + left
}

/// How dear moves are: what they must gain, in multiples of what the policy asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Price {
    /// By what is left of the day's moves, [`scarcity`].
    pub scarcity: f64,
    /// By how little there is to win, [`ease`].
    pub ease: f64,
}

impl Price {
    /// Nothing makes moves dearer.
    pub(crate) const PLAIN: Self = Self { scarcity: 1.0, ease: 1.0 };
}

/// Minutes that moving this guest, and who moves with it, takes.
pub(crate) fn minutes(rules: &Rules<'_>, guest: usize, policy: &Policy) -> f64 {
    let (unit, pace) = (rules.facts.bundles.unit(&guest).iter(), rules.snapshot.experience.pace());
    unit.map(|&member| cost(&rules.snapshot.guests[member], policy, pace).minutes).sum()
}

/// What moving this guest costs, with those that HA moves along.
fn carried(rules: &Rules<'_>, guest: usize, policy: &Policy) -> Cost {
    let along = rules.facts.bundles.bundle(guest).map(|bundle| bundle.carried(guest)).unwrap_or_default();
    let pace = rules.snapshot.experience.pace();
    let costs =
        std::iter::once(guest).chain(along).map(|member| cost(&rules.snapshot.guests[member], policy, pace));
    costs.fold(Cost::default(), |sum, cost| Cost {
        minutes: sum.minutes + cost.minutes,
        bytes: sum.bytes.saturating_add(cost.bytes),
    })
}

/// Improvement that a move of this guest needs at least, in points; for those that move as one the sum of their prices.
pub(crate) fn needed(rules: &Rules<'_>, guest: usize, policy: &Policy, price: Price) -> f64 {
    let least = price.ease * policy.min_improvement;
    let unit = rules.facts.bundles.unit(&guest).iter();
    let pace = rules.snapshot.experience.pace();
    let minutes = unit.map(|&member| cost(&rules.snapshot.guests[member], policy, pace).minutes);
    price.scarcity * minutes.map(|minutes| least + POINTS_PER_MINUTE * minutes).sum::<f64>()
}

/// By how much `min_improvement` rises on a cluster in which little is expected to wait. What waits there is a burst of
/// one guest, which as a rule ends before a move has paid, and every move is a risk: so little is not worth one.
pub(crate) fn ease(fleet: &Fleet) -> f64 {
    let counted = || fleet.nodes.iter().filter(|node| node.takes);
    #[allow(clippy::cast_precision_loss)] // Far below 2^53.
    let waiting = counted().map(score::waiting_points).sum::<f64>() / counted().count().max(1) as f64;
    1.0 + EASE * AT_EASE / (AT_EASE + waiting)
}

/// By how much the price of a move rises when `used` of the `limit` moves of a day are made. A day's moves are few: what
/// is left of them has to last for what is still to come, so the less there is left, the more a move must gain.
pub(crate) fn scarcity(used: u32, limit: u32) -> f64 {
    match limit.saturating_sub(used) {
        0 => 1.0, // The limit itself holds every move then, and says so.
        left => 1.0 + SCARCITY * f64::from(used) / f64::from(left),
    }
}

/// A move as a recommendation, with its evidence, on the cluster as it is expected before the move.
pub(crate) fn recommendation(migration: &Move<'_>, rules: &Rules<'_>, policy: &Policy) -> Recommendation {
    let Move { guest, source, target, guest_index, .. } = *migration;
    let (snapshot, fleet) = (rules.snapshot, rules.fleet);
    let improvement = improvement(rules, guest_index, migration.target_index);
    let (confidence, certain) = confidence::confidence_of(migration, rules, policy);
    let risk = risk::assess(guest, &policy.risk);
    let mut evidence = if rules.gain(guest_index, migration.target_index) > 0.0 {
        rules.told(guest_index)
    } else {
        Vec::new()
    };
    let bundle = rules.facts.bundles.bundle(guest_index);
    evidence.extend(bundle.into_iter().flat_map(|bundle| bundle.evidence(guest_index, snapshot)));
    evidence.extend(self::evidence(migration, rules));
    evidence.extend(season::beyond(migration.source_index, snapshot, fleet, policy));
    evidence.extend(risk.reason());
    Recommendation {
        guest: guest.vmid,
        name: guest.name.clone(),
        source: source.id.clone(),
        target: target.id.clone(),
        improvement,
        confidence,
        certain,
        risk: risk.level,
        cost: carried(rules, guest_index, policy),
        conflict: None,
        evidence,
    }
}

fn evidence(migration: &Move<'_>, rules: &Rules<'_>) -> Vec<Reason> {
    let (snapshot, fleet) = (rules.snapshot, rules.fleet);
    let Move { source, target, guest_index, source_index, target_index, .. } = *migration;
    let guest = &fleet.guests[guest_index];
    let mut evidence = Vec::new();
    if source.maintenance {
        evidence.push(Reason::SourceMaintenance { node: source.id.clone() });
    }
    let (resource, percent, cluster_percent) = hottest(source_index, snapshot, fleet);
    evidence.push(Reason::NodeHot { node: source.id.clone(), resource, percent, cluster_percent });
    if source.cpu_waited >= 0.1 {
        evidence.push(Reason::Waiting { node: source.id.clone(), cores: source.cpu_waited });
    }
    evidence.push(Reason::PredictedLoad {
        class: guest.class,
        cores: guest.cores(),
        memory: Bytes::from_f64(guest.memory),
        now_cores: guest.now,
    });
    let (left, joined) = bundle::moved(rules, guest_index, target_index);
    let nodes = [(source, fleet.nodes[source_index], left), (target, fleet.nodes[target_index], joined)];
    evidence.extend(nodes.map(|(node, before, after)| Reason::ScoreChange {
        node: node.id.clone(),
        before: score::score(&before).get(),
        after: score::score(&after).get(),
    }));
    evidence
}

/// The part in which a node is closest to its limit, as expected, and the cluster's figure in percent.
fn hottest(node: usize, snapshot: &Snapshot, fleet: &Fleet) -> (Resource, f64, f64) {
    let load = &fleet.nodes[node];
    let counted =
        || snapshot.nodes.iter().zip(&fleet.nodes).filter(|(node, _)| takes_part(node)).map(|(_, load)| load);
    let parts = score::parts(load);
    let top = parts.iter().max_by(|a, b| (a.value * a.weight).total_cmp(&(b.value * b.weight)));
    match top.map_or(Resource::Cpu, |part| part.resource) {
        Resource::Cpu => {
            let (demand, cores) = counted().fold((0.0, 0.0), |(d, c), n| (d + n.cpu_demand(), c + n.cores));
            (Resource::Cpu, load.cpu_percent(), 100.0 * demand / cores)
        }
        Resource::Memory => {
            let (used, memory) = counted().fold((0.0, 0.0), |(u, m), n| (u + n.memory_used, m + n.memory));
            (Resource::Memory, load.memory_percent(), 100.0 * used / memory)
        }
        Resource::Pressure => {
            let (sum, count) = counted().fold((0.0, 0.0), |(s, c), n| (s + n.pressure_percent(), c + 1.0));
            (Resource::Pressure, load.pressure_percent(), sum / count)
        }
        Resource::Network => {
            let (sum, count) = counted().fold((0.0, 0.0), |(s, c), n| (s + n.network(), c + 1.0));
            (Resource::Network, 100.0 * load.network(), 100.0 * sum / count)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn cost_of(guest: &str) -> Cost {
        let snapshot = fixture::snapshot(&format!("pve1 | 101 {guest}"));
        cost(&snapshot.guests[0], &Policy { migration_link_mbps: 8000, ..Policy::default() }, 1.0)
    }

    #[test]
    fn who_writes_much_sends_much() {
        let sent = |guest: &str| cost_of(guest).bytes.as_f64() / Bytes::gib(1).as_f64();
        assert!((sent("mem=10") - 13.0).abs() < 1e-6, "nothing known: three tenths again");
        assert!((sent("mem=10 dirty=0") - 10.0).abs() < 1e-6);
        // Half of 1 GB/s: 10 + 5 + 2.5 + ..; the last bit is sent while the guest stands still.
        assert!((sent("mem=10 dirty=500") - 20.0).abs() < 0.3, "{}", sent("mem=10 dirty=500"));
        // Faster than the link: held at what slowing it down makes of it, and finite.
        assert!(sent("mem=10 dirty=5000") > 100.0 && sent("mem=10 dirty=5000") < 201.0);
        assert_eq!(sent("mem=10 dirty=NaN"), sent("mem=10"));
    }

    #[test]
    fn a_container_sends_its_disks_only() {
        assert_eq!(cost_of("mem=10 lxc localgib=3").bytes, Bytes::gib(3));
        assert!((cost_of("mem=10 lxc").minutes - OVERHEAD_MINUTES).abs() < 1e-9);
    }
}
