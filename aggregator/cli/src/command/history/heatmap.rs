//! `history heatmap`: hosts by score with marks for their intensity, and each of them over time.

use evenkeel_common::time::Timestamp;
use evenkeel_proto::v1::{HeatCell, HeatRow, HistoryHeatmapRequest, HistoryHeatmapResponse};

use super::super::Context;
use super::{NOTHING, rest, scope};
use crate::args::history::{ColumnOf, HeatmapArgs};
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::tone::{Tone, of_word};
use crate::render::{Screen, plain};

/// Names are cut to this many characters where space is limited.
const NAME: usize = 24;
/// Columns of marks, score and the spaces between.
const BESIDE: usize = 6 + 1 + 2 + 3 + 2;

/// The severities with the mark of a host and of a cell, as Unicode and as ASCII.
const MARKS: [Mark; 5] = [
    Mark { severity: "critical", host: ("🔥🔥🔥", "###"), wide: 6, cell: ('█', '#') },
    Mark { severity: "high", host: ("🔥🔥", "##"), wide: 4, cell: ('▓', '+') },
    Mark { severity: "elevated", host: ("🔥", "#"), wide: 2, cell: ('▒', '-') },
    Mark { severity: "normal", host: ("✓", "ok"), wide: 1, cell: ('·', '.') },
    // Nothing was migrated.
    Mark { severity: "", host: ("", ""), wide: 0, cell: (' ', ' ') },
];

/// How a severity is drawn.
struct Mark {
    severity: &'static str,
    host: (&'static str, &'static str),
    /// Columns that the Unicode mark of a host takes: a flame takes two.
    wide: usize,
    cell: (char, char),
}

/// Asks and shows.
pub async fn run(context: &Context, args: HeatmapArgs) -> Result<(), CliError> {
    let (step_ms, columns) = match args.by {
        ColumnOf::Hour => (3_600_000, 24),
        ColumnOf::Day => (86_400_000, 14),
    };
    let question = HistoryHeatmapRequest {
        scope: scope(context, args.scope).await?,
        step_ms,
        columns: args.columns.unwrap_or(columns),
    };
    let mut history = context.client.history();
    let answer = context.client.ask(question, async |_, request| history.heatmap(request).await).await?;
    context.show(&answer, |screen| page(screen, &answer))
}

fn page(screen: &Screen, answer: &HistoryHeatmapResponse) -> String {
    let mut page = Page::new(screen);
    if answer.hosts.is_empty() {
        page.line(Tone::Normal, NOTHING);
        return page.finish();
    }
    let longest = answer.hosts.iter().map(|row| plain(&row.host).chars().count()).max().unwrap_or(0);
    let name = if screen.width.is_some() { longest.min(NAME) } else { longest };
    let room = screen.width.map_or(usize::MAX, |width| width.saturating_sub(name + BESIDE + 1)).max(8);
    // Columns that have no room each are drawn together.
    let together = (answer.columns as usize).div_ceil(room).max(1);
    let unit = unit(answer.step_ms, together);
    let to_ms = answer.from_ms.saturating_add(answer.step_ms.saturating_mul(i64::from(answer.columns)));
    page.line(
        Tone::Strong,
        &format!("{} to {}, in UTC; a column: {unit}", stamp(answer.from_ms), stamp(to_ms.saturating_sub(1))),
    );
    page.gap();
    for row in &answer.hosts {
        line(&mut page, screen, row, name, together);
    }
    page.gap();
    legend(&mut page, screen);
    rest(&mut page, answer.others, "host", 0);
    page.finish()
}

fn line(page: &mut Page<'_>, screen: &Screen, row: &HeatRow, name: usize, together: usize) {
    let mark = of(&row.severity);
    let tone = of_word(&row.severity);
    let (mark, wide) =
        if screen.unicode { (mark.host.0, mark.wide) } else { (mark.host.1, mark.host.1.len()) };
    let mark = format!("{mark}{}", " ".repeat(7_usize.saturating_sub(wide)));
    let mut host = screen.plain(&row.host);
    if host.chars().count() > name {
        host = host.chars().take(name.saturating_sub(3)).chain("...".chars()).collect();
    }
    let host = format!("{host:name$}  ");
    let score = format!("{:>3}  ", row.anomaly_score);
    let cells: Vec<(Tone, String)> = row
        .cells
        .chunks(together)
        .map(|cells| {
            let worst = worst(cells);
            let cell = if screen.unicode { worst.cell.0 } else { worst.cell.1 };
            (of_word(worst.severity), cell.to_string())
        })
        .collect();
    let mut pieces = vec![(tone, mark.as_str()), (Tone::Normal, host.as_str()), (tone, score.as_str())];
    pieces.extend(cells.iter().map(|(tone, text)| (*tone, text.as_str())));
    page.pieces(&pieces);
}

fn legend(page: &mut Page<'_>, screen: &Screen) {
    let told: Vec<String> = MARKS
        .iter()
        .filter(|mark| !mark.severity.is_empty())
        .map(|mark| {
            let cell = if screen.unicode { mark.cell.0 } else { mark.cell.1 };
            format!("{cell} {}", mark.severity)
        })
        .collect();
    page.line(Tone::Normal, &format!("{}; blank: nothing was migrated", told.join(", ")));
}

/// How a severity is drawn; one that this version does not know like the worst.
fn of(severity: &str) -> &'static Mark {
    MARKS.iter().find(|mark| mark.severity == severity).unwrap_or(&MARKS[0])
}

/// The worst of some cells.
fn worst(cells: &[HeatCell]) -> &'static Mark {
    let found = MARKS.iter().find(|mark| cells.iter().any(|cell| cell.severity == mark.severity));
    found.unwrap_or(&MARKS[0])
}

/// What a column is, as in "2 days".
fn unit(step_ms: i64, together: usize) -> String {
    let noun = if step_ms < 86_400_000 { "hour" } else { "day" };
    if together == 1 { noun.to_owned() } else { format!("{together} {noun}s") }
}

/// A date and time, UTC.
fn stamp(ms: i64) -> String {
    Timestamp::from_millis(ms).to_string().chars().take(16).collect::<String>().replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_columns_drawn_together_the_worst_shows() {
        let cell = |severity: &str| HeatCell { severity: severity.into(), ..HeatCell::default() };
        let drawn =
            |severities: &[&str]| worst(&severities.iter().map(|word| cell(word)).collect::<Vec<_>>()).cell.1;
        assert_eq!(drawn(&["", "normal", ""]), '.');
        assert_eq!(drawn(&["normal", "high", "elevated"]), '+');
        assert_eq!(drawn(&["critical", "", ""]), '#');
        assert_eq!(drawn(&["", ""]), ' ');
        assert_eq!(of("unheard-of").severity, "critical");
    }
}
