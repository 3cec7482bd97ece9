//! `decisions`: what became of each recommendation; as a list or as they are made.

use std::time::Duration;

use evenkeel_proto::v1::{Decision, ListDecisionsRequest};
use tonic::Streaming;

use super::{Context, guest_label, millis, or_dash, spans_clusters, vmid_or_all};
use crate::args::DecisionsArgs;
use crate::client::Client;
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Cell, Column, Table};
use crate::render::tone::{Tone, of_word};
use crate::render::{ago, number, span};
use crate::watch::{Watched, follow};

/// How far back without `--since`.
const DEFAULT_SINCE: Duration = Duration::from_secs(3600);

/// Asks and shows, or follows.
pub async fn run(context: Context, args: DecisionsArgs) -> Result<(), CliError> {
    let question = ListDecisionsRequest {
        cluster: context.cluster.clone(),
        vmid: vmid_or_all(args.guest),
        since_ms: None,
        limit: 0,
        action: args.action.unwrap_or_default(),
    };
    if args.watch {
        return follow::<Decision>(context, question, args.since).await;
    }
    let now_ms = context.client.status().await?.now_ms;
    let since = args.since.unwrap_or(DEFAULT_SINCE);
    let question = Decision::since(&question, Some(now_ms.saturating_sub(millis(since))));
    let answer = context
        .client
        .ask(question, async |mut control, request| control.list_decisions(request).await)
        .await?;
    context.show(&answer, |screen| {
        let mut page = Page::new(screen);
        if answer.decisions.is_empty() {
            let lead = format!("No decisions in the last {}", span(millis(since)));
            page.line(Tone::Normal, &format!("{lead}; `evenkeelctl explain` says why nothing moves."));
        } else {
            page.table(&table(&answer.decisions, now_ms));
        }
        if answer.truncated {
            page.line(Tone::Amber, "There are more: narrow the question with --since, --guest or --action.");
        }
        page.finish()
    })
}

/// The newest at the end, as in a log.
fn table(decisions: &[Decision], now_ms: i64) -> Table {
    let several = spans_clusters(decisions.iter().map(|d| d.cluster.as_str()));
    let mut table = Table::new([
        Column::text("ID").rank(1),
        Column::number("WHEN"),
        Column::text("CLUSTER").only_if(several).rank(6),
        Column::name("GUEST"),
        Column::text("MOVE"),
        Column::text("ACTION"),
        Column::number("GAIN").rank(3),
        Column::number("CONFIDENCE").rank(5),
        Column::text("RISK").rank(4),
        Column::remark("REASON"),
    ]);
    let mut sorted: Vec<&Decision> = decisions.iter().collect();
    sorted.sort_by_key(|decision| decision.at_ms);
    for decision in sorted {
        table.row([
            decision.id.as_str().into(),
            ago(decision.at_ms, now_ms).into(),
            decision.cluster.as_str().into(),
            guest_label(decision.guest, &decision.guest_name).into(),
            format!("{} -> {}", or_dash(&decision.source), or_dash(&decision.target)).into(),
            Cell::word(&decision.action),
            number(decision.improvement, 1).into(),
            number(decision.confidence, 0).into(),
            or_dash(&decision.risk).into(),
            or_dash(&because(decision)).into(),
        ]);
    }
    table
}

/// The reason as a sentence; the filter's name where it gave none.
pub fn because(decision: &Decision) -> String {
    let text = decision.reason.as_ref().map(|reason| reason.text.as_str()).unwrap_or_default();
    if text.is_empty() { decision.filter.clone() } else { text.to_owned() }
}

impl Watched for Decision {
    type Question = ListDecisionsRequest;

    fn since(question: &ListDecisionsRequest, since_ms: Option<i64>) -> ListDecisionsRequest {
        ListDecisionsRequest { since_ms, ..question.clone() }
    }

    async fn open(client: &Client, question: ListDecisionsRequest) -> Result<Streaming<Self>, CliError> {
        client.open(question, async |mut control, request| control.watch_decisions(request).await).await
    }

    async fn list(client: &Client, question: ListDecisionsRequest) -> Result<(Vec<Self>, bool), CliError> {
        let answer =
            client.ask(question, async |mut control, request| control.list_decisions(request).await).await?;
        Ok((answer.decisions, answer.truncated))
    }

    fn key(&self) -> String {
        format!("{} {}", self.id, self.action)
    }

    fn at_ms(&self) -> i64 {
        self.at_ms
    }

    fn line(&self, context: &Context) -> String {
        let screen = &context.screen;
        let action = format!("{:17}", screen.plain(&self.action));
        let what = format!(
            "{}  {}: {} -> {}: {}",
            self.id,
            guest_label(self.guest, &self.guest_name),
            or_dash(&self.source),
            or_dash(&self.target),
            or_dash(&because(self))
        );
        let action = of_word(&self.action).paint(&action, screen.colour);
        format!("{}  {action}  {}", screen.at(self.at_ms), screen.plain(&what))
    }
}
