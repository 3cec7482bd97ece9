//! Events of an agent: delivered at least once, in order, and never silently lost.

use serde::{Deserialize, Serialize};

use crate::anomaly::Anomaly;
use crate::drill::Drill;
use crate::guest::{GuestFacts, GuestProfile};
use crate::id::Vmid;
use crate::time::{Timestamp, Window};

/// Something that happened on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentEvent {
    /// When, by the node's wall clock.
    pub at: Timestamp,
    /// When, since the node booted; orders events.
    pub uptime_ms: u64,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// The agent started.
    AgentStarted {
        /// Its version.
        version: String,
        /// Whether its previous run ended in order; if not, samples it held in memory are gone.
        clean: bool,
    },
    /// An anomaly opened.
    AnomalyOpened(Anomaly),
    /// An anomaly closed; carries the worst value seen meanwhile.
    AnomalyClosed(Anomaly),
    /// A guest began to run here.
    GuestAppeared(GuestFacts),
    /// A guest's facts changed while it ran.
    GuestChanged(GuestFacts),
    /// A guest runs here no more. Its profile goes with it, so that it can follow the guest.
    GuestVanished {
        /// Which.
        vmid: Vmid,
        /// Its profile up to now.
        profile: Option<Box<GuestProfile>>,
        /// The history the profile was made from, see `GuestProfiler::to_bytes`; kept apart from the event.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        history: Option<Vec<u8>>,
    },
    /// A source of samples can not be read; its series have a gap from here on.
    CollectorFailed {
        /// Name of the collector.
        collector: String,
        /// What went wrong, with the remedy.
        message: String,
    },
    /// It can be read again.
    CollectorRecovered {
        /// Name of the collector.
        collector: String,
    },
    /// Samples were thinned or dropped under pressure.
    SamplesLost(Loss),
    /// Events were dropped because the spool was at its cap.
    EventsLost(Loss),
    /// The wall clock jumped against the boot clock.
    ClockJumped {
        /// By how much, in milliseconds; above zero = forward.
        by_ms: i64,
    },
    /// A fault drill began: readings are distorted until it ends.
    DrillStarted(Drill),
    /// A fault drill ended.
    DrillEnded {
        /// Which.
        id: String,
        /// Whether it was cleared before its time was over.
        cleared: bool,
    },
    /// The agent does not do a drill.
    DrillRefused {
        /// Which.
        id: String,
        /// Why, with the remedy.
        why: String,
    },
}

/// Something was lost, when, and how much of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// Records affected.
    pub count: u64,
    /// The stretch they cover.
    pub window: Window,
    /// What became of them.
    pub how: LossKind,
}

/// What became of lost records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// Kept as one record (min, mean, max, p95) per 10 s.
    ThinnedTo10s,
    /// Kept as one record per 60 s.
    ThinnedTo60s,
    /// Gone.
    Dropped,
    /// Never written, because the agent ended without notice.
    Unwritten,
    /// Found damaged on disk.
    Damaged,
}
