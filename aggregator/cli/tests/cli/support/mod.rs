//! An aggregator of canned answers behind real TLS and tokens, and the binary run against it.

pub mod canned;
pub mod execution;
mod fleet;
mod history;
mod whatif;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use evenkeel_proto::v1::control_server::{Control, ControlServer};
use evenkeel_proto::v1::execution_server::ExecutionServer;
use evenkeel_proto::v1::fleet_server::FleetServer;
use evenkeel_proto::v1::history_server::HistoryServer;
use evenkeel_proto::v1::whatif_server::WhatifServer;
use evenkeel_proto::v1::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

pub const VIEWER: &str = "ekt_viewer";
pub const OPERATOR: &str = "ekt_operator";

type Stream<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

/// What the aggregator does beside its canned answers.
#[derive(Default)]
pub struct Behaviour {
    /// What each opened stream of anomalies tells before it ends; the last one stays open.
    pub streams: Vec<Vec<AnomalyView>>,
    /// What an export sends.
    pub export: Vec<Result<Vec<u8>, Status>>,
    /// Instead of any list of guests.
    pub guests_fail: Option<Status>,
    /// Whether replays differ.
    pub replay_differs: bool,
    /// Since when anomalies were listed.
    pub listed_since: Vec<Option<i64>>,
}

/// A running aggregator with its files.
pub struct Aggregator {
    pub dir: TempDir,
    pub port: u16,
    pub behaviour: Arc<Mutex<Behaviour>>,
}

struct Fake(Arc<Mutex<Behaviour>>);

impl Aggregator {
    /// Starts one that knows [`VIEWER`] and [`OPERATOR`], and writes `ctl.toml` with the operator's token.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (ca, identity) = certificates(&["127.0.0.1", "aggregator.test"]);
        std::fs::write(dir.path().join("ca.pem"), ca).unwrap();
        let behaviour = Arc::new(Mutex::new(Behaviour::default()));
        let fake = Fake(behaviour.clone());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener).unwrap());
                Server::builder()
                    .tls_config(ServerTlsConfig::new().identity(identity))
                    .unwrap()
                    .add_service(ControlServer::new(fake))
                    .add_service(ExecutionServer::new(execution::FakeExecution))
                    .add_service(FleetServer::new(fleet::FakeFleet))
                    .add_service(HistoryServer::new(history::FakeHistory))
                    .add_service(WhatifServer::new(whatif::FakeWhatif))
                    .serve_with_incoming(incoming)
                    .await
                    .unwrap();
            });
        });
        let aggregator = Self { dir, port, behaviour };
        aggregator.use_token(OPERATOR);
        aggregator.use_config(&format!(
            "endpoint = \"https://127.0.0.1:{port}\"\nca_file = \"ca.pem\"\ntoken_file = \"token\"\n"
        ));
        aggregator
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn use_config(&self, text: &str) {
        std::fs::write(self.path("ctl.toml"), text).unwrap();
    }

    pub fn use_token(&self, token: &str) {
        std::fs::write(self.path("token"), format!("{token}\n")).unwrap();
        set_mode(&self.path("token"), 0o600);
    }

    /// The binary with this aggregator's configuration, 80 columns, UTF-8, and a zone with a name.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = bare();
        command.env("COLUMNS", "80").env("LANG", "C.UTF-8").env("TZ", "XYZ-1");
        command.arg("--config").arg(self.path("ctl.toml")).args(words);
        command
    }

    pub fn run(&self, words: &[&str]) -> Ran {
        Ran::of(self.command(words))
    }
}

pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The binary with an empty environment.
pub fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeelctl"));
    command.env_clear().env("HOME", "/nonexistent").stdin(Stdio::null());
    command
}

/// What a run came to.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(mut command: Command) -> Self {
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: status.code(), out: text(stdout), err: text(stderr) }
    }

    /// Fails, with this exit code and these words on standard error, in at most two lines and without a dump.
    #[track_caller]
    pub fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.out, "", "an error belongs on standard error");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in {}", self.err);
        }
        assert!(self.err.lines().count() <= 2, "{}", self.err);
        for dump in ["Error {", "Error(", "Some(", "Status {", "os error: ", "panicked"] {
            assert!(!self.err.contains(dump), "{}", self.err);
        }
    }

    #[track_caller]
    pub fn succeeds(self) -> Self {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{}", self.out);
        self
    }
}

/// A CA, and a server identity by it for these names.
pub fn certificates(names: &[&str]) -> (String, Identity) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = names
        .iter()
        .map(|name| match name.parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName((*name).try_into().unwrap()),
        })
        .collect();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    (ca.pem(), Identity::from_pem(certificate.pem(), key.serialize_pem()))
}

/// Who asks; refuses strangers as the aggregator does.
fn role<T>(request: &Request<T>) -> Result<&'static str, Status> {
    match request.metadata().get("authorization").and_then(|value| value.to_str().ok()) {
        Some("Bearer ekt_viewer") => Ok("viewer"),
        Some("Bearer ekt_operator") => Ok("operator"),
        _ => Err(Status::unauthenticated("unknown token")),
    }
}

fn operator<T>(request: &Request<T>) -> Result<(), Status> {
    match role(request)? {
        "operator" => Ok(()),
        role => Err(Status::permission_denied(format!("your role is {role}, this needs operator"))),
    }
}

fn answer<T, A>(request: &Request<T>, answer: A) -> Result<Response<A>, Status> {
    role(request)?;
    Ok(Response::new(answer))
}

#[tonic::async_trait]
impl Control for Fake {
    type WatchAnomaliesStream = Stream<AnomalyView>;
    type WatchDecisionsStream = Stream<Decision>;
    type ExportStream = Stream<ExportChunk>;

    async fn get_status(&self, r: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let role = role(&r)?;
        answer(&r, GetStatusResponse { role: role.into(), ..canned::status() })
    }

    async fn list_nodes(&self, r: Request<ListNodesRequest>) -> Result<Response<ListNodesResponse>, Status> {
        let q = r.get_ref();
        let mut nodes = canned::nodes();
        nodes.retain(|n| {
            (q.node.is_empty() || n.node == q.node) && (q.cluster.is_empty() || n.cluster == q.cluster)
        });
        answer(&r, ListNodesResponse { nodes })
    }

    async fn list_guests(
        &self,
        r: Request<ListGuestsRequest>,
    ) -> Result<Response<ListGuestsResponse>, Status> {
        if let Some(status) = self.0.lock().unwrap().guests_fail.clone() {
            return Err(status);
        }
        let q = r.get_ref();
        let mut guests = canned::guests();
        guests.retain(|g| (q.vmid == 0 || g.vmid == q.vmid) && (q.node.is_empty() || g.node == q.node));
        answer(&r, ListGuestsResponse { guests })
    }

    async fn list_profiles(
        &self,
        r: Request<ListProfilesRequest>,
    ) -> Result<Response<ListProfilesResponse>, Status> {
        let q = r.get_ref();
        let mut profiles = canned::profiles();
        profiles.retain(|p| q.vmid == 0 || p.vmid == q.vmid);
        answer(&r, ListProfilesResponse { profiles })
    }

    async fn list_anomalies(
        &self,
        r: Request<ListAnomaliesRequest>,
    ) -> Result<Response<ListAnomaliesResponse>, Status> {
        let q = r.get_ref();
        self.0.lock().unwrap().listed_since.push(q.since_ms);
        let mut anomalies = canned::anomalies();
        anomalies.retain(|a| {
            q.since_ms.is_none_or(|since| a.closed_ms.is_none_or(|closed| closed >= since))
                && (!q.open_only || a.state == "open")
                && (q.vmid == 0 || a.vmid == Some(q.vmid))
        });
        answer(&r, ListAnomaliesResponse { anomalies, truncated: false })
    }

    async fn watch_anomalies(
        &self,
        r: Request<ListAnomaliesRequest>,
    ) -> Result<Response<Stream<AnomalyView>>, Status> {
        let mut behaviour = self.0.lock().unwrap();
        if behaviour.streams.is_empty() {
            return Err(Status::resource_exhausted("no stream prepared"));
        }
        let entries = behaviour.streams.remove(0).into_iter().map(Ok);
        let entries = tokio_stream::iter(entries);
        if behaviour.streams.is_empty() {
            use tokio_stream::StreamExt as _;
            return answer(&r, Box::pin(entries.chain(tokio_stream::pending())) as Stream<AnomalyView>);
        }
        answer(&r, Box::pin(entries) as Stream<AnomalyView>)
    }

    async fn list_decisions(
        &self,
        r: Request<ListDecisionsRequest>,
    ) -> Result<Response<ListDecisionsResponse>, Status> {
        let q = r.get_ref();
        let mut decisions = canned::decisions();
        decisions.retain(|d| {
            q.since_ms.is_none_or(|since| d.at_ms >= since)
                && (q.vmid == 0 || d.guest == q.vmid)
                && (q.action.is_empty() || d.action == q.action)
        });
        answer(&r, ListDecisionsResponse { decisions, truncated: false })
    }

    async fn watch_decisions(
        &self,
        r: Request<ListDecisionsRequest>,
    ) -> Result<Response<Stream<Decision>>, Status> {
        use tokio_stream::StreamExt as _;
        let entries = tokio_stream::iter(canned::decisions().into_iter().map(Ok));
        answer(&r, Box::pin(entries.chain(tokio_stream::pending())) as Stream<Decision>)
    }

    async fn explain(&self, r: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        answer(&r, canned::explain(r.get_ref())?)
    }

    async fn replay(&self, r: Request<ReplayRequest>) -> Result<Response<ReplayResponse>, Status> {
        answer(&r, canned::replay(self.0.lock().unwrap().replay_differs))
    }

    async fn pause(&self, r: Request<PauseRequest>) -> Result<Response<PauseResponse>, Status> {
        operator(&r)?;
        answer(&r, PauseResponse { clusters: vec!["lab".into(), "local".into()] })
    }

    async fn resume(&self, r: Request<ResumeRequest>) -> Result<Response<ResumeResponse>, Status> {
        operator(&r)?;
        answer(&r, ResumeResponse { clusters: vec!["lab".into(), "local".into()] })
    }

    async fn export(&self, r: Request<ExportRequest>) -> Result<Response<Stream<ExportChunk>>, Status> {
        let chunks = self.0.lock().unwrap().export.clone();
        let chunks =
            tokio_stream::iter(chunks.into_iter().map(|chunk| chunk.map(|data| ExportChunk { data })));
        answer(&r, Box::pin(chunks) as Stream<ExportChunk>)
    }

    async fn simulate(&self, r: Request<SimulateRequest>) -> Result<Response<SimulateResponse>, Status> {
        operator(&r)?;
        answer(&r, SimulateResponse { drill: canned::drills().into_iter().next() })
    }

    async fn clear_drills(
        &self,
        r: Request<ClearDrillsRequest>,
    ) -> Result<Response<ClearDrillsResponse>, Status> {
        operator(&r)?;
        answer(&r, ClearDrillsResponse { cleared: vec!["d1795223900000".into()] })
    }

    async fn list_drills(
        &self,
        r: Request<ListDrillsRequest>,
    ) -> Result<Response<ListDrillsResponse>, Status> {
        answer(&r, ListDrillsResponse { drills: canned::drills() })
    }
}
