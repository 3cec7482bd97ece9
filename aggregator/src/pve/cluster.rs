//! Membership, quorum, options and nodes: `/cluster/status`, `/cluster/options`, `/nodes`, `/nodes/{n}/status`.

use std::collections::BTreeMap;

use evenkeel_common::id::NodeId;
use serde::Deserialize;

use super::client::PveClient;
use super::error::PveError;
use super::lenient::{self, FromScalar, Scalar, properties, words};
use super::tls::Fingerprint;

/// Membership as corosync has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Name of the cluster; `None` for a node that is in none.
    pub name: Option<String>,
    /// Whether a majority is there. A lone node always has it.
    pub quorate: bool,
    /// All nodes, and whether each is a member now.
    pub nodes: BTreeMap<NodeId, bool>,
}

#[derive(Deserialize)]
struct StatusRow {
    #[serde(rename = "type", deserialize_with = "lenient::required")]
    kind: String,
    #[serde(deserialize_with = "lenient::required")]
    name: String,
    #[serde(default, deserialize_with = "lenient::flag")]
    quorate: bool,
    #[serde(default, deserialize_with = "lenient::opt")]
    online: Option<bool>,
}

/// Reads `/cluster/status`. Names that no node can have are left out; the comparison with the resources then
/// shows the difference.
///
/// # Errors
/// As [`PveClient::get`].
pub async fn membership(client: &PveClient) -> Result<Membership, PveError> {
    client.get("/cluster/status", &[]).await.map(collect)
}

fn collect(rows: Vec<StatusRow>) -> Membership {
    let mut membership = Membership::default();
    for row in rows {
        match row.kind.as_str() {
            "cluster" => (membership.name, membership.quorate) = (Some(row.name), row.quorate),
            "node" => {
                if let Ok(node) = NodeId::new(row.name) {
                    membership.nodes.insert(node, row.online.unwrap_or(true));
                }
            }
            _ => {}
        }
    }
    if membership.name.is_none() {
        membership.quorate = true;
    }
    membership
}

words!(
    /// How Proxmox' own scheduler counts load.
    CrsMode {
        /// Number of guests.
        Basic = "basic",
        /// Configured size of guests.
        Static = "static",
        /// Measured load.
        Dynamic = "dynamic",
    }
);

/// Proxmox' own cluster resource scheduling, option `crs` of the datacenter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crs {
    /// How it counts load.
    pub mode: CrsMode,
    /// It moves HA guests by itself, so nobody else may (from 9.2).
    pub auto_rebalance: bool,
    /// It chooses a node anew when an HA guest starts.
    pub rebalance_on_start: bool,
}

impl Default for Crs {
    fn default() -> Self {
        Self { mode: CrsMode::Basic, auto_rebalance: false, rebalance_on_start: false }
    }
}

#[derive(Default, Deserialize)]
struct Options {
    #[serde(default)]
    crs: CrsOption,
}

/// An object from 9.2 on, a property string before.
#[derive(Default, Deserialize)]
#[serde(untagged)]
enum CrsOption {
    #[default]
    Absent,
    Text(String),
    Object(BTreeMap<String, Scalar>),
}

/// Reads the scheduler's settings from `/cluster/options`.
///
/// # Errors
/// As [`PveClient::get`]; an option `crs` that is neither object nor text is [`PveError::Decode`].
pub async fn crs(client: &PveClient) -> Result<Crs, PveError> {
    client.get::<Options>("/cluster/options", &[]).await.map(|options| parse_crs(options.crs))
}

fn parse_crs(option: CrsOption) -> Crs {
    let values = match option {
        CrsOption::Absent => BTreeMap::new(),
        CrsOption::Object(values) => values,
        CrsOption::Text(text) => properties(&text)
            // `crs: static` is short for `ha=static`.
            .map(|(key, value)| (if key.is_empty() { "ha" } else { key }, value))
            .map(|(key, value)| (key.to_owned(), Scalar::Text(value.to_owned())))
            .collect(),
    };
    // A value that can not be read counts as on: leaving HA guests alone is the safe side.
    let flag = |key: &str| values.get(key).is_some_and(|value| bool::from_scalar(value).unwrap_or(true));
    Crs {
        mode: values.get("ha").and_then(CrsMode::from_scalar).unwrap_or(CrsMode::Basic),
        auto_rebalance: flag("ha-auto-rebalance"),
        rebalance_on_start: flag("ha-rebalance-on-start"),
    }
}

#[derive(Deserialize)]
struct NodeRow {
    #[serde(default, deserialize_with = "lenient::opt")]
    ssl_fingerprint: Option<String>,
}

/// The certificates that the cluster says its nodes have.
///
/// # Errors
/// As [`PveClient::get`].
pub async fn fingerprints(client: &PveClient) -> Result<Vec<Fingerprint>, PveError> {
    let rows: Vec<NodeRow> = client.get("/nodes", &[]).await?;
    Ok(rows.into_iter().filter_map(|row| row.ssl_fingerprint?.parse().ok()).collect())
}

/// What rarely changes about a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// Version of Proxmox VE, such as `9.2.11`.
    pub version: String,
    /// Name of the CPU model; a guest with CPU type `host` may only move between equal ones.
    pub cpu_model: String,
}

#[derive(Deserialize)]
struct NodeStatusAnswer {
    #[serde(default, deserialize_with = "lenient::opt")]
    pveversion: Option<String>,
    #[serde(default)]
    cpuinfo: CpuInfo,
}

#[derive(Default, Deserialize)]
struct CpuInfo {
    #[serde(default, deserialize_with = "lenient::opt")]
    model: Option<String>,
}

/// Reads `/nodes/{node}/status`.
///
/// # Errors
/// As [`PveClient::get`].
pub async fn node_info(client: &PveClient, node: &NodeId) -> Result<NodeInfo, PveError> {
    let answer: NodeStatusAnswer = client.get(&format!("/nodes/{node}/status"), &[]).await?;
    // "pve-manager/9.2.11/14a22df3": product, version, commit.
    let full = answer.pveversion.unwrap_or_default();
    let version = full.split('/').nth(1).unwrap_or(&full).to_owned();
    Ok(NodeInfo { version, cpu_model: answer.cpuinfo.model.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_node_has_quorum_and_a_cluster_says_so() {
        let of = |json: &str| collect(serde_json::from_str(json).unwrap());
        let lone = of(r#"[{"type":"node","name":"n1","id":"node/n1","online":1,"local":1}]"#);
        assert!(lone.quorate && lone.name.is_none());
        let split =
            of(r#"[{"type":"cluster","name":"c","quorate":"0"},{"type":"node","name":"n1","online":"1"},
                           {"type":"node","name":"n2","online":0}]"#);
        assert!(!split.quorate);
        assert_eq!(split.nodes.values().copied().collect::<Vec<_>>(), [true, false]);
        assert!(!of(r#"[{"type":"cluster","name":"c"}]"#).quorate, "silence about quorum is no quorum");
    }

    #[test]
    fn the_scheduler_is_read_as_object_and_as_property_string() {
        for json in [
            r#"{"crs":{"ha":"dynamic","ha-auto-rebalance":1,"ha-auto-rebalance-threshold":"30"},"keyboard":"de"}"#,
            r#"{"crs":"ha=dynamic,ha-auto-rebalance=1,ha-auto-rebalance-threshold=30"}"#,
            r#"{"crs":"dynamic,ha-auto-rebalance=on"}"#,
        ] {
            let crs = parse_crs(serde_json::from_str::<Options>(json).unwrap().crs);
            assert_eq!((&crs.mode, crs.auto_rebalance), (&CrsMode::Dynamic, true), "{json}");
            assert!(!crs.rebalance_on_start);
        }
        for json in ["{}", r#"{"crs":"ha=basic"}"#, r#"{"crs":{"ha-auto-rebalance":"0"}}"#, r#"{"crs":null}"#]
        {
            assert_eq!(
                parse_crs(serde_json::from_str::<Options>(json).unwrap().crs),
                Crs::default(),
                "{json}"
            );
        }
        assert!(parse_crs(CrsOption::Text("ha-auto-rebalance=perhaps".into())).auto_rebalance);
    }
}
