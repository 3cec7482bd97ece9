//! Cost of taking in samples: what a stream's messages cost the aggregator from their bytes on, in CPU time of the
//! whole process, so that other work on the machine does not count.
//!
//! `memory` is protobuf, columns, live state and the block under way; closed blocks are dropped. `durable` adds the
//! ledger and the store, blocks of 60 ticks, one commit (and fsync) for the blocks of all nodes of a minute.
//! gRPC and TLS are in neither. Before the first figure it prints the memory a connected, busy series takes.

#![allow(clippy::expect_used, missing_docs)]

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use evenkeel_aggregator::ingest::dictionary::SeriesTable;
use evenkeel_aggregator::ingest::greeting::Greeting;
use evenkeel_aggregator::ingest::session::Session;
use evenkeel_aggregator::ingest::writer::{Cursors, Work};
use evenkeel_aggregator::ingest::{Counts, IngestConfig, Ledger, Live};
use evenkeel_aggregator::store::records::NodeKey;
use evenkeel_aggregator::store::{SledStore, StoreConfig};
use evenkeel_common::columns::{Base, Columns};
use evenkeel_common::guest::{GuestFacts, GuestKind};
use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::sample::{Metric, SeriesKey};
use evenkeel_common::time::Timestamp;
use evenkeel_proto::v1;
use evenkeel_runtime::clock::SystemClock;
use evenkeel_tests::sim::workload::unit;
use prost::Message as _;

/// Nine series a guest and a hundred of the host: a thousand.
const GUESTS: u32 = 100;
const SERIES: usize = 1_000;
const TICKS: usize = 600;
const START_MS: i64 = 1_700_000_000_000;
/// Streams held open while memory is measured.
const STREAMS: u32 = 50;

/// CPU time of this process, all threads, to 10 ms.
fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("procfs");
    let (_, fields) = stat.rsplit_once(')').expect("a command");
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

/// Anonymous memory of this process in bytes.
fn anonymous() -> u64 {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").expect("procfs");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

fn vmids() -> impl Iterator<Item = Vmid> {
    (1000..1000 + GUESTS).map(|vmid| Vmid::new(vmid).expect("a VMID"))
}

fn keys() -> Vec<SeriesKey> {
    let guest = Metric::ALL.iter().copied().filter(|metric| metric.of_guest());
    let of_guests = vmids().flat_map(|vmid| guest.clone().map(move |metric| SeriesKey::guest(vmid, metric)));
    let plain =
        [Metric::CpuUsed, Metric::CpuIowait, Metric::MemUsed, Metric::MemUsedBytes, Metric::PsiCpuSome];
    let mut keys: Vec<_> = plain.into_iter().map(SeriesKey::node).chain(of_guests).collect();
    let devices = SERIES - keys.len();
    keys.extend((0..devices).map(|n| SeriesKey::device(Metric::DiskRead, format!("nvme{n}n1"))));
    keys
}

/// A stream's messages as they come off the wire: the dictionary, then a batch a second. 45 % of the series rest,
/// the others move by up to 64 steps.
fn stream() -> Vec<Vec<u8>> {
    let message = |message| v1::FromAgent { message: Some(message) }.encode_to_vec();
    let series = keys().iter().map(Into::into).collect();
    let mut messages =
        vec![message(v1::from_agent::Message::Series(v1::SeriesAdded { first_index: 0, series }))];
    let mut base = Base::new();
    let mut values: Vec<i64> = (0..SERIES as u64).map(|n| (unit(n, -1) * 1e5) as i64).collect();
    for tick in 0..TICKS as i64 {
        let mut columns = Columns::missing(SERIES, 1);
        for (n, value) in values.iter_mut().enumerate() {
            if unit(n as u64, -2) >= 0.45 {
                *value += (unit(n as u64, tick) * 129.0) as i64 - 64;
            }
            columns.set(n, 0, Some(*value));
        }
        messages.push(message(v1::from_agent::Message::Samples(v1::SampleBatch {
            first_seq: tick as u64 + 1,
            last_seq: tick as u64 + 1,
            keyframe: tick == 0,
            at_ms: START_MS + tick * 1000,
            uptime_ms: tick as u64 * 1000,
            ticks: 1,
            columns: columns.encode(&mut base),
            series: SERIES as u32,
            ..v1::SampleBatch::default()
        })));
    }
    messages
}

fn hello() -> Greeting {
    let facts = |vmid| GuestFacts {
        vmid,
        kind: GuestKind::Qemu,
        name: None,
        vcpus: None,
        memory_max: None,
        tags: vec![],
        started_at: Timestamp::from_millis(0),
    };
    Greeting {
        epoch: [1; 16],
        facts: Default::default(),
        guests: vmids().map(facts).collect(),
        first: Cursors { event: 1, sample: 1 },
        next_event: 1,
        capabilities: 0,
        wall: Timestamp::from_millis(START_MS),
        probe: None,
    }
}

fn key(node: u32) -> NodeKey {
    let (cluster, node) = ("bench".parse::<ClusterId>(), format!("node{node}").parse::<NodeId>());
    NodeKey { cluster: cluster.expect("a name"), node: node.expect("a name") }
}

/// A stream of a node, begun.
fn begin(live: &Live, key: &NodeKey) -> Session {
    let (cell, table) = (live.node(&key.cluster, &key.node), Arc::new(SeriesTable::default()));
    let (config, now) = (IngestConfig::default(), Timestamp::from_millis(START_MS));
    Session::begin(1, hello(), Cursors::default(), cell, table, &config, now).0
}

fn take(session: &mut Session, bytes: &[u8], uptime: usize) -> Vec<Work> {
    let message = v1::FromAgent::decode(bytes).expect("a message").message.expect("a message");
    session.take(message, Duration::from_secs(uptime as u64)).expect("a message that is taken")
}

/// CPU time of all of a stream's messages for so many nodes side by side. `written` sees what each second's
/// messages lead to.
fn feed(
    messages: &[Vec<u8>],
    sessions: &mut [(NodeKey, Session)],
    mut written: impl FnMut(Vec<(&NodeKey, Work)>),
) -> Duration {
    let before = cpu_time();
    for (uptime, bytes) in messages.iter().enumerate() {
        let mut work = Vec::new();
        for (key, session) in &mut *sessions {
            work.extend(take(session, bytes, uptime).into_iter().map(|work| (&*key, work)));
        }
        written(work);
    }
    cpu_time() - before
}

fn sessions(live: &Live, nodes: u32) -> Vec<(NodeKey, Session)> {
    (0..nodes).map(key).map(|key| (key.clone(), begin(live, &key))).collect()
}

fn durable(messages: &[Vec<u8>], nodes: u32) -> Duration {
    let dir = tempfile::tempdir().expect("a directory");
    let now = Timestamp::from_millis(START_MS);
    let config = StoreConfig { ballast_mib: 0, ..StoreConfig::default() };
    let store = Arc::new(SledStore::open(dir.path(), &config, now).expect("a store"));
    let (news, _) = tokio::sync::broadcast::channel(1);
    let mut ledger = Ledger::new(store, Arc::new(SystemClock::new()), Arc::new(Counts::default()), news);
    let live = Live::default();
    let mut sessions = sessions(&live, nodes);
    for (key, _) in &sessions {
        ledger.begin(key, [1; 16]).expect("a store that works");
    }
    feed(messages, &mut sessions, |work| {
        if work.is_empty() {
            return;
        }
        for (key, work) in work {
            ledger.take(key, [1; 16], work).expect("a store that works").expect("work that continues");
        }
        ledger.commit().expect("a store that works");
    })
}

/// Prints what a series costs while its node is connected and its window of the past is full.
#[allow(clippy::print_stdout)]
fn memory(messages: &[Vec<u8>]) {
    let before = anonymous();
    let live = Live::default();
    let mut sessions = sessions(&live, STREAMS);
    feed(messages, &mut sessions, |_| {});
    let grown = anonymous() - before;
    let series = f64::from(STREAMS) * SERIES as f64;
    println!("memory: {:.0} bytes a series ({STREAMS} streams of {SERIES})", grown as f64 / series);
}

fn ingest(criterion: &mut Criterion) {
    let mut messages = stream();
    // Ends right before a block is closed, when it is largest.
    memory(&messages[..TICKS]);
    messages.truncate(TICKS + 1);
    let mut group = criterion.benchmark_group("ingest");
    group.sample_size(10);
    for (name, nodes) in [("memory", 10), ("durable", 10)] {
        group.throughput(Throughput::Elements(u64::from(nodes) * (SERIES * TICKS) as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let round = || match name {
                    "memory" => feed(&messages, &mut sessions(&Live::default(), nodes), |_| {}),
                    _ => durable(&messages, nodes),
                };
                (0..rounds).map(|_| round()).sum()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, ingest);
criterion_main!(benches);
