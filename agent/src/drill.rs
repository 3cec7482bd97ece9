//! Fault drills: distorts readings as ordered, before anything sees them, and says so beside them.
//!
//! Done only where the agent's own configuration allows it, and never longer than that configuration says, by the boot
//! clock of this node: an aggregator that is gone, wrong or not ours can not keep a drill going. While one is under way
//! every tick carries [`Metric::DrillActive`], which goes the way of all samples, so that whoever sees a distorted
//! value, at once or from the store years later, sees the mark beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_common::drill::{Drill, DrillKind, LONGEST_MS};
use evenkeel_common::event::EventKind;
use evenkeel_common::sample::{Metric, SeriesId, SeriesKey, Subject};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::collect::source::{Reading, Registry};

/// Most drills at once.
const MOST: usize = 16;
const GIB: f64 = 1_073_741_824.0;

/// Whether readings of this node may be distorted for drills.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DrillConfig {
    /// Whether operators may order fault drills on this node with `evenkeelctl simulate`. While one is under way, what
    /// this node reports is partly made up: it is marked, and the node takes no part in decisions.
    pub allowed: bool,
    /// Longest drill in seconds. A longer one is ended by this agent at that time.
    #[schemars(range(min = 10, max = 3600))]
    pub max_s: u32,
}

impl Default for DrillConfig {
    fn default() -> Self {
        Self { allowed: false, max_s: 3600 }
    }
}

/// A drill as ordered: what, and the uptime at which it ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Ordered {
    /// What.
    pub drill: Drill,
    /// Uptime of this node at its end.
    pub until: Duration,
}

/// The drills of this node.
#[derive(Debug)]
pub struct Drills {
    config: DrillConfig,
    /// All that the aggregator orders, also those refused or over, so that none begins twice.
    known: BTreeMap<String, Known>,
    mark: Option<SeriesId>,
}

#[derive(Debug)]
struct Known {
    drill: Drill,
    until: Duration,
    active: bool,
}

impl Drills {
    /// None so far.
    #[must_use]
    pub fn new(config: DrillConfig) -> Self {
        Self { config, known: BTreeMap::new(), mark: None }
    }

    /// Takes over what is ordered now: all of it. What is in it no more has ended.
    pub fn order(&mut self, ordered: &[Ordered], now: Duration, registry: &mut Registry) -> Vec<EventKind> {
        let mut told = Vec::new();
        self.known.retain(|id, known| {
            let stays = ordered.iter().any(|ordered| ordered.drill.id == *id);
            if !stays && known.active {
                told.push(EventKind::DrillEnded { id: id.clone(), cleared: true });
            }
            stays
        });
        for Ordered { drill, until } in ordered.iter().take(MOST) {
            if let Some(known) = self.known.get_mut(&drill.id) {
                // Told again after a reconnection: it may end sooner, never later.
                known.until = known.until.min(*until);
                continue;
            }
            let longest =
                Duration::from_secs(self.config.max_s.into()).min(Duration::from_millis(LONGEST_MS));
            let until = (*until).min(now.saturating_add(longest));
            let refused = self.refusal(drill, registry);
            told.push(match &refused {
                Some(why) => EventKind::DrillRefused { id: drill.id.clone(), why: why.clone() },
                None => {
                    let ms = u64::try_from(until.saturating_sub(now).as_millis()).unwrap_or(LONGEST_MS);
                    EventKind::DrillStarted(Drill { ms, ..drill.clone() })
                }
            });
            let known = Known { drill: drill.clone(), until, active: refused.is_none() };
            self.known.insert(drill.id.clone(), known);
        }
        told
    }

    fn refusal(&mut self, drill: &Drill, registry: &mut Registry) -> Option<String> {
        if !self.config.allowed {
            return Some(
                "this agent's configuration does not allow drills: set drills.allowed = true".into(),
            );
        }
        // What is left of its time may be below a second; the rest must be as ordered.
        if let Err(error) = (Drill { ms: drill.ms.max(1000), ..drill.clone() }).check() {
            return Some(error.to_string());
        }
        self.mark = self.mark.or_else(|| registry.intern(&SeriesKey::node(Metric::DrillActive)));
        let unmarked = self.mark.is_none();
        unmarked.then(|| "max_series is reached, so that the drill could not be marked: raise it".into())
    }

    /// Ends what is due.
    pub fn expire(&mut self, now: Duration) -> Vec<EventKind> {
        let due = self.known.iter_mut().filter(|(_, known)| known.active && now >= known.until);
        due.map(|(id, known)| {
            known.active = false;
            EventKind::DrillEnded { id: id.clone(), cleared: false }
        })
        .collect()
    }

    /// Distorts a reading and returns the series that are not what was read. `memory`: of the node, in bytes.
    pub fn distort(&self, reading: &mut Reading, registry: &Registry, memory: f64) -> BTreeSet<SeriesId> {
        let mut touched = BTreeSet::new();
        for drill in self.known.values().filter(|known| known.active).map(|known| &known.drill) {
            for (id, value) in &mut reading.tick.values {
                let Some(key) = registry.key(*id) else { continue };
                if let Some(distorted) = distorted(drill, key, *value, memory) {
                    *value = distorted;
                    touched.insert(*id);
                }
            }
        }
        touched
    }

    /// Puts the mark beside the values. After the watcher has seen them: a mark is no anomaly.
    pub fn mark(&self, reading: &mut Reading) {
        let active = self.known.values().filter(|known| known.active).count();
        if let Some(id) = self.mark.filter(|_| active > 0) {
            reading.tick.values.push((id, active as f64));
            reading.tick.values.sort_unstable_by_key(|(id, _)| *id);
        }
    }
}

/// The value of a series under a drill; `None` where the drill does not touch it.
fn distorted(drill: &Drill, key: &SeriesKey, value: f64, memory: f64) -> Option<f64> {
    use Metric as M;
    let subject = drill.guest.map_or(Subject::Node, Subject::Guest);
    if key.subject != subject {
        return None;
    }
    let more = drill.amount;
    Some(match (drill.kind, key.metric) {
        (DrillKind::Delay, M::ProbeLatency | M::DiskAwait)
        | (DrillKind::Error, M::NetErrors | M::NetDrops)
        | (DrillKind::Cpu, M::GuestCpu) => value + more,
        (DrillKind::Error, M::ProbeLoss) | (DrillKind::Cpu, M::CpuUsed) | (DrillKind::Memory, M::MemUsed) => {
            (value + more).min(100.0)
        }
        (DrillKind::Memory, M::MemUsedBytes) => (value + more / 100.0 * memory).min(memory.max(value)),
        (DrillKind::Memory, M::GuestMem) => value + more * GIB,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::guest::{GuestFacts, GuestKind};
    use evenkeel_common::id::Vmid;
    use evenkeel_common::sample::Tick;
    use evenkeel_common::time::Timestamp;
    use evenkeel_detect::config::WatchConfig;

    use crate::watch::Watcher;

    fn drill(id: &str, kind: DrillKind, guest: Option<u32>, amount: f64) -> Drill {
        let guest = guest.map(|vmid| Vmid::new(vmid).unwrap());
        Drill { id: id.into(), kind, guest, amount, ms: 600_000 }
    }

    fn ordered(drill: &Drill, until_s: u64) -> Ordered {
        Ordered { drill: drill.clone(), until: Duration::from_secs(until_s) }
    }

    fn allowed() -> Drills {
        Drills::new(DrillConfig { allowed: true, max_s: 600 })
    }

    fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn each_kind_touches_its_series_and_no_others() {
        let guest = Vmid::new(100).unwrap();
        let mut registry = Registry::new(100);
        let keys: Vec<SeriesKey> = Metric::ALL
            .iter()
            .map(|&m| if m.of_guest() { SeriesKey::guest(guest, m) } else { SeriesKey::node(m) })
            .collect();
        let values: Vec<_> = keys.iter().map(|key| (registry.intern(key).unwrap(), 50.0)).collect();
        let other = registry.intern(&SeriesKey::guest(Vmid::new(101).unwrap(), Metric::GuestCpu)).unwrap();
        let mut check = |kind, guest: Option<u32>, amount, wanted: &[(Metric, f64)]| {
            let mut drills = allowed();
            let told = drills.order(&[ordered(&drill("1", kind, guest, amount), 100)], s(10), &mut registry);
            assert!(matches!(told[..], [EventKind::DrillStarted(_)]), "{told:?}");
            let mut values = values.clone();
            values.push((other, 50.0));
            let tick = Tick { at: Default::default(), uptime: s(11), values };
            let mut reading = Reading { tick, guests: None, faults: Vec::new() };
            let touched = drills.distort(&mut reading, &registry, 1000.0);
            let found: Vec<(Metric, f64)> = reading
                .tick
                .values
                .iter()
                .filter(|(id, _)| touched.contains(id))
                .map(|&(id, value)| (registry.key(id).unwrap().metric, value))
                .collect();
            assert_eq!(found, wanted, "{kind}");
            let changed = reading.tick.values.iter().filter(|(_, value)| *value != 50.0).count();
            assert_eq!(changed, wanted.len(), "{kind}");
        };
        check(DrillKind::Delay, None, 20.0, &[(Metric::DiskAwait, 70.0), (Metric::ProbeLatency, 70.0)]);
        check(
            DrillKind::Error,
            None,
            60.0,
            &[(Metric::NetErrors, 110.0), (Metric::NetDrops, 110.0), (Metric::ProbeLoss, 100.0)],
        );
        check(DrillKind::Cpu, None, 80.0, &[(Metric::CpuUsed, 100.0)]);
        check(DrillKind::Cpu, Some(100), 2.0, &[(Metric::GuestCpu, 52.0)]);
        check(DrillKind::Memory, None, 10.0, &[(Metric::MemUsed, 60.0), (Metric::MemUsedBytes, 150.0)]);
        check(DrillKind::Memory, Some(100), 1.0, &[(Metric::GuestMem, 50.0 + GIB)]);
    }

    #[test]
    fn it_ends_by_itself_when_cleared_and_never_begins_twice() {
        let mut registry = Registry::new(100);
        let mut drills = allowed();
        let (one, two) = (drill("1", DrillKind::Cpu, None, 10.0), drill("2", DrillKind::Memory, None, 10.0));
        // An hour is ordered, the configuration allows ten minutes.
        let told = drills.order(&[ordered(&one, 3610), ordered(&two, 3610)], s(10), &mut registry);
        let [EventKind::DrillStarted(first), EventKind::DrillStarted(_)] = &told[..] else {
            panic!("{told:?}")
        };
        assert_eq!(first.ms, 600_000);
        assert_eq!(drills.order(&[ordered(&one, 9999), ordered(&two, 9999)], s(300), &mut registry), []);
        let cleared = drills.order(&[ordered(&one, 9999)], s(400), &mut registry);
        assert_eq!(cleared, [EventKind::DrillEnded { id: "2".into(), cleared: true }]);
        assert_eq!(drills.expire(s(609)), []);
        let ended = [EventKind::DrillEnded { id: "1".into(), cleared: false }];
        assert_eq!((drills.expire(s(610)), drills.expire(s(611))), (ended.into(), vec![]));
        assert_eq!(drills.order(&[ordered(&one, 9999)], s(700), &mut registry), [], "over is over");
        assert_eq!(drills.order(&[], s(800), &mut registry), []);
    }

    #[test]
    fn a_drill_is_seen_marked_and_leaves_no_trace_in_what_was_learned() {
        let guest = Vmid::new(100).unwrap();
        let mut registry = Registry::new(100);
        let keys = [SeriesKey::node(Metric::CpuUsed), SeriesKey::guest(guest, Metric::GuestCpu)];
        let ids: Vec<SeriesId> = keys.iter().map(|key| registry.intern(key).unwrap()).collect();
        let mut watcher = Watcher::new(WatchConfig::default(), s(1));
        let mut drills = allowed();
        let facts = GuestFacts {
            vmid: guest,
            kind: GuestKind::Qemu,
            name: None,
            vcpus: None,
            memory_max: None,
            tags: Vec::new(),
            started_at: Timestamp::default(),
        };
        let tick = |drills: &Drills, watcher: &mut Watcher, second: u64| {
            let noise = (second * 7 % 5) as f64 * 0.2;
            let values = vec![(ids[0], 10.0 + noise), (ids[1], 1.0 + noise / 10.0)];
            let tick = Tick { at: Timestamp::default().after(s(second)), uptime: s(second), values };
            let guests = (second == 0).then(|| vec![facts.clone()]);
            let mut reading = Reading { tick, guests, faults: Vec::new() };
            let injected = drills.distort(&mut reading, &registry, 0.0);
            let told = watcher.observe(&reading, &registry, &injected, &mut || second);
            drills.mark(&mut reading);
            assert_eq!(reading.tick.values.len() - 2, usize::from(!injected.is_empty()), "the mark");
            told.into_iter().map(|event| event.kind).collect::<Vec<_>>()
        };
        (0..900).for_each(|second| drop(tick(&drills, &mut watcher, second)));
        let learned = |watcher: &Watcher| {
            ids.iter().map(|id| watcher.learned(*id).unwrap().1.clone()).collect::<Vec<_>>()
        };
        let (before, profile) = (learned(&watcher), watcher.profiles());
        let both = [drill("1", DrillKind::Cpu, None, 60.0), drill("2", DrillKind::Cpu, Some(100), 20.0)];
        let mut other = Registry::new(100);
        drills.order(&both.map(|drill| ordered(&drill, 1200)), s(900), &mut other);
        drills.mark = Some(SeriesId(77));
        let told: Vec<_> = (900..1200).flat_map(|second| tick(&drills, &mut watcher, second)).collect();
        let opened: Vec<_> = told.iter().filter(|kind| matches!(kind, EventKind::AnomalyOpened(_))).collect();
        assert!(!opened.is_empty(), "{told:?}");
        assert_eq!((learned(&watcher), &watcher.profiles()[0].cpu), (before, &profile[0].cpu));
        assert_eq!(drills.expire(s(1200)).len(), 2);
        let after: Vec<_> = (1200..1300).flat_map(|second| tick(&drills, &mut watcher, second)).collect();
        for kind in told.iter().chain(&after) {
            if let EventKind::AnomalyOpened(anomaly) | EventKind::AnomalyClosed(anomaly) = kind {
                assert!(anomaly.injected, "{anomaly:?}");
            }
        }
        let closed = |kinds: &[EventKind]| {
            kinds.iter().filter(|kind| matches!(kind, EventKind::AnomalyClosed(_))).count()
        };
        assert_eq!(closed(&told) + closed(&after), opened.len(), "what the drill opened, its end closes");
    }

    #[test]
    fn what_is_not_allowed_possible_or_markable_is_refused_with_the_reason() {
        let refused = |config: DrillConfig, drill: &Drill, limit| {
            let mut registry = Registry::new(limit);
            let mut drills = Drills::new(config);
            let told = drills.order(&[ordered(drill, 100)], s(10), &mut registry);
            let [EventKind::DrillRefused { why, .. }] = &told[..] else { panic!("{told:?}") };
            assert!(drills.known.values().all(|known| !known.active));
            why.clone()
        };
        let cpu = drill("1", DrillKind::Cpu, None, 10.0);
        assert!(refused(DrillConfig::default(), &cpu, 9).contains("drills.allowed = true"));
        let config = DrillConfig { allowed: true, max_s: 60 };
        assert!(refused(config.clone(), &cpu, 0).contains("max_series"));
        let endless = Drill { amount: f64::INFINITY, ..cpu };
        assert!(refused(config, &endless, 9).contains("amount"));
    }
}
