//! The command line: what can be typed, and what it says about itself.

pub mod history;
pub mod moves;
pub mod whatif;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use evenkeel_common::id::{ClusterId, DecisionId, NodeId, Vmid};

use crate::render::tone::ACTIONS;

const AFTER_HELP: &str = "\
Configuration: the first of --config FILE, $EVENKEEL_CONFIG, ~/.config/evenkeel/ctl.toml, /etc/evenkeel/ctl.toml:
  endpoint = \"https://127.0.0.1:7443\"   # the aggregator
  ca_file = \"ca.pem\"                    # its CA; paths are relative to this file
  token_file = \"token\"                  # who you are
  server_name = \"aggregator.example\"    # optional: the name in its certificate

Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 not reachable, 4 not allowed, 130 interrupted.";

/// Asks the aggregator of evenkeel, explains its decisions, approves, pauses and resumes them.
#[derive(Debug, Parser)]
#[command(name = "evenkeelctl", version, after_help = AFTER_HELP, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    /// The ctl.toml to use
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to print: tables for people, or JSON objects (a field without data is null; --watch prints one
    /// object a line)
    #[arg(long, global = true, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    pub output: Output,
    /// Address of the aggregator, instead of the one in ctl.toml
    #[arg(long, global = true, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Only this cluster
    #[arg(long, global = true)]
    pub cluster: Option<ClusterId>,
    /// Show times in UTC instead of this machine's time zone
    #[arg(long, global = true)]
    pub utc: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// How the aggregator and its clusters are
    Status,
    /// The nodes with load, score and how fresh their data is
    Nodes {
        /// Everything about this one node
        node: Option<NodeId>,
    },
    /// The guests with where they run and what they use
    Guests {
        /// Everything about this one guest
        #[arg(value_parser = vmid)]
        vmid: Option<Vmid>,
        /// Only guests on this node
        #[arg(long)]
        node: Option<NodeId>,
    },
    /// How guests usually behave
    Profiles {
        /// Everything about this one guest
        #[arg(value_parser = vmid)]
        vmid: Option<Vmid>,
    },
    /// Series that are, or were, not themselves
    Anomalies(AnomaliesArgs),
    /// How healthy nodes and guests are, 0 to 100, higher = healthier, and what the missing points are for
    Scores(ScoresArgs),
    /// What will be full or over its threshold, and when
    Forecast {
        /// Only of this node
        #[arg(long)]
        node: Option<NodeId>,
    },
    /// Tell whether an anomaly was real: adapts the detectors that saw it
    Feedback {
        /// The anomaly, as the last column of `anomalies` prints it
        anomaly: String,
        /// good = it was real, bad = a false alarm
        #[arg(value_enum)]
        verdict: Verdict,
        /// A word for those who read it later
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// What each detector found, and how often people called it a false alarm
    Detectors {
        /// How far back, like 24h or 7d [default: 30d]
        #[arg(long, value_parser = span, value_name = "SPAN")]
        since: Option<Duration>,
    },
    /// Train, choose and check the models of fleet detection
    Model {
        /// What.
        #[command(subcommand)]
        command: ModelCommand,
    },
    /// What the decision runs came to
    Decisions(DecisionsArgs),
    /// Why a guest moves or does not, as a text that can be forwarded; without an argument: the last run
    Explain(ExplainArgs),
    /// Decide a stored run again from its snapshot and compare; fails when the result differs
    Replay {
        /// A decision of the run, as `decisions` prints it; without: the last run of --cluster
        decision: Option<DecisionId>,
    },
    /// The migrations that evenkeel was to start: how far each is, its way, and what came of it
    Moves(moves::MovesArgs),
    /// Let proposed migrations be started; each is looked at once more on fresh data before it is
    #[command(after_help = moves::APPROVE_HELP)]
    Approve(moves::ApproveArgs),
    /// Say no to proposed migrations; their guests are left alone for an hour
    Reject(moves::RejectArgs),
    /// Go on after failures, or after a migration of which nobody knows what became of it
    #[command(after_help = moves::REARM_HELP)]
    Rearm {
        /// What was found, for those who read it later
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// Stop migrations from being started, in all clusters or in --cluster
    Pause {
        /// Why, for those who find it paused
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// Let migrations be started again
    Resume,
    /// Work with configuration files
    Config {
        /// What.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Write everything the aggregator keeps to a file, as newline-delimited JSON
    Export {
        /// Where to; - is standard output
        file: PathBuf,
        /// Replace the file when it exists
        #[arg(long)]
        force: bool,
    },
    /// Distort what a node reports, for a fault drill: to see whether the alarm reaches those it should
    Simulate {
        /// What.
        #[command(subcommand)]
        command: SimulateCommand,
    },
    /// What became of migrations: import what other tools wrote down, and see who fails, with what, and together
    History {
        /// What.
        #[command(subcommand)]
        command: history::HistoryCommand,
    },
    /// Ask what would be, or would have been; nothing is changed
    Whatif {
        /// What.
        #[command(subcommand)]
        command: whatif::WhatifCommand,
    },
    /// Score your own data with the shipped detector: any CSV file, here, without an aggregator
    #[command(after_help = DETECT_HELP)]
    Detect(DetectArgs),
    /// Print a completion script, for example: evenkeelctl completions bash > /etc/bash_completion.d/evenkeelctl
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write the pages of all commands into a directory
    Man {
        /// Where to write all pages
        dir: Option<PathBuf>,
    },
}

/// Which anomalies.
#[derive(Debug, Args)]
pub struct AnomaliesArgs {
    /// How far back, like 90s, 15m, 24h or 7d [default: 24h]
    #[arg(long, value_parser = span, value_name = "SPAN")]
    pub since: Option<Duration>,
    /// Only of this node
    #[arg(long)]
    pub node: Option<NodeId>,
    /// Only of this guest
    #[arg(long, value_parser = vmid, value_name = "VMID")]
    pub guest: Option<Vmid>,
    /// Only those still open
    #[arg(long)]
    pub open: bool,
    /// Print each as it opens or closes, until Ctrl-C; with --since, past ones first
    #[arg(long)]
    pub watch: bool,
}

/// Whose health.
#[derive(Debug, Args)]
pub struct ScoresArgs {
    /// Only this node and its guests
    #[arg(long)]
    pub node: Option<NodeId>,
    /// Only this guest
    #[arg(long, value_parser = vmid, value_name = "VMID")]
    pub guest: Option<Vmid>,
    /// With the course of the score over the last 24h, 7d or the like
    #[arg(long, value_parser = span, value_name = "SPAN")]
    pub history: Option<Duration>,
}

/// What an anomaly was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Verdict {
    /// Real.
    Good,
    /// A false alarm.
    Bad,
}

/// What to do with models.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Train on what the aggregator keeps, or on a file
    Train {
        /// From what the aggregator keeps; this is the default
        #[arg(long, conflicts_with = "csv")]
        from_store: bool,
        /// How far back, like 14d or 30d [default: 30d]
        #[arg(long, value_parser = span, value_name = "SPAN", conflicts_with = "csv")]
        since: Option<Duration>,
        /// A file: timestamp,bandwidth,latency,packet_loss,jitter,cpu_usage,memory_usage,error_rate
        #[arg(long, value_name = "FILE")]
        csv: Option<PathBuf>,
        /// Only for this node; without: for each node in turn, or with --csv for every node without a model of its own
        #[arg(long)]
        node: Option<NodeId>,
        /// Use the new model at once
        #[arg(long)]
        activate: bool,
    },
    /// All models, with which are in use and whether their files are sound
    List,
    /// Use this model
    Activate {
        /// As `model list` prints it
        id: String,
    },
    /// Go back to the model that was in use before
    Rollback {
        /// Of this node; without: of the whole cluster
        #[arg(long)]
        node: Option<NodeId>,
    },
    /// How far the last day is from what the models in use were trained on
    Drift,
}

/// Which decisions.
#[derive(Debug, Args)]
pub struct DecisionsArgs {
    /// How far back, like 90s, 15m, 24h or 7d [default: 1h]
    #[arg(long, value_parser = span, value_name = "SPAN")]
    pub since: Option<Duration>,
    /// Only about this guest
    #[arg(long, value_parser = vmid, value_name = "VMID")]
    pub guest: Option<Vmid>,
    /// Only those that came to this
    #[arg(long, value_parser = PossibleValuesParser::new(ACTIONS.map(|(name, _)| name)))]
    pub action: Option<String>,
    /// Print each as it is made, until Ctrl-C; with --since, past ones first
    #[arg(long)]
    pub watch: bool,
}

/// What to explain: at most one.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct ExplainArgs {
    /// A decision, as `decisions` prints it
    pub decision: Option<DecisionId>,
    /// The last decision about this guest, or why there is none
    #[arg(long, value_parser = vmid, value_name = "VMID")]
    pub guest: Option<Vmid>,
    /// Why guests stay on or leave this node
    #[arg(long)]
    pub node: Option<NodeId>,
}

const DETECT_HELP: &str = "\
The first line names the columns. One named timestamp, time, datetime, date or ts holds the time of each row: as
2026-11-21 14:00:00, in RFC 3339, or as seconds or milliseconds since 1970. All others are values; empty cells and
NaN are missing values. Columns named label, anomaly_score, is_anomaly and causes are never judged.

Each row is judged by the rows before it. Added to it are anomaly_score (0 to 1), is_anomaly (0 or 1) and, on
anomalous rows, causes: column:deviation in sigma, the largest share first.

  evenkeelctl detect cpu.csv --out scored.csv
  evenkeelctl detect today.csv --train lastweek.csv --step 60 --out scored.csv";

/// What to score.
#[derive(Debug, Args)]
pub struct DetectArgs {
    /// The data; - is standard input
    pub file: PathBuf,
    /// Data taken for normal, with the same columns, to learn from first
    #[arg(long, value_name = "FILE")]
    pub train: Option<PathBuf>,
    /// Where the scored rows go, replacing what is there; without: standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Seconds between rows, where no column tells the time [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub step: Option<Duration>,
    /// The column that tells the time, where it has another name
    #[arg(long, value_name = "COLUMN")]
    pub time_column: Option<String>,
    /// A column that is not to be judged; may be repeated
    #[arg(long, value_name = "COLUMN")]
    pub ignore: Vec<String>,
    /// What separates the cells
    #[arg(long, value_name = "CHARACTER", default_value_t = ',')]
    pub delimiter: char,
}

/// What to do with a configuration file.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a ctl.toml and the files it names, without calling the aggregator
    Check {
        /// The file; without: the one that would be used
        file: Option<PathBuf>,
        /// Whose file it is, where its name and keys do not tell
        #[arg(long, value_enum)]
        kind: Option<ConfigKind>,
    },
}

/// A fault drill. Its data are marked everywhere and never reach a migration decision.
#[derive(Debug, Subcommand)]
pub enum SimulateCommand {
    /// More latency to its peers and of its disks: milliseconds
    Delay(DrillArgs),
    /// More errors and drops on its NICs: events a second, and as many points of probe loss
    Error(DrillArgs),
    /// More CPU in use: points of the node, or cores of a guest
    Cpu(DrillArgs),
    /// More memory in use: points of the node, or GiB of a guest
    Memory(DrillArgs),
    /// End drills before their time: all of them, or those of a node
    Clear {
        /// Only on this node
        #[arg(long)]
        node: Option<NodeId>,
    },
    /// The drills of the last hour, and what their agents say
    Status,
}

/// Where, how much and how long.
#[derive(Debug, Args)]
pub struct DrillArgs {
    /// The node
    #[arg(long)]
    pub node: NodeId,
    /// One of its guests instead of the node itself; cpu and memory only
    #[arg(long, value_parser = vmid, value_name = "VMID")]
    pub guest: Option<Vmid>,
    /// How much more
    #[arg(long, value_name = "NUMBER")]
    pub amount: f64,
    /// How long, up to an hour [default: 10m]
    #[arg(long = "for", value_parser = span, value_name = "SPAN")]
    pub lasts: Option<Duration>,
}

/// Whose configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConfigKind {
    /// ctl.toml, of evenkeelctl
    Ctl,
    /// agent.toml, of evenkeel-agent
    Agent,
    /// aggregator.toml, of evenkeel-aggregator
    Aggregator,
}

fn vmid(text: &str) -> Result<Vmid, String> {
    let number: u32 = text
        .parse()
        .map_err(|_| "a vmid is a number from 100 to 999999999, as in `evenkeelctl guests`".to_owned())?;
    Vmid::new(number).map_err(|error| error.to_string())
}

/// Longest span taken, in seconds: ten years.
const LONGEST_SPAN_S: u64 = 10 * 365 * 86_400;

/// A span of time as people write it: a whole number and one of s, m, h, d.
fn span(text: &str) -> Result<Duration, String> {
    let unit = text.chars().last().filter(char::is_ascii_alphabetic);
    let seconds = match unit {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        Some(other) => return Err(format!("there is no unit {other:?}; write 90s, 15m, 24h or 7d")),
        None => return Err("the unit is missing; write 90s, 15m, 24h or 7d".to_owned()),
    };
    let number = text.get(..text.len() - 1).unwrap_or_default();
    let count: u64 = number
        .parse()
        .map_err(|_| format!("{number:?} is not a whole number above zero; write 90s, 15m, 24h or 7d"))?;
    match count.checked_mul(seconds) {
        Some(total @ 1..=LONGEST_SPAN_S) => Ok(Duration::from_secs(total)),
        Some(0) => Err("a span of zero holds nothing; write 90s, 15m, 24h or 7d".to_owned()),
        _ => Err("longer than ten years; write 90s, 15m, 24h or 7d".to_owned()),
    }
}

/// A step in seconds, also a broken number: a millisecond to a day.
fn seconds(text: &str) -> Result<Duration, String> {
    let step: f64 = text.parse().map_err(|_| "a step is a number of seconds, like 60".to_owned())?;
    if (0.001..=86_400.0).contains(&step) {
        Ok(Duration::from_secs_f64(step))
    } else {
        Err("a step lies between 0.001 and 86400 seconds".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in
            ["", "h", "24", "24 h", "-1h", "1.5h", "0s", "1w", "1H", "99999999999999d", "4000d", "3µ", "é"]
        {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
