//! Anomalies: stretches in which a series was not itself.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sample::SeriesKey;
use crate::time::Timestamp;
use crate::units::Probability;

/// How much an anomaly matters on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Confidence below 0.7 or deviation below 3 sigma.
    Info,
    /// Confidence 0.7 to 0.9 and deviation 3 to 5 sigma.
    Warning,
    /// Confidence above 0.9 and deviation above 5 sigma.
    Critical,
}

impl Severity {
    /// Class by confidence and by deviation (in sigma, sign ignored); the lower of the two where they disagree.
    #[must_use]
    pub fn classify(confidence: Probability, deviation: f64) -> Self {
        let by = |value: f64, warning: f64, critical: f64| {
            if value > critical {
                Self::Critical
            } else if value >= warning {
                Self::Warning
            } else {
                Self::Info
            }
        };
        by(confidence.get(), 0.7, 0.9).min(by(deviation.abs(), 3.0, 5.0))
    }

    /// Stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The detectors by their names in the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DetectorKind {
    /// Distance from a rolling mean in standard deviations.
    ZScore,
    /// Exponentially weighted control chart.
    Ewma,
    /// Rolling percentile, for the tails.
    Percentile,
    /// All series of a node together.
    Multivariate,
    /// Isolation forest, on the seven metrics of a node together.
    IsolationForest,
    /// LSTM autoencoder, on the recent course of the seven metrics.
    LstmAutoencoder,
    /// Seasonal extreme studentised deviate test.
    SeasonalEsd,
    /// The aggregator's watch for what stopped answering.
    Silence,
    /// Share of failures against its usual share.
    ErrorShare,
    /// Latency against three times its usual level at this hour.
    LatencyBaseline,
    /// A node against the other nodes of its cluster.
    Peers,
}

impl DetectorKind {
    /// All of them, those of the agents first.
    pub const ALL: [Self; 11] = [
        Self::ZScore,
        Self::Ewma,
        Self::Percentile,
        Self::Multivariate,
        Self::IsolationForest,
        Self::LstmAutoencoder,
        Self::SeasonalEsd,
        Self::Silence,
        Self::ErrorShare,
        Self::LatencyBaseline,
        Self::Peers,
    ];

    /// Stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ZScore => "z_score",
            Self::Ewma => "ewma",
            Self::Percentile => "percentile",
            Self::Multivariate => "multivariate",
            Self::IsolationForest => "isolation_forest",
            Self::LstmAutoencoder => "lstm_autoencoder",
            Self::SeasonalEsd => "seasonal_esd",
            Self::Silence => "silence",
            Self::ErrorShare => "error_share",
            Self::LatencyBaseline => "latency_baseline",
            Self::Peers => "peers",
        }
    }
}

impl fmt::Display for DetectorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What one detector said.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vote {
    /// Who.
    pub detector: DetectorKind,
    /// Its statistic in sigma (or the like for its kind); signed, above zero = too high.
    pub score: f64,
    /// Calibrated probability that this is no normal variation.
    pub confidence: Probability,
}

/// A series that has a share in an anomaly of its node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// Which.
    pub series: SeriesKey,
    /// Signed distance from what is usual, in sigma.
    pub deviation: f64,
}

/// One anomaly of one series, or of a node as a whole. Opened once, closed once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// Number within the agent's epoch, from 1; with node and epoch it identifies the anomaly.
    pub number: u64,
    /// The series.
    pub series: SeriesKey,
    /// When it opened.
    pub opened_at: Timestamp,
    /// When it closed, if it has.
    pub closed_at: Option<Timestamp>,
    /// The value farthest from the expectation so far, in the metric's unit.
    pub value: f64,
    /// What the baseline expected then.
    pub expected: f64,
    /// Deviation factor: signed distance from the expectation in baseline sigma.
    pub deviation: f64,
    /// Calibrated probability that this is no normal variation.
    pub confidence: Probability,
    /// By [`Severity::classify`].
    pub severity: Severity,
    /// Every detector that saw it.
    pub votes: Vec<Vote>,
    /// For an anomaly of a whole node: its series by their share in it, the largest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Whether a fault drill caused it; such an anomaly never reaches a migration decision.
    pub injected: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severity_takes_the_lower_class() {
        let p = Probability::clamped;
        for (confidence, deviation, expected) in [
            (0.95, 6.0, Severity::Critical),
            (0.95, 4.0, Severity::Warning),
            (0.69, 9.0, Severity::Info),
            (0.7, -3.0, Severity::Warning),
            (0.9, 5.0, Severity::Warning),
            (0.99, 2.9, Severity::Info),
            (0.99, f64::NAN, Severity::Info),
        ] {
            assert_eq!(Severity::classify(p(confidence), deviation), expected, "{confidence} {deviation}");
        }
    }
}
