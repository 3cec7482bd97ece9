//! What both sources of figures have in common.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Bytes;
use evenkeel_core::{GuestState, NodeState, Pressure, Snapshot};

/// A cluster of which nothing is known but its time.
pub fn cluster(at: Timestamp) -> Result<Snapshot> {
    Ok(Snapshot {
        cluster: ClusterId::new("simulated").context("name of the cluster")?,
        at,
        nodes: Vec::new(),
        guests: Vec::new(),
        rules: Vec::new(),
        history: Vec::new(),
        in_flight: Vec::new(),
        problems: Vec::new(),
        paused: None,
        pve_rebalances: false,
        utc_offset_s: 0,
        others: vec![],
        hands_off: vec![],
        experience: Default::default(),
    })
}

/// A node that is up and idle.
pub fn node(id: NodeId, cores: f64, memory: Bytes) -> NodeState {
    NodeState {
        id,
        online: true,
        maintenance: false,
        barred: None,
        agent_age_s: Some(0),
        cores,
        memory,
        memory_used: Bytes(0),
        cpu_used: 0.0,
        cpu_waited: 0.0,
        pressure: Pressure::default(),
        iowait_percent: 0.0,
        cpu_model: None,
        storages: BTreeSet::new(),
        net_mb_s: None,
        link_mb_s: None,
        demand_trail: Vec::new(),
    }
}

/// A running virtual machine that uses nothing.
pub fn guest(vmid: Vmid, node: NodeId, vcpus: f64, memory: Bytes) -> GuestState {
    GuestState {
        vmid,
        name: format!("g{vmid}"),
        kind: GuestKind::Qemu,
        node,
        running: true,
        template: false,
        lock: None,
        disputed: None,
        vcpus,
        memory_max: memory,
        memory_used: memory,
        cpu_used: Some(0.0),
        cpu_waited: 0.0,
        profile: None,
        tags: Vec::new(),
        ha_state: None,
        local_disks: Vec::new(),
        local_disk_bytes: Bytes(0),
        disks: 0,
        dirty_mb_s: None,
        net_mb_s: None,
        devices: Vec::new(),
        storages: BTreeSet::new(),
        cpu_host: false,
    }
}
