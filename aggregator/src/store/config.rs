//! Options of the store.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::StoreError;

/// How much the store keeps, and what it may use for it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Memory for the store's page cache, in MiB. 8 to 65536; more makes scans of old data faster, less makes them
    /// read the disk.
    #[schemars(range(min = 8, max = 65536))]
    pub cache_mib: u32,
    /// Size of the ballast file in MiB: room that is given back when the disk is full, because the store can neither
    /// start nor delete without any. 0 to 4096; 0 = none, and a full disk then needs an admin before evenkeel starts.
    #[schemars(range(min = 0, max = 4096))]
    pub ballast_mib: u32,
    /// Days that samples are kept at full resolution. 1 to 3650; the largest part of the data: about 2 MB an hour
    /// for a node with 200 series.
    #[schemars(range(min = 1, max = 3650))]
    pub samples_days: u32,
    /// Days that events, anomalies and records of gaps are kept. 1 to 3650.
    #[schemars(range(min = 1, max = 3650))]
    pub events_days: u32,
    /// Days that decisions are kept, with the snapshots they were made from, so that they can be replayed. 1 to 3650.
    #[schemars(range(min = 1, max = 3650))]
    pub decisions_days: u32,
    /// Days that observed moves of guests are kept; filters learn from them. 7 to 3650.
    #[schemars(range(min = 7, max = 3650))]
    pub moves_days: u32,
    /// Days that migration records are kept, imported ones and those seen in Proxmox' task lists, and the scores archived
    /// from them. 30 to 3650.
    #[schemars(range(min = 30, max = 3650))]
    pub migrations_days: u32,
    /// Most migration records kept of a cluster; the oldest go first. 1000 to 5000000. A question about all of half a
    /// million takes a second or two, and they take some 150 MB of disk.
    #[schemars(range(min = 1000, max = 5_000_000))]
    pub migrations_max: u32,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            cache_mib: 64,
            ballast_mib: 32,
            samples_days: 30,
            events_days: 90,
            decisions_days: 90,
            moves_days: 365,
            migrations_days: 730,
            migrations_max: 500_000,
        }
    }
}

impl StoreConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`StoreError::Config`] naming the option.
    pub fn check(&self) -> Result<(), StoreError> {
        let ranges = [
            ("cache_mib", self.cache_mib, 8, 65536),
            ("ballast_mib", self.ballast_mib, 0, 4096),
            ("samples_days", self.samples_days, 1, 3650),
            ("events_days", self.events_days, 1, 3650),
            ("decisions_days", self.decisions_days, 1, 3650),
            ("moves_days", self.moves_days, 7, 3650),
            ("migrations_days", self.migrations_days, 30, 3650),
            ("migrations_max", self.migrations_max, 1000, 5_000_000),
        ];
        match ranges.into_iter().find(|(_, value, low, high)| !(low..=high).contains(&value)) {
            None => Ok(()),
            Some((option, value, low, high)) => {
                Err(StoreError::Config { option, value: value.into(), low: low.into(), high: high.into() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_a_sentence_a_default_and_a_range_that_is_checked() {
        let schema = serde_json::to_value(schemars::schema_for!(StoreConfig)).unwrap();
        for (name, option) in schema["properties"].as_object().unwrap() {
            assert!(option["description"].is_string() && !option["default"].is_null(), "{name}");
            let mut config = serde_json::to_value(StoreConfig::default()).unwrap();
            config[name] = (option["maximum"].as_u64().unwrap() + 1).into();
            let config: StoreConfig = serde_json::from_value(config).unwrap();
            let message = config.check().unwrap_err().to_string();
            assert!(message.starts_with(&format!("store.{name}: ")), "{message}");
        }
        StoreConfig::default().check().unwrap();
    }
}
