//! Options of the history of migrations.

use evenkeel_common::config::{Validate, Violation};
use evenkeel_core::history::group::Pattern;
use evenkeel_core::history::tier::{Environment, Environments};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From which anomaly score on a host alerts. Above 75 every host pages somebody.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryConfig {
    /// Anomaly score from which on a host in production alerts. 0 to 100. Every host is in production that is not in
    /// development.
    #[schemars(range(min = 0, max = 100))]
    pub production_threshold: u32,
    /// Anomaly score from which on a host in development alerts. 0 to 100.
    #[schemars(range(min = 0, max = 100))]
    pub development_threshold: u32,
    /// Names of the hosts in development; `*` stands for any text.
    pub development_hosts: Vec<String>,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            production_threshold: 50,
            development_threshold: 75,
            development_hosts: ["dev-*", "*-dev", "*-dev-*", "test-*", "*-test", "*-test-*"]
                .map(Into::into)
                .into(),
        }
    }
}

impl HistoryConfig {
    /// The environments these options make. What is no pattern has been refused by [`Validate`].
    #[must_use]
    pub fn environments(&self) -> Environments {
        let environment = |name: &str, hosts: Vec<Pattern>, threshold| Environment {
            name: name.to_owned(),
            hosts,
            threshold,
        };
        let development = self.development_hosts.iter().filter_map(|hosts| hosts.parse().ok()).collect();
        Environments {
            named: vec![environment("development", development, self.development_threshold)],
            others: environment("production", Vec::new(), self.production_threshold),
        }
    }
}

impl Validate for HistoryConfig {
    fn validate(&self) -> Result<(), Vec<Violation>> {
        let wrong = |(index, hosts): (usize, &String)| {
            let allowed = "a name of 1 to 128 bytes, with * for any text";
            let option = format!("history.development_hosts[{index}]");
            hosts.parse::<Pattern>().is_err().then(|| Violation::new(option, hosts, allowed))
        };
        let wrong: Vec<_> = self.development_hosts.iter().enumerate().filter_map(wrong).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_shipped_production_alerts_at_50_and_development_at_75() {
        let environments = HistoryConfig::default().environments();
        for (host, name, threshold) in [
            ("prod-web-07", "production", 50),
            ("pve1", "production", 50),
            ("dev-web-07", "development", 75),
            ("web-test", "development", 75),
            ("latest-web", "production", 50),
        ] {
            let found = environments.of(host);
            assert_eq!((found.name.as_str(), found.threshold), (name, threshold), "{host}");
        }
        let bad = HistoryConfig {
            development_hosts: vec!["dev-*".into(), String::new()],
            ..HistoryConfig::default()
        };
        let told = bad.validate().unwrap_err();
        assert_eq!(told[0].option, "history.development_hosts[1]");
    }
}
