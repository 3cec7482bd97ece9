//! Is what a model was trained on still what comes in?
//!
//! Per metric the population stability index over the deciles of the training,
//! `sum((now - then) * ln(now / then))`: 0.1 and 0.25 are the customary bounds for "some" and "a major" change
//! (Siddiqi 2006). The index alone calls a flat series that moved by a hair a major change; so a metric has also
//! to have moved, or widened, by an amount that matters against its deviation and its floor.

use serde::Serialize;

use super::{DECILES, ModelMetadata};
use crate::seven::{SevenMetric, SevenMetrics};

/// Values of a metric below which nothing is said about it.
const MIN_VALUES: usize = 100;

/// How far the present is from the training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftVerdict {
    /// The model fits.
    None,
    /// It fits less; watch it.
    Some,
    /// It was trained on something else: train anew.
    Strong,
}

/// Drift of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MetricDrift {
    /// Which.
    pub metric: SevenMetric,
    /// Population stability index; 0 = the same distribution.
    pub psi: f64,
    /// How far the mean has moved, in standard deviations of the training.
    pub shift: f64,
    /// Natural logarithm of the ratio of standard deviations, now to then.
    pub widening: f64,
    /// What to make of it.
    pub verdict: DriftVerdict,
}

/// Drift of all metrics.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drift {
    /// The worst of the metrics'.
    pub verdict: DriftVerdict,
    /// Metrics with enough values, now and in training.
    pub metrics: Vec<MetricDrift>,
}

/// Compares `recent` looks with what the model was trained on. Metrics with fewer than 100 values are left out;
/// a day or more of looks is what the figures are made for.
#[must_use]
pub fn drift(about: &ModelMetadata, recent: &[SevenMetrics]) -> Drift {
    let metrics: Vec<MetricDrift> =
        SevenMetric::ALL.into_iter().filter_map(|metric| of_metric(about, metric, recent)).collect();
    let verdict = metrics.iter().map(|m| m.verdict).max().unwrap_or(DriftVerdict::None);
    Drift { verdict, metrics }
}

fn of_metric(about: &ModelMetadata, metric: SevenMetric, recent: &[SevenMetrics]) -> Option<MetricDrift> {
    let i = metric.index();
    let values: Vec<f64> = recent.iter().map(|m| metric.enter(m.0[i])).filter(|v| v.is_finite()).collect();
    if values.len() < MIN_VALUES {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
    let floor = metric.floor();
    let then = f64::from(about.deviations[i]).max(floor);
    let shift = (mean - f64::from(about.means[i])) / then;
    let widening = (deviation.max(floor) / then).ln();
    let psi = stability(&about.deciles[i], &values);
    let moved = shift.abs().max(widening.abs());
    let verdict = match () {
        () if psi >= 0.25 && moved >= 1.0 => DriftVerdict::Strong,
        () if psi >= 0.1 && moved >= 0.3 => DriftVerdict::Some,
        () => DriftVerdict::None,
    };
    Some(MetricDrift { metric, psi, shift, widening, verdict })
}

/// The index over the bins between `edges` and the two outside them, which held nothing. Equal edges make one
/// bin of several.
fn stability(edges: &[f32; DECILES], values: &[f64]) -> f64 {
    let mut bins: Vec<(f64, f64)> = Vec::with_capacity(DECILES); // Upper edge, share in training.
    for edge in edges.iter().skip(1).map(|&edge| f64::from(edge)) {
        match bins.last_mut() {
            Some((upper, share)) if *upper == edge => *share += 0.1,
            _ => bins.push((edge, 0.1)),
        }
    }
    let least = f64::from(edges[0]);
    let mut counts = vec![0.0; bins.len() + 1];
    let mut below = 0.0;
    for value in values.iter().map(|&value| f64::from(value as f32)) {
        if value < least {
            below += 1.0;
        } else {
            counts[bins.partition_point(|(upper, _)| value > *upper)] += 1.0;
        }
    }
    let n = values.len() as f64;
    // An empty bin is half a value: the logarithm stays finite.
    let term = |then: f64, count: f64| {
        let (then, now) = (then.max(0.5 / n), (count / n).max(0.5 / n));
        (now - then) * (now / then).ln()
    };
    let shares = bins.iter().map(|(_, share)| *share).chain([0.0]);
    shares.zip(counts).map(|(then, count)| term(then, count)).sum::<f64>() + term(0.0, below)
}
