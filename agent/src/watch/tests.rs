//! What the watcher tells of readings.

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
    watcher
        .observe(reading, registry, &BTreeSet::new(), &mut || 7)
        .into_iter()
        .map(|event| event.kind)
        .collect()
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
    let [EventKind::GuestVanished { vmid: gone, profile: Some(profile), .. }, other, appeared] =
        &restarted[..]
    else {
        panic!("{restarted:?}");
    };
    assert_eq!((*gone, profile.vmid), (vmid(100), vmid(100)));
    assert_eq!(*other, EventKind::GuestVanished { vmid: vmid(101), profile: None, history: None });
    assert_eq!(*appeared, EventKind::GuestAppeared(guest(100, 9)));
}

#[test]
fn a_failing_collector_is_told_once_and_so_is_its_recovery() {
    let registry = Registry::new(100);
    let mut watcher = Watcher::new(WatchConfig::default(), INTERVAL);
    let mut look = |second, faults: &[&'static str]| {
        let faults = faults.iter().map(|&collector| Fault { collector, message: "m".repeat(2000) }).collect();
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

#[test]
fn the_past_of_a_guest_is_added_once_and_only_to_the_life_it_is_meant_for() {
    let mut registry = Registry::new(100);
    let cpu = registry.intern(&SeriesKey::guest(vmid(100), Metric::GuestCpu)).unwrap();
    let mut watcher = Watcher::new(WatchConfig::default(), INTERVAL);
    let mut past = GuestProfiler::default();
    (0..900).for_each(|second| past.observe(Timestamp::from_millis(second * 1000), 3.0, 1e9));
    let (bytes, now) = (past.to_bytes().unwrap(), reading(10, Vec::new()).tick.at);
    let life = guest(100, 5).started_at;
    assert_eq!(watcher.learn(vmid(100), life, &bytes, now), Ok(false), "it does not run here");
    for second in 1..10 {
        let reading = Reading { guests: Some(vec![guest(100, 5)]), ..reading(second, vec![(cpu, 1.0)]) };
        kinds(&mut watcher, &reading, &registry);
    }
    let observed = |watcher: &Watcher| watcher.profiles()[0].observed_s;
    assert_eq!(watcher.learn(vmid(100), Timestamp::default(), &bytes, now), Ok(false), "another life");
    let mut wrong = bytes.clone();
    wrong[20] ^= 1;
    assert_eq!(watcher.learn(vmid(100), life, &wrong, now), Err(HistoryError::Damaged));
    assert_eq!(observed(&watcher), 8);
    assert_eq!(watcher.learn(vmid(100), life, &bytes, now), Ok(true));
    assert_eq!(watcher.learn(vmid(100), life, &bytes, now), Ok(false), "once");
    assert_eq!(observed(&watcher), 899 + 8);
    // What it tells of it, now and when the guest leaves, is the whole.
    let [(told, started_at, whole)] = &watcher.histories()[..] else { panic!("one guest") };
    assert_eq!((*told, *started_at), (vmid(100), life));
    let gone = kinds(&mut watcher, &Reading { guests: Some(vec![]), ..reading(10, vec![]) }, &registry);
    let [EventKind::GuestVanished { history: Some(history), .. }] = &gone[..] else { panic!("{gone:?}") };
    assert_eq!(history, whole);
    assert_eq!(GuestProfiler::from_bytes(history, now).unwrap().pieces().len(), 2);
}
