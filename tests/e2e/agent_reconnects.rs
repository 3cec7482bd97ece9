//! An agent that is cut off for two minutes loses nothing: everything is replayed, once and in order, and from the
//! moment it is back the aggregator sees its node as it is now, not as it was.
//!
//! Time is virtual, so two minutes pass in moments; agents, TLS, proxy and aggregator are real.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_agent::collect::source::{Reading, Registry, Source};
use evenkeel_agent::run::{Agent, run};
use evenkeel_aggregator::ingest::block::SampleBlock;
use evenkeel_aggregator::ingest::live::NodeCell;
use evenkeel_aggregator::store::records::{Cursor, NodeKey};
use evenkeel_aggregator::store::{Direction, KeyRange, OnDamage, Store, trees};
use evenkeel_common::event::EventKind;
use evenkeel_common::guest::{GuestFacts, GuestKind};
use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::node::NodeFacts;
use evenkeel_common::sample::{Metric, SeriesKey, Tick};
use evenkeel_common::time::{Timestamp, Window};
use evenkeel_runtime::clock::{Clock as _, VirtualClock};
use evenkeel_runtime::random::SeededEntropy;
use evenkeel_tests::harness::Site;
use evenkeel_tests::lab::VIRTUAL_START;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{STUCK, config};

const TICK: Duration = Duration::from_secs(1);
/// How long agents are connected first, and then cut off.
const BEFORE: u64 = 50;
const CUT: u64 = 120;
/// Seconds between two changes of the guest, each of which is an event.
const CHANGE: u64 = 20;
/// Real time between two ticks while agents find their way back, which takes some for every attempt.
pub(super) const PACE: Duration = Duration::from_millis(20);

/// How a connection ends when it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Both ends learn of it.
    Closed,
    /// The aggregator does not: to it the old stream still stands when the new one comes.
    HalfOpen,
}

/// A TCP proxy that can be cut.
pub(super) struct Proxy {
    port: u16,
    pub(super) open: watch::Sender<bool>,
}

impl Proxy {
    async fn start(to: u16, cut: Cut) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, state) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut agent, _)) = listener.accept().await {
                let mut state = state.clone();
                if !*state.borrow_and_update() {
                    continue;
                }
                tokio::spawn(async move {
                    let mut aggregator = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                    let cut_off = tokio::select! {
                        _ = copy_bidirectional(&mut agent, &mut aggregator) => false,
                        _ = state.wait_for(|open| !open) => true,
                    };
                    drop(agent);
                    if cut_off && cut == Cut::HalfOpen {
                        while state.changed().await.is_ok() {} // Until the proxy is gone.
                    }
                });
            }
        });
        Self { port, open }
    }
}

/// A node whose every reading can be told from its time.
struct Known;

pub(super) fn cpu(at: Timestamp) -> f64 {
    20.0 + at.as_secs().rem_euclid(5) as f64
}

fn memory(at: Timestamp) -> f64 {
    (at.as_secs() * 4096) as f64
}

fn guest(second: u64) -> GuestFacts {
    GuestFacts {
        vmid: Vmid::new(100).unwrap(),
        kind: GuestKind::Qemu,
        name: Some(format!("name{}", second / CHANGE)),
        vcpus: None,
        memory_max: None,
        tags: Vec::new(),
        started_at: VIRTUAL_START,
    }
}

impl Source for Known {
    fn facts(&mut self) -> NodeFacts {
        NodeFacts { hostname: "known".into(), ..NodeFacts::default() }
    }

    fn read(&mut self, at: Timestamp, uptime: Duration, registry: &mut Registry) -> Reading {
        let values = [(Metric::CpuUsed, cpu(at)), (Metric::MemUsedBytes, memory(at))];
        let values =
            values.map(|(metric, value)| (registry.intern(&SeriesKey::node(metric)).unwrap(), value));
        let guests = Some(vec![guest(uptime.as_secs())]);
        Reading { tick: Tick { at, uptime, values: values.to_vec() }, guests, faults: Vec::new() }
    }
}

/// A running agent behind a proxy.
pub(super) struct Behind {
    pub(super) key: NodeKey,
    pub(super) proxy: Proxy,
    pub(super) cell: Arc<NodeCell>,
    /// Uptime of its newest tick.
    ticked: watch::Receiver<Duration>,
    pub(super) stop: CancellationToken,
    pub(super) task: JoinHandle<()>,
}

impl Behind {
    /// `in_memory` is how many ticks the agent holds before they go to its disk.
    pub(super) async fn start(
        site: &Site,
        clock: &VirtualClock,
        name: &str,
        cut: Cut,
        in_memory: u32,
    ) -> Self {
        let key = NodeKey { cluster: ClusterId::new("lab").unwrap(), node: NodeId::new(name).unwrap() };
        let proxy = Proxy::start(site.aggregator.address.port(), cut).await;
        let mut config = site.agent_config(&key.cluster, &key.node).unwrap();
        config.aggregator.address = format!("127.0.0.1:{}", proxy.port);
        config.spool.memory_ticks = in_memory;
        config.drills.allowed = true;
        let (stop, (sender, ticked)) = (CancellationToken::new(), watch::channel(Duration::ZERO));
        let entropy = Arc::new(SeededEntropy::new(in_memory.into()));
        let agent = Agent { source: Box::new(Known), config, clock: Arc::new(clock.clone()), entropy };
        let stopping = stop.clone();
        let task = tokio::spawn(async move {
            let told = |uptime| {
                sender.send_replace(uptime);
            };
            run(agent, stopping, told).await.unwrap();
        });
        let cell = site.aggregator.live.node(&key.cluster, &key.node);
        Self { key, proxy, cell, ticked, stop, task }
    }

    /// Lets a second pass on the agent.
    pub(super) async fn ticked(&self, clock: &VirtualClock) {
        let (mut ticked, now) = (self.ticked.clone(), clock.uptime());
        in_time("a tick", ticked.wait_for(|at| *at >= now)).await.unwrap();
    }

    /// Waits until the aggregator sees the node as it is now; time stands still meanwhile.
    async fn seen(&self, clock: &VirtualClock) {
        let now = clock.now();
        in_time("live data", self.cell.applied().wait_for(|at| *at >= now)).await.unwrap();
        let live = self.cell.lock();
        assert_eq!(live.tick_at, Some(now));
        assert_eq!(live.received, Some(clock.uptime()), "data of now counts as received now");
        assert!((live.load.cpu.latest().unwrap() - cpu(now)).abs() < 0.01);
    }

    pub(super) fn cursor(&self, store: &dyn Store) -> Cursor {
        trees::CURSORS.get(store, &self.key).unwrap().unwrap_or_default()
    }
}

pub(super) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(STUCK, future).await.unwrap_or_else(|_| panic!("{what} does not come"))
}

/// One second for everybody.
async fn second(clock: &VirtualClock, agents: &[Behind], connected: bool) {
    clock.advance(TICK);
    for agent in agents {
        agent.ticked(clock).await;
        if connected {
            agent.seen(clock).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_minutes_without_an_aggregator_leave_no_gap_and_do_not_delay_what_is_live() {
    let dir = tempfile::tempdir().unwrap();
    let clock = VirtualClock::new(VIRTUAL_START);
    let mut config = config();
    config.ingest.block_secs = 20;
    config.ingest.backfill_credit = 60; // Half of what is missing: the rest must wait for acknowledgements.
    let site = Site::start(dir.path(), config, Arc::new(clock.clone()), 1).await.unwrap();
    let agents = [
        Behind::start(&site, &clock, "closed", Cut::Closed, 180).await,
        Behind::start(&site, &clock, "half-open", Cut::HalfOpen, 60).await,
    ];
    for agent in &agents {
        let connected = async {
            while !agent.cell.lock().connected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        in_time("a connection", connected).await;
    }
    for _ in 0..BEFORE {
        second(&clock, &agents, true).await;
    }

    let sessions = agents.each_ref().map(|agent| agent.cell.lock().session);
    for agent in &agents {
        agent.proxy.open.send_replace(false);
    }
    for _ in 0..CUT {
        second(&clock, &agents, false).await;
    }
    for agent in &agents {
        assert_eq!(
            agent.cell.lock().tick_at,
            Some(VIRTUAL_START.after(TICK * BEFORE as u32)),
            "it is cut off"
        );
        assert!(agent.cursor(site.aggregator.store.as_ref()).sample <= BEFORE);
        agent.proxy.open.send_replace(true);
    }

    // When each was back. The wait between two attempts is up to a minute by now.
    let mut back = [None; 2];
    for _ in 0..100 {
        for ((agent, before), back) in agents.iter().zip(sessions).zip(&mut back) {
            let connected = {
                let live = agent.cell.lock();
                live.connected && live.session > before
            };
            if connected {
                back.get_or_insert(clock.now());
                // Time stands still until the aggregator has what is live.
                agent.seen(&clock).await;
            }
        }
        if back.iter().all(Option::is_some) {
            break;
        }
        second(&clock, &agents, false).await;
        tokio::time::sleep(PACE).await;
    }
    let (missing, mut replay) = (clock.uptime().as_secs(), 0);
    loop {
        for (agent, back) in agents.iter().zip(back) {
            let back = back.unwrap_or_else(|| panic!("{} does not connect again", agent.key.node));
            let away = Window { from: back.before(TICK * 30), to: back.before(TICK * 5) };
            // What is old came behind what is live, so the live state never went through it.
            assert_eq!(agent.cell.lock().load.cpu.mean(away), None, "{}", agent.key.node);
        }
        if agents.iter().all(|agent| agent.cursor(site.aggregator.store.as_ref()).sample >= missing) {
            break;
        }
        assert!(replay < 300, "the replay does not end");
        second(&clock, &agents, true).await;
        replay += 1;
    }
    println!("replayed within {replay} ticks, each of which was seen live");

    let store = Arc::clone(&site.aggregator.store);
    for agent in agents {
        agent.stop.cancel();
        in_time("the end of an agent", agent.task).await.unwrap();
        everything_is_stored_once(store.as_ref(), &agent.key, missing);
    }
    let no_gap = |_, gap| panic!("{gap:?}");
    trees::GAPS.scan(store.as_ref(), &KeyRange::all(), Direction::Forward, OnDamage::Fail, no_gap).unwrap();
    site.shut_down().await;
}

fn everything_is_stored_once(store: &dyn Store, key: &NodeKey, until: u64) {
    let name = key.node.as_str();
    let mut series = Vec::new();
    let range = KeyRange::under(key);
    let numbers = trees::SERIES.scan(store, &range, Direction::Forward, OnDamage::Fail, |_, key| {
        series.push(key.metric);
        ControlFlow::Continue(())
    });
    numbers.unwrap();
    let mut next = 1;
    let blocks = trees::BLOCKS.scan(store, &range, Direction::Forward, OnDamage::Fail, |_, bytes| {
        let block = SampleBlock::from_bytes(&bytes).unwrap();
        assert_eq!(block.first_seq, next, "{name}");
        let (rows, times, matrix) = block.matrix().unwrap();
        let expected: Vec<_> =
            (next..=block.last_seq).map(|seq| VIRTUAL_START.after(Duration::from_secs(seq))).collect();
        assert_eq!(times, expected, "{name}");
        assert_eq!(rows.len(), 2, "{name}");
        for (tick, &at) in times.iter().enumerate() {
            for (row, &number) in rows.iter().enumerate() {
                let metric = series[number as usize];
                let value = if metric == Metric::CpuUsed { cpu(at) } else { memory(at) };
                assert_eq!(matrix.get(row, tick), metric.quantise(value), "{name}: {metric} at {at}");
            }
        }
        next = block.last_seq + 1;
        ControlFlow::Continue(())
    });
    blocks.unwrap();
    assert!(next > until, "{name}: ticks up to {next} of {until}");

    let mut changes = Vec::new();
    let mut numbers = Vec::new();
    let events =
        trees::EVENTS.scan(store, &KeyRange::all(), Direction::Forward, OnDamage::Fail, |key, record| {
            if key.node.as_str() == name {
                numbers.push(key.seq);
                if let EventKind::GuestAppeared(facts) | EventKind::GuestChanged(facts) = record.event.kind {
                    changes.push((key.at.since(VIRTUAL_START).as_secs(), facts));
                }
            }
            ControlFlow::Continue(())
        });
    events.unwrap();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "{name}: events in order, once");
    changes.retain(|(second, _)| *second <= until);
    let seconds = std::iter::once(1).chain((CHANGE..=until).step_by(CHANGE as usize));
    let expected: Vec<_> = seconds.map(|second| (second, guest(second))).collect();
    assert_eq!(changes, expected, "{name}");
}
