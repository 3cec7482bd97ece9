//! The lab behind `cargo up`: a real aggregator, this machine's real agent, and a simulated cluster of eight nodes whose
//! agents are real from the collectors' output on and whose Proxmox API is served over real HTTPS.

pub mod cluster;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use evenkeel_agent::collect::{CollectConfig, NodeSource};
use evenkeel_aggregator::config::{AggregatorConfig, ClusterConfig};
use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_common::time::Timestamp;
use evenkeel_runtime::clock::{Clock, SystemClock, VirtualClock, sleep};
use tokio_util::sync::CancellationToken;

use crate::harness::{Ahead, Site};
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
    /// Leave the simulated cluster out.
    pub only_this_host: bool,
    /// Port of the aggregator; 0 = any free one.
    pub port: u16,
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
    let lab = start_lab(options, clock.now()).await?;
    let site = start_site(options, lab.as_ref(), true, Arc::clone(&clock)).await?;
    if let Some(lab) = &lab {
        lab.start_agents(&site, &clock)?;
    }
    start_local_agent(&site, &clock)?;
    ready(&site);
    let started = clock.uptime();
    let failed = site.aggregator.failed.clone();
    while options.time.is_none_or(|time| clock.uptime() < started + time) {
        if let Some(lab) = &lab {
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

/// Virtual time stands still until everybody has done what was due: agents tick on the half second, the aggregator
/// on the whole one, and neither goes on before the other's data has arrived. So a run depends on its seed alone.
async fn run_virtual(options: &Options, stop: CancellationToken, ready: Ready<'_>) -> anyhow::Result<()> {
    const HALF: Duration = Duration::from_millis(500);
    let clock = Arc::new(VirtualClock::new(VIRTUAL_START));
    let shared: Arc<dyn Clock> = clock.clone();
    let lab =
        start_lab(options, clock.now()).await?.context("--only-this-host can not run in virtual time")?;
    let site = start_site(options, Some(&lab), false, Arc::clone(&shared)).await?;
    let agents: Arc<dyn Clock> = Arc::new(Ahead::new(Arc::clone(&shared), HALF));
    lab.start_agents(&site, &agents)?;
    lab.wait_connected(&site).await?;
    ready(&site);
    let real_half = HALF / options.speed;
    let failed = site.aggregator.failed.clone();
    let mut pace = tokio::time::interval(real_half);
    while options.time.is_none_or(|time| clock.uptime() < time) {
        if stop.is_cancelled() {
            break;
        }
        anyhow::ensure!(!failed.is_cancelled(), "the aggregator failed, see the log above");
        pace.tick().await;
        clock.advance(HALF);
        lab.wait_sampled(&site, clock.now()).await?;
        pace.tick().await;
        lab.show(clock.now().after(HALF));
        clock.advance(HALF);
        lab.wait_decided(&site, clock.as_ref()).await?;
    }
    site.shut_down().await;
    Ok(())
}

async fn start_lab(options: &Options, now: Timestamp) -> anyhow::Result<Option<LabCluster>> {
    if options.only_this_host {
        return Ok(None);
    }
    let lab = LabCluster::start(&options.data, options.seed, now).await;
    lab.map(Some).context("the simulated cluster does not start")
}

async fn start_site(
    options: &Options,
    lab: Option<&LabCluster>,
    local: bool,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Site> {
    let mut config =
        AggregatorConfig { listen: ([127, 0, 0, 1], options.port).into(), ..AggregatorConfig::default() };
    config.store.ballast_mib = 0; // A lab is thrown away; it need not survive a full disk.
    config.clusters.extend(lab.map(LabCluster::config));
    if local {
        config.clusters.push(ClusterConfig { name: "local".into(), ..ClusterConfig::default() });
    }
    Site::start(&options.data, config, clock, options.seed).await
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
