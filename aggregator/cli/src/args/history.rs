//! What can be typed after `history`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::span;

const IMPORT_HELP: &str = "\
A file holds a JSON array of records, a single one, or one a line:
  {\"host\":\"prod-web-07\",\"timestamp\":\"2025-01-02T14:23:11Z\",\"outcome\":\"failure\",
   \"error_code\":\"kernel_panic\",\"duration_sec\":1847,\"retries\":3}
host, timestamp (RFC 3339) and outcome (success or failure) are needed. What is no record is skipped, counted and told
with its line. To import a file again, or one that overlaps, doubles nothing.

  zcat history.json.gz | evenkeelctl --cluster lab history import -";

/// What became of migrations.
#[derive(Debug, Subcommand)]
pub enum HistoryCommand {
    /// Take in what other tools wrote down: a file of any size
    #[command(after_help = IMPORT_HELP)]
    Import {
        /// The file; - is standard input
        file: PathBuf,
    },
    /// Hosts that failed more than once: how often, how soon again, and with what
    Failures(ScopeArgs),
    /// How anomalous each host's migrations are, 0 to 100, higher = worse, and whom that calls
    Score(ScoreArgs),
    /// All of it: totals, who fails most, and with what
    Summary(ScopeArgs),
    /// Hosts that fail together with the same error, beyond chance
    Correlate(CorrelateArgs),
    /// Hosts over time, as marks; the worst first
    Heatmap(HeatmapArgs),
    /// The last seven days against the seven before: new offenders, recovered hosts, clusters
    Report {
        /// Only hosts like this, as in prod-web-*
        #[arg(long, value_name = "PATTERN")]
        group: Option<String>,
    },
}

/// Which part of the history.
#[derive(Debug, Default, Args)]
pub struct PartArgs {
    /// Only hosts like this, as in 'prod-web-*'
    #[arg(long, value_name = "PATTERN")]
    pub group: Option<String>,
    /// How far back, like 24h or 90d [default: all that is kept]
    #[arg(long, value_parser = span, value_name = "SPAN")]
    pub since: Option<Duration>,
}

/// Which part, and how much of it.
#[derive(Debug, Default, Args)]
pub struct ScopeArgs {
    /// Which part.
    #[command(flatten)]
    pub part: PartArgs,
    /// So many hosts [default: 20]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub top: Option<u32>,
}

/// Whose score.
#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// Only this host; as JSON, its score object alone
    pub host: Option<String>,
    /// Which hosts.
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// With the course of the score, as it was archived day by day
    #[arg(long)]
    pub history: bool,
}

/// What to compare.
#[derive(Debug, Args)]
pub struct CorrelateArgs {
    /// Which part.
    #[command(flatten)]
    pub part: PartArgs,
    /// How far apart two failures may be to count as together: windows like 1h, 1d or 7d [default: 1d]
    #[arg(long, value_parser = span, value_name = "SPAN")]
    pub window: Option<Duration>,
    /// With the coefficient of each host with each
    #[arg(long)]
    pub matrix: bool,
}

/// Which map.
#[derive(Debug, Args)]
pub struct HeatmapArgs {
    /// Which hosts. Without --since: the columns up to the last migration.
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// What a column is
    #[arg(long, value_enum, default_value_t = ColumnOf::Day)]
    pub by: ColumnOf,
    /// So many columns, without --since [default: 14 days or 24 hours]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=400), conflicts_with = "since")]
    pub columns: Option<u32>,
}

/// What a column of the heatmap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColumnOf {
    /// An hour
    Hour,
    /// A day, in UTC
    Day,
}
