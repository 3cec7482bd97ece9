//! The ensemble's z-score: distance of each metric from its own rolling mean, in standard deviations.
//!
//! Shewhart 1931 over the last 100 looks. Looks teach at most three sigma away from the mean (winsorised), so
//! that an anomaly does not widen the window at once; a metric's sigma has its floor, and is granted more
//! while the window is young. Missing values are neither judged nor learned.

use crate::detector::{TEACH_LIMIT, cautious};
use crate::ring::Ring;
use crate::seven::{SEVEN, SevenMetric};

/// Looks before a metric is judged.
pub(super) const WARM_UP: usize = 20;

/// Rolling windows of the seven metrics.
#[derive(Clone, Debug, Default)]
pub(super) struct RollingZ {
    windows: [Ring; SEVEN],
}

impl RollingZ {
    /// Looks known of the metric that is known best.
    pub(super) fn known(&self) -> usize {
        self.windows.iter().map(Ring::len).max().unwrap_or(0)
    }

    /// `z` of each metric against the past, then learns; NaN for metrics that are missing or too young.
    pub(super) fn observe(&mut self, values: &[f64; SEVEN], window: u16) -> [f64; SEVEN] {
        let mut found = [f64::NAN; SEVEN];
        for metric in SevenMetric::ALL {
            let (i, ring) = (metric.index(), &mut self.windows[metric.index()]);
            let value = values[i];
            if !value.is_finite() {
                continue;
            }
            let n = ring.len();
            let (mean, deviation) = moments(ring.values());
            let sigma = cautious(deviation, n).max(metric.floor());
            if n >= WARM_UP.min(usize::from(window)) {
                found[i] = (value - mean) / sigma;
            }
            let taught = if n == 0 {
                value
            } else {
                value.clamp(mean - TEACH_LIMIT * sigma, mean + TEACH_LIMIT * sigma)
            };
            ring.push(taught as f32, window.max(1));
        }
        found
    }
}

fn moments(values: &[f32]) -> (f64, f64) {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt())
}
