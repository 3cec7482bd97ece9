//! `history summary`: totals, who fails most, and with what.

use evenkeel_proto::v1::{HistorySummaryRequest, HistorySummaryResponse};

use super::super::Context;
use super::{NOTHING, lasting, percent, scope};
use crate::args::history::ScopeArgs;
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Column, Table};
use crate::render::tone::Tone;
use crate::render::{NO_DATA, Screen, count, counted};

/// Offenders and codes shown without `--top`.
const SHOWN: u32 = 5;

/// Asks and shows.
pub async fn run(context: &Context, mut args: ScopeArgs) -> Result<(), CliError> {
    args.top.get_or_insert(SHOWN);
    let question = HistorySummaryRequest { scope: scope(context, args).await? };
    let mut history = context.client.history();
    let answer = context.client.ask(question, async |_, request| history.summary(request).await).await?;
    context.show(&answer, |screen| page(screen, &answer))
}

fn page(screen: &Screen, answer: &HistorySummaryResponse) -> String {
    let mut page = Page::new(screen);
    if answer.migrations == 0 {
        page.line(Tone::Normal, NOTHING);
        return page.finish();
    }
    let at = |ms: Option<i64>| ms.map_or_else(|| NO_DATA.to_owned(), |ms| screen.at(ms));
    let took = answer.mean_duration_ms.map_or_else(|| NO_DATA.to_owned(), lasting);
    page.fields(&[
        ("migrations", count(answer.migrations)),
        ("failures", format!("{} ({})", count(answer.failures), percent(answer.failure_share))),
        ("from", at(answer.first_ms)),
        ("to", at(answer.last_ms)),
        (
            "hosts",
            format!(
                "{}, {} with a failure, {} with several",
                count(answer.hosts),
                count(answer.failing_hosts),
                count(answer.repeating_hosts)
            ),
        ),
        ("retries", count(answer.retries)),
        ("mean duration", took),
    ]);
    if !answer.offenders.is_empty() {
        page.section(&format!("The {} that failed most", counted(answer.offenders.len() as u64, "host")));
        let mut table = Table::new([
            Column::name("HOST"),
            Column::number("FAILED"),
            Column::number("OF").rank(1),
            Column::number("SHARE"),
        ]);
        for host in &answer.offenders {
            let share = host.failures as f64 / (host.migrations.max(1)) as f64;
            table.row([
                host.host.as_str().into(),
                count(host.failures).into(),
                count(host.migrations).into(),
                percent(Some(share)).into(),
            ]);
        }
        page.inset(&table);
    }
    if answer.failures > 0 {
        page.section("With what");
        let mut table = Table::new([Column::prose("ERROR"), Column::number("FAILURES")]);
        for code in &answer.codes {
            table.row([code.error_code.as_str().into(), count(code.failures).into()]);
        }
        for (label, failures) in [("(others)", answer.other_codes), ("(without a code)", answer.without_code)]
        {
            if failures > 0 {
                table.row([label.into(), count(failures).into()]);
            }
        }
        page.inset(&table);
    }
    super::rest(&mut page, 0, "host", answer.left_out);
    page.finish()
}
