//! The default backend: sled 0.34 with its known hazards handled, each in one place.
//!
//! | hazard | handled in |
//! |---|---|
//! | `flush` does not fsync; it may wait for ever after a failed write | `engine.rs`, `Flusher` |
//! | nothing syncs settings and directories | `files.rs`, `Directory::sync` |
//! | a half-written snapshot or settings file stops every later start | `files.rs`, `clear_leftovers` |
//! | pages over 128 KiB (a few large neighbours) go to files that are never synced | `chunks.rs` |
//! | large batches take memory without bound | `plan.rs`, `lay_out`: refused |
//! | it can not open or delete on a full disk | `ballast.rs` |
//! | damage shows late, or as a panic | `envelope.rs`, `engine.rs`, `contain` |
//! | a damaged log is cut off there, in silence | `ledger.rs` |
//! | after a failed write it goes on | `engine.rs`, `poison` |
//! | `generate_id` skips and repeats | not used: `chunks.rs` counts for itself |
//!
//! All trees live in one sled tree, told apart by the first byte of the key: only within one is a batch atomic.

mod ballast;
mod chunks;
mod engine;
mod files;
mod ledger;
mod plan;

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evenkeel_common::time::Timestamp;

use self::ballast::Ballast;
use self::chunks::Head;
use self::engine::{Engine, Flusher, Sync, open_engine};
use self::files::{Directory, file_error};
use self::ledger::{Ledger, Mark, Tally};
use self::plan::{PlannedRow, full_key};
use super::config::StoreConfig;
use super::envelope::{self, Body};
use super::error::StoreError;
use super::key::{KeyRange, to_hex};
use super::records::MetaRecord;
use super::tree::{Batch, TreeId, damaged};
use super::trees::{self, META};
use super::{Direction, SCHEMA, Scrubbed, Store, Visit, VisitKey};

/// Key of the row in [`META`] that says what this store is.
const STORE: &str = "store";

/// A store in a directory. One process at a time may have it open.
pub struct SledStore {
    // Fields are dropped in this order: the engine lets go of its files before the directory is unlocked.
    flusher: Flusher,
    engine: Arc<Engine>,
    writer: Mutex<Writer>,
    /// Set while the ballast is missing for want of room: deletions only.
    short: AtomicBool,
    ballast: Ballast,
    _directory: Directory,
}

/// What only one batch at a time may use.
struct Writer {
    next_generation: u64,
    ledger: Ledger,
    scrub: Option<Walk>,
}

/// What to do with a row as it is stored.
type VisitRow<'a> = dyn FnMut(&[u8], ::sled::IVec) -> Result<ControlFlow<()>, StoreError> + 'a;

/// A scrub under way: what it has seen up to and including a key. Batches that change rows there change it too, so
/// that in the end it must agree with the ledger, however long it took.
struct Walk {
    last: Vec<u8>,
    seen: Tally,
}

impl SledStore {
    /// Opens or creates the store in `dir`. `now` becomes the creation time of a new one.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::NewerSchema`], [`StoreError::DamagedFiles`], [`StoreError::DiskFull`],
    /// [`StoreError::Config`], or [`StoreError::File`] naming what can not be used.
    pub fn open(dir: &Path, config: &StoreConfig, now: Timestamp) -> Result<Self, StoreError> {
        Self::open_with(dir, config, now, File::sync_data)
    }

    /// As [`SledStore::open`], with the fsync of the database file to be used; tests give a failing one.
    pub(super) fn open_with(
        dir: &Path,
        config: &StoreConfig,
        now: Timestamp,
        sync: Sync,
    ) -> Result<Self, StoreError> {
        config.check()?;
        let directory = Directory::take(dir)?;
        directory.clear_leftovers()?;
        let ballast = Ballast::new(dir, config.ballast_mib);
        ballast.release_if_full()?;
        let engine = Arc::new(Engine::new(open_engine(dir, config, &ballast)?, dir.to_path_buf()));
        directory.sync()?;
        let path = dir.join("db");
        let file = File::open(&path).map_err(file_error("open", &path))?;
        let (mark, flushed) = Mark::open(dir)?;
        let ledger = check_ledger(&engine, flushed)?;
        engine.batches.store(ledger.batches, Ordering::Release);
        let flusher = Flusher::start(Arc::clone(&engine), file, sync, mark)?;
        let store = Self {
            flusher,
            engine,
            writer: Mutex::new(Writer { next_generation: 0, ledger, scrub: None }),
            short: AtomicBool::new(false),
            ballast,
            _directory: directory,
        };
        store.check_schema(now)?;
        store.writer().next_generation = chunks::recover(&store.engine)?;
        store.flush()?;
        if !store.ballast.restore()? {
            store.short.store(true, Ordering::Relaxed);
            tracing::error!(error = %store.disk_full(), "Opened, but nothing new will be stored.");
        }
        Ok(store)
    }

    /// Refuses what a later program wrote, marks what is new, and lets no store through that has lost its mark.
    fn check_schema(&self, now: Timestamp) -> Result<(), StoreError> {
        let key = STORE.to_string();
        if let Some(meta) = META.get(self, &key)? {
            if meta.schema <= SCHEMA {
                return Ok(());
            }
            return Err(StoreError::NewerSchema {
                dir: self.engine.dir.clone(),
                found: meta.schema,
                known: SCHEMA,
                writer: meta.evenkeel,
            });
        }
        if self.engine.read(|db| db.first())?.is_some() {
            return Err(self.engine.damaged("it holds data, but not the row that tells its schema"));
        }
        let evenkeel = env!("CARGO_PKG_VERSION").to_string();
        let mut batch = Batch::new();
        batch.put(&META, &key, &MetaRecord { schema: SCHEMA, evenkeel, created_at: now })?;
        self.apply(batch)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // A number is taken before anything can panic, so the count is right whatever happened.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk_full(&self) -> StoreError {
        StoreError::DiskFull { dir: self.engine.dir.clone(), need_mib: self.ballast.wanted_mib() }
    }

    /// The value behind a row; `None` when it was deleted while we read.
    fn load(&self, tree: TreeId, key: &[u8], row: ::sled::IVec) -> Result<Option<Vec<u8>>, StoreError> {
        let bad = |problem| damaged(tree, key, problem);
        let mut row = row;
        loop {
            let head = match envelope::open(tree.prefix, tree.codec, key, &row).map_err(bad)? {
                Body::Plain(value) => return Ok(Some(value)),
                Body::Head(head) => Head::from_bytes(&head).ok_or_else(|| bad("not a head row".into()))?,
            };
            let problem = match chunks::read(&self.engine, tree.codec, head)? {
                Ok(value) => return Ok(Some(value)),
                Err(problem) => problem,
            };
            // The value may have been replaced since its head was read: then, and only then, is there another head.
            match self.engine.read(|db| db.get(full_key(tree, key)))? {
                None => return Ok(None),
                Some(current) if current == row => return Err(bad(problem)),
                Some(current) => row = current,
            }
        }
    }

    /// Walks the rows of a range as they are stored.
    fn walk(
        &self,
        tree: TreeId,
        range: &KeyRange,
        direction: Direction,
        visit: &mut VisitRow<'_>,
    ) -> Result<(), StoreError> {
        if range.is_empty() {
            return Ok(()); // sled panics when a range ends before it starts.
        }
        let mut rows = self.engine.db.range(range.bounds(tree.prefix));
        loop {
            let row = self.engine.read(|_| match direction {
                Direction::Forward => rows.next().transpose(),
                Direction::Backward => rows.next_back().transpose(),
            })?;
            let Some((key, row)) = row else { return Ok(()) };
            if visit(key.get(1..).unwrap_or_default(), row)? == ControlFlow::Break(()) {
                return Ok(());
            }
        }
    }
}

/// The ledger, if all batches that were flushed are there.
fn check_ledger(engine: &Engine, flushed: u64) -> Result<Ledger, StoreError> {
    let ledger = match engine.read(|db| db.get(ledger::KEY))? {
        Some(row) => {
            Ledger::from_row(&row).map_err(|problem| engine.damaged(&format!("its ledger: {problem}")))?
        }
        None => Ledger::default(),
    };
    if ledger.batches < flushed {
        let missing = flushed - ledger.batches;
        return Err(engine.damaged(&format!(
            "the last {missing} of {flushed} stored batches are gone; delete the file {} there to do without them",
            Mark::NAME
        )));
    }
    Ok(ledger)
}

impl Store for SledStore {
    fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.engine.read(|db| db.get(full_key(tree, key)))? {
            Some(row) => self.load(tree, key, row),
            None => Ok(None),
        }
    }

    fn scan(
        &self,
        tree: TreeId,
        range: &KeyRange,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.walk(tree, range, direction, &mut |key, row| {
            Ok(match self.load(tree, key, row) {
                Ok(Some(value)) => visit(key, Ok(value)),
                Ok(None) => ControlFlow::Continue(()),
                Err(error) if error.is_damaged_value() => visit(key, Err(error)),
                Err(error) => return Err(error),
            })
        })
    }

    fn scan_keys(
        &self,
        tree: TreeId,
        range: &KeyRange,
        direction: Direction,
        visit: &mut VisitKey<'_>,
    ) -> Result<(), StoreError> {
        self.walk(tree, range, direction, &mut |key, _| Ok(visit(key)))
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.engine.check()?;
        let layout = plan::lay_out(batch)?;
        if self.short.load(Ordering::Relaxed) && layout.values().any(|(_, value)| value.is_some()) {
            return Err(self.disk_full());
        }
        let mut writer = self.writer();
        let Writer { next_generation, ledger, scrub } = &mut *writer;
        let mut plan = plan::prepare(&self.engine, layout, next_generation)?;
        ledger.batches += 1;
        for PlannedRow { key, old, new } in &plan.rows {
            let walked = scrub.as_mut().filter(|walk| *key <= walk.last).map(|walk| &mut walk.seen);
            for tally in walked.into_iter().chain([&mut ledger.contents]) {
                old.iter().for_each(|old| tally.remove(key, old));
                new.iter().for_each(|new| tally.add(key, new));
            }
        }
        for PlannedRow { key, new, .. } in plan.rows {
            match new {
                Some(new) => plan.batch.insert(key, new),
                None => plan.batch.remove(key),
            }
        }
        plan.batch.insert(&ledger::KEY, ledger.to_row());
        self.engine.write(|db| db.apply_batch(plan.batch))?;
        self.engine.batches.store(ledger.batches, Ordering::Release);
        plan.replaced.into_iter().try_for_each(|generation| chunks::sweep(&self.engine, generation))
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.flusher.flush(&self.engine)
    }

    fn size_on_disk(&self) -> Result<u64, StoreError> {
        self.engine.read(::sled::Db::size_on_disk)
    }

    fn scrub(&self, rows: usize) -> Result<Scrubbed, StoreError> {
        let mut writer = self.writer();
        let mut walk = writer.scrub.take().unwrap_or(Walk { last: vec![0x00], seen: Tally::default() });
        let mut done = Scrubbed::default();
        let from = [&walk.last[..], &[0]].concat();
        let mut iter = self.engine.db.range(from..vec![chunks::FIRST]);
        while done.rows < rows {
            let Some((key, row)) = self.engine.read(|_| iter.next().transpose())? else {
                done.finished = true;
                if walk.seen != writer.ledger.contents {
                    let (seen, expected) = (walk.seen.rows, writer.ledger.contents.rows);
                    let problem = format!("of {expected} rows {seen} are there, or some are not the latest");
                    done.damaged.push(self.engine.damaged(&problem));
                }
                return Ok(done);
            };
            done.rows += 1;
            walk.seen.add(&key, &row);
            walk.last = key.to_vec();
            let tree = trees::ALL.into_iter().find(|tree| key.first() == Some(&tree.prefix));
            let checked = match tree {
                Some(tree) => self.load(tree, key.get(1..).unwrap_or_default(), row).map(drop),
                None => {
                    Err(self.engine.damaged(&format!("it holds a row of no known tree, {}", to_hex(&key))))
                }
            };
            done.damaged.extend(checked.err());
        }
        writer.scrub = Some(walk);
        Ok(done)
    }

    fn maintain(&self) -> Result<(), StoreError> {
        self.engine.check()?;
        if !self.ballast.restore()? {
            self.short.store(true, Ordering::Relaxed);
            return Err(self.disk_full());
        }
        if self.short.swap(false, Ordering::Relaxed) {
            tracing::info!(dir = %self.engine.dir.display(), "There is room again; the store takes new data.");
        }
        Ok(())
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.flusher.stop(&self.engine);
    }
}
