//! `history score`: how anomalous hosts' migrations are, whom that calls, and where it is going.

use evenkeel_proto::v1::{HistoryScoresRequest, HistoryScoresResponse, HostEscalation, HostTrend};

use super::super::Context;
use super::super::scores::course;
use super::{NOTHING, rest, scope};
use crate::args::history::ScoreArgs;
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Cell, Column, Table};
use crate::render::tone::{Tone, of_word};
use crate::render::{NO_DATA, Screen, count, counted};

/// Asks and shows. Of one host, JSON is its score object alone, as other tools know it.
pub async fn run(context: &Context, args: ScoreArgs) -> Result<(), CliError> {
    let one = args.host.is_some();
    let question = HistoryScoresRequest {
        scope: scope(context, args.scope).await?,
        host: args.host.unwrap_or_default(),
        with_history: args.history || one,
    };
    let mut history = context.client.history();
    let answer = context.client.ask(question, async |_, request| history.scores(request).await).await?;
    match answer.scores.as_slice() {
        [only] if one => context.show(only, |screen| about(screen, &answer)),
        _ => context.show(&answer, |screen| all(screen, &answer, args.history)),
    }
}

fn all(screen: &Screen, answer: &HistoryScoresResponse, with_history: bool) -> String {
    let mut page = Page::new(screen);
    if answer.scores.is_empty() {
        page.line(Tone::Normal, NOTHING);
    } else {
        page.table(&table(screen, answer, with_history));
        page.gap();
        let alerting = match answer.alerting {
            0 => "No host has reached the score from which it alerts.".to_owned(),
            1 => "1 host has reached the score from which it alerts.".to_owned(),
            hosts => format!("{} have reached the score from which they alert.", counted(hosts, "host")),
        };
        page.line(Tone::Normal, &alerting);
    }
    rest(&mut page, answer.others, "host", answer.left_out);
    page.finish()
}

fn table(screen: &Screen, answer: &HistoryScoresResponse, with_history: bool) -> Table {
    let mut table = Table::new([
        Column::name("HOST"),
        Column::number("SCORE"),
        Column::text("SEVERITY"),
        Column::number("FAILED"),
        Column::number("OK").rank(5),
        Column::text("LAST FAILURE").rank(4),
        Column::text("TREND").rank(2),
        Column::text("COURSE").only_if(with_history).rank(6),
        Column::text("ALERTS").rank(1),
        Column::text("ACTION").rank(3),
    ]);
    let beside = answer.escalations.iter().zip(&answer.trends);
    for (score, (escalation, trend)) in answer.scores.iter().zip(beside) {
        table.row([
            score.host.as_str().into(),
            Cell::toned(score.anomaly_score.to_string(), of_word(&score.severity)),
            Cell::word(&score.severity),
            count(score.failure_count).into(),
            count(score.success_count).into(),
            score.last_failure.as_deref().unwrap_or(NO_DATA).into(),
            going(trend),
            course(&trend.history, screen.unicode, f64::max).into(),
            calls(escalation),
            score.recommended_action.as_str().into(),
        ]);
    }
    table
}

/// Where a score is going; only what is bad has a colour.
fn going(trend: &HostTrend) -> Cell {
    let text = match (trend.direction.as_str(), trend.change) {
        ("rising" | "falling", Some(change)) => format!("{} {change:+}", trend.direction),
        ("unknown", _) => NO_DATA.to_owned(),
        (word, _) => word.to_owned(),
    };
    let tone = match trend.direction.as_str() {
        "rising" => Tone::Red,
        "falling" => Tone::Green,
        _ => Tone::Normal,
    };
    Cell::toned(text, tone)
}

/// Whom an alert is for, and how soon an answer is due.
fn calls(escalation: &HostEscalation) -> Cell {
    if !escalation.alert {
        return Cell::toned("no", Tone::Faint);
    }
    let tone = if escalation.page { Tone::Red } else { Tone::Amber };
    Cell::toned(format!("{}, {}", escalation.tier.replace('_', " "), due(escalation)), tone)
}

fn due(escalation: &HostEscalation) -> String {
    match escalation.answer_minutes {
        None => "next business day".to_owned(),
        Some(minutes) if minutes % 60 == 0 => format!("{} h", minutes / 60),
        Some(minutes) => format!("{minutes} min"),
    }
}

fn about(screen: &Screen, answer: &HistoryScoresResponse) -> String {
    let mut page = Page::new(screen);
    let found = answer.scores.first().zip(answer.escalations.first().zip(answer.trends.first()));
    let Some((score, (escalation, trend))) = found else { return page.finish() };
    let lead = format!("{}: {} of 100, {}", score.host, score.anomaly_score, score.severity);
    page.line(of_word(&score.severity), &lead);
    let trend_text = match (trend.direction.as_str(), trend.week_ago) {
        (direction, Some(before)) => format!("{direction} ({before} a week ago)"),
        (_, None) => "not known: no score of a week ago is archived".to_owned(),
    };
    let alert = match (escalation.alert, escalation.page) {
        (_, true) => "yes, and pages",
        (true, false) => "yes",
        (false, _) => "no",
    };
    let reason = escalation.reason.as_ref().map(|reason| reason.text.as_str()).unwrap_or_default();
    let mut fields = vec![
        (
            "migrations",
            format!("{} failed, {} worked", count(score.failure_count), count(score.success_count)),
        ),
        ("last failure", score.last_failure.clone().unwrap_or_else(|| "none".to_owned())),
        ("action", score.recommended_action.replace('_', " ")),
        ("environment", escalation.environment.clone()),
        ("alerts", format!("{alert}: {reason}")),
        ("whose work", format!("{}, answer within: {}", escalation.who, due(escalation))),
        ("trend", trend_text),
    ];
    if trend.history.len() > 1 {
        fields.push(("course", course(&trend.history, screen.unicode, f64::max)));
    }
    page.fields(&fields);
    page.finish()
}
