//! What operators say: whether migrations may be started, all of them or each.

use evenkeel_common::id::{DecisionId, NodeId};
use evenkeel_proto::v1::{
    ApproveRequest, ListMovesRequest, ListMovesResponse, MoveView, PauseRequest, RearmRequest, RejectRequest,
    ResumeRequest,
};

use super::{Context, guest_label};
use crate::args::moves::{ApproveArgs, RejectArgs};
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::tone::Tone;
use crate::render::{Screen, counted};

/// Stops migrations from being started.
pub async fn pause(context: &Context, why: Option<String>) -> Result<(), CliError> {
    let question = PauseRequest { cluster: context.cluster.clone(), why: why.unwrap_or_default() };
    let answer =
        context.client.ask(question, async |mut control, request| control.pause(request).await).await?;
    let lead = "Paused: no migration is started until `evenkeelctl resume`.";
    context.show(&answer, |screen| told(screen, lead, &answer.clusters))
}

/// Lets migrations be started again.
pub async fn resume(context: &Context) -> Result<(), CliError> {
    let question = ResumeRequest { cluster: context.cluster.clone() };
    let answer =
        context.client.ask(question, async |mut control, request| control.resume(request).await).await?;
    let lead = "Resumed: migrations may be started again, as far as the mode allows.";
    context.show(&answer, |screen| told(screen, lead, &answer.clusters))
}

/// Approves one after the other. The first that is refused ends it; what was approved before stays approved.
pub async fn approve(context: &Context, args: ApproveArgs) -> Result<(), CliError> {
    let mut execution = context.client.execution();
    let mut moves = Vec::new();
    for decision in meant(context, args.decisions, args.all_from).await? {
        let question = ApproveRequest { decision };
        let answer = context.client.ask(question, async |_, request| execution.approve(request).await).await;
        moves.extend(or_tell(answer, &moves)?.r#move);
    }
    said(
        context,
        moves,
        "Approved",
        "Each is started after a last look at fresh data; `evenkeelctl moves` follows it.",
    )
}

/// Rejects one after the other.
pub async fn reject(context: &Context, args: RejectArgs) -> Result<(), CliError> {
    let mut execution = context.client.execution();
    let why = args.why.unwrap_or_default();
    let mut moves = Vec::new();
    for decision in meant(context, args.decisions, args.all_from).await? {
        let question = RejectRequest { decision, why: why.clone() };
        let answer = context.client.ask(question, async |_, request| execution.reject(request).await).await;
        moves.extend(or_tell(answer, &moves)?.r#move);
    }
    said(context, moves, "Rejected", "Their guests are left alone for an hour.")
}

/// The decisions named, or those of all proposals that leave a node.
async fn meant(
    context: &Context,
    named: Vec<DecisionId>,
    all_from: Option<NodeId>,
) -> Result<Vec<String>, CliError> {
    let Some(node) = all_from else { return Ok(named.into_iter().map(String::from).collect()) };
    let question = ListMovesRequest {
        cluster: context.cluster.clone(),
        node: node.to_string(),
        state: "proposed".into(),
        ..ListMovesRequest::default()
    };
    let mut execution = context.client.execution();
    let answer = context.client.ask(question, async |_, request| execution.list_moves(request).await).await?;
    let leave = answer.moves.into_iter().filter(|moved| moved.source == node.as_str());
    let ids: Vec<String> = leave.map(|moved| moved.id).collect();
    if ids.is_empty() {
        return Err(CliError::Failed(format!(
            "no proposal leaves {node}; `evenkeelctl whatif drain {node} --propose` makes them"
        )));
    }
    Ok(ids)
}

/// The answer, or the refusal after what was done before it.
fn or_tell<A>(answer: Result<A, CliError>, done: &[MoveView]) -> Result<A, CliError> {
    if answer.is_err() && !done.is_empty() {
        let ids: Vec<&str> = done.iter().map(|moved| moved.id.as_str()).collect();
        crate::render::note(&format!("evenkeelctl: done before this one: {}", ids.join(", ")));
    }
    answer
}

fn said(context: &Context, moves: Vec<MoveView>, what: &str, then: &str) -> Result<(), CliError> {
    let answer = ListMovesResponse { moves, truncated: false };
    context.show(&answer, |screen| {
        let mut page = Page::new(screen);
        page.line(Tone::Strong, &format!("{what}: {}.", counted(answer.moves.len() as u64, "migration")));
        for moved in &answer.moves {
            let guest = guest_label(moved.guest, &moved.guest_name);
            page.bullet(&format!("{}: guest {guest}, {} -> {}", moved.id, moved.source, moved.target));
        }
        page.line(Tone::Normal, then);
        page.finish()
    })
}

/// Goes on after failures.
pub async fn rearm(context: &Context, why: Option<String>) -> Result<(), CliError> {
    let question = RearmRequest { cluster: context.cluster.clone(), why: why.unwrap_or_default() };
    let mut execution = context.client.execution();
    let answer = context.client.ask(question, async |_, request| execution.rearm(request).await).await?;
    context.show(&answer, |screen| {
        let mut page = Page::new(screen);
        page.line(Tone::Strong, "Armed anew: earlier failures no longer stop migrations.");
        page.line(Tone::Normal, &format!("Clusters: {}", answer.clusters.join(", ")));
        match answer.was_stopped_by.as_slice() {
            [] => page.line(Tone::Normal, "Nothing had stopped them."),
            stops => {
                page.section("What had stopped them");
                stops.iter().for_each(|stop| page.bullet(stop));
            }
        }
        page.finish()
    })
}

fn told(screen: &Screen, lead: &str, clusters: &[String]) -> String {
    let mut page = Page::new(screen);
    if clusters.is_empty() {
        page.line(Tone::Normal, "Nothing changed: there was no cluster to change.");
    } else {
        page.line(Tone::Strong, lead);
        page.line(Tone::Normal, &format!("Clusters: {}", clusters.join(", ")));
    }
    page.finish()
}
