//! Starts a real aggregator and real agents in this process, over real TLS on free ports, with everything on disk in
//! one directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use evenkeel_agent::collect::source::Source;
use evenkeel_agent::config::AgentConfig;
use evenkeel_agent::run::{Agent, run};
use evenkeel_aggregator::app::{Aggregator, Outside};
use evenkeel_aggregator::config::AggregatorConfig;
use evenkeel_aggregator::identity::ca::Ca;
use evenkeel_aggregator::identity::roles::Role;
use evenkeel_aggregator::identity::tokens::Tokens;
use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_common::time::Timestamp;
use evenkeel_runtime::clock::{Clock, SystemClock};
use evenkeel_runtime::random::{Entropy, SeededEntropy, SystemEntropy};
use evenkeel_runtime::{files, tls};
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A directory with an aggregator and its agents.
pub struct Site {
    /// Where everything is kept.
    pub dir: PathBuf,
    /// The running aggregator.
    pub aggregator: Aggregator,
    clock: Arc<dyn Clock>,
    seed: u64,
    stop: CancellationToken,
    agents: TaskTracker,
}

impl Site {
    /// Starts an aggregator in `dir` and writes `ctl.toml` for evenkeelctl beside it. `config` says everything but
    /// where it keeps its data.
    ///
    /// # Errors
    /// Whatever keeps it from starting.
    pub async fn start(
        dir: &Path,
        config: AggregatorConfig,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> anyhow::Result<Self> {
        tls::install_provider();
        let config = AggregatorConfig { data_dir: dir.join("aggregator"), ..config };
        // Certificates are for TLS, which asks the machine's own clock, whatever time the lab has.
        let outside = Outside {
            clock: Arc::clone(&clock),
            certificate_time: real_time(),
            entropy: Arc::new(SystemEntropy),
        };
        files::private_dir(dir)?;
        let aggregator = Aggregator::start(config, outside).await?;
        let site = Self {
            dir: dir.to_owned(),
            aggregator,
            clock,
            seed,
            stop: CancellationToken::new(),
            agents: TaskTracker::new(),
        };
        site.write_ctl()?;
        Ok(site)
    }

    fn identity(&self) -> PathBuf {
        self.dir.join("aggregator/identity")
    }

    fn write_ctl(&self) -> anyhow::Result<()> {
        let authority = Ca::open(&self.identity(), real_time(), Arc::new(SystemEntropy))?;
        files::write_atomic(&self.dir.join("ca.pem"), authority.ca_pem().as_bytes(), 0o644)?;
        let token_file = self.dir.join("token");
        if !token_file.exists() {
            let token = self.token(Role::Admin, "lab")?;
            files::write_atomic(&token_file, token.as_bytes(), 0o600)?;
        }
        let ctl = format!(
            "endpoint = \"https://127.0.0.1:{}\"\nca_file = \"ca.pem\"\ntoken_file = \"token\"\n",
            self.aggregator.address.port()
        );
        files::write_atomic(&self.dir.join("ctl.toml"), ctl.as_bytes(), 0o644)?;
        Ok(())
    }

    /// A new token.
    ///
    /// # Errors
    /// When it can not be made.
    pub fn token(&self, role: Role, label: &str) -> anyhow::Result<String> {
        // Tokens live by the aggregator's clock, which may be a virtual one.
        Ok(Tokens::open(&self.identity())?.create(role, label, None, self.clock.now(), &SystemEntropy)?.0)
    }

    /// Configuration of an agent of this site, with its certificate issued and written.
    ///
    /// # Errors
    /// When the certificate can not be made.
    pub fn agent_config(&self, cluster: &ClusterId, node: &NodeId) -> anyhow::Result<AgentConfig> {
        let dir = self.dir.join("agents").join(format!("{cluster}-{node}"));
        fs::create_dir_all(&dir).with_context(|| format!("can not create {}", dir.display()))?;
        let authority = Ca::open(&self.identity(), real_time(), Arc::new(SystemEntropy))?;
        let issued = authority.issue_agent(cluster, node, Duration::from_hours(24 * 30), real_time())?;
        files::write_atomic(&dir.join("agent.pem"), issued.cert_pem.as_bytes(), 0o644)?;
        files::write_atomic(&dir.join("agent.key"), issued.key_pem.as_bytes(), 0o600)?;
        files::write_atomic(&dir.join("ca.pem"), authority.ca_pem().as_bytes(), 0o644)?;
        let mut config = AgentConfig { state_dir: dir.clone(), ..AgentConfig::default() };
        // One machine plays all nodes; who wants probes gives each a port.
        config.probe.enabled = false;
        config.aggregator.address = format!("127.0.0.1:{}", self.aggregator.address.port());
        config.aggregator.server_name = "localhost".into();
        config.aggregator.ca = dir.join("ca.pem");
        config.aggregator.cert = dir.join("agent.pem");
        config.aggregator.key = dir.join("agent.key");
        Ok(config)
    }

    /// Starts an agent on `source`. It ends with the returned token, or with the site.
    pub fn spawn_agent(
        &self,
        config: AgentConfig,
        source: Box<dyn Source>,
        clock: Arc<dyn Clock>,
    ) -> CancellationToken {
        let stop = self.stop.child_token();
        let salt = config.state_dir.as_os_str().as_encoded_bytes().iter();
        let salt = salt.fold(self.seed, |hash, byte| hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(*byte));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(salt));
        let (stopping, name) = (stop.clone(), config.state_dir.clone());
        self.agents.spawn(async move {
            let agent = Agent { source, config, clock, entropy };
            if let Err(error) = run(agent, stopping, |_| {}).await {
                tracing::error!(agent = %name.display(), %error, "agent ended");
            }
        });
        stop
    }

    /// Ends agents, then the aggregator.
    pub async fn shut_down(self) {
        self.stop.cancel();
        self.agents.close();
        if tokio::time::timeout(Duration::from_secs(10), self.agents.wait()).await.is_err() {
            tracing::warn!("some agents did not end in time");
        }
        self.aggregator.shut_down().await;
    }
}

/// The machine's own time.
#[must_use]
pub fn real_time() -> Timestamp {
    SystemClock::new().now()
}

/// A clock that runs ahead of another by a fixed span of uptime, so that what lives by it is never due at the same
/// moment as what lives by the other.
pub struct Ahead {
    clock: Arc<dyn Clock>,
    by: Duration,
}

impl Ahead {
    /// The clock `by` ahead of `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, by: Duration) -> Self {
        Self { clock, by }
    }
}

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn uptime(&self) -> Duration {
        self.clock.uptime() + self.by
    }

    fn sleep_until(&self, uptime: Duration) -> BoxFuture<'static, ()> {
        self.clock.sleep_until(uptime.saturating_sub(self.by))
    }
}
