//! `scores`: how healthy nodes and guests are, why points are missing, and the course of the score.

use evenkeel_proto::v1::{HealthScore, ListScoresRequest, ScorePoint};

use super::{Context, guest_label, millis, node_or_all, spans_clusters, vmid_or_all};
use crate::args::ScoresArgs;
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Cell, Column, Table};
use crate::render::tone::{Tone, of_word};
use crate::render::{Screen, number};

/// Characters of a course.
const WIDTH: usize = 24;
/// Heights of a course, lowest first.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The same where the screen shows ASCII only.
const ASCII_BARS: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];

/// Asks and shows.
pub async fn run(context: &Context, args: ScoresArgs) -> Result<(), CliError> {
    let all = args.node.is_none() && args.guest.is_none();
    let question = ListScoresRequest {
        cluster: context.cluster.clone(),
        node: node_or_all(args.node),
        vmid: vmid_or_all(args.guest),
        history_ms: args.history.map(millis),
    };
    let mut fleet = context.client.fleet();
    let answer = context.client.ask(question, async |_, request| fleet.list_scores(request).await).await?;
    context.show(&answer, |screen| {
        let mut page = Page::new(screen);
        let (nodes, guests): (Vec<&HealthScore>, Vec<&HealthScore>) =
            answer.scores.iter().partition(|score| score.vmid.is_none());
        // Of a whole fleet only the guests that lack something are worth a line.
        let shown: Vec<&HealthScore> =
            guests.iter().copied().filter(|guest| !all || guest.status != "healthy").collect();
        let well = guests.len() - shown.len();
        if nodes.is_empty() && guests.is_empty() {
            page.line(Tone::Normal, "Nothing is being looked at yet: no agent has reported.");
        } else {
            let rows: Vec<&HealthScore> = nodes.into_iter().chain(shown).collect();
            page.table(&table(screen, &rows));
        }
        if well > 0 {
            page.gap();
            page.line(Tone::Normal, &format!("{well} more guests are healthy."));
        }
        if answer.truncated {
            page.line(Tone::Amber, "There are more: narrow the question with --node or --guest.");
        }
        page.finish()
    })
}

fn table(screen: &Screen, scores: &[&HealthScore]) -> Table {
    let several = spans_clusters(scores.iter().map(|s| s.cluster.as_str()));
    let history = scores.iter().any(|score| !score.history.is_empty());
    let mut table = Table::new([
        Column::text("CLUSTER").only_if(several),
        Column::text("NODE"),
        Column::name("GUEST"),
        Column::number("SCORE"),
        Column::text("STATUS"),
        Column::text("COURSE").only_if(history).rank(1),
        Column::remark("WHY"),
    ]);
    for score in scores {
        let why: Vec<String> =
            score.parts.iter().map(|part| format!("{} {}", number(part.points, 0), part.text)).collect();
        let guest = score.vmid.map(|vmid| guest_label(vmid, &score.name)).unwrap_or_default();
        table.row([
            score.cluster.as_str().into(),
            score.node.as_str().into(),
            guest.into(),
            Cell::toned(number(score.score, 0), of_word(&score.status)),
            Cell::word(&score.status),
            course(&score.history, screen.unicode, f64::min).into(),
            why.join("; ").into(),
        ]);
    }
    table
}

/// The course of a score, oldest first, each character the worst of its stretch by `worse`: a short trouble must show. A
/// stretch without data is a space.
pub(super) fn course(history: &[ScorePoint], unicode: bool, worse: fn(f64, f64) -> f64) -> String {
    let (Some(first), Some(last)) = (history.first(), history.last()) else { return String::new() };
    let span = last.at_ms.saturating_sub(first.at_ms).max(1) as f64;
    let mut worst: [Option<f64>; WIDTH] = [None; WIDTH];
    for point in history {
        let place = (point.at_ms.saturating_sub(first.at_ms) as f64 / span * (WIDTH - 1) as f64).round();
        if let (Some(slot), Some(score)) = (worst.get_mut(place.max(0.0) as usize), point.score) {
            *slot = Some(slot.map_or(score, |so_far| worse(so_far, score)));
        }
    }
    let bars = if unicode { BARS } else { ASCII_BARS };
    let bar = |score: f64| bars[((score / 100.0 * 7.0).round().clamp(0.0, 7.0)) as usize];
    // Rows are written on change: between two of them the last one holds.
    let mut held = None;
    let shown = worst.map(|score| {
        held = score.or(held);
        held.map_or(' ', bar)
    });
    shown.iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dip_shows_in_the_course_and_values_hold_until_the_next() {
        let point = |at_ms, score| ScorePoint { at_ms, score, status: String::new() };
        let history = [
            point(0, Some(100.0)),
            point(500, Some(40.0)),
            point(520, Some(100.0)),
            point(1000, Some(100.0)),
        ];
        let shown = course(&history, false, f64::min);
        assert_eq!(shown.chars().count(), WIDTH);
        assert!(shown.starts_with("###########") && shown.ends_with('#') && shown.contains('-'), "{shown}");
        assert_eq!(course(&[], true, f64::min), "");
        assert_eq!(course(&[point(5, None)], true, f64::min).trim(), "", "no data is no bar");
    }
}
