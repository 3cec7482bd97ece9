//! Why a node can not wait for its load to pass by itself: what keeps filters 7 and 9 and the seasonal baseline from
//! putting off a move that people need now.

use evenkeel_common::decision::Resource;
use evenkeel_common::reason::Reason;

use crate::policy::Policy;
use crate::score::fleet::NodeLoad;
use crate::snapshot::NodeState;

/// The node is to be emptied, its guests wait now (pressure over its threshold, of whatever kind), or it runs out of
/// memory, which does not come back when demand for CPU falls.
pub(crate) fn urgent(node: &NodeState, load: &NodeLoad, policy: &Policy) -> Option<Reason> {
    if node.maintenance {
        return Some(Reason::SourceMaintenance { node: node.id.clone() });
    }
    let limits = [
        (Resource::Pressure, load.pressure_percent(), policy.pressure_threshold),
        (Resource::Memory, load.memory_percent(), policy.mem_threshold),
    ];
    let over = limits.into_iter().find(|(_, percent, limit)| percent > limit);
    over.map(|(resource, percent, limit_percent)| Reason::NodeUrgent {
        node: node.id.clone(),
        resource,
        percent,
        limit_percent,
    })
}
