//! Watches what the collectors read, and says what happened: anomalies, guests that come and go, collectors
//! that fail, clocks that jump. The detectors themselves live in `evenkeel-detect`; every series has one watch.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use evenkeel_common::anomaly::{Anomaly, Vote};
use evenkeel_common::event::{AgentEvent, EventKind};
use evenkeel_common::guest::{GuestFacts, GuestProfile};
use evenkeel_common::id::Vmid;
use evenkeel_common::sample::{Metric, SeriesId, SeriesKey, Subject};
use evenkeel_common::time::Timestamp;
use evenkeel_detect::config::WatchConfig;
use evenkeel_detect::profile::{GuestProfiler, HistoryError};
use evenkeel_detect::watch::{AnomalyState, SeriesWatch, Transition};

use crate::collect::source::{Fault, Reading, Registry};
use crate::memory::Memory;
use crate::watch_node::{NodeMemory, NodeTransition, NodeWatch, NodeWatchConfig};

/// A wall clock that moves by more than this against the boot clock has jumped.
const CLOCK_JUMP_MS: i64 = 2000;
/// Ticks between two looks for series that have ended or gone silent.
const SWEEP_TICKS: u64 = 30;
/// Longest message and collector name told.
const MAX_MESSAGE_CHARS: usize = 1024;

/// Time after which what an earlier run remembers of series and guests that have not come back is forgotten.
const WAITED: Duration = Duration::from_secs(900);

/// CPU and memory of a guest not read; the profiler leaves out what is not a number.
const NO_USAGE: (f64, f64) = (f64::NAN, f64::NAN);

/// One watched series.
#[derive(Debug)]
struct Watched {
    key: SeriesKey,
    watch: SeriesWatch,
    /// While a drill distorts the series: a copy that watches in its place and is thrown away afterwards, so that
    /// nothing learns from what was made up.
    drilled: Option<Box<SeriesWatch>>,
    /// Number of the open anomaly.
    open: u64,
    seen: u64,
}

#[derive(Debug)]
struct Guest {
    facts: GuestFacts,
    profiler: GuestProfiler,
}

/// Everything watched on this node.
#[derive(Debug)]
pub struct Watcher {
    config: WatchConfig,
    interval: Duration,
    series: HashMap<SeriesId, Watched>,
    guests: BTreeMap<Vmid, Guest>,
    failed: BTreeMap<&'static str, ()>,
    clocks: Option<(Timestamp, Duration)>,
    ticks: u64,
    memory: Memory,
    node: NodeWatch,
}

impl Watcher {
    /// Knows nothing yet; ticks come every `interval`.
    #[must_use]
    pub fn new(config: WatchConfig, interval: Duration) -> Self {
        Self {
            config,
            interval,
            series: HashMap::new(),
            guests: BTreeMap::new(),
            failed: BTreeMap::new(),
            clocks: None,
            ticks: 0,
            memory: Memory::default(),
            node: NodeWatch::new(NodeWatchConfig::default()),
        }
    }

    /// Watches the node as a whole with these options.
    #[must_use]
    pub fn with_node(mut self, config: NodeWatchConfig) -> Self {
        self.node = NodeWatch::new(config);
        self
    }

    /// Goes on with what an earlier run has learned.
    pub fn remember(&mut self, mut memory: Memory) {
        if let Some(node) = memory.take_node() {
            self.node.remember(node);
        }
        self.memory = memory;
    }

    /// Takes a reading and returns what happened, in order. `injected`: series of it that a drill has distorted.
    /// `number` gives each new anomaly its number.
    pub fn observe(
        &mut self,
        reading: &Reading,
        registry: &Registry,
        injected: &BTreeSet<SeriesId>,
        number: &mut dyn FnMut() -> u64,
    ) -> Vec<AgentEvent> {
        self.ticks += 1;
        let mut kinds = Vec::new();
        self.clock(reading, &mut kinds);
        self.faults(&reading.faults, &mut kinds);
        if let Some(guests) = &reading.guests {
            self.guests(guests, &mut kinds);
        }
        self.samples(reading, registry, injected, number, &mut kinds);
        self.whole(reading, registry, injected, number, &mut kinds);
        if self.ticks.is_multiple_of(SWEEP_TICKS) {
            self.sweep(reading.tick.at, registry, &mut kinds);
        }
        stamped(kinds, reading.tick.at, reading.tick.uptime)
    }

    /// The profiles of all guests with any data.
    #[must_use]
    pub fn profiles(&self) -> Vec<GuestProfile> {
        self.guests.values().filter_map(Guest::profile).collect()
    }

    /// The histories of all guests with any data, with the start of their lives.
    #[must_use]
    pub fn histories(&self) -> Vec<(Vmid, Timestamp, Vec<u8>)> {
        let with_data = self.guests.values().filter(|guest| guest.profile().is_some());
        let history =
            |guest: &Guest| Some((guest.facts.vmid, guest.facts.started_at, guest.profiler.to_bytes().ok()?));
        with_data.filter_map(history).collect()
    }

    /// Adds what others know of a guest, as it arrived at `now`, to what was learned of it here. It is left out when
    /// that life of the guest is over, and when a part of it is known here already. Returns whether it was added.
    ///
    /// # Errors
    /// [`HistoryError`]: it is no history; nothing has changed.
    pub fn learn(
        &mut self,
        vmid: Vmid,
        started_at: Timestamp,
        history: &[u8],
        now: Timestamp,
    ) -> Result<bool, HistoryError> {
        let history = GuestProfiler::from_bytes(history, now)?;
        let guest = self.guests.get_mut(&vmid).filter(|guest| guest.facts.started_at == started_at);
        Ok(guest.is_some_and(|guest| guest.profiler.merge(&history)))
    }

    /// Time between ticks.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// The numbers of all series watched.
    pub fn ids(&self) -> impl Iterator<Item = SeriesId> + '_ {
        self.series.keys().copied()
    }

    /// What was learned of a series, without what a drill made of it.
    #[must_use]
    pub fn learned(&self, id: SeriesId) -> Option<(&SeriesKey, &SeriesWatch)> {
        self.series.get(&id).map(|watched| (&watched.key, &watched.watch))
    }

    /// What was learned of the node as a whole.
    #[must_use]
    pub fn learned_node(&self) -> Option<NodeMemory> {
        self.node.learned()
    }

    /// The numbers of all guests.
    pub fn vmids(&self) -> impl Iterator<Item = Vmid> + '_ {
        self.guests.keys().copied()
    }

    /// What was learned of a guest.
    #[must_use]
    pub fn learned_guest(&self, vmid: Vmid) -> Option<(&GuestFacts, &GuestProfiler)> {
        self.guests.get(&vmid).map(|guest| (&guest.facts, &guest.profiler))
    }

    /// Ticks come at another interval from now on. Baselines are of the old one: all watches begin anew.
    pub fn set_interval(&mut self, interval: Duration, at: Timestamp, uptime: Duration) -> Vec<AgentEvent> {
        self.interval = interval;
        let closed = self.close(at, uptime);
        self.series.clear();
        self.memory.forget_series();
        closed
    }

    /// Closes every open anomaly: nobody follows them from here on. What was learned stays.
    pub fn close(&mut self, at: Timestamp, uptime: Duration) -> Vec<AgentEvent> {
        let of_series = self.series.values_mut().flat_map(|watched| watched.leave(at));
        let closed = of_series.chain(self.node.close(at).map(EventKind::AnomalyClosed)).collect();
        stamped(closed, at, uptime)
    }

    fn clock(&mut self, reading: &Reading, kinds: &mut Vec<EventKind>) {
        let (at, uptime) = (reading.tick.at, reading.tick.uptime);
        if let Some((at_before, uptime_before)) = self.clocks.replace((at, uptime)) {
            let expected = at_before.after(uptime.saturating_sub(uptime_before));
            let by_ms = at.as_millis().saturating_sub(expected.as_millis());
            if by_ms.abs() > CLOCK_JUMP_MS {
                kinds.push(EventKind::ClockJumped { by_ms });
            }
        }
    }

    /// One event when a collector fails, one when it works again, whatever lies between.
    fn faults(&mut self, faults: &[Fault], kinds: &mut Vec<EventKind>) {
        for fault in faults {
            if self.failed.insert(fault.collector, ()).is_none() {
                let message = fault.message.chars().take(MAX_MESSAGE_CHARS).collect();
                kinds.push(EventKind::CollectorFailed { collector: fault.collector.to_owned(), message });
            }
        }
        self.failed.retain(|collector, ()| {
            let still = faults.iter().any(|fault| fault.collector == *collector);
            if !still {
                kinds.push(EventKind::CollectorRecovered { collector: (*collector).to_owned() });
            }
            still
        });
    }

    fn guests(&mut self, now: &[GuestFacts], kinds: &mut Vec<EventKind>) {
        let gone: Vec<Vmid> = self
            .guests
            .values()
            .filter(|old| !now.iter().any(|new| same_life(&old.facts, new)))
            .map(|old| old.facts.vmid)
            .collect();
        for vmid in gone {
            let guest = self.guests.remove(&vmid);
            let profile = guest.as_ref().and_then(Guest::profile).map(Box::new);
            // It can not fail for what this agent itself has made; if it did, the figures would still go.
            let history =
                guest.filter(|_| profile.is_some()).and_then(|guest| guest.profiler.to_bytes().ok());
            kinds.push(EventKind::GuestVanished { vmid, profile, history });
        }
        for facts in now {
            match self.guests.get_mut(&facts.vmid) {
                None => {
                    let profiler = self.memory.take_guest(facts).unwrap_or_default();
                    let guest = Guest { facts: facts.clone(), profiler };
                    self.guests.insert(facts.vmid, guest);
                    kinds.push(EventKind::GuestAppeared(facts.clone()));
                }
                Some(guest) if guest.facts != *facts => {
                    guest.facts = facts.clone();
                    kinds.push(EventKind::GuestChanged(facts.clone()));
                }
                Some(_) => {}
            }
        }
    }

    fn samples(
        &mut self,
        reading: &Reading,
        registry: &Registry,
        injected: &BTreeSet<SeriesId>,
        number: &mut dyn FnMut() -> u64,
        kinds: &mut Vec<EventKind>,
    ) {
        let at = reading.tick.at;
        let mut usage: BTreeMap<Vmid, (f64, f64)> = BTreeMap::new();
        for &(id, value) in &reading.tick.values {
            if !self.series.contains_key(&id) {
                let Some(key) = registry.key(id).filter(|key| is_watched(key)) else { continue };
                let watched = self.begin(key);
                self.series.insert(id, watched);
            }
            let Some(watched) = self.series.get_mut(&id) else { continue };
            watched.seen = self.ticks;
            let injected = injected.contains(&id);
            if injected != watched.drilled.is_some() {
                kinds.extend(watched.drill(injected, at));
            }
            match (watched.key.subject, watched.key.metric) {
                _ if injected => {} // A profile learns from what was.
                (Subject::Guest(vmid), Metric::GuestCpu) => usage.entry(vmid).or_insert(NO_USAGE).0 = value,
                (Subject::Guest(vmid), Metric::GuestMem) => usage.entry(vmid).or_insert(NO_USAGE).1 = value,
                _ => {}
            }
            if let Some(transition) = watched.active_mut().observe(at, value) {
                kinds.push(watched.told(transition, number));
            }
        }
        for (vmid, (cpu, memory)) in usage {
            if let Some(guest) = self.guests.get_mut(&vmid) {
                guest.profiler.observe(at, cpu, memory);
            }
        }
    }

    /// The node as a whole. What a drill distorts is left out, and thus missing.
    fn whole(
        &mut self,
        reading: &Reading,
        registry: &Registry,
        injected: &BTreeSet<SeriesId>,
        number: &mut dyn FnMut() -> u64,
        kinds: &mut Vec<EventKind>,
    ) {
        let values = reading.tick.values.iter().copied().filter(|(id, _)| !injected.contains(id));
        kinds.extend(self.node.observe(reading.tick.at, values, registry, number).map(
            |changed| match changed {
                NodeTransition::Opened(anomaly) => EventKind::AnomalyOpened(anomaly),
                NodeTransition::Closed(anomaly) => EventKind::AnomalyClosed(anomaly),
            },
        ));
    }

    /// A watch for a series that appeared: as an earlier run left it, or new. A guest's series is only taken over
    /// once its guest is known to be the same.
    fn begin(&mut self, key: &SeriesKey) -> Watched {
        let known = match key.subject {
            Subject::Node => true,
            Subject::Guest(vmid) => self.guests.contains_key(&vmid),
        };
        let kept = if known { self.memory.take_series(key) } else { None };
        let watch = kept.unwrap_or_else(|| SeriesWatch::new(key.metric, self.interval, self.config));
        Watched { key: key.clone(), watch, drilled: None, open: 0, seen: 0 }
    }

    /// Forgets series that have ended; tells silent ones the time.
    fn sweep(&mut self, at: Timestamp, registry: &Registry, kinds: &mut Vec<EventKind>) {
        let ticks = self.ticks;
        if self.interval.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX)) >= WAITED {
            self.memory = Memory::default();
        }
        self.series.retain(|id, watched| {
            if registry.key(*id).is_none() {
                kinds.extend(watched.leave(at));
                return false;
            }
            if watched.seen < ticks
                && let Some(Transition::Closed(state)) = watched.active_mut().silence(at)
            {
                kinds.push(EventKind::AnomalyClosed(watched.anomaly(state)));
            }
            true
        });
    }
}

impl Watched {
    fn told(&mut self, transition: Transition, number: &mut dyn FnMut() -> u64) -> EventKind {
        match transition {
            Transition::Opened(state) => {
                self.open = number();
                EventKind::AnomalyOpened(self.anomaly(state))
            }
            Transition::Closed(state) => EventKind::AnomalyClosed(self.anomaly(state)),
        }
    }

    fn anomaly(&self, state: AnomalyState) -> Anomaly {
        let AnomalyState { opened_at, closed_at, value, expected, deviation, confidence, severity, votes } =
            state;
        Anomaly {
            number: self.open,
            series: self.key.clone(),
            opened_at,
            closed_at,
            value: bounded(value),
            expected: bounded(expected),
            deviation: bounded(deviation),
            confidence,
            severity,
            votes: votes.into_iter().map(|vote| Vote { score: bounded(vote.score), ..vote }).collect(),
            causes: Vec::new(),
            injected: self.drilled.is_some(),
        }
    }

    fn active_mut(&mut self) -> &mut SeriesWatch {
        self.drilled.as_deref_mut().unwrap_or(&mut self.watch)
    }

    /// Begins or ends a drill. An anomaly that is open closes: nobody can tell how it goes on.
    fn drill(&mut self, begins: bool, at: Timestamp) -> Option<EventKind> {
        let closed = self.leave(at);
        self.drilled = begins.then(|| Box::new(self.watch.clone()));
        closed
    }

    /// The closing of the open anomaly, as nobody follows it any more.
    fn leave(&mut self, at: Timestamp) -> Option<EventKind> {
        match self.active_mut().leave(at)? {
            Transition::Closed(state) | Transition::Opened(state) => {
                Some(EventKind::AnomalyClosed(self.anomaly(state)))
            }
        }
    }
}

impl Guest {
    fn profile(&self) -> Option<GuestProfile> {
        Some(self.profiler.profile(self.facts.vmid)).filter(|profile| profile.observed_s > 0)
    }
}

/// An anomaly with a number that is none would be refused at the border, and its whole batch with it.
fn bounded(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value.clamp(-f64::MAX, f64::MAX) }
}

/// Whether this end judges the series. Whose fault a single way to a peer is, only the aggregator sees, so that the medians
/// over the peers are watched in their place; and latency is judged by the aggregator against its level at this hour.
fn is_watched(key: &SeriesKey) -> bool {
    !key.is_of_peer() && *key != SeriesKey::node(Metric::ProbeLatency)
}

/// Whether both are the same run of the same guest: a restart, or another guest under the same vmid, is not.
fn same_life(old: &GuestFacts, new: &GuestFacts) -> bool {
    old.vmid == new.vmid && old.kind == new.kind && old.started_at == new.started_at
}

fn stamped(kinds: Vec<EventKind>, at: Timestamp, uptime: Duration) -> Vec<AgentEvent> {
    let uptime_ms = u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX);
    kinds.into_iter().map(|kind| AgentEvent { at, uptime_ms, kind }).collect()
}

#[cfg(test)]
mod tests;
