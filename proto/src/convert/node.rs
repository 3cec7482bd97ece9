//! Facts about a node.

use evenkeel_common::node::NodeFacts;
use evenkeel_common::units::Bytes;

use super::{InvalidMessage, MAX_ITEMS, MAX_MESSAGE_CHARS, MAX_NAME_CHARS, at_most, text};
use crate::v1;

impl From<NodeFacts> for v1::NodeFacts {
    fn from(facts: NodeFacts) -> Self {
        let NodeFacts {
            hostname,
            cpus,
            memory,
            kernel,
            pve_version,
            agent_version,
            boot_id,
            psi,
            link_mbps,
            blind_spots,
        } = facts;
        Self {
            hostname,
            cpus,
            memory_bytes: memory.0,
            kernel,
            pve_version,
            agent_version,
            boot_id,
            psi,
            link_mbps,
            blind_spots,
        }
    }
}

impl TryFrom<v1::NodeFacts> for NodeFacts {
    type Error = InvalidMessage;

    fn try_from(wire: v1::NodeFacts) -> Result<Self, InvalidMessage> {
        Ok(Self {
            hostname: text("node.hostname", wire.hostname, MAX_NAME_CHARS)?,
            cpus: wire.cpus,
            memory: Bytes(wire.memory_bytes),
            kernel: text("node.kernel", wire.kernel, MAX_NAME_CHARS)?,
            pve_version: text("node.pve_version", wire.pve_version, MAX_NAME_CHARS)?,
            agent_version: text("node.agent_version", wire.agent_version, MAX_NAME_CHARS)?,
            boot_id: text("node.boot_id", wire.boot_id, MAX_NAME_CHARS)?,
            psi: wire.psi,
            link_mbps: wire.link_mbps,
            blind_spots: at_most("node.blind_spots", wire.blind_spots, MAX_ITEMS)?
                .into_iter()
                .map(|spot| text("node.blind_spots", spot, MAX_MESSAGE_CHARS))
                .collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::Problem;
    use crate::convert::strategies;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn facts_come_back(
            words in prop::array::uniform5(strategies::text(MAX_NAME_CHARS)), cpus: u32, memory: u64, psi: bool, link_mbps: u64,
            blind_spots in prop::collection::vec(strategies::text(80), 0..=MAX_ITEMS),
        ) {
            let [hostname, kernel, pve_version, agent_version, boot_id] = words;
            let facts = NodeFacts {
                hostname, cpus, memory: Bytes(memory), kernel, pve_version, agent_version, boot_id, psi, link_mbps,
                blind_spots,
            };
            prop_assert_eq!(NodeFacts::try_from(v1::NodeFacts::from(facts.clone())), Ok(facts));
        }
    }

    #[test]
    fn the_bad_field_is_named() {
        let wire = v1::NodeFacts { blind_spots: vec!["x".repeat(1025)], ..v1::NodeFacts::default() };
        let error = NodeFacts::try_from(wire).unwrap_err();
        assert_eq!(error, InvalidMessage { field: "node.blind_spots", problem: Problem::TooLong(1024) });
        assert_eq!(error.to_string(), "node.blind_spots is longer than 1024");
    }
}
