//! Limits and times of what agents may send.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How data of agents is taken in.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IngestConfig {
    /// Most series of one agent. 100 to 200000. A node with 50 guests has about 700; beyond the limit the agent is
    /// refused and says so.
    #[schemars(range(min = 100, max = 200_000))]
    pub max_series_per_agent: u32,
    /// Largest message of an agent in KiB, after decompression too. 64 to 65536.
    #[schemars(range(min = 64, max = 65_536))]
    pub max_message_kib: u32,
    /// Ticks of backfill an agent may have unacknowledged in flight. 60 to 3600. Higher catches up faster after an
    /// outage and takes more memory per agent meanwhile.
    #[schemars(range(min = 60, max = 3_600))]
    pub backfill_credit: u32,
    /// Seconds of samples that are stored, and acknowledged, together. 1 to 300. A power cut costs nothing either
    /// way, since agents keep what is not acknowledged; lower means more and smaller writes.
    #[schemars(range(min = 1, max = 300))]
    pub block_secs: u32,
    /// Milliseconds that acknowledgements of events wait for company, so that one fsync serves many. 5 to 200.
    #[schemars(range(min = 5, max = 200))]
    pub commit_ms: u32,
    /// Seconds without a sample after which a node counts as silent and takes no part in decisions. 5 to 300.
    #[schemars(range(min = 5, max = 300))]
    pub stale_after_secs: u32,
    /// Milliseconds by which an agent's clock may differ from the aggregator's before the node is barred from
    /// decisions. 100 to 60000.
    #[schemars(range(min = 100, max = 60_000))]
    pub max_skew_ms: u32,
    /// Seconds for which a node that disconnected is still probed by its peers, so that its loss is seen. 1 to 86400.
    #[schemars(range(min = 1, max = 86_400))]
    pub probe_linger_secs: u32,
    /// Most agents connected at once. 1 to 10000.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_streams: u32,
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            max_series_per_agent: 20_000,
            max_message_kib: 4_096,
            backfill_credit: 600,
            block_secs: 60,
            commit_ms: 50,
            stale_after_secs: 15,
            max_skew_ms: 2_000,
            probe_linger_secs: 300,
            max_streams: 2_000,
        }
    }
}

impl IngestConfig {
    /// Age of the newest sample at which a node counts as silent.
    #[must_use]
    pub fn stale_after(&self) -> Duration {
        Duration::from_secs(self.stale_after_secs.into())
    }
}
