//! The aggregator's configuration file. Every section is owned by the part it configures.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use evenkeel_common::config::{Validate, Violation};
use evenkeel_common::id::ClusterId;
use evenkeel_core::{Mode, Policy};
use evenkeel_runtime::log::LogConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::execute::ExecuteConfig;
use crate::fleet::FleetConfig;
use crate::history::HistoryConfig;
use crate::ingest::IngestConfig;
use crate::pve::PveConfig;
use crate::store::StoreConfig;

/// Everything the aggregator can be told.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AggregatorConfig {
    /// Directory for store, certificates, tokens and audit log. Mode 0700; back it up with `evenkeelctl export`.
    pub data_dir: PathBuf,
    /// Address and port for agents and evenkeelctl.
    pub listen: SocketAddr,
    /// Names and addresses under which agents and evenkeelctl reach this machine; they go into its certificate.
    pub server_names: Vec<String>,
    /// The clusters that are decided about. Agents of other clusters are taken in and shown as well.
    pub clusters: Vec<ClusterConfig>,
    /// What agents may send.
    pub ingest: IngestConfig,
    /// What the aggregator itself finds, beyond what agents tell.
    pub fleet: FleetConfig,
    /// From which anomaly score on a host alerts, by what became of its migrations.
    pub history: HistoryConfig,
    /// How much is kept.
    pub store: StoreConfig,
    /// Log lines.
    pub log: LogConfig,
}

impl Default for AggregatorConfig {
    fn default() -> Self {
        Self {
            data_dir: "/var/lib/evenkeel".into(),
            listen: SocketAddr::from(([0, 0, 0, 0], 7443)),
            server_names: vec!["localhost".into(), "127.0.0.1".into()],
            clusters: Vec::new(),
            ingest: IngestConfig::default(),
            fleet: FleetConfig::default(),
            history: HistoryConfig::default(),
            store: StoreConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// One cluster.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// Name, as agents carry it in their certificates. Choose it for good: history hangs on it.
    pub name: String,
    /// How to reach its Proxmox API. Without endpoints it is watched, and nothing is decided.
    pub pve: PveConfig,
    /// How its migrations are decided.
    pub policy: Policy,
    /// How those that are decided are started.
    pub execute: ExecuteConfig,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            name: "main".into(),
            pve: PveConfig::default(),
            policy: Policy::default(),
            execute: ExecuteConfig::default(),
        }
    }
}

impl Validate for AggregatorConfig {
    fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut wrong = Vec::new();
        if self.server_names.is_empty() {
            wrong.push(Violation::new("server_names", "[]", "at least one name or address".to_owned()));
        }
        if self.ingest.backfill_credit < 2 * self.ingest.block_secs {
            // An agent that may not fill a block would wait for an acknowledgement that never comes.
            let allowed = format!("at least twice ingest.block_secs ({})", self.ingest.block_secs);
            wrong.push(Violation::new("ingest.backfill_credit", self.ingest.backfill_credit, allowed));
        }
        wrong.extend(self.history.validate().err().into_iter().flatten());
        let mut names = BTreeSet::new();
        for (index, cluster) in self.clusters.iter().enumerate() {
            let path = format!("clusters[{index}]");
            if let Err(error) = ClusterId::new(&cluster.name) {
                wrong.push(Violation::new(format!("{path}.name"), &cluster.name, error.to_string()));
            }
            if !names.insert(&cluster.name) {
                wrong.push(Violation::new(
                    format!("{path}.name"),
                    &cluster.name,
                    "a name of its own".to_owned(),
                ));
            }
            if cluster.policy.mode != Mode::Advise && cluster.execute.token_file.as_os_str().is_empty() {
                let allowed = format!(
                    "the file of a second token, since policy.mode is {:?}; or mode advise",
                    cluster.policy.mode
                );
                wrong.push(Violation::new(
                    format!("{path}.execute.token_file"),
                    "\"\"",
                    allowed.to_lowercase(),
                ));
            }
            for part in [cluster.pve.validate(), cluster.policy.validate(), cluster.execute.validate()] {
                wrong.extend(part.err().into_iter().flatten().map(|violation| violation.within(&path)));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::config::{assert_documented, parse_valid};

    #[test]
    fn every_option_has_a_sentence_and_a_default() {
        assert_documented::<AggregatorConfig>();
    }

    #[test]
    fn what_can_not_work_is_refused_with_its_option() {
        AggregatorConfig::default().validate().unwrap();
        for (text, named) in [
            ("[ingest]\nblock_secs = 300\nbackfill_credit = 60", "backfill_credit"),
            ("[[clusters]]\nname = \"a b\"", "name"),
            ("[[clusters]]\nname = \"a\"\n[[clusters]]\nname = \"a\"", "name of its own"),
            ("[[clusters]]\n[clusters.policy]\nmax_migrations_per_run = 0", "max_migrations_per_run"),
            ("lissten = \"0.0.0.0:1\"", "listen"),
            ("server_names = []", "server_names"),
        ] {
            let error = parse_valid::<AggregatorConfig>(text, "aggregator.toml").unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
