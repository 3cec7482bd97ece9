//! Can this node be emptied: each guest with its target, or what keeps it, and the cluster afterwards.
//!
//! An evacuation is not a matter of taste, so only what can not be waived counts: affinity, hardware, memory with its
//! reserve. Among the targets left the one that raises the cluster's score least is taken. Guests with the fewest
//! targets go first, then the largest; where one finds no room, it goes to the front and all begins anew, which is
//! squeaky wheel optimisation (Joslin and Clements, 1999). Groups that belong together move together.

use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::reason::Reason;
use evenkeel_common::time::Timestamp;

use super::{Ground, NodeAfter, NodeFailure, Outgoing, WhatifError, arrived, bytes, doubts, names};
use crate::pipeline::affinity::concerns_guest;
use crate::plan::not_a_candidate;
use crate::policy::Policy;
use crate::recommend;
use crate::score::fleet::Fleet;
use crate::snapshot::{GuestState, Snapshot};

/// How often the order is mended.
const MENDS: usize = 20;

/// What emptying a node comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Drain {
    /// Which node.
    pub node: NodeId,
    /// As of when.
    pub at: Timestamp,
    /// Why there is no plan, if so: all else is empty then.
    pub problems: Vec<Reason>,
    /// What to know before one begins.
    pub cautions: Vec<Reason>,
    /// The moves, in order.
    pub moves: Vec<Outgoing>,
    /// Guests that run and can not leave.
    pub blocked: Vec<Blocked>,
    /// Guests that stay because they do not run. They hinder nothing, but can not be started meanwhile.
    pub resting: Vec<Vmid>,
    /// How long all moves take: one leaves a node at a time, whatever the policy allows at once in the cluster.
    pub minutes: f64,
    /// Whether every guest that runs can leave.
    pub feasible: bool,
    /// The other nodes that take part, by name, before and after.
    pub after: Vec<NodeAfter>,
    /// Nodes whose guests the rest could not take if they failed meanwhile; empty = one more may fail.
    pub failures: Vec<NodeFailure>,
}

/// One guest that can not leave.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocked {
    /// Which guest.
    pub guest: Vmid,
    /// Its name; another's text.
    pub name: String,
    /// What keeps it, in short.
    pub reason: Reason,
    /// What keeps it from each target, where that differs by target.
    pub targets: Vec<(NodeId, Reason)>,
}

/// One way through all units.
struct Attempt {
    fleet: Fleet,
    /// Guests and where they go, in order.
    moves: Vec<(usize, usize)>,
    /// Units that stay, by their place in the order, with what each target says.
    stuck: Vec<(usize, Vec<(usize, Reason)>)>,
}

/// Plans the evacuation of a node, as if it had been put into maintenance.
///
/// # Errors
/// [`WhatifError::UnknownNode`].
pub fn drain(input: &Snapshot, policy: &Policy, node: &NodeId) -> Result<Drain, WhatifError> {
    let mut snapshot = arrived(input);
    let unknown = || WhatifError::UnknownNode {
        node: node.clone(),
        cluster: input.cluster.clone(),
        known: names(&snapshot),
    };
    let source = snapshot.node_index(node).ok_or_else(unknown)?;
    let (mut problems, mut cautions) = doubts(&snapshot, policy);
    let state = &snapshot.nodes[source];
    if !state.online {
        problems.push(Reason::NodeOffline { node: node.clone() });
    } else if let Some(why) = &state.barred {
        problems.push(Reason::NodeBarred { node: node.clone(), why: Box::new(why.clone()) });
    }
    // HA guests leave a node in maintenance by themselves; who is asked here is a person.
    if std::mem::take(&mut snapshot.pve_rebalances) {
        cautions.push(Reason::PveRebalances {});
    }
    snapshot.nodes[source].maintenance = true;
    let mut answer = Drain {
        node: node.clone(),
        at: input.at,
        problems,
        cautions,
        moves: Vec::new(),
        blocked: Vec::new(),
        resting: Vec::new(),
        minutes: 0.0,
        feasible: false,
        after: Vec::new(),
        failures: Vec::new(),
    };
    if answer.problems.is_empty() {
        let mut ground = Ground::new(snapshot, policy);
        let allowed: Vec<bool> = ground.facts.tags.iter().map(|tags| tags.restart_ok).collect();
        ground.ease();
        ground.fill(source, &allowed, &mut answer);
    }
    Ok(answer)
}

impl Ground<'_> {
    fn fill(&self, source: usize, allowed: &[bool], answer: &mut Drain) {
        let on_node = |&index: &usize| self.fleet.place[index] == source;
        let (mut movable, mut blocked) = (Vec::new(), Vec::new());
        for index in (0..self.snapshot.guests.len()).filter(on_node) {
            let guest = &self.snapshot.guests[index];
            match not_a_candidate(guest) {
                _ if !guest.running || guest.template => answer.resting.push(guest.vmid),
                Some(reason) => blocked.push(blocked_by(guest, reason, Vec::new())),
                None => movable.push(index),
            }
        }
        let (attempt, order) = self.best_attempt(source, self.units(&movable));
        let mut fleet = self.fleet.clone();
        for &(index, target) in &attempt.moves {
            let guest = &self.snapshot.guests[index];
            let migration = self.snapshot.move_at(index, source, target);
            let recommendation = recommend::recommendation(&migration, &self.rules(&fleet), self.policy);
            fleet.apply(index, target);
            let restart = guest.kind == GuestKind::Lxc;
            answer.minutes += recommendation.cost.minutes;
            answer.moves.push(Outgoing { recommendation, restart, allowed: !restart || allowed[index] });
        }
        for (unit, objections) in &attempt.stuck {
            for &index in &order[*unit] {
                let targets = objections
                    .iter()
                    .map(|(target, reason)| (self.snapshot.nodes[*target].id.clone(), reason.clone()));
                let reason = self.in_short(index, objections);
                let targets = if concerns_guest(&reason) { Vec::new() } else { targets.collect() };
                blocked.push(blocked_by(&self.snapshot.guests[index], reason, targets));
            }
        }
        blocked.sort_by_key(|guest| guest.guest);
        answer.feasible = blocked.is_empty();
        answer.blocked = blocked;
        let mut others = self.counted();
        others.retain(|&node| node != source);
        answer.after = self.after(&attempt.fleet, &others);
        answer.failures = self.failures(&attempt.fleet, &others);
        answer.cautions.extend(self.newly_over(&attempt.fleet, &others));
    }

    /// Guests that move together, each such set once.
    fn units(&self, movable: &[usize]) -> Vec<Vec<usize>> {
        let mut units: Vec<Vec<usize>> = movable.iter().map(|&guest| vec![guest]).collect();
        for group in self.together() {
            let in_group = |unit: &Vec<usize>| unit.iter().any(|guest| group.contains(guest));
            let (joined, mut rest): (Vec<_>, Vec<_>) = units.into_iter().partition(in_group);
            rest.extend((!joined.is_empty()).then(|| joined.concat()));
            units = rest;
        }
        units
    }

    /// The attempt that leaves the fewest guests behind, and the order of units it was made in.
    fn best_attempt(&self, source: usize, mut order: Vec<Vec<usize>>) -> (Attempt, Vec<Vec<usize>>) {
        let memory = |unit: &[usize]| unit.iter().map(|&guest| self.fleet.guests[guest].memory).sum::<f64>();
        let options = |unit: &[usize]| {
            let targets = 0..self.fleet.nodes.len();
            targets.filter(|&target| self.move_unit(&self.fleet, unit, source, target).is_ok()).count()
        };
        let mut keyed: Vec<_> = order.drain(..).map(|unit| (options(&unit), unit)).collect();
        keyed.sort_by(|(a, left), (b, right)| {
            a.cmp(b).then(memory(right).total_cmp(&memory(left))).then(left.cmp(right))
        });
        let mut order: Vec<_> = keyed.into_iter().map(|(_, unit)| unit).collect();
        let mut best = (self.attempt(source, &order), order.clone());
        let left = |(attempt, order): &(Attempt, Vec<Vec<usize>>)| -> usize {
            attempt.stuck.iter().map(|(unit, _)| order[*unit].len()).sum()
        };
        for _ in 0..MENDS {
            // Who was first and still found no place will not find one.
            let stuck = best.0.stuck.iter().map(|(unit, _)| *unit);
            let Some(unit) = stuck.filter(|&unit| unit > 0).find(|&unit| options(&best.1[unit]) > 0) else {
                break;
            };
            order.clone_from(&best.1);
            order[..=unit].rotate_right(1);
            let next = (self.attempt(source, &order), order.clone());
            if left(&next) >= left(&best) {
                break;
            }
            best = next;
        }
        best
    }

    fn attempt(&self, source: usize, order: &[Vec<usize>]) -> Attempt {
        let mut attempt = Attempt { fleet: self.fleet.clone(), moves: Vec::new(), stuck: Vec::new() };
        for (place, unit) in order.iter().enumerate() {
            let mut objections = Vec::new();
            let mut best: Option<(f64, usize, Fleet)> = None;
            for target in (0..self.fleet.nodes.len()).filter(|&target| target != source) {
                match self.move_unit(&attempt.fleet, unit, source, target) {
                    Ok((gain, fleet)) if best.as_ref().is_none_or(|(most, ..)| gain > *most) => {
                        best = Some((gain, target, fleet));
                    }
                    Ok(_) => {}
                    Err(reason) => objections.push((target, reason)),
                }
            }
            match best {
                Some((_, target, fleet)) => {
                    attempt.moves.extend(unit.iter().map(|&guest| (guest, target)));
                    attempt.fleet = fleet;
                }
                None => attempt.stuck.push((place, objections)),
            }
        }
        attempt
    }

    /// The cluster with all guests of a unit on a target, and what that gains in points; or what objects to it.
    fn move_unit(
        &self,
        fleet: &Fleet,
        unit: &[usize],
        source: usize,
        target: usize,
    ) -> Result<(f64, Fleet), Reason> {
        let (mut after, mut gain) = (fleet.clone(), 0.0);
        for &guest in unit {
            gain += recommend::improvement(&self.rules(&after), guest, target);
            after.apply(guest, target);
        }
        // Each is judged with the others there already: a group is not split while it moves.
        let objection = unit.iter().find_map(|&guest| self.objection(&after, guest, source, target));
        match objection.or_else(|| self.too_full(&after, target)) {
            Some(reason) => Err(reason),
            None => Ok((gain, after)),
        }
    }

    /// The one reason that says most: what is the guest's own, then lack of room, then what a target said that is there.
    fn in_short(&self, guest: usize, objections: &[(usize, Reason)]) -> Reason {
        let reasons = || objections.iter().map(|(_, reason)| reason);
        let memory = bytes(self.fleet.guests[guest].memory);
        let away = |reason: &&Reason| {
            matches!(
                reason,
                Reason::TargetOffline { .. } | Reason::TargetBarred { .. } | Reason::TargetMaintenance { .. }
            )
        };
        if let Some(own) = reasons().find(|reason| concerns_guest(reason)) {
            return own.clone();
        }
        if reasons().any(|reason| matches!(reason, Reason::TargetMemory { .. })) {
            return Reason::NoRoom { memory };
        }
        let nodes = || objections.iter().map(|(target, _)| self.snapshot.nodes[*target].id.clone()).collect();
        reasons().find(|reason| !away(reason)).cloned().unwrap_or_else(|| Reason::NoTarget { nodes: nodes() })
    }
}

fn blocked_by(guest: &GuestState, reason: Reason, targets: Vec<(NodeId, Reason)>) -> Blocked {
    Blocked { guest: guest.vmid, name: guest.name.clone(), reason, targets }
}

#[cfg(test)]
#[path = "drain_tests.rs"]
mod tests;
