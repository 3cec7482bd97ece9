//! What if: questions about a cluster that change nothing. Pure, like the decision itself, and on the same scores,
//! predictions and affinity rules.
//!
//! - [`balance`]: how would this cluster be put in order;
//! - [`drain`]: can this node be emptied, in which order, and what then;
//! - [`place`]: where does a new guest belong;
//! - [`replay`]: what would this policy have done with the history there is.
//!
//! As a run does, each refuses to answer on stale or partial data, and says so.

mod after;
pub mod balance;
pub mod drain;
pub mod place;
pub mod replay;

use evenkeel_common::decision::Step;
use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::reason::Reason;
use evenkeel_common::units::Bytes;

pub use after::{NodeAfter, NodeFailure, Outgoing};

use crate::bundle::Bundles;
use crate::pipeline::{self, Context, Facts, Filter};
use crate::policy::Policy;
use crate::recommend::Price;
use crate::repair::Rules;
use crate::score::fleet::Fleet;
use crate::snapshot::{Candidate, HaRule, Snapshot};
use crate::suppress;

/// A question that can not be asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WhatifError {
    /// There is no such node.
    #[error("cluster {cluster} has no node {node}; it has {known}")]
    UnknownNode {
        /// The node asked for.
        node: NodeId,
        /// Where.
        cluster: ClusterId,
        /// Its nodes.
        known: String,
    },
    /// A guest that can not be.
    #[error("{what} {given} can not be: {allowed}")]
    BadGuest {
        /// Which of its properties.
        what: &'static str,
        /// What was given.
        given: String,
        /// What is possible.
        allowed: String,
    },
}

/// A cluster on which moves are tried out by the rules that can not be waived: affinity, hardware, memory.
struct Ground<'a> {
    snapshot: Snapshot,
    fleet: Fleet,
    facts: Facts,
    policy: &'a Policy,
    affinity: Option<Box<dyn Filter>>,
}

impl<'a> Ground<'a> {
    /// `snapshot`: sorted, with what is on its way applied.
    fn new(snapshot: Snapshot, policy: &'a Policy) -> Self {
        let fleet = Fleet::of(&snapshot, policy);
        // Who moves with whom is for each question to say.
        let mut facts = Facts::of(&snapshot, &[]);
        facts.bundles = Bundles::default();
        let steps = pipeline::standard(policy).into_iter();
        let affinity = steps.into_iter().find(|filter| filter.step() == Step::Affinity);
        Self { snapshot, fleet, facts, policy, affinity }
    }

    /// What keeps a guest from going to a target on the cluster as `fleet` has it.
    fn objection(&self, fleet: &Fleet, guest: usize, source: usize, target: usize) -> Option<Reason> {
        let context = Context {
            snapshot: &self.snapshot,
            fleet,
            before: fleet,
            facts: &self.facts,
            policy: self.policy,
            price: Price::PLAIN,
        };
        let migration = self.snapshot.move_at(guest, source, target);
        let verdict = self.affinity.as_ref()?.judge(&migration, &context);
        verdict.objection().map(|(_, reason)| reason.clone())
    }

    /// The rules that tags make, on the cluster as `fleet` has it.
    fn rules<'b>(&'b self, fleet: &'b Fleet) -> Rules<'b> {
        Rules { snapshot: &self.snapshot, facts: &self.facts, fleet }
    }

    /// Why a node has too little memory for what `fleet` puts on it; `None` when its reserve is kept.
    fn too_full(&self, fleet: &Fleet, node: usize) -> Option<Reason> {
        let (load, reserve) = (&fleet.nodes[node], fleet.reserve_of(node));
        let free = load.memory - load.memory_used;
        (free < reserve).then(|| Reason::TargetMemory {
            target: self.snapshot.nodes[node].id.clone(),
            free_after: bytes(free),
            reserve: bytes(reserve),
        })
    }

    /// Guests that belong together by tag or HA rule, each group by index.
    fn together(&self) -> Vec<Vec<usize>> {
        let tagged = self.facts.groups.iter().filter(|(name, members)| {
            members.iter().any(|&member| self.facts.tags[member].together.contains(*name))
        });
        let ruled = self.snapshot.rules.iter().filter_map(|rule| match rule {
            HaRule::ResourceAffinity { guests, together: true, .. } => {
                Some(guests.iter().filter_map(|vmid| self.snapshot.guest_index(*vmid)).collect())
            }
            _ => None,
        });
        tagged.map(|(_, members)| members.clone()).chain(ruled).collect()
    }

    /// As a person sees it who empties a node: containers may move, since he knows that they restart, and who belongs
    /// together need not wait for members that do not run.
    fn ease(&mut self) {
        let guests = &self.snapshot.guests;
        for (name, members) in &mut self.facts.groups {
            if members.iter().any(|&member| self.facts.tags[member].together.contains(name)) {
                members.retain(|&member| guests[member].running);
            }
        }
        for (tags, guest) in self.facts.tags.iter_mut().zip(guests) {
            tags.restart_ok |= guest.kind == GuestKind::Lxc;
        }
        let runs = |vmid: &Vmid| guests.iter().any(|guest| guest.vmid == *vmid && guest.running);
        for rule in &mut self.snapshot.rules {
            if let HaRule::ResourceAffinity { guests, together: true, .. } = rule {
                guests.retain(runs);
            }
        }
    }
}

/// The snapshot in canonical order with what is on its way arrived, as a run sees it.
fn arrived(snapshot: &Snapshot) -> Snapshot {
    let mut sorted = snapshot.sorted();
    for flight in sorted.in_flight.clone() {
        if let Some(target) = flight.to {
            sorted.apply(&Candidate { guest: flight.guest, target });
        }
    }
    sorted
}

/// The cluster as a person sees it who knows that containers restart to move: each consents to it.
#[must_use]
pub fn with_restarts(snapshot: &Snapshot) -> Snapshot {
    let mut snapshot = snapshot.clone();
    for guest in snapshot.guests.iter_mut().filter(|guest| guest.kind == GuestKind::Lxc) {
        guest.tags.push("evenkeel-restart-ok".to_owned());
    }
    snapshot
}

/// What forbids any answer, and what is only to be known with it: a pause or somebody's migration keeps a run from
/// moving, not a person from asking.
pub(crate) fn doubts(snapshot: &Snapshot, policy: &Policy) -> (Vec<Reason>, Vec<Reason>) {
    let passing = |reason: &Reason| matches!(reason, Reason::Paused { .. } | Reason::ForeignMigration { .. });
    let (cautions, problems) = suppress::problems(snapshot, policy).into_iter().partition(passing);
    (problems, cautions)
}

/// Names of all nodes, for an error.
fn names(snapshot: &Snapshot) -> String {
    let names: Vec<_> = snapshot.nodes.iter().map(|node| node.id.as_str()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Saturates; for people to read.
fn bytes(value: f64) -> Bytes {
    Bytes(value.max(0.0) as u64)
}
