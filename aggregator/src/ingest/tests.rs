//! Streams in every order, without a network: session and ledger together on a real store.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::anomaly::{Anomaly, Severity};
use evenkeel_common::columns::{Base, Columns};
use evenkeel_common::event::{AgentEvent, EventKind, LossKind};
use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_common::sample::{Metric, SeriesKey};
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Probability;
use evenkeel_proto::v1::{self, from_agent::Message};
use evenkeel_runtime::clock::VirtualClock;
use tokio::sync::broadcast;
use tonic::Code;

use super::block::SampleBlock;
use super::greeting::Greeting;
use super::ledger::series_table;
use super::session::Session;
use super::writer::{Cursors, Work};
use super::{Counts, IngestConfig, Ledger, Live};
use crate::store::records::NodeKey;
use crate::store::{Direction, KeyRange, SledStore, Store, StoreConfig, trees};

/// An aggregator without network around one node.
struct Bench {
    _dir: tempfile::TempDir,
    store: Arc<dyn Store>,
    ledger: Ledger,
    live: Live,
    node: NodeKey,
    config: IngestConfig,
    sessions: u64,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig { ballast_mib: 0, ..StoreConfig::default() };
        let store: Arc<dyn Store> =
            Arc::new(SledStore::open(dir.path(), &config, Timestamp::default()).unwrap());
        let clock = Arc::new(VirtualClock::new(Timestamp::from_millis(1_000_000)));
        let ledger =
            Ledger::new(Arc::clone(&store), clock, Arc::<Counts>::default(), broadcast::Sender::new(8));
        let node = NodeKey { cluster: ClusterId::new("c").unwrap(), node: NodeId::new("n").unwrap() };
        let config = IngestConfig { block_secs: 10, ..IngestConfig::default() };
        Self { _dir: dir, store, ledger, live: Live::default(), node, config, sessions: 0 }
    }

    /// A stream that has said hello and announced one series.
    fn connect(&mut self, epoch: u8, first_sample: u64) -> Session {
        self.sessions += 1;
        let hello = v1::Hello {
            version_min: 1,
            version_max: 1,
            epoch: vec![epoch; 16],
            first_event: 1,
            next_event: 1,
            first_sample,
            facts: Some(v1::NodeFacts::default()),
            wall_ms: 1_000_000,
            ..v1::Hello::default()
        };
        let greeting = Greeting::check(hello).unwrap();
        let durable = self.ledger.begin(&self.node, greeting.epoch).unwrap();
        let cell = self.live.node(&self.node.cluster, &self.node.node);
        let table = Arc::new(series_table(self.store.as_ref(), &self.node).unwrap());
        let now = Timestamp::from_millis(1_000_000);
        let (mut session, welcome) =
            Session::begin(self.sessions, greeting, durable, cell, table, &self.config, now);
        self.write(&session, welcome.work);
        let series = vec![v1::SeriesDef::from(&SeriesKey::node(Metric::CpuUsed))];
        session.take(Message::Series(v1::SeriesAdded { first_index: 0, series }), Duration::ZERO).unwrap();
        session
    }

    fn write(&mut self, session: &Session, work: Vec<Work>) -> Option<Cursors> {
        let mut cursors = None;
        for work in work {
            cursors = self.ledger.take(&self.node, session.epoch(), work).unwrap();
            assert!(cursors.is_some(), "the work continues what is stored");
        }
        self.ledger.commit().unwrap();
        cursors
    }

    fn send(&mut self, session: &mut Session, message: Message) -> Option<Cursors> {
        let work = session.take(message, Duration::from_secs(7)).unwrap();
        self.write(session, work)
    }

    /// Numbers and values of all stored ticks, in order of time.
    fn stored(&self) -> Vec<(u64, i64)> {
        let rows =
            trees::BLOCKS.page(self.store.as_ref(), &KeyRange::all(), Direction::Forward, 1_000).unwrap();
        let mut ticks = Vec::new();
        for (_, bytes) in rows {
            let block = SampleBlock::from_bytes(&bytes).unwrap();
            let (_, _, matrix) = block.matrix().unwrap();
            ticks.extend((block.first_seq..=block.last_seq).zip(matrix.column(0).map(Option::unwrap)));
        }
        ticks
    }
}

/// Ticks `first` to `last`, a second each, whose value is ten times their number.
fn batch(first: u64, last: u64) -> Message {
    let ticks = (last - first + 1) as usize;
    let mut columns = Columns::missing(1, ticks);
    (first..=last).enumerate().for_each(|(i, seq)| columns.set(0, i, Some(seq as i64 * 10)));
    Message::Samples(v1::SampleBatch {
        first_seq: first,
        last_seq: last,
        keyframe: true,
        at_ms: 1_000_000 + first as i64 * 1_000,
        step_ms: 1_000,
        ticks: ticks as u32,
        columns: columns.encode(&mut Base::new()),
        series: 1,
        ..v1::SampleBatch::default()
    })
}

fn expected(last: u64) -> Vec<(u64, i64)> {
    (1..=last).map(|seq| (seq, seq as i64 * 10)).collect()
}

fn event(number: u64, kind: impl FnOnce(Anomaly) -> EventKind) -> v1::Event {
    let anomaly = Anomaly {
        number,
        series: SeriesKey::node(Metric::CpuUsed),
        opened_at: Timestamp::from_millis(1_000_500),
        closed_at: None,
        value: 90.0,
        expected: 10.0,
        deviation: 8.0,
        confidence: Probability::clamped(0.95),
        severity: Severity::Critical,
        votes: vec![],
        causes: Vec::new(),
        injected: false,
    };
    AgentEvent { at: Timestamp::from_millis(1_001_000), uptime_ms: 1, kind: kind(anomaly) }.into()
}

#[test]
fn what_was_not_acknowledged_comes_again_and_is_stored_once() {
    let mut bench = Bench::new();
    let mut session = bench.connect(1, 1);
    let acked = bench.send(&mut session, batch(1, 13)).unwrap();
    assert_eq!(acked.sample, 10, "a block of ten seconds is durable, the rest is not");
    // The stream breaks; the agent continues behind the acknowledged number, and sends some twice.
    let mut session = bench.connect(1, 11);
    bench.send(&mut session, batch(11, 15));
    bench.send(&mut session, batch(9, 21));
    assert_eq!(session.take_counts().0, 7, "9 to 15 were there already");
    let rest: Vec<Work> = session.finish().into_iter().collect();
    bench.write(&session, rest);
    assert_eq!(bench.stored(), expected(21));
}

#[test]
fn a_jump_in_numbers_ends_the_stream_and_loses_nothing() {
    let mut bench = Bench::new();
    let mut session = bench.connect(1, 1);
    bench.send(&mut session, batch(1, 10));
    let refused = session.take(batch(12, 20), Duration::ZERO).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let mut session = bench.connect(1, 11);
    bench.send(&mut session, batch(11, 20));
    assert_eq!(bench.stored(), expected(20));
}

#[test]
fn silence_is_a_gap_record_and_never_zero() {
    let mut bench = Bench::new();
    let mut session = bench.connect(1, 1);
    bench.send(&mut session, batch(1, 10));
    let mut session = bench.connect(2, 1); // A new spool: what the old one held is gone.
    let mut late = batch(1, 10);
    if let Message::Samples(batch) = &mut late {
        batch.at_ms += 600_000;
    }
    bench.send(&mut session, late);
    let gaps = trees::GAPS.page(bench.store.as_ref(), &KeyRange::all(), Direction::Forward, 10).unwrap();
    let [(_, gap)] = gaps.as_slice() else { panic!("{gaps:?}") };
    assert_eq!((gap.kind, gap.count), (LossKind::Unwritten, 591));
}

#[test]
fn a_replaced_stream_takes_nothing_more() {
    let mut bench = Bench::new();
    let mut old = bench.connect(1, 1);
    let _new = bench.connect(1, 1);
    assert_eq!(old.take(batch(1, 10), Duration::ZERO).unwrap_err().code(), Code::Aborted);
    assert!(!old.disconnect(), "the node belongs to the newer stream");
}

#[test]
fn an_agent_that_starts_anew_leaves_no_anomaly_open() {
    let mut bench = Bench::new();
    let mut session = bench.connect(1, 1);
    let opened = event(1, EventKind::AnomalyOpened);
    bench.send(&mut session, Message::Events(v1::EventBatch { first_seq: 1, events: vec![opened.clone()] }));
    // Sent again, because the acknowledgement was lost.
    bench.send(&mut session, Message::Events(v1::EventBatch { first_seq: 1, events: vec![opened] }));
    let anomalies = |bench: &Bench| {
        trees::ANOMALIES.page(bench.store.as_ref(), &KeyRange::all(), Direction::Forward, 10).unwrap()
    };
    assert!(matches!(anomalies(&bench).as_slice(), [(_, one)] if one.anomaly.closed_at.is_none()));
    let started = event(0, |_| EventKind::AgentStarted { version: "1".into(), clean: false });
    bench.send(&mut session, Message::Events(v1::EventBatch { first_seq: 2, events: vec![started] }));
    assert!(matches!(anomalies(&bench).as_slice(), [(_, one)] if one.anomaly.closed_at.is_some()));
    assert!(bench.live.node(&bench.node.cluster, &bench.node.node).lock().open.is_empty());
}

#[test]
fn malformed_messages_end_the_stream_with_a_reason() {
    let mut bench = Bench::new();
    let garbage = v1::SampleBatch {
        first_seq: 1,
        last_seq: 1,
        ticks: 1,
        series: 1,
        columns: vec![0xFF; 40],
        ..v1::SampleBatch::default()
    };
    let bomb = zstd::bulk::compress(&vec![0u8; 64 << 20], 1).unwrap();
    for (what, message) in [
        ("garbage", Message::Samples(garbage.clone())),
        ("a bomb", Message::Samples(v1::SampleBatch { zstd: true, columns: bomb, ..garbage.clone() })),
        ("too many series", Message::Samples(v1::SampleBatch { series: 2, ..garbage.clone() })),
        ("numbers and ticks", Message::Samples(v1::SampleBatch { last_seq: 9, ..garbage })),
        ("no events", Message::Events(v1::EventBatch { first_seq: 1, events: vec![] })),
        (
            "an empty event",
            Message::Events(v1::EventBatch { first_seq: 1, events: vec![v1::Event::default()] }),
        ),
        ("a second hello", Message::Hello(v1::Hello::default())),
    ] {
        let mut session = bench.connect(1, 1);
        let refused = session.take(message, Duration::ZERO).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{what}: {refused}");
        assert!(!refused.message().is_empty());
    }
    assert!(bench.stored().is_empty());
}

#[test]
fn the_first_block_of_a_large_node_is_written_with_all_its_series() {
    let mut bench = Bench::new();
    let mut session = bench.connect(1, 1);
    let disks = (0..3_000).map(|n| SeriesKey::device(Metric::DiskRead, format!("disk{n}")));
    let series = disks.map(|key| v1::SeriesDef::from(&key)).collect();
    bench.send(&mut session, Message::Series(v1::SeriesAdded { first_index: 1, series }));
    let cursors = bench.send(&mut session, batch(1, 10)).unwrap();
    assert_eq!(cursors.sample, 10);
    let named =
        trees::SERIES.page(bench.store.as_ref(), &KeyRange::all(), Direction::Forward, 10_000).unwrap();
    assert_eq!(named.len(), 3_001);
}
