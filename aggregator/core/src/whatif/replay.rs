//! What a policy would have done with the history there is, and what it would have gained.
//!
//! The stored snapshots are decided again, one after the other, on a virtual placement: what the policy moves stays
//! moved in every later snapshot, until somebody really moves the guest or it vanishes. A move takes the minutes it is
//! expected to take, and counts towards cooldown and limits like any other. Load goes with its guest; that demand does
//! not depend on placement is assumed, so guests that starved on a full node are credited with what they waited for,
//! and no more. Every accepted move counts as done, as in mode `auto`.
//!
//! Both courses are scored by the same rules, on the same snapshots; those that can not be decided on are in neither.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_common::decision::{Action, Mover};
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::Timestamp;

use crate::pipeline::Facts;
use crate::policy::{Mode, Policy};
use crate::recommend;
use crate::repair::Rules;
use crate::score::fleet::Fleet;
use crate::search::over_threshold;
use crate::snapshot::{Candidate, InFlight, NodeState, PastMove, Snapshot};
use crate::{Memory, decide};

/// Moves that are listed; all are counted.
pub const MOST_MOVES: usize = 1_000;

/// How far back the filters look.
const LOOK_BACK: Duration = Duration::from_secs(168 * 3600);

/// A move back within this is a return: it was for nothing.
const RETURN_WITHIN: Duration = Duration::from_secs(48 * 3600);

/// Time without a snapshot from which on it is a gap: three intervals of the policy, and no less than this.
const LEAST_GAP: Duration = Duration::from_secs(180);

/// Where a guest is in this course of events, and where it really is.
#[derive(Clone, Debug)]
struct Placed {
    really_on: NodeId,
    on: NodeId,
}

/// A move of the policy on its way.
#[derive(Clone, Debug)]
struct Flying {
    guest: Vmid,
    from: NodeId,
    to: NodeId,
    arrives: Timestamp,
}

/// One course of events: as it was, or as it would have been.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Course {
    /// Mean of the cluster's score over the snapshots, in points; lower is better.
    pub mean_score: f64,
    /// Its highest.
    pub peak_score: f64,
    /// Hours that nodes were over a threshold of the policy, added up over nodes.
    pub node_hours_over: f64,
    /// Nodes over a threshold in the last snapshot.
    over_now: u32,
}

/// A move the policy would have made.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayedMove {
    /// When.
    pub at: Timestamp,
    /// Which guest.
    pub guest: Vmid,
    /// Its name; another's text.
    pub name: String,
    /// From where.
    pub source: NodeId,
    /// To where.
    pub target: NodeId,
    /// Expected improvement of the cluster's score, in points.
    pub improvement: f64,
    /// Expected minutes.
    pub minutes: f64,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replayed {
    /// First and last snapshot.
    pub from: Option<Timestamp>,
    /// Last snapshot.
    pub to: Option<Timestamp>,
    /// Snapshots decided on.
    pub runs: u32,
    /// Hours of history between the snapshots, gaps left out.
    pub hours: f64,
    /// Stretches without snapshots.
    pub gaps: u32,
    /// Their hours.
    pub gap_hours: f64,
    /// Snapshots that are in neither course, because their data could not be relied on.
    pub unreliable: u32,
    /// Runs that decided nothing as a whole, by the code of the reason.
    pub suppressed: BTreeMap<String, u32>,
    /// Recommendations that came to something else than a move, by action; a guest counts in each run.
    pub actions: BTreeMap<Action, u32>,
    /// The moves, oldest first; at most [`MOST_MOVES`].
    pub moves: Vec<ReplayedMove>,
    /// How many there were.
    pub moved: u32,
    /// Minutes that they take together.
    pub minutes: f64,
    /// Moves back to a node that the guest had left within 48 h.
    pub returns: u32,
    /// Guests that somebody really moved, or that vanished, after the policy had moved them.
    pub overtaken: u32,
    /// As it was.
    pub was: Course,
    /// As it would have been.
    pub would: Course,
}

/// A replay under way: give it snapshots of one cluster, the oldest first.
pub struct Replay {
    policy: Policy,
    memory: Memory,
    placed: BTreeMap<Vmid, Placed>,
    flying: Vec<Flying>,
    past: Vec<PastMove>,
    last: Option<Timestamp>,
    result: Replayed,
}

impl Replay {
    /// A replay of this policy.
    #[must_use]
    pub fn new(policy: &Policy) -> Self {
        Self {
            policy: Policy { mode: Mode::Auto, ..policy.clone() },
            memory: Memory::default(),
            placed: BTreeMap::new(),
            flying: Vec::new(),
            past: Vec::new(),
            last: None,
            result: Replayed::default(),
        }
    }

    /// Goes on by one snapshot. One that is not younger than the last, or comes before the policy's next run is due, is
    /// left out.
    pub fn step(&mut self, real: &Snapshot) {
        let interval = Duration::from_secs(self.policy.decision_interval.into());
        if let Some(last) = self.last {
            // A run may begin a moment early.
            let due = last.after(interval.mul_f64(0.9));
            if real.at <= last || real.at < due {
                return;
            }
            self.pass(real.at.since(last), interval);
        }
        self.last = Some(real.at);
        self.result.from.get_or_insert(real.at);
        self.result.to = Some(real.at);
        let real = real.sorted();
        let virtual_ = self.placed_anew(&real);
        let run = decide(&virtual_, &self.policy, &self.memory);
        self.memory.clone_from(&run.memory_out);
        self.result.runs += 1;
        if let Some(reason) = &run.suppressed {
            *self.result.suppressed.entry(reason.code().to_owned()).or_default() += 1;
        }
        for decision in &run.decisions {
            if decision.action != Action::Pending {
                *self.result.actions.entry(decision.action).or_default() += 1;
            }
        }
        if run.scores.is_empty() || !super::doubts(&virtual_, &self.policy).0.is_empty() {
            self.result.unreliable += 1;
            (self.result.was.over_now, self.result.would.over_now) = (0, 0);
        } else {
            let seen = self.result.runs - self.result.unreliable;
            self.result.was.see(&real, &self.policy, seen);
            self.result.would.see(&virtual_, &self.policy, seen);
        }
        for decision in run.decisions.into_iter().filter(|decision| decision.action == Action::Pending) {
            self.depart(&real, decision.recommendation);
        }
    }

    /// What came out.
    #[must_use]
    pub fn finish(self) -> Replayed {
        self.result
    }

    /// Counts time since the last snapshot, unless it is a gap.
    fn pass(&mut self, span: Duration, interval: Duration) {
        let hours = span.as_secs_f64() / 3600.0;
        if span > (interval * 3).max(LEAST_GAP) {
            self.result.gaps += 1;
            self.result.gap_hours += hours;
            return;
        }
        self.result.hours += hours;
        for course in [&mut self.result.was, &mut self.result.would] {
            course.node_hours_over += f64::from(course.over_now) * hours;
        }
    }

    /// The snapshot with the guests where the policy has put them.
    fn placed_anew(&mut self, real: &Snapshot) -> Snapshot {
        let place = |vmid: Vmid| real.guest_index(vmid).map(|index| &real.guests[index].node);
        let online = |node: &NodeId| real.node_index(node).is_some_and(|index| real.nodes[index].online);
        let before = self.placed.len();
        self.placed.retain(|vmid, placed| place(*vmid) == Some(&placed.really_on) && online(&placed.on));
        self.result.overtaken += u32::try_from(before - self.placed.len()).unwrap_or(u32::MAX);
        self.flying.retain(|flight| self.placed.contains_key(&flight.guest));
        self.past.retain(|past| real.at.since(past.at) <= LOOK_BACK);

        let mut snapshot = real.clone();
        let (landed, flying): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.flying).into_iter().partition(|flight| flight.arrives <= real.at);
        self.past.extend(landed.into_iter().map(|flight| PastMove {
            guest: flight.guest,
            from: flight.from,
            to: flight.to,
            at: flight.arrives,
            by: Mover::Evenkeel,
            ok: true,
            helped: None,
        }));
        self.flying = flying;
        for (&guest, placed) in &self.placed {
            let flight = self.flying.iter().find(|flight| flight.guest == guest);
            let target = flight.map_or(&placed.on, |flight| &flight.from).clone();
            snapshot.apply(&Candidate { guest, target });
        }
        let under_way = |flight: &Flying| InFlight {
            guest: flight.guest,
            from: flight.from.clone(),
            to: Some(flight.to.clone()),
            by: Mover::Evenkeel,
        };
        snapshot.in_flight.extend(self.flying.iter().map(under_way));
        press_anew(&mut snapshot, real);
        snapshot.history.extend(self.past.iter().cloned());
        snapshot
    }

    fn depart(&mut self, real: &Snapshot, advice: evenkeel_common::decision::Recommendation) {
        if real.guest_index(advice.guest).is_none() {
            return;
        }
        let all: Vec<Vmid> = std::iter::once(advice.guest).chain(advice.along().iter().copied()).collect();
        let (guest, from, to, at) = (advice.guest, advice.source, advice.target, real.at);
        let history = real.history.iter().chain(&self.past);
        let returns = |past: &PastMove| {
            past.guest == guest && past.ok && past.from == to && at.since(past.at) <= RETURN_WITHIN
        };
        self.result.returns += u32::from(history.into_iter().any(returns));
        self.result.moved += 1;
        let minutes = advice.cost.minutes;
        self.result.minutes += minutes;
        if self.result.moves.len() < MOST_MOVES {
            self.result.moves.push(ReplayedMove {
                at,
                guest,
                name: advice.name,
                source: from.clone(),
                target: to.clone(),
                improvement: advice.improvement,
                minutes,
            });
        }
        // A day at most, whatever the cost model says.
        let arrives = at.after(Duration::from_secs_f64((minutes * 60.0).clamp(0.0, 86_400.0)));
        for guest in all {
            let Some(index) = real.guest_index(guest) else { continue };
            let really_on = real.guests[index].node.clone();
            self.placed.insert(guest, Placed { really_on, on: to.clone() });
            self.flying.push(Flying { guest, from: from.clone(), to: to.clone(), arrives });
        }
    }
}

/// Gives each node the CPU pressure that its demand would cause: pressure is waiting, and a node whose guests have left
/// would not be relieved as long as it is shown waiting as before. It falls as waiting does; it rises in proportion to
/// demand, to twice what was measured at most, as the score expects of a target: what a calm node shows is noise, and says
/// little about its limit. What memory and I/O wait for is nobody's in particular and stays.
///
/// # Source
/// Waiting at `m` servers with load `u` goes about as `u^(sqrt(2(m+1))-1)`: Sakasegawa, An approximation formula
/// `L_q = a p^b / (1-p)` (1977).
fn press_anew(snapshot: &mut Snapshot, real: &Snapshot) {
    let arrived = super::arrived(snapshot);
    for ((node, then), was) in snapshot.nodes.iter_mut().zip(&arrived.nodes).zip(&real.nodes) {
        let demand = |node: &NodeState| node.cpu_used + node.cpu_waited;
        let load = |node: &NodeState| (demand(node) / node.cores).clamp(0.0, 1.0);
        let ratio = if demand(then) < demand(was) {
            (load(then) / load(was)).powf((2.0 * (node.cores + 1.0)).sqrt() - 1.0)
        } else {
            (demand(then) / demand(was)).min(2.0)
        };
        if let Some(pressure) = node.pressure.cpu.as_mut().filter(|_| ratio.is_finite()) {
            *pressure = (*pressure * ratio).min(100.0);
        }
    }
}

impl Course {
    /// Takes in the `seen`th snapshot.
    fn see(&mut self, snapshot: &Snapshot, policy: &Policy, seen: u32) {
        let arrived = super::arrived(snapshot);
        let fleet = Fleet::of(&arrived, policy);
        let facts = Facts::of(&arrived, &[]);
        let score = recommend::objective(&Rules { snapshot: &arrived, facts: &facts, fleet: &fleet });
        self.mean_score += (score - self.mean_score) / f64::from(seen.max(1));
        self.peak_score = self.peak_score.max(score);
        let over = over_threshold(&arrived, &fleet, policy).into_iter().filter(|over| *over).count();
        self.over_now = u32::try_from(over).unwrap_or(u32::MAX);
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
