//! What is to be told: both lanes with their buffers in memory and on disk, and what is latest-wins. Filled by
//! the agent's loop, drained by the connection; neither waits for the other.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_common::drill::Drill;
use evenkeel_common::event::{AgentEvent, EventKind, Loss, LossKind};
use evenkeel_common::guest::{GuestFacts, GuestProfile};
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::node::NodeFacts;
use evenkeel_common::sample::{SeriesId, SeriesKey, Tick};
use evenkeel_common::time::Timestamp;
use evenkeel_proto::v1;
use tokio::sync::Notify;

use super::ring::Ring;
use crate::drill::Ordered;
use crate::probe::{MAX_PEERS, Membership, Peer};
use crate::spool::{Chunk, Row, Spool};

/// What the aggregator asks an agent to do, within bounds; `None` leaves the agent's own configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Between ticks, 1000 to 60 000 ms.
    pub interval_ms: Option<u32>,
    /// Between profile reports, 10 to 3600 s.
    pub profile_interval_s: Option<u32>,
    /// The probe mesh, when there is one.
    pub probe: Option<Membership>,
    /// All drills ordered.
    pub drills: Vec<Ordered>,
}

impl Settings {
    /// Takes what arrived at `uptime`. Values out of bounds count as not set; a peer or drill that makes no sense to
    /// this version is left out.
    #[must_use]
    pub fn received(wire: v1::Settings, uptime: Duration) -> Self {
        let within = |value: u32, low, high| (low..=high).contains(&value).then_some(value);
        let ordered = |wire: v1::Drill| {
            let drill = Drill::try_from(wire).ok()?;
            Some(Ordered { until: uptime.saturating_add(Duration::from_millis(drill.ms)), drill })
        };
        Self {
            interval_ms: within(wire.interval_ms, 1000, 60_000),
            profile_interval_s: within(wire.profile_interval_s, 10, 3600),
            probe: wire.probe.and_then(membership),
            drills: wire.drills.into_iter().filter_map(ordered).collect(),
        }
    }
}

fn membership(wire: v1::ProbeSettings) -> Option<Membership> {
    let key = wire.key.as_slice().try_into().ok()?;
    let peers = wire.peers.into_iter().take(MAX_PEERS).filter_map(|peer| {
        let address = peer.address.parse().ok()?;
        Some(Peer { node: NodeId::new(peer.node).ok()?.to_string(), address, ask: peer.ask })
    });
    Some(Membership { key, peers: peers.collect() })
}

/// The lanes, shared between the agent's loop and its connection.
#[derive(Clone, Debug)]
pub struct SharedLanes {
    lanes: Arc<Mutex<Lanes>>,
    changed: Arc<Notify>,
}

impl SharedLanes {
    /// Shares `lanes`.
    #[must_use]
    pub fn new(lanes: Lanes) -> Self {
        Self { lanes: Arc::new(Mutex::new(lanes)), changed: Arc::default() }
    }

    /// Access without telling the connection.
    pub(super) fn lock(&self) -> MutexGuard<'_, Lanes> {
        // No code under the lock leaves the lanes half changed.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the lanes and tells the connection that there is something new.
    pub fn update<T>(&self, change: impl FnOnce(&mut Lanes) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_one();
        result
    }

    /// Looks at the lanes.
    pub fn peek<T>(&self, look: impl FnOnce(&Lanes) -> T) -> T {
        look(&self.lock())
    }

    /// Waits for the next [`Self::update`], also one that happened since the last call.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Writes everything that is only in memory to disk and ends in order.
    pub fn close(self) {
        self.lock().close();
    }
}

/// When a life of a guest began, and its history as bytes.
pub type History = (Timestamp, Vec<u8>);

/// The lanes.
#[derive(Debug)]
pub struct Lanes {
    spool: Option<Spool>,
    ring: Ring,
    ring_ticks: usize,
    names: HashMap<SeriesId, Arc<SeriesKey>>,
    latest: Option<(u64, Row)>,
    profiles: BTreeMap<Vmid, GuestProfile>,
    histories: BTreeMap<Vmid, History>,
    /// What the aggregator knows of guests that run here, until the loop takes it.
    arrived: BTreeMap<Vmid, History>,
    facts: NodeFacts,
    guests: Vec<GuestFacts>,
    settings: Arc<Settings>,
    probe: (u32, u32),
}

impl Lanes {
    /// Over a spool, holding at most `ring_ticks` unacknowledged ticks in memory before they go to disk.
    #[must_use]
    pub fn new(spool: Spool, ring_ticks: usize, facts: NodeFacts) -> Self {
        Self {
            spool: Some(spool),
            ring: Ring::default(),
            ring_ticks,
            names: HashMap::new(),
            latest: None,
            profiles: BTreeMap::new(),
            histories: BTreeMap::new(),
            arrived: BTreeMap::new(),
            facts,
            guests: Vec::new(),
            settings: Arc::default(),
            probe: (0, 0),
        }
    }

    /// Adds a tick; `key_of` names its series. Also gives events that the disk refused another try.
    pub fn push_tick(&mut self, tick: &Tick, key_of: impl Fn(SeriesId) -> Option<SeriesKey>) {
        let mut values = Vec::with_capacity(tick.values.len());
        for &(id, value) in &tick.values {
            let Some(key) = self.names.get(&id).cloned().or_else(|| key_of(id).map(Arc::new)) else {
                continue;
            };
            if let Some(steps) = key.metric.quantise(value) {
                values.push((id, steps));
                self.names.entry(id).or_insert(key);
            }
        }
        if self.names.len() > 2 * values.len() + 64 {
            // Series that ended; chunks keep the names they need.
            let live: std::collections::HashSet<_> = values.iter().map(|(id, _)| *id).collect();
            self.names.retain(|id, _| live.contains(id));
        }
        let Some(spool) = &mut self.spool else { return };
        let seq = spool.take_sample_number();
        spool.retry();
        let uptime_ms = u64::try_from(tick.uptime.as_millis()).unwrap_or(u64::MAX);
        let row = Row { at: tick.at, uptime_ms, values };
        self.ring.push(seq, &row, |id| self.names.get(&id).cloned());
        self.latest = Some((seq, row));
        while self.ring.ticks() > self.ring_ticks {
            self.spill();
        }
    }

    /// Stores events; they go out after that.
    pub fn emit(&mut self, events: impl IntoIterator<Item = AgentEvent>) {
        if let Some(spool) = &mut self.spool {
            spool.emit(events);
        }
    }

    /// Number of the next anomaly.
    pub fn take_anomaly_number(&mut self) -> u64 {
        self.spool.as_mut().map_or(1, Spool::take_anomaly_number)
    }

    /// Replaces the profiles of these guests.
    pub fn report(&mut self, profiles: impl IntoIterator<Item = GuestProfile>) {
        self.profiles.extend(profiles.into_iter().map(|profile| (profile.vmid, profile)));
    }

    /// Replaces the histories of these guests. Not on disk: the agent has them itself, and tells them again.
    pub fn report_histories(&mut self, histories: impl IntoIterator<Item = (Vmid, Timestamp, Vec<u8>)>) {
        self.histories
            .extend(histories.into_iter().map(|(vmid, started_at, bytes)| (vmid, (started_at, bytes))));
    }

    /// Takes what has arrived of the past of guests.
    pub fn take_arrived(&mut self) -> BTreeMap<Vmid, History> {
        std::mem::take(&mut self.arrived)
    }

    /// Whether anything has arrived of the past of guests.
    #[must_use]
    pub fn has_arrived(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// Keeps a history that arrived; the latest of each guest that runs here.
    pub(super) fn arrive(&mut self, wire: v1::GuestHistory) {
        let v1::GuestHistory { vmid, history, started_at_ms } = wire;
        let running = self.guests.iter().find(|guest| guest.vmid.get() == vmid);
        if let Some(guest) = running {
            self.arrived.insert(guest.vmid, (Timestamp::from_millis(started_at_ms), history));
        }
    }

    /// What the node is, for the next hello.
    pub fn set_facts(&mut self, facts: NodeFacts) {
        self.facts = facts;
    }

    /// The guests that run now, for the next hello.
    pub fn set_guests(&mut self, guests: Vec<GuestFacts>) {
        let runs = |vmid: &Vmid| guests.iter().any(|guest| guest.vmid == *vmid);
        self.profiles.retain(|vmid, _| runs(vmid));
        self.histories.retain(|vmid, _| runs(vmid));
        self.arrived.retain(|vmid, _| runs(vmid));
        self.guests = guests;
    }

    /// What the aggregator last asked for.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings)
    }

    pub(super) fn set_settings(&mut self, settings: Settings) {
        self.settings = Arc::new(settings);
    }

    /// For the next hello: the UDP port on which this agent answers probes (0 = none), and how many peers it asks.
    pub fn set_probe(&mut self, port: u16, peers: u8) {
        self.probe = (port.into(), peers.into());
    }

    /// Lowest tick number held, or the next one when none is.
    pub(super) fn first_sample(&self) -> u64 {
        self.next_held(0).unwrap_or_else(|| self.next_sample())
    }

    /// Number of the next tick.
    pub(super) fn next_sample(&self) -> u64 {
        self.spool.as_ref().map_or(1, Spool::next_sample)
    }

    /// Number of the next event.
    pub(super) fn next_event(&self) -> u64 {
        self.spool.as_ref().map_or(1, Spool::next_event)
    }

    /// First tick held from `seq` on. What is on disk is older than what is in memory.
    pub(super) fn next_held(&self, seq: u64) -> Option<u64> {
        let stored = self.spool.as_ref().and_then(|spool| spool.next_stored_sample(seq));
        stored.or_else(|| self.ring.next_held(seq))
    }

    /// The chunk that holds tick `seq`, or the next one; damage on the way becomes an event.
    pub(super) fn chunk_from(&mut self, seq: u64) -> Option<Chunk> {
        let (stored, losses) = self.spool.as_mut().map(|spool| spool.chunk_from(seq)).unwrap_or_default();
        self.tell(losses);
        stored.or_else(|| self.ring.chunk_from(seq))
    }

    /// Tick `seq` if it is still in memory as it was read.
    pub(super) fn latest(&self) -> Option<(u64, &Row)> {
        self.latest.as_ref().map(|(seq, row)| (*seq, row))
    }

    /// The name of a series that is in use.
    pub(super) fn key(&self, id: SeriesId) -> Option<&Arc<SeriesKey>> {
        self.names.get(&id)
    }

    pub(super) fn events_from(&mut self, from: u64, most: usize) -> Vec<v1::Event> {
        self.spool.as_mut().map(|spool| spool.events_from(from, most)).unwrap_or_default()
    }

    /// Takes up to `most` profiles that have not been told yet.
    pub(super) fn take_profiles(&mut self, most: usize) -> Vec<GuestProfile> {
        std::iter::from_fn(|| self.profiles.pop_first()).take(most).map(|(_, profile)| profile).collect()
    }

    /// Takes up to `most` histories that have not been told yet.
    pub(super) fn take_histories(&mut self, most: usize) -> Vec<v1::GuestHistory> {
        let wire = |(vmid, (started_at, history)): (Vmid, History)| v1::GuestHistory {
            vmid: vmid.get(),
            history,
            started_at_ms: started_at.as_millis(),
        };
        std::iter::from_fn(|| self.histories.pop_first()).take(most).map(wire).collect()
    }

    /// Frees what is durable at the aggregator.
    pub(super) fn free(&mut self, events: u64, samples: u64) {
        self.ring.free_to(samples);
        if let Some(spool) = &mut self.spool {
            spool.free(events, samples);
        }
    }

    /// Begins a new epoch; see [`Spool::renew_epoch`].
    pub(super) fn renew_epoch(&mut self, epoch: [u8; 16]) {
        if let Some(spool) = &mut self.spool {
            spool.renew_epoch(epoch);
        }
    }

    pub(super) fn hello(&self, wall_ms: i64, uptime_ms: u64) -> v1::Hello {
        let (version_min, version_max) = evenkeel_proto::VERSIONS;
        v1::Hello {
            version_min,
            version_max,
            capabilities: evenkeel_proto::CAPABILITY_ZSTD,
            epoch: self.spool.as_ref().map(|spool| spool.epoch().to_vec()).unwrap_or_default(),
            first_event: self.spool.as_ref().map_or(1, Spool::first_event),
            next_event: self.next_event(),
            first_sample: self.first_sample(),
            next_sample: self.next_sample(),
            facts: Some(self.facts.clone().into()),
            guests: self.guests.iter().cloned().map(Into::into).collect(),
            wall_ms,
            uptime_ms,
            probe_port: self.probe.0,
            probe_peers: self.probe.1,
        }
    }

    /// Moves the oldest chunk from memory to disk.
    fn spill(&mut self) {
        if let Some(chunk) = self.ring.pop() {
            let losses = self.spool.as_mut().map(|spool| spool.store(&chunk)).unwrap_or_default();
            self.tell(losses);
        }
    }

    fn tell(&mut self, losses: Vec<Loss>) {
        let (at, uptime_ms) =
            self.latest.as_ref().map(|(_, row)| (row.at, row.uptime_ms)).unwrap_or_default();
        for loss in &losses {
            let Loss { count, how, .. } = loss;
            match how {
                LossKind::ThinnedTo10s | LossKind::ThinnedTo60s => {
                    tracing::info!(count, ?how, "samples were thinned to stay within the spool's cap");
                }
                LossKind::Dropped | LossKind::Unwritten | LossKind::Damaged => {
                    tracing::warn!(count, ?how, "samples were lost");
                }
            }
        }
        self.emit(losses.into_iter().map(|loss| AgentEvent {
            at,
            uptime_ms,
            kind: EventKind::SamplesLost(loss),
        }));
    }

    fn close(&mut self) {
        while self.ring.ticks() > 0 {
            self.spill();
        }
        if let Some(spool) = self.spool.take() {
            spool.close();
        }
    }
}

#[cfg(test)]
impl Lanes {
    pub(super) fn ticks_in_memory(&self) -> usize {
        self.ring.ticks()
    }
}
