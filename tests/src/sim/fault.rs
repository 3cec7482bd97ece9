//! Faults on demand.

use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::Window;

/// Something that goes wrong in a simulated cluster during a window of time.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The node's agent says nothing.
    Silent {
        /// Which node.
        node: NodeId,
        /// When.
        during: Window,
    },
    /// A guest wants all its vCPUs.
    Burst {
        /// Which guest.
        guest: Vmid,
        /// When.
        during: Window,
    },
    /// Something on the node itself, outside the guests, uses this share of its CPUs.
    HostLoad {
        /// Which node.
        node: NodeId,
        /// 0 to 1.
        share: f64,
        /// When.
        during: Window,
    },
}
