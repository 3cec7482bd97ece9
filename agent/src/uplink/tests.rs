//! The uplink against an aggregator that acknowledges, withholds, cuts and comes back.

mod aggregator;

use std::time::Duration;

use aggregator::{FakeAggregator, Faults};
use evenkeel_common::event::{AgentEvent, EventKind};
use evenkeel_common::guest::{GuestFacts, GuestKind, GuestProfile, ProfileClass, UsageSummary};
use evenkeel_common::id::Vmid;
use evenkeel_common::node::NodeFacts;
use evenkeel_common::sample::{Metric, SeriesId, SeriesKey, Tick};
use evenkeel_common::time::Timestamp;
use evenkeel_runtime::clock::VirtualClock;
use evenkeel_runtime::random::SeededEntropy;
use tempfile::TempDir;

use super::*;
use crate::spool::Spool;

const START: i64 = 1_700_000_000_000;
const SERIES: u32 = 12;

/// An agent without collectors: the test feeds its lanes.
struct Node {
    lanes: SharedLanes,
    clock: VirtualClock,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    second: u64,
    events: i64,
}

impl Node {
    fn start(folder: &TempDir, clock: &VirtualClock, target: Target, memory_ticks: usize) -> Self {
        let spool = Spool::open(folder.path(), 64 << 20, 8 << 20, [1; 16]).unwrap();
        let lanes = SharedLanes::new(Lanes::new(spool, memory_ticks, NodeFacts::default()));
        let stop = CancellationToken::new();
        let entropy = Arc::new(SeededEntropy::new(7));
        let task = tokio::spawn(run(target, lanes.clone(), Arc::new(clock.clone()), entropy, stop.clone()));
        let second = clock.uptime().as_secs();
        Self { lanes, clock: clock.clone(), stop, task, second, events: 0 }
    }

    /// One second passes: a tick is read. Series come and go; values tell second and series.
    async fn tick(&mut self) {
        let second = self.clock.uptime().as_secs() + 1;
        self.clock.advance(Duration::from_secs(second) - self.clock.uptime());
        self.second = second;
        let values = series_at(second).map(|series| (SeriesId(series), value_of(second, series))).collect();
        let at = Timestamp::from_millis(START).after(self.clock.uptime());
        let tick = Tick { at, uptime: self.clock.uptime(), values };
        self.lanes.update(|lanes| lanes.push_tick(&tick, |id| Some(key_of(id.0))));
        // Lets the stream's task and the aggregator run.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    fn event(&mut self) {
        self.events += 1;
        let kind = EventKind::ClockJumped { by_ms: self.events };
        let event = AgentEvent { at: Timestamp::from_millis(START), uptime_ms: self.second * 1000, kind };
        self.lanes.update(|lanes| lanes.emit([event]));
    }

    /// Waits, while virtual time passes so that retries are due.
    async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        for _ in 0..20_000 {
            if condition() {
                return;
            }
            self.clock.advance(Duration::from_millis(20));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("never happened: {what}");
    }

    /// A kill: nothing is written at the end.
    async fn kill(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        self.lanes.close();
    }
}

fn key_of(series: u32) -> SeriesKey {
    SeriesKey::device(Metric::NetRxPackets, series.to_string())
}

/// Each tenth second a series is missing, and from the hundredth on there is one more.
fn series_at(second: u64) -> impl Iterator<Item = u32> {
    let more = u32::from(second >= 100);
    (0..SERIES + more).filter(move |series| !(second + u64::from(*series)).is_multiple_of(10))
}

fn value_of(second: u64, series: u32) -> f64 {
    ((second * 31 + u64::from(series) * 1000) % 977) as f64
}

/// Everything that the aggregator has must be what was read, and what it lacks must have been declared lost.
fn assert_exact(aggregator: &FakeAggregator, epoch: [u8; 16], events: i64) {
    let state = aggregator.state();
    let epoch = &state.epochs[&epoch.to_vec()];
    assert_eq!(state.violations, Vec::<String>::new());
    let told: Vec<i64> = epoch.events.values().map(aggregator::clock_jump).collect();
    assert_eq!(told, (1..=events).collect::<Vec<_>>(), "every event once, in order");
    for (seq, tick) in &epoch.ticks {
        let second = tick.uptime_ms / 1000;
        let expected: Vec<_> =
            series_at(second).map(|series| (key_of(series), value_of(second, series) as i64)).collect();
        let mut told = tick.values.clone();
        told.sort_by_key(|(key, _)| key.instance.parse::<u32>().unwrap());
        assert_eq!(told, expected, "tick {seq}");
    }
}

fn new_clock() -> VirtualClock {
    VirtualClock::new(Timestamp::from_millis(START))
}

#[tokio::test]
async fn in_the_steady_state_every_tick_goes_out_at_once_as_a_delta() {
    let aggregator = FakeAggregator::start().await;
    let (folder, clock) = (tempfile::tempdir().unwrap(), new_clock());
    let mut node = Node::start(&folder, &clock, aggregator.target(), 180);
    node.until("connected", || aggregator.state().connections == 1).await;
    for second in 1..=150 {
        if second % 10 == 0 {
            node.event();
        }
        node.tick().await;
        node.until("the tick has arrived", || aggregator.state().cursor(1).1 == second).await;
    }
    node.until("events", || aggregator.state().cursor(1).0 == 15).await;
    assert_exact(&aggregator, [1; 16], 15);
    {
        let state = aggregator.state();
        assert_eq!((state.connections, state.live_views, state.keyframes), (1, 0, 1));
        assert!(state.clock_probes > 5);
    }
    let lanes = &node.lanes;
    node.until("acknowledged ticks are freed", || lanes.lock().ticks_in_memory() <= 60).await;
    node.end().await;
}

#[tokio::test]
async fn streams_cut_at_any_message_and_lost_acks_lose_and_double_nothing() {
    for cut_after in [3, 8, 13] {
        let aggregator = FakeAggregator::start().await;
        aggregator.set(Faults { cut_after: Some(cut_after), drop_acks: 2, ..Faults::default() });
        let (folder, clock) = (tempfile::tempdir().unwrap(), new_clock());
        let mut node = Node::start(&folder, &clock, aggregator.target(), 60);
        for _ in 0..100 {
            node.event();
            node.tick().await;
        }
        aggregator.set(Faults::default());
        node.until("everything is there", || aggregator.state().cursor(1) == (100, 100)).await;
        assert_exact(&aggregator, [1; 16], 100);
        {
            let state = aggregator.state();
            assert!(state.connections > 3, "{} connections", state.connections);
            assert_eq!(state.epochs[&vec![1; 16]].ticks.len(), 100, "no hole");
        }
        node.end().await;
    }
}

#[tokio::test]
async fn an_outage_is_replayed_without_a_hole_while_the_live_view_goes_on() {
    let mut aggregator = FakeAggregator::start().await;
    let (folder, clock) = (tempfile::tempdir().unwrap(), new_clock());
    let mut node = Node::start(&folder, &clock, aggregator.target(), 60);
    node.until("connected", || aggregator.state().connections == 1).await;
    for _ in 0..30 {
        node.tick().await;
    }
    aggregator.stop().await;
    for _ in 0..300 {
        node.event();
        node.tick().await;
        assert!(node.lanes.lock().ticks_in_memory() <= 60, "memory is bounded");
    }
    // It comes back, but is slow: little credit, and nothing is acknowledged at first.
    aggregator.set(Faults { credit: Some(45), withhold_acks: true, ..Faults::default() });
    aggregator.restart().await;
    let (before, lanes) = (aggregator.state().connections, node.lanes.clone());
    node.until("connected again", || aggregator.state().connections > before).await;
    for _ in 0..20 {
        node.tick().await;
        let newest = node.second;
        node.until("live view", || aggregator.state().live_uptime_ms == newest * 1000).await;
    }
    node.until("events do not wait for samples", || aggregator.state().cursor(1).0 == 300).await;
    {
        let state = aggregator.state();
        assert!(state.cursor(1).1 < 100, "credit holds back the replay: {}", state.cursor(1).1);
        assert!(state.unacked_backfill <= 45, "{} in flight", state.unacked_backfill);
    }
    aggregator.set(Faults { credit: Some(45), ..Faults::default() });
    aggregator.ack_now();
    node.until("replay is complete", || aggregator.state().cursor(1).1 == 350).await;
    node.tick().await;
    node.until("live again", || aggregator.state().cursor(1).1 == 351).await;
    assert_exact(&aggregator, [1; 16], 300);
    assert_eq!(aggregator.state().epochs[&vec![1; 16]].ticks.len(), 351);
    assert!(aggregator.state().epochs[&vec![1; 16]].lost.is_empty());
    assert!(aggregator.state().zstd_batches > 0);
    node.until("freed", || lanes.lock().ticks_in_memory() <= 60).await;
    node.end().await;
}

#[tokio::test]
async fn an_orderly_restart_loses_nothing_and_a_kill_only_what_was_in_memory() {
    let aggregator = FakeAggregator::start().await;
    let (folder, clock) = (tempfile::tempdir().unwrap(), new_clock());
    aggregator.set(Faults { withhold_acks: true, ..Faults::default() });
    let mut node = Node::start(&folder, &clock, aggregator.target(), 60);
    for _ in 0..100 {
        node.tick().await;
    }
    node.end().await;
    aggregator.set(Faults::default());

    let mut node = Node::start(&folder, &clock, aggregator.target(), 60);
    for _ in 0..10 {
        node.tick().await;
    }
    node.until("all", || aggregator.state().cursor(1).1 == 110).await;
    assert!(aggregator.state().epochs[&vec![1; 16]].lost.is_empty());

    // 170 more ticks that the aggregator does not get, 120 of them on disk by then; then a kill.
    aggregator.set(Faults { refuse: true, ..Faults::default() });
    node.until("cut off", || aggregator.state().streams == 0).await;
    for _ in 0..170 {
        node.tick().await;
    }
    let held = node.lanes.lock().ticks_in_memory() as u64;
    assert!(held <= 60);
    node.kill().await;

    aggregator.set(Faults::default());
    let mut node = Node::start(&folder, &clock, aggregator.target(), 60);
    for _ in 0..20 {
        node.tick().await;
    }
    let newest = node.lanes.lock().next_sample() - 1;
    node.until("all that is left", || aggregator.state().cursor(1).1 == newest).await;
    assert_exact(&aggregator, [1; 16], 0);
    {
        let state = aggregator.state();
        let epoch = &state.epochs[&vec![1; 16]];
        assert_eq!(epoch.ticks.len() as u64, 110 + 170 - held + 20, "only what was in memory is missing");
        let lost: u64 = epoch.lost.iter().map(|(from, to)| to - from + 1).sum();
        assert_eq!(epoch.ticks.len() as u64 + lost, newest, "every number is a tick or declared lost");
    }
    node.end().await;
}

#[tokio::test]
async fn a_spool_from_an_old_backup_begins_a_new_epoch() {
    let aggregator = FakeAggregator::start().await;
    let (folder, clock) = (tempfile::tempdir().unwrap(), new_clock());
    aggregator.pretend_cursor([1; 16], 500, 500);
    let mut node = Node::start(&folder, &clock, aggregator.target(), 60);
    node.event();
    for _ in 0..5 {
        node.tick().await;
    }
    let new_epoch = || aggregator.state().epochs.keys().find(|epoch| **epoch != vec![1; 16]).cloned();
    node.until("a new epoch", || new_epoch().is_some()).await;
    let epoch: [u8; 16] = new_epoch().unwrap().try_into().unwrap();
    node.until("everything told", || aggregator.state().epochs[&epoch.to_vec()].cursor() == (1, 5)).await;
    assert_exact(&aggregator, epoch, 1);
    node.end().await;
}

#[tokio::test]
async fn profiles_are_told_and_settings_are_taken_within_bounds() {
    let aggregator = FakeAggregator::start().await;
    aggregator.set(Faults { interval_ms: 5000, ..Faults::default() });
    let (folder, clock) = (tempfile::tempdir().unwrap(), new_clock());
    let node = Node::start(&folder, &clock, aggregator.target(), 60);
    let profile = |vmid| GuestProfile {
        vmid: Vmid::new(vmid).unwrap(),
        class: ProfileClass::Steady,
        observed_s: 1,
        cpu: UsageSummary::default(),
        memory: UsageSummary::default(),
        cpu_by_hour: vec![None; 24],
        outlook: None,
        pieces: vec![],
    };
    node.lanes.update(|lanes| lanes.report((100..350).map(profile)));
    node.until("all profiles", || aggregator.state().profiles == 250).await;
    assert_eq!(node.lanes.lock().settings().interval_ms, Some(5000));
    let wild = v1::Settings { interval_ms: 999, profile_interval_s: 9, ..v1::Settings::default() };
    assert_eq!(Settings::received(wild, Duration::ZERO), Settings::default());
    node.end().await;
}

#[tokio::test]
async fn histories_are_told_in_small_reports_and_taken_for_guests_that_run() {
    let aggregator = FakeAggregator::start().await;
    let (folder, clock) = (tempfile::tempdir().unwrap(), new_clock());
    let node = Node::start(&folder, &clock, aggregator.target(), 60);
    let started_at = Timestamp::from_millis(5000);
    let guest = |number| GuestFacts {
        vmid: Vmid::new(number).unwrap(),
        kind: GuestKind::Lxc,
        name: None,
        vcpus: None,
        memory_max: None,
        tags: vec![],
        started_at,
    };
    let histories = (100..120).map(|number| (Vmid::new(number).unwrap(), started_at, vec![7; 8192]));
    node.lanes.update(|lanes| {
        lanes.set_guests((100..120).map(guest).collect());
        lanes.report_histories(histories);
    });
    node.until("all histories", || aggregator.state().histories.len() == 20).await;
    assert!(aggregator.state().largest_report < 64 << 10, "{}", aggregator.state().largest_report);
    node.until("what it told", || node.lanes.peek(Lanes::has_arrived)).await;
    let arrived = node.lanes.update(Lanes::take_arrived);
    let (vmid, history) = arrived.first_key_value().unwrap();
    assert_eq!((vmid.get(), history), (100, &(started_at, vec![7; 8192])));
    let of = |vmid| v1::GuestHistory { vmid, history: vec![1], started_at_ms: 0 };
    node.lanes.update(|lanes| {
        lanes.take_arrived();
        [7, 99, 120].into_iter().for_each(|vmid| lanes.arrive(of(vmid)));
        assert!(!lanes.has_arrived(), "no such guest runs here");
        lanes.arrive(of(101));
        lanes.set_guests(vec![guest(100)]);
        assert!(!lanes.has_arrived(), "it does not run any more");
    });
    node.end().await;
}

#[tokio::test]
async fn an_aggregator_that_acknowledges_what_it_never_got_frees_nothing() {
    let aggregator = FakeAggregator::start().await;
    aggregator.set(Faults { wild_acks: true, ..Faults::default() });
    let (folder, clock) = (tempfile::tempdir().unwrap(), new_clock());
    let mut node = Node::start(&folder, &clock, aggregator.target(), 60);
    for _ in 0..40 {
        node.event();
        node.tick().await;
    }
    node.until("reconnects", || aggregator.state().connections > 1).await;
    aggregator.set(Faults::default());
    node.until("everything is there", || aggregator.state().cursor(1) == (40, 40)).await;
    assert_exact(&aggregator, [1; 16], 40);
    node.end().await;
}

#[tokio::test]
async fn mutual_tls_works_and_refusals_name_the_remedy() {
    let pki = aggregator::Pki::new();
    let aggregator = FakeAggregator::start_tls(&pki).await;
    let (folder, clock) = (tempfile::tempdir().unwrap(), new_clock());
    let good = pki.target(aggregator.port());
    let mut node = Node::start(&folder, &clock, good.clone(), 60);
    node.tick().await;
    node.until("the tick over TLS", || aggregator.state().cursor(1).1 == 1).await;
    node.end().await;

    let failure = |target: Target| {
        let folder = tempfile::tempdir().unwrap();
        let clock = clock.clone();
        async move {
            let spool = Spool::open(folder.path(), 64 << 20, 8 << 20, [2; 16]).unwrap();
            let lanes = SharedLanes::new(Lanes::new(spool, 60, NodeFacts::default()));
            let entropy = Arc::new(SeededEntropy::new(7));
            let uplink = Uplink { target, lanes, clock: Arc::new(clock), entropy };
            let failure = uplink.stream(&mut None).await.unwrap_err();
            (failure.is_refusal(), chain(&failure))
        }
    };
    let other = aggregator::Pki::new();
    let foreign_ca = Target { ca: other.target(1).ca, ..good.clone() };
    let (_, text) = failure(foreign_ca).await;
    assert!(text.contains("invalid peer certificate"), "{text}");
    let (_, text) = failure(Target { server_name: "other.example".into(), ..good.clone() }).await;
    assert!(text.contains("other.example"), "{text}");
    let foreign = Target { ca: good.ca.clone(), ..other.target(aggregator.port()) };
    let (_, text) = failure(foreign).await;
    assert!(text.contains("no connection") || text.contains("ended the stream"), "{text}");
    let (refused, text) = failure(Target { key: "/nowhere/agent.key".into(), ..good.clone() }).await;
    assert!(refused && text.contains("/nowhere/agent.key"), "{text}");
    aggregator.set(Faults { refuse: true, ..Faults::default() });
    let (refused, text) = failure(good).await;
    assert!(refused && text.contains("see the aggregator's log"), "{text}");
}
