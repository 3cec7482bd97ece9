//! The gRPC side of ingest: one task per agent's stream.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel_proto::v1;
use evenkeel_proto::v1::agent_server::Agent;
use evenkeel_runtime::clock::{self, Clock};
use evenkeel_runtime::tls::AgentIdentity;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::config::IngestConfig;
use super::dictionary::SeriesTable;
use super::greeting::Greeting;
use super::histories::Histories;
use super::ledger::{Counts, series_table};
use super::live::Live;
use super::past::{Lacking, Past};
use super::session::{Session, Welcome};
use super::steering::Steering;
use super::writer::{AckSender, Cursors, Job, Work, Writer};
use crate::store::Store;
use crate::store::records::NodeKey;

/// Real time a new stream has for its hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Real time in which changes of settings gather before an agent is told.
const COALESCE: Duration = Duration::from_millis(200);
/// Answers that may wait for a slow agent before its stream stops being read.
const ANSWERS: usize = 64;

/// Everything a stream needs; cheap to clone.
#[derive(Clone)]
pub struct AgentService {
    shared: Arc<Shared>,
}

struct Shared {
    config: IngestConfig,
    live: Arc<Live>,
    store: Arc<dyn Store>,
    writer: Writer,
    clock: Arc<dyn Clock>,
    counts: Arc<Counts>,
    tables: Mutex<BTreeMap<NodeKey, Arc<SeriesTable>>>,
    sessions: AtomicU64,
    places: Arc<Semaphore>,
    steering: Arc<Steering>,
    histories: Arc<Histories>,
    stop: CancellationToken,
}

impl AgentService {
    /// The service. It ends its streams, with their last blocks written, when `stop` is cancelled.
    #[must_use]
    #[allow(clippy::too_many_arguments)] // Wired in one place, by name.
    pub fn new(
        config: IngestConfig,
        live: Arc<Live>,
        store: Arc<dyn Store>,
        writer: Writer,
        clock: Arc<dyn Clock>,
        counts: Arc<Counts>,
        steering: Arc<Steering>,
        histories: Arc<Histories>,
        stop: CancellationToken,
    ) -> Self {
        let places = Arc::new(Semaphore::new(config.max_streams as usize));
        let (tables, sessions) = (Mutex::default(), AtomicU64::new(0));
        Self {
            shared: Arc::new(Shared {
                config,
                live,
                store,
                writer,
                clock,
                counts,
                tables,
                sessions,
                places,
                steering,
                histories,
                stop,
            }),
        }
    }
}

#[tonic::async_trait]
impl Agent for AgentService {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<v1::ToAgent, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::FromAgent>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        // Put there by the authorisation layer from the client certificate: the only word on who this is.
        let identity = request.extensions().get::<AgentIdentity>().cloned().ok_or_else(|| {
            Status::unauthenticated("an agent needs a client certificate of this aggregator's authority")
        })?;
        let place = Arc::clone(&self.shared.places).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted("too many agents are connected: raise ingest.max_streams")
        })?;
        let peer = request.remote_addr().map(|address| address.ip().to_canonical());
        let (answers, receiver) = mpsc::channel(ANSWERS);
        let shared = Arc::clone(&self.shared);
        let messages = request.into_inner();
        tokio::spawn(async move {
            let _place = place;
            let AgentIdentity { cluster, node, .. } = identity;
            let key = NodeKey { cluster: cluster.clone(), node: node.clone() };
            if let Err(status) = shared.serve(&key, peer, messages, &answers).await {
                tracing::warn!(%cluster, %node, code = ?status.code(), reason = status.message(), "agent stream ended");
                // The agent may be gone; then nobody reads the reason.
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

type Answers = mpsc::Sender<Result<v1::ToAgent, Status>>;

/// What a stream's agent was told to do.
struct Told {
    changes: watch::Receiver<u64>,
    /// The change that was told.
    seen: u64,
    /// When the next is told, once there is one.
    due: Option<Instant>,
    settings: v1::Settings,
}

impl Told {
    /// Waits for a change, and a little longer: when many nodes come and go at once, each is told once. Loses
    /// nothing when it is dropped half way.
    async fn changed(&mut self) {
        let seen = self.seen;
        let due = match self.due {
            Some(due) => due,
            None => {
                if self.changes.wait_for(|version| *version != seen).await.is_err() {
                    std::future::pending::<()>().await;
                }
                *self.due.insert(Instant::now() + COALESCE)
            }
        };
        tokio::time::sleep_until(due).await;
        self.due = None;
        self.seen = *self.changes.borrow();
    }

    /// Whether these settings differ from those told by more than the time that has passed.
    fn is_news(&self, settings: &v1::Settings) -> bool {
        let timeless = |settings: &v1::Settings| {
            let mut settings = settings.clone();
            settings.drills.iter_mut().for_each(|drill| drill.ms = 0);
            settings
        };
        timeless(settings) != timeless(&self.settings)
    }
}

impl Shared {
    async fn serve(
        &self,
        key: &NodeKey,
        peer: Option<IpAddr>,
        mut messages: Streaming<v1::FromAgent>,
        answers: &Answers,
    ) -> Result<(), Status> {
        let NodeKey { cluster, node } = key;
        let greeting = hello(&mut messages).await?;
        let (epoch, capabilities, probe) = (greeting.epoch, greeting.capabilities, greeting.probe);
        let number = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        let cell = self.live.node(cluster, node);
        // From here on an older stream of this node takes nothing any more, so the cursors stand still.
        cell.lock().session = number;
        let table = self.table(key).await?;
        let durable = self.writer.cursors(key.clone(), epoch).await.map_err(unavailable)?;
        let (mut session, welcome) =
            Session::begin(number, greeting, durable, cell, table, &self.config, self.clock.now());
        session = session.with_past(Past::new(Arc::clone(&self.histories), key.clone()));
        let Welcome { cursors, work } = welcome;
        let (ack, mut durable) = watch::channel(Some(durable));
        let ack = Arc::new(ack);
        for work in work {
            self.submit(key, &session, work, &ack).await?;
        }
        if let (Some((port, asks)), Some(ip)) = (probe, peer) {
            self.steering.join(key, SocketAddr::new(ip, port), asks, number);
        } else {
            self.steering.leave(key, number);
        }
        let changes = self.steering.changes();
        let seen = *changes.borrow();
        let mut told = Told { changes, seen, due: None, settings: self.settings(key) };
        let welcome = self.hello_ack(key, capabilities, cursors, told.settings.clone());
        let outcome = match send(answers, welcome).await {
            Ok(()) => {
                let Cursors { event, sample } = cursors;
                tracing::info!(%cluster, %node, event, sample, "agent connected");
                self.exchange(key, &mut session, &mut messages, answers, &ack, &mut durable, &mut told).await
            }
            gone => gone,
        };
        if probe.is_some() {
            self.linger(key.clone(), number);
        }
        if session.disconnect()
            && let Some(work) = session.finish()
        {
            self.submit(key, &session, work, &ack).await?;
        }
        outcome
    }

    fn settings(&self, key: &NodeKey) -> v1::Settings {
        self.steering.settings(key, self.clock.uptime())
    }

    /// Takes a node out of the mesh some time after it has left, if it has not come back.
    fn linger(&self, key: NodeKey, session: u64) {
        let linger = Duration::from_secs(self.config.probe_linger_secs.into());
        let over = clock::sleep(&*self.clock, linger);
        let (steering, stop) = (Arc::clone(&self.steering), self.stop.clone());
        tokio::spawn(async move {
            if stop.run_until_cancelled(over).await.is_some() {
                steering.leave(&key, session);
            }
        });
    }

    #[allow(clippy::too_many_arguments)] // The parts of one stream, each borrowed by itself.
    async fn exchange(
        &self,
        key: &NodeKey,
        session: &mut Session,
        messages: &mut Streaming<v1::FromAgent>,
        answers: &Answers,
        ack: &Arc<AckSender>,
        durable: &mut watch::Receiver<Option<Cursors>>,
        told: &mut Told,
    ) -> Result<(), Status> {
        loop {
            let message = tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                changed = durable.changed() => {
                    changed.map_err(|_| Status::unavailable("the aggregator is stopping"))?;
                    let cursors = (*durable.borrow_and_update())
                        .ok_or_else(|| Status::aborted("numbers do not continue what is stored: reconnect"))?;
                    send(answers, ack_message(cursors)).await?;
                    continue;
                }
                _ = told.changed() => {
                    let settings = self.settings(key);
                    if told.is_news(&settings) {
                        told.settings = settings.clone();
                        send(answers, v1::to_agent::Message::Settings(settings)).await?;
                    }
                    continue;
                }
                message = messages.message() => message?,
            };
            let Some(message) = message.and_then(|m| m.message) else { return Ok(()) };
            if let v1::from_agent::Message::Clock(probe) = &message {
                let now = self.clock.now().as_millis();
                let echo = v1::ClockEcho { agent_uptime_ms: probe.agent_uptime_ms, aggregator_wall_ms: now };
                session.note_skew(probe.agent_wall_ms.saturating_sub(now));
                send(answers, v1::to_agent::Message::Clock(echo)).await?;
            }
            for work in session.take(message, self.clock.uptime())? {
                self.submit(key, session, work, ack).await?;
            }
            for lacking in session.past().map(Past::take_lacking).unwrap_or_default() {
                self.hand_on(key, session, lacking, answers).await?;
            }
            let (duplicates, samples) = session.take_counts();
            self.counts.duplicates.fetch_add(duplicates, Ordering::Relaxed);
            self.counts.samples.fetch_add(samples, Ordering::Relaxed);
        }
    }

    /// Sends an agent what it lacks of a guest's past, once. While the guest still runs elsewhere too, a migration is
    /// under way, and the better part of its history is to come.
    async fn hand_on(
        &self,
        key: &NodeKey,
        session: &mut Session,
        lacking: Lacking,
        answers: &Answers,
    ) -> Result<(), Status> {
        let vmid = lacking.seen.guest.vmid;
        let elsewhere = self.live.cluster(&key.cluster).iter().any(|(node, cell)| {
            let live = cell.lock();
            *node != key.node && live.connected && live.guests.contains_key(&vmid)
        });
        if elsewhere {
            return Ok(());
        }
        let (histories, wanted) = (Arc::clone(&self.histories), lacking.clone());
        let news = tokio::task::spawn_blocking(move || histories.news(&wanted.seen, wanted.started_at));
        let news = news.await.map_err(|_| Status::internal("reading a guest's history broke off"))?;
        let Some(history) = news.map_err(|error| Status::internal(error.to_string()))? else { return Ok(()) };
        if !session.past().is_some_and(|past| past.is_new(&lacking, &history)) {
            return Ok(());
        }
        let started_at_ms = lacking.started_at.as_millis();
        let message = v1::GuestHistory { vmid: vmid.get(), history, started_at_ms };
        send(answers, v1::to_agent::Message::History(message)).await
    }

    async fn submit(
        &self,
        node: &NodeKey,
        session: &Session,
        work: Work,
        ack: &Arc<AckSender>,
    ) -> Result<(), Status> {
        let job = Job { node: node.clone(), epoch: session.epoch(), work, ack: Arc::clone(ack) };
        self.writer.submit(job).await.map_err(unavailable)
    }

    async fn table(&self, key: &NodeKey) -> Result<Arc<SeriesTable>, Status> {
        let known = |tables: &BTreeMap<NodeKey, Arc<SeriesTable>>| tables.get(key).cloned();
        if let Some(table) = known(&self.tables.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(table);
        }
        let (store, node) = (Arc::clone(&self.store), key.clone());
        let loaded = tokio::task::spawn_blocking(move || series_table(store.as_ref(), &node))
            .await
            .map_err(|_| Status::internal("reading the series table broke off"))?
            .map_err(|error| Status::internal(error.to_string()))?;
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        // Another stream may have been faster; there must be one table per node.
        Ok(Arc::clone(tables.entry(key.clone()).or_insert_with(|| Arc::new(loaded))))
    }

    fn hello_ack(
        &self,
        key: &NodeKey,
        capabilities: u64,
        cursors: Cursors,
        settings: v1::Settings,
    ) -> v1::to_agent::Message {
        v1::to_agent::Message::Hello(v1::HelloAck {
            version: evenkeel_proto::VERSIONS.1,
            capabilities,
            event_cursor: cursors.event,
            sample_cursor: cursors.sample,
            credit: self.config.backfill_credit.into(),
            settings: Some(settings),
            cluster: key.cluster.to_string(),
            node: key.node.to_string(),
        })
    }
}

async fn hello(messages: &mut Streaming<v1::FromAgent>) -> Result<Greeting, Status> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, messages.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no hello within 10 s"))??;
    match first.and_then(|m| m.message) {
        Some(v1::from_agent::Message::Hello(hello)) => Greeting::check(hello),
        _ => Err(Status::invalid_argument("the first message must be a hello")),
    }
}

fn ack_message(cursors: Cursors) -> v1::to_agent::Message {
    v1::to_agent::Message::Ack(v1::Ack { event_cursor: cursors.event, sample_cursor: cursors.sample })
}

async fn send(answers: &Answers, message: v1::to_agent::Message) -> Result<(), Status> {
    let message = v1::ToAgent { message: Some(message) };
    answers.send(Ok(message)).await.map_err(|_| Status::cancelled("the agent is gone"))
}

fn unavailable(error: super::writer::WriterGone) -> Status {
    Status::unavailable(error.to_string())
}
