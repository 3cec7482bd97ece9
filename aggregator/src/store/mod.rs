//! Where the aggregator keeps what must survive: one small blocking trait, typed trees on top, a hardened sled below.
//!
//! - [`Store`] is what a backend does: bytes by tree and key, atomic batches, ordered scans, a durable flush.
//! - [`trees`] declares every tree with the types of its keys and values; [`records`] holds the record types.
//! - [`sled`] is the default backend, with the hazards of its engine handled one by one.
//!
//! Calls block on the disk: async code goes through `spawn_blocking` or a thread of its own. A batch is visible at
//! once and durable after the next [`Store::flush`]; acknowledge nothing before that. After
//! [`StoreError::Poisoned`] the caller stops acknowledging and exits: only a restart finds out what the disk holds.

pub mod config;
pub(crate) mod envelope;
pub mod error;
pub mod key;
pub mod records;
pub mod retention;
pub mod sled;
pub mod transfer;
pub mod tree;
pub mod trees;

#[cfg(test)]
mod tests;

use std::io::{BufRead, Write};
use std::ops::ControlFlow;

pub use config::StoreConfig;
pub use error::StoreError;
pub use key::{Key, KeyRange};
pub use sled::SledStore;
pub use tree::{Batch, Codec, Tree, TreeId};

/// Version of the trees and records as this program writes them.
pub const SCHEMA: u32 = 1;

/// Largest batch in bytes as stored, large values counted by their head row only. Beyond some hundred KiB sled
/// spreads a batch over log segments and holds all of them in memory.
pub const MAX_BATCH: usize = 128 << 10;
/// Largest value stored in one row, in bytes after compression; larger ones are split, which no caller notices.
pub const INLINE_MAX: usize = 6 << 10;
/// Largest key in bytes.
pub const MAX_KEY: usize = 512;
/// What a row is counted with beside its key and value.
pub(crate) const ROW_OVERHEAD: usize = 48;

/// Order of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys: oldest first where the key holds a time.
    Forward,
    /// Descending keys: newest first.
    Backward,
}

/// What a typed scan does with a row that is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// Ends with the error.
    Fail,
    /// Leaves the row out and counts it.
    Skip,
}

/// Receives the rows of a scan: key, and value or [`StoreError::Damaged`].
pub type Visit<'a> = dyn FnMut(&[u8], Result<Vec<u8>, StoreError>) -> ControlFlow<()> + 'a;

/// Receives the keys of a scan.
pub type VisitKey<'a> = dyn FnMut(&[u8]) -> ControlFlow<()> + 'a;

/// What a part of a scrub found.
#[derive(Debug, Default)]
pub struct Scrubbed {
    /// Rows read, large values counted as one.
    pub rows: usize,
    /// Whether the end was reached.
    pub finished: bool,
    /// What is damaged or missing.
    pub damaged: Vec<StoreError>,
}

/// What a backend does. Object-safe and blocking; every method may be called from several threads at once.
pub trait Store: Send + Sync + 'static {
    /// The value of a key, `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when it is not what was written, [`StoreError::Poisoned`] after a failed write.
    fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Walks a range in order and hands each row to `visit` until that breaks; memory does not grow with the range.
    ///
    /// Not a snapshot: a batch applied meanwhile may be seen in part.
    ///
    /// # Errors
    /// [`StoreError::DamagedFiles`] where the engine can not read on; damage to a single value goes to `visit`.
    fn scan(
        &self,
        tree: TreeId,
        range: &KeyRange,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError>;

    /// As [`Store::scan`], but without reading the values.
    ///
    /// # Errors
    /// As [`Store::scan`].
    fn scan_keys(
        &self,
        tree: TreeId,
        range: &KeyRange,
        direction: Direction,
        visit: &mut VisitKey<'_>,
    ) -> Result<(), StoreError>;

    /// Makes all changes of a batch visible at once. Durable only after [`Store::flush`].
    ///
    /// # Errors
    /// [`StoreError::BatchTooLarge`], [`StoreError::KeyTooLong`] or [`StoreError::ValueTooLarge`] (nothing is
    /// written), [`StoreError::DiskFull`] while only deletions are taken, [`StoreError::Poisoned`] when a write
    /// failed now or earlier.
    fn apply(&self, batch: Batch) -> Result<(), StoreError>;

    /// Returns when everything applied before is on the medium.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`]: acknowledge nothing, exit.
    fn flush(&self) -> Result<(), StoreError>;

    /// Bytes of disk that the data takes.
    ///
    /// # Errors
    /// [`StoreError::File`].
    fn size_on_disk(&self) -> Result<u64, StoreError>;

    /// Verifies the next `rows` rows, going on where the call before ended; writers wait meanwhile. The caller sets
    /// the pace. The call that reaches the end also tells whether rows are missing, and the next one starts anew.
    ///
    /// # Errors
    /// [`StoreError::DamagedFiles`] where the engine can not read on.
    fn scrub(&self, rows: usize) -> Result<Scrubbed, StoreError>;

    /// Looks after the space on the disk; to be called every few minutes and after expiry. While the disk is full it
    /// tries to get the reserve back, and writing goes on when that works.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] while there is no room.
    fn maintain(&self) -> Result<(), StoreError>;

    /// Writes everything as newline-delimited JSON: see [`transfer`]. Returns the number of rows.
    ///
    /// # Errors
    /// [`StoreError::Export`], or the first damaged value: a backup that lacks rows must not look whole.
    fn export(&self, out: &mut dyn Write) -> Result<u64, StoreError> {
        transfer::export(self, out)
    }

    /// Reads what [`Store::export`] wrote into this store, which must be empty. Returns the number of rows.
    ///
    /// # Errors
    /// [`StoreError::Import`] naming the line.
    fn import(&self, from: &mut dyn BufRead) -> Result<u64, StoreError> {
        transfer::import(self, from)
    }
}
