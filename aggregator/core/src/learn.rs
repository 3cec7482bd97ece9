//! Advice that was followed, watched until it can be said whether it helped.
//!
//! Only moves that evenkeel advised or made are judged: what somebody else moved a guest for, nobody here knows. What a
//! move was for decides how: a gain that comes with the arrival (a node to be emptied, memory, a tag) is there when the
//! guest is; less waiting is judged by [`crate::outcome`], over as many hours as decisions look ahead, from the
//! snapshots of these hours. Where these are too few, or the guest went on too soon, nothing is said.
//!
//! Verdicts become [`PastMove::helped`](crate::PastMove::helped), which filters 8 and 12 judge by.

use std::time::Duration;

use evenkeel_common::decision::Decision;
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::outcome::{self, Demand, Moment, Outcome};
use crate::snapshot::{GuestState, NodeState, PastMove, Snapshot, takes_part};

/// How long after it was given a piece of advice may be followed and still be the reason.
const FOLLOWED: Duration = Duration::from_secs(2 * 3600);

/// Longest time that one snapshot may stand for.
const STEP: Duration = Duration::from_secs(300);

/// Pieces of advice and moves that are remembered at most.
const MOST: usize = 1000;

/// Hours after which a guest that does not stay may be judged all the same.
const LEAST_HOURS: f64 = 1.0;

/// Times the hours of a verdict after which it is given up.
const PATIENCE: u32 = 2;

/// A move that was advised and may be made.
#[derive(Clone, Debug, PartialEq)]
struct Advice {
    guest: Vmid,
    source: NodeId,
    target: NodeId,
    at: Timestamp,
    certain: bool,
}

/// A guest that came by advice and is watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// Which guest.
    pub guest: Vmid,
    /// From where.
    pub source: NodeId,
    /// To where.
    pub target: NodeId,
    /// When it arrived.
    pub at: Timestamp,
    /// What came of it so far.
    pub outcome: Outcome,
    /// The last snapshot that counted, or its arrival.
    pub seen: Timestamp,
}

/// What is said of a move in the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Which move.
    pub of: Watched,
    /// Whether it helped; `None` where that can not be said.
    pub helped: Option<bool>,
}

/// Watches what comes of advice in one cluster.
#[derive(Debug, Default)]
pub struct Learner {
    advice: Vec<Advice>,
    watched: Vec<Watched>,
}

impl Learner {
    /// Goes on with what was watched before a restart.
    #[must_use]
    pub fn resume(watched: Vec<Watched>) -> Self {
        Self { advice: Vec::new(), watched }
    }

    /// Everything that is watched now.
    #[must_use]
    pub fn watched(&self) -> &[Watched] {
        &self.watched
    }

    /// Remembers what a run advises or does.
    pub fn note(&mut self, decisions: &[Decision]) {
        for decision in decisions.iter().filter(|decision| decision.action.is_accepted()) {
            let r = &decision.recommendation;
            self.advice.retain(|old| old.guest != r.guest);
            self.advice.push(Advice {
                guest: r.guest,
                source: r.source.clone(),
                target: r.target.clone(),
                at: Timestamp::from_millis(decision.id.run_s.saturating_mul(1000)),
                certain: r.certain,
            });
        }
        let many = self.advice.len().saturating_sub(MOST);
        self.advice.drain(..many);
    }

    /// Looks at a new snapshot, and says of which moves it is now known what came of them.
    pub fn follow(&mut self, snapshot: &Snapshot) -> Vec<Verdict> {
        self.advice.retain(|advice| snapshot.at.since(advice.at) <= FOLLOWED);
        let mut verdicts = self.arrivals(snapshot);
        if !snapshot.problems.is_empty() {
            return verdicts; // Nothing in it can be relied on; the time does not count.
        }
        let mut open = Vec::new();
        for mut watched in std::mem::take(&mut self.watched) {
            match watched.step(snapshot) {
                None => open.push(watched),
                Some(helped) => verdicts.push(Verdict { of: watched, helped }),
            }
        }
        self.watched = open;
        verdicts
    }

    /// Begins to watch who came as advised; of some, the arrival is all there is to know.
    fn arrivals(&mut self, snapshot: &Snapshot) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for past in snapshot.history.iter().filter(|past| past.ok && past.helped.is_none()) {
            let meant = |advice: &Advice| {
                (advice.guest, &advice.source, &advice.target) == (past.guest, &past.from, &past.to)
                    && advice.at <= past.at
            };
            let Some(place) = self.advice.iter().position(meant) else { continue };
            let certain = self.advice.remove(place).certain;
            let watched = Watched::of(past);
            if certain {
                verdicts.push(Verdict { of: watched, helped: Some(true) });
            } else if self.watched.len() < MOST {
                self.watched.push(watched);
            }
        }
        verdicts
    }
}

impl Watched {
    fn of(past: &PastMove) -> Self {
        Self {
            guest: past.guest,
            source: past.from.clone(),
            target: past.to.clone(),
            at: past.at,
            outcome: Outcome::default(),
            seen: past.at,
        }
    }

    /// Adds what a snapshot shows; the verdict once there is one.
    fn step(&mut self, snapshot: &Snapshot) -> Option<Option<bool>> {
        let Some(guest) = snapshot.guests.iter().find(|guest| guest.vmid == self.guest) else {
            return Some(self.early());
        };
        if guest.node != self.target || !guest.running {
            return Some(self.early());
        }
        let hours = Duration::from_secs_f64(outcome::HOURS * 3600.0);
        if snapshot.at.since(self.at) > hours * PATIENCE {
            return Some(None);
        }
        let node = |id: &NodeId| snapshot.nodes.iter().find(|node| node.id == *id && takes_part(node));
        if let (Some(source), Some(target), Some(_)) =
            (node(&self.source), node(&self.target), guest.cpu_used)
        {
            let step = snapshot.at.since(self.seen).min(STEP);
            self.outcome.add(&Moment {
                hours: step.as_secs_f64() / 3600.0,
                source_cores: source.cores,
                source: on(source, &snapshot.guests),
                target_cores: target.cores,
                target: on(target, &snapshot.guests),
                guest: wants(guest),
            });
        }
        self.seen = snapshot.at;
        // A sum of minutes is not exact.
        (self.outcome.hours >= outcome::HOURS - 1e-6).then(|| Some(self.outcome.helped()))
    }

    /// The verdict on a guest that did not stay.
    fn early(&self) -> Option<bool> {
        (self.outcome.hours >= LEAST_HOURS).then(|| self.outcome.helped())
    }
}

fn wants(guest: &GuestState) -> Demand {
    let cores = guest.cpu_used.unwrap_or(0.0) + guest.cpu_waited;
    // Without a number of vCPUs each of them may be on its own.
    let busy = if guest.vcpus > 0.0 { cores / guest.vcpus } else { 0.0 };
    Demand { cores, variance: (cores * (1.0 - busy)).max(0.0) }
}

fn on(node: &NodeState, guests: &[GuestState]) -> Demand {
    let here = guests.iter().filter(|guest| guest.running && guest.node == node.id);
    Demand { cores: node.cpu_used + node.cpu_waited, variance: here.map(|guest| wants(guest).variance).sum() }
}

#[cfg(test)]
#[path = "learn_tests.rs"]
mod tests;
