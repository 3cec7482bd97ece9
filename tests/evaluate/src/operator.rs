//! What an operator counts: labelled events caught, and false-alarm episodes per node and day.
//!
//! An episode is a run of flagged rows further than half an hour from every event, joined when closer than ten
//! minutes. At a budget the threshold is chosen in hindsight for each node, the lowest that keeps the budget and
//! flags at most 1 % of the rows outside events: the detector's best case, equal for all.

/// The scores of one node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Seconds between rows.
    pub step_s: i64,
    /// Whether a row lies in a labelled event.
    pub labels: Vec<bool>,
    /// The detector's score of the row.
    pub scores: Vec<f64>,
}

/// What was caught over all nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caught {
    /// Labelled events.
    pub events: usize,
    /// Those with a flagged row.
    pub caught: usize,
    /// False-alarm episodes per node and day.
    pub false_per_day: f64,
}

const SLACK_S: i64 = 1800;
const GAP_S: i64 = 600;
const MOST_FLAGGED: f64 = 0.01;

/// Events caught when at most `budget` episodes per node and day are false.
pub fn caught_within(nodes: &[Node], budget: f64) -> Caught {
    sum(nodes, |node| {
        let mut sorted = node.scores.clone();
        sorted.sort_by(f64::total_cmp);
        let quantile = |q: f64| sorted[(q * (sorted.len() - 1) as f64).round() as usize];
        let tail = (0..200).map(|i| 1.0 - 0.01 * f64::from(i) / 199.0);
        let bulk = (1..200).map(|i| 0.99 - 0.49 * f64::from(i) / 199.0);
        let mut best = Flagged::default();
        for threshold in tail.chain(bulk).map(quantile) {
            let flagged = flagged(node, |score| score >= threshold);
            if flagged.false_per_day > budget || flagged.share > MOST_FLAGGED {
                break;
            }
            best = flagged;
        }
        best
    })
}

/// Events caught when a score above `threshold` alarms.
pub fn shipped(nodes: &[Node], threshold: f64) -> Caught {
    sum(nodes, |node| flagged(node, |score| score > threshold))
}

#[derive(Clone, Copy, Debug, Default)]
struct Flagged {
    caught: usize,
    false_per_day: f64,
    share: f64,
}

fn sum(nodes: &[Node], judge: impl Fn(&Node) -> Flagged) -> Caught {
    let mut total = Caught::default();
    let (mut days, mut alarms) = (0.0, 0.0);
    for node in nodes {
        let found = judge(node);
        let of_node = (node.labels.len() as i64 * node.step_s) as f64 / 86_400.0;
        total.events += events(&node.labels).len();
        total.caught += found.caught;
        days += of_node;
        alarms += found.false_per_day * of_node;
    }
    total.false_per_day = if days > 0.0 { alarms / days } else { 0.0 };
    total
}

fn flagged(node: &Node, on: impl Fn(f64) -> bool) -> Flagged {
    let events = events(&node.labels);
    let slack = (SLACK_S / node.step_s) as usize;
    let gap = (GAP_S / node.step_s).max(1) as usize;
    let mut near = vec![false; node.labels.len()];
    for &(from, to) in &events {
        near[from.saturating_sub(slack)..(to + slack).min(node.labels.len())].fill(true);
    }
    let (mut episodes, mut rows, mut last) = (0_usize, 0_usize, None);
    for (i, &score) in node.scores.iter().enumerate().filter(|(i, _)| !near[*i]) {
        if on(score) {
            episodes += usize::from(last.is_none_or(|last| i - last > gap));
            rows += 1;
            last = Some(i);
        }
    }
    let days = (node.labels.len() as i64 * node.step_s) as f64 / 86_400.0;
    let outside = near.iter().filter(|near| !**near).count().max(1);
    Flagged {
        caught: events.iter().filter(|&&(from, to)| node.scores[from..to].iter().any(|&s| on(s))).count(),
        false_per_day: episodes as f64 / days,
        share: rows as f64 / outside as f64,
    }
}

/// Labelled stretches, `from` inclusive, `to` exclusive.
fn events(labels: &[bool]) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (i, _) in labels.iter().enumerate().filter(|(_, label)| **label) {
        match found.last_mut() {
            Some((_, to)) if *to == i => *to = i + 1,
            _ => found.push((i, i + 1)),
        }
    }
    found
}

/// Area under the curve of precision over recall, row by row (average precision; ties count as one threshold).
pub fn auc_pr(node: &Node) -> f64 {
    let mut order: Vec<usize> = (0..node.scores.len()).collect();
    order.sort_by(|&a, &b| node.scores[b].total_cmp(&node.scores[a]));
    let positives = node.labels.iter().filter(|label| **label).count() as f64;
    let (mut area, mut hits, mut recalled, mut seen) = (0.0, 0.0, 0.0, 0.0);
    for (k, &i) in order.iter().enumerate() {
        seen += 1.0;
        hits += f64::from(u8::from(node.labels[i]));
        let tie = order.get(k + 1).is_some_and(|&next| node.scores[next] == node.scores[i]);
        if !tie {
            area += hits / seen * (hits - recalled) / positives.max(1.0);
            recalled = hits;
        }
    }
    area
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(labels: &str, scores: &[f64]) -> Node {
        Node { step_s: 3600, labels: labels.chars().map(|c| c == '1').collect(), scores: scores.to_vec() }
    }

    #[test]
    fn the_area_is_that_of_the_definition() {
        // Ranks of the positives: 1 and 3, so (1/1 + 2/3) / 2.
        assert!((auc_pr(&node("0101", &[0.1, 0.9, 0.5, 0.4])) - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
        assert!((auc_pr(&node("0101", &[0.5; 4])) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn events_and_false_alarms_are_counted_as_episodes() {
        let day = node("000000110000000000001100", &[0.0; 24]);
        let mut scores = vec![0.0; 24];
        (scores[7], scores[14], scores[15], scores[18]) = (0.9, 0.8, 0.8, 0.8);
        let node = Node { scores, ..day };
        let found = shipped(std::slice::from_ref(&node), 0.6);
        assert_eq!((found.events, found.caught), (2, 1));
        assert!((found.false_per_day - 2.0).abs() < 1e-12);
        assert_eq!(caught_within(&[node], 0.5).caught, 1);
    }
}
