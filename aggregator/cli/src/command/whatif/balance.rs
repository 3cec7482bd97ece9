//! `whatif balance`: how the cluster would be put in order now.

use evenkeel_proto::v1::{BalanceRequest, BalanceResponse, DrainMove, Reason};

use super::super::{Context, guest_label};
use super::{list, no_answer, plan, sentence, told};
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Column, Table};
use crate::render::tone::Tone;
use crate::render::{Screen, number, plain};

/// Asks and shows; that nothing is to be done is an answer too.
pub async fn run(context: &Context, restarts: bool) -> Result<(), CliError> {
    let question = BalanceRequest { cluster: context.cluster.clone(), restarts };
    let mut whatif = context.client.whatif();
    let answer = context.client.ask(question, async |_, request| whatif.balance(request).await).await?;
    context.show(&answer, |screen| page(screen, &answer))?;
    match answer.problems.first() {
        None => Ok(()),
        Some(problem) => Err(CliError::Failed(format!(
            "no plan for cluster {}: {}; `evenkeelctl status` and `evenkeelctl nodes` show what is missing",
            plain(&answer.cluster),
            plain(sentence(problem))
        ))),
    }
}

fn page(screen: &Screen, answer: &BalanceResponse) -> String {
    let mut page = Page::new(screen);
    if !answer.problems.is_empty() {
        let lead = format!("No plan for cluster {}: the data do not allow one.", answer.cluster);
        no_answer(&mut page, &lead, &answer.problems);
        return page.finish();
    }
    let moves = !answer.moves.is_empty();
    lead(&mut page, answer);
    if moves {
        page.section("In this order");
        page.table(&plan::moves(&answer.moves, false));
        plan::restarts(&mut page, &answer.moves);
        along(&mut page, &answer.moves);
    }
    list(&mut page, "Mind", &answer.cautions);
    page.section(if moves { "The nodes, before and after" } else { "The nodes" });
    page.inset(&plan::nodes(&answer.nodes, moves));
    plan::failures(&mut page, &answer.failures, ("One node", if moves { "then" } else { "now" }));
    if !answer.held.is_empty() {
        page.section("Would help, and is not moved");
        page.table(&held(answer));
        let restart = |reason: &Reason| reason.code == "container_restart";
        if answer.held.iter().filter_map(|held| held.reason.as_ref()).any(restart) {
            page.line(Tone::Normal, "With --restarts, containers without that tag are planned too.");
        }
    }
    stays(&mut page, answer);
    page.finish()
}

fn lead(page: &mut Page<'_>, answer: &BalanceResponse) {
    let cluster = &answer.cluster;
    let (before, after) = (number(answer.imbalance_before, 1), number(answer.imbalance_after, 1));
    let what = "percentage points (standard deviation of what nodes use, the mean of CPU and memory)";
    if answer.moves.is_empty() {
        let stuck = (Tone::Amber, "no move is worth it and allowed");
        let (tone, why) = answer.calm.as_ref().map_or(stuck, |calm| (Tone::Green, sentence(calm)));
        page.line(tone, &format!("Cluster {cluster}: nothing to do: {why}."));
        page.line(Tone::Normal, &format!("Imbalance {before} {what}."));
    } else {
        let work = plan::work(&answer.moves, answer.minutes);
        page.line(Tone::Strong, &format!("Cluster {cluster}: {work}."));
        page.line(Tone::Normal, &format!("Imbalance {before} -> {after} {what}."));
    }
}

/// Guests that need no move of their own.
fn along(page: &mut Page<'_>, moves: &[DrainMove]) {
    let along = moves.iter().filter(|one| !one.along.is_empty());
    let lines: Vec<_> = along
        .map(|one| {
            let guests: Vec<_> = one.along.iter().map(ToString::to_string).collect();
            format!("HA moves {} along with {}.", guests.join(", "), one.guest)
        })
        .collect();
    if !lines.is_empty() {
        page.gap();
    }
    lines.iter().for_each(|line| page.line(Tone::Normal, line));
}

fn held(answer: &BalanceResponse) -> Table {
    let mut table = Table::new([
        Column::name("GUEST"),
        Column::text("FROM"),
        Column::text("TO"),
        Column::number("GAIN").rank(1),
        Column::text("HELD BY").rank(2),
        Column::remark("WHY"),
    ]);
    for one in &answer.held {
        table.row([
            guest_label(one.guest, &one.guest_name).into(),
            one.source.as_str().into(),
            one.target.as_str().into(),
            number(one.improvement, 1).into(),
            one.filter.as_str().into(),
            told(one.reason.as_ref()).into(),
        ]);
    }
    table
}

/// Why nodes stay as they are. What the moves tell is not told again, and calm nodes share a line.
fn stays(page: &mut Page<'_>, answer: &BalanceResponse) {
    if answer.calm.is_some() {
        return; // The first line says it for all nodes.
    }
    let (mut calm, mut lines) = (Vec::new(), Vec::new());
    for stay in &answer.stays {
        for reason in stay.reasons.iter().filter(|reason| reason.code != "node_moves") {
            let text = sentence(reason);
            match reason.code.as_str() {
                "node_calm" => calm.push(stay.node.as_str()),
                _ if text.starts_with(&stay.node) => lines.push(text.to_owned()),
                _ => lines.push(format!("{}: {text}", stay.node)),
            }
        }
    }
    if !calm.is_empty() {
        lines.push(format!("nothing to relieve: {}", calm.join(", ")));
    }
    if !lines.is_empty() {
        page.section(if answer.moves.is_empty() { "Why nothing moves" } else { "Why nothing else moves" });
        lines.iter().for_each(|line| page.bullet(line));
    }
}
