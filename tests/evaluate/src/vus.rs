//! How well a score ranks labelled rows: AUC-PR and VUS-PR.
//!
//! AUC-PR is average precision, each score level one step, without point adjustment. VUS-PR (Paparrizos et al.,
//! VLDB 2022, the volume under the surface of buffer length and threshold) grants each labelled range soft
//! shoulders, so that a row early or late is not all wrong, and averages over the shoulders' width.

/// Largest width of the shoulders, in rows.
const WINDOW: usize = 100;
/// Thresholds, evenly spaced in rank.
const LEVELS: usize = 250;

/// The labelled ranges: first and last row of each.
pub fn events(labels: &[bool]) -> Vec<(usize, usize)> {
    let mut events: Vec<(usize, usize)> = Vec::new();
    for (row, _) in labels.iter().enumerate().filter(|(_, label)| **label) {
        match events.last_mut() {
            Some(last) if last.1 + 1 == row => last.1 = row,
            _ => events.push((row, row)),
        }
    }
    events
}

/// Row numbers by falling score; equal ones in their order.
fn ranked(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}

/// Average precision. NaN without a labelled row.
pub fn auc_pr(labels: &[bool], scores: &[f64]) -> f64 {
    let positives = labels.iter().filter(|label| **label).count() as f64;
    let order = ranked(scores);
    let (mut hits, mut recall, mut area) = (0.0, 0.0, 0.0);
    for (rank, &row) in order.iter().enumerate() {
        hits += f64::from(u8::from(labels[row]));
        let last = order.get(rank + 1).is_none_or(|&next| scores[next] < scores[row]);
        if last {
            area += (hits / positives - recall) * hits / (rank + 1) as f64;
            recall = hits / positives;
        }
    }
    area
}

/// Volume under the precision-recall surface. NaN without a labelled row.
pub fn vus_pr(labels: &[bool], scores: &[f64]) -> f64 {
    let events = events(labels);
    if events.is_empty() {
        return f64::NAN;
    }
    let order = ranked(scores);
    let last = scores.len() - 1;
    let thresholds: Vec<f64> = (0..LEVELS)
        .map(|level| scores[order[(level as f64 * last as f64 / (LEVELS - 1) as f64) as usize]])
        .collect();
    let flagged: Vec<usize> =
        thresholds.iter().map(|&at| order.partition_point(|&row| scores[row] >= at)).collect();
    let inside = sums(&order, &flagged, |row| f64::from(u8::from(labels[row])));
    let positives = labels.iter().filter(|label| **label).count() as f64;
    let surface = (0..=WINDOW).map(|width| {
        let (soft, groups) = shoulders(labels, &events, width);
        let soft = sums(&order, &flagged, |row| soft[row]);
        let mut peaks: Vec<f64> = groups
            .iter()
            .map(|&(from, to)| scores[from..=to].iter().copied().fold(f64::NEG_INFINITY, f64::max))
            .collect();
        peaks.sort_by(f64::total_cmp);
        let (mut area, mut before) = (0.0, 0.0);
        for (level, &at) in thresholds.iter().enumerate() {
            let unseen = peaks.partition_point(|&peak| peak < at);
            let seen = (peaks.len() - unseen) as f64 / peaks.len() as f64;
            let hits = inside[level] + soft[level];
            let recall = (hits / (positives + soft[level] / 2.0)).min(1.0) * seen;
            area += (recall - before) * hits / flagged[level] as f64;
            before = recall;
        }
        area
    });
    surface.sum::<f64>() / (WINDOW + 1) as f64
}

/// Sum of `worth` over the first so many ranked rows.
fn sums(order: &[usize], counts: &[usize], worth: impl Fn(usize) -> f64) -> Vec<f64> {
    let mut running = vec![0.0; order.len() + 1];
    for (rank, &row) in order.iter().enumerate() {
        running[rank + 1] = running[rank] + worth(row);
    }
    counts.iter().map(|&count| running[count]).collect()
}

/// The worth of the rows around the events, and the events with their shoulders, joined where they touch.
fn shoulders(labels: &[bool], events: &[(usize, usize)], width: usize) -> (Vec<f64>, Vec<(usize, usize)>) {
    let half = width / 2;
    let mut soft = vec![0.0; labels.len()];
    let mut groups: Vec<(usize, usize)> = Vec::new();
    for &(first, last) in events {
        let worth = |away: usize| (1.0 - away as f64 / width as f64).sqrt();
        for away in 1..=half {
            if let Some(cell) = soft.get_mut(last + away) {
                *cell += worth(away);
            }
            if let Some(cell) = first.checked_sub(away).and_then(|row| soft.get_mut(row)) {
                *cell += worth(away);
            }
        }
        let (from, to) = (first.saturating_sub(half), (last + half).min(labels.len() - 1));
        match groups.last_mut() {
            Some(group) if from <= group.1 => group.1 = group.1.max(to),
            _ => groups.push((from, to)),
        }
    }
    for (cell, &label) in soft.iter_mut().zip(labels) {
        *cell = if label { 0.0 } else { cell.min(1.0) };
    }
    (soft, groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 400 rows, two events, a score with many ties.
    fn example() -> (Vec<bool>, Vec<f64>) {
        let label = |row: usize| (100..130).contains(&row) || (300..305).contains(&row);
        let score = |row: usize| {
            ((row * 7919 % 97) as f64 / 97.0 * 50.0).floor() / 50.0 + if label(row) { 0.4 } else { 0.0 }
        };
        (0..400).map(|row| (label(row), score(row))).unzip()
    }

    #[test]
    fn agrees_with_the_reference_scorer() {
        let (labels, scores) = example();
        assert!((auc_pr(&labels, &scores) - AUC).abs() < 1e-6, "{}", auc_pr(&labels, &scores));
        assert!((vus_pr(&labels, &scores) - VUS).abs() < 1e-6, "{}", vus_pr(&labels, &scores));
    }

    const AUC: f64 = 0.556_682_848_653_377_9;
    const VUS: f64 = 0.689_994_305_143_209_6;
}
