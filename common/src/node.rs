//! What a node is, as opposed to what it does.

use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// Facts about a node that change rarely: sent with the hello and again when they change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Host name as the kernel tells it; information only, identity comes from the certificate.
    pub hostname: String,
    /// Logical CPUs online.
    pub cpus: u32,
    /// Physical memory.
    pub memory: Bytes,
    /// Kernel release.
    pub kernel: String,
    /// Version of Proxmox VE's manager, empty where it is not installed or not readable.
    pub pve_version: String,
    /// Version of the agent.
    pub agent_version: String,
    /// Kernel's random id of this boot.
    pub boot_id: String,
    /// Whether pressure stall information is there (some kernels boot without it).
    pub psi: bool,
    /// Speed of its physical NICs that have a link, in Mbit/s, added up; 0 when not known.
    pub link_mbps: u64,
    /// What this agent can not see here, a sentence each.
    pub blind_spots: Vec<String>,
}
