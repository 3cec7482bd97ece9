//! The way to the aggregator: one gRPC stream over mTLS, kept up for as long as the agent runs.
//!
//! [`Lanes`] hold what is to be told; [`run`] connects, lets a session pick what goes next, frees what is
//! acknowledged, and reconnects. A lost connection loses nothing: whatever is not acknowledged is still in the
//! lanes, and the next hello asks where to go on.

mod backoff;
mod lanes;
mod ring;
mod session;
#[cfg(test)]
mod tests;

pub use lanes::{Lanes, Settings, SharedLanes};

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_proto::v1;
use evenkeel_proto::v1::agent_client::AgentClient;
use evenkeel_proto::v1::from_agent::Message;
use evenkeel_proto::v1::to_agent::Message as Answer;
use evenkeel_runtime::clock::{self, Clock};
use evenkeel_runtime::random::{self, Entropy};
use evenkeel_runtime::tls::{TlsError, TlsMaterial};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status, Streaming};

use backoff::Backoff;
use session::{BadAck, Restart, Session};

/// Connecting and the exchange of hellos take no longer than this.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A ping on an idle connection, and how long its answer may take: half-open links are found in 15 s.
const PING_AFTER: Duration = Duration::from_secs(10);
const PONG_LIMIT: Duration = Duration::from_secs(5);
/// Between clock probes.
const CLOCK_PROBE: Duration = Duration::from_secs(10);
/// A stream that lasted this long was good; the next wait is short again.
const STABLE: Duration = Duration::from_secs(30);
/// Beyond this the aggregator will not let the node take part in decisions.
const SKEW_MS: i64 = 2000;
/// Messages handed to the transport ahead of time. More would only grow stale there.
const AHEAD: usize = 2;
/// What the aggregator sends is small.
const MAX_ANSWER: usize = 64 << 10;
/// Windows for what the aggregator sends.
const WINDOW: u32 = 64 << 10;

/// Where the aggregator is and how to prove who we are.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port`.
    pub address: String,
    /// Name that the aggregator's certificate must bear.
    pub server_name: String,
    /// PEM file of the authority that issued the aggregator's certificate.
    pub ca: PathBuf,
    /// PEM file of this agent's certificate.
    pub cert: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
}

impl Target {
    /// Whether the files are there and fit.
    ///
    /// # Errors
    /// [`TlsError`], with the remedy.
    pub fn check(&self) -> Result<(), TlsError> {
        TlsMaterial::read(&self.cert, &self.key, &self.ca).map(drop)
    }

    /// Files are read anew for each connection, so a renewed certificate needs no restart.
    fn endpoint(&self) -> Result<Endpoint, Failure> {
        #[cfg(test)]
        if self.address.starts_with("http://") {
            return Ok(Endpoint::from_shared(self.address.clone())?);
        }
        let TlsMaterial { cert_pem, key_pem, ca_pem } = TlsMaterial::read(&self.cert, &self.key, &self.ca)?;
        let tls = ClientTlsConfig::new()
            .domain_name(&self.server_name)
            .ca_certificate(Certificate::from_pem(ca_pem))
            .identity(Identity::from_pem(cert_pem, key_pem));
        Ok(Endpoint::from_shared(format!("https://{}", self.address))?.tls_config(tls)?)
    }
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("this agent's certificate can not be used")]
    Tls(#[from] TlsError),
    #[error("no connection to the aggregator")]
    Transport(#[from] tonic::transport::Error),
    #[error("{}", explain(.0))]
    Refused(Status),
    #[error("the aggregator did not answer within {} s", CONNECT_LIMIT.as_secs())]
    Slow,
    #[error("the aggregator closed the stream")]
    Closed,
    #[error("the aggregator does not speak this protocol: {0}")]
    Protocol(&'static str),
    #[error(transparent)]
    BadAck(#[from] BadAck),
    /// Not wrong: connect again at once.
    #[error("a new stream is needed: {0:?}")]
    Restart(Restart),
    #[error(
        "the aggregator knows higher numbers than this spool gave; a new epoch begins. Was an old state_dir put back?"
    )]
    StaleSpool,
}

impl Failure {
    /// Whether only a person can lift it.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Tls(_) | Self::Protocol(_) | Self::BadAck(_) => true,
            Self::Refused(status) => {
                matches!(
                    status.code(),
                    Code::PermissionDenied | Code::Unauthenticated | Code::FailedPrecondition
                )
            }
            Self::Transport(_) | Self::Slow | Self::Closed | Self::Restart(_) | Self::StaleSpool => false,
        }
    }
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// A status with what to do about it.
fn explain(status: &Status) -> String {
    let remedy = match status.code() {
        Code::Unauthenticated => {
            "; the aggregator does not accept this agent's certificate, give it one issued by the aggregator's authority"
        }
        Code::PermissionDenied => {
            "; the certificate's cluster or node may not connect, see the aggregator's log"
        }
        Code::FailedPrecondition => "; update the older of agent and aggregator",
        _ => "",
    };
    format!("the aggregator ended the stream ({}): {}{remedy}", status.code(), status.message())
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

/// Keeps a stream to `target` until `shutdown`. What happens to the stream is logged when it changes.
pub async fn run(
    target: Target,
    lanes: SharedLanes,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    shutdown: CancellationToken,
) {
    let uplink = Uplink { target, lanes, clock, entropy };
    let mut backoff = Backoff::default();
    let mut told = String::new();
    while !shutdown.is_cancelled() {
        let mut connected_at = None;
        let failure = tokio::select! {
            () = shutdown.cancelled() => return,
            Err(failure) = uplink.stream(&mut connected_at) => failure,
        };
        let lasted = connected_at.map(|at| uplink.clock.uptime().saturating_sub(at));
        if connected_at.is_some() {
            told.clear();
        }
        if lasted.is_some_and(|lasted| lasted >= STABLE) {
            backoff.reset();
        }
        if let Failure::Restart(why) = failure {
            tracing::debug!(?why, "beginning a new stream");
            continue;
        }
        let text = chain(&failure);
        if text == told {
            tracing::debug!(error = text, "still no stream to the aggregator");
        } else {
            tracing::warn!(error = text, "no stream to the aggregator; samples and events are kept");
            told = text;
        }
        let wait = backoff.next(failure.is_refusal(), &*uplink.entropy);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = clock::sleep(&*uplink.clock, wait) => {}
        }
    }
}

struct Uplink {
    target: Target,
    lanes: SharedLanes,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Uplink {
    /// One stream, from connecting to its end, which is always a failure. `connected_at` becomes the uptime at
    /// which both hellos were said.
    async fn stream(&self, connected_at: &mut Option<Duration>) -> Result<std::convert::Infallible, Failure> {
        let endpoint = self
            .target
            .endpoint()?
            .connect_timeout(CONNECT_LIMIT)
            .http2_keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PONG_LIMIT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .tcp_nodelay(true);
        let greeting = tokio::time::timeout(CONNECT_LIMIT, self.greet(endpoint));
        let (sender, mut answers, mut session) = greeting.await.map_err(|_| Failure::Slow)??;
        *connected_at = Some(self.clock.uptime());
        let mut probe = self.clock.sleep_until(self.clock.uptime());
        let mut skewed = false;
        loop {
            let ready = session.ready(&mut self.lanes.lock()).map_err(Failure::Restart)?;
            tokio::select! {
                answer = answers.message() => {
                    let answer = answer?.ok_or(Failure::Closed)?;
                    self.handle(answer, &mut session, &mut skewed)?;
                }
                permit = sender.reserve(), if ready => {
                    let permit = permit.map_err(|_| Failure::Closed)?;
                    if let Some(message) = session.take() {
                        permit.send(message);
                    }
                }
                () = self.lanes.changed(), if !ready => {}
                () = &mut probe => {
                    session.say(Message::Clock(v1::ClockProbe {
                        agent_uptime_ms: self.uptime_ms(),
                        agent_wall_ms: self.clock.now().as_millis(),
                    }));
                    probe = clock::sleep(&*self.clock, CLOCK_PROBE);
                }
            }
        }
    }

    /// Connects and exchanges hellos.
    async fn greet(
        &self,
        endpoint: Endpoint,
    ) -> Result<(mpsc::Sender<v1::FromAgent>, Streaming<v1::ToAgent>, Session), Failure> {
        let mut client = AgentClient::new(endpoint.connect().await?).max_decoding_message_size(MAX_ANSWER);
        let hello = self.lanes.lock().hello(self.clock.now().as_millis(), self.uptime_ms());
        let (sender, receiver) = mpsc::channel(AHEAD);
        let message = v1::FromAgent { message: Some(Message::Hello(hello.clone())) };
        sender.send(message).await.map_err(|_| Failure::Closed)?;
        let mut answers = client.stream(ReceiverStream::new(receiver)).await?.into_inner();
        let ack = match answers.message().await?.ok_or(Failure::Closed)?.message {
            Some(Answer::Hello(ack)) => ack,
            _ => return Err(Failure::Protocol("its first message is no hello")),
        };
        if ack.version < hello.version_min || ack.version > hello.version_max {
            return Err(Failure::Protocol("it chose a version this agent did not offer"));
        }
        if ack.event_cursor >= hello.next_event || ack.sample_cursor >= hello.next_sample {
            if let Ok(epoch) = random::bytes(&*self.entropy) {
                self.lanes.lock().renew_epoch(epoch);
            }
            return Err(Failure::StaleSpool);
        }
        tracing::info!(cluster = ack.cluster, node = ack.node, "connected to the aggregator");
        let mut lanes = self.lanes.lock();
        let settings = ack.settings.clone().unwrap_or_default();
        lanes.set_settings(Settings::received(settings, self.clock.uptime()));
        let session = Session::new(&hello, &ack, &mut lanes);
        Ok((sender, answers, session))
    }

    fn handle(&self, answer: v1::ToAgent, session: &mut Session, skewed: &mut bool) -> Result<(), Failure> {
        match answer.message {
            Some(Answer::Ack(ack)) => session.acknowledged(ack, &mut self.lanes.lock())?,
            Some(Answer::Credit(credit)) => session.granted(credit),
            Some(Answer::Settings(settings)) => {
                let settings = Settings::received(settings, self.clock.uptime());
                self.lanes.lock().set_settings(settings);
            }
            Some(Answer::History(history)) => self.lanes.lock().arrive(history),
            Some(Answer::Clock(echo)) => self.compare_clocks(echo, skewed),
            Some(Answer::Hello(_)) => return Err(Failure::Protocol("a second hello")),
            None => {} // Of a newer aggregator.
        }
        Ok(())
    }

    /// Logs when this node's wall clock and the aggregator's part, and when they meet again.
    fn compare_clocks(&self, echo: v1::ClockEcho, skewed: &mut bool) {
        let round_trip_ms = self.uptime_ms().saturating_sub(echo.agent_uptime_ms);
        let then = self.clock.now().before(Duration::from_millis(round_trip_ms / 2));
        let skew_ms = then.as_millis().saturating_sub(echo.aggregator_wall_ms);
        let now_skewed = skew_ms.abs() > SKEW_MS;
        if now_skewed && !*skewed {
            tracing::warn!(skew_ms, "this node's clock differs from the aggregator's; check chrony on both");
        } else if *skewed && !now_skewed {
            tracing::info!(skew_ms, "this node's clock agrees with the aggregator's again");
        }
        *skewed = now_skewed;
    }

    fn uptime_ms(&self) -> u64 {
        u64::try_from(self.clock.uptime().as_millis()).unwrap_or(u64::MAX)
    }
}
