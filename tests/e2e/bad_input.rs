//! What is wrong gets a clear answer and costs nobody else anything: configurations, ports, data directories,
//! certificates, and agents that lie or send rubbish.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use evenkeel_aggregator::identity::roles::Role;
use evenkeel_aggregator::ingest::block::SampleBlock;
use evenkeel_aggregator::store::records::{MetaRecord, NodeKey};
use evenkeel_aggregator::store::{Batch, Direction, KeyRange, OnDamage, SledStore, Store, trees};
use evenkeel_common::columns::{Base, Columns};
use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_common::sample::Metric;
use evenkeel_common::time::Timestamp;
use evenkeel_proto::v1;
use evenkeel_proto::v1::from_agent::Message;
use evenkeel_tests::harness::{Site, real_time};
use tonic::Code;

use crate::support::{
    Wire, aggregator, authority, certificate, config, control_as, event, hello, said, site, until,
};

/// What the aggregator's command says to a configuration, which it must refuse.
#[track_caller]
fn refused(dir: &Path, text: &str, command: &str) -> String {
    let file = dir.join("aggregator.toml");
    fs::write(&file, text).unwrap();
    let output = aggregator(&file, &[command]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    said(&output)
}

#[test]
fn a_wrong_configuration_is_refused_with_line_option_and_remedy() {
    let dir = tempfile::tempdir().unwrap();
    for (text, words) in [
        ("\nlissten = \"0.0.0.0:7443\"\n", &["aggregator.toml:2", "lissten", "listen"][..]),
        ("[ingest]\nblok_secs = 5\n", &["aggregator.toml:2", "blok_secs", "block_secs"]),
        (
            "[[clusters]]\nname = \"a\"\n[clusters.policy]\nmax_migration_per_run = 1",
            &["max_migrations_per_run"],
        ),
        ("[ingest]\ncommit_ms = 9000\n", &["aggregator.toml:2", "commit_ms", "9000", "5", "200"]),
        ("[store]\nballast_mib = -1\n", &["aggregator.toml:2", "ballast_mib"]),
        ("listen = 7443\n", &["aggregator.toml:1", "listen"]),
        ("listen = \"here:7443\"\n", &["aggregator.toml:1", "listen"]),
        ("listen = \n", &["aggregator.toml:1"]),
    ] {
        let said = refused(dir.path(), text, "check");
        assert!(words.iter().all(|word| said.contains(word)), "{text}: expected {words:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    let missing = aggregator(&dir.path().join("none.toml"), &["check"]);
    assert!(said(&missing).contains("--config"), "{}", said(&missing));
}

fn runnable(dir: &Path, listen: &str) -> String {
    format!("data_dir = {:?}\nlisten = {listen:?}\n[store]\nballast_mib = 0\n", dir.join("data"))
}

#[test]
fn a_port_in_use_is_named_with_the_way_to_find_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = refused(dir.path(), &runnable(dir.path(), &address), "run");
    for word in [address.as_str(), "ss -ltnp", "listen"] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn a_data_directory_of_a_newer_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data/store");
    fs::create_dir_all(&path).unwrap();
    let open = || SledStore::open(&path, &config().store, Timestamp::from_millis(0));
    let store = open().unwrap();
    let newer = MetaRecord { schema: 99, evenkeel: "9.0.0".into(), created_at: Timestamp::from_millis(7) };
    let mut batch = Batch::new();
    batch.put(&trees::META, &"store".to_owned(), &newer).unwrap();
    store.apply(batch).unwrap();
    store.flush().unwrap();
    drop(store);
    let said = refused(dir.path(), &runnable(dir.path(), "127.0.0.1:0"), "run");
    for word in ["99", "9.0.0", "data/store"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(said.contains("schema") && !said.contains("panicked"), "{said}");
    assert!(open().err().unwrap().to_string().contains("99"), "the mark is still there");
}

async fn nodes(site: &Site) -> Vec<v1::Node> {
    let mut viewer = control_as(site, Role::Viewer).await;
    viewer.list_nodes(v1::ListNodesRequest::default()).await.unwrap().into_inner().nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_and_expired_certificates_do_not_get_in() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let site = site(here.path(), config()).await;
    let (cluster, node) = (ClusterId::new("lab").unwrap(), NodeId::new("pve1").unwrap());
    let hour = Duration::from_hours(1);

    fs::create_dir_all(there.path().join("aggregator")).unwrap();
    let foreign = authority(there.path()).issue_agent(&cluster, &node, hour, real_time()).unwrap();
    let two_days_ago = real_time().before(48 * hour);
    let expired = authority(here.path()).issue_agent(&cluster, &node, hour, two_days_ago).unwrap();
    let in_two_days = real_time().after(48 * hour);
    let not_yet = authority(here.path()).issue_agent(&cluster, &node, hour, in_two_days).unwrap();
    let server = authority(here.path()).issue_server(&["localhost".into()], real_time()).unwrap();
    for (name, wrong) in
        [("foreign", foreign), ("expired", expired), ("not yet valid", not_yet), ("server", server)]
    {
        let outcome = Wire::greet(&site, &wrong, hello(1, 1, 1)).await;
        let status = outcome.err().unwrap_or_else(|| panic!("a {name} certificate got in"));
        println!("{name}: {status:?}");
    }
    assert_eq!(nodes(&site).await, [], "none of them became a node");

    let good = certificate(here.path(), "pve1");
    let (_, ack) = Wire::greet(&site, &good, hello(1, 1, 1)).await.unwrap();
    assert_eq!((ack.cluster.as_str(), ack.node.as_str()), ("lab", "pve1"));
    site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_who_its_certificate_says_whatever_its_messages_say() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), config()).await;
    let victim = certificate(dir.path(), "pve2");
    let (mut honest, _) = Wire::greet(&site, &victim, hello(2, 2, 1)).await.unwrap();
    honest.say(event(1)).await;
    honest.acknowledged(1, 0).await;

    let mut lie = hello(2, 3, 1); // Even the other's epoch and numbers.
    lie.facts = Some(v1::NodeFacts { hostname: "pve2".into(), cpus: 999, ..v1::NodeFacts::default() });
    let (mut liar, ack) = Wire::greet(&site, &certificate(dir.path(), "pve1"), lie).await.unwrap();
    assert_eq!((ack.node.as_str(), ack.event_cursor), ("pve1", 0));
    liar.say(event(1)).await;
    liar.acknowledged(1, 0).await;
    honest.say(event(2)).await;
    honest.acknowledged(2, 0).await;

    let shown = nodes(&site).await;
    let cpus: Vec<(&str, u32)> = shown.iter().map(|node| (node.node.as_str(), node.cpus)).collect();
    assert_eq!(cpus, [("pve1", 999), ("pve2", 4)]);
    assert_eq!(events(site.aggregator.store.as_ref()), [("pve1".to_owned(), 1), ("pve2".to_owned(), 2)]);
    site.shut_down().await;
}

/// Stored events by node.
fn events(store: &dyn Store) -> Vec<(String, u64)> {
    let mut found = std::collections::BTreeMap::new();
    let scanned =
        trees::EVENTS.scan(store, &KeyRange::all(), Direction::Forward, OnDamage::Fail, |_, record| {
            *found.entry(record.node.to_string()).or_insert(0) += 1;
            ControlFlow::Continue(())
        });
    assert_eq!(scanned.unwrap(), 0);
    found.into_iter().collect()
}

fn series(metric: u32) -> v1::SeriesDef {
    v1::SeriesDef { metric, vmid: 0, instance: String::new() }
}

fn announce(metrics: &[u32]) -> Message {
    Message::Series(v1::SeriesAdded { first_index: 0, series: metrics.iter().copied().map(series).collect() })
}

const CPU: u32 = Metric::CpuUsed as u32;

/// A keyframe of one tick with these values, in steps.
fn tick(seq: u64, at_ms: i64, values: &[Option<i64>]) -> v1::SampleBatch {
    let mut columns = Columns::missing(values.len(), 1);
    values.iter().enumerate().for_each(|(index, value)| columns.set(index, 0, *value));
    v1::SampleBatch {
        first_seq: seq,
        last_seq: seq,
        keyframe: true,
        at_ms,
        uptime_ms: seq * 1_000,
        step_ms: 0,
        ticks: 1,
        thinning: 0,
        columns: columns.encode(&mut Base::new()),
        zstd: false,
        series: u32::try_from(values.len()).unwrap(),
    }
}

fn now_tick(seq: u64) -> v1::SampleBatch {
    tick(seq, real_time().as_millis(), &[Some(1)])
}

fn anomaly(value: f64) -> v1::Event {
    let anomaly = v1::Anomaly {
        number: 1,
        series: Some(series(CPU)),
        opened_at_ms: real_time().as_millis(),
        value,
        severity: v1::Severity::Warning.into(),
        confidence: 0.9,
        ..v1::Anomaly::default()
    };
    let kind = Some(v1::event::Kind::AnomalyOpened(anomaly));
    v1::Event { at_ms: real_time().as_millis(), uptime_ms: 1, kind }
}

/// What an agent may do wrong once it has said hello, was given one acknowledgement, and has announced one series.
fn misdeeds(next_event: u64, bomb: &[u8]) -> Vec<(&'static str, Message, &'static [Code], &'static str)> {
    const INVALID: &[Code] = &[Code::InvalidArgument];
    let samples = |change: &dyn Fn(&mut v1::SampleBatch)| {
        let mut batch = now_tick(1);
        change(&mut batch);
        Message::Samples(batch)
    };
    let events = |first_seq, events| Message::Events(v1::EventBatch { first_seq, events });
    let guest = v1::GuestProfile { vmid: 101, cpu_by_hour: vec![1.0; 7], ..v1::GuestProfile::default() };
    vec![
        ("a second hello", Message::Hello(hello(9, 1, 1)), INVALID, "second hello"),
        ("a series twice", announce(&[CPU]), INVALID, "series dictionary"),
        ("series not announced", samples(&|b| b.series = 2), INVALID, "series"),
        ("no tick", samples(&|b| b.ticks = 0), INVALID, "ticks"),
        (
            "a billion ticks",
            samples(&|b| (b.ticks, b.last_seq) = (1_000_000_000, 1_000_000_000)),
            INVALID,
            "ticks",
        ),
        ("numbers backwards", samples(&|b| b.last_seq = 0), INVALID, "numbers"),
        ("more numbers than ticks", samples(&|b| b.last_seq = 9), INVALID, "one number"),
        (
            "samples that jump",
            samples(&|b| (b.first_seq, b.last_seq) = (50, 50)),
            &[Code::FailedPrecondition],
            "jump",
        ),
        (
            "the last number there is",
            samples(&|b| (b.thinning, b.last_seq) = (1, u64::MAX)),
            INVALID,
            "numbers",
        ),
        ("the end of time", samples(&|b| b.at_ms = i64::MAX), INVALID, "time"),
        ("the beginning of time", samples(&|b| b.at_ms = i64::MIN), INVALID, "time"),
        ("rubbish for columns", samples(&|b| b.columns = vec![0xff; 4_000]), INVALID, "sample batch"),
        ("no columns", samples(&|b| b.columns.clear()), INVALID, "sample batch"),
        ("no zstd", samples(&|b| (b.zstd, b.columns) = (true, vec![7; 100])), INVALID, "zstd"),
        (
            "a zstd bomb",
            samples(&|b| (b.zstd, b.columns) = (true, bomb.to_vec())),
            INVALID,
            "larger than allowed",
        ),
        ("no event", events(next_event, vec![]), INVALID, "event batch"),
        ("an empty event", events(next_event, vec![v1::Event::default()]), INVALID, "event"),
        ("events that jump", events(next_event + 7, vec![anomaly(1.0)]), &[Code::FailedPrecondition], "jump"),
        (
            "the last event there is",
            events(u64::MAX, vec![anomaly(1.0); 3]),
            &[Code::FailedPrecondition],
            "jump",
        ),
        ("NaN", events(next_event, vec![anomaly(f64::NAN)]), INVALID, "anomaly.value"),
        ("infinity", events(next_event, vec![anomaly(f64::INFINITY)]), INVALID, "anomaly.value"),
        (
            "half a day",
            Message::Profiles(v1::ProfileReport { profiles: vec![guest], ..Default::default() }),
            INVALID,
            "profile",
        ),
        (
            "a live view of more than was announced",
            Message::Live(v1::LiveView { at_ms: 1, uptime_ms: 1, columns: vec![], series: 5 }),
            INVALID,
            "live view",
        ),
        (
            "an oversized message",
            samples(&|b| b.columns = vec![0; 2 << 20]),
            &[Code::ResourceExhausted, Code::OutOfRange],
            "too large",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_does_wrong_ends_its_stream_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.ingest.max_message_kib = 1_024;
    config.ingest.block_secs = 1; // Every tick is stored, and acknowledged, at once.
    let site = site(dir.path(), config.clone()).await;
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
    assert!(bomb.len() < 64 << 10, "a small message: {} bytes", bomb.len());
    let witness = certificate(dir.path(), "witness");
    let (mut witness, _) = Wire::greet(&site, &witness, hello(1, 1, 1)).await.unwrap();
    witness.say(announce(&[CPU])).await;
    let began = real_time().as_millis();
    let bad = certificate(dir.path(), "bad");
    let mut acknowledged = 0;
    for index in 0..misdeeds(1, &bomb).len() {
        let (mut wire, ack) = Wire::greet(&site, &bad, hello(2, acknowledged + 1, 1)).await.unwrap();
        assert_eq!(ack.event_cursor, acknowledged, "nothing acknowledged is lost");
        acknowledged += 1;
        wire.say(event(acknowledged)).await;
        wire.acknowledged(acknowledged, 0).await;
        wire.say(announce(&[CPU])).await;
        let (name, message, codes, word) = misdeeds(acknowledged + 1, &bomb).swap_remove(index);
        wire.say(message).await;
        let status = wire.end().await;
        assert!(codes.contains(&status.code()) && status.message().contains(word), "{name}: {status:?}");
        witness.say(event(acknowledged)).await;
        let at = began + 1_000 * acknowledged.cast_signed();
        witness.say(Message::Samples(tick(acknowledged, at, &[Some(1)]))).await;
        witness.acknowledged(acknowledged, acknowledged).await;
    }
    assert!(!site.aggregator.failed.is_cancelled());
    drop(witness);
    site.shut_down().await;
    let store = SledStore::open(&dir.path().join("aggregator/store"), &config.store, real_time()).unwrap();
    assert_eq!(events(&store), [("bad".to_owned(), acknowledged), ("witness".to_owned(), acknowledged)]);
    let blocks = trees::BLOCKS.page(&store, &KeyRange::all(), Direction::Forward, 1_000).unwrap();
    assert_eq!(blocks.len() as u64, acknowledged, "of the witness; the other one had no good tick");
    assert!(blocks.iter().all(|(key, _)| key.node.as_str() == "witness"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_hello_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), config()).await;
    let certificate = certificate(dir.path(), "pve1");
    let with = |change: &dyn Fn(&mut v1::Hello)| {
        let mut hello = hello(1, 1, 1);
        change(&mut hello);
        Message::Hello(hello)
    };
    let guest = |vmid| v1::GuestFacts { vmid, kind: 1, ..v1::GuestFacts::default() };
    let crowd: Vec<v1::GuestFacts> = (100..10_101).map(guest).collect();
    assert_eq!(crowd.len(), 10_001);
    for (name, first, code, word) in [
        ("samples first", Message::Samples(now_tick(1)), Code::InvalidArgument, "hello"),
        ("events first", event(1), Code::InvalidArgument, "hello"),
        ("no epoch", with(&|h| h.epoch.clear()), Code::InvalidArgument, "epoch"),
        ("no facts", with(&|h| h.facts = None), Code::InvalidArgument, "facts"),
        ("10001 guests", with(&|h| h.guests.clone_from(&crowd)), Code::InvalidArgument, "10000"),
        ("guest 5", with(&|h| h.guests = vec![guest(5)]), Code::InvalidArgument, "vmid"),
        (
            "the future",
            with(&|h| (h.version_min, h.version_max) = (7, 9)),
            Code::FailedPrecondition,
            "upgrade",
        ),
        ("no more events", with(&|h| h.first_event = u64::MAX), Code::InvalidArgument, "number"),
        ("no more samples", with(&|h| h.first_sample = u64::MAX), Code::InvalidArgument, "number"),
    ] {
        let mut wire = Wire::open(&site, &certificate).await.unwrap();
        wire.say(first).await;
        let status = wire.end().await;
        assert!(status.code() == code && status.message().contains(word), "{name}: {status:?}");
    }
    let (mut wire, ack) = Wire::greet(&site, &certificate, hello(1, 2, 1)).await.unwrap();
    assert_eq!((ack.event_cursor, ack.sample_cursor), (0, 0), "no bad hello left a trace");
    wire.say(event(1)).await;
    wire.acknowledged(1, 0).await;
    site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metric_of_a_later_version_is_taken_in_and_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.ingest.block_secs = 1;
    let site = site(dir.path(), config).await;
    let certificate = certificate(dir.path(), "pve1");
    let (mut wire, _) = Wire::greet(&site, &certificate, hello(1, 1, 1)).await.unwrap();
    wire.say(announce(&[60_000, CPU])).await;
    let at = real_time().as_millis();
    for seq in 1..=3u64 {
        wire.say(Message::Samples(tick(seq, at + 1_000 * seq.cast_signed(), &[Some(7), Some(50)]))).await;
    }
    wire.acknowledged(0, 3).await;
    let key = NodeKey { cluster: ClusterId::new("lab").unwrap(), node: NodeId::new("pve1").unwrap() };
    let (store, range) = (site.aggregator.store.as_ref(), KeyRange::under(&key));
    let series = trees::SERIES.page(store, &range, Direction::Forward, 10).unwrap();
    assert_eq!(series.len(), 1, "{series:?}");
    assert_eq!(series[0].1.metric, Metric::CpuUsed);
    let mut stored = Vec::new();
    for (_, bytes) in trees::BLOCKS.page(store, &range, Direction::Forward, 10).unwrap() {
        let (numbers, _, matrix) = SampleBlock::from_bytes(&bytes).unwrap().matrix().unwrap();
        for (index, number) in numbers.into_iter().enumerate() {
            stored.extend(matrix.column(index).flatten().map(|value| (number, value)));
        }
    }
    assert_eq!(stored, [(series[0].0.series, 50); 3]);
    site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_set_back_is_fresh_again_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), config()).await;
    let day = Duration::from_hours(24);
    for (name, reconnects) in [("pve1", true), ("pve2", false)] {
        let certificate = certificate(dir.path(), name);
        let node = site.aggregator.live.node(&ClusterId::new("lab").unwrap(), &NodeId::new(name).unwrap());
        let (mut wire, _) = Wire::greet(&site, &certificate, hello(1, 1, 1)).await.unwrap();
        wire.say(announce(&[CPU])).await;
        let tomorrow = real_time().after(day);
        wire.say(Message::Samples(tick(1, tomorrow.as_millis(), &[Some(1)]))).await;
        until("tomorrow's tick has arrived", || node.lock().tick_at == Some(tomorrow)).await;
        let before = node.lock().received;
        if reconnects {
            (wire, _) = Wire::greet(&site, &certificate, hello(2, 1, 1)).await.unwrap();
            wire.say(announce(&[CPU])).await;
        } else {
            let by_ms = -i64::try_from(day.as_millis()).unwrap();
            let jump = Some(v1::event::Kind::ClockJumpedMs(by_ms));
            let event = v1::Event { at_ms: real_time().as_millis(), uptime_ms: 1, kind: jump };
            wire.say(Message::Events(v1::EventBatch { first_seq: 1, events: vec![event] })).await;
        }
        let (now, seq) = (real_time(), if reconnects { 1 } else { 2 });
        wire.say(Message::Samples(tick(seq, now.as_millis(), &[Some(1)]))).await;
        until("the tick of now counts as news", || {
            let live = node.lock();
            live.received > before && live.tick_at == Some(now) && live.load.cpu.latest().is_some()
        })
        .await;
    }
    site.shut_down().await;
}
