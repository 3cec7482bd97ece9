//! High availability: resources, rules or groups, and two views of its state.

use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::Vmid;
use serde_json::{Value, json};

use super::api::Context;
use super::cluster::{FakeRuleKind, PveVersion};
use super::render::{Put, digest};

fn sid(context: &Context<'_>, vmid: Vmid) -> String {
    match context.cluster.guests.get(&vmid).map(|guest| guest.kind) {
        Some(GuestKind::Lxc) => format!("ct:{vmid}"),
        Some(GuestKind::Qemu) | None => format!("vm:{vmid}"),
    }
}

pub(super) fn ha_resources(context: &Context<'_>) -> Value {
    let digest = digest(&format!("{:?}", context.cluster.ha_resources));
    let rows = context.cluster.ha_resources.iter().map(|(vmid, resource)| {
        let sid = sid(context, *vmid);
        let mut row = json!({ "sid": sid, "type": sid[..2], "state": resource.state, "digest": digest });
        row.put("group", resource.group.as_ref().map(|group| json!(group)));
        row
    });
    rows.collect()
}

pub(super) fn ha_rules(context: &Context<'_>) -> Value {
    let digest = digest(&format!("{:?}", context.cluster.ha_rules));
    let rows = (1..).zip(&context.cluster.ha_rules).map(|(order, rule)| {
        let guests: Vec<String> = rule.guests.iter().map(|vmid| sid(context, *vmid)).collect();
        let mut row =
            json!({ "rule": rule.id, "resources": guests.join(","), "order": order, "digest": digest });
        match &rule.kind {
            FakeRuleKind::NodeAffinity { nodes, strict } => {
                row.put("type", json!("node-affinity"));
                row.put("nodes", json!(nodes));
                row.put("strict", strict.then(|| json!(1)));
            }
            FakeRuleKind::Positive | FakeRuleKind::Negative => {
                let positive = matches!(rule.kind, FakeRuleKind::Positive);
                row.put("type", json!("resource-affinity"));
                row.put("affinity", json!(if positive { "positive" } else { "negative" }));
            }
        }
        row
    });
    rows.collect()
}

pub(super) fn ha_groups(context: &Context<'_>) -> Value {
    let rows = context.cluster.ha_groups.iter().map(|group| {
        json!({ "group": group.id, "type": "group", "nodes": group.nodes, "restricted": u8::from(group.restricted),
                "nofailback": u8::from(group.nofailback), "digest": digest(&group.id) })
    });
    rows.collect()
}

pub(super) fn ha_current(context: &Context<'_>) -> Value {
    let cluster = context.cluster;
    let now = cluster.now.as_secs();
    let quorate = u8::from(cluster.quorate);
    let local = context.local;
    let mut rows = vec![json!({ "id": "quorum", "type": "quorum", "node": local, "quorate": quorate,
                                "status": if cluster.quorate { "OK" } else { "No quorum on node!" } })];
    if !cluster.has_ha() {
        return Value::Array(rows);
    }
    let master = cluster.nodes.keys().next().unwrap_or(local);
    rows.push(json!({ "id": "master", "type": "master", "node": master, "timestamp": now,
                      "status": format!("{master} (active, {now})") }));
    if cluster.version == PveVersion::V9 {
        rows.push(json!({ "id": "fencing", "type": "fencing", "node": master, "armed-state": "armed",
                          "status": "armed (CRM watchdog active)" }));
    }
    for (id, node) in &cluster.nodes {
        let mode = if node.maintenance { "maintenance mode" } else { "active" };
        rows.push(json!({ "id": format!("lrm:{id}"), "type": "lrm", "node": id, "timestamp": now,
                          "status": format!("{id} ({mode}, watchdog active, {now})") }));
    }
    for (vmid, resource) in &cluster.ha_resources {
        let Some(guest) = cluster.guests.get(vmid) else { continue };
        let (sid, node, wanted) = (sid(context, *vmid), &guest.node, &resource.state);
        let state = cluster.ha_state(*vmid).map_or(wanted.as_str(), |(state, _)| state);
        let mut row = json!({ "id": format!("service:{sid}"), "type": "service", "sid": sid, "node": node, "state": state,
            "crm_state": state, "request_state": wanted, "max_restart": 1, "max_relocate": 1,
            "status": format!("{sid} ({node}, {state})") });
        row.put("failback", (cluster.version == PveVersion::V9).then(|| json!(1)));
        rows.push(row);
    }
    Value::Array(rows)
}

pub(super) fn ha_manager(context: &Context<'_>) -> Value {
    let cluster = context.cluster;
    let quorum = json!({ "node": context.local, "quorate": if cluster.quorate { "1" } else { "0" } });
    if !cluster.has_ha() {
        return json!({ "manager_status": {}, "lrm_status": {}, "quorum": quorum });
    }
    let now = cluster.now.as_secs();
    let (mut nodes, mut requests, mut lrm, mut services) = (json!({}), json!({}), json!({}), json!({}));
    for (id, node) in &cluster.nodes {
        let state = match (node.online, node.maintenance) {
            (false, _) => "unknown",
            (true, true) => "maintenance",
            (true, false) => "online",
        };
        let mode = if node.maintenance { "maintenance" } else { "active" };
        nodes.put(id.as_str(), json!(state));
        requests.put(id.as_str(), node.maintenance.then(|| json!({ "maintenance": 1 })));
        lrm.put(id.as_str(), json!({ "mode": mode, "state": mode, "timestamp": now, "results": {} }));
    }
    for (vmid, resource) in &cluster.ha_resources {
        let node = cluster.guests.get(vmid).map(|guest| &guest.node);
        let sid = sid(context, *vmid);
        let (state, target) = cluster.ha_state(*vmid).unwrap_or((&resource.state, None));
        let mut service = json!({ "state": state, "node": node, "uid": digest(&sid)[..22] });
        service.put("target", target.map(|target| json!(target)));
        services.put(&sid, service);
    }
    let master = cluster.nodes.keys().next();
    json!({ "manager_status": { "master_node": master, "timestamp": now, "node_status": nodes, "node_request": requests,
                                "service_status": services },
            "lrm_status": lrm, "quorum": quorum })
}
