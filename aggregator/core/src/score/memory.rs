//! Memory part of the node score.

use super::fleet::NodeLoad;

/// Memory in use to the power of 1.5, so that 80 % of memory weighs what 70 % of CPU does (the thresholds) and both
/// are 1.0 at the limit. Memory has no queue: it is harmless until it is short.
pub(super) fn part(node: &NodeLoad) -> f64 {
    let used = node.memory_used / node.memory;
    used * used.sqrt()
}
