//! `whatif drain`: the evacuation of a node, or what is in its way.

use evenkeel_common::id::NodeId;
use evenkeel_proto::v1::{DrainMove, DrainRequest, DrainResponse};

use super::super::{Context, guest_label, or_dash};
use super::{list, no_answer, sentence, told};
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Cell, Column, Table};
use crate::render::tone::{Tone, of_word};
use crate::render::{Screen, bytes, counted, number, plain, span};

/// Asks and shows; a node that can not be emptied is a failure.
pub async fn run(context: &Context, node: NodeId) -> Result<(), CliError> {
    let question = DrainRequest { cluster: context.cluster.clone(), node: node.to_string() };
    let mut whatif = context.client.whatif();
    let answer = context.client.ask(question, async |_, request| whatif.drain(request).await).await?;
    context.show(&answer, |screen| page(screen, &answer))?;
    if answer.feasible {
        return Ok(());
    }
    let why = match answer.problems.first() {
        Some(problem) => format!("no plan for {node}: {}", plain(sentence(problem))),
        None => {
            let left = counted(answer.blocked.len() as u64, "guest");
            format!("{node} can not be emptied: {left} can not leave; move or stop them by hand")
        }
    };
    Err(CliError::Failed(why))
}

fn page(screen: &Screen, answer: &DrainResponse) -> String {
    let mut page = Page::new(screen);
    if !answer.problems.is_empty() {
        let lead = format!("No plan for {}: the data do not allow one.", answer.node);
        no_answer(&mut page, &lead, &answer.problems);
        return page.finish();
    }
    let size = answer.moves.iter().fold(0, |sum: u64, one| sum.saturating_add(one.bytes));
    let work = format!(
        "{} to move, {} in about {}, one after the other",
        counted(answer.moves.len() as u64, "guest"),
        bytes(size),
        minutes(answer.minutes)
    );
    if answer.feasible {
        page.line(Tone::Green, &format!("{} can be emptied: {work}.", answer.node));
    } else {
        let left = counted(answer.blocked.len() as u64, "guest");
        let rest = if answer.moves.is_empty() { String::new() } else { format!("; {work}") };
        page.line(Tone::Red, &format!("{} can not be emptied: {left} can not leave{rest}.", answer.node));
    }
    if !answer.blocked.is_empty() {
        page.section("Can not leave");
        page.table(&blocked(answer));
    }
    if !answer.moves.is_empty() {
        page.section("In this order");
        page.table(&moves(&answer.moves));
    }
    notes(&mut page, answer);
    page.section("The other nodes, before and after");
    page.inset(&after(answer));
    if answer.failures.is_empty() {
        page.line(Tone::Normal, "One more node may fail meanwhile: the rest has memory for its guests.");
    }
    for failure in &answer.failures {
        let line = format!(
            "{} may not fail meanwhile: {} with {} would find no memory on the rest.",
            failure.node,
            counted(failure.guests, "guest"),
            bytes(failure.bytes)
        );
        page.line(Tone::Amber, &line);
    }
    page.finish()
}

fn notes(page: &mut Page<'_>, answer: &DrainResponse) {
    list(page, "Mind", &answer.cautions);
    let count = |wanted: fn(&&DrainMove) -> bool| answer.moves.iter().filter(wanted).count() as u64;
    let (restarts, not_ours) = (count(|one| one.restart), count(|one| !one.allowed));
    if restarts > 0 {
        page.gap();
        let restarts = counted(restarts, "container");
        page.line(Tone::Amber, &format!("Moved by stopping and starting: {restarts}."));
    }
    if not_ours > 0 {
        let line = "evenkeel itself does that only where tag evenkeel-restart-ok allows it";
        page.line(Tone::Amber, &format!("{line}; without that tag: {not_ours}."));
    }
    if !answer.resting.is_empty() {
        page.gap();
        let resting = counted(answer.resting.len() as u64, "guest");
        let line =
            format!("Stays, as it does not run: {resting}. None can be started while the node is down.");
        page.line(Tone::Normal, &line);
    }
}

fn blocked(answer: &DrainResponse) -> Table {
    let mut table = Table::new([Column::name("GUEST"), Column::remark("WHY")]);
    for guest in &answer.blocked {
        let mut why = told(guest.reason.as_ref());
        let targets: Vec<_> = guest.targets.iter().map(|target| told(target.reason.as_ref())).collect();
        if targets.contains(&why) {
            why = targets.join("; ");
        } else if !targets.is_empty() {
            why = format!("{why} ({})", targets.join("; "));
        }
        table.row([guest_label(guest.guest, &guest.guest_name).into(), Cell::from(why)]);
    }
    table
}

fn moves(moves: &[DrainMove]) -> Table {
    let restarts = moves.iter().any(|one| one.restart);
    let mut table = Table::new([
        Column::number("#").rank(2),
        Column::name("GUEST"),
        Column::text("TO"),
        Column::number("SIZE"),
        Column::number("MINUTES"),
        Column::text("RISK").rank(1),
        Column::text("HOW").only_if(restarts),
        Column::remark("EXPECTED"),
    ]);
    for (place, one) in (1..).zip(moves) {
        let load = one.evidence.iter().find(|reason| reason.code == "predicted_load");
        table.row([
            format!("{place}").into(),
            guest_label(one.guest, &one.guest_name).into(),
            one.target.as_str().into(),
            bytes(one.bytes).into(),
            number(one.minutes, 1).into(),
            Cell::toned(or_dash(&one.risk), of_word(&one.risk)),
            if one.restart { "restart" } else { "live" }.into(),
            told(load).into(),
        ]);
    }
    table
}

fn after(answer: &DrainResponse) -> Table {
    let mut table = Table::new([
        Column::text("NODE"),
        Column::text("SCORE"),
        Column::text("CPU %"),
        Column::text("MEMORY %"),
    ]);
    let change = |before: f64, after: f64| format!("{} -> {}", number(before, 0), number(after, 0));
    for node in &answer.after {
        table.row([
            node.node.as_str().into(),
            change(node.score_before, node.score_after).into(),
            change(node.cpu_before_percent, node.cpu_after_percent).into(),
            Cell::from(change(node.mem_before_percent, node.mem_after_percent)),
        ]);
    }
    table
}

fn minutes(minutes: f64) -> String {
    span((minutes * 60_000.0) as i64)
}
