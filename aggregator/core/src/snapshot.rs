//! Everything a decision may use, as plain data: what is not in here can not influence a decision.

use std::collections::BTreeSet;

use evenkeel_common::decision::Mover;
use evenkeel_common::guest::{GuestKind, GuestProfile, UsageSummary};
use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::reason::Reason;
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Bytes;
use serde::{Deserialize, Serialize};

use crate::coexist::OtherBalancer;
use crate::experience::Experience;

/// One cluster at one moment. The order of its lists does not matter; [`Snapshot::sorted`] gives the canonical one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Which cluster.
    pub cluster: ClusterId,
    /// When; the only "now" of the decision.
    pub at: Timestamp,
    /// All nodes that Proxmox VE knows, also offline ones.
    pub nodes: Vec<NodeState>,
    /// All guests, also stopped ones and templates.
    pub guests: Vec<GuestState>,
    /// HA rules in force (disabled ones left out).
    pub rules: Vec<HaRule>,
    /// Migrations of at least the last seven days (the longest cycle window), by anyone; records of node pairs and
    /// guests want the last thirty.
    pub history: Vec<PastMove>,
    /// Migrations under way.
    pub in_flight: Vec<InFlight>,
    /// Why this snapshot must not be decided on, each enough to stop the run: stale or partial data, no quorum,
    /// clock skew, disagreement.
    pub problems: Vec<Reason>,
    /// Why an operator paused the cluster, if so; may be an empty text.
    pub paused: Option<String>,
    /// Whether Proxmox VE balances HA guests itself (`crs: ha-auto-rebalance=1`).
    pub pve_rebalances: bool,
    /// Seconds that the cluster's local time is ahead of UTC: for windows of the day that people read.
    #[serde(default)]
    pub utc_offset_s: i32,
    /// Others who move guests to balance the cluster.
    #[serde(default)]
    pub others: Vec<OtherBalancer>,
    /// What is not to be started though it may be decided.
    #[serde(default)]
    pub hands_off: Vec<HandsOff>,
    /// What evenkeel's own migrations taught.
    #[serde(default)]
    pub experience: Experience,
}

/// A reason to start no migration: breakers, switches, what failed a moment ago.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandsOff {
    /// None from or to this node; `None` = any node.
    pub node: Option<NodeId>,
    /// None of this guest; `None` = any guest.
    pub guest: Option<Vmid>,
    /// Why.
    pub why: Reason,
}

impl HandsOff {
    /// Whether it holds for a move.
    #[must_use]
    pub fn concerns(&self, guest: Vmid, source: &NodeId, target: &NodeId) -> bool {
        self.guest.is_none_or(|only| only == guest)
            && self.node.as_ref().is_none_or(|only| only == source || only == target)
    }
}

/// A node. Loads are means over the last minute or so, not single seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeState {
    /// Name.
    pub id: NodeId,
    /// Whether Proxmox VE says it is online.
    pub online: bool,
    /// Whether it is in (or has been asked for) HA maintenance: takes no guests, gives them away.
    pub maintenance: bool,
    /// Why this one node takes no part, though the rest of the cluster may be decided on. Offline is no such reason.
    pub barred: Option<Reason>,
    /// Seconds since its agent was last heard; `None` when it has none. Matters while the node is online.
    pub agent_age_s: Option<u64>,
    /// Logical CPUs.
    pub cores: f64,
    /// Physical memory.
    pub memory: Bytes,
    /// Memory in use by host and guests; what the kernel can reclaim (page cache, ZFS ARC above its minimum) not counted.
    pub memory_used: Bytes,
    /// CPU in use by host and guests, in cores.
    pub cpu_used: f64,
    /// CPU that runnable tasks waited for, in cores, beyond what its guests report in [`GuestState::cpu_waited`]
    /// summed: demand a saturated node hides. The whole node's figure, guests' included.
    pub cpu_waited: f64,
    /// Share of time in which some task stalled, in percent; `None` without PSI.
    pub pressure: Pressure,
    /// I/O wait in percent of CPU time; stands in for I/O pressure without PSI.
    pub iowait_percent: f64,
    /// Model name of the CPU, when known.
    pub cpu_model: Option<String>,
    /// Storages available on it.
    pub storages: BTreeSet<String>,
    /// Traffic of its NICs in the busier direction, in MB/s; `None` when not known.
    #[serde(default)]
    pub net_mb_s: Option<f64>,
    /// What its NICs can carry in one direction, in MB/s; `None` when not known.
    #[serde(default)]
    pub link_mb_s: Option<f64>,
    /// Its CPU demand over the last hour, oldest first, in steps of a minute to five; empty when not known.
    #[serde(default)]
    pub demand_trail: Vec<TrailPoint>,
}

/// CPU demand of a node at an earlier moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrailPoint {
    /// Seconds before the snapshot.
    pub age_s: u32,
    /// Cores used and waited for, in percent of the node's; above 100 when more was asked for than there is.
    pub percent: f64,
}

/// Pressure stall information ("some", 10 s or 60 s mean), in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// Waiting for CPU.
    pub cpu: Option<f64>,
    /// Waiting for memory.
    pub memory: Option<f64>,
    /// Waiting for I/O.
    pub io: Option<f64>,
}

/// A guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestState {
    /// Number.
    pub vmid: Vmid,
    /// Name; attacker-controlled text, may repeat, empty when unknown.
    pub name: String,
    /// Kind.
    pub kind: GuestKind,
    /// The node it is on.
    pub node: NodeId,
    /// Whether it runs.
    pub running: bool,
    /// Whether it is a template.
    pub template: bool,
    /// Proxmox VE's lock on it (`backup`, `migrate`, `snapshot`, ..), if any.
    pub lock: Option<String>,
    /// Why its placement is not certain: agents and Proxmox VE disagree. Stops the run.
    pub disputed: Option<Reason>,
    /// CPUs it sees; 0 when unknown (a container without limit has its node's).
    pub vcpus: f64,
    /// Memory it may use.
    pub memory_max: Bytes,
    /// Memory it uses of its node.
    pub memory_used: Bytes,
    /// CPU it uses now, in cores; `None` when not known, which is not zero.
    pub cpu_used: Option<f64>,
    /// CPU it waited for (its PSI cpu, or its steal), in cores.
    pub cpu_waited: f64,
    /// How it usually behaves.
    pub profile: Option<GuestProfile>,
    /// Its tags.
    pub tags: Vec<String>,
    /// State of its HA resource (`started`, ..); `None` when HA does not manage it.
    pub ha_state: Option<String>,
    /// Disks on storage that only its node has, as the config names them (`scsi0`), CD-ROMs and unused ones not counted.
    pub local_disks: Vec<String>,
    /// Size of these; 0 when not known.
    pub local_disk_bytes: Bytes,
    /// Number of all its disks, CD-ROMs not counted; 0 when not known.
    #[serde(default)]
    pub disks: u32,
    /// Memory that it changes, in MB/s, which a live migration has to send again; `None` when not known.
    #[serde(default)]
    pub dirty_mb_s: Option<f64>,
    /// Traffic of its NICs in the busier direction, in MB/s; `None` when not known.
    #[serde(default)]
    pub net_mb_s: Option<f64>,
    /// Host devices it uses (`hostpci0`, `usb0`, bind mounts of containers).
    pub devices: Vec<String>,
    /// Storages it needs wherever it runs (shared ones of its disks and CD-ROMs).
    pub storages: BTreeSet<String>,
    /// Whether its CPU type is `host`, so that it only moves live between equal CPUs.
    pub cpu_host: bool,
}

/// A rule of Proxmox VE's HA manager.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum HaRule {
    /// Guests belong on some nodes. Proxmox VE 8's groups read as such a rule.
    NodeAffinity {
        /// Its name.
        rule: String,
        /// Guests it is about.
        guests: BTreeSet<Vmid>,
        /// Nodes with their priority; the highest available priority wins.
        nodes: Vec<(NodeId, u32)>,
        /// Whether other nodes are forbidden, even when none of these is available.
        strict: bool,
        /// Those of the guests that Proxmox VE does not move back to a node of higher priority (`failback 0`).
        #[serde(default)]
        no_failback: BTreeSet<Vmid>,
    },
    /// Guests belong together, or apart.
    ResourceAffinity {
        /// Its name.
        rule: String,
        /// Guests it is about.
        guests: BTreeSet<Vmid>,
        /// On one node (positive), or each on another (negative).
        together: bool,
    },
}

/// A migration that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastMove {
    /// Which guest.
    pub guest: Vmid,
    /// From where.
    pub from: NodeId,
    /// To where.
    pub to: NodeId,
    /// When it ended.
    pub at: Timestamp,
    /// Who started it.
    pub by: Mover,
    /// Whether the guest arrived.
    pub ok: bool,
    /// Whether the cluster was the better for it, as judged later; `None` when not judged.
    #[serde(default)]
    pub helped: Option<bool>,
}

/// A migration under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// Which guest.
    pub guest: Vmid,
    /// From where.
    pub from: NodeId,
    /// To where; `None` when not known (Proxmox VE's task list does not tell).
    pub to: Option<NodeId>,
    /// Who started it.
    pub by: Mover,
}

/// A guest and where it could go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Candidate {
    /// Which guest.
    pub guest: Vmid,
    /// Where to.
    pub target: NodeId,
}

/// A candidate whose guest, source and target are known to exist. Indices are into the sorted snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Move<'a> {
    /// The guest.
    pub guest: &'a GuestState,
    /// Where it is.
    pub source: &'a NodeState,
    /// Where it would go.
    pub target: &'a NodeState,
    /// Index of the guest in [`Snapshot::guests`].
    pub guest_index: usize,
    /// Index of the source in [`Snapshot::nodes`].
    pub source_index: usize,
    /// Index of the target in [`Snapshot::nodes`].
    pub target_index: usize,
}

impl Snapshot {
    /// The canonical order: nodes by name, guests by vmid, history by time. Everything that decides wants this.
    #[must_use]
    pub fn sorted(&self) -> Self {
        let mut sorted = self.clone();
        sorted.nodes.sort_by(|a, b| a.id.cmp(&b.id));
        sorted.guests.sort_by_key(|guest| guest.vmid);
        for guest in &mut sorted.guests {
            guest.tags.sort();
            guest.tags.dedup();
        }
        sorted.rules.sort();
        sorted.history.sort_by(|a, b| {
            (a.at, a.guest, &a.from, &a.to, a.by).cmp(&(b.at, b.guest, &b.from, &b.to, b.by))
        });
        sorted.in_flight.sort_by(|a, b| (a.guest, &a.to).cmp(&(b.guest, &b.to)));
        sorted
    }

    /// Place of a node in the sorted snapshot.
    #[must_use]
    pub fn node_index(&self, id: &NodeId) -> Option<usize> {
        self.nodes.binary_search_by(|node| node.id.cmp(id)).ok()
    }

    /// Place of a guest in the sorted snapshot.
    #[must_use]
    pub fn guest_index(&self, vmid: Vmid) -> Option<usize> {
        self.guests.binary_search_by_key(&vmid, |guest| guest.vmid).ok()
    }

    /// The move a candidate means in this (sorted) snapshot; `None` when guest or target is not there, or the
    /// guest is on the target already.
    #[must_use]
    pub fn resolve(&self, candidate: &Candidate) -> Option<Move<'_>> {
        let guest_index = self.guest_index(candidate.guest)?;
        let source_index = self.node_index(&self.guests[guest_index].node)?;
        let target_index = self.node_index(&candidate.target)?;
        (source_index != target_index).then(|| self.move_at(guest_index, source_index, target_index))
    }

    pub(crate) fn move_at(&self, guest_index: usize, source_index: usize, target_index: usize) -> Move<'_> {
        Move {
            guest: &self.guests[guest_index],
            source: &self.nodes[source_index],
            target: &self.nodes[target_index],
            guest_index,
            source_index,
            target_index,
        }
    }

    /// Puts a guest where a candidate says, as if it had moved: node figures follow. Returns whether it applied.
    pub fn apply(&mut self, candidate: &Candidate) -> bool {
        let Some(Move { guest_index, source_index, target_index, .. }) = self.resolve(candidate) else {
            return false;
        };
        let guest = &mut self.guests[guest_index];
        guest.node = candidate.target.clone();
        if guest.running {
            let (cpu, waited, memory) = (guest.cpu_used.unwrap_or(0.0), guest.cpu_waited, guest.memory_used);
            let net = guest.net_mb_s.unwrap_or(0.0);
            let source = &mut self.nodes[source_index];
            source.cpu_used = (source.cpu_used - cpu).max(0.0);
            source.cpu_waited = (source.cpu_waited - waited).max(0.0);
            source.memory_used = source.memory_used.saturating_sub(memory);
            source.net_mb_s = source.net_mb_s.map(|before| (before - net).max(0.0));
            let target = &mut self.nodes[target_index];
            target.cpu_used += cpu;
            target.cpu_waited += waited;
            target.memory_used = target.memory_used.saturating_add(memory);
            target.net_mb_s = target.net_mb_s.map(|before| before + net);
        }
        true
    }

    /// Why the numbers can not be right: not finite, negative, a guest on a node that is not there, anything twice.
    /// Assumes the sorted order.
    pub(crate) fn nonsense(&self) -> Option<Reason> {
        let bad = |node: &NodeId, detail: String| Some(Reason::DataInvalid { node: node.clone(), detail });
        for pair in self.nodes.windows(2) {
            if pair[0].id == pair[1].id {
                return bad(&pair[0].id, "it is listed twice".into());
            }
        }
        for node in &self.nodes {
            let p = node.pressure;
            let given = [p.cpu, p.memory, p.io, node.net_mb_s, node.link_mb_s].into_iter().flatten();
            let all =
                [node.cores, node.cpu_used, node.cpu_waited, node.iowait_percent].into_iter().chain(given);
            let trail = node.demand_trail.iter().map(|point| point.percent);
            if all.chain(trail).any(|value| !(0.0..1e9).contains(&value)) {
                return bad(&node.id, "a load is negative or not a number".into());
            }
            if takes_part(node) && (node.cores <= 0.0 || node.memory == Bytes(0)) {
                return bad(&node.id, "it has no CPU or no memory".into());
            }
        }
        for pair in self.guests.windows(2) {
            if pair[0].vmid == pair[1].vmid {
                return bad(&pair[0].node, format!("guest {} is listed twice", pair[0].vmid));
            }
        }
        for guest in &self.guests {
            if self.node_index(&guest.node).is_none() {
                return bad(&guest.node, format!("guest {} is on a node that is not listed", guest.vmid));
            }
            let (cpu, net) = (guest.cpu_used.unwrap_or(0.0), guest.net_mb_s.unwrap_or(0.0));
            if [guest.vcpus, cpu, guest.cpu_waited, net].iter().any(|v| !(0.0..1e9).contains(v)) {
                return bad(
                    &guest.node,
                    format!("a load of guest {} is negative or not a number", guest.vmid),
                );
            }
            if guest.profile.as_ref().is_some_and(|profile| !is_sound(profile)) {
                return bad(
                    &guest.node,
                    format!("a figure of guest {}'s profile is negative or not a number", guest.vmid),
                );
            }
        }
        None
    }
}

/// Whether every figure of a profile is one that a guest can have. Bytes go up to an exabyte.
fn is_sound(profile: &GuestProfile) -> bool {
    let usage = |usage: &UsageSummary| {
        let all = [usage.min, usage.max, usage.mean, usage.std_dev, usage.p95];
        all.iter().all(|value| (0.0..1e18).contains(value)) && usage.slope_per_hour.abs() < 1e18
    };
    let hours = profile.cpu_by_hour.iter().flatten().all(|cores| (0.0..1e9).contains(cores));
    let outlook = profile.outlook.as_ref().is_none_or(|outlook| {
        let shares = [outlook.daily_share, outlook.persistence];
        let cores = [outlook.recent_mean, outlook.spread];
        shares.iter().all(|share| (0.0..=1.0).contains(share))
            && cores.iter().all(|cores| (0.0..1e9).contains(cores))
    });
    usage(&profile.cpu) && usage(&profile.memory) && hours && outlook
}

/// Whether a node's figures count at all: online and not barred.
pub(crate) fn takes_part(node: &NodeState) -> bool {
    node.online && node.barred.is_none()
}
