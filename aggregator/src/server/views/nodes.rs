//! Nodes, as Proxmox lists them and their agents measure them.

use std::collections::BTreeSet;

use evenkeel_common::id::NodeId;
use evenkeel_proto::v1;

use super::{ClusterView, count, whole};
use crate::ingest::live::NodeLive;
use crate::pve::Inventory;
use crate::pve::resources::NodeStatus;

/// All nodes of a cluster, or the one named.
#[must_use]
pub fn list(view: &ClusterView, only: Option<&NodeId>) -> Vec<v1::Node> {
    let inventory = view.inventory();
    let known = inventory.iter().flat_map(|i| i.nodes.keys());
    let names: BTreeSet<&NodeId> = known.chain(view.agents.keys()).collect();
    names
        .into_iter()
        .filter(|&name| only.is_none_or(|wanted| name == wanted))
        .map(|name| node(view, name, inventory.as_deref()))
        .collect()
}

fn node(view: &ClusterView, name: &NodeId, inventory: Option<&Inventory>) -> v1::Node {
    let listed = inventory.and_then(|i| i.nodes.get(name));
    let mut shown = v1::Node {
        cluster: view.id.to_string(),
        node: name.to_string(),
        status: "never_seen".into(),
        cpus: listed.and_then(|n| n.max_cpu).map_or(0, |n| whole(n) as u32),
        memory_bytes: listed.and_then(|n| n.max_mem).map_or(0, |m| m.0),
        guests: count(inventory.map_or(0, |i| i.guests.values().filter(|g| g.node == *name).count())),
        score: last_score(view, name),
        ..v1::Node::default()
    };
    if let Some(cell) = view.agents.get(name) {
        measured(view, &cell.lock(), inventory.is_none(), &mut shown);
    } else {
        shown.not_decidable.push("no agent reports for this node".into());
    }
    if let Some(listed) = listed {
        if listed.status != NodeStatus::Online {
            shown.status = "offline".into();
        } else if listed.maintenance && shown.status == "online" {
            shown.status = "maintenance".into();
        }
        if let Some(info) = listed.info.as_ref().filter(|_| shown.pve_version.is_empty()) {
            shown.pve_version.clone_from(&info.version);
        }
    } else if inventory.is_some() {
        shown
            .not_decidable
            .push("Proxmox does not list this node: does its agent report to the right cluster?".into());
    }
    shown
}

fn measured(view: &ClusterView, live: &NodeLive, count_guests: bool, shown: &mut v1::Node) {
    let window = view.window();
    let fresh = view.is_fresh(live.received);
    shown.status = if fresh { "online" } else { "silent" }.into();
    shown.data_age_ms = view.age_ms(live.received);
    shown.skew_ms = live.skew_ms;
    shown.cpu_percent = live.load.cpu.mean(window);
    shown.cpu_now_percent = live.load.cpu.latest().filter(|_| fresh);
    shown.iowait_percent = live.load.iowait.mean(window);
    shown.mem_percent = live.load.mem.mean(window);
    shown.mem_used_bytes = live.load.mem_bytes.mean(window).map(whole);
    let pressures = [&live.load.psi_cpu, &live.load.psi_mem, &live.load.psi_io];
    shown.pressure_percent = pressures.iter().filter_map(|psi| psi.mean(window)).reduce(f64::max);
    if live.facts.cpus > 0 {
        shown.cpus = live.facts.cpus;
        shown.memory_bytes = live.facts.memory.0;
    }
    if count_guests {
        shown.guests = count(live.guests.len());
    }
    shown.open_anomalies = count(live.open.len());
    shown.agent_version.clone_from(&live.facts.agent_version);
    shown.pve_version.clone_from(&live.facts.pve_version);
    shown.blind_spots.clone_from(&live.facts.blind_spots);
    shown
        .blind_spots
        .extend(live.faults.iter().map(|(collector, message)| format!("{collector}: {message}")));
    if !fresh {
        let limit = view.stale_after.as_secs();
        shown.not_decidable.push(format!("no sample within the last {limit} s"));
    }
    if live.skew_ms.is_some_and(|skew| skew.unsigned_abs() > view.max_skew_ms) {
        shown.not_decidable.push(format!("its clock is off by more than {} ms: check NTP", view.max_skew_ms));
    }
    if live.load.drill.mean(window).is_some() {
        let drill = "a fault drill distorts its data: see `evenkeelctl simulate status`";
        shown.not_decidable.push(drill.into());
    }
    if live.is_catching_up() {
        shown.not_decidable.push("events from before its reconnection are still arriving".into());
    }
}

fn last_score(view: &ClusterView, name: &NodeId) -> Option<f64> {
    let run = view.handle.as_ref()?.lock().last_run.clone()?;
    run.run.scores.iter().find(|score| score.node == *name).map(|score| score.score.get())
}
