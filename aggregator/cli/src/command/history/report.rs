//! `history report`: the last seven days against the seven before.

use evenkeel_proto::v1::{HistoryReportRequest, HistoryReportResponse, HostWeeks, WeekOfMigrations};

use super::super::Context;
use super::{NOTHING, correlate, percent};
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Cell, Column, Table};
use crate::render::tone::Tone;
use crate::render::{Screen, count, counted};

/// What became of hosts, with the title they are shown under and its tone.
const STANDINGS: [(&str, &str, Tone); 5] = [
    ("new", "New offenders", Tone::Red),
    ("still", "Still failing", Tone::Red),
    ("easing", "Failed once, repeatedly the week before", Tone::Amber),
    ("recovered", "Recovered", Tone::Green),
    ("quiet", "Not migrated since", Tone::Faint),
];
/// New error codes shown.
const CODES: usize = 10;

/// Asks and shows.
pub async fn run(context: &Context, group: Option<String>) -> Result<(), CliError> {
    let question =
        HistoryReportRequest { cluster: context.cluster.clone(), group: group.unwrap_or_default() };
    let mut history = context.client.history();
    let answer = context.client.ask(question, async |_, request| history.report(request).await).await?;
    context.show(&answer, |screen| page(screen, &answer))
}

fn page(screen: &Screen, answer: &HistoryReportResponse) -> String {
    let mut page = Page::new(screen);
    let (this, before) = (answer.this_week.unwrap_or_default(), answer.week_before.unwrap_or_default());
    if this.migrations + before.migrations == 0 {
        let text = answer.last_ms.map_or_else(
            || NOTHING.to_owned(),
            |last| {
                format!("Nothing was migrated in the last two weeks; the last time was {}.", screen.at(last))
            },
        );
        page.line(Tone::Normal, &text);
        return page.finish();
    }
    page.line(Tone::Strong, &format!("The week to {}", screen.at(answer.to_ms)));
    page.inset(&totals(this, before));
    if answer.hosts.is_empty() {
        page.gap();
        page.line(Tone::Green, "No host failed more than once in either week.");
    }
    for (standing, title, tone) in STANDINGS {
        let hosts: Vec<&HostWeeks> = answer.hosts.iter().filter(|host| host.standing == standing).collect();
        if !hosts.is_empty() {
            page.section(title);
            page.inset(&table(&hosts, tone));
        }
    }
    if !answer.new_codes.is_empty() {
        page.section("Errors that the week before did not have");
        for code in answer.new_codes.iter().take(CODES) {
            page.bullet(&format!("{} ({})", code.error_code, counted(code.failures, "failure")));
        }
        let more = answer.new_codes.len().saturating_sub(CODES) as u64;
        if more > 0 {
            page.line(Tone::Normal, &format!("and {} more", count(more)));
        }
    }
    page.section("Hosts that fail together, over four weeks");
    if answer.clusters.is_empty() {
        page.line(Tone::Normal, "None beyond chance.");
    }
    correlate::clusters(&mut page, &answer.clusters);
    super::rest(&mut page, 0, "host", answer.left_out);
    page.finish()
}

fn totals(this: WeekOfMigrations, before: WeekOfMigrations) -> Table {
    let mut table =
        Table::new([Column::text(""), Column::number("THIS WEEK"), Column::number("THE WEEK BEFORE")]);
    table.row(["migrations".into(), count(this.migrations).into(), count(before.migrations).into()]);
    let tone = if this.failures > before.failures { Tone::Red } else { Tone::Normal };
    table.row(["failures".into(), Cell::toned(count(this.failures), tone), count(before.failures).into()]);
    table.row([
        "share".into(),
        percent(this.failure_share).into(),
        Cell::from(percent(before.failure_share)),
    ]);
    table
}

fn table(hosts: &[&HostWeeks], tone: Tone) -> Table {
    let mut table = Table::new([
        Column::name("HOST"),
        Column::number("FAILED"),
        Column::number("OF"),
        Column::number("WEEK BEFORE"),
        Column::number("OF"),
    ]);
    for host in hosts {
        let (this, before) = (host.this_week.unwrap_or_default(), host.week_before.unwrap_or_default());
        table.row([
            Cell::toned(host.host.as_str(), tone),
            count(this.failures).into(),
            count(this.migrations).into(),
            count(before.failures).into(),
            count(before.migrations).into(),
        ]);
    }
    table
}
