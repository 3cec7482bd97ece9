//! Kills the real aggregator, start-up included, while agents send: what it acknowledged must be there afterwards,
//! once and whole, and every start must succeed.
//!
//! The agents speak the protocol themselves and make all they say from node and number, so that every stored record
//! can be compared with what it should be. A tick of theirs counts as a second but comes every 20 ms.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use evenkeel_aggregator::identity::ca::Ca;
use evenkeel_aggregator::ingest::block::SampleBlock;
use evenkeel_aggregator::ingest::writer::Cursors;
use evenkeel_aggregator::store::records::{EventKey, EventRecord, NodeKey};
use evenkeel_aggregator::store::{
    Direction, KeyRange, OnDamage, SledStore, Store as _, StoreConfig, StoreError, trees,
};
use evenkeel_common::columns::{Base, Columns};
use evenkeel_common::event::{AgentEvent, EventKind};
use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::sample::{Metric, SeriesKey};
use evenkeel_common::time::Timestamp;
use evenkeel_proto::v1;
use evenkeel_proto::v1::agent_client::AgentClient;
use evenkeel_proto::v1::from_agent::Message;
use evenkeel_proto::v1::to_agent::Message as Answer;
use evenkeel_runtime::random::{self, SeededEntropy, SystemEntropy};
use evenkeel_runtime::tls;
use evenkeel_tests::harness::real_time;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

use crate::support::{STUCK, built};
use found::Found;

mod found;

/// How often to kill.
const KILLS: &str = "EVENKEEL_KILLS";
/// Kills between two looks into the store.
const CHECK_EVERY: u64 = 25;
const NODES: u64 = 4;
/// Real time between two ticks of an agent, and how many of them an event takes.
const PACE: Duration = Duration::from_millis(20);
const TICKS_AN_EVENT: u64 = 4;
/// Ticks a batch of backfill holds.
const BACKFILL: u64 = 60;

fn kills() -> u64 {
    std::env::var(KILLS).map_or(12, |kills| kills.parse().unwrap())
}

fn draw(entropy: &SeededEntropy, below: u64) -> u64 {
    u64::from_le_bytes(random::bytes(entropy).unwrap()) % below
}

fn keys() -> Vec<SeriesKey> {
    let guest = |metric| SeriesKey::guest(Vmid::new(100).unwrap(), metric);
    let node = [Metric::CpuUsed, Metric::MemUsedBytes, Metric::Load1].map(SeriesKey::node);
    let device = SeriesKey::device(Metric::NetRx, "eno1");
    node.into_iter().chain([device, guest(Metric::GuestCpu), guest(Metric::GuestMem)]).collect()
}

/// The value of a cell, in steps; now and then none.
fn value(node: u64, seq: u64, series: usize) -> Option<i64> {
    let entropy = SeededEntropy::new((node << 56) ^ (seq << 8) ^ series as u64);
    (draw(&entropy, 8) > 0).then(|| draw(&entropy, 1 << (4 + 8 * series)).cast_signed())
}

fn tick_at(seq: u64) -> Timestamp {
    // From 1 October 2026 on. Nothing here asks how old it is.
    Timestamp::from_millis(1_790_812_800_000 + seq.cast_signed() * 1000)
}

fn event(node: u64, seq: u64) -> AgentEvent {
    let message = format!("{node}/{seq} ").repeat(usize::try_from(seq % 90).unwrap() + 1);
    let kind = EventKind::CollectorFailed { collector: format!("collector{}", seq % 7), message };
    AgentEvent { at: tick_at(seq * TICKS_AN_EVENT), uptime_ms: seq * 1000, kind }
}

/// The daemon on a directory and port of its own.
struct Daemon {
    binary: PathBuf,
    dir: PathBuf,
    port: u16,
}

impl Daemon {
    fn new(dir: PathBuf) -> Self {
        let port = free_port();
        std::fs::create_dir_all(&dir).unwrap();
        let config = format!(
            "data_dir = \"{}\"\nlisten = \"127.0.0.1:{port}\"\n[ingest]\nblock_secs = 3\ncommit_ms = 5\n\
             [store]\nballast_mib = 0\n[log]\nlevel = \"warn\"\n",
            dir.join("data").display(),
        );
        std::fs::write(dir.join("aggregator.toml"), config).unwrap();
        Self { binary: built("evenkeel-aggregator", "evenkeel-aggregator"), dir, port }
    }

    fn start(&self) -> Child {
        let log = OpenOptions::new().create(true).append(true).open(self.dir.join("log")).unwrap();
        let mut command = Command::new(&self.binary);
        command.arg("run").arg("--config").arg(self.dir.join("aggregator.toml"));
        command.stdout(File::options().write(true).open("/dev/null").unwrap()).stderr(log).spawn().unwrap()
    }

    /// Kills what was started. `false` when it had ended by itself, which no start may.
    fn kill(&self, mut child: Child) -> bool {
        let ended = child.try_wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        if let Some(status) = ended {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap();
            println!("the aggregator ended by itself: {status}\n{log}");
        }
        ended.is_none()
    }

    fn wait_listening(&self, child: &mut Child) {
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() && child.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < STUCK, "the aggregator does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn open_store(&self) -> Result<SledStore, StoreError> {
        let config = StoreConfig { ballast_mib: 0, ..StoreConfig::default() };
        SledStore::open(&self.dir.join("data/store"), &config, real_time())
    }
}

/// A port below those that the kernel gives to clients, so that it stays free between two starts.
fn free_port() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() * 13 % 10_000).unwrap();
    let ports = std::iter::repeat_with(|| 20_000 + (own + TRIED.fetch_add(1, Ordering::Relaxed)) % 10_000);
    ports.take(1000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("no port is free")
}

/// An agent of which only the protocol is real.
struct Agent {
    number: u64,
    key: NodeKey,
    endpoint: Endpoint,
    /// Whether it forgets what is acknowledged, as real ones do; one that does not notices at its next hello when
    /// the aggregator lost something.
    forgets: bool,
    began: Instant,
    entropy: SeededEntropy,
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    acked: Cursors,
    sent: Cursors,
    connections: u64,
    wrong: Vec<String>,
}

impl Agent {
    fn new(number: u64, daemon: &Daemon, authority: &Ca) -> Self {
        let key = NodeKey {
            cluster: ClusterId::new("kill").unwrap(),
            node: NodeId::new(format!("node{number}")).unwrap(),
        };
        let issued =
            authority.issue_agent(&key.cluster, &key.node, Duration::from_hours(24), real_time()).unwrap();
        let tls = ClientTlsConfig::new()
            .domain_name("localhost")
            .ca_certificate(Certificate::from_pem(authority.ca_pem()))
            .identity(Identity::from_pem(issued.cert_pem, issued.key_pem));
        let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{}", daemon.port)).unwrap();
        let endpoint = endpoint.tls_config(tls).unwrap().tcp_nodelay(true);
        let (entropy, forgets) = (SeededEntropy::new(number), number.is_multiple_of(2));
        Self { number, key, endpoint, forgets, began: Instant::now(), entropy, state: Mutex::default() }
    }

    fn epoch(&self) -> [u8; 16] {
        [u8::try_from(self.number).unwrap() + 1; 16]
    }

    /// Numbers made by now. They go on while the aggregator is away.
    fn made(&self) -> Cursors {
        let sample = u64::try_from(self.began.elapsed().as_millis() / PACE.as_millis()).unwrap();
        Cursors { event: sample / TICKS_AN_EVENT, sample }
    }

    async fn run(&self) {
        loop {
            let Err(status) = self.stream().await else { continue };
            let refusal = matches!(
                status.code(),
                Code::InvalidArgument
                    | Code::FailedPrecondition
                    | Code::Aborted
                    | Code::ResourceExhausted
                    | Code::Unauthenticated
                    | Code::PermissionDenied
            );
            if refusal {
                self.state.lock().unwrap().wrong.push(format!("refused: {status}"));
            }
            tokio::time::sleep(PACE).await;
        }
    }

    async fn stream(&self) -> Result<(), Status> {
        let unavailable = |error: tonic::transport::Error| Status::unavailable(error.to_string());
        let mut client = AgentClient::new(self.endpoint.connect().await.map_err(unavailable)?);
        let (sender, receiver) = mpsc::channel(4);
        let hello = Message::Hello(self.hello());
        sender.send(v1::FromAgent { message: Some(hello) }).await.map_err(gone)?;
        let mut answers = client.stream(ReceiverStream::new(receiver)).await?.into_inner();
        let first = answers.message().await?.and_then(|answer| answer.message);
        let Some(Answer::Hello(ack)) = first else { return Err(Status::unknown("no hello")) };
        let cursors = Cursors { event: ack.event_cursor, sample: ack.sample_cursor };
        self.acknowledged("hello", cursors);
        let listening = async {
            while let Some(answer) = answers.message().await? {
                if let Some(Answer::Ack(ack)) = answer.message {
                    self.acknowledged("ack", Cursors { event: ack.event_cursor, sample: ack.sample_cursor });
                }
            }
            Err(Status::unavailable("the stream ended"))
        };
        tokio::select! {
            heard = listening => heard,
            said = self.talk(&sender, cursors) => said,
        }
    }

    fn hello(&self) -> v1::Hello {
        let state = self.state.lock().unwrap();
        let first = if self.forgets { state.acked } else { Cursors::default() };
        let made = self.made();
        v1::Hello {
            version_min: 1,
            version_max: 1,
            capabilities: 0,
            epoch: self.epoch().to_vec(),
            first_event: first.event + 1,
            next_event: made.event + 1,
            first_sample: first.sample + 1,
            next_sample: made.sample + 1,
            facts: Some(v1::NodeFacts { hostname: self.key.node.to_string(), ..Default::default() }),
            guests: Vec::new(),
            wall_ms: tick_at(made.sample).as_millis(),
            uptime_ms: made.sample * 1000,
            probe_port: 0,
            probe_peers: 0,
        }
    }

    fn acknowledged(&self, by: &str, now: Cursors) {
        let mut state = self.state.lock().unwrap();
        let State { acked, sent, .. } = state.clone();
        let lanes =
            [("event", now.event, acked.event, sent.event), ("tick", now.sample, acked.sample, sent.sample)];
        for (lane, now, before, sent) in lanes {
            if now < before {
                state.wrong.push(format!("{by}: {lane} {now} after {before} was acknowledged"));
            }
            if now > sent {
                state.wrong.push(format!("{by}: {lane} {now}, but only {sent} were sent"));
            }
        }
        let (event, sample) = (now.event.max(acked.event), now.sample.max(acked.sample));
        state.acked = Cursors { event, sample };
        state.connections += u64::from(by == "hello");
    }

    /// Says everything behind `from`, then what is new, and now and then something again.
    async fn talk(&self, sender: &mpsc::Sender<v1::FromAgent>, from: Cursors) -> Result<(), Status> {
        let keys = keys();
        let turn = usize::try_from(self.state.lock().unwrap().connections).unwrap();
        // Every stream has a dictionary of its own order, as real ones do.
        let order: Vec<usize> = (0..keys.len()).map(|index| (index + turn) % keys.len()).collect();
        let (early, late) = order.split_at(2);
        for (first_index, part) in [(0, early), (2, late)] {
            let series = part.iter().map(|&index| v1::SeriesDef::from(&keys[index])).collect();
            self.say(sender, Message::Series(v1::SeriesAdded { first_index, series })).await?;
        }
        let mut said = from;
        let again = |said: u64| said - draw(&self.entropy, 5).min(said);
        said = Cursors { event: again(said.event), sample: again(said.sample) };
        let (mut base, mut begun) = (Base::new(), false);
        loop {
            let made = self.made();
            if said.event < made.event {
                let last = made.event.min(said.event + 1 + draw(&self.entropy, 100));
                let events = (said.event + 1..=last).map(|seq| event(self.number, seq).into()).collect();
                self.sending(|sent| sent.event = sent.event.max(last));
                let batch = v1::EventBatch { first_seq: said.event + 1, events };
                self.say(sender, Message::Events(batch)).await?;
                said.event = last;
            }
            if said.sample < made.sample {
                let last = made.sample.min(said.sample + BACKFILL);
                self.sending(|sent| sent.sample = sent.sample.max(last));
                let keyframe = !begun || last > said.sample + 1;
                begun = true;
                let batch = self.batch(said.sample + 1, last, keyframe, &order, &mut base);
                self.say(sender, Message::Samples(batch)).await?;
                said.sample = last;
            } else {
                tokio::time::sleep(PACE / 2).await;
            }
        }
    }

    fn state(&self) -> State {
        self.state.lock().unwrap().clone()
    }

    fn sending(&self, note: impl FnOnce(&mut Cursors)) {
        note(&mut self.state.lock().unwrap().sent);
    }

    fn batch(
        &self,
        first: u64,
        last: u64,
        keyframe: bool,
        order: &[usize],
        base: &mut Base,
    ) -> v1::SampleBatch {
        let ticks = u32::try_from(last - first + 1).unwrap();
        let mut columns = Columns::missing(order.len(), ticks as usize);
        for (row, &series) in order.iter().enumerate() {
            for (tick, seq) in (first..=last).enumerate() {
                columns.set(row, tick, value(self.number, seq, series));
            }
        }
        if keyframe {
            base.clear();
        }
        v1::SampleBatch {
            first_seq: first,
            last_seq: last,
            keyframe,
            at_ms: tick_at(first).as_millis(),
            uptime_ms: first * 1000,
            step_ms: if ticks > 1 { 1000 } else { 0 },
            ticks,
            thinning: v1::Thinning::None.into(),
            columns: columns.encode(base),
            zstd: false,
            series: u32::try_from(order.len()).unwrap(),
        }
    }

    async fn say(&self, sender: &mpsc::Sender<v1::FromAgent>, message: Message) -> Result<(), Status> {
        sender.send(v1::FromAgent { message: Some(message) }).await.map_err(gone)
    }
}

fn gone<T>(_: mpsc::error::SendError<T>) -> Status {
    Status::unavailable("the stream ended")
}

#[test]
fn kill_loop() {
    tls::install_provider();
    let (kills, root, entropy) = (kills(), tempfile::tempdir().unwrap(), SeededEntropy::new(7));
    let daemon = Daemon::new(root.path().join("aggregator"));
    std::fs::create_dir_all(daemon.dir.join("data")).unwrap();
    let authority =
        Ca::open(&daemon.dir.join("data/identity"), real_time(), Arc::new(SystemEntropy)).unwrap();
    let agents: Vec<_> = (0..NODES).map(|number| Arc::new(Agent::new(number, &daemon, &authority))).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for agent in &agents {
        let agent = Arc::clone(agent);
        runtime.spawn(async move { agent.run().await });
    }
    let connections = || agents.iter().map(|agent| agent.state().connections).sum::<u64>();
    let (mut unopenable, mut starting) = (0_u64, 0);
    for kill in 1..=kills {
        let (before, mut child) = (connections(), daemon.start());
        // By turns within the start (some 60 ms) and within the work.
        let span = if kill % 3 == 0 { 120_000 } else { 1_500_000 };
        std::thread::sleep(Duration::from_micros(draw(&entropy, span)));
        if kill == kills {
            let started = Instant::now();
            let served =
                || agents.iter().all(|agent| agent.state().acked.event.min(agent.state().acked.sample) > 0);
            while !served() && child.try_wait().unwrap().is_none() {
                assert!(started.elapsed() < STUCK, "nothing is acknowledged");
                std::thread::sleep(PACE);
            }
        }
        unopenable += u64::from(!daemon.kill(child));
        starting += u64::from(connections() == before);
        if kill % CHECK_EVERY == 0 || kill == kills {
            let store = daemon.open_store().unwrap_or_else(|error| panic!("after {kill} kills: {error}"));
            let mut found = Found::look(&store, &agents);
            found.wrong.extend(agents.iter().flat_map(|agent| agent.state().wrong));
            let acked = agents.iter().map(|agent| agent.state().acked);
            let (events, ticks) = acked.fold((0, 0), |sum, at| (sum.0 + at.event, sum.1 + at.sample));
            println!(
                "{kill} kills ({starting} while starting), acknowledged {events} events and {ticks} ticks: {} lost, \
                 {} duplicated, {unopenable} unopenable, {} wrong",
                found.lost,
                found.duplicated,
                found.wrong.len()
            );
            assert!(found.lost == 0 && found.duplicated == 0 && found.wrong.is_empty(), "{found:?}");
        }
    }
    assert_eq!(unopenable, 0);
    runtime.shutdown_background();
}

/// Kills while authority, store and everything else is being made for the first time.
#[test]
fn kill_loop_of_first_starts() {
    let (root, entropy) = (tempfile::tempdir().unwrap(), SeededEntropy::new(11));
    let daemon = Daemon::new(root.path().to_owned());
    let mut unopenable = 0_u64;
    for kill in 1..=kills() {
        let child = daemon.start();
        std::thread::sleep(Duration::from_micros(draw(&entropy, 250_000)));
        unopenable += u64::from(!daemon.kill(child));
        if kill % 3 == 0 {
            let mut child = daemon.start();
            daemon.wait_listening(&mut child);
            unopenable += u64::from(!daemon.kill(child));
            std::fs::remove_dir_all(daemon.dir.join("data")).unwrap();
        }
    }
    println!("{} kills of first starts: {unopenable} unopenable", kills());
    assert_eq!(unopenable, 0);
}
