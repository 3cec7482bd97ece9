//! The simulator's messages, one JSON object a line. Shares are 0 to 1; memory is in MiB; CPU in cores.

use serde::{Deserialize, Serialize};

/// What the simulator says.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToPolicy {
    /// Once, first.
    Init(Init),
    /// Once a step.
    Tick(Tick),
    /// Once, last.
    End {},
}

#[derive(Debug, Deserialize)]
pub struct Init {
    /// Seconds of a step.
    pub step_s: u32,
    pub limits: Limits,
    pub nodes: Vec<InitNode>,
    pub guests: Vec<InitGuest>,
}

/// Migrations at once.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Limits {
    /// Into and out of one node together.
    pub max_per_node: u32,
    pub max_cluster: u32,
}

#[derive(Debug, Deserialize)]
pub struct InitNode {
    /// Megabytes a second, whatever its name says.
    pub link_mbps: f64,
}

#[derive(Debug, Deserialize)]
pub struct InitGuest {
    pub id: u32,
    pub vcpus: f64,
    pub mem_mb: f64,
    pub local_disk_gb: f64,
    /// Use in each of the steps before the start.
    pub cpu_history: Vec<f64>,
}

#[derive(Debug, Deserialize)]
pub struct Tick {
    /// Seconds since the start.
    pub t: i64,
    pub nodes: Vec<Node>,
    pub guests: Vec<Guest>,
    pub results: Vec<Moved>,
}

#[derive(Debug, Deserialize)]
pub struct Node {
    pub id: u32,
    pub status: Status,
    /// Share of its cores.
    pub cpu: f64,
    pub cores: f64,
    pub mem_mb: f64,
    pub mem_total_mb: f64,
    /// Share of the time in which something waited for CPU.
    pub cpu_pressure: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Up,
    /// To be emptied.
    Draining,
    Down,
}

#[derive(Debug, Deserialize)]
pub struct Guest {
    pub id: u32,
    pub node: u32,
    /// What it got.
    pub cpu: f64,
    /// Share of what it wanted that it waited for.
    pub cpu_pressure: f64,
    pub migrating_to: Option<u32>,
}

/// A migration that ended, or was refused.
#[derive(Debug, Deserialize)]
pub struct Moved {
    pub guest: u32,
    /// Not told of one that was refused.
    pub source: Option<u32>,
    pub target: u32,
    pub ok: bool,
}

/// The policy is ready.
#[derive(Debug, Serialize)]
pub struct Ready {
    r#type: &'static str,
}

impl Default for Ready {
    fn default() -> Self {
        Self { r#type: "ready" }
    }
}

/// What is to move; `N` is how nodes are named.
#[derive(Debug, PartialEq, Serialize)]
pub struct Answer<N> {
    pub migrations: Vec<Migration<N>>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Migration<N> {
    pub guest: u32,
    pub target: N,
}
