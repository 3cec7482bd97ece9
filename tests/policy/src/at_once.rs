//! The whole plan for one snapshot, with nothing known of the past.

use anyhow::{Context as _, Result};
use evenkeel_common::decision::Action;
use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Bytes;
use evenkeel_core::whatif::with_restarts;
use evenkeel_core::{Policy, Snapshot, plan_at_once};
use serde::Deserialize;

use crate::node;
use crate::protocol::{Answer, Migration};

/// The only moment there is.
const NOW: Timestamp = Timestamp::from_millis(1_767_571_200_000);

/// A snapshot of version 1: absolute figures, memory in bytes, CPU in cores.
#[derive(Debug, Deserialize)]
pub struct Cluster {
    nodes: Vec<Node>,
    guests: Vec<Guest>,
}

#[derive(Debug, Deserialize)]
struct Node {
    name: String,
    cpus: f64,
    mem: u64,
    base_cpu: f64,
    base_mem: u64,
    maintenance: bool,
    iowait: f64,
}

#[derive(Debug, Deserialize)]
struct Guest {
    vmid: u32,
    name: String,
    r#type: GuestKind,
    node: String,
    status: String,
    vcpus: f64,
    cpu: f64,
    mem_max: u64,
    mem: u64,
    #[serde(default)]
    groups: Groups,
}

#[derive(Debug, Default, Deserialize)]
struct Groups {
    #[serde(default)]
    affinity: Vec<String>,
    #[serde(default)]
    anti: Vec<String>,
    #[serde(default)]
    pin: Vec<String>,
    #[serde(default)]
    ignore: bool,
}

/// The moves of the whole plan.
pub fn plan(cluster: &Cluster, policy: &Policy) -> Result<Answer<String>> {
    // Nobody is there to ask whether a container may be restarted; who plans by hand decides that.
    let run = plan_at_once(&with_restarts(&snapshot(cluster)?), policy);
    let moves = run.decisions.iter().filter(|decision| decision.action == Action::Pending);
    let migrations = moves.map(|decision| Migration {
        guest: decision.recommendation.guest.get(),
        target: decision.recommendation.target.as_str().to_owned(),
    });
    Ok(Answer { migrations: migrations.collect() })
}

fn snapshot(cluster: &Cluster) -> Result<Snapshot> {
    let mut snapshot = node::cluster(NOW)?;
    for told in &cluster.nodes {
        let mut node = node::node(name(&told.name)?, told.cpus, Bytes(told.mem));
        node.maintenance = told.maintenance;
        node.iowait_percent = told.iowait;
        let here = cluster.guests.iter().filter(|guest| guest.node == told.name && guest.status == "running");
        let (cpu, memory) = here.fold((0.0, 0), |(cpu, memory), guest| (cpu + guest.cpu, memory + guest.mem));
        (node.cpu_used, node.memory_used) = (told.base_cpu + cpu, Bytes(told.base_mem + memory));
        snapshot.nodes.push(node);
    }
    for told in &cluster.guests {
        let vmid = Vmid::new(told.vmid).with_context(|| format!("guest {} is no vmid", told.vmid))?;
        let mut guest = node::guest(vmid, name(&told.node)?, told.vcpus, Bytes(told.mem_max));
        (guest.name, guest.kind) = (told.name.clone(), told.r#type);
        guest.running = told.status == "running";
        guest.memory_used = Bytes(told.mem);
        guest.cpu_used = Some(told.cpu);
        guest.tags.extend(told.groups.ignore.then(|| "evenkeel-ignore".to_owned()));
        let groups = [("evenkeel-with-", &told.groups.affinity), ("evenkeel-anti-", &told.groups.anti)];
        for (prefix, names) in groups.into_iter().chain([("evenkeel-pin-", &told.groups.pin)]) {
            guest.tags.extend(names.iter().map(|name| format!("{prefix}{name}")));
        }
        snapshot.guests.push(guest);
    }
    Ok(snapshot)
}

fn name(node: &str) -> Result<NodeId> {
    NodeId::new(node).with_context(|| format!("{node:?} is no name of a node"))
}
