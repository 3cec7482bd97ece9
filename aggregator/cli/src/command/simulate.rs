//! `simulate`: fault drills, ordered, ended and listed.

use evenkeel_proto::v1::{
    ClearDrillsRequest, DrillView, ListDrillsRequest, ListDrillsResponse, SimulateRequest,
};

use super::{Context, millis, node_or_all, spans_clusters, vmid_or_all};
use crate::args::{DrillArgs, SimulateCommand};
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Cell, Column, Table};
use crate::render::tone::Tone;
use crate::render::{Screen, number};

/// Does what is asked.
pub async fn run(context: &Context, command: SimulateCommand) -> Result<(), CliError> {
    match command {
        SimulateCommand::Delay(args) => order(context, "delay", args).await,
        SimulateCommand::Error(args) => order(context, "error", args).await,
        SimulateCommand::Cpu(args) => order(context, "cpu", args).await,
        SimulateCommand::Memory(args) => order(context, "memory", args).await,
        SimulateCommand::Clear { node } => {
            let question = ClearDrillsRequest { cluster: context.cluster.clone(), node: node_or_all(node) };
            let answer = context
                .client
                .ask(question, async |mut control, request| control.clear_drills(request).await)
                .await?;
            context.show(&answer, |screen| {
                let mut page = Page::new(screen);
                if answer.cleared.is_empty() {
                    page.line(Tone::Normal, "Nothing changed: no drill was under way.");
                } else {
                    page.line(Tone::Strong, &format!("Cleared: {}", answer.cleared.join(", ")));
                    page.line(
                        Tone::Normal,
                        "The nodes take part in decisions again a minute after their agents have ended it.",
                    );
                }
                page.finish()
            })
        }
        SimulateCommand::Status => {
            let question = ListDrillsRequest { cluster: context.cluster.clone() };
            let answer = context
                .client
                .ask(question, async |mut control, request| control.list_drills(request).await)
                .await?;
            context.show(&answer, |screen| list(screen, &answer))
        }
    }
}

async fn order(context: &Context, kind: &str, args: DrillArgs) -> Result<(), CliError> {
    let DrillArgs { node, guest, amount, lasts } = args;
    let question = SimulateRequest {
        cluster: context.cluster.clone(),
        node: node.to_string(),
        kind: kind.into(),
        vmid: vmid_or_all(guest),
        amount,
        lasts_ms: lasts.map_or(0, |lasts| millis(lasts).unsigned_abs()),
    };
    let answer =
        context.client.ask(question, async |mut control, request| control.simulate(request).await).await?;
    context.show(&answer, |screen| {
        let mut page = Page::new(screen);
        let drill = answer.drill.clone().unwrap_or_default();
        let lead = format!("Drill {} is ordered: {} on {}, until {}.", drill.id, what(&drill), drill.node, screen.at(drill.ends_ms));
        page.line(Tone::Strong, &lead);
        page.line(Tone::Normal, "Its agent does it only if its configuration says drills.allowed = true; `evenkeelctl simulate status` tells. Until a minute after its end the node takes no part in decisions.");
        page.finish()
    })
}

fn what(drill: &DrillView) -> String {
    let of = drill.vmid.map(|vmid| format!(" of guest {vmid}")).unwrap_or_default();
    format!("{} +{} {}{of}", drill.kind, number(drill.amount, 1), drill.unit)
}

fn list(screen: &Screen, answer: &ListDrillsResponse) -> String {
    let mut page = Page::new(screen);
    if answer.drills.is_empty() {
        page.line(Tone::Normal, "No drills within the last hour.");
        return page.finish();
    }
    let several = spans_clusters(answer.drills.iter().map(|drill| drill.cluster.as_str()));
    let mut table = Table::new([
        Column::text("ID"),
        Column::text("CLUSTER").only_if(several),
        Column::text("NODE"),
        Column::text("DRILL"),
        Column::text("STATE"),
        Column::text("ENDS").rank(1),
        Column::name("BY").rank(3),
    ]);
    for drill in &answer.drills {
        table.row([
            drill.id.as_str().into(),
            drill.cluster.as_str().into(),
            drill.node.as_str().into(),
            what(drill).into(),
            Cell::word(&drill.state),
            screen.at(drill.ends_ms).into(),
            drill.by.as_str().into(),
        ]);
    }
    page.table(&table);
    for drill in answer.drills.iter().filter(|drill| !drill.detail.is_empty()) {
        page.line(Tone::Normal, &format!("{} on {}: {}", drill.id, drill.node, drill.detail));
    }
    page.finish()
}
