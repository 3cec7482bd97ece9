//! What the end-to-end tests share: a site on real time, a lab on virtual time, clients with tokens, an agent made of
//! bare messages, and the built commands.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_aggregator::config::AggregatorConfig;
use evenkeel_aggregator::identity::ca::{Ca, Issued};
use evenkeel_aggregator::identity::roles::Role;
use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_proto::v1;
use evenkeel_proto::v1::agent_client::AgentClient;
use evenkeel_proto::v1::control_client::ControlClient;
use evenkeel_proto::v1::fleet_client::FleetClient;
use evenkeel_proto::v1::from_agent::Message;
use evenkeel_runtime::clock::SystemClock;
use evenkeel_runtime::random::SystemEntropy;
use evenkeel_tests::harness::{Site, real_time};
use evenkeel_tests::lab::{Options, VirtualLab};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status, Streaming};

/// Real time after which something is stuck.
pub const STUCK: Duration = Duration::from_secs(30);

/// A configuration for a free port of this machine.
pub fn config() -> AggregatorConfig {
    let mut config = AggregatorConfig { listen: ([127, 0, 0, 1], 0).into(), ..AggregatorConfig::default() };
    config.store.ballast_mib = 0;
    config
}

/// An aggregator on real time.
pub async fn site(dir: &Path, config: AggregatorConfig) -> Site {
    Site::start(dir, config, Arc::new(SystemClock::new()), 1).await.unwrap()
}

/// How a lab of a test runs: eight nodes on a free port, nothing wrong.
pub fn options(data: &Path) -> Options {
    Options {
        data: data.to_owned(),
        seed: 1,
        speed: 600,
        time: None,
        interval_s: 1,
        only_this_host: false,
        port: 0,
        faults: vec![],
        mode: evenkeel_core::Mode::Advise,
    }
}

/// A lab in virtual time, its aggregator configured as `change` says.
pub async fn lab(dir: &Path, change: impl FnOnce(&mut AggregatorConfig)) -> VirtualLab {
    VirtualLab::start_with(&options(dir), change).await.unwrap()
}

/// Lets a lab go on by so many samples of its agents: seconds, unless they sample less often.
pub async fn pass(lab: &VirtualLab, samples: u32) {
    for _ in 0..samples {
        lab.sample().await.unwrap();
        lab.decide().await.unwrap();
    }
}

/// The authority of a site.
pub fn authority(dir: &Path) -> Ca {
    Ca::open(&dir.join("aggregator/identity"), real_time(), Arc::new(SystemEntropy)).unwrap()
}

/// A certificate of a site's own authority for a node of cluster "lab".
pub fn certificate(dir: &Path, node: &str) -> Issued {
    let (cluster, node) = (ClusterId::new("lab").unwrap(), NodeId::new(node).unwrap());
    authority(dir).issue_agent(&cluster, &node, Duration::from_hours(1), real_time()).unwrap()
}

/// A connection to a site, with a client certificate or without.
pub async fn channel(site: &Site, certificate: Option<&Issued>) -> Result<Channel, tonic::transport::Error> {
    let ca = Certificate::from_pem(authority(&site.dir).ca_pem());
    let mut tls = ClientTlsConfig::new().ca_certificate(ca).domain_name("localhost");
    if let Some(Issued { cert_pem, key_pem }) = certificate {
        tls = tls.identity(Identity::from_pem(cert_pem, key_pem));
    }
    let address = format!("https://127.0.0.1:{}", site.aggregator.address.port());
    Endpoint::from_shared(address)?.tls_config(tls)?.connect().await
}

/// Puts a token on every call.
pub type Bearer = Box<dyn FnMut(Request<()>) -> Result<Request<()>, Status> + Send>;

/// Adds `token` to calls; none when it is empty.
pub fn bearer(token: &str) -> Bearer {
    let header = (!token.is_empty()).then(|| format!("Bearer {token}").parse().unwrap());
    Box::new(move |mut request| {
        if let Some(header) = &header {
            request.metadata_mut().insert("authorization", tonic::metadata::MetadataValue::clone(header));
        }
        Ok(request)
    })
}

/// A control client with this token.
pub async fn control(site: &Site, token: &str) -> ControlClient<InterceptedService<Channel, Bearer>> {
    ControlClient::with_interceptor(channel(site, None).await.unwrap(), bearer(token))
}

/// A control client with a new token of this role.
pub async fn control_as(site: &Site, role: Role) -> ControlClient<InterceptedService<Channel, Bearer>> {
    control(site, &site.token(role, &format!("the {role}")).unwrap()).await
}

/// A client of fleet detection with a new token of this role.
pub async fn fleet_as(site: &Site, role: Role) -> FleetClient<InterceptedService<Channel, Bearer>> {
    let token = site.token(role, &format!("the {role}")).unwrap();
    FleetClient::with_interceptor(channel(site, None).await.unwrap(), bearer(&token))
}

/// All anomalies of a site, newest first, as a viewer sees them.
pub async fn anomalies(site: &Site) -> Vec<v1::AnomalyView> {
    let mut viewer = control_as(site, Role::Viewer).await;
    let question = v1::ListAnomaliesRequest { since_ms: Some(0), ..Default::default() };
    viewer.list_anomalies(question).await.unwrap().into_inner().anomalies
}

/// An agent made of bare messages, which can say anything.
pub struct Wire {
    to: mpsc::Sender<v1::FromAgent>,
    from: Streaming<v1::ToAgent>,
}

impl Wire {
    /// Opens a stream with this certificate.
    pub async fn open(site: &Site, certificate: &Issued) -> Result<Self, Status> {
        let channel =
            channel(site, Some(certificate)).await.map_err(|error| Status::from_error(error.into()))?;
        let (to, outgoing) = mpsc::channel(16);
        let from = AgentClient::new(channel).stream(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Self { to, from })
    }

    /// Opens a stream and says hello.
    pub async fn greet(
        site: &Site,
        certificate: &Issued,
        hello: v1::Hello,
    ) -> Result<(Self, v1::HelloAck), Status> {
        let mut wire = Self::open(site, certificate).await?;
        wire.say(Message::Hello(hello)).await;
        match wire.hear().await? {
            Some(v1::to_agent::Message::Hello(ack)) => Ok((wire, ack)),
            other => panic!("no answer to hello: {other:?}"),
        }
    }

    /// Sends a message. That the stream has ended is learnt by [`Self::hear`].
    pub async fn say(&self, message: Message) {
        let _ = self.to.send(v1::FromAgent { message: Some(message) }).await;
    }

    /// The next answer; `None` at the end of the stream.
    pub async fn hear(&mut self) -> Result<Option<v1::to_agent::Message>, Status> {
        let next = tokio::time::timeout(STUCK, self.from.message()).await.expect("an answer or an end");
        Ok(next?.and_then(|answer| answer.message))
    }

    /// The status the stream ends with.
    pub async fn end(&mut self) -> Status {
        loop {
            match self.hear().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a word"),
                Err(status) => return status,
            }
        }
    }

    /// Waits until events or samples up to these numbers are acknowledged.
    pub async fn acknowledged(&mut self, event: u64, sample: u64) {
        loop {
            match self.hear().await.unwrap() {
                Some(v1::to_agent::Message::Ack(ack))
                    if ack.event_cursor >= event && ack.sample_cursor >= sample =>
                {
                    return;
                }
                Some(_) => {}
                None => panic!("the stream ended before event {event} and sample {sample} were acknowledged"),
            }
        }
    }
}

/// A hello of an agent whose next event and sample have these numbers.
pub fn hello(epoch: u8, next_event: u64, next_sample: u64) -> v1::Hello {
    v1::Hello {
        version_min: 1,
        version_max: 1,
        capabilities: evenkeel_proto::CAPABILITY_ZSTD,
        epoch: vec![epoch; 16],
        first_event: 1,
        next_event,
        first_sample: 1,
        next_sample,
        facts: Some(v1::NodeFacts { hostname: "some-host".into(), cpus: 4, ..v1::NodeFacts::default() }),
        guests: vec![],
        wall_ms: real_time().as_millis(),
        uptime_ms: 1_000,
        probe_port: 0,
        probe_peers: 0,
    }
}

/// One harmless event with this number.
pub fn event(seq: u64) -> Message {
    let kind = Some(v1::event::Kind::CollectorRecovered("cpu".into()));
    let event = v1::Event { at_ms: real_time().as_millis() + seq.cast_signed(), uptime_ms: seq, kind };
    Message::Events(v1::EventBatch { first_seq: seq, events: vec![event] })
}

/// The path of a built command. Cargo builds those of other packages only when they are asked for, so a missing one
/// is built here.
pub fn built(package: &str, name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join(name);
    if !path.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status =
            Command::new(cargo).args(["build", "--locked", "--quiet", "--package", package]).status();
        assert!(status.unwrap().success() && path.exists(), "{} can not be built", path.display());
    }
    path
}

/// Runs the aggregator's command.
pub fn aggregator(config: &Path, words: &[&str]) -> Output {
    let path = built("evenkeel-aggregator", "evenkeel-aggregator");
    Command::new(path).arg("--config").arg(config).args(words).output().unwrap()
}

/// Runs evenkeelctl; off the runtime's threads, so that the aggregator in this process can answer.
pub async fn ctl(config: PathBuf, words: &[&str]) -> Output {
    let path = built("evenkeel-cli", "evenkeelctl");
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let run = move || Command::new(path).arg("--config").arg(config).args(words).output().unwrap();
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// What a command said.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Waits until something is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(STUCK, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}
