//! `history failures`: hosts that failed more than once.

use evenkeel_proto::v1::{HistoryFailuresRequest, RepeatedFailure};

use super::super::{Context, or_dash};
use super::{NOTHING, lasting, rest, scope};
use crate::args::history::ScopeArgs;
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Cell, Column, Table};
use crate::render::tone::Tone;
use crate::render::{Screen, count};

/// Asks and shows.
pub async fn run(context: &Context, args: ScopeArgs) -> Result<(), CliError> {
    let question = HistoryFailuresRequest { scope: scope(context, args).await? };
    let mut history = context.client.history();
    let answer = context.client.ask(question, async |_, request| history.failures(request).await).await?;
    context.show(&answer, |screen| {
        let mut page = Page::new(screen);
        if answer.hosts.is_empty() {
            let text = if answer.records == 0 { NOTHING } else { "No host failed more than once." };
            page.line(Tone::Normal, text);
        } else {
            page.table(&table(screen, &answer.hosts));
        }
        rest(&mut page, answer.others, "host", answer.left_out);
        page.finish()
    })
}

fn table(screen: &Screen, hosts: &[RepeatedFailure]) -> Table {
    let mut table = Table::new([
        Column::name("HOST"),
        Column::number("FAILED"),
        Column::number("OK").rank(3),
        Column::number("AGAIN AFTER"),
        Column::number("LAST GAP").rank(2),
        Column::text("LAST FAILURE").rank(4),
        Column::text("SINCE THEN").rank(1),
        Column::prose("MOST FREQUENT ERROR"),
    ]);
    for host in hosts {
        let since = if host.worked_since {
            Cell::toned("worked", Tone::Green)
        } else {
            Cell::toned("failing", Tone::Red)
        };
        table.row([
            host.host.as_str().into(),
            Cell::toned(count(host.failure_count), Tone::Strong),
            count(host.success_count).into(),
            lasting(host.median_gap_ms).into(),
            lasting(host.last_gap_ms).into(),
            screen.at(host.last_failure_ms).into(),
            since,
            or_dash(&host.error_code).into(),
        ]);
    }
    table
}
