//! The only place that names concrete parts and wires them. No logic.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::id::{ClusterId, InvalidId};
use evenkeel_common::time::Timestamp;
use evenkeel_proto::v1::agent_server::AgentServer;
use evenkeel_proto::v1::control_server::ControlServer;
use evenkeel_proto::v1::execution_server::ExecutionServer;
use evenkeel_proto::v1::fleet_server::FleetServer;
use evenkeel_proto::v1::history_server::HistoryServer;
use evenkeel_proto::v1::whatif_server::WhatifServer;
use evenkeel_runtime::clock::Clock;
use evenkeel_runtime::random::Entropy;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::config::{AggregatorConfig, ClusterConfig};
use crate::cycle::{self, ClusterHandle, Cycle, PveSide};
use crate::fleet::{self, Fleet};
use crate::history::History;
use crate::identity::audit::{Audit, AuditError};
use crate::identity::ca::{Ca, CaError};
use crate::identity::tokens::{TokenError, Tokens};
use crate::ingest::{AgentService, AnomalyNews, Counts, Histories, Ledger, Live, Steering, Writer};
use crate::pve::migrate::Migrator;
use crate::pve::{InventoryReader, PveClient, PveError};
use crate::server::auth::AuthLayer;
use crate::server::control::ControlService;
use crate::server::execution::ExecutionService;
use crate::server::fleet::FleetService;
use crate::server::history::HistoryService;
use crate::server::whatif::WhatifService;
use crate::store::{SledStore, Store, StoreError};
use crate::upkeep;

/// Why the aggregator does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificate authority.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// The tokens.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The way to Proxmox.
    #[error("cluster {cluster}: Proxmox can not be reached with this configuration")]
    Pve {
        /// Which cluster.
        cluster: String,
        /// Why.
        source: Box<PveError>,
    },
    /// The name of a cluster.
    #[error(transparent)]
    Name(#[from] InvalidId),
    /// The address.
    #[error(
        "can not listen on {listen}: another program may use the port; `ss -ltnp` shows which, option `listen` changes it"
    )]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The server.
    #[error("the gRPC server does not start: {0}")]
    Server(#[from] tonic::transport::Error),
    /// Reflection.
    #[error("the gRPC reflection does not start: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// What comes from outside: time and randomness.
#[derive(Clone)]
pub struct Outside {
    /// Time for everything that is measured, decided and stored.
    pub clock: Arc<dyn Clock>,
    /// Time for certificates, which TLS checks against the machine's own clock.
    pub certificate_time: Timestamp,
    /// Keys and identifiers.
    pub entropy: Arc<dyn Entropy>,
}

/// A running aggregator.
pub struct Aggregator {
    /// Where it listens.
    pub address: SocketAddr,
    /// What agents say, for those in the same process who wait for data to arrive.
    pub live: Arc<Live>,
    /// The clusters that are decided about.
    pub clusters: Arc<BTreeMap<ClusterId, Arc<ClusterHandle>>>,
    /// What is kept.
    pub store: Arc<dyn Store>,
    /// Fleet detection, for those in the same process who wait for its looks.
    pub fleet: Arc<Fleet>,
    /// Cancelled when a part has failed in a way that only a restart mends.
    pub failed: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Name of the file, below the data directory, that forbids every migration while it is there.
const NO_EXECUTE: &str = "NO_EXECUTE";

/// How long streams may take to end once the aggregator stops.
const DRAIN: Duration = Duration::from_secs(5);

impl Aggregator {
    /// Starts everything and returns once it listens.
    ///
    /// # Errors
    /// [`StartError`], with the remedy.
    pub async fn start(config: AggregatorConfig, outside: Outside) -> Result<Self, StartError> {
        let Outside { clock, certificate_time, entropy } = outside;
        let dir = config.data_dir.clone();
        let authority = Ca::open(&dir.join("identity"), certificate_time, entropy)?;
        let tokens = Arc::new(Tokens::open(&dir.join("identity"))?);
        let audit = Arc::new(Audit::open(&dir.join("audit.log"))?);
        let store: Arc<dyn Store> =
            Arc::new(SledStore::open(&store_dir(&config), &config.store, clock.now())?);
        let clusters = Arc::new(open_clusters(&config.clusters, &store, clock.now())?);
        let (stop, failed, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let live = Arc::<Live>::default();
        let steering = Arc::new(Steering::new(authority.secret()));
        let histories = Arc::new(open_histories(&config, &store, clock.now())?);
        let parts = Parts { config, clock, live, store, clusters, steering, histories, stop, failed, tasks };

        parts.start_cycles()?;
        let (agents, control) = parts.services(audit)?;
        let fleet = Arc::clone(&control.fleet);
        let issued = authority.issue_server(&parts.config.server_names, certificate_time)?;
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&issued.cert_pem, &issued.key_pem))
            .client_ca_root(Certificate::from_pem(authority.ca_pem()))
            .client_auth_optional(true);
        let gate = AuthLayer::new(tokens, Arc::clone(&parts.clock));
        let router = serve(&parts.config, tls, gate, agents, control)?;
        let address = parts.listen(router).await?;
        let Parts { live, store, clusters, stop, failed, tasks, .. } = parts;
        tasks.close();
        Ok(Self { address, live, clusters, store, fleet, failed, stop, tasks })
    }

    /// Ends streams, writes what they had, and closes the store.
    pub async fn shut_down(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(2 * DRAIN, self.tasks.wait()).await;
        if ended.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        if let Err(error) = self.store.flush() {
            tracing::error!(%error, "the last flush failed");
        }
    }
}

/// What the parts are wired with.
struct Parts {
    config: AggregatorConfig,
    clock: Arc<dyn Clock>,
    live: Arc<Live>,
    store: Arc<dyn Store>,
    clusters: Arc<BTreeMap<ClusterId, Arc<ClusterHandle>>>,
    steering: Arc<Steering>,
    histories: Arc<Histories>,
    stop: CancellationToken,
    failed: CancellationToken,
    tasks: TaskTracker,
}

impl Parts {
    fn start_cycles(&self) -> Result<(), StartError> {
        for cluster in &self.config.clusters {
            let Some(handle) = self.clusters.get(&ClusterId::new(&cluster.name)?) else { continue };
            let cycle = Cycle::open(cycle::Parts {
                handle: Arc::clone(handle),
                live: Arc::clone(&self.live),
                store: Arc::clone(&self.store),
                clock: Arc::clone(&self.clock),
                pve: pve_side(cluster)?,
                no_execute: self.config.data_dir.join(NO_EXECUTE),
                max_skew_ms: self.config.ingest.max_skew_ms.into(),
                histories: Arc::clone(&self.histories),
            })?;
            self.tasks.spawn(cycle.run(self.stop.clone(), self.failed.clone()));
        }
        Ok(())
    }

    /// The services, and what works for them in the background: the writer and the upkeep of the store.
    fn services(&self, audit: Arc<Audit>) -> Result<(AgentService, ControlService), StartError> {
        let (counts, news) = (Arc::<Counts>::default(), broadcast::Sender::new(1_024));
        let (store, limits, clock) =
            (Arc::clone(&self.store), self.config.store.clone(), Arc::clone(&self.clock));
        self.tasks.spawn(upkeep::run(store, limits, clock, Arc::clone(&counts), self.stop.clone()));
        let ledger =
            Ledger::new(Arc::clone(&self.store), Arc::clone(&self.clock), Arc::clone(&counts), news.clone())
                .with_histories(Arc::clone(&self.histories));
        let commit = Duration::from_millis(self.config.ingest.commit_ms.into());
        let (writer, writing) = Writer::start(ledger, commit, self.stop.clone(), self.failed.clone());
        self.tasks.spawn(async move {
            // A panic in it has been reported and has cancelled `failed` already.
            let _ = writing.await;
        });
        let agents = AgentService::new(
            self.config.ingest.clone(),
            Arc::clone(&self.live),
            Arc::clone(&self.store),
            writer,
            Arc::clone(&self.clock),
            Arc::clone(&counts),
            Arc::clone(&self.steering),
            Arc::clone(&self.histories),
            self.stop.clone(),
        );
        let fleet = self.start_fleet(&news)?;
        let control = ControlService {
            fleet,
            history: self.start_history(),
            live: Arc::clone(&self.live),
            store: Arc::clone(&self.store),
            counts,
            clusters: Arc::clone(&self.clusters),
            news,
            audit,
            clock: Arc::clone(&self.clock),
            started: self.clock.now(),
            ingest: self.config.ingest.clone(),
            steering: Arc::clone(&self.steering),
            stop: self.stop.clone(),
        };
        Ok((agents, control))
    }

    fn start_fleet(&self, news: &broadcast::Sender<AnomalyNews>) -> Result<Arc<Fleet>, StartError> {
        let fleet = Arc::new(Fleet::open(fleet::Parts {
            config: self.config.fleet.clone(),
            live: Arc::clone(&self.live),
            store: Arc::clone(&self.store),
            clusters: Arc::clone(&self.clusters),
            news: news.clone(),
            models_dir: self.config.data_dir.join("models"),
            clock: Arc::clone(&self.clock),
        })?);
        self.tasks.spawn(Arc::clone(&fleet).retrain(self.stop.clone()));
        self.tasks.spawn(Arc::clone(&fleet).run(self.stop.clone(), self.failed.clone()));
        Ok(fleet)
    }

    fn start_history(&self) -> Arc<History> {
        let (store, limits) = (Arc::clone(&self.store), self.config.store.clone());
        let history = Arc::new(History::new(store, limits, &self.config.history));
        self.tasks.spawn(Arc::clone(&history).run(Arc::clone(&self.clock), self.stop.clone()));
        history
    }

    /// Serves until `stop`, and gives the address.
    async fn listen(&self, router: Router) -> Result<SocketAddr, StartError> {
        let listen = |source| StartError::Listen { listen: self.config.listen, source };
        let listener = TcpListener::bind(self.config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let (stopping, broken) = (self.stop.clone(), self.failed.clone());
        self.tasks.spawn(async move {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let serving = router.serve_with_incoming_shutdown(incoming, stopping.clone().cancelled_owned());
            // hyper can wait forever for a connection that never ends: after the drain time it is dropped.
            let limit = async {
                stopping.cancelled().await;
                tokio::time::sleep(DRAIN).await;
            };
            tokio::select! {
                ended = serving => if let Err(error) = ended {
                    tracing::error!(%error, "the gRPC server ended");
                    broken.cancel();
                },
                () = limit => tracing::info!("connections that did not end in time were dropped"),
            }
        });
        Ok(address)
    }
}

/// Where a configuration has its store.
#[must_use]
pub fn store_dir(config: &AggregatorConfig) -> PathBuf {
    config.data_dir.join("store")
}

fn open_clusters(
    clusters: &[ClusterConfig],
    store: &Arc<dyn Store>,
    now: Timestamp,
) -> Result<BTreeMap<ClusterId, Arc<ClusterHandle>>, StartError> {
    let mut handles = BTreeMap::new();
    for cluster in clusters {
        let id = ClusterId::new(&cluster.name)?;
        let (policy, execute) = (cluster.policy.clone(), cluster.execute.clone());
        handles.insert(id.clone(), Arc::new(ClusterHandle::open(id, policy, execute, store, now)?));
    }
    Ok(handles)
}

/// Guests are known by their identity where Proxmox is asked.
fn open_histories(
    config: &AggregatorConfig,
    store: &Arc<dyn Store>,
    now: Timestamp,
) -> Result<Histories, StartError> {
    let asked = config.clusters.iter().filter(|cluster| !cluster.pve.endpoints.is_empty());
    let identified = asked.map(|cluster| ClusterId::new(&cluster.name)).collect::<Result<_, _>>()?;
    Ok(Histories::open(Arc::clone(store), identified, now)?)
}

fn pve_side(cluster: &ClusterConfig) -> Result<Option<PveSide>, StartError> {
    if cluster.pve.endpoints.is_empty() {
        return Ok(None);
    }
    let client = PveClient::new(&cluster.pve)
        .map_err(|source| StartError::Pve { cluster: cluster.name.clone(), source: Box::new(source) })?;
    let client = Arc::new(client);
    Ok(Some(PveSide {
        migrator: Migrator::new(Arc::clone(&client), &cluster.execute.token_file),
        reader: InventoryReader::new(client),
        poll: cluster.pve.poll_interval(),
    }))
}

type Router =
    tonic::transport::server::Router<tower::layer::util::Stack<AuthLayer, tower::layer::util::Identity>>;

fn serve(
    config: &AggregatorConfig,
    tls: ServerTlsConfig,
    gate: AuthLayer,
    agents: AgentService,
    control: ControlService,
) -> Result<Router, StartError> {
    let largest = config.ingest.max_message_kib as usize * 1024;
    let (health, health_service) = tonic_health::server::health_reporter();
    tokio::spawn(async move {
        health.set_serving::<AgentServer<AgentService>>().await;
        health.set_serving::<ControlServer<ControlService>>().await;
        health.set_serving::<ExecutionServer<ExecutionService>>().await;
        health.set_serving::<FleetServer<FleetService>>().await;
        health.set_serving::<HistoryServer<HistoryService>>().await;
        health.set_serving::<WhatifServer<WhatifService>>().await;
    });
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(evenkeel_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(Server::builder()
        .tls_config(tls)?
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .max_concurrent_streams(Some(64))
        .layer(gate)
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(AgentServer::new(agents).max_decoding_message_size(largest))
        .add_service(
            ExecutionServer::new(ExecutionService::new(control.clone())).max_decoding_message_size(1 << 20),
        )
        .add_service(
            WhatifServer::new(WhatifService::new(control.clone())).max_decoding_message_size(1 << 20),
        )
        .add_service(
            HistoryServer::new(HistoryService::new(control.clone())).max_decoding_message_size(1 << 20),
        )
        .add_service(FleetServer::new(FleetService::new(control.clone())).max_decoding_message_size(1 << 20))
        .add_service(ControlServer::new(control).max_decoding_message_size(1 << 20)))
}
