//! `anomalies`: series that are, or were, not themselves; as a list or as they come.

use std::time::Duration;

use evenkeel_proto::v1::{AnomalyView, ListAnomaliesRequest};
use tonic::Streaming;

use super::{Context, millis, node_or_all, or_dash, spans_clusters, vmid_or_all};
use crate::args::AnomaliesArgs;
use crate::client::Client;
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Cell, Column, Table};
use crate::render::tone::{Tone, of_word};
use crate::render::{NO_DATA, Screen, ago, in_unit, number, span};
use crate::watch::{Watched, follow};

/// How far back without `--since`.
const DEFAULT_SINCE: Duration = Duration::from_secs(86_400);

/// Asks and shows, or follows.
pub async fn run(context: Context, args: AnomaliesArgs) -> Result<(), CliError> {
    let question = ListAnomaliesRequest {
        cluster: context.cluster.clone(),
        node: node_or_all(args.node),
        vmid: vmid_or_all(args.guest),
        since_ms: None,
        open_only: args.open,
        limit: 0,
    };
    if args.watch {
        return follow::<AnomalyView>(context, question, args.since).await;
    }
    let now_ms = context.client.status().await?.now_ms;
    let since = args.since.unwrap_or(DEFAULT_SINCE);
    let question = AnomalyView::since(&question, Some(now_ms.saturating_sub(millis(since))));
    let answer = context
        .client
        .ask(question, async |mut control, request| control.list_anomalies(request).await)
        .await?;
    context.show(&answer, |screen| {
        let mut page = Page::new(screen);
        if answer.anomalies.is_empty() {
            let which = if args.open { "open anomalies" } else { "anomalies" };
            page.line(Tone::Normal, &format!("No {which} in the last {}.", span(millis(since))));
        } else {
            page.table(&table(&answer.anomalies, now_ms));
        }
        if answer.truncated {
            page.line(
                Tone::Amber,
                "There are more: narrow the question with --since, --node, --guest or --open.",
            );
        }
        page.finish()
    })
}

/// The newest at the end, as in a log.
fn table(anomalies: &[AnomalyView], now_ms: i64) -> Table {
    let several = spans_clusters(anomalies.iter().map(|a| a.cluster.as_str()));
    let mut table = Table::new([
        Column::number("OPENED"),
        Column::text("SEVERITY"),
        Column::text("CLUSTER").only_if(several),
        Column::text("NODE"),
        Column::number("GUEST"),
        Column::prose("SERIES"),
        Column::number("VALUE").rank(1),
        Column::number("EXPECTED").rank(2),
        Column::number("SIGMA").rank(3),
        Column::number("CONFIDENCE").rank(5),
        Column::number("LASTED"),
        Column::text("DETECTORS").rank(6),
        Column::text("ID").rank(7),
        Column::remark("WHAT").only_if(anomalies.iter().any(|anomaly| !anomaly.text.is_empty())),
    ]);
    let mut sorted: Vec<&AnomalyView> = anomalies.iter().collect();
    sorted.sort_by_key(|anomaly| anomaly.opened_ms);
    for anomaly in sorted {
        let lasted = match anomaly.closed_ms {
            Some(closed_ms) => span(closed_ms.saturating_sub(anomaly.opened_ms)).into(),
            None => Cell::word("open"),
        };
        let detectors: Vec<&str> = anomaly.detectors.iter().map(|vote| vote.detector.as_str()).collect();
        table.row([
            ago(anomaly.opened_ms, now_ms).into(),
            Cell::word(&anomaly.severity),
            anomaly.cluster.as_str().into(),
            anomaly.node.as_str().into(),
            anomaly.vmid.map_or_else(|| NO_DATA.to_owned(), |vmid| vmid.to_string()).into(),
            series(anomaly).into(),
            in_unit(anomaly.value, &anomaly.unit).into(),
            in_unit(anomaly.expected, &anomaly.unit).into(),
            number(anomaly.deviation, 1).into(),
            number(anomaly.confidence, 2).into(),
            lasted,
            or_dash(&detectors.join(", ")).into(),
            anomaly.id.as_str().into(),
            [std::slice::from_ref(&anomaly.text), &anomaly.samples].concat().join("; ").into(),
        ]);
    }
    table
}

/// Causes shown in a table; JSON has them all.
const CAUSES_SHOWN: usize = 3;

/// The metric, its device where there are several, the series behind it, and whether a drill caused it.
fn series(anomaly: &AnomalyView) -> String {
    let mut text = anomaly.metric.clone();
    let causes = anomaly.causes.iter().take(CAUSES_SHOWN);
    let causes: Vec<_> = causes.map(|cause| format!("{} {:+.1}", cause.series, cause.deviation)).collect();
    if !causes.is_empty() {
        text = format!("{text}: {}", causes.join(", "));
    }
    if !anomaly.instance.is_empty() {
        text = format!("{text} {}", anomaly.instance);
    }
    if anomaly.injected { format!("{text} (drill)") } else { text }
}

impl Watched for AnomalyView {
    type Question = ListAnomaliesRequest;

    fn since(question: &ListAnomaliesRequest, since_ms: Option<i64>) -> ListAnomaliesRequest {
        ListAnomaliesRequest { since_ms, ..question.clone() }
    }

    async fn open(client: &Client, question: ListAnomaliesRequest) -> Result<Streaming<Self>, CliError> {
        client.open(question, async |mut control, request| control.watch_anomalies(request).await).await
    }

    async fn list(client: &Client, question: ListAnomaliesRequest) -> Result<(Vec<Self>, bool), CliError> {
        let answer =
            client.ask(question, async |mut control, request| control.list_anomalies(request).await).await?;
        Ok((answer.anomalies, answer.truncated))
    }

    fn key(&self) -> String {
        format!("{} {}", self.id, self.state)
    }

    fn at_ms(&self) -> i64 {
        self.closed_ms.unwrap_or(self.opened_ms)
    }

    fn line(&self, context: &Context) -> String {
        let screen: &Screen = &context.screen;
        let paint = |word: &str, width: usize| {
            of_word(word).paint(&format!("{:width$}", screen.plain(word)), screen.colour)
        };
        let subject = match self.vmid {
            Some(vmid) => format!("{}/{} guest {vmid}", self.cluster, self.node),
            None => format!("{}/{}", self.cluster, self.node),
        };
        let numbers = format!(
            "{} instead of {} ({} sigma)",
            in_unit(self.value, &self.unit),
            in_unit(self.expected, &self.unit),
            number(self.deviation, 1)
        );
        format!(
            "{}  {}  {}  {}",
            screen.at(self.at_ms()),
            paint(&self.severity, 8),
            paint(&self.state, 6),
            screen.plain(&format!("{subject}: {}: {numbers}", series(self)))
        )
    }
}
