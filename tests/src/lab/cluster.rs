//! The simulated cluster of the lab: fleet, fake Proxmox and agents, kept in step.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use evenkeel_aggregator::config::ClusterConfig;
use evenkeel_aggregator::pve::PveConfig;
use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Bytes;
use evenkeel_core::{Mode, Policy, Preset};
use evenkeel_runtime::clock::Clock;
use evenkeel_runtime::files;
use tokio_util::sync::CancellationToken;

use crate::fake_pve::{self, FakeCluster, FakeGuest, FakePve, cluster::FakeNode};
use crate::harness::Site;
use crate::sim::fault::Answer;
use crate::sim::{Fault, Fleet, SimSource};

/// Real time that data may take to arrive before the lab says that something is stuck.
const STUCK: Duration = Duration::from_secs(30);

/// A running simulated cluster.
pub struct LabCluster {
    /// Its nodes and guests; change them to cause what is to be seen.
    pub fleet: Arc<Mutex<Fleet>>,
    /// Its Proxmox side.
    pub fake: Arc<Mutex<FakeCluster>>,
    id: ClusterId,
    nodes: Vec<NodeId>,
    pve: FakePve,
    token_file: PathBuf,
    exec_token_file: PathBuf,
    interval_s: u32,
    agents: Mutex<BTreeMap<NodeId, CancellationToken>>,
}

impl LabCluster {
    /// Starts the fake Proxmox of a lab with this seed, whose agents will sample every `interval_s` seconds.
    ///
    /// # Errors
    /// When a port or file can not be had.
    pub async fn start(data: &Path, seed: u64, interval_s: u32, now: Timestamp) -> anyhow::Result<Self> {
        let id = ClusterId::new("lab")?;
        let fleet = Fleet::lab(id.clone(), seed, now);
        let mut cluster = FakeCluster::new(id.as_str(), 8, now);
        for node in fleet.nodes.values() {
            let shown: &mut FakeNode =
                cluster.nodes.get_mut(&node.id).context("fleet and fake differ in nodes")?;
            shown.max_cpu = node.cores as u32;
            shown.max_mem = node.memory;
        }
        for guest in fleet.guests.values() {
            let cores = guest.vcpus as u32;
            let mut shown =
                FakeGuest::new(guest.kind, &guest.name, &guest.node, cores, guest.memory, "shared1");
            shown.started_at = guest.started_at;
            shown.tags.clone_from(&guest.tags);
            cluster.guests.insert(guest.vmid, shown);
        }
        let fake = Arc::new(Mutex::new(cluster));
        let pve = FakePve::start(Arc::clone(&fake)).await?;
        files::private_dir(data)?;
        let token_file = data.join("pve-token");
        files::write_atomic(&token_file, pve.token().as_bytes(), 0o600)?;
        let exec_token_file = data.join("pve-exec-token");
        files::write_atomic(&exec_token_file, pve.exec_token().as_bytes(), 0o600)?;
        let nodes = fleet.nodes.keys().cloned().collect();
        let lab = Self {
            fleet: Arc::new(Mutex::new(fleet)),
            fake,
            id,
            nodes,
            pve,
            token_file,
            exec_token_file,
            interval_s,
            agents: Mutex::default(),
        };
        lab.show(now);
        Ok(lab)
    }

    /// How the aggregator is told of it: everything on, nothing executed.
    #[must_use]
    pub fn config(&self) -> ClusterConfig {
        ClusterConfig {
            name: self.id.to_string(),
            pve: PveConfig {
                endpoints: vec![self.pve.endpoint()],
                token_file: self.token_file.clone(),
                fingerprints: vec![self.pve.fingerprint],
                ..PveConfig::default()
            },
            policy: Policy { preset: Preset::Full, mode: Mode::Advise, ..Policy::default() },
            ..ClusterConfig::default()
        }
    }

    /// Where the token is kept that may migrate as well. Nothing uses it unless it is told to.
    #[must_use]
    pub fn exec_token_file(&self) -> &Path {
        &self.exec_token_file
    }

    /// Starts an agent per node. Each ends with the token it is given here, or with the site.
    ///
    /// # Errors
    /// When a certificate can not be made.
    pub fn start_agents(
        &self,
        site: &Site,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<BTreeMap<NodeId, CancellationToken>> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        for node in &self.nodes {
            agents.insert(node.clone(), self.start_agent(node, site, clock)?);
        }
        Ok(agents.clone())
    }

    fn start_agent(
        &self,
        node: &NodeId,
        site: &Site,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<CancellationToken> {
        let mut config = site.agent_config(&self.id, node)?;
        config.interval_s = self.interval_s;
        config.drills.allowed = true; // All of it is made up anyway.
        let source = SimSource::new(Arc::clone(&self.fleet), node.clone());
        Ok(site.spawn_agent(config, Box::new(source), Arc::clone(clock)))
    }

    /// Ends the agents of nodes that are to be mute at `now`, and starts those that no longer are. Returns whether
    /// one was started, which then has to connect.
    ///
    /// # Errors
    /// When a certificate can not be made.
    pub fn silence(&self, site: &Site, clock: &Arc<dyn Clock>, now: Timestamp) -> anyhow::Result<bool> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let mut started = false;
        for node in &self.nodes {
            let mute = self.fleet.lock().unwrap_or_else(PoisonError::into_inner).is_silent(node, now);
            match agents.get(node) {
                Some(agent) if mute => {
                    agent.cancel();
                    agents.remove(node);
                }
                None if !mute => {
                    agents.insert(node.clone(), self.start_agent(node, site, clock)?);
                    started = true;
                }
                Some(_) | None => {}
            }
        }
        Ok(started)
    }

    /// Lets Proxmox show the cluster as it is at `now`. Migrations that were ordered there go on, and what they have
    /// moved runs on its new node from then on.
    pub fn show(&self, now: Timestamp) {
        let mut fleet = self.fleet.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fake = self.fake.lock().unwrap_or_else(PoisonError::into_inner);
        fake.advance(now);
        for vmid in fake.take_changed() {
            follow(&mut fleet, &fake, vmid, now);
        }
        arm(&fleet, &mut fake, now);
        for (id, node) in &fleet.nodes {
            let Some(seen) = fleet.node_use(id, now) else { continue };
            if let Some(shown) = fake.nodes.get_mut(id) {
                shown.cpu = seen.cpu_percent / 100.0;
                shown.mem = Bytes(seen.memory as u64);
                shown.load = [seen.cpu_percent / 100.0 * node.cores; 3];
            }
            for used in &seen.guests {
                let vcpus = fleet.guests.get(&used.vmid).map_or(1.0, |g| g.vcpus);
                if let Some(shown) = fake.guests.get_mut(&used.vmid) {
                    shown.node.clone_from(id);
                    shown.cpu = used.cpu / vcpus;
                    shown.mem = Bytes(used.memory as u64);
                }
            }
        }
    }

    /// Waits until every agent is connected; virtual time stands still meanwhile.
    ///
    /// # Errors
    /// When one does not come.
    pub async fn wait_connected(&self, site: &Site) -> anyhow::Result<()> {
        let nodes: Vec<NodeId> =
            self.agents.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        for node in &nodes {
            let cell = site.aggregator.live.node(&self.id, node);
            let connected = async {
                while !cell.lock().connected {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let waited = tokio::time::timeout(STUCK, connected).await;
            waited.with_context(|| format!("the agent of {node} does not connect"))?;
        }
        Ok(())
    }

    /// Waits until what the agents sampled at `now` has arrived, those apart that are mute.
    ///
    /// # Errors
    /// When it does not arrive.
    pub async fn wait_sampled(&self, site: &Site, now: Timestamp) -> anyhow::Result<()> {
        for node in &self.nodes {
            if self.fleet.lock().unwrap_or_else(PoisonError::into_inner).is_silent(node, now) {
                continue;
            }
            let mut applied = site.aggregator.live.node(&self.id, node).applied();
            let waited = tokio::time::timeout(STUCK, applied.wait_for(|at| *at >= now)).await;
            waited.with_context(|| format!("the sample of {node} at {now} does not arrive"))??;
        }
        Ok(())
    }

    /// Waits until fleet detection has looked, where it was due.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn wait_looked(&self, site: &Site, clock: &dyn Clock) -> anyhow::Result<()> {
        let fleet = &site.aggregator.fleet;
        let due = clock.uptime();
        if !due.as_secs().is_multiple_of(fleet.config().interval().as_secs().max(1)) {
            return Ok(());
        }
        let mut finished = fleet.finished();
        let waited =
            tokio::time::timeout(STUCK, finished.wait_for(|at| at.is_some_and(|at| at >= due))).await;
        waited.with_context(|| format!("the look at {due:?} does not end"))??;
        Ok(())
    }

    /// Waits until the decision cycle has done what was due.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn wait_decided(&self, site: &Site, clock: &dyn Clock) -> anyhow::Result<()> {
        let handle = site.aggregator.clusters.get(&self.id).context("the cluster is not configured")?;
        let poll = PveConfig::default().poll_interval().as_secs();
        if !clock.uptime().as_secs().is_multiple_of(poll) {
            return Ok(());
        }
        let due = clock.now();
        let mut finished = handle.finished();
        let waited =
            tokio::time::timeout(STUCK, finished.wait_for(|at| at.is_some_and(|at| at >= due))).await;
        waited.with_context(|| format!("the run at {due} does not end"))??;
        Ok(())
    }
}

/// Lets the fleet have a guest as a migration has left it: elsewhere, gone, or another under the same number.
fn follow(fleet: &mut Fleet, fake: &FakeCluster, vmid: Vmid, now: Timestamp) {
    let Some(shown) = fake.guests.get(&vmid) else {
        fleet.guests.remove(&vmid);
        return;
    };
    fleet.move_guest(vmid, &shown.node, now);
    if let Some(guest) = fleet.guests.get_mut(&vmid) {
        guest.name.clone_from(&shown.name);
        guest.vcpus = f64::from(shown.max_cpu);
        guest.memory = shown.max_mem;
    }
}

/// Lets the API fail as the fleet's faults say. A fleet without such faults leaves the API to others.
fn arm(fleet: &Fleet, fake: &mut FakeCluster, now: Timestamp) {
    for fault in &fleet.faults {
        let Fault::Api { answer, during } = fault else { continue };
        if !during.contains(now) {
            continue;
        }
        let (prefix, fault) = match answer {
            Answer::Unauthorized => ("/", fake_pve::Fault::Unauthorized),
            Answer::Internal => ("/", fake_pve::Fault::Internal("ordered by the lab".into())),
            Answer::Empty => ("/cluster/resources", fake_pve::Fault::EmptyList),
        };
        fake.heal();
        fake.fail(prefix, fault);
        return;
    }
    if fleet.faults.iter().any(|fault| matches!(fault, Fault::Api { .. })) {
        fake.heal();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use evenkeel_common::guest::GuestKind;

    use super::*;
    use crate::fake_pve::{Behaviour, Course};

    const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    #[tokio::test]
    async fn what_a_migration_has_moved_runs_there_in_the_fleet_too() {
        let dir = tempfile::tempdir().unwrap();
        let lab = LabCluster::start(dir.path(), 1, 10, START).await.unwrap();
        let vm = |place: usize| {
            let fleet = lab.fleet.lock().unwrap();
            let on = fleet.guests.values().filter(|g| g.kind == GuestKind::Qemu && g.node.as_str() == "pve3");
            on.map(|g| g.vmid).nth(place).unwrap()
        };
        let (moved, lost) = (vm(0), vm(1));
        let target = NodeId::new("pve8").unwrap();
        {
            let mut fake = fake_pve::lock(&lab.fake);
            fake.behaviours.insert(lost, Behaviour::from(Course::VanishesMidway));
            for vmid in [moved, lost] {
                fake.order(vmid, &target);
            }
        }
        lab.show(START.after(Duration::from_secs(1)));
        let node = |vmid| lab.fleet.lock().unwrap().guests.get(&vmid).map(|guest| guest.node.to_string());
        assert_eq!(node(moved).as_deref(), Some("pve3"), "it runs where it was until it has moved");
        assert_eq!(fake_pve::lock(&lab.fake).guests[&moved].lock.as_deref(), Some("migrate"));
        let later = START.after(Duration::from_mins(10));
        lab.show(later);
        assert_eq!((node(moved).as_deref(), node(lost)), (Some("pve8"), None));
        assert_eq!(fake_pve::lock(&lab.fake).guests[&moved].node, target);
        lab.show(later.after(Duration::from_secs(1)));
        assert_eq!(fake_pve::lock(&lab.fake).guests[&moved].node, target, "and stays there");
    }

    #[tokio::test]
    async fn the_token_that_may_migrate_is_kept_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let lab = LabCluster::start(dir.path(), 1, 10, START).await.unwrap();
        let mode = std::fs::metadata(lab.exec_token_file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(lab.exec_token_file()).unwrap(), lab.pve.exec_token());
        assert_ne!(lab.pve.exec_token(), lab.pve.token());
    }
}
