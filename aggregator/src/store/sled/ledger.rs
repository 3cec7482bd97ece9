//! The count of everything, so that missing data is noticed and not only damaged data.
//!
//! When sled finds damage in the part of its log that it has to read at start-up, it takes the place for the torn end
//! of the log: one flipped bit, and all batches after it (or the rest of a segment in the middle) are silently gone.
//! So every batch also writes a ledger row: how many batches there were, how many rows there are, and the sum of
//! their checksums. A small file holds how many batches were flushed, which tells at start-up whether the end of the
//! log is missing; a walk over all rows tells whether any row is missing or older than it should be.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::files::file_error;
use crate::store::Codec;
use crate::store::envelope::{self, Body};
use crate::store::error::StoreError;

/// Key of the ledger row. Before all trees: its page is written with every batch, so its neighbours had better be
/// small.
pub(super) const KEY: [u8; 1] = [0x00];

/// What the ledger row says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    /// Batches applied since the store was created.
    pub(super) batches: u64,
    /// What is in the trees.
    pub(super) contents: Tally,
}

/// A number of rows and the sum of their checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Rows, large values counted as one.
    pub(super) rows: u64,
    sum: u64,
}

impl Tally {
    pub(super) fn add(&mut self, full_key: &[u8], row: &[u8]) {
        self.rows = self.rows.wrapping_add(1);
        self.sum = self.sum.wrapping_add(weight(full_key, row));
    }

    pub(super) fn remove(&mut self, full_key: &[u8], row: &[u8]) {
        self.rows = self.rows.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(weight(full_key, row));
    }
}

fn weight(full_key: &[u8], row: &[u8]) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(full_key);
    hasher.update(row);
    hasher.finalize().into()
}

impl Ledger {
    /// The row as it is stored.
    pub(super) fn to_row(self) -> Vec<u8> {
        let Self { batches, contents: Tally { rows, sum } } = self;
        envelope::seal(KEY[0], &[], &envelope::unpacked(&[batches, rows, sum].map(u64::to_be_bytes).concat()))
    }

    /// Of a stored row.
    pub(super) fn from_row(row: &[u8]) -> Result<Self, String> {
        let Body::Plain(bytes) = envelope::open(KEY[0], Codec::Raw, &[], row)? else {
            return Err("not a ledger row".into());
        };
        let (words, []) = bytes.as_chunks::<8>() else { return Err("not a ledger row".into()) };
        let &[batches, rows, sum] = words else { return Err("not a ledger row".into()) };
        let [batches, rows, sum] = [batches, rows, sum].map(u64::from_be_bytes);
        Ok(Self { batches, contents: Tally { rows, sum } })
    }
}

/// The file that holds how many batches have been flushed. Written without fsync: what it says is always true, and
/// after a power cut it may only say too little.
#[derive(Debug)]
pub(super) struct Mark(File);

impl Mark {
    pub(super) const NAME: &str = "flushed";

    pub(super) fn open(dir: &Path) -> Result<(Self, u64), StoreError> {
        let path = dir.join(Self::NAME);
        let bytes = fs::read(&path).unwrap_or_default();
        let flushed = bytes.as_slice().try_into().ok().and_then(decode).unwrap_or(0);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(file_error("open", &path))?;
        Ok((Self(file), flushed))
    }

    /// A failure is let pass: it only makes the check at start-up weaker.
    pub(super) fn set(&self, batches: u64) {
        let number = batches.to_be_bytes();
        let bytes = [&number[..], &crc32fast::hash(&number).to_be_bytes()].concat();
        if let Err(error) = self.0.write_all_at(&bytes, 0) {
            tracing::warn!(%error, file = Self::NAME, "Could not note how much is flushed.");
        }
    }
}

fn decode(bytes: [u8; 12]) -> Option<u64> {
    let (number, crc) = bytes.split_first_chunk::<8>()?;
    (crc == crc32fast::hash(number).to_be_bytes()).then(|| u64::from_be_bytes(*number))
}
