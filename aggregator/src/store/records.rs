//! The records of the trees, as JSON on disk. A field may be added with `#[serde(default)]`; none may change its
//! meaning or go without a new schema number.

use evenkeel_common::anomaly::Anomaly;
use evenkeel_common::event::{AgentEvent, LossKind};
use evenkeel_common::guest::GuestProfile;
use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::node::NodeFacts;
use evenkeel_common::time::{Timestamp, Window};
use serde::{Deserialize, Serialize};

use super::key::key;

/// Random number of one spool of an agent; sequence numbers count within it.
pub type Epoch = [u8; 16];

/// What this store is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaRecord {
    /// Version of trees and records.
    pub schema: u32,
    /// Version of evenkeel that created this schema here.
    pub evenkeel: String,
    /// When the store was created.
    pub created_at: Timestamp,
}

/// A node that has reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Facts from its latest hello.
    pub facts: NodeFacts,
    /// First hello.
    pub first_seen: Timestamp,
    /// Latest stored word from it.
    pub last_seen: Timestamp,
    /// Epoch of its agent's spool.
    pub epoch: Epoch,
}

/// How far an agent's lanes are durable here; what lies at or below is a repetition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Epoch the numbers belong to.
    pub epoch: Epoch,
    /// Highest event number of the contiguous part; 0 = none.
    pub event: u64,
    /// Highest sample number of the contiguous part; 0 = none.
    pub sample: u64,
}

/// An event as an agent sent it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Where it happened.
    pub node: NodeId,
    /// Epoch of the agent.
    pub epoch: Epoch,
    /// Number within the epoch.
    pub seq: u64,
    /// What happened.
    pub event: AgentEvent,
}

/// An anomaly in its latest state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnomalyRecord {
    /// The anomaly.
    pub anomaly: Anomaly,
    /// Where it is.
    pub node: NodeId,
    /// Epoch its number belongs to.
    pub epoch: Epoch,
}

/// A stretch for which a node has no, or only thinned, samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GapRecord {
    /// When.
    pub window: Window,
    /// What became of the samples.
    pub kind: LossKind,
    /// How many records are affected.
    pub count: u64,
}

/// A guest's profile as its latest node knew it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProfileRecord {
    /// Which node sent it.
    pub node: NodeId,
    /// The profile.
    pub profile: GuestProfile,
    /// When it was received.
    pub at: Timestamp,
}

key! {
    /// A node of a cluster.
    NodeKey {
        /// Its cluster.
        cluster: ClusterId,
        /// Its name.
        node: NodeId,
    }
}
key! {
    /// A series of a node, by the number the aggregator gave it.
    SeriesNumber {
        /// Cluster of the node.
        cluster: ClusterId,
        /// The node.
        node: NodeId,
        /// The number; dense from 0, never given again.
        series: u32,
    }
}
key! {
    /// A block of samples, one for each node and minute.
    BlockKey {
        /// Cluster of the node.
        cluster: ClusterId,
        /// The node.
        node: NodeId,
        /// Start of the minute.
        start: Timestamp,
    }
}
key! {
    /// An event, in order of time within its cluster.
    EventKey {
        /// Cluster of the node.
        cluster: ClusterId,
        /// When it happened, by the node's clock.
        at: Timestamp,
        /// The node.
        node: NodeId,
        /// Number within the agent's epoch.
        seq: u64,
    }
}
key! {
    /// An anomaly by its identity.
    AnomalyKey {
        /// Cluster of the node.
        cluster: ClusterId,
        /// The node.
        node: NodeId,
        /// Epoch of the agent.
        epoch: Epoch,
        /// Number within the epoch.
        number: u64,
    }
}
key! {
    /// An anomaly by the time it opened.
    AnomalyTimeKey {
        /// Cluster of the node.
        cluster: ClusterId,
        /// When it opened.
        opened: Timestamp,
        /// The node.
        node: NodeId,
        /// Epoch of the agent.
        epoch: Epoch,
        /// Number within the epoch.
        number: u64,
    }
}
key! {
    /// A gap in a node's samples.
    GapKey {
        /// Cluster of the node.
        cluster: ClusterId,
        /// The node.
        node: NodeId,
        /// First instant of the gap.
        from: Timestamp,
        /// Sequence number of the report, which tells gaps of one start apart.
        seq: u64,
    }
}
key! {
    /// A guest of a cluster.
    GuestKey {
        /// Its cluster.
        cluster: ClusterId,
        /// Its number.
        vmid: Vmid,
    }
}
key! {
    /// A run of the decision cycle.
    RunKey {
        /// The cluster decided about.
        cluster: ClusterId,
        /// Start of the run, whole seconds since 1970.
        run_s: i64,
    }
}
key! {
    /// A decision; the parts of [`evenkeel_common::id::DecisionId`].
    DecisionKey {
        /// The cluster decided about.
        cluster: ClusterId,
        /// Start of the run, whole seconds since 1970.
        run_s: i64,
        /// Place in the run, from 1.
        number: u32,
    }
}
key! {
    /// An observed move of a guest.
    MoveKey {
        /// Cluster of the guest.
        cluster: ClusterId,
        /// When it moved.
        at: Timestamp,
        /// The guest.
        vmid: Vmid,
    }
}
