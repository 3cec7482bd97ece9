//! Takes in records: each once, none that is too old to be kept, and no more than the store may hold.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use evenkeel_common::id::ClusterId;
use evenkeel_common::time::Timestamp;
use evenkeel_core::history::record::Record;

use super::{History, key};
use crate::store::records::MigrationKey;
use crate::store::{Batch, Direction, Key as _, KeyRange, StoreError, trees};

/// Batches after which what was applied is made durable, so that not everything waits for the end.
const FLUSH_EVERY: u32 = 64;
/// Rows deleted in one batch.
const DELETED: usize = 500;

/// What became of the records taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// New ones.
    pub added: u64,
    /// That were there already.
    pub duplicates: u64,
    /// Older than what is kept.
    pub too_old: u64,
    /// Older ones that had to make room.
    pub removed: u64,
}

/// An import under way.
pub struct Intake<'a> {
    history: &'a History,
    cluster: ClusterId,
    batch: Batch,
    /// Keys in the batch, which the store does not know yet.
    waiting: BTreeSet<Vec<u8>>,
    batches: u32,
    /// Records of the cluster in the store.
    kept: u64,
    /// Nothing before this is kept.
    floor: Timestamp,
    taken: Taken,
}

impl History {
    /// Begins an import.
    ///
    /// # Errors
    /// Of the store.
    pub fn intake(&self, cluster: &ClusterId, now: Timestamp) -> Result<Intake<'_>, StoreError> {
        let mut kept = 0;
        let range = KeyRange::under(cluster);
        self.store.scan_keys(trees::MIGRATIONS.id(), &range, Direction::Forward, &mut |_| {
            kept += 1;
            ControlFlow::Continue(())
        })?;
        let days = Duration::from_hours(24) * self.limits.migrations_days;
        Ok(Intake {
            history: self,
            cluster: cluster.clone(),
            batch: Batch::new(),
            waiting: BTreeSet::new(),
            batches: 0,
            kept,
            floor: now.before(days),
            taken: Taken::default(),
        })
    }
}

impl Intake<'_> {
    /// Takes in a record.
    ///
    /// # Errors
    /// Of the store.
    pub fn add(&mut self, record: &Record) -> Result<(), StoreError> {
        if record.at < self.floor {
            self.taken.too_old += 1;
            return Ok(());
        }
        let key = key(&self.cluster, record);
        let bytes = key.to_bytes();
        if self.waiting.contains(&bytes) || self.history.store.get(trees::MIGRATIONS.id(), &bytes)?.is_some()
        {
            self.taken.duplicates += 1;
            return Ok(());
        }
        self.batch.put(&trees::MIGRATIONS, &key, &())?;
        self.waiting.insert(bytes);
        self.taken.added += 1;
        self.kept += 1;
        if self.batch.is_full() {
            self.apply()?;
        }
        // A few more than allowed, so that not every record pushes out one.
        let most = u64::from(self.history.limits.migrations_max);
        if self.kept > most + most / 20 { self.make_room() } else { Ok(()) }
    }

    /// Makes everything durable.
    ///
    /// # Errors
    /// Of the store: then nothing may be acknowledged.
    pub fn finish(mut self) -> Result<Taken, StoreError> {
        self.make_room()?;
        self.history.store.flush()?;
        if self.taken.added > 0 {
            self.history.changed.notify_one();
        }
        Ok(self.taken)
    }

    fn apply(&mut self) -> Result<(), StoreError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.history.store.apply(std::mem::take(&mut self.batch))?;
        self.waiting.clear();
        self.batches += 1;
        if self.batches.is_multiple_of(FLUSH_EVERY) {
            self.history.store.flush()?;
        }
        Ok(())
    }

    /// Deletes the oldest until no more are kept than allowed.
    fn make_room(&mut self) -> Result<(), StoreError> {
        self.apply()?;
        let most = u64::from(self.history.limits.migrations_max);
        while self.kept > most {
            let surplus = usize::try_from(self.kept - most).unwrap_or(usize::MAX).min(DELETED);
            let (mut batch, mut next) = (Batch::new(), None);
            let range = KeyRange::under(&self.cluster);
            self.history.store.scan_keys(trees::MIGRATIONS.id(), &range, Direction::Forward, &mut |key| {
                if batch.len() == surplus || batch.is_full() {
                    next = MigrationKey::from_bytes(key).map(|key| key.at);
                    return ControlFlow::Break(());
                }
                batch.push(trees::MIGRATIONS.id(), key.to_vec(), None);
                ControlFlow::Continue(())
            })?;
            let deleted = batch.len() as u64;
            if deleted == 0 {
                return Ok(());
            }
            self.history.store.apply(batch)?;
            self.kept = self.kept.saturating_sub(deleted);
            self.taken.removed += deleted;
            // What is older than the oldest that is left would be the next to go.
            self.floor = next.map_or(self.floor, |at| at.max(self.floor));
        }
        Ok(())
    }
}
