//! The sample half of the spool: a file per chunk, thinned and at last dropped, oldest first, to stay below its
//! cap.
//!
//! The name of a file tells everything but the values, so that opening reads no file, and a damaged one still
//! says what was in it. A file is complete before it gets its name.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use evenkeel_common::event::{Loss, LossKind};
use evenkeel_common::time::{Timestamp, Window};

use super::chunk::{self, Chunk, Resolution};
use super::thin;

const SUFFIX: &str = ".chunk";
const TEMPORARY: &str = "chunk.tmp";
/// Files take whole blocks; counted so, the cap holds on disk as well.
const BLOCK: u64 = 4096;

/// What is known of a chunk without reading it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    last_seq: u64,
    resolution: Resolution,
    at: Timestamp,
    step_ms: u32,
    records: usize,
    bytes: u64,
}

/// The stored chunks.
#[derive(Debug)]
pub(super) struct ChunkStore {
    folder: PathBuf,
    cap: u64,
    used: u64,
    /// By number of the first tick; ranges do not overlap.
    chunks: BTreeMap<u64, Entry>,
}

impl ChunkStore {
    /// Opens the chunks in `folder`. What an interrupted thinning left double is resolved for the coarser one.
    pub(super) fn open(folder: &Path, cap: u64) -> io::Result<Self> {
        let mut store = Self { folder: folder.to_owned(), cap, used: 0, chunks: BTreeMap::new() };
        let _ = fs::remove_file(folder.join(TEMPORARY)); // Never had a name, so it is nobody's data.
        for file in fs::read_dir(folder)? {
            let file = file?;
            let Some((first_seq, mut entry)) = file.file_name().to_str().and_then(parse_name) else {
                continue;
            };
            entry.bytes = blocks(file.metadata()?.len());
            if store.chunks.get(&first_seq).is_some_and(|other| other.resolution > entry.resolution) {
                fs::remove_file(file.path())?;
            } else {
                store.forget(first_seq);
                store.used += entry.bytes;
                store.chunks.insert(first_seq, entry);
            }
        }
        Ok(store)
    }

    /// Highest number held.
    pub(super) fn last_seq(&self) -> Option<u64> {
        self.chunks.values().next_back().map(|entry| entry.last_seq)
    }

    /// Bytes on disk.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// Stores a chunk, making room first; what that cost is added to `losses`. A chunk that finds no room even
    /// so is itself the loss.
    ///
    /// # Errors
    /// When the file can not be written (full disk): the chunk is then not stored.
    pub(super) fn put(&mut self, chunk: &Chunk, losses: &mut Losses) -> io::Result<()> {
        let bytes = chunk.to_bytes();
        let need = blocks(bytes.len() as u64);
        if self.used + need > self.cap {
            // Some slack, so that not every chunk from here on pays for a round of thinning.
            self.shrink_to((self.cap - self.cap / 64).saturating_sub(need), losses);
        }
        if self.used + need > self.cap {
            losses.add(chunk.last_seq - chunk.first_seq + 1, chunk.window(), LossKind::Dropped);
            return Ok(());
        }
        self.write(chunk, &bytes)
    }

    fn write(&mut self, chunk: &Chunk, bytes: &[u8]) -> io::Result<()> {
        let entry = Entry {
            last_seq: chunk.last_seq,
            resolution: chunk.resolution,
            at: chunk.at,
            step_ms: chunk.step_ms,
            records: chunk.records(),
            bytes: blocks(bytes.len() as u64),
        };
        let temporary = self.folder.join(TEMPORARY);
        let written = File::create(&temporary)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&temporary, self.path(chunk.first_seq, &entry)));
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary); // Gives the blocks back; the first error is what matters.
            return Err(error);
        }
        self.used += entry.bytes;
        self.chunks.insert(chunk.first_seq, entry);
        File::open(&self.folder)?.sync_all()
    }

    /// The first chunk that holds tick `seq` or a later one. Damaged files on the way are removed and added to
    /// `losses`.
    pub(super) fn starting_at(&mut self, seq: u64, losses: &mut Losses) -> Option<Chunk> {
        loop {
            let first_seq =
                self.chunks.iter().find(|(_, entry)| entry.last_seq >= seq).map(|(&first, _)| first)?;
            if let Some(chunk) = self.read(first_seq, losses) {
                return Some(chunk);
            }
        }
    }

    /// Number of the first tick held from `seq` on.
    pub(super) fn next_held(&self, seq: u64) -> Option<u64> {
        self.chunks.iter().find(|(_, entry)| entry.last_seq >= seq).map(|(&first, _)| first.max(seq))
    }

    /// Frees all chunks up to tick `cursor`.
    pub(super) fn free_to(&mut self, cursor: u64) {
        while let Some((&first_seq, entry)) = self.chunks.first_key_value()
            && entry.last_seq <= cursor
        {
            self.remove(first_seq);
        }
    }

    fn read(&mut self, first_seq: u64, losses: &mut Losses) -> Option<Chunk> {
        let entry = *self.chunks.get(&first_seq)?;
        let read =
            fs::read(self.path(first_seq, &entry)).ok().and_then(|bytes| Chunk::from_bytes(&bytes).ok());
        let sound = read.filter(|chunk| chunk.first_seq == first_seq && chunk.last_seq == entry.last_seq);
        if sound.is_none() {
            losses.add(entry.last_seq - first_seq + 1, entry.window(), LossKind::Damaged);
            self.remove(first_seq);
        }
        sound
    }

    /// Thins 1 s to 10 s, then 10 s to 60 s, then drops, each oldest first, until at most `target` is used.
    fn shrink_to(&mut self, target: u64, losses: &mut Losses) {
        for (to, kind) in
            [(Resolution::TenSeconds, LossKind::ThinnedTo10s), (Resolution::Minute, LossKind::ThinnedTo60s)]
        {
            let candidates: Vec<u64> = self
                .chunks
                .iter()
                .filter(|(_, entry)| thin::group(entry.resolution, entry.step_ms, to).is_some())
                .map(|(&first_seq, _)| first_seq)
                .collect();
            for first_seq in candidates {
                if self.used <= target {
                    return;
                }
                self.thin(first_seq, to, kind, losses);
            }
        }
        while self.used > target
            && let Some((&first_seq, entry)) = self.chunks.first_key_value()
        {
            losses.add(entry.last_seq - first_seq + 1, entry.window(), LossKind::Dropped);
            self.remove(first_seq);
        }
    }

    fn thin(&mut self, first_seq: u64, to: Resolution, kind: LossKind, losses: &mut Losses) {
        let Some((chunk, old)) = self.read(first_seq, losses).zip(self.chunks.get(&first_seq).copied())
        else {
            return;
        };
        let Some(thinned) = thin::thin(&chunk, to) else { return };
        let bytes = thinned.to_bytes();
        // Both are on disk for a moment. Where the cap or the disk has no room for that, the old one goes first.
        let tight = self.used + blocks(bytes.len() as u64) > self.cap;
        if tight {
            self.remove(first_seq);
        }
        match self.write(&thinned, &bytes) {
            Ok(()) => {
                losses.add(chunk.records() as u64, chunk.window(), kind);
                if !tight {
                    let _ = fs::remove_file(self.path(first_seq, &old));
                    self.used = self.used.saturating_sub(old.bytes);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a thinned chunk can not be written; its samples are dropped");
                losses.add(chunk.last_seq - chunk.first_seq + 1, chunk.window(), LossKind::Dropped);
                self.remove(first_seq);
            }
        }
    }

    fn remove(&mut self, first_seq: u64) {
        if let Some(entry) = self.forget(first_seq)
            && let Err(error) = fs::remove_file(self.path(first_seq, &entry))
        {
            tracing::warn!(%error, first_seq, "a chunk of the spool can not be removed");
        }
    }

    fn forget(&mut self, first_seq: u64) -> Option<Entry> {
        let entry = self.chunks.remove(&first_seq)?;
        self.used = self.used.saturating_sub(entry.bytes);
        Some(entry)
    }

    fn path(&self, first_seq: u64, entry: &Entry) -> PathBuf {
        let Entry { last_seq, resolution, at, step_ms, records, bytes: _ } = entry;
        let resolution = match resolution {
            Resolution::Raw => "raw",
            Resolution::TenSeconds => "10s",
            Resolution::Minute => "60s",
        };
        let at = at.as_millis();
        self.folder.join(format!("{first_seq:020}_{last_seq}_{resolution}_{at}_{step_ms}_{records}{SUFFIX}"))
    }
}

impl Entry {
    fn window(&self) -> Window {
        chunk::window(self.at, self.step_ms, self.records)
    }
}

/// Reads a file's name. Size is left at 0.
fn parse_name(name: &str) -> Option<(u64, Entry)> {
    let mut parts = name.strip_suffix(SUFFIX)?.split('_');
    let first_seq = parts.next()?.parse().ok()?;
    let last_seq = parts.next()?.parse().ok().filter(|&last| last >= first_seq)?;
    let resolution = match parts.next()? {
        "raw" => Resolution::Raw,
        "10s" => Resolution::TenSeconds,
        "60s" => Resolution::Minute,
        _ => return None,
    };
    let at = Timestamp::from_millis(parts.next()?.parse().ok()?);
    let step_ms = parts.next()?.parse().ok()?;
    let records = parts.next()?.parse().ok()?;
    parts
        .next()
        .is_none()
        .then_some((first_seq, Entry { last_seq, resolution, at, step_ms, records, bytes: 0 }))
}

fn blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK) * BLOCK
}

/// Losses of one kind become one record with the count and the stretch they cover.
#[derive(Debug, Default)]
pub(super) struct Losses(Vec<Loss>);

impl Losses {
    pub(super) fn add(&mut self, count: u64, window: Window, how: LossKind) {
        match self.0.iter_mut().find(|loss| loss.how == how) {
            Some(loss) => merge(loss, count, window),
            None => self.0.push(Loss { count, window, how }),
        }
    }

    pub(super) fn into_vec(self) -> Vec<Loss> {
        self.0
    }
}

/// Adds `count` records of `window` to a loss.
pub(super) fn merge(loss: &mut Loss, count: u64, window: Window) {
    loss.count = loss.count.saturating_add(count);
    loss.window.from = loss.window.from.min(window.from);
    loss.window.to = loss.window.to.max(window.to);
}

#[cfg(test)]
mod tests {
    use super::super::chunk::sample_chunk;
    use super::*;

    fn on_disk(folder: &Path) -> u64 {
        fs::read_dir(folder).unwrap().map(|file| blocks(file.unwrap().metadata().unwrap().len())).sum()
    }

    #[test]
    fn chunks_survive_reopening_and_go_when_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let mut losses = Losses::default();
        let mut store = ChunkStore::open(folder.path(), 1 << 20).unwrap();
        for first_seq in [1, 61, 121] {
            store.put(&sample_chunk(first_seq, 60, 5), &mut losses).unwrap();
        }
        let mut store = ChunkStore::open(folder.path(), 1 << 20).unwrap();
        assert_eq!((store.next_held(0), store.last_seq()), (Some(1), Some(180)));
        assert_eq!(store.starting_at(61, &mut losses), Some(sample_chunk(61, 60, 5)));
        store.free_to(119);
        assert_eq!(store.next_held(0), Some(61), "a chunk goes when all of it is acknowledged");
        store.free_to(180);
        assert_eq!((store.next_held(0), store.used(), on_disk(folder.path())), (None, 0, 0));
        assert!(losses.into_vec().is_empty());
    }

    #[test]
    fn under_pressure_the_oldest_are_thinned_then_dropped_and_the_cap_holds() {
        let folder = tempfile::tempdir().unwrap();
        let cap = 40 * BLOCK;
        let mut store = ChunkStore::open(folder.path(), cap).unwrap();
        let mut counts = BTreeMap::<&str, u64>::new();
        let mut put = 0;
        for first_seq in (0..400).map(|n| 1 + n * 60) {
            let mut losses = Losses::default();
            store.put(&noisy(first_seq), &mut losses).unwrap();
            put += 60;
            assert_eq!(store.used(), on_disk(folder.path()));
            assert!(store.used() <= cap);
            for loss in losses.into_vec() {
                let name = match loss.how {
                    LossKind::ThinnedTo10s => "10s",
                    LossKind::ThinnedTo60s => "60s",
                    _ => "dropped",
                };
                *counts.entry(name).or_default() += loss.count;
            }
        }
        // The record of what happened adds up: what is not there any more was told as dropped.
        let held: u64 = store.chunks.iter().map(|(first, entry)| entry.last_seq - first + 1).sum();
        assert_eq!(held + counts["dropped"], put);
        assert!(counts["10s"] > 0 && counts["60s"] > 0, "{counts:?}");
        let order: Vec<_> = store.chunks.values().map(|entry| std::cmp::Reverse(entry.resolution)).collect();
        assert!(order.is_sorted(), "the older, the coarser: {order:?}");
    }

    /// A chunk that does not compress to nothing.
    fn noisy(first_seq: u64) -> Chunk {
        let mut chunk = sample_chunk(first_seq, 60, 200);
        for series in 0..200 {
            for tick in 0..60 {
                let mixed =
                    (first_seq + tick as u64 * 977 + series as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                chunk.columns.set(series, tick, Some((mixed >> 52).cast_signed()));
            }
        }
        chunk
    }

    #[test]
    fn a_damaged_chunk_is_told_with_its_count_and_window() {
        let folder = tempfile::tempdir().unwrap();
        let mut losses = Losses::default();
        let mut store = ChunkStore::open(folder.path(), 1 << 20).unwrap();
        store.put(&sample_chunk(1, 60, 5), &mut losses).unwrap();
        store.put(&sample_chunk(61, 60, 5), &mut losses).unwrap();
        let path = store.path(1, &store.chunks[&1]);
        let mut bytes = fs::read(&path).unwrap();
        bytes[40] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(store.starting_at(1, &mut losses).unwrap().first_seq, 61);
        let window = sample_chunk(1, 60, 5).window();
        assert_eq!(losses.into_vec(), [Loss { count: 60, window, how: LossKind::Damaged }]);
    }

    #[test]
    fn an_interrupted_thinning_leaves_one_of_the_two() {
        let folder = tempfile::tempdir().unwrap();
        let mut losses = Losses::default();
        let mut store = ChunkStore::open(folder.path(), 1 << 20).unwrap();
        let raw = sample_chunk(1, 60, 5);
        store.put(&raw, &mut losses).unwrap();
        let thinned = thin::thin(&raw, Resolution::TenSeconds).unwrap();
        store.write(&thinned, &thinned.to_bytes()).unwrap();
        fs::write(folder.path().join(TEMPORARY), b"half").unwrap();
        let mut store = ChunkStore::open(folder.path(), 1 << 20).unwrap();
        assert_eq!(store.starting_at(1, &mut losses), Some(thinned));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(store.used(), on_disk(folder.path()));
    }
}
