//! A cluster as the executor sees it: where guests are and what is being done to them. Made of one whole inventory, or
//! there is none.

use std::collections::BTreeMap;

use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::Timestamp;

/// One whole look at a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// When it was taken.
    pub at: Timestamp,
    /// All guests.
    pub guests: BTreeMap<Vmid, Placed>,
    /// Migrations, those that run and those lately ended, oldest first.
    pub tasks: Vec<Task>,
    /// Nodes that are there.
    pub online: Vec<NodeId>,
}

/// A guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Where it is, as Proxmox VE has it.
    pub node: NodeId,
    /// Where agents see it, those that speak; empty when none does.
    pub seen_on: Vec<NodeId>,
    /// Proxmox VE's lock on it.
    pub lock: Option<String>,
    /// Who it is, where that is known.
    pub identity: Option<String>,
    /// State of its HA resource.
    pub ha: Option<String>,
}

/// A migration in the task list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Proxmox VE's name for it.
    pub upid: String,
    /// Node that it runs on, which the guest is to leave.
    pub node: NodeId,
    /// The guest.
    pub guest: Vmid,
    /// Only asks HA to move it.
    pub request: bool,
    /// Whose: `user@realm` or `user@realm!tokenid`.
    pub user: String,
    /// When it started.
    pub started: Timestamp,
    /// When it ended, and its words if it failed by its own account.
    pub ended: Option<(Timestamp, Option<String>)>,
}

impl Task {
    /// Whether it runs.
    #[must_use]
    pub const fn runs(&self) -> bool {
        self.ended.is_none()
    }
}

impl View {
    /// Migration tasks of a guest, oldest first.
    pub fn tasks_of(&self, guest: Vmid) -> impl DoubleEndedIterator<Item = &Task> {
        self.tasks.iter().filter(move |task| task.guest == guest)
    }
}
