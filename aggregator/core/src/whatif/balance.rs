//! How this cluster would be put in order now: the whole plan at once, in an order in which it can be carried out, and
//! the cluster before and after.
//!
//! It is the plan of [`plan_at_once`], with what a person has to know who carries it out. Each move is planned on the
//! cluster as the ones before it leave it, so no target is ever too full. A cluster that is calm has nothing to be put in
//! order.

use std::collections::BTreeSet;

use evenkeel_common::decision::{Decision, Recommendation, Step};
use evenkeel_common::guest::GuestKind;
use evenkeel_common::reason::Reason;
use evenkeel_common::time::Timestamp;

use super::{Ground, NodeAfter, NodeFailure, Outgoing, arrived, doubts, with_restarts};
use crate::plan_at_once;
use crate::policy::Policy;
use crate::score::fleet::Fleet;
use crate::snapshot::Snapshot;
use crate::stays::NodeStay;

/// What putting a cluster in order comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Balance {
    /// As of when.
    pub at: Timestamp,
    /// Why there is no plan, if so: all else is empty then.
    pub problems: Vec<Reason>,
    /// What to know before one begins: tags that could not be followed, those still broken afterwards, who else moves
    /// guests, and nodes that would get over a threshold.
    pub cautions: Vec<Reason>,
    /// Why there is nothing to be put in order, if so.
    pub calm: Option<Reason>,
    /// The moves, in order.
    pub moves: Vec<Outgoing>,
    /// How long all moves take, one after the other.
    pub minutes: f64,
    /// Every node that takes part, by name, before and after.
    pub nodes: Vec<NodeAfter>,
    /// How unevenly the nodes that take guests are used, before and after, in percentage points: the standard deviation,
    /// over these nodes, of the mean of the shares of CPU and memory that are expected to be in use.
    pub imbalance: Option<(f64, f64)>,
    /// The best moves that are not made, as a run lists them.
    pub held: Vec<HeldMove>,
    /// Why nothing (else) happens to each node.
    pub stays: Vec<NodeStay>,
    /// Nodes whose guests the rest could not take if they failed afterwards; empty = one may fail.
    pub failures: Vec<NodeFailure>,
}

/// A move that would help, and is not made.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldMove {
    /// Guest, target and evidence.
    pub recommendation: Recommendation,
    /// The filter that objects.
    pub filter: Option<Step>,
    /// Why.
    pub reason: Reason,
}

/// Plans how the cluster is put in order. Containers move where their tags consent to the restart, with `restarts`
/// wherever they help. What the policy's mode makes of a move does not matter: who asks is a person.
#[must_use]
pub fn balance(input: &Snapshot, policy: &Policy, restarts: bool) -> Balance {
    let snapshot = arrived(input);
    let (problems, _) = doubts(&snapshot, policy);
    let mut answer = Balance {
        at: input.at,
        problems,
        cautions: Vec::new(),
        calm: None,
        moves: Vec::new(),
        minutes: 0.0,
        nodes: Vec::new(),
        imbalance: None,
        held: Vec::new(),
        stays: Vec::new(),
        failures: Vec::new(),
    };
    if !answer.problems.is_empty() {
        return answer;
    }
    let run =
        if restarts { plan_at_once(&with_restarts(input), policy) } else { plan_at_once(input, policy) };
    (answer.calm, answer.stays) = (run.suppressed, run.stays);
    let ground = Ground::new(snapshot, policy);
    let mut fleet = ground.fleet.clone();
    for decision in run.decisions {
        if decision.action.is_accepted() {
            ground.make(&decision.recommendation, &mut fleet);
            answer.minutes += decision.recommendation.cost.minutes;
            answer.moves.push(ground.outgoing(decision.recommendation));
        } else {
            let Decision { recommendation, filter, reason, .. } = decision;
            answer.held.push(HeldMove { recommendation, filter, reason });
        }
    }
    let nodes = ground.counted();
    answer.cautions = ground.still(run.warnings, &fleet);
    answer.cautions.extend(ground.newly_over(&fleet, &nodes));
    answer.nodes = ground.after(&fleet, &nodes);
    answer.failures = ground.failures(&fleet, &nodes);
    answer.imbalance = Some((imbalance(&ground.fleet), imbalance(&fleet)));
    answer
}

impl Ground<'_> {
    /// Makes a move, with those that HA moves along.
    fn make(&self, recommendation: &Recommendation, fleet: &mut Fleet) {
        let Some(target) = self.snapshot.node_index(&recommendation.target) else { return };
        let guests = std::iter::once(&recommendation.guest).chain(recommendation.along());
        for guest in guests.filter_map(|&vmid| self.snapshot.guest_index(vmid)) {
            fleet.apply(guest, target);
        }
    }

    /// A move as a person has to know it.
    fn outgoing(&self, recommendation: Recommendation) -> Outgoing {
        let guest = self.snapshot.guest_index(recommendation.guest);
        let restart = guest.is_some_and(|guest| self.snapshot.guests[guest].kind == GuestKind::Lxc);
        let consents = guest.is_some_and(|guest| self.facts.tags[guest].restart_ok);
        Outgoing { recommendation, restart, allowed: !restart || consents }
    }

    /// A run's warnings; of tags that are not kept, those that the moves do not put right either. Which nodes may not
    /// fail is told by itself, as it is afterwards.
    fn still(&self, mut warnings: Vec<Reason>, fleet: &Fleet) -> Vec<Reason> {
        warnings.retain(|warning| !matches!(warning, Reason::SpareShort { .. }));
        let (broken, mut still): (Vec<_>, Vec<_>) =
            warnings.into_iter().partition(|w| broken_tag(w).is_some());
        // What is on its way is not broken, and the run knows which that is.
        let told: BTreeSet<_> = broken.iter().filter_map(broken_tag).collect();
        let after = self.rules(fleet).warnings().into_iter();
        still.extend(after.filter(|warning| broken_tag(warning).is_some_and(|tag| told.contains(tag))));
        still
    }
}

fn broken_tag(warning: &Reason) -> Option<&str> {
    match warning {
        Reason::RuleBroken { tag, .. } => Some(tag),
        _ => None,
    }
}

/// How unevenly nodes are used, see [`Balance::imbalance`]. A node that is to be emptied does not count: the emptier it is,
/// the better.
fn imbalance(fleet: &Fleet) -> f64 {
    let nodes = fleet.nodes.iter().filter(|node| node.takes);
    let used: Vec<f64> = nodes.map(|node| f64::midpoint(node.cpu_percent(), node.memory_percent())).collect();
    #[allow(clippy::cast_precision_loss)] // Far below 2^53.
    let mean_of = |sum: f64| sum / used.len().max(1) as f64;
    let mean = mean_of(used.iter().sum());
    mean_of(used.iter().map(|used| (used - mean).powi(2)).sum()).sqrt()
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
