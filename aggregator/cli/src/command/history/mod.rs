//! `history`: what became of migrations. Imports files, and shows who fails, with what, and together.

mod correlate;
mod failures;
mod heatmap;
mod import;
mod report;
mod score;
mod summary;

use evenkeel_proto::v1::HistoryScope;

use super::{Context, millis};
use crate::args::history::{HistoryCommand, PartArgs, ScopeArgs};
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::tone::Tone;
use crate::render::{counted, span};

/// Does what was asked.
pub async fn run(context: &Context, command: HistoryCommand) -> Result<(), CliError> {
    match command {
        HistoryCommand::Import { file } => import::run(context, &file).await,
        HistoryCommand::Failures(args) => failures::run(context, args).await,
        HistoryCommand::Score(args) => score::run(context, args).await,
        HistoryCommand::Summary(args) => summary::run(context, args).await,
        HistoryCommand::Correlate(args) => correlate::run(context, args).await,
        HistoryCommand::Heatmap(args) => heatmap::run(context, args).await,
        HistoryCommand::Report { group } => report::run(context, group).await,
    }
}

/// The part of the history that the words name. Counts back from the aggregator's clock.
async fn part(context: &Context, args: PartArgs, top: Option<u32>) -> Result<Option<HistoryScope>, CliError> {
    let since_ms = match args.since {
        Some(since) => Some(context.client.status().await?.now_ms.saturating_sub(millis(since))),
        None => None,
    };
    let (cluster, group) = (context.cluster.clone(), args.group.unwrap_or_default());
    Ok(Some(HistoryScope { cluster, group, since_ms, top: top.unwrap_or_default() }))
}

async fn scope(context: &Context, args: ScopeArgs) -> Result<Option<HistoryScope>, CliError> {
    part(context, args.part, args.top).await
}

/// What to do where there is nothing to show.
const NOTHING: &str = "No migration is kept here. `evenkeelctl history import FILE` takes in what other tools wrote down; \
                       what Proxmox lists comes by itself.";

/// Says what a table does not show.
fn rest(page: &mut Page<'_>, others: u64, what: &str, left_out: u64) {
    if others > 0 {
        page.gap();
        page.line(Tone::Normal, &format!("{} more; --top NUMBER shows them.", counted(others, what)));
    }
    if left_out > 0 {
        page.line(
            Tone::Amber,
            &format!(
                "{} of further hosts left out: too many hosts for one look; narrow it with --group.",
                counted(left_out, "record")
            ),
        );
    }
}

/// A share, 0 to 1, in percent.
fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| crate::render::NO_DATA.to_owned(), |share| format!("{:.1} %", share * 100.0))
}

/// A length of time that came as milliseconds.
fn lasting(ms: u64) -> String {
    span(i64::try_from(ms).unwrap_or(i64::MAX))
}
