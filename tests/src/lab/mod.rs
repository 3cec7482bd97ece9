//! The lab behind `cargo up`: a real aggregator, this machine's real agent, and a simulated cluster of eight nodes whose
//! agents are real from the collectors' output on and whose Proxmox API is served over real HTTPS.

pub mod cluster;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use evenkeel_agent::collect::{CollectConfig, NodeSource};
use evenkeel_aggregator::config::{AggregatorConfig, ClusterConfig};
use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_common::time::Timestamp;
use evenkeel_core::Mode;
use evenkeel_runtime::clock::{Clock, SystemClock, VirtualClock, sleep};
use tokio_util::sync::CancellationToken;

use crate::harness::{Ahead, Site};
use crate::sim::fault::Order;
use cluster::LabCluster;

/// Monday, 5 January 2026, 08:00 UTC: where virtual time begins, so that a run can be repeated.
pub const VIRTUAL_START: Timestamp = Timestamp::from_millis(1_767_600_000_000);

/// How the lab runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything is kept.
    pub data: PathBuf,
    /// What makes this lab differ from others.
    pub seed: u64,
    /// Virtual seconds a second; 1 = real time.
    pub speed: u32,
    /// Time of the lab after which it ends.
    pub time: Option<Duration>,
    /// Seconds between samples of the simulated agents; in virtual time also the length of a step, so that days pass
    /// sooner with a larger one.
    pub interval_s: u32,
    /// Leave the simulated cluster out.
    pub only_this_host: bool,
    /// Port of the aggregator; 0 = any free one.
    pub port: u16,
    /// What is to go wrong in the simulated cluster.
    pub faults: Vec<Order>,
    /// What is done with moves that pass.
    pub mode: Mode,
}

/// Called once everything runs, with the site.
pub type Ready<'a> = &'a mut (dyn FnMut(&Site) + Send);

/// Runs the lab until its time is over or `stop` is cancelled.
///
/// # Errors
/// Whatever keeps a part from starting, or breaks the aggregator while it runs.
pub async fn run(options: &Options, stop: CancellationToken, ready: Ready<'_>) -> anyhow::Result<()> {
    if options.speed > 1 {
        run_virtual(options, stop, ready).await
    } else {
        run_real(options, stop, ready).await
    }
}

async fn run_real(options: &Options, stop: CancellationToken, ready: Ready<'_>) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let lab = match options.only_this_host {
        true => None,
        false => Some(start_cluster(options, clock.now()).await?),
    };
    let mut config = config(options, lab.as_ref());
    config.clusters.push(ClusterConfig { name: "local".into(), ..ClusterConfig::default() });
    let site = Site::start(&options.data, config, Arc::clone(&clock), options.seed).await?;
    if let Some(lab) = &lab {
        lab.start_agents(&site, &clock)?;
    }
    start_local_agent(&site, &clock)?;
    ready(&site);
    let started = clock.uptime();
    let failed = site.aggregator.failed.clone();
    while options.time.is_none_or(|time| clock.uptime() < started + time) {
        if let Some(lab) = &lab {
            lab.silence(&site, &clock, clock.now())?;
            lab.show(clock.now());
        }
        let second = sleep(clock.as_ref(), Duration::from_secs(1));
        tokio::select! {
            () = stop.cancelled() => break,
            () = failed.cancelled() => anyhow::bail!("the aggregator failed, see the log above"),
            () = second => {}
        }
    }
    site.shut_down().await;
    Ok(())
}

/// Paces virtual time against real time.
async fn run_virtual(options: &Options, stop: CancellationToken, ready: Ready<'_>) -> anyhow::Result<()> {
    anyhow::ensure!(!options.only_this_host, "--only-this-host can not run in virtual time");
    let lab = VirtualLab::start(options, |_| {}).await?;
    ready(&lab.site);
    let mut pace = tokio::time::interval(options.half_step() / options.speed);
    while options.time.is_none_or(|time| lab.clock.uptime() < time) {
        if stop.is_cancelled() {
            break;
        }
        pace.tick().await;
        lab.sample().await?;
        pace.tick().await;
        lab.decide().await?;
    }
    lab.site.shut_down().await;
    Ok(())
}

impl Options {
    /// Half of what passes between two samples.
    fn half_step(&self) -> Duration {
        Duration::from_millis(500) * self.interval_s.max(1)
    }
}

/// A lab in virtual time, which stands still until everybody has done what was due: agents tick on the half step (of a
/// second, unless they sample less often), the aggregator on the whole one, and neither goes on before the other's data has arrived. So a run depends on its
/// seed alone.
pub struct VirtualLab {
    /// The simulated cluster.
    pub cluster: LabCluster,
    /// Aggregator and agents.
    pub site: Site,
    /// Its time; moved on by [`Self::sample`] and [`Self::decide`].
    pub clock: Arc<VirtualClock>,
    /// To silence agents.
    pub agents: BTreeMap<NodeId, CancellationToken>,
    options: Options,
    config: AggregatorConfig,
}

impl VirtualLab {
    /// Starts everything at [`VIRTUAL_START`]. `change` may change how the cluster is configured.
    ///
    /// # Errors
    /// Whatever keeps a part from starting.
    pub async fn start(options: &Options, change: impl FnOnce(&mut ClusterConfig)) -> anyhow::Result<Self> {
        Self::start_with(options, |config| {
            config.clusters.first_mut().map(change);
        })
        .await
    }

    /// As [`Self::start`], where `change` may change everything the aggregator is told.
    ///
    /// # Errors
    /// Whatever keeps a part from starting.
    pub async fn start_with(
        options: &Options,
        change: impl FnOnce(&mut AggregatorConfig),
    ) -> anyhow::Result<Self> {
        let clock = Arc::new(VirtualClock::new(VIRTUAL_START));
        let cluster = start_cluster(options, clock.now()).await?;
        let mut config = config(options, Some(&cluster));
        change(&mut config);
        Self::start_on(cluster, clock, options.clone(), config).await
    }

    async fn start_on(
        cluster: LabCluster,
        clock: Arc<VirtualClock>,
        options: Options,
        config: AggregatorConfig,
    ) -> anyhow::Result<Self> {
        let shared: Arc<dyn Clock> = clock.clone();
        let site = Site::start(&options.data, config.clone(), Arc::clone(&shared), options.seed).await?;
        let agents: Arc<dyn Clock> = Arc::new(Ahead::new(shared, options.half_step()));
        let agents = cluster.start_agents(&site, &agents)?;
        cluster.wait_connected(&site).await?;
        Ok(Self { cluster, site, clock, agents, options, config })
    }

    /// Ends aggregator and agents and starts them again on what they left, while the cluster goes on.
    ///
    /// # Errors
    /// Whatever keeps a part from starting.
    pub async fn restart(self) -> anyhow::Result<Self> {
        let Self { cluster, site, clock, options, config, .. } = self;
        site.shut_down().await;
        Self::start_on(cluster, clock, options, config).await
    }

    /// Goes on half a step, to where the agents sample, and lets Proxmox show what the aggregator will ask for.
    ///
    /// # Errors
    /// When something is stuck or has failed.
    pub async fn sample(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.site.aggregator.failed.is_cancelled(),
            "the aggregator failed, see the log above"
        );
        let half = self.options.half_step();
        let shared: Arc<dyn Clock> = self.clock.clone();
        let agents: Arc<dyn Clock> = Arc::new(Ahead::new(shared, half));
        if self.cluster.silence(&self.site, &agents, self.clock.now().after(half))? {
            self.cluster.wait_connected(&self.site).await?;
        }
        self.clock.advance(half);
        self.cluster.wait_sampled(&self.site, self.clock.now()).await?;
        self.cluster.show(self.clock.now().after(half));
        Ok(())
    }

    /// Goes on half a step, to where the aggregator decides when it is due.
    ///
    /// # Errors
    /// When something is stuck.
    pub async fn decide(&self) -> anyhow::Result<()> {
        self.clock.advance(self.options.half_step());
        self.cluster.wait_looked(&self.site, self.clock.as_ref()).await?;
        self.cluster.wait_decided(&self.site, self.clock.as_ref()).await
    }
}

async fn start_cluster(options: &Options, now: Timestamp) -> anyhow::Result<LabCluster> {
    let cluster = LabCluster::start(&options.data, options.seed, options.interval_s, now).await;
    let cluster = cluster.context("the simulated cluster does not start")?;
    let faults = options.faults.iter().map(|order| order.placed(now));
    cluster.fleet.lock().unwrap_or_else(PoisonError::into_inner).faults.extend(faults);
    Ok(cluster)
}

fn config(options: &Options, cluster: Option<&LabCluster>) -> AggregatorConfig {
    let mut config =
        AggregatorConfig { listen: ([127, 0, 0, 1], options.port).into(), ..AggregatorConfig::default() };
    config.store.ballast_mib = 0; // A lab is thrown away; it need not survive a full disk.
    config.clusters.extend(cluster.map(|lab| {
        let mut config = lab.config();
        config.policy.mode = options.mode;
        config.execute.token_file = lab.exec_token_file().to_owned();
        config
    }));
    config
}

/// This machine, as the cluster "local".
fn start_local_agent(site: &Site, clock: &Arc<dyn Clock>) -> anyhow::Result<()> {
    let cluster = ClusterId::new("local")?;
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let node = NodeId::new(hostname.trim()).or_else(|_| NodeId::new("this-host"))?;
    let config = site.agent_config(&cluster, &node)?;
    let source = NodeSource::new(CollectConfig { root: config.root.clone(), ..CollectConfig::default() });
    site.spawn_agent(config, Box::new(source), Arc::clone(clock));
    Ok(())
}
