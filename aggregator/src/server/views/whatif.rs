//! Answers to what-if questions.

use evenkeel_common::id::ClusterId;
use evenkeel_common::reason::Reason;
use evenkeel_core::whatif::balance::{Balance, HeldMove};
use evenkeel_core::whatif::drain::{Blocked, Drain};
use evenkeel_core::whatif::place::{NodeChoice, Placement};
use evenkeel_core::whatif::replay::{Course, Replayed, ReplayedMove};
use evenkeel_core::whatif::{NodeAfter, NodeFailure, Outgoing};
use evenkeel_core::{NodeStay, Policy};
use evenkeel_proto::v1;

use super::decisions::reason;
use super::status::word;

/// What a replay rests on; said with every result.
const ASSUMPTION: &str = "Assumes that what guests demand does not depend on where they run, that a move takes the \
                          minutes it is expected to, and that every move of the policy succeeds.";

fn reasons(all: &[Reason]) -> Vec<v1::Reason> {
    all.iter().map(reason).collect()
}

/// The plan that puts a cluster in order.
#[must_use]
pub fn balance(cluster: &ClusterId, plan: Balance) -> v1::BalanceResponse {
    v1::BalanceResponse {
        cluster: cluster.to_string(),
        at_ms: plan.at.as_millis(),
        problems: reasons(&plan.problems),
        cautions: reasons(&plan.cautions),
        calm: plan.calm.as_ref().map(reason),
        moves: plan.moves.iter().map(outgoing).collect(),
        minutes: plan.minutes,
        nodes: plan.nodes.iter().map(node_after).collect(),
        imbalance_before: plan.imbalance.map(|(before, _)| before),
        imbalance_after: plan.imbalance.map(|(_, after)| after),
        held: plan.held.iter().map(held).collect(),
        stays: plan.stays.iter().map(stay).collect(),
        failures: plan.failures.iter().map(failure).collect(),
    }
}

fn held(held: &HeldMove) -> v1::BalanceHeld {
    v1::BalanceHeld {
        guest: held.recommendation.guest.get(),
        guest_name: held.recommendation.name.clone(),
        source: held.recommendation.source.to_string(),
        target: held.recommendation.target.to_string(),
        improvement: held.recommendation.improvement,
        filter: held.filter.map(|step| step.to_string()).unwrap_or_default(),
        reason: Some(reason(&held.reason)),
    }
}

fn stay(NodeStay { node, reasons: why }: &NodeStay) -> v1::BalanceStay {
    v1::BalanceStay { node: node.to_string(), reasons: reasons(why) }
}

/// The evacuation of a node.
#[must_use]
pub fn drain(cluster: &str, plan: Drain) -> v1::DrainResponse {
    v1::DrainResponse {
        cluster: cluster.to_owned(),
        node: plan.node.to_string(),
        feasible: plan.feasible,
        at_ms: plan.at.as_millis(),
        problems: reasons(&plan.problems),
        cautions: reasons(&plan.cautions),
        moves: plan.moves.iter().map(outgoing).collect(),
        blocked: plan.blocked.iter().map(blocked).collect(),
        resting: plan.resting.iter().map(|vmid| vmid.get()).collect(),
        minutes: plan.minutes,
        after: plan.after.iter().map(node_after).collect(),
        failures: plan.failures.iter().map(failure).collect(),
    }
}

fn outgoing(Outgoing { recommendation, restart, allowed }: &Outgoing) -> v1::DrainMove {
    v1::DrainMove {
        guest: recommendation.guest.get(),
        guest_name: recommendation.name.clone(),
        target: recommendation.target.to_string(),
        bytes: recommendation.cost.bytes.0,
        minutes: recommendation.cost.minutes,
        risk: recommendation.risk.to_string(),
        restart: *restart,
        allowed: *allowed,
        evidence: reasons(&recommendation.evidence),
        source: recommendation.source.to_string(),
        improvement: recommendation.improvement,
        along: recommendation.along().iter().map(|vmid| vmid.get()).collect(),
    }
}

fn blocked(blocked: &Blocked) -> v1::DrainBlocked {
    let objection = |(node, why): &(evenkeel_common::id::NodeId, Reason)| v1::DrainObjection {
        node: node.to_string(),
        reason: Some(reason(why)),
    };
    v1::DrainBlocked {
        guest: blocked.guest.get(),
        guest_name: blocked.name.clone(),
        reason: Some(reason(&blocked.reason)),
        targets: blocked.targets.iter().map(objection).collect(),
    }
}

fn node_after(node: &NodeAfter) -> v1::DrainNode {
    v1::DrainNode {
        node: node.node.to_string(),
        score_before: node.score_before,
        score_after: node.score_after,
        cpu_before_percent: node.cpu_before,
        cpu_after_percent: node.cpu_after,
        mem_before_percent: node.memory_before,
        mem_after_percent: node.memory_after,
    }
}

fn failure(NodeFailure { node, guests, memory }: &NodeFailure) -> v1::DrainFailure {
    v1::DrainFailure { node: node.to_string(), guests: *guests, bytes: memory.0 }
}

/// The ranking for a new guest.
#[must_use]
pub fn place(cluster: &ClusterId, assumed: bool, placement: Placement) -> v1::PlaceResponse {
    v1::PlaceResponse {
        best: placement.best.map(String::from),
        nodes: placement.nodes.iter().map(choice).collect(),
        cluster: cluster.to_string(),
        at_ms: placement.at.as_millis(),
        cpu_load: placement.cpu_load,
        cpu_load_assumed: assumed,
        problems: reasons(&placement.problems),
        cautions: reasons(&placement.cautions),
    }
}

fn choice(choice: &NodeChoice) -> v1::PlaceNode {
    #[allow(clippy::cast_possible_truncation)] // Saturates.
    let whole = |bytes: f64| bytes as i64;
    v1::PlaceNode {
        node: choice.node.to_string(),
        fits: choice.fits,
        score_before: choice.scores.map(|(before, _)| before),
        score_after: choice.scores.map(|(_, after)| after),
        free_after_reserve_bytes: choice.free_after_reserve.map(whole),
        reason: choice.reason.as_ref().map(reason),
    }
}

/// What a policy would have done.
#[must_use]
pub fn replay(cluster: &ClusterId, policy: &Policy, replayed: Replayed) -> v1::ReplayPolicyResult {
    let actions = replayed.actions.into_iter().map(|(action, count)| (action.to_string(), count));
    v1::ReplayPolicyResult {
        cluster: cluster.to_string(),
        preset: word(&policy.preset),
        from_ms: replayed.from.map(|at| at.as_millis()),
        to_ms: replayed.to.map(|at| at.as_millis()),
        runs: replayed.runs,
        hours: replayed.hours,
        gaps: replayed.gaps,
        gap_hours: replayed.gap_hours,
        unreliable: replayed.unreliable,
        unreadable: 0,
        truncated: false,
        moved: replayed.moved,
        move_minutes: replayed.minutes,
        returns: replayed.returns,
        overtaken: replayed.overtaken,
        suppressed: replayed.suppressed,
        actions: actions.collect(),
        was: Some(course(&replayed.was)),
        would: Some(course(&replayed.would)),
        moves: replayed.moves.iter().map(moved).collect(),
        assumption: ASSUMPTION.to_owned(),
    }
}

fn course(course: &Course) -> v1::ReplayCourse {
    let Course { mean_score, peak_score, node_hours_over, .. } = *course;
    v1::ReplayCourse { mean_score, peak_score, node_hours_over }
}

fn moved(moved: &ReplayedMove) -> v1::ReplayMove {
    v1::ReplayMove {
        at_ms: moved.at.as_millis(),
        guest: moved.guest.get(),
        guest_name: moved.name.clone(),
        source: moved.source.to_string(),
        target: moved.target.to_string(),
        improvement: moved.improvement,
        minutes: moved.minutes,
    }
}
