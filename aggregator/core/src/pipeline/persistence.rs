//! The gate before action: a recommendation must last (spec E4).
//!
//! It counts once it appeared in `observation_periods` consecutive runs (same guest, same source, same or better
//! target) within `observation_window_hours`. Recommendations that a filter holds are counted too, so that a wait for
//! the filter is not followed by another one. What a run does not see is forgotten; a run that could not decide
//! forgets nothing.

use std::time::Duration;

use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::reason::Reason;
use evenkeel_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::policy::Policy;

/// What one run hands to the next. Starts empty; kept by the caller, per cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Time of the first run.
    pub since: Option<Timestamp>,
    /// Recommendations of the last run, by guest.
    pub observed: Vec<Observed>,
    /// Moves of groups that were advised lately, by guest: a person who makes one of them does what evenkeel said, and
    /// the rest of the group follows as if evenkeel had made it.
    #[serde(default)]
    pub advised: Vec<Advised>,
}

/// A move that was left to a person.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Advised {
    /// Which guest.
    pub guest: Vmid,
    /// From where.
    pub source: NodeId,
    /// To where.
    pub target: NodeId,
    /// When, the last time.
    pub at: Timestamp,
}

/// A recommendation and the runs it appeared in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Which guest.
    pub guest: Vmid,
    /// From where.
    pub source: NodeId,
    /// To where, the last time.
    pub target: NodeId,
    /// Times of the runs, oldest first; as many as are needed at most.
    pub seen: Vec<Timestamp>,
}

impl Memory {
    /// The entry of the same guest and source in the previous run.
    pub(crate) fn matching(&self, guest: Vmid, source: &NodeId) -> Option<&Observed> {
        self.observed.iter().find(|old| old.guest == guest && old.source == *source)
    }
}

/// The entry for a recommendation of this run; `previous` if it is the same one as in the last run.
pub(crate) fn observe(
    now: Timestamp,
    (guest, source, target): (Vmid, &NodeId, &NodeId),
    previous: Option<&Observed>,
    policy: &Policy,
) -> Observed {
    let options = &policy.intelligent_migrations;
    let oldest = now.before(Duration::from_secs_f64(options.observation_window_hours * 3600.0));
    let mut seen: Vec<_> = previous.map_or(&[][..], |old| &old.seen[..]).to_vec();
    seen.retain(|&at| at >= oldest && at < now); // A run repeated at the same time counts once.
    seen.push(now);
    let surplus = seen.len().saturating_sub(options.observation_periods as usize);
    seen.drain(..surplus);
    Observed { guest, source: source.clone(), target: target.clone(), seen }
}

/// Why a recommendation does not count yet; `None` when it does.
pub(crate) fn gate(
    now: Timestamp,
    since: Option<Timestamp>,
    entry: &Observed,
    policy: &Policy,
) -> Option<Reason> {
    if !policy.toggles().persistence {
        return None;
    }
    let options = &policy.intelligent_migrations;
    let hours = now.since(since.unwrap_or(now)).as_secs_f64() / 3600.0;
    if hours < options.minimum_data_collection_hours {
        return Some(Reason::Collecting { hours, needed_h: options.minimum_data_collection_hours });
    }
    let seen = u32::try_from(entry.seen.len()).unwrap_or(u32::MAX);
    (seen < options.observation_periods)
        .then_some(Reason::Observing { seen, needed: options.observation_periods })
}
