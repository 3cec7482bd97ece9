//! `history correlate`: hosts that fail together with the same error, and the matrix of each with each.

use evenkeel_proto::v1::{FailureCluster, HistoryCorrelationRequest, HistoryCorrelationResponse};

use super::super::{Context, millis};
use super::{NOTHING, lasting, part};
use crate::args::history::CorrelateArgs;
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Cell, Column, Table};
use crate::render::tone::Tone;
use crate::render::{Screen, count, counted, number};

/// Columns that a coefficient takes in the matrix, with the space before it.
const COLUMN: usize = 7;
/// Columns of a host and its number.
const HOST: usize = 34;

/// Asks and shows.
pub async fn run(context: &Context, args: CorrelateArgs) -> Result<(), CliError> {
    let question = HistoryCorrelationRequest {
        window_ms: args.window.map(millis).unwrap_or_default(),
        scope: part(context, args.part, None).await?,
    };
    let mut history = context.client.history();
    let answer = context.client.ask(question, async |_, request| history.correlation(request).await).await?;
    context.show(&answer, |screen| page(screen, &answer, args.matrix))
}

fn page(screen: &Screen, answer: &HistoryCorrelationResponse, matrix: bool) -> String {
    let mut page = Page::new(screen);
    if answer.records == 0 {
        page.line(Tone::Normal, NOTHING);
        return page.finish();
    }
    if answer.clusters.is_empty() {
        page.line(Tone::Normal, "No hosts fail together beyond chance.");
    } else {
        page.line(Tone::Strong, "Hosts that fail together");
        clusters(&mut page, &answer.clusters);
    }
    page.gap();
    page.line(
        Tone::Normal,
        &format!(
            "Compared: {} by {} of {} in which anything was migrated; {} tried.",
            counted(answer.hosts.len() as u64, "host"),
            counted(answer.windows, "window"),
            lasting(answer.window_ms.unsigned_abs()),
            counted(answer.tried, "pair")
        ),
    );
    left_out(&mut page, answer);
    if matrix && !answer.hosts.is_empty() {
        page.section("Coefficient of each with each, over all errors");
        let shown = shown(screen, answer.hosts.len());
        page.inset(&table(answer, shown));
        if shown < answer.hosts.len() {
            let more = counted((answer.hosts.len() - shown) as u64, "column");
            page.line(Tone::Normal, &format!("{more} more; --output json has them."));
        }
    }
    page.finish()
}

/// What the bounds kept out of the comparison.
fn left_out(page: &mut Page<'_>, answer: &HistoryCorrelationResponse) {
    let mut told = Vec::new();
    if answer.hosts_left_out > 0 {
        told.push(format!("{} that failed less often", counted(answer.hosts_left_out, "host")));
    }
    if answer.codes_left_out > 0 {
        told.push(counted(answer.codes_left_out, "rarer error code"));
    }
    if answer.without_code > 0 {
        told.push(format!("{} without a code", counted(answer.without_code, "failure")));
    }
    if answer.windows_left_out {
        told.push("windows before those; --window makes them longer".to_owned());
    }
    if !told.is_empty() {
        page.line(Tone::Amber, &format!("Left out: {}.", told.join(", ")));
    }
}

/// Each cluster with its hosts, and how sure that is.
pub fn clusters(page: &mut Page<'_>, clusters: &[FailureCluster]) {
    for (n, cluster) in clusters.iter().enumerate() {
        page.section(&format!("Cluster {} ({})", letters(n), cluster.error_code));
        page.bullet(&cluster.hosts.join(", "));
        page.bullet(&format!(
            "coefficient {} (weakest pair {}), together in {}, by chance {}",
            number(cluster.coefficient, 2),
            number(cluster.weakest, 2),
            counted(cluster.windows, "window"),
            odds(cluster.chance)
        ));
    }
}

/// A small probability as people say it.
fn odds(chance: f64) -> String {
    if chance > 1e-9 {
        format!("1 in {}", count((1.0 / chance).round() as u64))
    } else {
        "less than 1 in a billion".to_owned()
    }
}

/// A, B, ..., Z, AA, AB, ...
fn letters(n: usize) -> String {
    let letter = char::from(b'A' + u8::try_from(n % 26).unwrap_or(0));
    if n < 26 { letter.to_string() } else { format!("{}{letter}", letters(n / 26 - 1)) }
}

/// Columns of the matrix that the screen has room for.
fn shown(screen: &Screen, hosts: usize) -> usize {
    let room = screen.text_width().saturating_sub(HOST) / COLUMN;
    if screen.width.is_none() { hosts } else { hosts.min(room.max(1)) }
}

/// Numbers stand for hosts at the head of the columns, where names have no room.
fn table(answer: &HistoryCorrelationResponse, shown: usize) -> Table {
    let mut columns = vec![Column::number(""), Column::name("")];
    columns.extend((0..shown).map(|_| Column::number("")));
    let mut table = Table::new(columns).bare();
    let head = (1..=shown).map(|n| Cell::toned(n.to_string(), Tone::Strong));
    table.row([Cell::default(), Cell::default()].into_iter().chain(head).collect::<Vec<_>>());
    for (n, row) in answer.matrix.iter().enumerate() {
        let cell = |coefficient: &f64| {
            let tone = if *coefficient >= 0.5 { Tone::Amber } else { Tone::Normal };
            Cell::toned(number(*coefficient, 2), tone)
        };
        let cells = row.coefficients.iter().take(shown).map(cell);
        let start = [(n + 1).to_string().into(), row.host.as_str().into()];
        table.row(start.into_iter().chain(cells).collect::<Vec<_>>());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_have_names_and_odds_are_said_plainly() {
        assert_eq!([0, 25, 26, 51, 52, 701, 702].map(letters), ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]);
        assert_eq!(
            [0.25, 1e-6, 1e-30, 0.0].map(odds),
            ["1 in 4", "1 in 1 000 000", "less than 1 in a billion", "less than 1 in a billion"]
        );
    }
}
