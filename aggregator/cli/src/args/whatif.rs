//! What can be typed after `whatif`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use evenkeel_common::id::NodeId;
use evenkeel_common::units::Bytes;

use super::span;

/// A question that changes nothing.
#[derive(Debug, Subcommand)]
pub enum WhatifCommand {
    /// How the cluster would be put in order now: every move in order, how long it takes, the nodes before and after,
    /// and why nothing else moves
    #[command(after_help = BALANCE_HELP)]
    Balance {
        /// Plan containers wherever that helps; without: where tag evenkeel-restart-ok lets them restart
        #[arg(long)]
        restarts: bool,
    },
    /// Whether a node can be emptied: where each guest would go, how long it takes, and what keeps those that
    /// can not leave; fails when one can not
    Drain {
        /// The node
        node: NodeId,
        /// Propose its moves, each to be approved: `evenkeelctl approve --all-from NODE`
        #[arg(long)]
        propose: bool,
    },
    /// The best node for a new guest, for scripts and provisioning tools; fails when it fits nowhere
    #[command(after_help = PLACE_HELP)]
    Place(PlaceArgs),
    /// What a policy would have done with the history there is, and what it would have gained
    #[command(after_help = REPLAY_HELP)]
    Replay(PolicyArgs),
}

const BALANCE_HELP: &str = "\
The whole plan at once, for a person who makes the moves: no limit per run or day, and whatever mode the policy has. A
calm cluster has none. It fails where the data do not allow a plan.

  evenkeelctl whatif balance --output json | jq -r '.moves[] | [.guest, .source, .target] | @tsv'";

const PLACE_HELP: &str = "\
What a guest that does not exist yet will need nobody knows: memory counts in full, CPU as half of its vCPUs unless
--cpu-load says otherwise.

  NODE=$(evenkeelctl whatif place --vcpus 4 --memory 16 --output json | jq -r .best)";

const REPLAY_HELP: &str = "\
Without --policy and --preset: the policy the cluster has. A policy file holds the options that stand under
[clusters.policy] in aggregator.toml, without that line:
  preset = \"standard\"
  cpu_threshold = 75";

/// The new guest.
#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// CPUs it will see
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=8192))]
    pub vcpus: u32,
    /// Memory it will have: GiB, or with a unit as in 512M, 16G, 1T
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub memory: Bytes,
    /// Storage its disks will lie on
    #[arg(long, value_name = "STORAGE")]
    pub disk_storage: Option<String>,
    /// Tags it will have: pins and affinity groups count
    #[arg(long, value_name = "TAG,..", value_delimiter = ',')]
    pub tags: Vec<String>,
    /// CPU it is expected to use, in cores [default: half of its vCPUs]
    #[arg(long, value_name = "CORES")]
    pub cpu_load: Option<f64>,
}

/// Which policy, on how much history.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// How far back, like 24h or 7d [default: 7d]
    #[arg(long, value_parser = span, value_name = "SPAN")]
    pub since: Option<Duration>,
    /// A policy of your own
    #[arg(long, value_name = "FILE", conflicts_with = "preset")]
    pub policy: Option<PathBuf>,
    /// The cluster's policy with this preset
    #[arg(long, value_enum)]
    pub preset: Option<PresetName>,
}

/// A preset of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PresetName {
    /// Every rule
    Full,
    /// Without trend, pattern and seasonal baseline
    Standard,
    /// Safety rules and persistence
    Basic,
    /// Safety rules only
    Off,
}

impl PresetName {
    /// As the configuration spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Standard => "standard",
            Self::Basic => "basic",
            Self::Off => "off",
        }
    }
}

/// A size of memory: GiB without a unit.
fn memory(text: &str) -> Result<Bytes, String> {
    let wrong = || format!("{text:?} is no size of memory; write 16, 16G, 512M or 1T");
    let (number, unit) = match text.char_indices().last() {
        Some((end, 'M' | 'm')) => (&text[..end], 20),
        Some((end, 'G' | 'g')) => (&text[..end], 30),
        Some((end, 'T' | 't')) => (&text[..end], 40),
        _ => (text, 30),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = number * f64::from(unit).exp2();
    if (1.0..=1e15).contains(&bytes) { Ok(Bytes(bytes as u64)) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [("16", Bytes::gib(16)), ("16G", Bytes::gib(16)), ("512M", Bytes::mib(512))] {
            assert_eq!(memory(text), Ok(bytes), "{text}");
        }
        assert_eq!((memory("0.5g"), memory("1T")), (Ok(Bytes::mib(512)), Ok(Bytes::gib(1024))));
        for bad in ["", "G", "-1", "0", "NaN", "inf", "16GB", "1e30", "ten", "16 G", "16µ"] {
            assert!(memory(bad).is_err_and(|told| told.contains("512M")), "{bad}");
        }
    }
}
