//! Why nothing (else) happens: a reason for every node, and on request for every guest.

use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::reason::Reason;
use evenkeel_common::units::Bytes;
use serde::{Deserialize, Serialize};

use crate::plan::{Planner, not_a_candidate};
use crate::score::{self, NodeScore, season};
use crate::search::Possible;

/// Why nothing (else) happens to a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStay {
    /// Which node.
    pub node: NodeId,
    /// At least one, the most telling first.
    pub reasons: Vec<Reason>,
}

/// Why a guest stays where it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestStay {
    /// Which guest.
    pub guest: Vmid,
    /// Why.
    pub reason: Reason,
}

fn score_of(scores: &[NodeScore], node: &NodeId) -> f64 {
    scores.iter().find(|score| score.node == *node).map_or(0.0, |score| score.score.get())
}

pub(crate) fn nodes(
    planner: &Planner<'_>,
    scores: &[NodeScore],
    suppressed: Option<&Reason>,
) -> Vec<NodeStay> {
    let (had, has) = (&planner.sources_before, planner.sources());
    let excuses = season::excuses(&planner.snapshot, &planner.fleet, planner.policy);
    let reasons = |index: usize| {
        let state = &planner.snapshot.nodes[index];
        let node = || state.id.clone();
        let score = score_of(scores, &state.id);
        if !state.online {
            return vec![Reason::NodeOffline { node: node() }];
        }
        if let Some(why) = &state.barred {
            return vec![Reason::NodeBarred { node: node(), why: Box::new(why.clone()) }];
        }
        let mut reasons: Vec<_> = suppressed.cloned().into_iter().collect();
        let counted = |at: fn(&evenkeel_common::decision::Recommendation) -> &NodeId| {
            let moves = planner.decisions.iter().filter(|decision| decision.action.is_accepted());
            u32::try_from(moves.filter(|decision| *at(&decision.recommendation) == state.id).count())
        };
        let (out, into) =
            (counted(|r| &r.source).unwrap_or(u32::MAX), counted(|r| &r.target).unwrap_or(u32::MAX));
        if out + into > 0 {
            reasons.push(Reason::NodeMoves { node: node(), out, into });
        }
        reasons.extend(waits(planner, &state.id));
        let guests: Vec<_> =
            (0..planner.snapshot.guests.len()).filter(|&guest| planner.fleet.place[guest] == index).collect();
        if planner.before.nodes[index].guests == 0 {
            reasons.extend(reasons.is_empty().then(|| Reason::NodeEmpty { node: node() }));
        } else if had[index] && has[index] && suppressed.is_none() {
            let best = best_held(planner, &guests).or_else(|| best_small(planner, &guests));
            let guests = u32::try_from(guests.len()).unwrap_or(u32::MAX);
            reasons.extend(best.or_else(|| {
                reasons.is_empty().then(|| Reason::NodeNoCandidate { node: node(), score, guests })
            }));
        } else if reasons.is_empty() {
            reasons.push(excuses[index].clone().unwrap_or_else(|| Reason::NodeCalm { node: node(), score }));
        }
        reasons
    };
    let stay =
        |index: usize| NodeStay { node: planner.snapshot.nodes[index].id.clone(), reasons: reasons(index) };
    (0..planner.snapshot.nodes.len()).map(stay).collect()
}

/// The first move of a node that passed the filters and is not made yet.
fn waits(planner: &Planner<'_>, node: &NodeId) -> Option<Reason> {
    let decision = planner.decisions.iter().find(|decision| {
        decision.recommendation.source == *node && decision.filter.is_none() && !decision.action.is_accepted()
    })?;
    let (guest, target) = (decision.recommendation.guest, decision.recommendation.target.clone());
    Some(Reason::BestMoveWaits { guest, target, why: Box::new(decision.reason.clone()) })
}

/// The best move that a filter held, among these guests.
fn best_held(planner: &Planner<'_>, guests: &[usize]) -> Option<Reason> {
    let held = guests.iter().filter_map(|guest| planner.held.get(guest));
    let best =
        held.reduce(|a, b| if b.recommendation.improvement > a.recommendation.improvement { b } else { a })?;
    Some(Reason::BestMoveHeld {
        guest: best.recommendation.guest,
        target: best.recommendation.target.clone(),
        improvement: best.recommendation.improvement,
        filter: best.step,
        objection: Box::new(best.reason.clone()),
    })
}

/// The best move that is not worth it, among these guests.
fn best_small(planner: &Planner<'_>, guests: &[usize]) -> Option<Reason> {
    let possible = guests.iter().filter_map(|&guest| planner.best[guest].map(|possible| (guest, possible)));
    let (guest, best) = possible.reduce(|a, b| if b.1.improvement > a.1.improvement { b } else { a })?;
    Some(planner.too_small(guest, best))
}

impl Planner<'_> {
    pub(crate) fn too_small(&self, guest: usize, best: Possible) -> Reason {
        let Possible { improvement, needed, dear, .. } = best;
        let guest = self.snapshot.guests[guest].vmid;
        let target = self.snapshot.nodes[best.target].id.clone();
        let (used, limit) = self.of_the_day();
        if dear && improvement > 0.0 {
            Reason::BestMoveTooDear { guest, target, improvement, needed, used, limit }
        } else {
            Reason::BestMoveTooSmall { guest, target, improvement, needed }
        }
    }

    /// That HA moves a guest along with another one that this run moves.
    fn comes_along(&self, guest: usize) -> Option<Reason> {
        let (rule, lead) = self.facts.bundles.bundle(guest)?.along(guest)?;
        let (rule, lead) = (rule.clone(), self.snapshot.guests[*lead].vmid);
        let node = self.fleet.place[guest];
        let target = self.snapshot.nodes[node].id.clone();
        (node != self.before.place[guest]).then_some(Reason::HaComesAlong { rule, guest: lead, target })
    }

    /// That no node has room for a guest, or for its group.
    fn no_room(&self, guest: usize) -> Reason {
        let source = self.fleet.place[guest];
        let mut others = (0..self.fleet.nodes.len()).filter(|&node| node != source);
        if !others.clone().any(|node| self.fleet.nodes[node].takes) {
            let id = |node: usize| self.snapshot.nodes[node].id.clone();
            return Reason::NoTarget { nodes: others.by_ref().map(id).collect() };
        }
        let unit = self.facts.bundles.unit(&guest);
        let memory = Bytes::from_f64(unit.iter().map(|&member| self.fleet.guests[member].memory).sum());
        match self.facts.bundles.bundle(guest).filter(|bundle| bundle.members.len() > 1) {
            Some(bundle) => bundle.no_room(&self.snapshot, memory),
            None => Reason::NoRoom { memory },
        }
    }
}

pub(crate) fn guests(
    planner: &Planner<'_>,
    scores: &[NodeScore],
    suppressed: Option<&Reason>,
) -> Vec<GuestStay> {
    let sources = planner.sources();
    let reason = |index: usize| {
        let guest = &planner.snapshot.guests[index];
        if let Some(reason) = not_a_candidate(guest) {
            return reason;
        }
        if let Some(reason) = suppressed {
            return reason.clone();
        }
        if let Some(reason) = planner.comes_along(index).or_else(|| best_held(planner, &[index])) {
            return reason;
        }
        let node = &planner.snapshot.nodes[planner.fleet.place[index]];
        let is_stuck = |reason: &&Reason| matches!(reason, Reason::GroupStuck { guests, .. } if guests.contains(&guest.vmid));
        if let Some(stuck) = planner.stuck.iter().find(is_stuck) {
            return stuck.clone();
        }
        let bundles = &planner.facts.bundles;
        if !sources[planner.fleet.place[index]] && bundles.follows(index).is_none() {
            let (before, node) = (score_of(scores, &node.id), node.id.clone());
            let after = score::score(&planner.fleet.nodes[planner.fleet.place[index]]).get();
            return if (after - before).abs() < 0.5 {
                Reason::SourceCalm { node, score: before }
            } else {
                Reason::SourceRelieved { node, before, after }
            };
        }
        let lead = bundles.unit(&index)[0];
        match planner.best[lead] {
            Some(best) => planner.too_small(lead, best),
            None => planner.no_room(index),
        }
    };
    let decided = |vmid: Vmid| planner.decisions.iter().any(|decision| decision.recommendation.guest == vmid);
    let staying = planner.snapshot.guests.iter().enumerate().filter(|(_, guest)| !decided(guest.vmid));
    staying.map(|(index, guest)| GuestStay { guest: guest.vmid, reason: reason(index) }).collect()
}
