//! What can go wrong with the store: a variant per cause, each with its remedy.

use std::io;
use std::path::PathBuf;

/// Why the store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the directory open.
    #[error(
        "data directory {} is in use by {holder}; stop that first, or give another data directory", dir.display()
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The likely holder: process id and name, as far as known.
        holder: String,
    },
    /// The directory was written by a later version, whose records this one would misread.
    #[error(
        "data directory {} was written by schema {found} (evenkeel {writer}), this program knows {known}: \
         install evenkeel >= {writer} or restore an export made before the upgrade", dir.display()
    )]
    NewerSchema {
        /// The directory.
        dir: PathBuf,
        /// Schema found there.
        found: u32,
        /// Newest schema this program knows.
        known: u32,
        /// Version of evenkeel that wrote it.
        writer: String,
    },
    /// One stored value is not what was written. The others are not affected.
    #[error(
        "damaged value in tree {tree}, key {key}: {problem}; it can not be repaired, the copy is in the latest export"
    )]
    Damaged {
        /// Name of the tree.
        tree: &'static str,
        /// The key, as hexadecimal digits.
        key: String,
        /// What does not fit.
        problem: String,
    },
    /// The files themselves are damaged: the engine can not read on from here.
    #[error(
        "data directory {} is damaged ({problem}); move it away and restore the latest export into a new one",
        dir.display()
    )]
    DamagedFiles {
        /// The directory.
        dir: PathBuf,
        /// What the engine says.
        problem: String,
    },
    /// A batch would not be atomic and durable at this size; the caller has to bound its batches.
    #[error("a batch of {bytes} bytes in {rows} rows is over the limit of {limit} bytes: write it in parts")]
    BatchTooLarge {
        /// Size as it would be stored, large values counted by their head row.
        bytes: usize,
        /// Rows in the batch.
        rows: usize,
        /// Largest size.
        limit: usize,
    },
    /// A key is longer than any tree needs.
    #[error("a key of {bytes} bytes for tree {tree} is over the limit of {limit} bytes")]
    KeyTooLong {
        /// Name of the tree.
        tree: &'static str,
        /// Its length.
        bytes: usize,
        /// Largest length.
        limit: usize,
    },
    /// A value is larger than any record may be.
    #[error("a value of {bytes} bytes for tree {tree} is over the limit of {limit} bytes")]
    ValueTooLarge {
        /// Name of the tree.
        tree: &'static str,
        /// Its length.
        bytes: usize,
        /// Largest length.
        limit: usize,
    },
    /// There was no room for the ballast file; only deletions are taken until there is.
    #[error(
        "the disk of data directory {} is full: free {need_mib} MiB there, or shorten the retention; \
         until then nothing new is stored", dir.display()
    )]
    DiskFull {
        /// The directory.
        dir: PathBuf,
        /// Free space needed before writing goes on.
        need_mib: u64,
    },
    /// A write or fsync failed earlier: what is on disk is unknown, so nothing may be acknowledged any more.
    #[error(
        "the store in {} stopped after a failed write ({cause}): fix the disk, then start evenkeel again",
        dir.display()
    )]
    Poisoned {
        /// The directory.
        dir: PathBuf,
        /// The first failure.
        cause: String,
    },
    /// A file of the data directory can not be used.
    #[error("can not {action} {}", path.display())]
    File {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A record can not be written as JSON.
    #[error("a record of tree {tree} can not be encoded")]
    Encode {
        /// Name of the tree.
        tree: &'static str,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// An option is out of its range.
    #[error("store.{option}: {value} is not within {low} to {high}")]
    Config {
        /// Name of the option.
        option: &'static str,
        /// What was given.
        value: u64,
        /// Lowest good value.
        low: u64,
        /// Highest good value.
        high: u64,
    },
    /// An export can not be written.
    #[error("can not write the export")]
    Export {
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An export can not be read back.
    #[error(
        "line {line} of the export: {problem}; nothing after it was imported, start again in an empty directory"
    )]
    Import {
        /// Line number, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
}

impl StoreError {
    /// Whether it concerns one value only, so that a reader may skip it and go on.
    #[must_use]
    pub fn is_damaged_value(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}
