//! What the executor can be told.

use std::path::PathBuf;
use std::time::Duration;

use evenkeel_common::config::{Validate, Violation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How decided migrations are started, in modes approve and auto.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExecuteConfig {
    /// File with a second API token, one line `user@realm!tokenid=secret`, mode 0600, read anew before each start: to take
    /// it away is to stop evenkeel. It needs VM.Migrate on the guests that may move, and the audit privileges of
    /// `pve.token_file`; one that may do more is refused. Empty = evenkeel can start nothing.
    pub token_file: PathBuf,
    /// Minutes that an operator has to approve a move after the last run that wanted it, and within which an approved
    /// one has to be started.
    #[schemars(range(min = 1, max = 1440))]
    pub approval_minutes: u32,
    /// Seconds after its start in which the aggregator starts no migration, so that it first sees what goes on.
    #[schemars(range(min = 0, max = 3600))]
    pub quiet_start_secs: u32,
    /// Minutes that a node, or the cluster, rests after at least half of the last ten migrations (and at least three) from
    /// or to it failed. Then one is tried.
    #[schemars(range(min = 1, max = 1440))]
    pub breaker_minutes: u32,
}

impl Default for ExecuteConfig {
    fn default() -> Self {
        Self { token_file: PathBuf::new(), approval_minutes: 30, quiet_start_secs: 120, breaker_minutes: 60 }
    }
}

impl Validate for ExecuteConfig {
    fn validate(&self) -> Result<(), Vec<Violation>> {
        let numbers = [
            ("execute.approval_minutes", self.approval_minutes, 1, 1440),
            ("execute.quiet_start_secs", self.quiet_start_secs, 0, 3600),
            ("execute.breaker_minutes", self.breaker_minutes, 1, 1440),
        ];
        let outside = numbers.into_iter().filter(|(_, given, least, most)| !(least..=most).contains(&given));
        let wrong: Vec<_> = outside
            .map(|(name, given, least, most)| Violation::new(name, given, format!("{least} to {most}")))
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

impl ExecuteConfig {
    /// Time to approve, and to start.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_secs(60 * u64::from(self.approval_minutes))
    }

    /// Time without a start after the aggregator's own.
    #[must_use]
    pub fn quiet(&self) -> Duration {
        Duration::from_secs(self.quiet_start_secs.into())
    }

    /// Rest after failures.
    #[must_use]
    pub fn rest(&self) -> Duration {
        Duration::from_secs(60 * u64::from(self.breaker_minutes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::config::{assert_documented, parse_valid};

    #[test]
    fn every_option_has_a_sentence_a_default_and_a_range_that_is_checked() {
        assert_documented::<ExecuteConfig>();
        ExecuteConfig::default().validate().unwrap();
        for bad in
            ["approval_minutes = 0", "quiet_start_secs = 3601", "breaker_minutes = 1441", "token = \"x\""]
        {
            assert!(parse_valid::<ExecuteConfig>(bad, "aggregator.toml").is_err(), "{bad}");
        }
    }
}
