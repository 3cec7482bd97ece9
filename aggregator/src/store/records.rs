//! The records of the trees, as JSON on disk. A field may be added with `#[serde(default)]`; none may change its
//! meaning or go without a new schema number.

use std::collections::BTreeMap;

use evenkeel_common::anomaly::Anomaly;
use evenkeel_common::event::{AgentEvent, LossKind};
use evenkeel_common::guest::{GuestKind, GuestProfile, ProfilePiece};
use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::node::NodeFacts;
use evenkeel_common::time::{Timestamp, Window};
use serde::{Deserialize, Serialize};

use super::key::key;

/// Random number of one spool of an agent; sequence numbers count within it.
pub type Epoch = [u8; 16];

/// Epoch of the anomalies that the aggregator itself finds, on every node and for good: no agent draws it by chance.
pub const FLEET_EPOCH: Epoch = *b"evenkeel-fleet-1";

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
    /// What the aggregator knows beside, where it found the anomaly itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetFinding>,
}

/// What there is to say of an anomaly that the aggregator found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FleetFinding {
    /// What it is about, a sentence.
    pub text: String,
    /// Messages behind it, at most three.
    pub samples: Vec<String>,
    /// Detectors that had no say, with the reason.
    pub abstained: Vec<String>,
}

/// What a person thinks of an anomaly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedbackRecord {
    /// Whether it was real; otherwise a false alarm.
    pub good: bool,
    /// Their words; may be empty.
    pub note: String,
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// Health of a node or guest at one time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoreRecord {
    /// 0 to 100, higher = healthier; `None` while nothing was known.
    pub score: Option<f64>,
    /// healthy, degraded, critical or unknown.
    pub status: String,
}

/// Means of a node over some minutes: what forecasts and seasonal baselines live on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RollupRecord {
    /// Observations in it.
    pub count: u32,
    /// Bandwidth (Mbit/s), latency (ms), packet loss (%), jitter (ms), CPU (%), memory (%), error rate (%); `None` = no
    /// data.
    pub seven: [Option<f64>; 7],
    /// File systems by mount point, percent in use.
    #[serde(default)]
    pub file_systems: BTreeMap<String, f64>,
    /// Swap in use, bytes.
    #[serde(default)]
    pub swap_bytes: Option<f64>,
}

/// What one training made. The models themselves are files beside the store, one for each detector and the fusion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// Node they are for; `None` = every node of the cluster that has none of its own.
    pub node: Option<NodeId>,
    /// When it was trained.
    pub trained_at: Timestamp,
    /// The data it was trained on.
    pub data: Window,
    /// Rows it was trained on.
    pub rows: u64,
    /// Rows left out because they lie in anomalous stretches.
    pub left_out: u64,
    /// store, csv or monthly.
    pub source: String,
    /// Who asked for it.
    pub by: String,
    /// Bytes of its files, which carry their own checksums.
    pub bytes: u64,
}

/// The anomaly score of a host at the end of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostScoreRecord {
    /// 0 to 100, higher = worse.
    pub score: u32,
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

/// What a stored history is of; the history itself lies beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryRecord {
    /// Which node sent it.
    pub node: NodeId,
    /// Kind of the guest, where it was known.
    pub kind: Option<GuestKind>,
    /// What tells the guest from another that had its number before, where Proxmox said it; see
    /// `pve::guest_config`.
    pub identity: Option<String>,
    /// The stretches it was made of.
    pub pieces: Vec<ProfilePiece>,
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
key! {
    /// A migration that has ended; see `evenkeel_core::history::record`.
    MigrationKey {
        /// The cluster it was imported for, or seen in.
        cluster: ClusterId,
        /// When it ended.
        at: Timestamp,
        /// What was migrated, or migrated from.
        host: String,
        /// 0 = it worked, 1 = it failed.
        failed: u32,
        /// The error's code; empty = none.
        error_code: String,
        /// How long it took, in milliseconds; the highest number = not known.
        duration_ms: u64,
        /// How often it was tried again; the highest number = not known.
        retries: u32,
        /// Number of the guest; 0 = not known.
        guest: u32,
    }
}
key! {
    /// A host on a day.
    HostDayKey {
        /// Its cluster.
        cluster: ClusterId,
        /// Its name.
        host: String,
        /// Start of the day, UTC.
        day: Timestamp,
    }
}
key! {
    /// Health of a subject at one time.
    ScoreKey {
        /// Its cluster.
        cluster: ClusterId,
        /// `node/NAME` or `guest/VMID`.
        subject: String,
        /// When.
        at: Timestamp,
    }
}
key! {
    /// A trained model.
    ModelKey {
        /// The cluster it is for.
        cluster: ClusterId,
        /// Its number, from 1.
        number: u32,
    }
}
