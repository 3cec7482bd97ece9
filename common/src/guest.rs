//! Guests: what they are, and how they usually behave.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::Vmid;
use crate::time::Timestamp;
use crate::units::Bytes;

/// Kind of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GuestKind {
    /// A virtual machine; moves live.
    Qemu,
    /// A container; moves by restart.
    Lxc,
}

impl GuestKind {
    /// Stable name, as in Proxmox.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Lxc => "lxc",
        }
    }
}

impl fmt::Display for GuestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A running guest as its node's agent sees it. Facts it can not read are `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestFacts {
    /// Number in the cluster.
    pub vmid: Vmid,
    /// Kind.
    pub kind: GuestKind,
    /// Name from the guest's configuration; attacker-controlled text, cut to 128 characters.
    pub name: Option<String>,
    /// CPUs the guest sees.
    pub vcpus: Option<f64>,
    /// Memory it may use.
    pub memory_max: Option<Bytes>,
    /// Tags from its configuration.
    pub tags: Vec<String>,
    /// When this life of the guest on this node began; tells a re-used vmid or a restart from a continuation.
    pub started_at: Timestamp,
}

/// How a guest usually behaves.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ProfileClass {
    /// Little variation: the average predicts it.
    Steady,
    /// Spikes far above its average: plan with the 95th percentile.
    Bursty,
    /// A significant upward trend.
    Growing,
    /// A daily or weekly rhythm that passed a test.
    Cyclical,
    /// Too little data to say.
    #[default]
    Unknown,
}

impl ProfileClass {
    /// Stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Bursty => "bursty",
            Self::Growing => "growing",
            Self::Cyclical => "cyclical",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for ProfileClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Figures of one metric over the profile's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UsageSummary {
    /// Lowest value.
    pub min: f64,
    /// Highest value.
    pub max: f64,
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std_dev: f64,
    /// 95th percentile.
    pub p95: f64,
    /// Change per hour by a fitted line; 0 while there is too little data.
    pub slope_per_hour: f64,
}

/// Where a guest's CPU use tends to, and how soon it gets there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outlook {
    /// Mean of the last three days, in cores.
    pub recent_mean: f64,
    /// How much of the differences between the hours of the day (`cpu_by_hour`) is rhythm and not chance, 0 to 1.
    pub daily_share: f64,
    /// How much of a deviation from the rhythm is left an hour later, 0 to 1.
    pub persistence: f64,
    /// Standard deviation of the hourly means around the rhythm, in cores.
    pub spread: f64,
}

/// A guest's profile in figures, as decisions and people use it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestProfile {
    /// Whose.
    pub vmid: Vmid,
    /// Class by CPU behaviour.
    pub class: ProfileClass,
    /// Seconds of data behind it.
    pub observed_s: u64,
    /// CPU in cores.
    pub cpu: UsageSummary,
    /// Memory in bytes.
    pub memory: UsageSummary,
    /// Mean CPU in cores by hour of day (UTC), `None` where no data yet; 24 values.
    pub cpu_by_hour: Vec<Option<f64>>,
    /// What its coming hours look like; `None` with less than a day of data.
    #[serde(default)]
    pub outlook: Option<Outlook>,
    /// The stretches it was made of, by the time they began; empty where that is not told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pieces: Vec<ProfilePiece>,
}

impl GuestProfile {
    /// Seconds behind it by where they come from: Proxmox's RRD, earlier lives and nodes, and the newest piece.
    #[must_use]
    pub fn origins(&self) -> (u64, u64, u64) {
        let sum =
            |pieces: &mut dyn Iterator<Item = &ProfilePiece>| pieces.map(|p| p.observed_ms / 1000).sum();
        let agents = || self.pieces.iter().filter(|p| p.origin == PieceOrigin::Agent);
        (
            sum(&mut self.pieces.iter().filter(|p| p.origin == PieceOrigin::Rrd)),
            sum(&mut agents().rev().skip(1)),
            sum(&mut agents().next_back().into_iter()),
        )
    }
}

/// Who saw a stretch of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PieceOrigin {
    /// Proxmox's RRD, before any agent saw the guest.
    Rrd,
    /// An agent, for as long as the guest ran on its node.
    Agent,
}

/// A stretch that went into a profile. By it a history is told from another, so that none is counted twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfilePiece {
    /// Time of its first sample; names the piece among those of its guest.
    pub began: Timestamp,
    /// Time of its last sample.
    pub until: Timestamp,
    /// Milliseconds of data in it, gaps left out.
    pub observed_ms: u64,
    /// Who saw it.
    pub origin: PieceOrigin,
}

impl ProfilePiece {
    /// Whether both tell of the same stretch, perhaps one of them of more of it. Of the RRD a guest has one.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        self.origin == other.origin && (self.began == other.began || self.origin == PieceOrigin::Rrd)
    }
}

/// Whether two sets of pieces have one in common.
#[must_use]
pub fn overlap(one: &[ProfilePiece], other: &[ProfilePiece]) -> bool {
    one.iter().any(|piece| other.iter().any(|known| known.is_of(piece)))
}

/// Most pieces of one profile.
pub const MAX_PIECES: usize = 16;
/// Most bytes of a history, as it travels and is kept.
pub const MAX_HISTORY_BYTES: usize = 8 << 10;
