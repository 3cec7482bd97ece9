//! How good a score is for the one who is woken by it: events caught, false alarms a day, delay.

use crate::vus::events;

/// Flagged rows so near to an event (seconds) are no false alarm.
const SLACK_S: f64 = 1800.0;
/// Flagged rows so near to each other (seconds) are one alarm.
const GAP_S: f64 = 600.0;

/// What an operator sees at one threshold.
#[derive(Clone, Debug, Default)]
pub struct Operation {
    /// Labelled events, and how many of them have a flagged row.
    pub events: usize,
    pub caught: usize,
    /// Seconds from the start of each caught event to its first flagged row.
    pub delays: Vec<f64>,
    /// False alarms, in how many days.
    pub alarms: usize,
    pub days: f64,
    /// Share of the rows outside events that are flagged.
    pub flagged: f64,
}

impl Operation {
    /// At a fixed threshold: a row is flagged when its score reaches it.
    pub fn at(labels: &[bool], scores: &[f64], step_s: f64, threshold: f64) -> Self {
        let events = events(labels);
        let mut near = vec![false; labels.len()];
        let slack = (SLACK_S / step_s) as usize;
        for &(first, last) in &events {
            let end = (last + slack + 1).min(near.len());
            near[first.saturating_sub(slack)..end].fill(true);
        }
        let false_rows: Vec<usize> =
            (0..scores.len()).filter(|&row| scores[row] >= threshold && !near[row]).collect();
        let delays: Vec<f64> = events
            .iter()
            .filter_map(|&(first, last)| {
                (first..=last).find(|&row| scores[row] >= threshold).map(|r| r - first)
            })
            .map(|rows| rows as f64 * step_s)
            .collect();
        Self {
            events: events.len(),
            caught: delays.len(),
            delays,
            alarms: episodes(&false_rows, step_s),
            days: labels.len() as f64 * step_s / 86_400.0,
            flagged: false_rows.len() as f64 / near.iter().filter(|near| !**near).count().max(1) as f64,
        }
    }

    /// At the lowest threshold that keeps false alarms a day within `budget` and flagged rows within 1 %, found
    /// with hindsight.
    pub fn in_hindsight(labels: &[bool], scores: &[f64], step_s: f64, budget: f64) -> Self {
        let mut sorted = scores.to_vec();
        sorted.sort_by(f64::total_cmp);
        let ranks = (0..200).map(|i| 1.0 - 0.01 * f64::from(i) / 199.0);
        let ranks = ranks.chain((0..200).map(|i| 0.99 - 0.49 * f64::from(i) / 199.0));
        let days = labels.len() as f64 * step_s / 86_400.0;
        let mut best = Self { events: events(labels).len(), days, ..Self::default() };
        for threshold in ranks.map(|rank| quantile(&sorted, rank)) {
            let here = Self::at(labels, scores, step_s, threshold);
            if here.alarms as f64 / here.days > budget || here.flagged > 0.01 {
                break;
            }
            best = here;
        }
        best
    }

    /// Adds another entity.
    pub fn add(&mut self, other: Self) {
        self.events += other.events;
        self.caught += other.caught;
        self.delays.extend(other.delays);
        self.alarms += other.alarms;
        self.days += other.days;
    }

    /// Share of the events caught.
    pub fn recall(&self) -> f64 {
        self.caught as f64 / self.events.max(1) as f64
    }

    /// Median and 90th percentile of the delay in seconds; NaN when nothing was caught.
    pub fn delay(&self) -> (f64, f64) {
        let mut sorted = self.delays.clone();
        sorted.sort_by(f64::total_cmp);
        (quantile(&sorted, 0.5), quantile(&sorted, 0.9))
    }
}

/// Groups of rows that are further apart than an alarm's gap.
pub fn episodes(rows: &[usize], step_s: f64) -> usize {
    let gap = ((GAP_S / step_s) as usize).max(1);
    let apart = rows.windows(2).filter(|pair| pair[1] - pair[0] > gap).count();
    if rows.is_empty() { 0 } else { 1 + apart }
}

/// Quantile of sorted values by linear interpolation; NaN of none.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = share.clamp(0.0, 1.0) * last as f64;
    let (low, within) = (at.floor() as usize, at.fract());
    sorted[low] + (sorted[(low + 1).min(last)] - sorted[low]) * within
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_an_operator_would() {
        // Ten-minute steps: slack of three rows, alarms join when they are neighbours.
        let labels: Vec<bool> = (0..288).map(|row| (100..110).contains(&row)).collect();
        let mut scores = vec![0.0; 288];
        for row in [10, 11, 20, 98, 103, 104, 112, 113, 200] {
            scores[row] = 1.0;
        }
        let seen = Operation::at(&labels, &scores, 600.0, 0.5);
        assert_eq!((seen.events, seen.caught, seen.alarms), (1, 1, 4));
        assert_eq!((seen.delays.clone(), seen.days), (vec![1800.0], 2.0));
        assert_eq!(Operation::in_hindsight(&labels, &scores, 600.0, 0.1).caught, 0);
    }
}
