//! Moves of guests, by whomever: from Proxmox' task list where it still has them, and from seeing a guest elsewhere
//! than before. Kept in the store, since Proxmox forgets: filters need seven days, records of pairs and guests thirty.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use evenkeel_common::decision::Mover;
use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use evenkeel_core::PastMove;
use evenkeel_core::learn::Verdict;

use super::execution::{failures, moved_by_us};
use crate::execute::Intent;
use crate::pve::Inventory;
use crate::store::records::MoveKey;
use crate::store::{Batch, Direction, KeyRange, OnDamage, Store, StoreError, trees};

/// How far back records look; the widest cycle window is seven days.
const LOOK_BACK: Duration = Duration::from_hours(30 * 24);
/// Most moves that are remembered: a snapshot holds them all, and is stored with every run. The oldest go first.
const MAX_MOVES: usize = 5000;
/// A move seen twice, by its task and by its result, is one when it is within this time.
const SAME_MOVE: Duration = Duration::from_mins(15);

/// Moves of one cluster.
#[derive(Debug, Default)]
pub struct Moves {
    known: Vec<PastMove>,
    /// Where each guest was at the last inventory.
    places: BTreeMap<Vmid, NodeId>,
}

impl Moves {
    /// What the store knows.
    ///
    /// # Errors
    /// Of the store. A damaged row is left out: it is one move less to remember, not a reason to stop.
    pub fn load(store: &dyn Store, cluster: &ClusterId, now: Timestamp) -> Result<Self, StoreError> {
        let mut known = Vec::new();
        let mut unreadable = 0u32;
        let range = KeyRange::between(
            &(cluster.clone(), now.before(LOOK_BACK)),
            &(cluster.clone(), Timestamp::from_millis(i64::MAX)),
        );
        let damaged = trees::MOVES.scan(store, &range, Direction::Forward, OnDamage::Skip, |_, value| {
            match serde_json::from_value(value) {
                Ok(past) => known.push(past),
                Err(_) => unreadable += 1,
            }
            ControlFlow::Continue(())
        })?;
        if damaged + u64::from(unreadable) > 0 {
            tracing::warn!(%cluster, damaged, unreadable, "moves in the store could not be read");
        }
        let mut moves = Self { known, places: BTreeMap::new() };
        moves.forget(now);
        Ok(moves)
    }

    /// Takes in what an inventory tells; new moves go into `batch`.
    ///
    /// # Errors
    /// Only when a record can not be encoded.
    pub fn observe(
        &mut self,
        inventory: &Inventory,
        cluster: &ClusterId,
        intents: &[Intent],
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let by = |guest: Vmid, to: &NodeId, at: Timestamp| {
            if moved_by_us(intents, guest, to, at) { Mover::Evenkeel } else { Mover::Foreign }
        };
        let by_tasks: Vec<PastMove> = inventory
            .history
            .iter()
            .filter_map(|task| {
                let (to, at) = (task.moved_to.clone()?, task.ended_at?);
                let by = by(task.vmid, &to, at);
                Some(PastMove {
                    guest: task.vmid,
                    from: task.source().clone(),
                    to,
                    at,
                    by,
                    ok: true,
                    helped: None,
                })
            })
            .collect();
        let failures = failures(intents).filter(|past| inventory.taken_at.since(past.at) < LOOK_BACK);
        for past in by_tasks.into_iter().chain(failures) {
            self.add(past, cluster, batch)?;
        }
        for guest in inventory.guests.values() {
            let before = self.places.insert(guest.vmid, guest.node.clone());
            if let Some(from) = before.filter(|node| *node != guest.node) {
                let (to, at) = (guest.node.clone(), inventory.taken_at);
                let by = by(guest.vmid, &to, at);
                self.add(
                    PastMove { guest: guest.vmid, from, to, at, by, ok: true, helped: None },
                    cluster,
                    batch,
                )?;
            }
        }
        self.places.retain(|vmid, _| inventory.guests.contains_key(vmid));
        self.forget(inventory.taken_at);
        Ok(())
    }

    fn forget(&mut self, now: Timestamp) {
        self.known.retain(|past| now.since(past.at) <= LOOK_BACK);
        self.known.sort_by_key(|past| (past.at, past.guest));
        self.known.drain(..self.known.len().saturating_sub(MAX_MOVES));
    }

    fn add(&mut self, past: PastMove, cluster: &ClusterId, batch: &mut Batch) -> Result<(), StoreError> {
        let same = |known: &PastMove| {
            let apart = known.at.since(past.at).max(past.at.since(known.at));
            known.guest == past.guest && known.to == past.to && known.ok == past.ok && apart <= SAME_MOVE
        };
        if self.known.iter().any(same) {
            return Ok(());
        }
        put(&past, cluster, batch)?;
        self.known.push(past);
        Ok(())
    }

    /// Notes what came of a move; one that is forgotten meanwhile needs no verdict any more.
    ///
    /// # Errors
    /// Only when a record can not be encoded.
    pub fn judge(
        &mut self,
        verdict: &Verdict,
        cluster: &ClusterId,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let (of, helped) = (&verdict.of, verdict.helped);
        let meant = |past: &&mut PastMove| (past.guest, past.at, &past.to) == (of.guest, of.at, &of.target);
        let Some(past) = self.known.iter_mut().find(meant).filter(|_| helped.is_some()) else {
            return Ok(());
        };
        past.helped = helped;
        put(past, cluster, batch)
    }

    /// All moves of the last thirty days, oldest first; the newest five thousand of them.
    #[must_use]
    pub fn known(&self) -> Vec<PastMove> {
        self.known.clone()
    }
}

fn put(past: &PastMove, cluster: &ClusterId, batch: &mut Batch) -> Result<(), StoreError> {
    let key = MoveKey { cluster: cluster.clone(), at: past.at, vmid: past.guest };
    let value = serde_json::to_value(past)
        .map_err(|source| StoreError::Encode { tree: trees::MOVES.id().name, source })?;
    batch.put(&trees::MOVES, &key, &value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_days_are_kept_but_no_more_than_a_snapshot_can_hold() {
        const DAY: Duration = Duration::from_hours(24);
        let now = Timestamp::from_millis(1_800_000_000_000);
        let node = |name: &str| NodeId::new(name).unwrap();
        let past = |guest: u32, age: Duration| PastMove {
            guest: Vmid::new(guest).unwrap(),
            from: node("pve1"),
            to: node("pve2"),
            at: now.before(age),
            by: Mover::Foreign,
            ok: true,
            helped: None,
        };
        let kept = |known: Vec<PastMove>| {
            let mut moves = Moves { known, places: BTreeMap::new() };
            moves.forget(now);
            moves.known().iter().map(|past| past.guest.get()).collect::<Vec<_>>()
        };
        assert_eq!(kept(vec![past(101, DAY), past(102, DAY * 30), past(103, DAY * 31)]), [102, 101]);
        let many: Vec<_> = (0..6000).map(|i| past(100 + i, Duration::from_secs(i.into()))).collect();
        let left = kept(many);
        assert_eq!((left.len(), left[0], left[4999]), (5000, 5099, 100), "the newest stay, oldest first");
    }
}
