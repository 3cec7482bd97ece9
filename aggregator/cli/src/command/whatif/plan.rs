//! What the screens of a plan have in common: its moves, and the nodes before and after.

use evenkeel_proto::v1::{DrainFailure, DrainMove, DrainNode};

use super::super::{guest_label, or_dash};
use super::told;
use crate::render::page::Page;
use crate::render::table::{Cell, Column, Table};
use crate::render::tone::{Tone, of_word};
use crate::render::{bytes, counted, number, span};

/// "2 guests to move, 10 GiB in about 3 min, one after the other".
pub fn work(moves: &[DrainMove], minutes: f64) -> String {
    let size = moves.iter().fold(0, |sum: u64, one| sum.saturating_add(one.bytes));
    format!(
        "{} to move, {} in about {}, one after the other",
        counted(moves.len() as u64, "guest"),
        bytes(size),
        span((minutes * 60_000.0) as i64)
    )
}

/// The moves in order. From one node, each is told with what is expected of the guest; from several, which may be many,
/// with where it comes from. What a move of a plan gains counts how even the nodes become too, and so is no figure to
/// compare with those of decisions.
pub fn moves(moves: &[DrainMove], one_source: bool) -> Table {
    let restarts = moves.iter().any(|one| one.restart);
    let mut table = Table::new([
        Column::number("#").rank(if one_source { 2 } else { 0 }),
        Column::name("GUEST"),
        Column::text("FROM").only_if(!one_source),
        Column::text("TO"),
        Column::number("SIZE").rank(if one_source { 0 } else { 3 }),
        Column::number("MINUTES"),
        Column::text("RISK").rank(1),
        Column::text("HOW").only_if(restarts),
        Column::remark("EXPECTED").only_if(one_source),
    ]);
    for (place, one) in (1..).zip(moves) {
        let load = one.evidence.iter().find(|reason| reason.code == "predicted_load");
        table.row([
            format!("{place}").into(),
            guest_label(one.guest, &one.guest_name).into(),
            one.source.as_str().into(),
            one.target.as_str().into(),
            bytes(one.bytes).into(),
            number(one.minutes, 1).into(),
            Cell::toned(or_dash(&one.risk), of_word(&one.risk)),
            how(one).into(),
            told(load).into(),
        ]);
    }
    table
}

fn how(one: &DrainMove) -> &'static str {
    match (one.restart, one.allowed) {
        (false, _) => "live",
        (true, true) => "restart",
        (true, false) => "restart*",
    }
}

/// That containers restart, and which of them evenkeel itself would leave alone.
pub fn restarts(page: &mut Page<'_>, moves: &[DrainMove]) {
    let count = |wanted: fn(&&DrainMove) -> bool| moves.iter().filter(wanted).count() as u64;
    let (restarts, not_ours) = (count(|one| one.restart), count(|one| !one.allowed));
    if restarts > 0 {
        page.gap();
        let restarts = counted(restarts, "container");
        page.line(Tone::Amber, &format!("Moved by stopping and starting: {restarts}."));
    }
    if not_ours > 0 {
        let line = "evenkeel itself does that only where tag evenkeel-restart-ok allows it";
        page.line(Tone::Amber, &format!("{line}; without that tag (*): {not_ours}."));
    }
}

/// The nodes before and after; where nothing moves, as they are.
pub fn nodes(nodes: &[DrainNode], change: bool) -> Table {
    let mut table = Table::new([
        Column::text("NODE"),
        Column::text("SCORE"),
        Column::text("CPU %"),
        Column::text("MEMORY %"),
    ]);
    let told = |before: f64, after: f64| {
        let (before, after) = (number(before, 0), number(after, 0));
        if change { format!("{before} -> {after}") } else { before }
    };
    for node in nodes {
        table.row([
            node.node.as_str().into(),
            told(node.score_before, node.score_after).into(),
            told(node.cpu_before_percent, node.cpu_after_percent).into(),
            Cell::from(told(node.mem_before_percent, node.mem_after_percent)),
        ]);
    }
    table
}

/// Which nodes may fail, as `One node may fail then` says it: who, and when.
pub fn failures(page: &mut Page<'_>, failures: &[DrainFailure], (who, when): (&str, &str)) {
    if failures.is_empty() {
        page.line(Tone::Normal, &format!("{who} may fail {when}: the rest has memory for its guests."));
    }
    for failure in failures {
        let line = format!(
            "{} may not fail {when}: {} with {} would find no memory on the rest.",
            failure.node,
            counted(failure.guests, "guest"),
            bytes(failure.bytes)
        );
        page.line(Tone::Amber, &line);
    }
}
