//! CPU part of the node score: expected demand against cores.

use super::fleet::NodeLoad;

/// Share of the node's cores that its guests and itself are expected to ask for; 1.0 = all, above = more than it has.
pub(super) fn part(node: &NodeLoad) -> f64 {
    node.cpu_demand() / node.cores
}
