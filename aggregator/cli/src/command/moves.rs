//! `moves`: what evenkeel was to start, how far each is, and what came of it.

use std::time::Duration;

use evenkeel_proto::v1::{ListMovesRequest, MoveCheck, MoveView};

use super::{Context, guest_label, millis, node_or_all, or_dash, spans_clusters, vmid_or_all};
use crate::args::moves::MovesArgs;
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Cell, Column, Table};
use crate::render::tone::{Tone, of_word};
use crate::render::{Screen, ago, number, span, with_unit};

/// How far back without `--since`.
const DEFAULT_SINCE: Duration = Duration::from_secs(24 * 3600);

/// Asks and shows.
pub async fn run(context: &Context, args: MovesArgs) -> Result<(), CliError> {
    let now_ms = context.client.status().await?.now_ms;
    let since = args.since.unwrap_or(DEFAULT_SINCE);
    let one = args.decision.is_some();
    let question = ListMovesRequest {
        cluster: context.cluster.clone(),
        decision: args.decision.map(String::from).unwrap_or_default(),
        vmid: vmid_or_all(args.guest),
        node: node_or_all(args.node),
        state: args.state.unwrap_or_default(),
        since_ms: (!args.open).then(|| now_ms.saturating_sub(millis(since))),
        open_only: args.open,
        limit: 0,
    };
    let mut execution = context.client.execution();
    let answer = context.client.ask(question, async |_, request| execution.list_moves(request).await).await?;
    context.show(&answer, |screen| {
        let mut page = Page::new(screen);
        match answer.moves.as_slice() {
            [only] if one => full(&mut page, screen, only, now_ms),
            [] => {
                let when =
                    if args.open { "now".to_owned() } else { format!("in the last {}", span(millis(since))) };
                let line = format!("No migrations {when}; `evenkeelctl explain` says why nothing moves.");
                page.line(Tone::Normal, &line);
            }
            several => page.table(&table(several, now_ms)),
        }
        if answer.truncated {
            page.line(Tone::Amber, "There are more: narrow the question with --since, --guest or --node.");
        }
        page.finish()
    })
}

/// The newest at the end, as in a log.
pub fn table(moves: &[MoveView], now_ms: i64) -> Table {
    let several = spans_clusters(moves.iter().map(|m| m.cluster.as_str()));
    let mut table = Table::new([
        Column::text("ID").rank(1),
        Column::number("WHEN"),
        Column::text("CLUSTER").only_if(several).rank(5),
        Column::name("GUEST"),
        Column::text("MOVE"),
        Column::text("STATE"),
        Column::number("TOOK").rank(3),
        Column::text("APPROVED BY").rank(4),
        Column::remark("WHAT HAPPENED"),
    ]);
    for moved in moves {
        let at = moved.timeline.last().map_or(0, |step| step.at_ms);
        table.row([
            moved.id.as_str().into(),
            ago(at, now_ms).into(),
            moved.cluster.as_str().into(),
            guest_label(moved.guest, &moved.guest_name).into(),
            format!("{} -> {}", or_dash(&moved.source), or_dash(&moved.target)).into(),
            Cell::toned(moved.state.clone(), tone_of(&moved.state)),
            moved.took_minutes.map_or_else(|| or_dash(""), |minutes| with_unit(minutes, 1, "min")).into(),
            or_dash(&moved.approved_by).into(),
            or_dash(&moved.text).into(),
        ]);
    }
    table
}

/// Of a migration, that something is unknown is bad news.
fn tone_of(state: &str) -> Tone {
    if state == "unknown" { Tone::Red } else { of_word(state) }
}

/// One, with everything that is known of it.
pub fn full(page: &mut Page<'_>, screen: &Screen, moved: &MoveView, now_ms: i64) {
    let guest = guest_label(moved.guest, &moved.guest_name);
    let tone = match tone_of(&moved.state) {
        Tone::Normal => Tone::Strong,
        tone => tone,
    };
    page.line(tone, &format!("Guest {guest}: {} -> {}: {}", moved.source, moved.target, moved.state));
    page.line(Tone::Normal, &moved.text);
    way(page, screen, moved, now_ms);
}

/// Its way and what came of it: the part that `explain` shows too.
pub fn way(page: &mut Page<'_>, screen: &Screen, moved: &MoveView, now_ms: i64) {
    page.gap();
    let mut fields = vec![("trace", moved.trace.clone()), ("purpose", moved.purpose.clone())];
    if let Some(at) = moved.approved_ms {
        fields.push(("approved", format!("by {}, {}", moved.approved_by, screen.at_and_ago(at, now_ms))));
    }
    if !moved.upid.is_empty() {
        fields.push(("task", moved.upid.clone()));
    }
    let told = format!("{} told", with_unit(moved.predicted_minutes, 1, "min"));
    fields.push(match moved.took_minutes {
        Some(took) => ("took", format!("{}; {told}", with_unit(took, 1, "min"))),
        None => ("cost", told),
    });
    page.fields(&fields);
    page.section("Its way");
    let mut steps = Table::new([Column::text(""), Column::text(""), Column::prose("")]).bare();
    for step in &moved.timeline {
        let word = Cell::toned(step.state.clone(), tone_of(&step.state));
        steps.row([screen.at(step.at_ms).into(), word, step.detail.as_str().into()]);
    }
    page.inset(&steps);
    if !moved.checks.is_empty() {
        page.section("What came of it (CPU of the nodes in percent, waiting counted)");
        if let Some(relief) = moved.predicted_relief {
            let line = format!("{} was to be relieved of {} points.", moved.source, number(relief, 1));
            page.line(Tone::Normal, &line);
        }
        page.inset(&checks(moved));
    }
}

fn checks(moved: &MoveView) -> Table {
    let mut table = Table::new([
        Column::text("AFTER"),
        Column::text("SOURCE"),
        Column::text("TARGET"),
        Column::text("OTHERS"),
        Column::number("RELIEF"),
    ]);
    let change = |before: f64, after: f64| format!("{} -> {}", number(before, 0), number(after, 0));
    for check in &moved.checks {
        let MoveCheck { source_before, source, target_before, target, others_before, others, relief, .. } =
            *check;
        let after = i64::try_from(check.after_s).unwrap_or(i64::MAX).saturating_mul(1000);
        table.row([
            span(after).into(),
            change(source_before, source).into(),
            change(target_before, target).into(),
            change(others_before, others).into(),
            number(relief, 1).into(),
        ]);
    }
    table
}
