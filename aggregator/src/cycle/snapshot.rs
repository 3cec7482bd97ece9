//! From live state and inventory to the snapshot a decision is made from. Pure: what it is given is all it uses.
//!
//! Agents and Proxmox must agree on where every guest runs. Where they do not, or where data is old, partial or
//! skewed, the snapshot says so, and the decision core then decides nothing: absence of data is never load zero.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_common::guest::GuestProfile;
use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::reason::Reason;
use evenkeel_common::sample::Metric;
use evenkeel_common::time::{Timestamp, Window};
use evenkeel_common::units::Bytes;
use evenkeel_core::snapshot::{
    GuestState, HaRule, HandsOff, InFlight, NodeState, PastMove, Pressure, Snapshot,
};
use evenkeel_core::{Experience, OtherBalancer};

use crate::ingest::live::{GuestLive, NodeCell, NodeLive};
use crate::ingest::recent::Recent;
use crate::pve::guest_config::{Blocker, GuestConfig};
use crate::pve::ha::{Ha, Rule, RuleKind};
use crate::pve::inventory::Warning;
use crate::pve::resources::{Guest, GuestStatus, Node, NodeStatus};
use crate::pve::{Inventory, storage::Storage};

/// Loads are means over this long, so that single seconds do not decide.
const LOAD_WINDOW: Duration = Duration::from_secs(60);

/// As links are counted.
const BYTES_PER_MB: f64 = 1e6;

/// Everything a snapshot is made from.
pub struct Inputs<'a> {
    /// Which cluster.
    pub cluster: &'a ClusterId,
    /// Now, by the wall clock.
    pub at: Timestamp,
    /// Now, by the clock that ages data.
    pub uptime: Duration,
    /// What its agents say.
    pub agents: &'a BTreeMap<NodeId, std::sync::Arc<NodeCell>>,
    /// What Proxmox says, or why that is not known.
    pub inventory: Result<&'a Inventory, Reason>,
    /// Age beyond which an inventory is not trusted.
    pub inventory_limit: Duration,
    /// Profiles by the store, for guests whose agent has not sent one yet.
    pub profiles: &'a BTreeMap<Vmid, GuestProfile>,
    /// Known moves of the last thirty days.
    pub history: Vec<PastMove>,
    /// Others who move guests to balance the cluster.
    pub others: Vec<OtherBalancer>,
    /// Migrations of evenkeel that are under way.
    pub in_flight: Vec<InFlight>,
    /// What is not to be started.
    pub hands_off: Vec<HandsOff>,
    /// What evenkeel's own migrations taught.
    pub experience: Experience,
    /// Why an operator paused the cluster, if so.
    pub paused: Option<String>,
    /// Most milliseconds a node's clock may be off.
    pub max_skew_ms: u64,
}

/// Builds the snapshot. It always comes out; `problems` in it tell why it must not be decided on.
#[must_use]
pub fn build(inputs: Inputs<'_>) -> Snapshot {
    let mut snapshot = Snapshot {
        cluster: inputs.cluster.clone(),
        at: inputs.at,
        nodes: Vec::new(),
        guests: Vec::new(),
        rules: Vec::new(),
        history: inputs.history.clone(),
        in_flight: inputs.in_flight.clone(),
        problems: Vec::new(),
        paused: inputs.paused.clone(),
        pve_rebalances: false,
        utc_offset_s: 0,
        others: inputs.others.clone(),
        hands_off: inputs.hands_off.clone(),
        experience: inputs.experience,
    };
    let inventory = match &inputs.inventory {
        Ok(inventory) => *inventory,
        Err(problem) => {
            snapshot.problems.push(problem.clone());
            return snapshot;
        }
    };
    snapshot.problems.extend(doubts(&inputs, inventory));
    snapshot.pve_rebalances = inventory.auto_rebalance();
    snapshot.utc_offset_s = inventory.utc_offset_s;
    snapshot.rules =
        inventory.ha.rules.iter().filter(|r| !r.disabled).flat_map(|r| rule(r, inventory)).collect();
    let seen = placements(inputs.agents);
    let window = Window::ending(inputs.at, LOAD_WINDOW);
    for guest in inventory.guests.values() {
        let mut state = {
            let node = inputs.agents.get(&guest.node).map(|cell| cell.lock());
            let live = node.as_ref().and_then(|node| node.guests.get(&guest.vmid));
            let stored = || inputs.profiles.get(&guest.vmid).cloned();
            let profile = live.and_then(|g| g.profile.clone()).or_else(stored);
            GuestState { profile, ..guest_state(guest, live, inventory, window) }
        };
        state.disputed = dispute(guest, &seen, &inputs);
        snapshot.guests.push(state);
    }
    for (&vmid, nodes) in &seen {
        if !inventory.guests.contains_key(&vmid) {
            snapshot.problems.push(Reason::PlacementDisputed {
                guest: vmid,
                agents: nodes.clone(),
                pve: None,
            });
        }
    }
    for node in inventory.nodes.values() {
        snapshot.nodes.push(node_state(node, &inputs, inventory, &snapshot.guests, window));
    }
    snapshot
}

/// Why this inventory as a whole must not be decided on.
fn doubts(inputs: &Inputs<'_>, inventory: &Inventory) -> Vec<Reason> {
    let mut doubts = Vec::new();
    let age = inputs.at.since(inventory.taken_at);
    if age > inputs.inventory_limit {
        doubts.push(Reason::PveInventoryStale {
            age_s: age.as_secs(),
            limit_s: inputs.inventory_limit.as_secs(),
        });
    }
    if !inventory.quorate {
        doubts.push(Reason::NoQuorum {});
    }
    for warning in &inventory.warnings {
        if let Warning::PartialView(missing) = warning {
            doubts.push(Reason::PveInventoryPartial { detail: missing.to_string() });
        }
    }
    let own = |guest: Vmid| inputs.in_flight.iter().any(|flight| flight.guest == guest);
    for task in inventory.running.iter().filter(|task| task.is_running() && !own(task.vmid)) {
        let source = task.source().clone();
        doubts.push(Reason::ForeignMigration { guest: task.vmid, source, target: task.moved_to.clone() });
    }
    doubts
}

/// Where the agents see each running guest.
pub(super) fn placements(agents: &BTreeMap<NodeId, std::sync::Arc<NodeCell>>) -> BTreeMap<Vmid, Vec<NodeId>> {
    let mut seen: BTreeMap<Vmid, Vec<NodeId>> = BTreeMap::new();
    for (node, cell) in agents {
        let live = cell.lock();
        for &vmid in live.guests.keys().filter(|_| !live.is_catching_up()) {
            seen.entry(vmid).or_default().push(node.clone());
        }
    }
    seen
}

fn dispute(guest: &Guest, seen: &BTreeMap<Vmid, Vec<NodeId>>, inputs: &Inputs<'_>) -> Option<Reason> {
    let none = Vec::new();
    let agents = seen.get(&guest.vmid).unwrap_or(&none);
    let runs = guest.status == GuestStatus::Running;
    // A node whose agent is silent or catching up says nothing about its guests; that bars the node by itself.
    let agent_speaks = inputs.agents.get(&guest.node).is_some_and(|cell| {
        let live = cell.lock();
        live.received.is_some() && !live.is_catching_up()
    });
    // While a guest moves, both nodes may have it, or for a moment neither.
    let moves = inputs.in_flight.iter().find(|flight| flight.guest == guest.vmid);
    if moves.is_some_and(|flight| {
        agents.iter().all(|seen| *seen == flight.from || Some(seen) == flight.to.as_ref())
    }) {
        return None;
    }
    let agreed = match (runs, agents.as_slice()) {
        (true, [only]) => *only == guest.node,
        (true, []) => !agent_speaks,
        (false, []) => true,
        _ => false,
    };
    (!agreed).then(|| Reason::PlacementDisputed {
        guest: guest.vmid,
        agents: agents.clone(),
        pve: Some(guest.node.clone()),
    })
}

fn node_state(
    node: &Node,
    inputs: &Inputs<'_>,
    inventory: &Inventory,
    guests: &[GuestState],
    window: Window,
) -> NodeState {
    let storages = inventory.storages.iter().filter(|s| s.node == node.id && s.available);
    let cpu_waited = guests.iter().filter(|g| g.node == node.id).map(|g| g.cpu_waited).sum();
    let mut state = NodeState {
        id: node.id.clone(),
        online: node.status == NodeStatus::Online,
        maintenance: node.maintenance,
        barred: None,
        agent_age_s: None,
        cores: node.max_cpu.unwrap_or(0.0),
        memory: node.max_mem.unwrap_or_default(),
        memory_used: node.mem.unwrap_or_default(),
        cpu_used: 0.0,
        cpu_waited,
        pressure: Pressure::default(),
        iowait_percent: 0.0,
        cpu_model: node.info.as_ref().map(|info| info.cpu_model.clone()).filter(|model| !model.is_empty()),
        storages: storages.map(|s: &Storage| s.id.clone()).collect(),
        net_mb_s: None,
        link_mb_s: None,
        demand_trail: Vec::new(),
    };
    let Some(cell) = inputs.agents.get(&node.id) else { return state };
    let live = cell.lock();
    state.agent_age_s = live.received.map(|at| inputs.uptime.saturating_sub(at).as_secs());
    state.barred = barred(&node.id, &live, inputs);
    if live.facts.cpus > 0 {
        state.cores = f64::from(live.facts.cpus);
    }
    let mean = |recent: &Recent| recent.mean(window);
    let Some(cpu_percent) = mean(&live.load.cpu) else {
        // An agent that speaks but has no figure of the last minute is as good as none.
        state.agent_age_s = None;
        return state;
    };
    state.cpu_used = cpu_percent / 100.0 * state.cores;
    if let Some(bytes) = mean(&live.load.mem_bytes) {
        state.memory_used = Bytes::from_f64(bytes);
    }
    state.pressure = Pressure {
        cpu: mean(&live.load.psi_cpu),
        memory: mean(&live.load.psi_mem),
        io: mean(&live.load.psi_io),
    };
    state.iowait_percent = mean(&live.load.iowait).unwrap_or(0.0);
    let direction = |metric| live.wide.sum(metric, window).map(|bytes| bytes / BYTES_PER_MB);
    state.net_mb_s = busier(direction(Metric::NetRx), direction(Metric::NetTx));
    #[allow(clippy::cast_precision_loss)] // Far below 2^53.
    let link_mb_s = live.facts.link_mbps as f64 / 8.0;
    state.link_mb_s = (link_mb_s > 0.0).then_some(link_mb_s);
    state
}

/// Why this node takes no part, though others may.
fn barred(node: &NodeId, live: &NodeLive, inputs: &Inputs<'_>) -> Option<Reason> {
    if let Some(skew_ms) = live.skew_ms.filter(|skew| skew.unsigned_abs() > inputs.max_skew_ms) {
        return Some(Reason::ClockSkew { node: node.clone(), skew_ms, limit_ms: inputs.max_skew_ms });
    }
    // The mark came with the values, so it is there for as long as they count, whatever became of the drill, of the
    // agent, or of this aggregator's memory meanwhile.
    let window = Window::ending(inputs.at, LOAD_WINDOW);
    if live.load.drill.mean(window).is_some() || live.open.values().any(|anomaly| anomaly.injected) {
        return Some(Reason::DataInjected { node: node.clone() });
    }
    let detail = || "events from before its reconnection are still arriving".to_owned();
    live.is_catching_up().then(|| Reason::DataInvalid { node: node.clone(), detail: detail() })
}

fn guest_state(guest: &Guest, live: Option<&GuestLive>, inventory: &Inventory, window: Window) -> GuestState {
    let config = inventory.configs.get(&guest.vmid);
    let facts = live.map(|g| &g.facts);
    let vcpus = guest.max_cpu.or(facts.and_then(|f| f.vcpus)).unwrap_or(0.0);
    let cpu_used = live.and_then(|g| g.cpu.mean(window));
    let waited = live.and_then(|g| g.psi_cpu.mean(window)).unwrap_or(0.0);
    let memory_max = guest.max_mem.or(facts.and_then(|f| f.memory_max)).unwrap_or_default();
    let memory_used = live.and_then(|g| g.mem.mean(window)).map(Bytes::from_f64).or(guest.mem);
    let (local_disks, devices) = blockers(config.map(AsRef::as_ref));
    let shared: BTreeSet<&str> =
        inventory.storages.iter().filter(|s| s.shared).map(|s| s.id.as_str()).collect();
    GuestState {
        vmid: guest.vmid,
        name: guest.name.clone().unwrap_or_default(),
        kind: guest.kind,
        node: guest.node.clone(),
        running: guest.status == GuestStatus::Running,
        template: guest.template,
        lock: guest.lock.clone(),
        disputed: None,
        vcpus,
        memory_max,
        // Unknown use is taken as all of it: a guest must not look small because nobody looked.
        memory_used: memory_used.unwrap_or(memory_max),
        cpu_used,
        cpu_waited: waited_cores(cpu_used.unwrap_or(0.0), waited / 100.0, vcpus),
        profile: None,
        tags: guest.tags.clone(),
        ha_state: inventory.ha.services.get(&guest.vmid).map(|service| service.state.to_string()),
        local_disks,
        local_disk_bytes: config.map_or(Bytes(0), |c| c.local_disk_bytes),
        disks: config.map_or(0, |c| c.disks),
        dirty_mb_s: None,
        net_mb_s: live.and_then(|g| {
            let [received, sent] = g.net.each_ref().map(|recent| recent.mean(window));
            busier(received, sent).map(|bytes| bytes / BYTES_PER_MB)
        }),
        devices,
        storages: config.map_or_else(BTreeSet::new, |c| {
            c.storages.iter().filter(|s| shared.contains(s.as_str())).cloned().collect()
        }),
        cpu_host: config.is_some_and(|c| c.needs_same_cpu()),
    }
}

/// The higher of two directions; a link has the same speed in both.
fn busier(received: Option<f64>, sent: Option<f64>) -> Option<f64> {
    [received, sent].into_iter().flatten().reduce(f64::max)
}

/// Cores a guest waited for: it got `used` in the share of time in which it did not wait. Never more than it has.
fn waited_cores(used: f64, share: f64, vcpus: f64) -> f64 {
    let share = share.clamp(0.0, 0.9);
    let wanted = used / (1.0 - share);
    let limit = if vcpus > 0.0 { vcpus.max(used) } else { wanted };
    (wanted.min(limit) - used).max(0.0)
}

/// What keeps a guest where it is: local disks, and devices of its node.
fn blockers(config: Option<&GuestConfig>) -> (Vec<String>, Vec<String>) {
    let Some(config) = config else {
        return (Vec::new(), vec!["unknown ones (its configuration could not be read)".into()]);
    };
    let (mut disks, mut devices) = (Vec::new(), Vec::new());
    for blocker in &config.blockers {
        match blocker {
            Blocker::LocalDisk { key, .. } | Blocker::UnknownStorage { key, .. } => disks.push(key.clone()),
            Blocker::LocalDevice { key } | Blocker::MappedDevice { key, .. } | Blocker::HostPath { key } => {
                devices.push(key.clone());
            }
            Blocker::LocalCdrom { key, storage } => devices.push(format!("{key} (CD image on {storage})")),
        }
    }
    (disks, devices)
}

fn rule(rule: &Rule, inventory: &Inventory) -> Vec<HaRule> {
    let (name, guests) = (rule.id.clone(), rule.guests.clone());
    match &rule.kind {
        RuleKind::NodeAffinity { nodes, strict } => {
            let nodes = nodes.iter().map(|(node, priority)| (node.clone(), *priority)).collect();
            let no_failback = without_failback(&guests, &inventory.ha);
            vec![HaRule::NodeAffinity { rule: name, guests, nodes, strict: *strict, no_failback }]
        }
        RuleKind::KeepTogether => vec![HaRule::ResourceAffinity { rule: name, guests, together: true }],
        RuleKind::KeepApart => vec![HaRule::ResourceAffinity { rule: name, guests, together: false }],
        // A rule of a kind that is not known: the safe reading is that its guests stay where they are.
        RuleKind::Other(_) => guests
            .into_iter()
            .filter_map(|vmid| {
                let home = inventory.guests.get(&vmid)?.node.clone();
                let guests = BTreeSet::from([vmid]);
                Some(HaRule::NodeAffinity {
                    rule: name.clone(),
                    guests,
                    nodes: vec![(home, 0)],
                    strict: true,
                    no_failback: BTreeSet::new(),
                })
            })
            .collect(),
    }
}

/// Those of the guests that HA does not move back to a better node of their rule.
fn without_failback(guests: &BTreeSet<Vmid>, ha: &Ha) -> BTreeSet<Vmid> {
    let stays = |vmid: &&Vmid| ha.resources.get(vmid).is_some_and(|resource| !resource.failback);
    guests.iter().filter(stays).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pve::ha::{Resource, ServiceState};

    #[test]
    fn only_a_managed_guest_whose_failback_is_off_stays_where_it_is() {
        let vmid = |number| Vmid::new(number).unwrap();
        let mut ha = Ha::default();
        for (number, failback) in [(101, true), (102, false), (104, false)] {
            let resource = Resource { requested: ServiceState::Started, failback, group: None };
            ha.resources.insert(vmid(number), resource);
        }
        let of_the_rule = BTreeSet::from([vmid(101), vmid(102), vmid(103)]);
        assert_eq!(without_failback(&of_the_rule, &ha), BTreeSet::from([vmid(102)]));
    }

    #[test]
    fn waiting_reveals_hidden_demand_but_no_more_than_the_guest_has() {
        assert_eq!(waited_cores(2.0, 0.0, 4.0), 0.0);
        assert!((waited_cores(2.0, 0.5, 8.0) - 2.0).abs() < 1e-9);
        assert!((waited_cores(3.0, 0.9, 4.0) - 1.0).abs() < 1e-9);
        assert_eq!(waited_cores(4.1, 0.5, 4.0), 0.0);
        assert!((waited_cores(1.0, 1.0, 0.0) - 9.0).abs() < 1e-9);
    }
}
