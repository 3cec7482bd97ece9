//! `whatif drain`: the evacuation of a node, or what is in its way.

use evenkeel_common::id::NodeId;
use evenkeel_proto::v1::{DrainRequest, DrainResponse, EvacuateRequest};

use super::super::{Context, guest_label, moves};
use super::{list, no_answer, plan, sentence, told};
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Cell, Column, Table};
use crate::render::tone::Tone;
use crate::render::{Screen, counted, plain};

/// Asks and shows; a node that can not be emptied is a failure.
pub async fn run(context: &Context, node: NodeId, propose: bool) -> Result<(), CliError> {
    if propose {
        return self::propose(context, node).await;
    }
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

/// Makes a proposal of each move; what can not leave stays, and the plan without `--propose` says why.
async fn propose(context: &Context, node: NodeId) -> Result<(), CliError> {
    let question = EvacuateRequest { cluster: context.cluster.clone(), node: node.to_string() };
    let mut execution = context.client.execution();
    let answer = context.client.ask(question, async |_, request| execution.evacuate(request).await).await?;
    let now_ms = context.client.status().await?.now_ms;
    context.show(&answer, |screen| {
        let mut page = Page::new(screen);
        let moves = counted(answer.moves.len() as u64, "migration");
        page.line(Tone::Strong, &format!("Proposed to empty {node}: {moves}."));
        if !answer.moves.is_empty() {
            page.table(&moves::table(&answer.moves, now_ms));
            page.gap();
            let then = format!(
                "`evenkeelctl approve --all-from {node}` starts them, one after the other. Put {node} into HA \
                 maintenance too, or what balances the cluster may fill it again."
            );
            page.line(Tone::Normal, &then);
        }
        page.finish()
    })
}

fn page(screen: &Screen, answer: &DrainResponse) -> String {
    let mut page = Page::new(screen);
    if !answer.problems.is_empty() {
        let lead = format!("No plan for {}: the data do not allow one.", answer.node);
        no_answer(&mut page, &lead, &answer.problems);
        return page.finish();
    }
    let work = plan::work(&answer.moves, answer.minutes);
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
        page.table(&plan::moves(&answer.moves, true));
    }
    notes(&mut page, answer);
    page.section("The other nodes, before and after");
    page.inset(&plan::nodes(&answer.after, true));
    plan::failures(&mut page, &answer.failures, ("One more node", "meanwhile"));
    page.finish()
}

fn notes(page: &mut Page<'_>, answer: &DrainResponse) {
    list(page, "Mind", &answer.cautions);
    plan::restarts(page, &answer.moves);
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
