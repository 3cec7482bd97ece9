//! The seam between what reads a node and what watches and sends: the real collectors implement it, and so
//! do the lab's simulated nodes, which thereby use everything behind it unchanged.

use std::collections::HashMap;
use std::time::Duration;

use evenkeel_common::guest::GuestFacts;
use evenkeel_common::node::NodeFacts;
use evenkeel_common::sample::{SeriesId, SeriesKey, Tick};
use evenkeel_common::time::Timestamp;

/// Reads one node.
pub trait Source: Send {
    /// What the node is. Called at start, and again now and then.
    fn facts(&mut self) -> NodeFacts;

    /// Reads everything once. Rates cover the time since the previous call, so the first call has none.
    /// Never fails as a whole: what can not be read has no value, and a fault says so.
    fn read(&mut self, at: Timestamp, uptime: Duration, registry: &mut Registry) -> Reading;
}

/// One reading of a node.
#[derive(Debug)]
pub struct Reading {
    /// The samples.
    pub tick: Tick,
    /// All guests running now, when that list or a fact in it changed since the last reading (and at first).
    pub guests: Option<Vec<GuestFacts>>,
    /// Sources that could not be read this time; an empty list means all is well.
    pub faults: Vec<Fault>,
}

/// A source that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Name of the collector: "cpu", "guest_qemu", ...
    pub collector: &'static str,
    /// What went wrong, with the remedy.
    pub message: String,
}

/// The series of this agent, numbered in the order of their first appearance. Numbers are not re-used.
#[derive(Debug)]
pub struct Registry {
    ids: HashMap<SeriesKey, SeriesId>,
    keys: Vec<Option<SeriesKey>>,
    limit: usize,
    refused: u64,
}

impl Registry {
    /// Holds at most `limit` live series.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { ids: HashMap::new(), keys: Vec::new(), limit, refused: 0 }
    }

    /// The number of `key`, new if need be; `None` (counted in [`Self::refused`]) when the limit is reached.
    pub fn intern(&mut self, key: &SeriesKey) -> Option<SeriesId> {
        if let Some(&id) = self.ids.get(key) {
            return Some(id);
        }
        if self.ids.len() >= self.limit {
            self.refused += 1;
            return None;
        }
        let id = SeriesId(u32::try_from(self.keys.len()).ok()?);
        self.keys.push(Some(key.clone()));
        self.ids.insert(key.clone(), id);
        Some(id)
    }

    /// Forgets a series that has ended (a guest gone, a disk pulled).
    pub fn retire(&mut self, id: SeriesId) {
        if let Some(key) = self.keys.get_mut(id.0 as usize).and_then(Option::take) {
            self.ids.remove(&key);
        }
    }

    /// The key of a live series.
    #[must_use]
    pub fn key(&self, id: SeriesId) -> Option<&SeriesKey> {
        self.keys.get(id.0 as usize).and_then(Option::as_ref)
    }

    /// Numbers given so far, retired ones included; the next new series gets this number.
    #[must_use]
    pub fn issued(&self) -> usize {
        self.keys.len()
    }

    /// Live series.
    #[must_use]
    pub fn live(&self) -> usize {
        self.ids.len()
    }

    /// Series that were refused because of the limit.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::sample::Metric;

    #[test]
    fn numbers_are_stable_not_reused_and_bounded() {
        let mut registry = Registry::new(2);
        let a = SeriesKey::node(Metric::CpuUsed);
        let b = SeriesKey::node(Metric::Load1);
        let id = registry.intern(&a).unwrap();
        assert_eq!(registry.intern(&a), Some(id));
        registry.retire(id);
        assert_eq!(registry.key(id), None);
        assert_ne!(registry.intern(&a), Some(id));
        assert!(registry.intern(&b).is_some());
        assert_eq!(registry.intern(&SeriesKey::node(Metric::MemUsed)), None);
        assert_eq!(registry.refused(), 1);
    }
}
