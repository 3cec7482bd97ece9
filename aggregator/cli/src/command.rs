//! The verbs, one file per noun: ask, then show as a table or as JSON.

mod anomalies;
mod config;
mod decisions;
mod detect;
mod explain;
mod export;
mod feedback;
mod forecast;
mod guests;
mod history;
mod model;
mod moves;
mod nodes;
mod pages;
mod profiles;
mod replay;
mod scores;
mod simulate;
mod status;
mod steer;
mod whatif;

use std::time::Duration;

use evenkeel_common::id::{NodeId, Vmid};
use serde::Serialize;

use crate::args::{Cli, Command, Output};
use crate::client::Client;
use crate::config::{find, load};
use crate::error::CliError;
use crate::render::{self, Screen, note};

/// What every verb that asks the aggregator gets.
pub struct Context {
    /// The connection.
    pub client: Client,
    /// Where the output goes.
    pub screen: Screen,
    /// Whether to print JSON.
    pub json: bool,
    /// The cluster asked about; empty = all.
    pub cluster: String,
}

impl Context {
    /// Prints the answer as JSON or as what `table` makes of it.
    ///
    /// # Errors
    /// When standard output can not be written.
    pub fn show<A: Serialize>(
        &self,
        answer: &A,
        table: impl FnOnce(&Screen) -> String,
    ) -> Result<(), CliError> {
        if self.json { print_json(answer) } else { render::print(&table(&self.screen)) }
    }
}

/// Does what the command line says.
///
/// # Errors
/// Whatever ends the process with another exit code than 0.
pub async fn run(cli: Cli) -> Result<(), CliError> {
    match &cli.command {
        Command::Completions { shell } => return pages::completions(*shell),
        Command::Man { dir } => return pages::man(dir.as_deref()),
        Command::Config { command } => return config::run(&cli, command),
        Command::Detect(args) => return detect::run(args, cli.output == Output::Json),
        _ => {}
    }
    let target = load(&find(cli.config.as_deref())?, cli.endpoint.as_deref())?;
    for warning in &target.warnings {
        note(&format!("evenkeelctl: warning: {warning}"));
    }
    let context = Context {
        client: Client::connect(target).await?,
        screen: Screen::detect(cli.utc),
        json: cli.output == Output::Json,
        cluster: cli.cluster.map(String::from).unwrap_or_default(),
    };
    match cli.command {
        Command::Status => status::run(&context).await,
        Command::Nodes { node } => nodes::run(&context, node).await,
        Command::Guests { vmid, node } => guests::run(&context, vmid, node).await,
        Command::Profiles { vmid } => profiles::run(&context, vmid).await,
        Command::Anomalies(args) => anomalies::run(context, args).await,
        Command::Scores(args) => scores::run(&context, args).await,
        Command::Forecast { node } => forecast::run(&context, node).await,
        Command::Feedback { anomaly, verdict, note } => {
            feedback::give(&context, anomaly, verdict, note).await
        }
        Command::Detectors { since } => feedback::detectors(&context, since).await,
        Command::Model { command } => model::run(&context, command).await,
        Command::Decisions(args) => decisions::run(context, args).await,
        Command::Explain(args) => explain::run(&context, args).await,
        Command::Replay { decision } => replay::run(&context, decision).await,
        Command::Moves(args) => moves::run(&context, args).await,
        Command::Approve(args) => steer::approve(&context, args).await,
        Command::Reject(args) => steer::reject(&context, args).await,
        Command::Rearm { why } => steer::rearm(&context, why).await,
        Command::Pause { why } => steer::pause(&context, why).await,
        Command::Resume => steer::resume(&context).await,
        Command::Simulate { command } => simulate::run(&context, command).await,
        Command::History { command } => history::run(&context, command).await,
        Command::Whatif { command } => whatif::run(&context, command).await,
        Command::Export { file, force } => export::run(&context, &file, force).await,
        Command::Completions { .. } | Command::Man { .. } | Command::Config { .. } | Command::Detect(_) => {
            Ok(())
        }
    }
}

/// Prints one object; a field without data is `null`, so that its keys do not come and go.
fn print_json<A: Serialize>(answer: &A) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(answer)
        .map_err(|error| CliError::Failed(format!("can not write JSON: {error}")))?;
    render::print(&format!("{text}\n"))
}

/// A span in milliseconds, as the protocol counts.
#[must_use]
pub fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// The number of a guest in a question; 0 = all.
fn vmid_or_all(vmid: Option<Vmid>) -> u32 {
    vmid.map_or(0, Vmid::get)
}

/// The name of a node in a question; empty = all.
fn node_or_all(node: Option<NodeId>) -> String {
    node.map(String::from).unwrap_or_default()
}

/// Whether an answer covers several clusters, so that each line must say which.
fn spans_clusters<'a>(mut clusters: impl Iterator<Item = &'a str>) -> bool {
    let first = clusters.next();
    clusters.any(|cluster| Some(cluster) != first)
}

/// A guest as people know it: its number, and its name where there is one.
fn guest_label(vmid: u32, name: &str) -> String {
    if name.is_empty() { vmid.to_string() } else { format!("{vmid} {name}") }
}

/// The text, or `-` where there is none.
fn or_dash(text: &str) -> String {
    if text.is_empty() { render::NO_DATA.to_owned() } else { text.to_owned() }
}
