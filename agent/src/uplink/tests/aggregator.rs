//! A small aggregator that keeps the delivery contract, except where a test tells it not to.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use evenkeel_common::columns::{Base, Columns};
use evenkeel_common::sample::SeriesKey;
use evenkeel_proto::v1;
use evenkeel_proto::v1::agent_server::{Agent, AgentServer};
use evenkeel_proto::v1::event::Kind;
use evenkeel_proto::v1::from_agent::Message;
use evenkeel_proto::v1::to_agent::Message as Answer;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use super::super::Target;

/// What it does wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// Ends each stream after this many messages.
    pub(super) cut_after: Option<usize>,
    /// Sends only one of this many acknowledgements; 0 = all.
    pub(super) drop_acks: usize,
    /// Acknowledges no samples.
    pub(super) withhold_acks: bool,
    /// Acknowledges far more than it got.
    pub(super) wild_acks: bool,
    /// Refuses streams, and ends those there are.
    pub(super) refuse: bool,
    /// Credit other than plenty.
    pub(super) credit: Option<u64>,
    /// Interval to set.
    pub(super) interval_ms: u32,
}

#[derive(Debug, Default)]
pub(super) struct Epoch {
    pub(super) events: BTreeMap<u64, v1::Event>,
    pub(super) ticks: BTreeMap<u64, GotTick>,
    /// Ranges declared lost by a hello.
    pub(super) lost: Vec<(u64, u64)>,
    event_cursor: u64,
    sample_cursor: u64,
}

impl Epoch {
    pub(super) fn cursor(&self) -> (u64, u64) {
        (self.event_cursor, self.sample_cursor)
    }
}

#[derive(Debug)]
pub(super) struct GotTick {
    pub(super) uptime_ms: u64,
    pub(super) values: Vec<(SeriesKey, i64)>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) epochs: HashMap<Vec<u8>, Epoch>,
    pub(super) violations: Vec<String>,
    pub(super) connections: usize,
    pub(super) streams: usize,
    pub(super) live_views: usize,
    pub(super) live_uptime_ms: u64,
    pub(super) keyframes: usize,
    pub(super) zstd_batches: usize,
    pub(super) clock_probes: usize,
    pub(super) profiles: usize,
    pub(super) histories: Vec<v1::GuestHistory>,
    /// Bytes of the largest report.
    pub(super) largest_report: usize,
    /// Most ticks of backfill received beyond the last acknowledgement.
    pub(super) unacked_backfill: u64,
    acks: usize,
    faults: Faults,
}

impl State {
    /// Cursors of the epoch whose bytes are all `byte`.
    pub(super) fn cursor(&self, byte: u8) -> (u64, u64) {
        self.epochs.get(&vec![byte; 16]).map_or((0, 0), Epoch::cursor)
    }
}

pub(super) fn clock_jump(event: &v1::Event) -> i64 {
    match event.kind {
        Some(Kind::ClockJumpedMs(by_ms)) => by_ms,
        _ => panic!("not an event of the test: {event:?}"),
    }
}

pub(super) struct FakeAggregator {
    state: Arc<Mutex<State>>,
    acks: Arc<tokio::sync::Notify>,
    faults_changed: Arc<tokio::sync::watch::Sender<u64>>,
    port: u16,
    stop: CancellationToken,
    server: Option<tokio::task::JoinHandle<()>>,
}

impl FakeAggregator {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(listener, Server::builder()).await
    }

    pub(super) async fn start_tls(pki: &Pki) -> Self {
        evenkeel_runtime::tls::install_provider();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&pki.server_cert, &pki.server_key))
            .client_ca_root(Certificate::from_pem(&pki.ca));
        Self::serve(listener, Server::builder().tls_config(tls).unwrap()).await
    }

    async fn serve(listener: TcpListener, server: Server) -> Self {
        let mut this = Self {
            state: Arc::default(),
            acks: Arc::default(),
            faults_changed: Arc::new(tokio::sync::watch::channel(0).0),
            port: listener.local_addr().unwrap().port(),
            stop: CancellationToken::new(),
            server: None,
        };
        this.spawn(listener, server);
        this
    }

    fn spawn(&mut self, listener: TcpListener, mut server: Server) {
        let service = Service {
            state: self.state.clone(),
            acks: self.acks.clone(),
            changed: self.faults_changed.clone(),
            stop: self.stop.clone(),
        };
        let (router, stop) = (server.add_service(AgentServer::new(service)), self.stop.clone());
        self.server = Some(tokio::spawn(async move {
            let stopped = async move { stop.cancelled().await };
            router.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped).await.unwrap();
        }));
    }

    pub(super) async fn stop(&mut self) {
        self.stop.cancel();
        self.server.take().unwrap().await.unwrap();
    }

    pub(super) async fn restart(&mut self) {
        self.stop = CancellationToken::new();
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.spawn(listener, Server::builder());
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Without TLS.
    pub(super) fn target(&self) -> Target {
        let none = PathBuf::new();
        let address = format!("http://127.0.0.1:{}", self.port);
        Target { address, server_name: String::new(), ca: none.clone(), cert: none.clone(), key: none }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn set(&self, faults: Faults) {
        self.state().faults = faults;
        self.faults_changed.send_modify(|n| *n += 1);
    }

    /// Acknowledges what was withheld.
    pub(super) fn ack_now(&self) {
        self.acks.notify_one();
    }

    pub(super) fn pretend_cursor(&self, epoch: [u8; 16], event_cursor: u64, sample_cursor: u64) {
        let known = Epoch { event_cursor, sample_cursor, ..Epoch::default() };
        self.state().epochs.insert(epoch.to_vec(), known);
    }
}

struct Service {
    state: Arc<Mutex<State>>,
    acks: Arc<tokio::sync::Notify>,
    changed: Arc<tokio::sync::watch::Sender<u64>>,
    stop: CancellationToken,
}

#[tonic::async_trait]
impl Agent for Service {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<v1::ToAgent, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::FromAgent>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        if self.state.lock().unwrap().faults.refuse {
            return Err(Status::permission_denied("refused by the test"));
        }
        let (sender, receiver) = mpsc::channel(64);
        let connection = Connection {
            state: self.state.clone(),
            answers: sender,
            epoch: Vec::new(),
            dictionary: Vec::new(),
            base: Base::new(),
            acked: 0,
        };
        let (acks, stop, mut changed) = (self.acks.clone(), self.stop.clone(), self.changed.subscribe());
        tokio::spawn(async move {
            connection.state.lock().unwrap().streams += 1;
            let state = connection.state.clone();
            connection.serve(request.into_inner(), &acks, &stop, &mut changed).await;
            state.lock().unwrap().streams -= 1;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

struct Connection {
    state: Arc<Mutex<State>>,
    answers: mpsc::Sender<Result<v1::ToAgent, Status>>,
    epoch: Vec<u8>,
    dictionary: Vec<SeriesKey>,
    base: Base,
    acked: u64,
}

impl Connection {
    async fn serve(
        mut self,
        mut messages: Streaming<v1::FromAgent>,
        acks: &tokio::sync::Notify,
        stop: &CancellationToken,
        changed: &mut tokio::sync::watch::Receiver<u64>,
    ) {
        let mut count = 0;
        loop {
            let message = tokio::select! {
                message = messages.message() => message,
                () = stop.cancelled() => return,
                () = acks.notified() => {
                    self.acknowledge(true).await;
                    continue;
                }
                _ = changed.changed() => {
                    if self.state.lock().unwrap().faults.refuse {
                        return;
                    }
                    continue;
                }
            };
            let Ok(Some(v1::FromAgent { message: Some(message) })) = message else { return };
            let answer = self.take(message);
            if let Some(answer) = answer {
                self.say(answer).await;
            } else {
                self.acknowledge(false).await;
            }
            count += 1;
            if self.state.lock().unwrap().faults.cut_after.is_some_and(|most| count >= most) {
                return;
            }
        }
    }

    async fn say(&self, answer: Answer) {
        let _ = self.answers.send(Ok(v1::ToAgent { message: Some(answer) })).await;
    }

    async fn acknowledge(&mut self, anyway: bool) {
        let (event_cursor, mut sample_cursor, faults) = {
            let mut state = self.state.lock().unwrap();
            state.acks += 1;
            if state.faults.drop_acks > 0 && !state.acks.is_multiple_of(state.faults.drop_acks) {
                return;
            }
            let (events, samples) = state.epochs[&self.epoch].cursor();
            (events, samples, state.faults)
        };
        if faults.withhold_acks && !anyway {
            sample_cursor = self.acked;
        }
        if faults.wild_acks {
            sample_cursor += 1000;
        }
        self.acked = sample_cursor;
        self.say(Answer::Ack(v1::Ack { event_cursor, sample_cursor })).await;
    }

    /// Takes a message; some have an answer other than an acknowledgement.
    fn take(&mut self, message: Message) -> Option<Answer> {
        let shared = self.state.clone();
        let mut state = shared.lock().unwrap();
        match message {
            Message::Hello(hello) => return Some(self.hello(hello, &mut state)),
            Message::Series(added) => {
                assert_eq!(added.first_index as usize, self.dictionary.len());
                self.dictionary.extend(added.series.into_iter().map(|def| SeriesKey::try_from(def).unwrap()));
            }
            Message::Samples(batch) => self.samples(&batch, &mut state),
            Message::Events(batch) => {
                let epoch = state.epochs.get_mut(&self.epoch).unwrap();
                let mut violation = None;
                for (seq, event) in (batch.first_seq..).zip(batch.events) {
                    if seq == epoch.event_cursor + 1 {
                        epoch.event_cursor = seq;
                        epoch.events.insert(seq, event);
                    } else if seq > epoch.event_cursor {
                        violation = Some(format!("event {seq} after {}", epoch.event_cursor));
                    }
                }
                state.violations.extend(violation);
            }
            Message::Live(live) => {
                let series = live.series as usize;
                Columns::decode(&live.columns, series, 1, &mut Base::new(), 1 << 20).unwrap();
                state.live_views += 1;
                state.live_uptime_ms = live.uptime_ms;
            }
            Message::Profiles(report) => {
                state.profiles += report.profiles.len();
                state.largest_report = state.largest_report.max(prost::Message::encoded_len(&report));
                // What it is told it tells back, as if the agent lacked it.
                let answer = report.histories.first().cloned();
                state.histories.extend(report.histories);
                return answer.map(Answer::History);
            }
            Message::Clock(probe) => {
                state.clock_probes += 1;
                return Some(Answer::Clock(v1::ClockEcho {
                    agent_uptime_ms: probe.agent_uptime_ms,
                    aggregator_wall_ms: probe.agent_wall_ms,
                }));
            }
        }
        None
    }

    fn hello(&mut self, hello: v1::Hello, state: &mut State) -> Answer {
        self.epoch = hello.epoch.clone();
        state.connections += 1;
        let epoch = state.epochs.entry(hello.epoch).or_default();
        if hello.first_sample > epoch.sample_cursor + 1 {
            epoch.lost.push((epoch.sample_cursor + 1, hello.first_sample - 1));
            epoch.sample_cursor = hello.first_sample - 1;
        }
        epoch.event_cursor = epoch.event_cursor.max(hello.first_event - 1);
        self.acked = epoch.sample_cursor;
        Answer::Hello(v1::HelloAck {
            version: 1,
            capabilities: hello.capabilities,
            event_cursor: epoch.event_cursor,
            sample_cursor: epoch.sample_cursor,
            credit: state.faults.credit.unwrap_or(600),
            settings: Some(v1::Settings { interval_ms: state.faults.interval_ms, ..v1::Settings::default() }),
            cluster: "test".into(),
            node: "node".into(),
        })
    }

    fn samples(&mut self, batch: &v1::SampleBatch, state: &mut State) {
        let ticks = batch.ticks as usize;
        let plain = match batch.zstd {
            true => zstd::bulk::decompress(&batch.columns, 1 << 24).unwrap(),
            false => batch.columns.clone(),
        };
        if batch.keyframe {
            self.base.clear();
            state.keyframes += 1;
        }
        state.zstd_batches += usize::from(batch.zstd);
        let columns = Columns::decode(&plain, batch.series as usize, ticks, &mut self.base, 1 << 24).unwrap();
        assert_eq!(batch.last_seq - batch.first_seq + 1, u64::from(batch.ticks), "these are raw ticks");
        let unacked = batch.last_seq.saturating_sub(self.acked);
        if ticks > 1 {
            state.unacked_backfill = state.unacked_backfill.max(unacked);
        }
        let epoch = state.epochs.get_mut(&self.epoch).unwrap();
        if batch.first_seq > epoch.sample_cursor + 1 {
            state.violations.push(format!("tick {} after {}", batch.first_seq, epoch.sample_cursor));
            return;
        }
        for (tick, seq) in (batch.first_seq..=batch.last_seq).enumerate() {
            let values = self.dictionary.iter().enumerate();
            let values = values
                .filter_map(|(i, key)| columns.get(i, tick).map(|value| (key.clone(), value)))
                .collect();
            let uptime_ms = batch.uptime_ms + tick as u64 * u64::from(batch.step_ms);
            epoch.ticks.entry(seq).or_insert(GotTick { uptime_ms, values });
        }
        epoch.sample_cursor = epoch.sample_cursor.max(batch.last_seq);
    }
}

/// An authority with a certificate for the aggregator and one for an agent.
pub(super) struct Pki {
    folder: TempDir,
    ca: String,
    server_cert: String,
    server_key: String,
}

impl Pki {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = rcgen::CertifiedIssuer::self_signed(ca, ca_key).unwrap();
        let issue = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
            (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        };
        let (server_cert, server_key) = issue("aggregator.test");
        let (cert, key) = issue("agent.test");
        let ca = issuer.pem();
        for (name, text) in [("ca.pem", &ca), ("agent.pem", &cert), ("agent.key", &key)] {
            evenkeel_runtime::files::write_atomic(&folder.path().join(name), text.as_bytes(), 0o600).unwrap();
        }
        Self { folder, ca, server_cert, server_key }
    }

    pub(super) fn target(&self, port: u16) -> Target {
        let file = |name| self.folder.path().join(name);
        Target {
            address: format!("127.0.0.1:{port}"),
            server_name: "aggregator.test".into(),
            ca: file("ca.pem"),
            cert: file("agent.pem"),
            key: file("agent.key"),
        }
    }
}
