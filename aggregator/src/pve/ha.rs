//! High availability: what it manages, its rules, its state. PVE 9 has rules, PVE 8 has groups; both become rules.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_common::id::{NodeId, Vmid};
use serde::Deserialize;

use super::client::PveClient;
use super::error::PveError;
use super::lenient::{self, words};

words!(
    /// State of a guest in HA. Only `started` and `stopped` are at rest.
    ServiceState {
        /// Runs where it should.
        Started = "started",
        /// Stopped as it should.
        Stopped = "stopped",
        /// About to start.
        RequestStart = "request_start",
        /// About to stop.
        RequestStop = "request_stop",
        /// Being moved live.
        Migrate = "migrate",
        /// Being moved by restart.
        Relocate = "relocate",
        /// Its node is being fenced.
        Fence = "fence",
        /// Waits for a node after fencing.
        Recovery = "recovery",
        /// Its node's HA is stopped.
        Freeze = "freeze",
        /// Needs an admin.
        Error = "error",
        /// HA does not touch it.
        Ignored = "ignored",
        /// Known, not yet acted on.
        Queued = "queued",
    }
);

words!(
    /// State of a node in HA.
    NodeState {
        /// Takes guests.
        Online = "online",
        /// Gives its guests away and takes none.
        Maintenance = "maintenance",
        /// Not heard of.
        Unknown = "unknown",
        /// Being fenced.
        Fence = "fence",
        /// No longer in the cluster.
        Gone = "gone",
    }
);

/// A guest that HA manages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// State the admin asked for.
    pub requested: ServiceState,
    /// HA moves it back to the best node of its rule when that is there again.
    pub failback: bool,
    /// Group, on PVE 8.
    pub group: Option<String>,
}

/// A guest's place and state as the HA manager has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// State.
    pub state: ServiceState,
    /// Where it is.
    pub node: Option<NodeId>,
    /// Where it is going.
    pub target: Option<NodeId>,
}

/// A rule about where guests may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name; on PVE 8 that of the group.
    pub id: String,
    /// An admin switched it off.
    pub disabled: bool,
    /// The guests it is about.
    pub guests: BTreeSet<Vmid>,
    /// What it says.
    pub kind: RuleKind,
}

/// What a rule says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleKind {
    /// Its guests belong on these nodes.
    NodeAffinity {
        /// Nodes with priority, higher preferred.
        nodes: BTreeMap<NodeId, u32>,
        /// Never elsewhere, not even when none of them is there.
        strict: bool,
    },
    /// Its guests belong on the same node.
    KeepTogether,
    /// Its guests belong on different nodes.
    KeepApart,
    /// A kind this version of evenkeel does not know: its guests are better left alone.
    Other(String),
}

/// High availability of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ha {
    /// Guests that HA manages.
    pub resources: BTreeMap<Vmid, Resource>,
    /// All rules, disabled ones included.
    pub rules: Vec<Rule>,
    /// State of the guests.
    pub services: BTreeMap<Vmid, Service>,
    /// State of the nodes; empty while HA has never been used.
    pub nodes: BTreeMap<NodeId, NodeState>,
    /// Nodes that an admin asked into maintenance.
    pub maintenance_requested: BTreeSet<NodeId>,
    /// Whether fencing is armed, in Proxmox' words (`armed`, `disarmed`, ...); `None` where it does not say.
    pub armed: Option<String>,
    /// The rules came from groups (PVE 8).
    pub from_groups: bool,
}

/// Guests by HA name: `vm:101`, `ct:300`.
fn guest_of(sid: &str) -> Option<Vmid> {
    let (kind, number) = sid.split_once(':')?;
    matches!(kind, "vm" | "ct").then(|| number.parse().ok())?
}

#[derive(Deserialize)]
struct ResourceRow {
    #[serde(deserialize_with = "lenient::required")]
    sid: String,
    #[serde(default, deserialize_with = "lenient::opt")]
    state: Option<ServiceState>,
    #[serde(default, deserialize_with = "lenient::opt")]
    failback: Option<bool>,
    #[serde(default, deserialize_with = "lenient::opt")]
    group: Option<String>,
}

#[derive(Deserialize)]
struct RuleRow {
    #[serde(deserialize_with = "lenient::required")]
    rule: String,
    #[serde(rename = "type", deserialize_with = "lenient::required")]
    kind: String,
    #[serde(default, deserialize_with = "lenient::opt")]
    resources: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt")]
    nodes: Option<String>,
    #[serde(default, deserialize_with = "lenient::flag")]
    strict: bool,
    #[serde(default, deserialize_with = "lenient::opt")]
    affinity: Option<String>,
    #[serde(default, deserialize_with = "lenient::flag")]
    disable: bool,
}

#[derive(Deserialize)]
struct GroupRow {
    #[serde(deserialize_with = "lenient::required")]
    group: String,
    #[serde(default, deserialize_with = "lenient::opt")]
    nodes: Option<String>,
    #[serde(default, deserialize_with = "lenient::flag")]
    restricted: bool,
    #[serde(default, deserialize_with = "lenient::flag")]
    nofailback: bool,
}

#[derive(Default, Deserialize)]
struct ManagerAnswer {
    #[serde(default)]
    manager_status: ManagerStatus,
}

#[derive(Default, Deserialize)]
struct ManagerStatus {
    #[serde(default)]
    node_status: BTreeMap<String, String>,
    #[serde(default)]
    node_request: BTreeMap<String, NodeRequest>,
    #[serde(default)]
    service_status: BTreeMap<String, ServiceRow>,
}

#[derive(Default, Deserialize)]
struct NodeRequest {
    #[serde(default, deserialize_with = "lenient::flag")]
    maintenance: bool,
}

#[derive(Deserialize)]
struct ServiceRow {
    #[serde(deserialize_with = "lenient::required")]
    state: ServiceState,
    #[serde(default, deserialize_with = "lenient::opt")]
    node: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt")]
    target: Option<String>,
}

#[derive(Deserialize)]
struct CurrentRow {
    #[serde(default, rename = "armed-state", deserialize_with = "lenient::opt")]
    armed: Option<String>,
}

/// Reads all of HA: resources, rules (or groups), manager status, fencing.
///
/// # Errors
/// As [`PveClient::get`], of the first part that fails.
pub async fn read(client: &PveClient) -> Result<Ha, PveError> {
    let (resources, rules, manager, current) = tokio::try_join!(
        client.get::<Vec<ResourceRow>>("/cluster/ha/resources", &[]),
        rules_or_groups(client),
        client.get::<ManagerAnswer>("/cluster/ha/status/manager_status", &[]),
        client.get::<Vec<CurrentRow>>("/cluster/ha/status/current", &[]),
    )?;
    Ok(assemble(resources, rules, manager.manager_status, current))
}

enum Rules {
    Rules(Vec<RuleRow>),
    Groups(Vec<GroupRow>),
}

async fn rules_or_groups(client: &PveClient) -> Result<Rules, PveError> {
    match client.get("/cluster/ha/rules", &[]).await {
        Err(PveError::NotImplemented { .. }) => {
            client.get("/cluster/ha/groups", &[]).await.map(Rules::Groups)
        }
        rules => rules.map(Rules::Rules),
    }
}

fn assemble(
    resources: Vec<ResourceRow>,
    rules: Rules,
    manager: ManagerStatus,
    current: Vec<CurrentRow>,
) -> Ha {
    let mut ha = Ha { armed: current.into_iter().find_map(|row| row.armed), ..Ha::default() };
    for row in resources {
        let Some(guest) = guest_of(&row.sid) else { continue };
        let requested = row.state.unwrap_or(ServiceState::Started);
        let failback = row.failback.unwrap_or(true);
        ha.resources.insert(guest, Resource { requested, failback, group: row.group });
    }
    match rules {
        Rules::Rules(rows) => ha.rules = rows.into_iter().map(rule).collect(),
        Rules::Groups(rows) => {
            ha.from_groups = true;
            ha.rules = rows.into_iter().map(|row| group_rule(row, &mut ha.resources)).collect();
        }
    }
    for (node, state) in manager.node_status {
        if let Ok(node) = NodeId::new(node) {
            ha.nodes.insert(node, NodeState::from(state.as_str()));
        }
    }
    let asked = manager.node_request.into_iter().filter(|(_, request)| request.maintenance);
    ha.maintenance_requested = asked.filter_map(|(node, _)| NodeId::new(node).ok()).collect();
    let node = |name: Option<String>| name.and_then(|name| NodeId::new(name).ok());
    for (sid, row) in manager.service_status {
        if let Some(guest) = guest_of(&sid) {
            let service = Service { state: row.state, node: node(row.node), target: node(row.target) };
            ha.services.insert(guest, service);
        }
    }
    ha
}

fn rule(row: RuleRow) -> Rule {
    let kind = match (row.kind.as_str(), row.affinity.as_deref()) {
        ("node-affinity", _) => RuleKind::NodeAffinity {
            nodes: priorities(row.nodes.as_deref().unwrap_or_default()),
            strict: row.strict,
        },
        ("resource-affinity", Some("positive")) => RuleKind::KeepTogether,
        ("resource-affinity", Some("negative")) => RuleKind::KeepApart,
        (kind, affinity) => {
            RuleKind::Other(format!("{kind} {}", affinity.unwrap_or_default()).trim_end().to_owned())
        }
    };
    let guests =
        row.resources.as_deref().unwrap_or_default().split(',').filter_map(|sid| guest_of(sid.trim()));
    Rule { id: row.rule, disabled: row.disable, guests: guests.collect(), kind }
}

/// A group of PVE 8 as the node-affinity rule that PVE 9 would make of it.
fn group_rule(row: GroupRow, resources: &mut BTreeMap<Vmid, Resource>) -> Rule {
    let mut guests = BTreeSet::new();
    for (&guest, resource) in resources.iter_mut() {
        if resource.group.as_deref() == Some(row.group.as_str()) {
            guests.insert(guest);
            resource.failback = !row.nofailback;
        }
    }
    let nodes = priorities(row.nodes.as_deref().unwrap_or_default());
    Rule {
        id: row.group,
        disabled: false,
        guests,
        kind: RuleKind::NodeAffinity { nodes, strict: row.restricted },
    }
}

/// `pve1,pve2:5`: nodes with priority, 0 where none is given.
fn priorities(text: &str) -> BTreeMap<NodeId, u32> {
    let parts = text.split(',').map(str::trim).map(|part| part.split_once(':').unwrap_or((part, "0")));
    parts
        .filter_map(|(node, priority)| Some((NodeId::new(node).ok()?, priority.parse().unwrap_or(0))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vmid(number: u32) -> Vmid {
        Vmid::new(number).unwrap()
    }

    fn rows<T: serde::de::DeserializeOwned>(json: &str) -> T {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn rules_of_every_kind_are_read_and_unknown_ones_kept() {
        let rules: Vec<RuleRow> = rows(
            r#"[{"rule":"pin","type":"node-affinity","resources":"vm:110, ct:111","nodes":"n1,n2:5","strict":1},
                {"rule":"apart","type":"resource-affinity","affinity":"negative","resources":"vm:110,vm:112","disable":"1"},
                {"rule":"along","type":"resource-affinity","affinity":"positive","resources":"vm:110"},
                {"rule":"new","type":"rack-affinity","resources":"vm:110,disk:7"}]"#,
        );
        let ha = assemble(vec![], Rules::Rules(rules), ManagerStatus::default(), vec![]);
        let nodes = BTreeMap::from([(NodeId::new("n1").unwrap(), 0), (NodeId::new("n2").unwrap(), 5)]);
        assert_eq!(ha.rules[0].kind, RuleKind::NodeAffinity { nodes, strict: true });
        assert_eq!(ha.rules[0].guests, BTreeSet::from([vmid(110), vmid(111)]));
        assert!(ha.rules[1].disabled && ha.rules[1].kind == RuleKind::KeepApart && !ha.rules[2].disabled);
        assert_eq!(ha.rules[2].kind, RuleKind::KeepTogether);
        assert_eq!(ha.rules[3].kind, RuleKind::Other("rack-affinity".into()));
        assert_eq!(ha.rules[3].guests, BTreeSet::from([vmid(110)]));
    }

    #[test]
    fn groups_become_rules_with_their_guests() {
        let resources =
            rows(r#"[{"sid":"vm:110","state":"started","group":"fast"},{"sid":"ct:111","group":"slow"}]"#);
        let groups =
            rows(r#"[{"group":"fast","nodes":"n2:2,n1","restricted":"1","nofailback":1,"type":"group"}]"#);
        let ha = assemble(resources, Rules::Groups(groups), ManagerStatus::default(), vec![]);
        assert_eq!(ha.rules[0].guests, BTreeSet::from([vmid(110)]));
        assert!(
            matches!(&ha.rules[0].kind, RuleKind::NodeAffinity { strict: true, nodes } if nodes.len() == 2)
        );
        assert!(!ha.resources[&vmid(110)].failback && ha.resources[&vmid(111)].failback && ha.from_groups);
    }

    #[test]
    fn the_managers_view_is_read() {
        let manager: ManagerAnswer = rows(
            r#"{"manager_status":{"node_status":{"n1":"online","n2":"resting"},"node_request":{"n2":{"maintenance":"1"}},
                "service_status":{"vm:110":{"state":"migrate","node":"n1","target":"n2","uid":"x"}}},"quorum":{"quorate":"1"}}"#,
        );
        let current = rows(r#"[{"id":"quorum","type":"quorum"},{"id":"fencing","armed-state":"disarmed"}]"#);
        let ha = assemble(vec![], Rules::Rules(vec![]), manager.manager_status, current);
        assert_eq!(ha.armed.as_deref(), Some("disarmed"));
        assert_eq!(ha.nodes[&NodeId::new("n2").unwrap()].as_str(), "resting");
        assert!(ha.maintenance_requested.contains(&NodeId::new("n2").unwrap()));
        assert_eq!(ha.services[&vmid(110)].state, ServiceState::Migrate);
        assert_eq!(ha.services[&vmid(110)].target, NodeId::new("n2").ok());
    }
}
