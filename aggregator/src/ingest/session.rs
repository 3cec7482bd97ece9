//! One agent's stream: what arrives is checked, told apart from what was there before, applied to the live state
//! and handed to the writer. No I/O of its own, so every order of messages can be tested.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::columns::{Base, Columns};
use evenkeel_common::event::{AgentEvent, EventKind};
use evenkeel_common::guest::GuestProfile;
use evenkeel_common::time::Timestamp;
use evenkeel_proto::v1;
use tonic::Status;

use super::block::{BlockBuilder, Thinned, thinned_block};
use super::config::IngestConfig;
use super::dictionary::{Dictionary, SeriesTable};
use super::greeting::Greeting;
use super::histories::Told;
use super::live::{DrillTold, Epoch, NodeCell};
use super::past::Past;
use super::writer::{Cursors, Work};
use crate::store::records::FLEET_EPOCH;

/// Ticks a single batch may hold.
const MAX_TICKS: usize = 3_600;
/// Cells a single batch may hold.
const MAX_CELLS: usize = 4_000_000;
/// Cells after which a block is closed although its time is not up, so that it stays well below a value's limit.
const BLOCK_CELLS: usize = 200_000;
/// Events a single batch may hold.
const MAX_EVENTS: usize = 1_000;

/// Highest number of either lane. No agent gets there; what is near the end of 64 bits is made up.
pub(super) const MAX_NUMBER: u64 = 1 << 62;
/// Times of samples: 1970 to 9999, in milliseconds.
const TIMES_MS: std::ops::Range<i64> = 0..253_402_300_800_000;

/// A stream after its hello.
#[derive(Debug)]
pub struct Session {
    number: u64,
    epoch: Epoch,
    cell: Arc<NodeCell>,
    dictionary: Dictionary,
    base: Base,
    builder: BlockBuilder,
    block_ms: i64,
    max_bytes: usize,
    /// Everything up to these numbers was received on this or an earlier stream.
    received: Cursors,
    /// Samples and events that arrived although they were there already.
    duplicates: u64,
    /// Samples taken, for the statistics.
    samples: u64,
    /// Where what is known of guests from before is kept, if it is.
    past: Option<Past>,
}

/// What the hello settled.
#[derive(Debug)]
pub struct Welcome {
    /// Numbers that are durable; the agent continues behind them.
    pub cursors: Cursors,
    /// Work that the hello itself causes.
    pub work: Vec<Work>,
}

impl Session {
    /// Begins a stream. `durable` is what the store holds of this epoch.
    #[must_use]
    pub fn begin(
        number: u64,
        greeting: Greeting,
        durable: Cursors,
        cell: Arc<NodeCell>,
        table: Arc<SeriesTable>,
        config: &IngestConfig,
        now: Timestamp,
    ) -> (Self, Welcome) {
        let Greeting { epoch, facts, guests, first, next_event, wall, .. } = greeting;
        // Numbers below the first that the agent holds are gone for good: they were lost before they were sent.
        let received = Cursors {
            event: durable.event.max(first.event.saturating_sub(1)),
            sample: durable.sample.max(first.sample.saturating_sub(1)),
        };
        let mut work = vec![Work::Facts(facts.clone())];
        if received != durable {
            work.push(Work::SkipTo(received));
        }
        {
            let mut live = cell.lock();
            live.session = number;
            live.connected = true;
            live.facts = facts;
            if live.tick_at.is_some_and(|newest| newest > wall) {
                live.forget_times();
            }
            live.skew_ms = Some(wall.as_millis().saturating_sub(now.as_millis()));
            live.set_guests(guests);
            live.events_until = next_event.saturating_sub(1);
            live.events_received = received.event;
        }
        let session = Self {
            number,
            epoch,
            cell,
            dictionary: Dictionary::new(table, config.max_series_per_agent as usize),
            base: Base::new(),
            builder: BlockBuilder::default(),
            block_ms: i64::from(config.block_secs) * 1000,
            max_bytes: config.max_message_kib as usize * 1024,
            received,
            duplicates: 0,
            samples: 0,
            past: None,
        };
        (session, Welcome { cursors: received, work })
    }

    /// Minds the past of guests.
    #[must_use]
    pub fn with_past(self, past: Past) -> Self {
        Self { past: Some(past), ..self }
    }

    /// The past of guests, as this stream minds it.
    pub fn past(&mut self) -> Option<&mut Past> {
        self.past.as_mut()
    }

    /// The epoch this stream delivers.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Notes by how much the agent's clock is ahead of the aggregator's.
    pub fn note_skew(&self, skew_ms: i64) {
        self.cell.lock().skew_ms = Some(skew_ms);
    }

    /// Duplicates dropped and samples taken since the last call.
    pub fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.duplicates), std::mem::take(&mut self.samples))
    }

    /// Takes one message. `received_at` is the aggregator's uptime.
    ///
    /// # Errors
    /// A status that ends the stream: the message is malformed, hostile, or this stream was replaced.
    pub fn take(
        &mut self,
        message: v1::from_agent::Message,
        received_at: Duration,
    ) -> Result<Vec<Work>, Status> {
        use v1::from_agent::Message as M;
        if self.cell.lock().session != self.number {
            return Err(Status::aborted("another stream speaks for this node now"));
        }
        match message {
            M::Hello(_) => Err(Status::invalid_argument("a second hello on one stream")),
            M::Series(added) => self.dictionary.extend(added).map(|()| Vec::new()),
            M::Samples(batch) => self.samples(batch, received_at),
            M::Events(batch) => self.events(batch),
            M::Live(view) => self.live(&view, received_at).map(|()| Vec::new()),
            M::Profiles(report) => self.profiles(report),
            M::Clock(_) => Ok(Vec::new()), // Answered where the stream is, with the time of that moment.
        }
    }

    /// Closes the block under way, at the end of the stream.
    pub fn finish(&mut self) -> Option<Work> {
        let block = self.builder.take(self.epoch)?;
        Some(Work::Block { block, table: self.dictionary.table() })
    }

    /// Whether this stream still speaks for its node; marks the node as disconnected if so.
    pub fn disconnect(&self) -> bool {
        let mut live = self.cell.lock();
        let current = live.session == self.number;
        if current {
            live.connected = false;
        }
        current
    }

    fn samples(&mut self, batch: v1::SampleBatch, received_at: Duration) -> Result<Vec<Work>, Status> {
        let (series, ticks) = (batch.series as usize, batch.ticks as usize);
        if series > self.dictionary.len()
            || ticks == 0
            || ticks > MAX_TICKS
            || batch.last_seq < batch.first_seq
            || batch.last_seq > MAX_NUMBER
        {
            return Err(Status::invalid_argument(
                "sample batch: series, ticks or numbers do not fit the stream",
            ));
        }
        check_time(batch.at_ms)?;
        let thinned = match batch.thinning() {
            v1::Thinning::None => Thinned::No,
            v1::Thinning::Thinning10s => Thinned::To10s,
            v1::Thinning::Thinning60s => Thinned::To60s,
        };
        if thinned == Thinned::No && batch.last_seq - batch.first_seq != ticks as u64 - 1 {
            return Err(Status::invalid_argument("sample batch: a raw tick has one number each"));
        }
        let matrix = self.decode(&batch, series * thinned.width(), ticks, thinned)?;
        let times: Vec<Timestamp> = (0..ticks)
            .map(|i| Timestamp::from_millis(batch.at_ms.saturating_add(i as i64 * i64::from(batch.step_ms))))
            .collect();
        if batch.first_seq > self.received.sample + 1 {
            return Err(Status::failed_precondition(format!(
                "samples jump from {} to {}: reconnect and continue behind the acknowledged number",
                self.received.sample, batch.first_seq
            )));
        }
        if batch.last_seq <= self.received.sample {
            self.duplicates += batch.last_seq - batch.first_seq + 1;
            return Ok(Vec::new());
        }
        if thinned == Thinned::No {
            self.apply_newest(&matrix, &times, received_at);
            return Ok(self.store_raw(&batch, &matrix, &times));
        }
        self.store_thinned(&batch, &matrix, &times, thinned)
    }

    fn decode(
        &mut self,
        batch: &v1::SampleBatch,
        rows: usize,
        ticks: usize,
        thinned: Thinned,
    ) -> Result<Columns, Status> {
        let unpacked;
        let bytes = if batch.zstd {
            unpacked = zstd::bulk::decompress(&batch.columns, self.max_bytes)
                .map_err(|_| Status::invalid_argument("sample batch: not zstd, or larger than allowed"))?;
            &unpacked
        } else {
            &batch.columns
        };
        // A thinned record tells nothing about the last raw value, so it leaves the stream's base alone.
        let mut own = Base::new();
        let base = if thinned == Thinned::No { &mut self.base } else { &mut own };
        if batch.keyframe {
            base.clear();
        }
        Columns::decode(bytes, rows, ticks, base, MAX_CELLS)
            .map_err(|error| Status::invalid_argument(format!("sample batch: {error}")))
    }

    /// The newest tick of a batch becomes the live state, if it is newer than that.
    fn apply_newest(&self, matrix: &Columns, times: &[Timestamp], received_at: Duration) {
        let mut live = self.cell.lock();
        for (tick, &at) in times.iter().enumerate() {
            if live.tick_at.is_some_and(|newest| newest >= at) {
                continue;
            }
            for (index, key) in self.dictionary.live(matrix.series()) {
                if let Some(steps) = matrix.get(index, tick) {
                    live.apply(key, at, key.metric.restore(steps));
                }
            }
        }
        if let Some(&at) = times.last() {
            self.note_arrival(&mut live, at, received_at);
        }
    }

    /// Data counts as fresh when it arrived now and says it is of now; backfill of old ticks proves nothing.
    fn note_arrival(&self, live: &mut super::live::NodeLive, at: Timestamp, received_at: Duration) {
        if live.tick_at.is_none_or(|newest| at > newest) {
            live.tick_at = Some(at);
            live.received = Some(received_at);
        }
        self.cell.announce(at);
    }

    fn store_raw(&mut self, batch: &v1::SampleBatch, matrix: &Columns, times: &[Timestamp]) -> Vec<Work> {
        let mut work = Vec::new();
        for (tick, (&at, seq)) in times.iter().zip(batch.first_seq..).enumerate() {
            if seq <= self.received.sample {
                self.duplicates += 1;
                continue;
            }
            let mut stored = Columns::missing(matrix.series(), 1);
            for index in (0..matrix.series()).filter(|&index| self.dictionary.is_known(index)) {
                let value = matrix.get(index, tick);
                stored.set(index, 0, value);
                self.samples += u64::from(value.is_some());
            }
            self.builder.push(seq, at, self.dictionary.numbers(), &stored);
            self.received.sample = seq;
            if self.builder.span_ms() >= self.block_ms - 1_000 || self.builder.cells() >= BLOCK_CELLS {
                work.extend(self.finish());
            }
        }
        work
    }

    fn store_thinned(
        &mut self,
        batch: &v1::SampleBatch,
        matrix: &Columns,
        times: &[Timestamp],
        thinned: Thinned,
    ) -> Result<Vec<Work>, Status> {
        if batch.first_seq != self.received.sample + 1 {
            return Err(Status::invalid_argument("sample batch: thinned records can not be taken in part"));
        }
        let mut work: Vec<Work> = self.finish().into_iter().collect();
        let numbers = self.dictionary.numbers().get(..batch.series as usize).unwrap_or_default();
        let block =
            thinned_block(self.epoch, (batch.first_seq, batch.last_seq), times, numbers, thinned, matrix);
        self.received.sample = batch.last_seq;
        work.push(Work::Block { block, table: self.dictionary.table() });
        Ok(work)
    }

    fn live(&self, view: &v1::LiveView, received_at: Duration) -> Result<(), Status> {
        let series = view.series as usize;
        if series > self.dictionary.len() {
            return Err(Status::invalid_argument("live view: more series than announced"));
        }
        check_time(view.at_ms)?;
        let matrix = Columns::decode(&view.columns, series, 1, &mut Base::new(), MAX_CELLS)
            .map_err(|error| Status::invalid_argument(format!("live view: {error}")))?;
        self.apply_newest(&matrix, &[Timestamp::from_millis(view.at_ms)], received_at);
        Ok(())
    }

    fn events(&mut self, batch: v1::EventBatch) -> Result<Vec<Work>, Status> {
        if batch.events.is_empty() || batch.events.len() > MAX_EVENTS {
            return Err(Status::invalid_argument("event batch: none or more than 1000 events"));
        }
        if batch.first_seq > self.received.event + 1 {
            return Err(Status::failed_precondition(format!(
                "events jump from {} to {}: reconnect and continue behind the acknowledged number",
                self.received.event, batch.first_seq
            )));
        }
        let (mut fresh, mut first_seq, mut histories) = (Vec::new(), None, Vec::new());
        for (wire, seq) in batch.events.into_iter().zip(batch.first_seq..) {
            let mut event = AgentEvent::try_from(wire)
                .map_err(|error| Status::invalid_argument(format!("event {seq}: {error}")))?;
            if seq <= self.received.event {
                self.duplicates += 1;
                continue;
            }
            first_seq.get_or_insert(seq);
            histories
                .extend(self.past.as_ref().and_then(|past| past.last_words(&mut event, &self.cell.lock())));
            self.apply_event(seq, &event);
            fresh.push(event);
            self.received.event = seq;
        }
        // Histories first: once the events are acknowledged the agent has none of them any more.
        let histories = Work::histories(histories);
        let events = first_seq.map(|first_seq| Work::Events { first_seq, events: fresh });
        Ok(histories.into_iter().chain(events).collect())
    }

    fn apply_event(&self, seq: u64, event: &AgentEvent) {
        let mut live = self.cell.lock();
        live.events_received = seq;
        match &event.kind {
            EventKind::AgentStarted { .. } => {
                // Its detectors began anew: what was open before can not be closed by it any more.
                // What the aggregator itself has found is not the agent's to end.
                live.open.retain(|(epoch, _), _| *epoch == FLEET_EPOCH);
                live.faults.clear();
                for told in live.drills.values_mut().filter(|told| **told == DrillTold::Started) {
                    *told = DrillTold::Ended { cleared: true };
                }
            }
            EventKind::AnomalyOpened(anomaly) => {
                live.open.insert((self.epoch, anomaly.number), anomaly.clone());
            }
            EventKind::AnomalyClosed(anomaly) => {
                live.open.remove(&(self.epoch, anomaly.number));
            }
            EventKind::GuestAppeared(facts) | EventKind::GuestChanged(facts) => live.set_guest(facts.clone()),
            EventKind::GuestVanished { vmid, .. } => {
                live.guests.remove(vmid);
            }
            EventKind::CollectorFailed { collector, message } => {
                live.faults.insert(collector.clone(), message.clone());
            }
            EventKind::CollectorRecovered { collector } => {
                live.faults.remove(collector);
            }
            EventKind::ClockJumped { by_ms } if *by_ms < 0 => live.forget_times(),
            EventKind::DrillStarted(drill) => live.note_drill(&drill.id, DrillTold::Started),
            EventKind::DrillEnded { id, cleared } => {
                live.note_drill(id, DrillTold::Ended { cleared: *cleared });
            }
            EventKind::DrillRefused { id, why } => live.note_drill(id, DrillTold::Refused(why.clone())),
            // Closings may be among those lost; see the ledger.
            EventKind::EventsLost(_) => live.open.clear(),
            EventKind::SamplesLost(_) | EventKind::ClockJumped { .. } => {}
        }
    }

    fn profiles(&mut self, report: v1::ProfileReport) -> Result<Vec<Work>, Status> {
        let v1::ProfileReport { profiles, histories } = report;
        if profiles.len() > 10_000 || histories.len() > 1_000 {
            return Err(Status::invalid_argument(
                "profile report: more than 10000 profiles or 1000 histories",
            ));
        }
        let profiles: Result<Vec<_>, _> = profiles.into_iter().map(GuestProfile::try_from).collect();
        let mut profiles = profiles.map_err(|e| Status::invalid_argument(e.to_string()))?;
        let mut live = self.cell.lock();
        if let Some(past) = &mut self.past {
            profiles.retain(|profile| past.stands(profile, &mut live));
        }
        for profile in &profiles {
            if let Some(guest) = live.guests.get_mut(&profile.vmid) {
                guest.profile = Some(profile.clone());
            }
        }
        let told = |past: &Past| histories.into_iter().filter_map(|h| past.told(h, &live)).collect();
        let histories: Vec<Told> = self.past.as_ref().map(told).unwrap_or_default();
        let profiles = (!profiles.is_empty()).then_some(Work::Profiles(profiles));
        let histories = Work::histories(histories);
        Ok(profiles.into_iter().chain(histories).collect())
    }
}

fn check_time(at_ms: i64) -> Result<(), Status> {
    let sound = TIMES_MS.contains(&at_ms);
    if sound { Ok(()) } else { Err(Status::invalid_argument(format!("{at_ms} ms is no time of a sample"))) }
}
