//! Reads one inventory after the other, all of it or none.
//!
//! Proxmox leaves out what a token may not see and what it has no figures for, and answers 200 all the same. A
//! decision on such a view would move guests onto nodes that only look empty. So a failed part fails the whole,
//! and an answer that is suspiciously small is an error ([`PveError::HalfAnswer`]) until it has stayed that way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use futures_util::StreamExt;
use futures_util::stream;

use super::client::PveClient;
use super::cluster::{self, Membership, NodeInfo};
use super::error::PveError;
use super::guest_config::{self, GuestConfig};
use super::ha::{self, Ha, NodeState};
use super::inventory::{Inventory, Warning};
use super::local_time;
use super::permissions::{self, MissingPrivilege};
use super::resources::{self, Guest, Node, NodeStatus, Resources};
use super::storage::Storage;
use super::tasks::{self, MigrationTask, Upid};

/// How long a finished migration counts as recent; the widest default look-back of a filter.
const HISTORY: Duration = Duration::from_hours(48);
/// Most migrations kept as history; oldest go first.
const MAX_HISTORY: usize = 20_000;
/// Requests for single guests or nodes at the same time.
const CONCURRENCY: usize = 4;
/// How long a suspiciously small answer is an error before it is taken for the truth.
const SHRINKAGE_ACCEPTED_AFTER: Duration = Duration::from_mins(10);
/// How often the token's privileges are looked at again.
const PERMISSIONS_EVERY: Duration = Duration::from_mins(10);
/// The same while some are missing: nothing is decided meanwhile, and the answer may have been a bad one.
const PERMISSIONS_AGAIN: Duration = Duration::from_mins(1);
/// How often a node's version and CPU model are asked for again after a failure.
const NODE_INFO_RETRY: Duration = Duration::from_mins(5);
/// How often local time is asked for: summer time begins and ends in the middle of a run.
const LOCAL_TIME_EVERY: Duration = Duration::from_mins(15);
/// How long a guest's configuration is believed while nothing about the guest changes.
const CONFIG_FRESH: Duration = Duration::from_mins(5);

/// Reads inventories of one cluster, one after the other, and remembers what makes the next one better.
#[derive(Debug)]
pub struct InventoryReader {
    client: Arc<PveClient>,
    /// Guests of the last inventory that was believed.
    seen: BTreeSet<Vmid>,
    shrunk_since: Option<Timestamp>,
    permissions: Option<(Timestamp, Vec<MissingPrivilege>)>,
    node_info: BTreeMap<NodeId, KnownInfo>,
    /// When local time was asked for, and what is known of it.
    local_time: (Option<Timestamp>, Option<i32>),
    migrations: BTreeMap<Upid, MigrationTask>,
    configs: BTreeMap<Vmid, KnownConfig>,
    /// The storages that `configs` were judged by.
    storages: Vec<Storage>,
}

#[derive(Debug)]
struct KnownInfo {
    at: Timestamp,
    booted: Option<Timestamp>,
    info: Result<NodeInfo, PveError>,
}

#[derive(Debug)]
struct KnownConfig {
    at: Timestamp,
    /// What the list said about the guest then; a change means the configuration may have changed.
    stamp: Stamp,
    config: Arc<GuestConfig>,
}

/// The part of a guest's row that changes only with its configuration or place.
type Stamp = (NodeId, Option<String>, Option<String>, Vec<String>, [Option<u64>; 3]);

impl InventoryReader {
    /// A reader without past.
    #[must_use]
    pub fn new(client: Arc<PveClient>) -> Self {
        Self {
            client,
            seen: BTreeSet::new(),
            shrunk_since: None,
            permissions: None,
            node_info: BTreeMap::new(),
            local_time: (None, None),
            migrations: BTreeMap::new(),
            configs: BTreeMap::new(),
            storages: Vec::new(),
        }
    }

    /// Reads the whole cluster. `now` becomes `taken_at`; it should not run backwards between calls.
    ///
    /// # Errors
    /// That of the first part that decisions need and that failed; the error names its call. The
    /// next call compares with the last good inventory.
    pub async fn fetch(&mut self, now: Timestamp) -> Result<Inventory, PveError> {
        let client = Arc::clone(&self.client);
        // Tasks first: a migration that ends in between then still counts as running, not as never having been.
        let tasks::Listed { migrations, ended: tasks, backups } = tasks::list(&client).await?;
        let (membership, resources, crs, ha) = tokio::try_join!(
            cluster::membership(&client),
            resources::read(&client),
            cluster::crs(&client),
            async { Ok(ha::read(&client).await) },
        )?;
        let mut warnings: Vec<Warning> =
            client.startup_warnings().iter().cloned().map(Warning::Startup).collect();
        let ha = tolerate(ha, membership.name.is_none(), &mut warnings)?;
        whole_membership(&membership, &resources)?;
        self.look_at_permissions(now, resources.guests.len()).await?;
        warnings.extend(self.doubt_shrinkage(now, &resources)?);
        if let Some((_, missing)) = &self.permissions {
            warnings.extend(missing.iter().cloned().map(Warning::PartialView));
        }
        if client.is_pinned() {
            client.learn_pins(cluster::fingerprints(&client).await?);
        }
        let Resources { mut nodes, guests, storages } = resources;
        for node in nodes.values_mut() {
            take_part(node, &membership, &ha);
        }
        self.add_node_info(now, &mut nodes, &mut warnings).await;
        let utc_offset_s = self.local_time(now, &nodes, &mut warnings).await;
        let (running, history) = self.add_migrations(now, migrations, &guests);
        let mut inventory = Inventory {
            taken_at: now,
            cluster_name: membership.name,
            quorate: membership.quorate,
            nodes,
            guests,
            storages,
            ha,
            crs,
            running,
            history,
            tasks,
            backups,
            configs: BTreeMap::new(),
            utc_offset_s,
            warnings,
        };
        inventory.configs = self.current_configs(&inventory);
        self.seen = inventory.guests.keys().copied().collect();
        Ok(inventory)
    }

    /// Adds the configurations of `wanted` guests to `inventory.configs`, at most four requests at a time; those
    /// already there are not asked for again. Guests that are gone or whose node is away are passed over; one
    /// that can not be read is a warning.
    ///
    /// # Errors
    /// When nothing can be read at all: refused token, no connection, time-out.
    pub async fn add_configs(
        &mut self,
        inventory: &mut Inventory,
        wanted: impl IntoIterator<Item = Vmid>,
        now: Timestamp,
    ) -> Result<(), PveError> {
        let online =
            |node: &NodeId| inventory.nodes.get(node).is_some_and(|n| n.status == NodeStatus::Online);
        // Copies, because a task that is to run on any thread can not borrow what it walks through.
        let missing: Vec<Guest> = wanted
            .into_iter()
            .filter(|vmid| !inventory.configs.contains_key(vmid))
            .filter_map(|vmid| inventory.guests.get(&vmid))
            .filter(|guest| online(&guest.node))
            .cloned()
            .collect();
        let client = &self.client;
        let storages = &inventory.storages;
        let mut answers = stream::iter(missing)
            .map(|guest| async move {
                let answer = guest_config::read(client, &guest.node, guest.kind, guest.vmid, storages).await;
                (guest, answer)
            })
            .buffer_unordered(CONCURRENCY);
        let mut warnings = Vec::new();
        let mut read = Vec::new();
        while let Some((guest, answer)) = answers.next().await {
            match answer {
                Ok(config) => {
                    let config = GuestConfig { read_at: now, ..config };
                    read.push((guest.vmid, stamp(&guest), Arc::new(config)));
                }
                Err(PveError::NotFound { .. }) => {}
                Err(
                    error @ (PveError::Unauthorized { .. }
                    | PveError::Timeout { .. }
                    | PveError::Unavailable { .. }
                    | PveError::Tls { .. }),
                ) => return Err(error),
                Err(error) => warnings.push(Warning::GuestConfig { vmid: guest.vmid, error }),
            }
        }
        drop(answers);
        for (vmid, stamp, config) in read {
            self.configs.insert(vmid, KnownConfig { at: now, stamp, config: Arc::clone(&config) });
            inventory.configs.insert(vmid, config);
        }
        inventory.warnings.extend(warnings);
        Ok(())
    }

    /// The client it asks through.
    #[must_use]
    pub fn client(&self) -> Arc<PveClient> {
        Arc::clone(&self.client)
    }

    /// The remembered configurations that still hold for what `inventory` shows.
    fn current_configs(&mut self, inventory: &Inventory) -> BTreeMap<Vmid, Arc<GuestConfig>> {
        let storages = shape(&inventory.storages);
        if storages != self.storages {
            self.configs.clear();
            self.storages = storages;
        }
        self.configs.retain(|vmid, known| known.is_current(inventory.taken_at, inventory, *vmid));
        self.configs.iter().map(|(&vmid, known)| (vmid, Arc::clone(&known.config))).collect()
    }

    /// Looks at the privileges at the start, now and then, and whenever no guest is seen.
    async fn look_at_permissions(&mut self, now: Timestamp, guests: usize) -> Result<(), PveError> {
        let due = self.permissions.as_ref().is_none_or(|(at, missing)| {
            let every = if missing.is_empty() { PERMISSIONS_EVERY } else { PERMISSIONS_AGAIN };
            now.since(*at) >= every
        });
        if due || guests < self.seen.len() || guests == 0 {
            self.permissions = Some((now, permissions::check(&self.client).await?));
        }
        let lost =
            self.permissions.iter().flat_map(|(_, missing)| missing).find(|m| m.privilege == "VM.Audit");
        match lost {
            Some(missing) if guests == 0 => Err(PveError::HalfAnswer {
                path: resources::PATH,
                what: format!("no guest at all: {missing}"),
            }),
            _ => Ok(()),
        }
    }

    /// At least half of the guests, and more than one, gone at once: rather the answer is wrong than the cluster.
    fn doubt_shrinkage(
        &mut self,
        now: Timestamp,
        resources: &Resources,
    ) -> Result<Option<Warning>, PveError> {
        let (before, left) = (self.seen.len(), resources.guests.len());
        let vanished = self.seen.iter().filter(|vmid| !resources.guests.contains_key(vmid)).count();
        if !(vanished > 1 && vanished * 2 >= before || before > 0 && left == 0) {
            self.shrunk_since = None;
            return Ok(None);
        }
        let since = *self.shrunk_since.get_or_insert(now);
        if now.since(since) >= SHRINKAGE_ACCEPTED_AFTER {
            self.shrunk_since = None;
            return Ok(Some(Warning::Shrunk { before, now: left }));
        }
        let what = format!(
            "{vanished} of {before} guests vanished at once; the answer counts as incomplete until it has stayed so \
             for {} min. If they were not deleted, look at the token's permissions (`pveum acl list`) and at \
             `systemctl status pve-cluster` on the node asked",
            SHRINKAGE_ACCEPTED_AFTER.as_secs() / 60
        );
        Err(PveError::HalfAnswer { path: resources::PATH, what })
    }

    async fn add_node_info(
        &mut self,
        now: Timestamp,
        nodes: &mut BTreeMap<NodeId, Node>,
        warnings: &mut Vec<Warning>,
    ) {
        self.node_info.retain(|id, _| nodes.contains_key(id));
        let due = nodes.values().filter(|node| node.status == NodeStatus::Online);
        let due = due.filter(|node| self.node_info.get(&node.id).is_none_or(|known| known.is_due(now, node)));
        let due: Vec<(NodeId, Option<Timestamp>)> =
            due.map(|node| (node.id.clone(), booted(now, node))).collect();
        let client = &self.client;
        let answers: Vec<_> = stream::iter(due)
            .map(|(node, booted)| async move {
                let info = cluster::node_info(client, &node).await;
                (node, KnownInfo { at: now, booted, info })
            })
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        self.node_info.extend(answers);
        for node in nodes.values_mut() {
            match self.node_info.get(&node.id).map(|known| &known.info) {
                Some(Ok(info)) => node.info = Some(info.clone()),
                Some(Err(error)) if node.status == NodeStatus::Online => {
                    warnings.push(Warning::NodeInfo { node: node.id.clone(), error: error.clone() });
                }
                Some(Err(_)) | None => {}
            }
        }
    }

    /// Seconds that local time is ahead of UTC, asked of the first node that is there now and then.
    async fn local_time(
        &mut self,
        now: Timestamp,
        nodes: &BTreeMap<NodeId, Node>,
        warnings: &mut Vec<Warning>,
    ) -> i32 {
        let (asked, known) = self.local_time;
        let due = asked.is_none_or(|at| now.since(at) >= LOCAL_TIME_EVERY);
        if let Some(node) = nodes.values().find(|node| due && node.status == NodeStatus::Online) {
            match local_time::utc_offset(&self.client, &node.id).await {
                Ok(offset) => self.local_time = (Some(now), offset.or(known)),
                // What was known stands: it was right a while ago. Asked again with the next inventory.
                Err(_) if known.is_some() => {}
                Err(error) => warnings.push(Warning::LocalTime { node: node.id.clone(), error }),
            }
        }
        self.local_time.1.unwrap_or(0)
    }

    /// Adds what the list says now to what is remembered, since Proxmox soon forgets finished tasks.
    fn add_migrations(
        &mut self,
        now: Timestamp,
        listed: Vec<MigrationTask>,
        guests: &BTreeMap<Vmid, Guest>,
    ) -> (Vec<MigrationTask>, Vec<MigrationTask>) {
        let oldest = now.before(HISTORY);
        let ended = listed.iter().filter(|task| !task.is_running());
        self.migrations.extend(ended.map(|task| (task.upid.clone(), task.clone())));
        self.migrations.retain(|_, task| task.ended_at.is_some_and(|at| at >= oldest));
        let running = listed.into_iter().filter(MigrationTask::is_running);
        let mut all: Vec<MigrationTask> = self.migrations.values().cloned().chain(running).collect();
        let places = guests.values().map(|guest| (guest.vmid, guest.node.clone())).collect();
        tasks::settle(&mut all, &places);
        let (running, mut history): (Vec<_>, Vec<_>) = all.into_iter().partition(MigrationTask::is_running);
        if history.len() > MAX_HISTORY {
            let dropped = history.drain(..history.len() - MAX_HISTORY);
            for task in dropped {
                self.migrations.remove(&task.upid);
            }
        }
        (running, history)
    }
}

impl KnownInfo {
    /// A version changes by upgrade; a CPU by reboot at most. A boot time that moved by over a minute is a reboot.
    fn is_due(&self, now: Timestamp, node: &Node) -> bool {
        let age = now.since(self.at);
        let rebooted = match (self.booted, booted(now, node)) {
            (Some(then), Some(now)) => now.since(then) > Duration::from_mins(1),
            (None, _) | (_, None) => false,
        };
        rebooted || age >= if self.info.is_ok() { Duration::from_hours(1) } else { NODE_INFO_RETRY }
    }
}

impl KnownConfig {
    fn is_current(&self, now: Timestamp, inventory: &Inventory, vmid: Vmid) -> bool {
        now.since(self.at) < CONFIG_FRESH
            && inventory.guests.get(&vmid).is_some_and(|guest| stamp(guest) == self.stamp)
    }
}

fn booted(now: Timestamp, node: &Node) -> Option<Timestamp> {
    node.uptime.map(|uptime| now.before(uptime))
}

fn stamp(guest: &Guest) -> Stamp {
    let sizes = [guest.max_cpu.map(f64::to_bits), guest.max_mem.map(|b| b.0), guest.max_disk.map(|b| b.0)];
    (guest.node.clone(), guest.name.clone(), guest.lock.clone(), guest.tags.clone(), sizes)
}

/// Storages without their figures: what a guest's blockers depend on.
fn shape(storages: &[Storage]) -> Vec<Storage> {
    storages.iter().map(|storage| Storage { size: None, used: None, ..storage.clone() }).collect()
}

/// A node without cluster may do without HA; a cluster may not, for its rules would be broken unseen.
fn tolerate(ha: Result<Ha, PveError>, lone: bool, warnings: &mut Vec<Warning>) -> Result<Ha, PveError> {
    match ha {
        Ok(ha) => {
            if ha.from_groups {
                warnings.push(Warning::HaGroups);
            }
            Ok(ha)
        }
        Err(error @ (PveError::NotImplemented { .. } | PveError::Refused { .. })) if lone => {
            warnings.push(Warning::NoHa { error });
            Ok(Ha::default())
        }
        Err(error) => Err(error),
    }
}

/// Every member must have a row, and every guest must be on a node that has one.
fn whole_membership(membership: &Membership, resources: &Resources) -> Result<(), PveError> {
    let half = |what: String| Err(PveError::HalfAnswer { path: resources::PATH, what });
    if resources.nodes.is_empty() || membership.nodes.is_empty() {
        return half(
            "no node at all; check the token's permissions (`pveum acl list`) and quorum (`pvecm status`)"
                .into(),
        );
    }
    if let Some(absent) = membership.nodes.keys().find(|node| !resources.nodes.contains_key(node)) {
        return half(format!("node {absent} is a member of the cluster but not in the list of resources"));
    }
    match resources.guests.values().find(|guest| !resources.nodes.contains_key(&guest.node)) {
        Some(guest) => half(format!("guest {} is on {}, which is not in the list", guest.vmid, guest.node)),
        None => Ok(()),
    }
}

/// Figures may be minutes behind membership and HA, which know sooner that a node is away.
fn take_part(node: &mut Node, membership: &Membership, ha: &Ha) {
    if membership.nodes.get(&node.id) == Some(&false) {
        node.status = NodeStatus::Offline;
    }
    node.maintenance |= ha.nodes.get(&node.id) == Some(&NodeState::Maintenance)
        || ha.maintenance_requested.contains(&node.id);
}
