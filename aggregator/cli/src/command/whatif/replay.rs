//! `whatif replay`: what a policy would have done, and gained.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};

use evenkeel_proto::v1::{ReplayPolicyProgress, ReplayPolicyRequest, ReplayPolicyResult};
use evenkeel_runtime::files::read_text;
use tonic::Streaming;

use super::super::{Context, guest_label, millis};
use crate::args::whatif::PolicyArgs;
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Cell, Column, Table};
use crate::render::tone::Tone;
use crate::render::{Screen, count, counted, number, span};

/// How far back without `--since`.
const DEFAULT_SINCE: std::time::Duration = std::time::Duration::from_secs(7 * 86_400);
/// Largest policy file, in bytes.
const MAX_POLICY: u64 = 64 << 10;
/// Moves that a table shows; JSON has them all.
const SHOWN: usize = 40;

/// Asks, shows how far it is, and then the result.
pub async fn run(context: &Context, args: PolicyArgs) -> Result<(), CliError> {
    let policy_toml = match &args.policy {
        Some(path) => {
            let text = read_text(path, MAX_POLICY).map_err(|error| CliError::Usage(error.to_string()))?;
            // Nothing but comments is the default policy, which is not the cluster's.
            if text.trim().is_empty() { "# all defaults".to_owned() } else { text }
        }
        None => String::new(),
    };
    let now_ms = context.client.status().await?.now_ms;
    let since_ms = now_ms.saturating_sub(millis(args.since.unwrap_or(DEFAULT_SINCE)));
    let preset = args.preset.map(|preset| preset.name().to_owned()).unwrap_or_default();
    let question = ReplayPolicyRequest { cluster: context.cluster.clone(), since_ms, preset, policy_toml };
    let mut whatif = context.client.whatif();
    let steps = context.client.open(question, async |_, request| whatif.replay_policy(request).await).await?;
    let result = follow(context, steps).await?;
    if result.runs == 0 {
        return Err(CliError::Failed(format!(
            "no run of cluster {} is stored since {}; `evenkeelctl status` tells when the last one was",
            crate::render::plain(&result.cluster),
            context.screen.at(since_ms)
        )));
    }
    context.show(&result, |screen| page(screen, &result))
}

/// Waits for the result; where a person watches, a line says how far it is.
async fn follow(
    context: &Context,
    mut steps: Streaming<ReplayPolicyProgress>,
) -> Result<ReplayPolicyResult, CliError> {
    let watched = io::stderr().is_terminal();
    let result = loop {
        match steps.message().await {
            Ok(Some(ReplayPolicyProgress { result: Some(result), .. })) => break Ok(result),
            Ok(Some(step)) if watched => {
                let at = step.at_ms.map(|ms| context.screen.at(ms)).unwrap_or_default();
                _ = write!(io::stderr().lock(), "\rreplayed {} runs, to {at}   ", count(step.runs.into()));
            }
            Ok(Some(_)) => {}
            Ok(None) => {
                break Err(CliError::Failed("the replay ended without a result; try again".to_owned()));
            }
            Err(status) => break Err(context.client.explain(&status)),
        }
    };
    if watched {
        _ = writeln!(io::stderr().lock());
    }
    result
}

fn page(screen: &Screen, result: &ReplayPolicyResult) -> String {
    let mut page = Page::new(screen);
    let at = |ms: Option<i64>| screen.at(ms.unwrap_or(i64::MAX));
    let lead = format!(
        "Preset {} on cluster {}: {} over {} h of history would have made {}.",
        result.preset,
        result.cluster,
        counted(result.runs, "run"),
        number(result.hours, 1),
        counted(result.moved, "move")
    );
    page.line(Tone::Strong, &lead);
    page.line(Tone::Normal, &format!("From {} to {}.", at(result.from_ms), at(result.to_ms)));
    page.gap();
    page.inset(&gains(result));
    page.section("How it would have gone");
    page.fields(&[
        ("moves", format!("{} in {}", result.moved, span((result.move_minutes * 60_000.0) as i64))),
        ("back within 48 h", result.returns.to_string()),
        ("overtaken by events", format!("{} (really moved or gone afterwards)", result.overtaken)),
        ("decided nothing", words(&result.suppressed)),
        ("not moved", words(&result.actions)),
    ]);
    if !result.moves.is_empty() {
        page.section("Moves");
        page.table(&moves(screen, result));
        if result.moves.len() > SHOWN {
            let more = result.moved as usize - SHOWN;
            page.line(Tone::Normal, &format!("{more} more; --output json lists them."));
        }
    }
    page.gap();
    doubts(&mut page, result);
    page.line(Tone::Normal, &result.assumption);
    page.finish()
}

/// What the figures lack.
fn doubts(page: &mut Page<'_>, result: &ReplayPolicyResult) {
    if result.gaps > 0 {
        let gaps = counted(result.gaps, "gap");
        let hours = number(result.gap_hours, 1);
        page.line(Tone::Amber, &format!("The history has {gaps} of {hours} h together, which do not count."));
    }
    if result.unreliable > 0 {
        let runs = counted(result.unreliable, "run");
        page.line(
            Tone::Amber,
            &format!("{runs} had data that could not be relied on and are in neither column."),
        );
    }
    if result.unreadable > 0 {
        let runs = counted(result.unreadable, "stored run");
        page.line(Tone::Amber, &format!("{runs} can not be read by this version and are left out."));
    }
    if result.truncated {
        page.line(
            Tone::Amber,
            "There is more history than one replay takes: it ends early. Ask with a shorter --since.",
        );
    }
}

fn gains(result: &ReplayPolicyResult) -> Table {
    let (was, would) = (result.was.unwrap_or_default(), result.would.unwrap_or_default());
    let mut table =
        Table::new([Column::text(""), Column::number("AS IT WAS"), Column::number("WITH THE POLICY")]);
    for (label, was, would, decimals) in [
        ("cluster score, mean", was.mean_score, would.mean_score, 2),
        ("cluster score, peak", was.peak_score, would.peak_score, 2),
        ("node-hours over a threshold", was.node_hours_over, would.node_hours_over, 1),
    ] {
        let tone = if would < was { Tone::Green } else { Tone::Normal };
        table.row([label.into(), number(was, decimals).into(), Cell::toned(number(would, decimals), tone)]);
    }
    table
}

fn moves(screen: &Screen, result: &ReplayPolicyResult) -> Table {
    let mut table = Table::new([
        Column::text("WHEN"),
        Column::name("GUEST"),
        Column::text("MOVE"),
        Column::number("GAIN").rank(1),
        Column::number("MINUTES").rank(2),
    ]);
    for one in result.moves.iter().take(SHOWN) {
        table.row([
            screen.at(one.at_ms).into(),
            guest_label(one.guest, &one.guest_name).into(),
            format!("{} -> {}", one.source, one.target).into(),
            number(one.improvement, 1).into(),
            Cell::from(number(one.minutes, 1)),
        ]);
    }
    table
}

/// "3 converged, 1 paused"; the most frequent first.
fn words(counts: &BTreeMap<String, u32>) -> String {
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let told: Vec<String> =
        sorted.iter().map(|(word, n)| format!("{} {word}", count((**n).into()))).collect();
    if told.is_empty() { "never".to_owned() } else { told.join(", ") }
}
