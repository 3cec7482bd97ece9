//! One stream from its hello on: what to say next, and what an answer means. No I/O and no waiting in here.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use evenkeel_common::columns::{Base, Columns};
use evenkeel_common::sample::{SeriesId, SeriesKey};
use evenkeel_proto::v1;
use evenkeel_proto::v1::from_agent::Message;

use super::lanes::Lanes;
use crate::spool::{Chunk, Resolution, Row};

/// Unsent ticks up to which each is sent by itself; with more the lane is behind.
const NEARLY_LIVE: u64 = 2;
/// Events in a batch.
const EVENT_BATCH: usize = 64;
/// Profiles in a report.
const PROFILE_BATCH: usize = 100;
/// Histories in a report: with 8 KiB each they fit into the smallest message that an aggregator takes.
const HISTORY_BATCH: usize = 6;
/// Most entries of a stream's dictionary. A new stream begins without those that have ended.
const MAX_DICTIONARY: usize = 1 << 16;

/// Why a stream should end although nothing is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    /// The next number held is not the next to send: a new hello declares those between lost.
    Hole,
    /// The dictionary has grown too large.
    Dictionary,
}

/// An acknowledgement or credit that no correct aggregator sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the aggregator acknowledged {lane} {acked}, but only numbers below {next} were sent")]
pub(super) struct BadAck {
    lane: &'static str,
    acked: u64,
    next: u64,
}

/// A stream.
#[derive(Debug)]
pub(super) struct Session {
    dictionary: HashMap<Arc<SeriesKey>, usize>,
    /// The same by the agent's own number, for live ticks.
    indices: HashMap<SeriesId, usize>,
    base: Base,
    /// Whether `base` is what the aggregator has; if not, a keyframe is due.
    in_step: bool,
    zstd: bool,
    next_event: u64,
    next_sample: u64,
    acked_sample: u64,
    /// Backfill that may be in flight.
    credit: u64,
    /// Backfill in flight: (last number, ticks).
    in_flight: VecDeque<(u64, u64)>,
    /// Newest tick told as a live view.
    shown: u64,
    out: VecDeque<Message>,
}

impl Session {
    /// After the hellos. Frees what the aggregator has already.
    pub(super) fn new(hello: &v1::Hello, ack: &v1::HelloAck, lanes: &mut Lanes) -> Self {
        lanes.free(ack.event_cursor, ack.sample_cursor);
        let next_sample = hello.first_sample.max(ack.sample_cursor + 1);
        Self {
            dictionary: HashMap::new(),
            indices: HashMap::new(),
            base: Base::new(),
            in_step: false,
            zstd: ack.capabilities & evenkeel_proto::CAPABILITY_ZSTD != 0,
            next_event: hello.first_event.max(ack.event_cursor + 1),
            next_sample,
            acked_sample: next_sample - 1,
            credit: ack.credit,
            in_flight: VecDeque::new(),
            shown: 0,
            out: VecDeque::new(),
        }
    }

    /// Everything up to these numbers is durable.
    pub(super) fn acknowledged(&mut self, ack: v1::Ack, lanes: &mut Lanes) -> Result<(), BadAck> {
        let v1::Ack { event_cursor, sample_cursor } = ack;
        if event_cursor >= self.next_event {
            return Err(BadAck { lane: "event", acked: event_cursor, next: self.next_event });
        }
        if sample_cursor >= self.next_sample {
            return Err(BadAck { lane: "tick", acked: sample_cursor, next: self.next_sample });
        }
        self.acked_sample = self.acked_sample.max(sample_cursor);
        while self.in_flight.front().is_some_and(|(last_seq, _)| *last_seq <= sample_cursor) {
            self.in_flight.pop_front();
        }
        lanes.free(event_cursor, sample_cursor);
        Ok(())
    }

    /// More backfill may be in flight.
    pub(super) fn granted(&mut self, credit: v1::Credit) {
        self.credit = self.credit.saturating_add(credit.ticks);
    }

    /// Adds a message that comes from elsewhere (the clock probe).
    pub(super) fn say(&mut self, message: Message) {
        self.out.push_back(message);
    }

    /// The next message, once it can be sent.
    pub(super) fn take(&mut self) -> Option<v1::FromAgent> {
        self.out.pop_front().map(|message| v1::FromAgent { message: Some(message) })
    }

    /// Whether something is waiting to be sent, after looking in the lanes if need be. What is live goes first,
    /// then events, then what is missing.
    pub(super) fn ready(&mut self, lanes: &mut Lanes) -> Result<bool, Restart> {
        if !self.out.is_empty() {
            return Ok(true);
        }
        if self.dictionary.len() > MAX_DICTIONARY {
            return Err(Restart::Dictionary);
        }
        let unsent = lanes.next_sample().saturating_sub(self.next_sample);
        if unsent > NEARLY_LIVE {
            self.live_view(lanes);
        }
        if self.out.is_empty() && unsent > 0 && unsent <= NEARLY_LIVE {
            self.samples(lanes, u64::MAX)?;
        }
        if self.out.is_empty() {
            self.reports(lanes);
            self.events(lanes);
        }
        if self.out.is_empty() && unsent > NEARLY_LIVE {
            let in_flight: u64 = self.in_flight.iter().map(|(_, ticks)| ticks).sum();
            self.samples(lanes, self.credit.saturating_sub(in_flight))?;
        }
        Ok(!self.out.is_empty())
    }

    fn live_view(&mut self, lanes: &Lanes) {
        let Some((seq, row)) = lanes.latest().filter(|(seq, _)| *seq > self.shown) else { return };
        self.shown = seq;
        let columns = self.columns_of(row, lanes);
        self.out.push_back(Message::Live(v1::LiveView {
            at_ms: row.at.as_millis(),
            uptime_ms: row.uptime_ms,
            columns: columns.encode(&mut Base::new()),
            series: wire(columns.series()),
        }));
    }

    fn reports(&mut self, lanes: &mut Lanes) {
        let profiles = lanes.take_profiles(PROFILE_BATCH);
        // Those first: by them the aggregator knows what a history has in common with its own.
        let histories = if profiles.is_empty() { lanes.take_histories(HISTORY_BATCH) } else { Vec::new() };
        if !profiles.is_empty() || !histories.is_empty() {
            let profiles = profiles.into_iter().map(Into::into).collect();
            self.out.push_back(Message::Profiles(v1::ProfileReport { profiles, histories }));
        }
    }

    fn events(&mut self, lanes: &mut Lanes) {
        if self.next_event >= lanes.next_event() {
            return;
        }
        let events = lanes.events_from(self.next_event, EVENT_BATCH);
        if !events.is_empty() {
            let first_seq = self.next_event;
            self.next_event += events.len() as u64;
            self.out.push_back(Message::Events(v1::EventBatch { first_seq, events }));
        }
    }

    /// The next tick by itself when it is the newest, else the next chunk within `allowance` ticks.
    fn samples(&mut self, lanes: &mut Lanes, allowance: u64) -> Result<(), Restart> {
        let Some(held) = lanes.next_held(self.next_sample) else { return Ok(()) };
        if held > self.next_sample {
            // Everything before the hole must be safe first: the next hello says that it is not held any more.
            return if self.acked_sample + 1 >= self.next_sample { Err(Restart::Hole) } else { Ok(()) };
        }
        match lanes.latest() {
            Some((seq, row)) if seq == self.next_sample => self.tick(row, lanes),
            _ if allowance > 0 => self.backfill(lanes, allowance),
            _ => {}
        }
        Ok(())
    }

    fn tick(&mut self, row: &Row, lanes: &Lanes) {
        let columns = self.columns_of(row, lanes);
        let keyframe = !self.in_step;
        if keyframe {
            self.base.clear();
        }
        self.in_step = true;
        self.out.push_back(Message::Samples(v1::SampleBatch {
            first_seq: self.next_sample,
            last_seq: self.next_sample,
            keyframe,
            at_ms: row.at.as_millis(),
            uptime_ms: row.uptime_ms,
            step_ms: 0,
            ticks: 1,
            thinning: v1::Thinning::None.into(),
            columns: columns.encode(&mut self.base),
            zstd: false, // A kilobyte of deltas gains nothing.
            series: wire(columns.series()),
        }));
        self.next_sample += 1;
    }

    fn backfill(&mut self, lanes: &mut Lanes, allowance: u64) {
        let Some(chunk) =
            lanes.chunk_from(self.next_sample).and_then(|chunk| chunk.starting_at(self.next_sample))
        else {
            return;
        };
        if chunk.first_seq > self.next_sample && chunk.resolution == Resolution::Raw {
            return; // Damage was found just now; the hole shows at the next look.
        }
        let chunk = chunk.up_to(usize::try_from(allowance).unwrap_or(usize::MAX));
        let ticks = chunk.records() as u64;
        if ticks > allowance && !self.in_flight.is_empty() {
            return; // A thinned chunk goes as a whole, if need be alone.
        }
        let columns = self.columns_of_chunk(&chunk);
        let batch = chunk.batch(&columns, self.dictionary.len(), &mut self.base, self.zstd);
        // A thinned batch has four columns a series: nothing to tell the next tick against.
        self.in_step = chunk.resolution == Resolution::Raw;
        self.out.push_back(Message::Samples(batch));
        self.in_flight.push_back((chunk.last_seq, ticks));
        self.next_sample = chunk.last_seq + 1;
    }

    /// A row in the order of the stream's dictionary, which grows if need be.
    fn columns_of(&mut self, row: &Row, lanes: &Lanes) -> Columns {
        let unknown = row.values.iter().filter(|(id, _)| !self.indices.contains_key(id));
        let unknown: Vec<_> = unknown.filter_map(|(id, _)| Some((*id, lanes.key(*id)?.clone()))).collect();
        let keys: Vec<_> = unknown.iter().map(|(_, key)| key.clone()).collect();
        for ((id, _), index) in unknown.into_iter().zip(self.intern(&keys)) {
            self.indices.insert(id, index);
        }
        let mut columns = Columns::missing(self.dictionary.len(), 1);
        for (id, value) in &row.values {
            if let Some(&index) = self.indices.get(id) {
                columns.set(index, 0, Some(*value));
            }
        }
        columns
    }

    fn columns_of_chunk(&mut self, chunk: &Chunk) -> Columns {
        let indices = self.intern(&chunk.series);
        let width = chunk.resolution.columns();
        let mut columns = Columns::missing(self.dictionary.len() * width, chunk.records());
        for (series, index) in indices.into_iter().enumerate() {
            for stat in 0..width {
                for (tick, value) in chunk.columns.column(series * width + stat).enumerate() {
                    columns.set(index * width + stat, tick, value);
                }
            }
        }
        columns
    }

    /// Indices of these series; new ones are announced first.
    fn intern(&mut self, keys: &[Arc<SeriesKey>]) -> Vec<usize> {
        let first_index = self.dictionary.len();
        let mut added = Vec::new();
        let mut indices = Vec::with_capacity(keys.len());
        for key in keys {
            let next = self.dictionary.len();
            let index = *self.dictionary.entry(key.clone()).or_insert(next);
            if index == next {
                added.push(v1::SeriesDef::from(&**key));
            }
            indices.push(index);
        }
        if !added.is_empty() {
            self.out.push_back(Message::Series(v1::SeriesAdded {
                first_index: wire(first_index),
                series: added,
            }));
        }
        indices
    }
}

fn wire(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
