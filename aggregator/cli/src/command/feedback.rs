//! `feedback` and `detectors`: what people think of anomalies, and what that says about each detector.

use std::time::Duration;

use evenkeel_proto::v1::{DetectorRecord, GiveFeedbackRequest, ListDetectorsRequest};

use super::{Context, millis};
use crate::args::Verdict;
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Column, Table};
use crate::render::tone::Tone;
use crate::render::{NO_DATA, number};

/// How far back without `--since`.
const DEFAULT_SINCE: Duration = Duration::from_hours(24 * 30);

/// Tells what an anomaly was.
pub async fn give(
    context: &Context,
    anomaly: String,
    verdict: Verdict,
    note: Option<String>,
) -> Result<(), CliError> {
    let good = verdict == Verdict::Good;
    let question = GiveFeedbackRequest { anomaly, good, note: note.unwrap_or_default() };
    let mut fleet = context.client.fleet();
    let answer = context.client.ask(question, async |_, request| fleet.give_feedback(request).await).await?;
    context.show(&answer, |screen| {
        let mut page = Page::new(screen);
        let what = if good { "real" } else { "a false alarm" };
        page.line(Tone::Normal, &format!("Noted: {} was {what}.", answer.anomaly));
        page.finish()
    })
}

/// What each detector found.
pub async fn detectors(context: &Context, since: Option<Duration>) -> Result<(), CliError> {
    let now_ms = context.client.status().await?.now_ms;
    let since_ms = Some(now_ms.saturating_sub(millis(since.unwrap_or(DEFAULT_SINCE))));
    let question = ListDetectorsRequest { cluster: context.cluster.clone(), since_ms };
    let mut fleet = context.client.fleet();
    let answer = context.client.ask(question, async |_, request| fleet.list_detectors(request).await).await?;
    context.show(&answer, |screen| {
        let mut page = Page::new(screen);
        page.table(&table(&answer.detectors));
        if answer.truncated {
            page.line(
                Tone::Amber,
                "Only the newest anomalies were counted: narrow the question with --since.",
            );
        }
        page.finish()
    })
}

fn table(detectors: &[DetectorRecord]) -> Table {
    let mut table = Table::new([
        Column::text("DETECTOR"),
        Column::number("ANOMALIES"),
        Column::number("GOOD"),
        Column::number("BAD"),
        Column::number("FALSE ALARMS"),
        Column::number("95 % INTERVAL").rank(1),
    ]);
    let percent = |share: Option<f64>| share.map_or_else(|| NO_DATA.to_owned(), |s| number(100.0 * s, 0));
    for detector in detectors {
        let interval = match (detector.share_low, detector.share_high) {
            (Some(low), Some(high)) => format!("{} - {} %", percent(Some(low)), percent(Some(high))),
            _ => NO_DATA.to_owned(),
        };
        let share = match detector.false_alarm_share {
            Some(share) => format!("{} %", percent(Some(share))),
            None => NO_DATA.to_owned(),
        };
        table.row([
            detector.detector.as_str().into(),
            detector.anomalies.to_string().into(),
            detector.good.to_string().into(),
            detector.bad.to_string().into(),
            share.into(),
            interval.into(),
        ]);
    }
    table
}
