//! Nodes, guests and storages with their current load: `GET /cluster/resources`, one call for the cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::units::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::client::PveClient;
use super::cluster::NodeInfo;
use super::error::PveError;
use super::ha::ServiceState;
use super::lenient::{self, words};
use super::storage::Storage;

/// Path of the call.
pub(super) const PATH: &str = "/cluster/resources";

/// Longest guest name kept, in characters.
const MAX_NAME: usize = 128;

words!(
    /// Whether a node takes part.
    NodeStatus {
        /// Reachable, and its figures are current.
        Online = "online",
        /// Not in the cluster's membership now.
        Offline = "offline",
        /// No figures for some minutes.
        Unknown = "unknown",
    }
);

words!(
    /// What a guest does.
    GuestStatus {
        /// Runs.
        Running = "running",
        /// Does not run.
        Stopped = "stopped",
        /// Held by an admin or by a full disk; its memory is in use.
        Paused = "paused",
        /// Being set up to run, as on the target of a migration.
        Prelaunch = "prelaunch",
        /// No figures for some minutes, or its node is gone.
        Unknown = "unknown",
    }
);

/// A node of the cluster. A figure that Proxmox does not have now is `None`, which is not zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Name.
    pub id: NodeId,
    /// By membership and figures.
    pub status: NodeStatus,
    /// In maintenance, or asked to go there: takes no guests.
    pub maintenance: bool,
    /// Logical CPUs.
    pub max_cpu: Option<f64>,
    /// Share of them in use, 0 to 1.
    pub cpu: Option<f64>,
    /// Memory.
    pub max_mem: Option<Bytes>,
    /// Memory in use.
    pub mem: Option<Bytes>,
    /// Since it booted.
    pub uptime: Option<Duration>,
    /// Version and CPU model, once asked for; `None` while unknown.
    pub info: Option<NodeInfo>,
}

/// A guest, running or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Guest {
    /// Number in the cluster.
    pub vmid: Vmid,
    /// Kind.
    pub kind: GuestKind,
    /// Name; attacker-controlled text, cut to 128 characters.
    pub name: Option<String>,
    /// Where its configuration lies, which is where it runs.
    pub node: NodeId,
    /// What it does.
    pub status: GuestStatus,
    /// A template never runs.
    pub template: bool,
    /// A task holds it: backup, migrate, snapshot, ...
    pub lock: Option<String>,
    /// Tags in their order.
    pub tags: Vec<String>,
    /// CPUs it may use.
    pub max_cpu: Option<f64>,
    /// Share of them in use, 0 to 1, a little above when it overshoots.
    pub cpu: Option<f64>,
    /// Memory it may use.
    pub max_mem: Option<Bytes>,
    /// Memory it uses; for a VM without balloon driver, what its process holds on the node.
    pub mem: Option<Bytes>,
    /// Size of its disks.
    pub max_disk: Option<Bytes>,
    /// Since it was started here.
    pub uptime: Option<Duration>,
    /// State in HA, where HA manages it.
    pub hastate: Option<ServiceState>,
    /// Pool, where it is in one.
    pub pool: Option<String>,
}

/// What the call answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// All nodes.
    pub nodes: BTreeMap<NodeId, Node>,
    /// All guests that the token may see.
    pub guests: BTreeMap<Vmid, Guest>,
    /// All storages that the token may see, a row per node.
    pub storages: Vec<Storage>,
}

/// A row of any type; which fields it has depends on that.
#[derive(Debug, Deserialize)]
pub(super) struct Row {
    #[serde(default, deserialize_with = "lenient::opt")]
    pub(super) node: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt")]
    vmid: Option<u32>,
    #[serde(default, deserialize_with = "lenient::opt")]
    name: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt")]
    pub(super) status: Option<String>,
    #[serde(default, deserialize_with = "lenient::flag")]
    template: bool,
    #[serde(default, deserialize_with = "lenient::opt")]
    lock: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt")]
    tags: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt")]
    maxcpu: Option<f64>,
    #[serde(default, deserialize_with = "lenient::opt")]
    cpu: Option<f64>,
    #[serde(default, deserialize_with = "lenient::opt")]
    maxmem: Option<u64>,
    #[serde(default, deserialize_with = "lenient::opt")]
    mem: Option<u64>,
    #[serde(default, deserialize_with = "lenient::opt")]
    pub(super) maxdisk: Option<u64>,
    #[serde(default, deserialize_with = "lenient::opt")]
    pub(super) disk: Option<u64>,
    #[serde(default, deserialize_with = "lenient::opt")]
    uptime: Option<u64>,
    #[serde(default, deserialize_with = "lenient::opt")]
    hastate: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt")]
    pool: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt")]
    pub(super) storage: Option<String>,
    #[serde(default, deserialize_with = "lenient::flag")]
    pub(super) shared: bool,
    #[serde(default, deserialize_with = "lenient::opt")]
    pub(super) plugintype: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt")]
    pub(super) content: Option<String>,
}

/// Reads all resources. Rows of other types (pools, SDN, what comes) are passed over.
///
/// # Errors
/// As [`PveClient::get`]; [`PveError::Decode`] names the row that can not be understood, since leaving one out
/// would hide a guest.
pub async fn read(client: &PveClient) -> Result<Resources, PveError> {
    let rows: Vec<Value> = client.get(PATH, &[]).await?;
    collect(rows).map_err(|what| client.misunderstood(PATH, &what))
}

/// Two steps (JSON, then rows) so that a row of a type unknown here can not fail, and one of ours fails by name.
fn collect(rows: Vec<Value>) -> Result<Resources, String> {
    let mut all = Resources::default();
    for row in rows {
        let kind = row["type"].as_str().unwrap_or_default().to_owned();
        if !matches!(kind.as_str(), "node" | "qemu" | "lxc" | "storage") {
            continue;
        }
        let shown = row["id"].as_str().unwrap_or("a row without id").to_owned();
        let named = |problem: String| format!("{shown}: {problem}");
        let row: Row = serde_json::from_value(row).map_err(|error| named(error.to_string()))?;
        match kind.as_str() {
            "node" => {
                let node = node(row).map_err(named)?;
                all.nodes.insert(node.id.clone(), node);
            }
            "qemu" => insert(&mut all.guests, guest(row, GuestKind::Qemu).map_err(named)?)?,
            "lxc" => insert(&mut all.guests, guest(row, GuestKind::Lxc).map_err(named)?)?,
            _ => all.storages.push(Storage::from_row(row).map_err(named)?),
        }
    }
    Ok(all)
}

fn insert(guests: &mut BTreeMap<Vmid, Guest>, guest: Guest) -> Result<(), String> {
    let vmid = guest.vmid;
    match guests.insert(vmid, guest) {
        None => Ok(()),
        Some(other) => Err(format!("guest {vmid} is listed twice, once on {}", other.node)),
    }
}

fn node(row: Row) -> Result<Node, String> {
    Ok(Node {
        id: node_id(row.node)?,
        status: row.status.as_deref().map_or(NodeStatus::Unknown, NodeStatus::from),
        maintenance: row.hastate.as_deref() == Some("maintenance"),
        max_cpu: row.maxcpu,
        cpu: row.cpu,
        max_mem: row.maxmem.map(Bytes),
        mem: row.mem.map(Bytes),
        uptime: row.uptime.map(Duration::from_secs),
        info: None,
    })
}

fn guest(row: Row, kind: GuestKind) -> Result<Guest, String> {
    let status = row.status.as_deref().map_or(GuestStatus::Unknown, GuestStatus::from);
    let known = status != GuestStatus::Unknown;
    Ok(Guest {
        vmid: Vmid::new(row.vmid.ok_or("a guest without vmid")?).map_err(|error| error.to_string())?,
        kind,
        name: row.name.map(|name| name.chars().take(MAX_NAME).collect()),
        node: node_id(row.node)?,
        template: row.template,
        lock: row.lock,
        tags: split_tags(row.tags.as_deref().unwrap_or_default()),
        max_cpu: row.maxcpu,
        // A row of unknown status may still carry old or zero figures.
        cpu: row.cpu.filter(|_| known),
        max_mem: row.maxmem.map(Bytes),
        mem: row.mem.map(Bytes).filter(|_| known),
        max_disk: row.maxdisk.map(Bytes),
        uptime: row.uptime.map(Duration::from_secs),
        hastate: row.hastate.as_deref().map(ServiceState::from),
        pool: row.pool,
        status,
    })
}

pub(super) fn node_id(name: Option<String>) -> Result<NodeId, String> {
    NodeId::new(name.ok_or("it names no node")?).map_err(|error| error.to_string())
}

/// Tags as Proxmox takes them: separated by `;`, `,` or blanks.
fn split_tags(text: &str) -> Vec<String> {
    text.split([';', ',', ' ', '\t']).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Resources, String> {
        collect(serde_json::from_str(json).map_err(|e| e.to_string())?)
    }

    #[test]
    fn figures_that_are_not_there_are_not_zero() {
        let all = read(
            r#"[{"id":"node/n1","type":"node","node":"n1","status":"unknown"},
                {"id":"qemu/110","type":"qemu","vmid":"110","node":"n1","status":"unknown","cpu":0,"mem":0,
                 "template":"1","tags":"a;b, c  d"},
                {"id":"lxc/111","type":"lxc","vmid":111,"node":"n1","status":"frozen-solid","name":"x","cpu":"0.25"},
                {"id":"sdn/zone","type":"sdn","node":"../x","status":{"deep":1}}]"#,
        )
        .unwrap();
        let node = all.nodes.values().next().unwrap();
        assert_eq!((node.cpu, node.max_mem, &node.status), (None, None, &NodeStatus::Unknown));
        let vm = &all.guests[&Vmid::new(110).unwrap()];
        assert_eq!((vm.cpu, vm.mem, vm.template), (None, None, true));
        assert_eq!(vm.tags, ["a", "b", "c", "d"]);
        let ct = &all.guests[&Vmid::new(111).unwrap()];
        assert_eq!((ct.cpu, ct.status.as_str(), ct.kind), (Some(0.25), "frozen-solid", GuestKind::Lxc));
    }

    #[test]
    fn a_row_that_can_not_be_understood_is_named_rather_than_left_out() {
        for (row, named) in [
            (r#"{"id":"qemu/7","type":"qemu","vmid":7,"node":"n1"}"#, "qemu/7"),
            (r#"{"id":"qemu/120","type":"qemu","node":"n1"}"#, "without vmid"),
            (r#"{"id":"qemu/120","type":"qemu","vmid":120}"#, "names no node"),
            (r#"{"id":"qemu/120","type":"qemu","vmid":120,"node":"../etc"}"#, "qemu/120"),
            (r#"{"id":"node/n1","type":"node","node":"n1","status":{"deep":1}}"#, "node/n1"),
            (r#"{"id":"storage/n1/ceph","type":"storage","node":"n1"}"#, "storage/n1/ceph"),
        ] {
            let error = read(&format!("[{row}]")).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
        let twice = r#"{"type":"qemu","vmid":120,"node":"n1"},{"type":"lxc","vmid":120,"node":"n2"}"#;
        assert!(read(&format!("[{twice}]")).unwrap_err().contains("twice"));
    }

    #[test]
    fn long_names_are_cut() {
        let all = read(&format!(r#"[{{"type":"qemu","vmid":120,"node":"n","name":"{}"}}]"#, "é".repeat(500)))
            .unwrap();
        assert_eq!(all.guests.values().next().unwrap().name.as_ref().unwrap().chars().count(), 128);
    }
}
