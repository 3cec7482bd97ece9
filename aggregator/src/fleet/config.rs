//! Options of fleet detection.

use std::time::Duration;

use evenkeel_detect::ensemble::EnsembleConfig;
use evenkeel_detect::peers::PeersConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the aggregator itself finds, beyond what agents tell.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FleetConfig {
    /// Seconds without a sample after which silence is an anomaly. 5 to 3600. Below the time that agents need to connect
    /// again after a short cut, every cut is an anomaly.
    #[schemars(range(min = 5, max = 3600))]
    pub silence_after_secs: u32,
    /// Seconds that nodes have to come back after the aggregator has started before their silence counts. 0 to 3600.
    /// Agents wait up to 60 s between two attempts.
    #[schemars(range(min = 0, max = 3600))]
    pub startup_grace_secs: u32,
    /// Seconds of data behind one stored mean, from which trends and hourly baselines are made. 60 to 3600. Shorter sees
    /// trends sooner and takes more of the store.
    #[schemars(range(min = 60, max = 3600))]
    pub rollup_secs: u32,
    /// Hours ahead within which something that reaches its limit is a warning. 1 to 720.
    #[schemars(range(min = 1, max = 720))]
    pub forecast_warn_hours: u32,
    /// Days after which the models of a node are trained anew on the last 30 days. 0 to 365; 0 = only when a person asks.
    /// A training takes minutes of one CPU, one node at a time, and half of that CPU at most.
    #[schemars(range(min = 0, max = 365))]
    pub retrain_days: u32,
    /// How often nodes are looked at, and the ensemble that judges their seven metrics together.
    pub ensemble: EnsembleConfig,
    /// Nodes that behave unlike the other nodes of their cluster.
    pub peers: PeersConfig,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self {
            silence_after_secs: 20,
            startup_grace_secs: 90,
            rollup_secs: 300,
            forecast_warn_hours: 24,
            retrain_days: 30,
            ensemble: EnsembleConfig::default(),
            peers: PeersConfig::default(),
        }
    }
}

impl FleetConfig {
    /// Time between two looks.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.ensemble.check_interval_s.into())
    }

    /// Silence from which on it counts.
    #[must_use]
    pub fn silence_after(&self) -> Duration {
        Duration::from_secs(self.silence_after_secs.into())
    }

    /// Length of a roll-up.
    #[must_use]
    pub fn rollup(&self) -> Duration {
        Duration::from_secs(self.rollup_secs.into())
    }
}
