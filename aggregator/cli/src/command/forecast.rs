//! `forecast`: what will be full or over its threshold, and when.

use evenkeel_common::id::NodeId;
use evenkeel_proto::v1::{ForecastView, ListForecastsRequest};

use super::{Context, node_or_all, spans_clusters};
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Cell, Column, Table};
use crate::render::tone::Tone;
use crate::render::{in_unit, number, span};

/// Asks and shows.
pub async fn run(context: &Context, node: Option<NodeId>) -> Result<(), CliError> {
    let question = ListForecastsRequest { cluster: context.cluster.clone(), node: node_or_all(node) };
    let mut fleet = context.client.fleet();
    let answer = context.client.ask(question, async |_, request| fleet.list_forecasts(request).await).await?;
    context.show(&answer, |screen| {
        let mut page = Page::new(screen);
        if answer.forecasts.is_empty() {
            page.line(Tone::Normal, "Nothing is seen to reach its limit within 30 days.");
        } else {
            page.table(&table(&answer.forecasts));
            page.gap();
            let hours = number(answer.warn_hours, 0);
            page.line(
                Tone::Normal,
                &format!(
                    "Sooner than {hours} h is a warning. The range is that of 99 % of trends the data allows."
                ),
            );
        }
        page.finish()
    })
}

fn table(forecasts: &[ForecastView]) -> Table {
    let several = spans_clusters(forecasts.iter().map(|f| f.cluster.as_str()));
    let mut table = Table::new([
        Column::text("CLUSTER").only_if(several),
        Column::text("NODE"),
        Column::prose("SERIES"),
        Column::number("NOW"),
        Column::number("PER HOUR").rank(2),
        Column::number("LIMIT"),
        Column::number("REACHED IN"),
        Column::number("RANGE").rank(1),
        Column::number("DATA").rank(3),
    ]);
    for forecast in forecasts {
        let series = match forecast.instance.as_str() {
            "" => forecast.metric.clone(),
            instance => format!("{} {instance}", forecast.metric),
        };
        let tone = if forecast.warning { Tone::Amber } else { Tone::Normal };
        let latest = forecast.hours_latest.map_or_else(|| "never".to_owned(), hours);
        table.row([
            forecast.cluster.as_str().into(),
            forecast.node.as_str().into(),
            series.into(),
            in_unit(forecast.now, &forecast.unit).into(),
            in_unit(forecast.per_hour, &forecast.unit).into(),
            in_unit(forecast.limit, &forecast.unit).into(),
            Cell::toned(hours(forecast.hours), tone),
            format!("{} - {latest}", hours(forecast.hours_earliest)).into(),
            hours(forecast.span_hours).into(),
        ]);
    }
    table
}

fn hours(value: f64) -> String {
    span((value * 3_600_000.0) as i64)
}
