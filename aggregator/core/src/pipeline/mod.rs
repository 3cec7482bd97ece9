//! The filters a recommendation must pass. [`standard`] is the order; each filter is one file and one rule.
//!
//! A filter answers from the move and the [`Context`] alone. `run` stops at the first objection, `explain` asks all.

pub(crate) mod affinity;
mod confidence;
mod conflict;
mod cooldown;
mod cost_benefit;
mod cycle;
pub(crate) mod guest_success;
pub(crate) mod improvement;
mod outcome;
mod pattern;
pub(crate) mod persistence;
mod risk;
mod rollback;
mod standard;
mod tags;
mod track;
mod trend;

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_common::decision::{Step, Trail, TrailEntry, Verdict};
use evenkeel_common::id::Vmid;
use evenkeel_common::reason::Reason;
use evenkeel_common::time::Timestamp;

use crate::bundle::{self, Bundles};
use crate::policy::Policy;
use crate::recommend::Price;
use crate::repair::Rules;
use crate::score::fleet::Fleet;
use crate::score::season::Day;
use crate::snapshot::{Move, PastMove, Snapshot};

pub use persistence::{Advised, Memory, Observed};
pub use standard::standard;
pub(crate) use tags::Tags;
use track::Tracks;

/// One rule that may object to a move.
pub trait Filter {
    /// Its name and place.
    fn step(&self) -> Step;

    /// Its answer. `Filtered`: must not happen now. `Deferred`: better later. Never `NotAsked`.
    fn judge(&self, migration: &Move<'_>, context: &Context<'_>) -> Verdict;
}

/// What filters may look at besides the move itself.
pub struct Context<'a> {
    /// The cluster with the moves accepted so far already made (sorted).
    pub snapshot: &'a Snapshot,
    /// Expected loads of the same.
    pub(crate) fleet: &'a Fleet,
    /// Expected loads before any move of this run.
    pub(crate) before: &'a Fleet,
    /// What tags and history say.
    pub(crate) facts: &'a Facts,
    /// The options.
    pub policy: &'a Policy,
    /// How dear moves are in this run.
    pub(crate) price: Price,
}

impl Context<'_> {
    /// Successful moves of a guest that ended within `window`, oldest first.
    pub(crate) fn moves_of(
        &self,
        guest: Vmid,
        window: Duration,
    ) -> impl DoubleEndedIterator<Item = &PastMove> {
        let since = self.snapshot.at.before(window);
        self.facts.moves_of(self.snapshot, guest).filter(move |past| past.ok && past.at > since)
    }

    /// The rules that tags make.
    pub(crate) fn rules(&self) -> Rules<'_> {
        Rules { snapshot: self.snapshot, facts: self.facts, fleet: self.fleet }
    }

    /// Minutes since a moment.
    pub(crate) fn minutes_since(&self, at: Timestamp) -> f64 {
        self.snapshot.at.since(at).as_secs_f64() / 60.0
    }
}

/// What follows from a sorted snapshot and does not change while moves are folded in.
pub(crate) struct Facts {
    /// Tags by guest index.
    pub tags: Vec<Tags>,
    /// Members of each affinity and anti-affinity tag, by guest index.
    pub groups: BTreeMap<String, Vec<usize>>,
    /// Running guests of the same tags, by guest index.
    pub near: Vec<Near>,
    /// Guests that move as one.
    pub bundles: Bundles,
    /// Indices into the history, by guest, oldest first.
    history: BTreeMap<Vmid, Vec<usize>>,
    /// How earlier moves went.
    tracks: Tracks,
    /// The usual day of each node, before any move of this run.
    days: Vec<Option<Day>>,
}

/// With whom a guest shares affinity and anti-affinity tags: running guests, as often as they share one.
#[derive(Debug)]
pub(crate) struct Near {
    pub together: Vec<usize>,
    pub apart: Vec<usize>,
}

impl Near {
    fn of(guest: usize, tags: &[Tags], groups: &BTreeMap<String, Vec<usize>>, snapshot: &Snapshot) -> Self {
        let peers = |names: &[String]| {
            let members = names.iter().flat_map(|name| groups.get(name).into_iter().flatten().copied());
            members.filter(|&peer| peer != guest && snapshot.guests[peer].running).collect()
        };
        Self { together: peers(&tags[guest].together), apart: peers(&tags[guest].apart) }
    }
}

impl Facts {
    /// `advised`: moves that count as evenkeel's own though a person makes them.
    pub(crate) fn of(snapshot: &Snapshot, advised: &[Advised]) -> Self {
        let tags: Vec<_> = snapshot.guests.iter().map(|guest| Tags::read(guest, &snapshot.nodes)).collect();
        let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, tags) in tags.iter().enumerate() {
            for group in tags.together.iter().chain(&tags.apart) {
                groups.entry(group.clone()).or_default().push(index);
            }
        }
        let mut history: BTreeMap<Vmid, Vec<usize>> = BTreeMap::new();
        for (index, past) in snapshot.history.iter().enumerate() {
            history.entry(past.guest).or_default().push(index);
        }
        let (tracks, days) = (Tracks::of(snapshot), Day::of_nodes(snapshot));
        let bundles = Bundles::of(snapshot, &tags, advised);
        let near = (0..tags.len()).map(|guest| Near::of(guest, &tags, &groups, snapshot)).collect();
        Self { tags, groups, near, bundles, history, tracks, days }
    }

    fn moves_of<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        guest: Vmid,
    ) -> impl DoubleEndedIterator<Item = &'a PastMove> {
        self.history.get(&guest).into_iter().flatten().map(|&index| &snapshot.history[index])
    }

    /// Tags that could not be followed, guest by guest.
    pub(crate) fn warnings(&self) -> Vec<Reason> {
        self.tags.iter().flat_map(|tags| tags.warnings.iter().cloned()).collect()
    }
}

/// Why a guest has to go wherever it can: its node is to be emptied. What weighs whether a move is worth it, or likely
/// to be, has no say then.
pub(crate) fn must_leave(migration: &Move<'_>) -> Option<Reason> {
    let node = &migration.source.id;
    migration.source.maintenance.then(|| Reason::SourceMaintenance { node: node.clone() })
}

/// Asks in order until one objects; the rest is `NotAsked`.
#[must_use]
pub fn run(steps: &[Box<dyn Filter>], migration: &Move<'_>, context: &Context<'_>) -> Trail {
    let mut stopped = false;
    ask(steps, |filter| {
        if stopped {
            return Verdict::NotAsked;
        }
        let verdict = bundle::judge(filter, migration, context);
        stopped = verdict.objection().is_some();
        verdict
    })
}

/// Asks every filter.
#[must_use]
pub fn explain(steps: &[Box<dyn Filter>], migration: &Move<'_>, context: &Context<'_>) -> Trail {
    ask(steps, |filter| bundle::judge(filter, migration, context))
}

fn ask(steps: &[Box<dyn Filter>], mut judge: impl FnMut(&dyn Filter) -> Verdict) -> Trail {
    let answers = steps.iter().map(AsRef::as_ref);
    Trail(answers.map(|filter| TrailEntry { filter: filter.step(), verdict: judge(filter) }).collect())
}

/// The first objection alone, for the search: as [`run`] decides, without a trail.
pub(crate) fn first_objection(
    steps: &[Box<dyn Filter>],
    migration: &Move<'_>,
    context: &Context<'_>,
) -> Option<Reason> {
    steps.iter().find_map(|filter| {
        let verdict = bundle::judge(filter.as_ref(), migration, context);
        verdict.objection().map(|(_, reason)| reason.clone())
    })
}
