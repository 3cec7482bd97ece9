//! What can be typed about migrations that evenkeel starts.

use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Args};
use evenkeel_common::id::{DecisionId, NodeId, Vmid};

use super::{span, vmid};

/// The states of a migration.
const STATES: [&str; 11] = [
    "proposed",
    "approved",
    "prepared",
    "submitting",
    "submitted",
    "running",
    "verifying",
    "done",
    "failed",
    "aborted",
    "unknown",
];

pub const APPROVE_HELP: &str = "\
A proposal can be approved until execute.approval_minutes after the last run that wanted it, and what was approved has
as long to be started. The node's guests leave one after the other.

  evenkeelctl decisions --action awaiting_approval
  evenkeelctl approve lab-1767600180-1
  evenkeelctl whatif drain pve3 --propose && evenkeelctl approve --all-from pve3";

pub const REARM_HELP: &str = "\
Breakers begin a new count, and a migration of which it was unknown what became of it no longer stops the others. Look
at the guest first: `evenkeelctl moves --state unknown` tells which, and what was seen.";

/// Which migrations.
#[derive(Debug, Args)]
pub struct MovesArgs {
    /// Everything about this one, by its decision
    pub decision: Option<DecisionId>,
    /// How far back, like 90s, 15m, 24h or 7d [default: 24h]
    #[arg(long, value_parser = span, value_name = "SPAN")]
    pub since: Option<Duration>,
    /// Only of this guest
    #[arg(long, value_parser = vmid, value_name = "VMID")]
    pub guest: Option<Vmid>,
    /// Only from or to this node
    #[arg(long)]
    pub node: Option<NodeId>,
    /// Only those in this state
    #[arg(long, value_parser = PossibleValuesParser::new(STATES))]
    pub state: Option<String>,
    /// Only those that are not over, however old
    #[arg(long, conflicts_with = "since")]
    pub open: bool,
}

/// What to approve.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(false))]
pub struct ApproveArgs {
    /// Decisions, as `decisions` and `moves` print them
    #[arg(group = "which", value_name = "DECISION")]
    pub decisions: Vec<DecisionId>,
    /// All proposals that leave this node
    #[arg(long, group = "which", value_name = "NODE")]
    pub all_from: Option<NodeId>,
}

/// What to reject, and why.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(false))]
pub struct RejectArgs {
    /// Decisions, as `decisions` and `moves` print them
    #[arg(group = "which", value_name = "DECISION")]
    pub decisions: Vec<DecisionId>,
    /// All proposals that leave this node
    #[arg(long, group = "which", value_name = "NODE")]
    pub all_from: Option<NodeId>,
    /// Why, for those who read it later
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
}
