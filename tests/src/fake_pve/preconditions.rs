//! `GET .../migrate`: where a guest may go, as far as Proxmox itself looks: storages, devices and guests to be
//! kept apart. It knows nothing of node rules, maintenance or CPU types, and neither does this.

use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};
use serde_json::{Value, json};

use super::api::{Answer, Context, Outcome};
use super::cluster::{FakeCluster, FakeGuest, FakeRuleKind};
use super::migrate;
use super::render::Put;

pub(super) fn of(context: &Context<'_>, vmid: Vmid, guest: &FakeGuest) -> Outcome {
    migrate::need_quorum(context)?;
    migrate::unlocked(guest)?;
    Ok(Answer::ok(conditions(context.cluster, vmid, guest)))
}

fn conditions(cluster: &FakeCluster, vmid: Vmid, guest: &FakeGuest) -> Value {
    let (mut allowed, mut refused) = (Vec::new(), json!({}));
    for node in others(cluster, guest) {
        let mut why = json!({});
        let peers = peers_on(cluster, vmid, node);
        why.put("blocking-ha-resources", (!peers.is_empty()).then_some(Value::Array(peers)));
        if guest.kind == GuestKind::Qemu {
            let missing = missing_storages(cluster, guest, node);
            why.put("unavailable_storages", (!missing.is_empty()).then(|| json!(missing)));
        }
        if why == json!({}) {
            allowed.push(json!(node));
        }
        // Allowed nodes are listed here too, with an empty object: a quirk of the real one.
        if guest.kind == GuestKind::Qemu || why != json!({}) {
            refused.put(node.as_str(), why);
        }
    }
    let running = u8::from(guest.runs());
    if guest.kind == GuestKind::Lxc {
        return json!({ "running": running, "allowed-nodes": allowed, "not-allowed-nodes": refused });
    }
    let mut answer = json!({ "running": running, "allowed_nodes": allowed, "not_allowed_nodes": refused,
        "local_disks": local_disks(cluster, guest), "local_resources": local_resources(guest),
        "mapped-resources": [], "mapped-resource-info": {}, "has-dbus-vmstate": 1 });
    let in_ha = cluster.ha_resources.contains_key(&vmid);
    answer.put("dependent-ha-resources", in_ha.then(|| json!([])));
    answer
}

fn others<'a>(cluster: &'a FakeCluster, guest: &'a FakeGuest) -> impl Iterator<Item = &'a NodeId> {
    cluster.nodes.iter().filter(|(id, node)| node.online && **id != guest.node).map(|(id, _)| id)
}

pub(super) fn peers_on(cluster: &FakeCluster, vmid: Vmid, node: &NodeId) -> Vec<Value> {
    let apart = cluster.ha_rules.iter().filter(|rule| matches!(rule.kind, FakeRuleKind::Negative));
    let peers = apart.filter(|rule| rule.guests.contains(&vmid)).flat_map(|rule| &rule.guests);
    let there =
        peers.filter(|peer| **peer != vmid).filter_map(|peer| Some((peer, cluster.guests.get(peer)?)));
    let there = there.filter(|(_, guest)| guest.node == *node);
    there
        .map(|(id, guest)| json!({ "sid": format!("{}:{id}", ha_kind(guest)), "cause": "resource-affinity" }))
        .collect()
}

/// How HA calls the guest's kind.
pub(super) fn ha_kind(guest: &FakeGuest) -> &'static str {
    if guest.kind == GuestKind::Qemu { "vm" } else { "ct" }
}

/// Volumes of the guest: option, storage, volume.
fn volumes(guest: &FakeGuest) -> impl Iterator<Item = (&str, &str, &str)> {
    guest.options.iter().filter_map(|(key, value)| {
        let stem = key.trim_end_matches(|c: char| c.is_ascii_digit());
        let disk = ["ide", "sata", "scsi", "virtio", "efidisk", "tpmstate", "unused"].contains(&stem);
        let volume = value.as_str()?.split(',').next()?;
        let (storage, _) = volume.split_once(':')?;
        disk.then_some((key.as_str(), storage, volume))
    })
}

pub(super) fn missing_storages<'a>(
    cluster: &FakeCluster,
    guest: &'a FakeGuest,
    node: &NodeId,
) -> Vec<&'a str> {
    let shared = |name: &str| cluster.storages.get(name).filter(|storage| storage.shared);
    let used = volumes(guest).map(|(_, storage, _)| storage);
    used.filter(|name| shared(name).is_some_and(|storage| !storage.is_on(node))).collect()
}

fn local_disks(cluster: &FakeCluster, guest: &FakeGuest) -> Vec<Value> {
    let local = volumes(guest).filter(|(_, name, _)| cluster.storages.get(*name).is_none_or(|s| !s.shared));
    let disk = |(key, _, volume): (&str, &str, &str)| {
        let cdrom = guest.options[key].as_str().is_some_and(|text| text.contains("media=cdrom"));
        json!({ "volid": volume, "cdrom": u8::from(cdrom), "is_unused": u8::from(key.starts_with("unused")), "size": 34_359_738_368_u64 })
    };
    local.map(disk).collect()
}

/// Whether a disk that is in use is on a storage that only this node sees.
pub(super) fn has_local_disk(cluster: &FakeCluster, guest: &FakeGuest) -> bool {
    local_disks(cluster, guest).iter().any(|disk| disk["cdrom"] == 0 && disk["is_unused"] == 0)
}

pub(super) fn local_resources(guest: &FakeGuest) -> Vec<&str> {
    let local = guest.options.iter().filter(|(key, value)| {
        let stem = key.trim_end_matches(|c: char| c.is_ascii_digit());
        let passed =
            ["hostpci", "usb", "serial", "parallel", "virtiofs"].contains(&stem) && stem.len() < key.len();
        passed && !matches!(value.as_str(), Some("spice" | "socket"))
    });
    local.map(|(key, _)| key.as_str()).collect()
}
