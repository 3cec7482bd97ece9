//! Opinions become one score.
//!
//! *Vote*: `sum(weight * confidence)`, the weights of abstainers shared out.
//!
//! *Calibrated*: the surprises `-ln(p)` of the detectors are added by weight (Fisher 1932, weighted as by Good
//! 1955). Fisher's distribution of that sum holds for independent detectors only, and ours look at the same
//! data; so the sum is judged, like the statistic of any detector, by the tail of its own past, which contains
//! whatever dependence there is. Until that tail is known the harmonic mean of the p-values stands in, which is
//! valid under dependence (Wilson 2019, PNAS 116).

use super::config::{FleetDetector, Fusion};
use super::verdict::FleetVote;
use crate::seven::{SEVEN, SevenMetric, leading};
use crate::tail::{BLOCKS_PER_DAY, Tail};

/// What one detector found in a look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opinion {
    pub(super) statistic: f64,
    /// Stretches of ten minutes of a day that look like this without any cause.
    pub(super) per_day: f64,
    /// Whether it stands beyond the detector's own threshold.
    pub(super) beyond: bool,
    /// Shares of the metrics in it, summing to 1 or 0.
    pub(super) shares: [f64; SEVEN],
}

impl Opinion {
    /// `-ln p`, at least 0.
    fn surprise(&self) -> f64 {
        (BLOCKS_PER_DAY / self.per_day.max(1e-12)).ln().max(0.0)
    }
}

/// Probability that something that normal variation brings `per_day` times is none.
pub(super) fn confidence(per_day: f64, real_per_day: f64) -> f64 {
    let real = real_per_day.clamp(1e-6, 1e3);
    real / (real + per_day.max(0.0))
}

/// What came of the opinions.
#[derive(Default)]
pub(super) struct Fused {
    pub(super) score: f64,
    pub(super) votes: Vec<FleetVote>,
    pub(super) metric: Option<SevenMetric>,
    /// Weighted sum of surprises.
    pub(super) surprise: f64,
}

/// Fuses opinions with their weights, none of which is 0.
pub(super) fn fuse(
    opinions: &[(FleetDetector, f64, Opinion)],
    fusion: Fusion,
    own_past: &Tail,
    real_per_day: f64,
) -> Fused {
    let sum: f64 = opinions.iter().map(|(_, weight, _)| weight).sum();
    let mut fused = Fused::default();
    let (mut by_metric, mut harmonic) = ([0.0; SEVEN], 0.0);
    for (detector, weight, opinion) in opinions {
        let weight_used = weight / sum;
        let confidence = if opinion.beyond { confidence(opinion.per_day, real_per_day) } else { 0.0 };
        fused.score += weight_used * confidence;
        fused.surprise += weight_used * opinion.surprise();
        harmonic += weight_used / opinion.per_day.max(1e-12);
        let brings = weight_used * if fusion == Fusion::Vote { confidence } else { opinion.surprise() };
        by_metric.iter_mut().zip(&opinion.shares).for_each(|(sum, share)| *sum += brings * share);
        fused.votes.push(FleetVote {
            detector: *detector,
            confidence,
            weight_used,
            metric: leading(&opinion.shares),
            statistic: opinion.statistic,
            per_day: opinion.per_day,
        });
    }
    if fusion == Fusion::Calibrated && !opinions.is_empty() {
        let per_day = own_past.per_day(fused.surprise).unwrap_or(1.0 / harmonic);
        fused.score = confidence(per_day, real_per_day);
    }
    fused.metric = leading(&by_metric);
    fused
}
