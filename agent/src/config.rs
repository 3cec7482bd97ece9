//! The agent's options. The defaults suit a Proxmox VE node; only the aggregator's address must be given.

use std::path::PathBuf;
use std::time::Duration;

use evenkeel_common::config::{Validate, Violation};
use evenkeel_detect::config::WatchConfig;
use evenkeel_runtime::log::LogConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::drill::DrillConfig;
use crate::probe::ProbeConfig;
use crate::uplink::Target;
use crate::watch_node::NodeWatchConfig;

/// The agent's configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// Seconds between samples. Larger values save CPU and disk, and make every detector slower by the same
    /// factor. The aggregator may set another value within the same bounds.
    #[schemars(range(min = 1, max = 60))]
    pub interval_s: u32,
    /// Seconds between reports of guest profiles.
    #[schemars(range(min = 10, max = 3600))]
    pub profile_interval_s: u32,
    /// Most series sampled at once. Beyond it new devices and guests are not sampled, which the agent reports.
    /// About 4 KB of memory a series.
    #[schemars(range(min = 100, max = 16000))]
    pub max_series: u32,
    /// Folder for what must survive a restart. Without it, what was not yet delivered is lost, anomalies start
    /// their numbers anew, and what is normal for each series and guest is learned anew.
    pub state_dir: PathBuf,
    /// Root of the file tree that is sampled. Anything but / is for tests.
    pub root: PathBuf,
    /// Where the aggregator is.
    pub aggregator: AggregatorConfig,
    /// The buffer for when the aggregator is away.
    pub spool: SpoolConfig,
    /// When a series is not itself.
    pub watch: WatchConfig,
    /// When the node as a whole is not itself.
    pub node: NodeWatchConfig,
    /// Latency, jitter and loss between this node and others.
    pub probe: ProbeConfig,
    /// Fault drills.
    pub drills: DrillConfig,
    /// What is logged.
    pub log: LogConfig,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            interval_s: 1,
            profile_interval_s: 60,
            max_series: 8000,
            state_dir: "/var/lib/evenkeel-agent".into(),
            root: "/".into(),
            aggregator: AggregatorConfig::default(),
            spool: SpoolConfig::default(),
            watch: WatchConfig::default(),
            node: NodeWatchConfig::default(),
            probe: ProbeConfig::default(),
            drills: DrillConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// Where the aggregator is, and how both prove who they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AggregatorConfig {
    /// Host and port of the aggregator, as in "evenkeel.example.org:7443". Without it the agent does not start.
    pub address: String,
    /// Name that the aggregator's certificate must bear; empty = the host of the address.
    pub server_name: String,
    /// PEM file with the authority that issued the aggregator's certificate. No other is trusted.
    pub ca: PathBuf,
    /// PEM file with this agent's certificate, which says for which node it speaks.
    pub cert: PathBuf,
    /// PEM file with the key of that certificate. Whoever reads it can speak for this node: mode 0600.
    pub key: PathBuf,
}

impl Default for AggregatorConfig {
    fn default() -> Self {
        Self {
            address: String::new(),
            server_name: String::new(),
            ca: "/etc/evenkeel/agent/ca.pem".into(),
            cert: "/etc/evenkeel/agent/agent.pem".into(),
            key: "/etc/evenkeel/agent/agent.key".into(),
        }
    }
}

/// The buffer for samples and events that the aggregator has not confirmed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolConfig {
    /// Most disk space used, in MiB. When it is reached, the oldest samples are thinned to 10 s, then to 60 s,
    /// then dropped; 64 MiB hold about 20 hours at 1 s on a node with 50 guests before that begins.
    #[schemars(range(min = 16, max = 65536))]
    pub cap_mib: u32,
    /// Part of it for events, in MiB. They are dropped only when this is full.
    #[schemars(range(min = 1, max = 1024))]
    pub events_mib: u32,
    /// Ticks held in memory before they go to disk. More memory, less disk writing. The aggregator confirms
    /// about once a minute, so below 120 every minute goes to disk.
    #[schemars(range(min = 60, max = 3600))]
    pub memory_ticks: u32,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self { cap_mib: 64, events_mib: 8, memory_ticks: 180 }
    }
}

impl AgentConfig {
    /// Time between ticks.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval_s.into())
    }

    /// What the uplink needs of it.
    #[must_use]
    pub fn target(&self) -> Target {
        let AggregatorConfig { address, server_name, ca, cert, key } = self.aggregator.clone();
        let host = address.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']).to_owned();
        let server_name = if server_name.is_empty() { host } else { server_name };
        Target { address, server_name, ca, cert, key }
    }
}

impl Validate for AgentConfig {
    fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut violations = Vec::new();
        let address = &self.aggregator.address;
        let good = address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty()
                && !host.contains(['/', '@', ' '])
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if !good {
            let allowed = "HOST:PORT of the aggregator, as in \"evenkeel.example.org:7443\"";
            violations.push(Violation::new("aggregator.address", format!("{address:?}"), allowed));
        }
        if self.spool.events_mib > self.spool.cap_mib / 2 {
            let allowed = format!("at most half of spool.cap_mib = {}", self.spool.cap_mib);
            violations.push(Violation::new("spool.events_mib", self.spool.events_mib, allowed));
        }
        if self.probe.listen.port() == 0 {
            let allowed = "an address and a port that peers can reach, as in \"[::]:7444\"";
            violations.push(Violation::new("probe.listen", self.probe.listen, allowed));
        }
        for (option, path) in [("state_dir", &self.state_dir), ("root", &self.root)] {
            if !path.is_absolute() {
                violations.push(Violation::new(option, path.display(), "an absolute path"));
            }
        }
        if let Err(of_log) = self.log.validate() {
            violations.extend(of_log.into_iter().map(|violation| violation.within("log")));
        }
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::config::{assert_documented, parse_valid};

    fn load(text: &str) -> Result<AgentConfig, String> {
        parse_valid(text, "agent.toml").map_err(|error| error.to_string())
    }

    #[test]
    fn every_option_is_documented() {
        assert_documented::<AgentConfig>();
    }

    #[test]
    fn an_address_is_all_that_is_needed() {
        let config = load("aggregator.address = \"a.example:7443\"").unwrap();
        assert_eq!(config.target().server_name, "a.example");
        let v6 = load("[aggregator]\naddress = \"[fd00::1]:7443\"\nserver_name = \"agg\"").unwrap();
        assert_eq!((v6.target().server_name.as_str(), v6.interval_s), ("agg", 1));
        assert_eq!(load("aggregator.address = \"[fd00::1]:7443\"").unwrap().target().server_name, "fd00::1");
    }

    #[test]
    fn bad_values_are_named() {
        for (text, wanted) in [
            ("", "aggregator.address"),
            ("aggregator.address = \"a.example\"", "HOST:PORT"),
            ("aggregator.address = \"https://a.example:7443\"", "HOST:PORT"),
            ("interval_s = 0\naggregator.address = \"a:1\"", "interval_s = 0"),
            ("interval = 1", "unknown option \"interval\""),
            ("state_dir = \"x\"\naggregator.address = \"a:1\"", "an absolute path"),
            ("aggregator.address = \"a:1\"\nspool.cap_mib = 16\nspool.events_mib = 9", "at most half"),
            ("aggregator.address = \"a:1\"\nlog.level = \"loud=very\"", "log.level"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(wanted), "{text:?}: {error}");
        }
    }
}
