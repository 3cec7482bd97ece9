//! The bounded buffer on disk that makes "nothing is silently lost" true across outages and restarts.
//!
//! Two classes with a cap each. Events are stored with fsync before anybody hears of them, and are dropped only
//! past their own cap. Samples come here in chunks when memory can not hold them any longer or the agent ends;
//! under pressure they are thinned, then dropped, oldest first. Every loss becomes an event.
//!
//! # Numbers
//!
//! Each lane counts from 1, contiguously within an epoch; the epoch is random and new with every new spool.
//!
//! - An event's number is its place in the log, so it is exact whatever happens.
//! - A sample's number is given when the tick is read, long before it is on disk, if ever. So numbers are
//!   reserved [`RESERVE`] ahead in the meta file. After an orderly end that file holds the exact next number;
//!   after any other end counting goes on behind the reservation: numbers that may have been used for other
//!   ticks are never used again. The numbers in between are lost. They are declared by `Hello.first_sample`,
//!   the lowest number still held: once everything before a hole is acknowledged, the next hello names the
//!   number behind it.

mod chunk;
mod events;
mod meta;
mod samples;
#[cfg(test)]
mod tests;
mod thin;

pub use chunk::{CHUNK_TICKS, Chunk, Damaged, Resolution, Row, THINNED_COLUMNS};

#[cfg(test)]
pub(crate) use chunk::sample_chunk;

use std::collections::VecDeque;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use evenkeel_common::event::{AgentEvent, EventKind, Loss, LossKind};
use evenkeel_common::time::{Timestamp, Window};
use evenkeel_proto::v1;
use prost::Message as _;

use events::{AppendError, EventLog, Gap};
use meta::MetaFile;
use samples::{ChunkStore, Losses};

/// Sample numbers reserved at a time: one write of the meta file every two minutes at 1 s.
pub const RESERVE: u64 = 128;
/// Events that wait in memory while the disk refuses them; beyond it they are lost and counted.
const BACKLOG: usize = 256;
/// Room kept within the event cap, so that the record of a loss still fits.
const LOSS_ROOM: u64 = 4096;

/// Why the spool can not be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The folder or a file in it can not be read or written.
    #[error("the spool {path} can not be opened; it must be a folder that the agent's user may write")]
    Open {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another agent has it open.
    #[error("the spool {path} is in use by another agent; stop that one, or give this one another state_dir")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}

/// The spool. Blocking, with fsync: what it promises is durable when a call returns.
#[derive(Debug)]
pub struct Spool {
    meta: MetaFile,
    events: EventLog,
    samples: ChunkStore,
    next_sample: u64,
    next_anomaly: u64,
    clean_start: bool,
    /// Events that the disk refused, oldest first.
    backlog: VecDeque<AgentEvent>,
    /// Held locked until the spool is dropped.
    _lock: File,
}

impl Spool {
    /// Opens or makes the spool in `folder`. `epoch` is used when it is new; `cap` bounds all of it on disk, and
    /// `events_cap`, a part of that, the events.
    ///
    /// # Errors
    /// [`SpoolError`] when the folder can not be used or another agent uses it.
    pub fn open(folder: &Path, cap: u64, events_cap: u64, epoch: [u8; 16]) -> Result<Self, SpoolError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SpoolError::Open { path, source }
        };
        let chunks = folder.join("samples");
        fs::create_dir_all(&chunks).map_err(failed(&chunks))?;
        let lock_path = folder.join("lock");
        let lock = File::create(&lock_path).map_err(failed(&lock_path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => SpoolError::InUse { path: folder.to_owned() },
            TryLockError::Error(source) => SpoolError::Open { path: lock_path, source },
        })?;
        let meta_path = folder.join("meta");
        let (mut meta, new) = MetaFile::open(&meta_path, epoch).map_err(failed(&meta_path))?;
        let events = EventLog::open(folder, events_cap.min(cap), &stand_in)?;
        let samples = ChunkStore::open(&chunks, cap.saturating_sub(events_cap + (64 << 10)))
            .map_err(failed(&chunks))?;
        // Where the meta file was lost, the epoch is new, and any number not held will do.
        let next_sample = meta.meta.samples_reserved.max(samples.last_seq().map_or(1, |last| last + 1));
        let clean_start = meta.meta.clean && !(new && events.next() > 1);
        meta.meta.clean = false;
        let next_anomaly = meta.meta.anomalies_reserved;
        meta.meta.samples_reserved = next_sample + RESERVE;
        meta.meta.anomalies_reserved = next_anomaly + RESERVE;
        meta.write().map_err(failed(&meta_path))?;
        Ok(Self {
            meta,
            events,
            samples,
            next_sample,
            next_anomaly,
            clean_start,
            backlog: VecDeque::new(),
            _lock: lock,
        })
    }

    /// Whether the previous run ended in order; true for a new spool.
    #[must_use]
    pub fn clean_start(&self) -> bool {
        self.clean_start
    }

    /// The epoch of all numbers.
    #[must_use]
    pub fn epoch(&self) -> [u8; 16] {
        self.meta.meta.epoch
    }

    /// Begins a new epoch; numbers go on. For an aggregator that knows higher numbers of this epoch than this
    /// spool ever gave: an older copy of the spool was put back, and its numbers are not to be trusted.
    pub fn renew_epoch(&mut self, epoch: [u8; 16]) {
        self.meta.meta.epoch = epoch;
        self.write_meta();
    }

    /// Lowest event number held.
    #[must_use]
    pub fn first_event(&self) -> u64 {
        self.events.first()
    }

    /// Number of the next event.
    #[must_use]
    pub fn next_event(&self) -> u64 {
        self.events.next()
    }

    /// Number of the next tick.
    #[must_use]
    pub fn next_sample(&self) -> u64 {
        self.next_sample
    }

    /// Takes the number of the next tick.
    pub fn take_sample_number(&mut self) -> u64 {
        let number = self.next_sample;
        self.next_sample += 1;
        if self.next_sample >= self.meta.meta.samples_reserved {
            self.meta.meta.samples_reserved = self.next_sample + RESERVE;
            // If the disk refuses, numbers go on: not sampling because of a full disk would lose more.
            self.write_meta();
        }
        number
    }

    /// Takes the number of the next anomaly; like those of ticks, none is ever given twice.
    pub fn take_anomaly_number(&mut self) -> u64 {
        let number = self.next_anomaly;
        self.next_anomaly += 1;
        if self.next_anomaly >= self.meta.meta.anomalies_reserved {
            self.meta.meta.anomalies_reserved = self.next_anomaly + RESERVE;
            self.write_meta();
        }
        number
    }

    /// Stores events, in order, with one fsync. Those that the disk refuses wait in memory for the next call;
    /// those past the cap, or past what memory may hold, are counted and told later by one `EventsLost`.
    pub fn emit(&mut self, events: impl IntoIterator<Item = AgentEvent>) {
        self.backlog.extend(events);
        self.tell_lost_events();
        let encoded: Vec<Vec<u8>> = self.backlog.iter().map(|event| encode(event.clone())).collect();
        if encoded.is_empty() {
            return;
        }
        match self.append(&encoded) {
            Ok(()) => self.backlog.clear(),
            Err(AppendError::Write(error)) => {
                tracing::warn!(error = %error, waiting = self.backlog.len(), "events can not be written; is the disk full?");
                while self.backlog.len() > BACKLOG
                    && let Some(event) = self.backlog.pop_front()
                {
                    self.lose(&event);
                }
            }
            Err(AppendError::Full) => {
                // One by one: a smaller one may still fit.
                for event in std::mem::take(&mut self.backlog) {
                    if self.append(&[encode(event.clone())]).is_err() {
                        self.lose(&event);
                    }
                }
                self.write_meta();
            }
        }
    }

    /// Tries again what the disk refused before. Cheap when there is nothing.
    pub fn retry(&mut self) {
        if !self.backlog.is_empty() || self.meta.meta.events_lost.is_some() {
            self.emit([]);
        }
    }

    fn append(&mut self, encoded: &[Vec<u8>]) -> Result<(), AppendError> {
        // Never so full that a loss could not be told.
        let bytes: u64 = encoded.iter().map(|payload| payload.len() as u64 + 16).sum();
        if self.events.used() + bytes + LOSS_ROOM > self.events.cap() {
            return Err(AppendError::Full);
        }
        self.events.append(encoded)
    }

    fn lose(&mut self, event: &AgentEvent) {
        let window = Window { from: event.at, to: event.at };
        match &mut self.meta.meta.events_lost {
            Some(loss) => samples::merge(loss, 1, window),
            None => {
                tracing::warn!("the event spool is full; events are dropped until the aggregator takes some");
                self.meta.meta.events_lost = Some(Loss { count: 1, window, how: LossKind::Dropped });
            }
        }
    }

    /// Once there is room again, one record tells everything that was lost meanwhile.
    fn tell_lost_events(&mut self) {
        let Some(loss) = self.meta.meta.events_lost.clone() else { return };
        if self.events.used() + LOSS_ROOM * 2 > self.events.cap() {
            return;
        }
        let (at, uptime_ms) = (loss.window.to, self.backlog.front().map_or(0, |event| event.uptime_ms));
        let told = encode(AgentEvent { at, uptime_ms, kind: EventKind::EventsLost(loss) });
        if self.events.append(&[told]).is_ok() {
            self.meta.meta.events_lost = None;
            self.write_meta();
        }
    }

    /// Events from number `from` on, at most `most` and about 48 KiB of them.
    pub fn events_from(&mut self, from: u64, most: usize) -> Vec<v1::Event> {
        match self.events.read(from, most, &stand_in) {
            // What was written decodes; an event that does not keeps its place and says nothing.
            Ok(payloads) => payloads.iter().map(|p| v1::Event::decode(&p[..]).unwrap_or_default()).collect(),
            Err(error) => {
                tracing::warn!(%error, from, "events of the spool can not be read");
                Vec::new()
            }
        }
    }

    /// Stores a chunk of samples. Returns what was lost for it, the chunk itself included when the disk refuses.
    pub fn store(&mut self, chunk: &Chunk) -> Vec<Loss> {
        let mut losses = Losses::default();
        if let Err(error) = self.samples.put(chunk, &mut losses) {
            tracing::warn!(%error, "samples can not be written to the spool; is the disk full?");
            losses.add(chunk.last_seq - chunk.first_seq + 1, chunk.window(), LossKind::Dropped);
        }
        losses.into_vec()
    }

    /// The first stored chunk with tick `seq` or a later one, and what was found damaged on the way.
    pub fn chunk_from(&mut self, seq: u64) -> (Option<Chunk>, Vec<Loss>) {
        let mut losses = Losses::default();
        let chunk = self.samples.starting_at(seq, &mut losses);
        (chunk, losses.into_vec())
    }

    /// Number of the first stored tick from `seq` on.
    #[must_use]
    pub fn next_stored_sample(&self, seq: u64) -> Option<u64> {
        self.samples.next_held(seq)
    }

    /// Bytes of events and samples on disk.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.events.used() + self.samples.used()
    }

    /// Frees what the aggregator has made durable: all events and ticks up to these numbers.
    pub fn free(&mut self, events: u64, samples: u64) {
        if let Err(error) = self.events.free_to(events) {
            tracing::warn!(%error, "acknowledged events can not be freed");
        }
        self.samples.free_to(samples);
    }

    /// Ends in order: the next start goes on with the very next number.
    pub fn close(mut self) {
        self.retry();
        for event in std::mem::take(&mut self.backlog) {
            self.lose(&event);
        }
        self.meta.meta.samples_reserved = self.next_sample;
        self.meta.meta.anomalies_reserved = self.next_anomaly;
        self.meta.meta.clean = true;
        self.write_meta();
    }

    fn write_meta(&mut self) {
        if let Err(error) = self.meta.write() {
            tracing::warn!(%error, "the spool's meta file can not be written; is the disk full?");
        }
    }
}

fn encode(event: AgentEvent) -> Vec<u8> {
    v1::Event::from(event).encode_to_vec()
}

/// The event that takes the place of one that is gone, with the time of its neighbours.
fn stand_in(gap: &Gap<'_>) -> Vec<u8> {
    let event = |payload: Option<&[u8]>| payload.and_then(|payload| v1::Event::decode(payload).ok());
    let (before, after) = (event(gap.before), event(gap.after));
    let known = before.as_ref().or(after.as_ref());
    let from = known.map_or(0, |event| event.at_ms);
    let to = after.as_ref().or(before.as_ref()).map_or(0, |event| event.at_ms);
    let window = Window { from: Timestamp::from_millis(from), to: Timestamp::from_millis(to) };
    let how = if gap.torn { LossKind::Unwritten } else { LossKind::Damaged };
    encode(AgentEvent {
        at: window.to,
        uptime_ms: known.map_or(0, |event| event.uptime_ms),
        kind: EventKind::EventsLost(Loss { count: 1, window, how }),
    })
}
