//! One consistent view of a cluster: what [`super::reader::InventoryReader`] makes of Proxmox' answers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::Timestamp;

use super::cluster::Crs;
use super::error::PveError;
use super::guest_config::GuestConfig;
use super::ha::Ha;
use super::permissions::MissingPrivilege;
use super::resources::{Guest, Node};
use super::storage::Storage;
use super::tasks::{Backup, EndedTask, MigrationTask};

/// A cluster at one time, as Proxmox tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Inventory {
    /// When reading began.
    pub taken_at: Timestamp,
    /// Name of the cluster; `None` for a node that is in none.
    pub cluster_name: Option<String>,
    /// Whether a majority of nodes is there. Nothing may move without.
    pub quorate: bool,
    /// All nodes.
    pub nodes: BTreeMap<NodeId, Node>,
    /// All guests that the token may see.
    pub guests: BTreeMap<Vmid, Guest>,
    /// Storages, a row per node that has one.
    pub storages: Vec<Storage>,
    /// High availability.
    pub ha: Ha,
    /// Proxmox' own scheduler; its `auto_rebalance` means hands off HA guests.
    pub crs: Crs,
    /// Migrations that run now, anybody's, oldest first.
    pub running: Vec<MigrationTask>,
    /// Migrations that ended within 48 h, anybody's, oldest first; those before this process started only as
    /// far as Proxmox still announces them.
    pub history: Vec<MigrationTask>,
    /// Tasks of any kind that have ended, as far as Proxmox still announces them: about the last 25 of each node.
    pub tasks: Vec<EndedTask>,
    /// Backups that are being made.
    pub backups: Vec<Backup>,
    /// Configurations read so far and still current. A guest without one must not be moved.
    pub configs: BTreeMap<Vmid, Arc<GuestConfig>>,
    /// Seconds that local time is ahead of UTC, by one of its nodes; 0 while that is not known.
    pub utc_offset_s: i32,
    /// What is not as it should be, though not enough to refuse the whole.
    pub warnings: Vec<Warning>,
}

impl Inventory {
    /// Whether Proxmox moves HA guests by itself.
    #[must_use]
    pub fn auto_rebalance(&self) -> bool {
        self.crs.auto_rebalance
    }
}

/// A reservation about an inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Something was off when the client was made.
    Startup(String),
    /// The token does not see everything.
    PartialView(MissingPrivilege),
    /// HA does not answer; tolerated on a node without cluster, which has none.
    NoHa {
        /// What it said instead.
        error: PveError,
    },
    /// PVE 8: the rules were made from HA groups.
    HaGroups,
    /// Version and CPU model of a node can not be read.
    NodeInfo {
        /// Whose.
        node: NodeId,
        /// Why.
        error: PveError,
    },
    /// Local time can not be read, so times of day are told in UTC.
    LocalTime {
        /// Who was asked.
        node: NodeId,
        /// Why.
        error: PveError,
    },
    /// A guest's configuration can not be read, so the guest stays where it is.
    GuestConfig {
        /// Whose.
        vmid: Vmid,
        /// Why.
        error: PveError,
    },
    /// Many guests vanished at once and did not come back; now taken for the truth.
    Shrunk {
        /// How many there were.
        before: usize,
        /// How many there are.
        now: usize,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Startup(text) => f.write_str(text),
            Self::PartialView(missing) => write!(f, "partial view: {missing}"),
            Self::NoHa { error } => write!(f, "this node has no HA: {error}"),
            Self::HaGroups => f.write_str("HA groups (PVE 8) stand in for HA rules"),
            Self::NodeInfo { node, error } => {
                write!(f, "version and CPU model of {node} are not known: {error}")
            }
            Self::LocalTime { node, error } => {
                write!(f, "local time of {node} is not known, so times of day are in UTC: {error}")
            }
            Self::GuestConfig { vmid, error } => write!(f, "guest {vmid} can not be moved: {error}"),
            Self::Shrunk { before, now } => {
                write!(f, "the cluster shrank from {before} guests to {now} at once and has stayed so")
            }
        }
    }
}
