//! Tag dialects: evenkeel's own, ProxLB's and ProxBalance's, so that a cluster need not be tagged anew.
//!
//! | meaning | evenkeel | ProxLB | ProxBalance |
//! |---|---|---|---|
//! | leave it alone | `evenkeel-ignore` | `plb_ignore*` | `ignore`, `no-auto-migrate` |
//! | stay where it is | `evenkeel-pin` | | |
//! | only on this node (several: one of them) | `evenkeel-pin-<node>` | `plb_pin_<node>` | |
//! | keep its group together | `evenkeel-with-<group>` | `plb_affinity_<group>` | `affinity_<group>` |
//! | keep its group apart | `evenkeel-anti-<group>` | `plb_anti_affinity_<group>` | `exclude_<group>` |
//! | a container may be restarted to move | `evenkeel-restart-ok` | | |
//! | no effect here | | | `auto-migrate-ok` |
//!
//! A group is a whole tag: dialects do not mix. Case does not matter (Proxmox lower-cases tags unless told not to).
//! A tag of ours or ProxLB's that is not in the table is reported, and the guest is left alone: the safe reading.

use evenkeel_common::id::NodeId;
use evenkeel_common::reason::Reason;

use crate::snapshot::{GuestState, NodeState};

/// What a guest's tags say.
#[derive(Debug, Default)]
pub(crate) struct Tags {
    /// Why it is left alone: a tag says so, or is not understood.
    pub ignore: Option<Reason>,
    /// Tags that pin it, and the nodes of this cluster they name.
    pub pin_tags: Vec<String>,
    pub pins: Vec<NodeId>,
    /// Group tags.
    pub together: Vec<String>,
    pub apart: Vec<String>,
    /// Whether a container may move by restart.
    pub restart_ok: bool,
    /// Tags that could not be followed.
    pub warnings: Vec<Reason>,
}

enum Meaning<'a> {
    Ignore,
    Stay,
    Pin(&'a str),
    Together,
    Apart,
    RestartOk,
    Unknown,
    Foreign,
}

fn meaning(tag: &str) -> Meaning<'_> {
    let after = |prefix: &str| tag.strip_prefix(prefix).filter(|rest| !rest.is_empty());
    match tag {
        "evenkeel-ignore" | "ignore" | "no-auto-migrate" => return Meaning::Ignore,
        "evenkeel-pin" => return Meaning::Stay,
        "evenkeel-restart-ok" => return Meaning::RestartOk,
        _ if tag.starts_with("plb_ignore") => return Meaning::Ignore,
        _ => {}
    }
    if let Some(node) = after("evenkeel-pin-").or_else(|| after("plb_pin_")) {
        Meaning::Pin(node)
    } else if ["evenkeel-anti-", "plb_anti_affinity_", "exclude_"].into_iter().any(|p| after(p).is_some()) {
        Meaning::Apart
    } else if ["evenkeel-with-", "plb_affinity_", "affinity_"].into_iter().any(|p| after(p).is_some()) {
        Meaning::Together
    } else if tag.starts_with("evenkeel-") || tag.starts_with("plb_") {
        Meaning::Unknown
    } else {
        Meaning::Foreign
    }
}

impl Tags {
    /// Reads a guest's tags; `nodes` are the cluster's.
    pub(crate) fn read(guest: &GuestState, nodes: &[NodeState]) -> Self {
        let mut read = Self::default();
        for tag in guest.tags.iter().map(|tag| tag.to_lowercase()) {
            let warn = |reading: &str| Reason::TagNotUnderstood {
                guest: guest.vmid,
                tag: tag.clone(),
                reading: reading.to_owned(),
            };
            match meaning(&tag) {
                Meaning::Ignore => read.ignore = read.ignore.or(Some(Reason::TagIgnore { tag })),
                Meaning::Stay => {
                    read.pins.push(guest.node.clone());
                    read.pin_tags.push(tag);
                }
                Meaning::Pin(name) => {
                    match nodes.iter().find(|node| node.id.as_str().eq_ignore_ascii_case(name)) {
                        Some(node) => read.pins.push(node.id.clone()),
                        None => {
                            read.warnings.push(warn("no node has that name, so the pin allows no other node"))
                        }
                    }
                    read.pin_tags.push(tag);
                }
                Meaning::Together => read.together.push(tag),
                Meaning::Apart => read.apart.push(tag),
                Meaning::RestartOk => read.restart_ok = true,
                Meaning::Unknown => {
                    read.warnings.push(warn("the guest is left alone"));
                    read.ignore = read.ignore.or(Some(Reason::TagUnknown { tag }));
                }
                Meaning::Foreign => {}
            }
        }
        read
    }
}
