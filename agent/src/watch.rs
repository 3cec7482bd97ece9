//! Watches what the collectors read, and says what happened: anomalies, guests that come and go, collectors
//! that fail, clocks that jump. The detectors themselves live in `evenkeel-detect`; every series has one watch.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use evenkeel_common::anomaly::{Anomaly, Vote};
use evenkeel_common::event::{AgentEvent, EventKind};
use evenkeel_common::guest::{GuestFacts, GuestProfile};
use evenkeel_common::id::Vmid;
use evenkeel_common::sample::{Metric, SeriesId, SeriesKey, Subject};
use evenkeel_common::time::Timestamp;
use evenkeel_detect::config::WatchConfig;
use evenkeel_detect::profile::GuestProfiler;
use evenkeel_detect::watch::{AnomalyState, SeriesWatch, Transition};

use crate::collect::source::{Fault, Reading, Registry};

/// A wall clock that moves by more than this against the boot clock has jumped.
const CLOCK_JUMP_MS: i64 = 2000;
/// Ticks between two looks for series that have ended or gone silent.
const SWEEP_TICKS: u64 = 30;
/// Longest message and collector name told.
const MAX_MESSAGE_CHARS: usize = 1024;

/// CPU and memory of a guest not read; the profiler leaves out what is not a number.
const NO_USAGE: (f64, f64) = (f64::NAN, f64::NAN);

/// One watched series.
#[derive(Debug)]
struct Watched {
    key: SeriesKey,
    watch: SeriesWatch,
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
        }
    }

    /// Takes a reading and returns what happened, in order. `number` gives each new anomaly its number.
    pub fn observe(
        &mut self,
        reading: &Reading,
        registry: &Registry,
        number: &mut dyn FnMut() -> u64,
    ) -> Vec<AgentEvent> {
        self.ticks += 1;
        let mut kinds = Vec::new();
        self.clock(reading, &mut kinds);
        self.faults(&reading.faults, &mut kinds);
        if let Some(guests) = &reading.guests {
            self.guests(guests, &mut kinds);
        }
        self.samples(reading, registry, number, &mut kinds);
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

    /// Ticks come at another interval from now on. Baselines are of the old one: all watches begin anew.
    pub fn set_interval(&mut self, interval: Duration, at: Timestamp, uptime: Duration) -> Vec<AgentEvent> {
        self.interval = interval;
        self.close(at, uptime)
    }

    /// Closes every open anomaly: nobody watches them from here on.
    pub fn close(&mut self, at: Timestamp, uptime: Duration) -> Vec<AgentEvent> {
        let closed = self.series.drain().filter_map(|(_, watched)| watched.closing(at)).collect();
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
            let profile = self.guests.remove(&vmid).and_then(|guest| guest.profile()).map(Box::new);
            kinds.push(EventKind::GuestVanished { vmid, profile });
        }
        for facts in now {
            match self.guests.get_mut(&facts.vmid) {
                None => {
                    let guest = Guest { facts: facts.clone(), profiler: GuestProfiler::default() };
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
        number: &mut dyn FnMut() -> u64,
        kinds: &mut Vec<EventKind>,
    ) {
        let at = reading.tick.at;
        let mut usage: BTreeMap<Vmid, (f64, f64)> = BTreeMap::new();
        for &(id, value) in &reading.tick.values {
            if !self.series.contains_key(&id) {
                let Some(key) = registry.key(id) else { continue };
                let watch = SeriesWatch::new(key.metric, self.interval, self.config);
                self.series.insert(id, Watched { key: key.clone(), watch, open: 0, seen: 0 });
            }
            let Some(watched) = self.series.get_mut(&id) else { continue };
            watched.seen = self.ticks;
            match (watched.key.subject, watched.key.metric) {
                (Subject::Guest(vmid), Metric::GuestCpu) => usage.entry(vmid).or_insert(NO_USAGE).0 = value,
                (Subject::Guest(vmid), Metric::GuestMem) => usage.entry(vmid).or_insert(NO_USAGE).1 = value,
                _ => {}
            }
            if let Some(transition) = watched.watch.observe(at, value) {
                kinds.push(watched.told(transition, number));
            }
        }
        for (vmid, (cpu, memory)) in usage {
            if let Some(guest) = self.guests.get_mut(&vmid) {
                guest.profiler.observe(at, cpu, memory);
            }
        }
    }

    /// Forgets series that have ended; tells silent ones the time.
    fn sweep(&mut self, at: Timestamp, registry: &Registry, kinds: &mut Vec<EventKind>) {
        let ticks = self.ticks;
        self.series.retain(|id, watched| {
            if registry.key(*id).is_none() {
                kinds.extend(watched.closing(at));
                return false;
            }
            if watched.seen < ticks
                && let Some(Transition::Closed(state)) = watched.watch.silence(at)
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
            injected: false,
        }
    }

    /// The closing of the open anomaly, as the watch ends with it.
    fn closing(&self, at: Timestamp) -> Option<EventKind> {
        let state = AnomalyState { closed_at: Some(at), ..self.watch.open()?.clone() };
        Some(EventKind::AnomalyClosed(self.anomaly(state)))
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

/// Whether both are the same run of the same guest: a restart, or another guest under the same vmid, is not.
fn same_life(old: &GuestFacts, new: &GuestFacts) -> bool {
    old.vmid == new.vmid && old.kind == new.kind && old.started_at == new.started_at
}

fn stamped(kinds: Vec<EventKind>, at: Timestamp, uptime: Duration) -> Vec<AgentEvent> {
    let uptime_ms = u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX);
    kinds.into_iter().map(|kind| AgentEvent { at, uptime_ms, kind }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::guest::GuestKind;
    use evenkeel_common::sample::Tick;

    const INTERVAL: Duration = Duration::from_secs(1);

    fn vmid(number: u32) -> Vmid {
        Vmid::new(number).unwrap()
    }

    fn guest(number: u32, started_s: i64) -> GuestFacts {
        GuestFacts {
            vmid: vmid(number),
            kind: GuestKind::Qemu,
            name: None,
            vcpus: Some(2.0),
            memory_max: None,
            tags: Vec::new(),
            started_at: Timestamp::from_millis(started_s * 1000),
        }
    }

    fn reading(second: u64, values: Vec<(SeriesId, f64)>) -> Reading {
        let uptime = Duration::from_secs(second);
        let tick = Tick { at: Timestamp::from_millis(1_000_000).after(uptime), uptime, values };
        Reading { tick, guests: None, faults: Vec::new() }
    }

    fn kinds(watcher: &mut Watcher, reading: &Reading, registry: &Registry) -> Vec<EventKind> {
        watcher.observe(reading, registry, &mut || 7).into_iter().map(|event| event.kind).collect()
    }

    #[test]
    fn guests_appear_change_restart_and_vanish_with_their_profile() {
        let mut registry = Registry::new(100);
        let cpu = registry.intern(&SeriesKey::guest(vmid(100), Metric::GuestCpu)).unwrap();
        let mut watcher = Watcher::new(WatchConfig::default(), INTERVAL);
        let mut look = |second, guests: Option<Vec<GuestFacts>>| {
            let reading = Reading { guests, ..reading(second, vec![(cpu, 1.0)]) };
            kinds(&mut watcher, &reading, &registry)
        };
        let first = look(1, Some(vec![guest(100, 5), guest(101, 5)]));
        assert_eq!(first, [EventKind::GuestAppeared(guest(100, 5)), EventKind::GuestAppeared(guest(101, 5))]);
        assert_eq!(look(2, None), []);
        assert_eq!(look(3, Some(vec![guest(100, 5), guest(101, 5)])), []);
        let renamed = GuestFacts { name: Some("web".into()), ..guest(100, 5) };
        assert_eq!(look(4, Some(vec![renamed.clone(), guest(101, 5)])), [EventKind::GuestChanged(renamed)]);
        let restarted = look(5, Some(vec![guest(100, 9)]));
        let [EventKind::GuestVanished { vmid: gone, profile: Some(profile) }, other, appeared] =
            &restarted[..]
        else {
            panic!("{restarted:?}");
        };
        assert_eq!((*gone, profile.vmid), (vmid(100), vmid(100)));
        assert_eq!(*other, EventKind::GuestVanished { vmid: vmid(101), profile: None });
        assert_eq!(*appeared, EventKind::GuestAppeared(guest(100, 9)));
    }

    #[test]
    fn a_failing_collector_is_told_once_and_so_is_its_recovery() {
        let registry = Registry::new(100);
        let mut watcher = Watcher::new(WatchConfig::default(), INTERVAL);
        let mut look = |second, faults: &[&'static str]| {
            let faults =
                faults.iter().map(|&collector| Fault { collector, message: "m".repeat(2000) }).collect();
            kinds(&mut watcher, &Reading { faults, ..reading(second, Vec::new()) }, &registry)
        };
        let failed = |collector: &str| EventKind::CollectorFailed {
            collector: collector.into(),
            message: "m".repeat(MAX_MESSAGE_CHARS),
        };
        assert_eq!(look(1, &["zfs", "zfs"]), [failed("zfs")]);
        assert_eq!(look(2, &["zfs", "net"]), [failed("net")]);
        assert_eq!(look(3, &["net"]), [EventKind::CollectorRecovered { collector: "zfs".into() }]);
        assert_eq!(look(4, &["net"]), []);
    }

    #[test]
    fn a_jump_of_the_wall_clock_is_told_both_ways_and_a_late_tick_is_not_one() {
        let registry = Registry::new(100);
        let mut watcher = Watcher::new(WatchConfig::default(), INTERVAL);
        let mut look = |uptime_s: u64, wall_ms: i64| {
            let mut reading = reading(uptime_s, Vec::new());
            reading.tick.at = Timestamp::from_millis(wall_ms);
            kinds(&mut watcher, &reading, &registry)
        };
        assert_eq!(look(10, 10_000), []);
        assert_eq!(look(40, 40_000), []);
        assert_eq!(look(41, 42_900), []);
        assert_eq!(look(42, 50_000), [EventKind::ClockJumped { by_ms: 6100 }]);
        assert_eq!(look(43, 1_000), [EventKind::ClockJumped { by_ms: -50_000 }]);
    }

    #[test]
    fn an_anomaly_of_a_series_that_ends_is_closed_with_its_number() {
        let mut registry = Registry::new(100);
        let id = registry.intern(&SeriesKey::node(Metric::CpuUsed)).unwrap();
        let mut watcher = Watcher::new(WatchConfig::default(), INTERVAL);
        let mut told = Vec::new();
        for second in 1..2000 {
            let value = if second < 1800 { 10.0 } else { 95.0 } + (second % 7) as f64 * 0.1;
            told.extend(kinds(&mut watcher, &reading(second, vec![(id, value)]), &registry));
        }
        let [EventKind::AnomalyOpened(opened)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((opened.number, opened.closed_at), (7, None));
        registry.retire(id);
        let ended: Vec<_> =
            (2000..2100).flat_map(|s| kinds(&mut watcher, &reading(s, Vec::new()), &registry)).collect();
        let [EventKind::AnomalyClosed(closed)] = &ended[..] else { panic!("{ended:?}") };
        assert_eq!((closed.number, &closed.series), (7, &opened.series));
        assert!(closed.closed_at.is_some());
    }
}
