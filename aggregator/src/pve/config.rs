//! How to reach the API of one cluster.

use std::path::PathBuf;
use std::time::Duration;

use evenkeel_common::config::{Validate, Violation};
use reqwest::Url;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::PveError;
use super::tls::Fingerprint;

/// Access to the Proxmox VE API of one cluster. TLS is always verified: by pinned fingerprint or by authority.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PveConfig {
    /// Nodes to ask, in this order: `https://NODE:8006`, `NODE:8006` or `NODE`. When one does not answer, the
    /// next is asked. Empty = this cluster is only watched through its agents, and nothing is decided for it.
    pub endpoints: Vec<String>,
    /// File with the API token, one line `user@realm!tokenid=secret`, mode 0600. It needs VM.Audit, Sys.Audit,
    /// Datastore.Audit and Pool.Audit on `/`; more is not used.
    pub token_file: PathBuf,
    /// Certificate authority that signed the nodes' certificates: a copy of `/etc/pve/pve-root-ca.pem`. Not
    /// read when `fingerprints` has an entry.
    pub ca_file: PathBuf,
    /// SHA-256 fingerprints of the nodes' certificates (`pvenode cert info`). One is enough to start: the
    /// cluster itself names those of its other nodes, for as long as evenkeel runs.
    pub fingerprints: Vec<Fingerprint>,
    /// Seconds until a request counts as failed, answer included. 1 to 120.
    #[schemars(range(min = 1, max = 120))]
    pub timeout_secs: u32,
    /// Seconds between two inventories. 5 to 300; no decision is made on one older than three of these.
    #[schemars(range(min = 5, max = 300))]
    pub poll_interval_secs: u32,
    /// Longest answer read, in MiB; a longer one is an error. 1 to 256.
    #[schemars(range(min = 1, max = 256))]
    pub max_answer_mib: u32,
}

impl Default for PveConfig {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            token_file: "/etc/evenkeel/pve-token".into(),
            ca_file: "/etc/evenkeel/pve-root-ca.pem".into(),
            fingerprints: Vec::new(),
            timeout_secs: 10,
            poll_interval_secs: 15,
            max_answer_mib: 16,
        }
    }
}

impl Validate for PveConfig {
    fn validate(&self) -> Result<(), Vec<Violation>> {
        let violations: Vec<_> = self.endpoints.iter().filter_map(|text| base_url(text).err()).collect();
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }
}

impl PveConfig {
    /// Time between two inventories.
    #[must_use]
    pub fn poll_interval(&self) -> Duration {
        Duration::from_secs(self.poll_interval_secs.into())
    }

    /// The endpoints as base addresses.
    pub(super) fn base_urls(&self) -> Result<Vec<Url>, PveError> {
        let urls: Result<Vec<Url>, Violation> = self.endpoints.iter().map(|text| base_url(text)).collect();
        let problem =
            |Violation { given, allowed, .. }| format!("{given} does not serve, expected {allowed}");
        match urls.map_err(problem) {
            Ok(urls) if urls.is_empty() => Err(PveError::Config {
                option: "endpoints",
                problem: "empty, expected at least one node".into(),
            }),
            Ok(urls) => Ok(urls),
            Err(problem) => Err(PveError::Config { option: "endpoints", problem }),
        }
    }
}

fn base_url(text: &str) -> Result<Url, Violation> {
    // What may be a password is not shown: this text reaches logs.
    let given = if text.contains('@') { "an address with user name" } else { text };
    let expected = |why: &str| Violation::new("endpoints", given, format!("`https://NODE:8006`{why}"));
    let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let mut url = Url::parse(&full).map_err(|error| expected(&format!(" ({error})")))?;
    if url.scheme() != "https" {
        return Err(expected(": a token must not travel in the clear"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(expected(": the token belongs into `token_file`"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(expected(", host and port only"));
    }
    let names_default_port = full.trim_end_matches('/').ends_with(":443");
    if url.port().is_none() && !names_default_port {
        url.set_port(Some(8006)).map_err(|()| expected(""))?;
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::config::{assert_documented, parse_valid};

    #[test]
    fn every_option_has_a_sentence_and_a_default() {
        assert_documented::<PveConfig>();
    }

    #[test]
    fn endpoints_are_completed() {
        for (text, expected) in [
            ("pve1", "https://pve1:8006/"),
            ("pve1.lan:8443", "https://pve1.lan:8443/"),
            ("https://10.0.0.1", "https://10.0.0.1:8006/"),
            ("https://pve.example.org:443", "https://pve.example.org/"),
            ("[fd00::1]:8006", "https://[fd00::1]:8006/"),
        ] {
            assert_eq!(base_url(text).unwrap().as_str(), expected);
        }
    }

    #[test]
    fn bad_values_name_the_option_and_show_no_password() {
        for bad in
            ["http://pve1:8006", "https://root:hunter2@pve1", "https://pve1/api2", "", "pve 1", "pve1?x=1"]
        {
            let config = PveConfig { endpoints: vec!["pve0".into(), bad.into()], ..PveConfig::default() };
            let error = config.base_urls().unwrap_err().to_string();
            assert!(error.contains("endpoints") && error.contains("https://NODE:8006"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
            assert_eq!(config.validate().unwrap_err().len(), 1);
        }
        for (text, named) in [
            ("timeout_secs = 0", "timeout_secs"),
            ("fingerprints = [\"AB:CD\"]", "fingerprint"),
            ("endpoint = []", "endpoints"),
        ] {
            let error = parse_valid::<PveConfig>(text, "aggregator.toml").unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
        PveConfig::default().validate().unwrap();
    }
}
