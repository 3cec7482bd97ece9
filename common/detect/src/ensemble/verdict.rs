//! What the ensemble says about one look: who voted, who could not and why, and about which metric.

use std::fmt;

use evenkeel_common::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::config::{FleetDetector, Fusion};
use crate::seven::SevenMetric;

/// What became of one look at a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// When the node was looked at.
    pub at: Timestamp,
    /// 0 to 1. With [`Fusion::Vote`] the weighted sum of confidences, with [`Fusion::Calibrated`] the
    /// probability that this is no normal variation.
    pub score: f64,
    /// Whether the score exceeds the threshold.
    pub alert: bool,
    /// The detectors that have an opinion; their weights sum to 1.
    pub votes: Vec<FleetVote>,
    /// The others.
    pub abstained: Vec<Abstained>,
    /// The metric that contributes most to the score: the detectors' own shares by metric, weighted by what
    /// each brings to the score. `None` when nothing is out of the ordinary.
    pub consensus_metric: Option<SevenMetric>,
    /// How the score was made.
    pub fusion: Fusion,
}

/// The opinion of one detector.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FleetVote {
    /// Whose it is.
    pub detector: FleetDetector,
    /// Probability that this is no normal variation, the same scale for every detector. 0 below the detector's
    /// own threshold.
    pub confidence: f64,
    /// Its share of the weight, with the abstainers' shared out.
    pub weight_used: f64,
    /// The metric that it finds most unusual.
    pub metric: Option<SevenMetric>,
    /// Its own statistic: isolation score, reconstruction error, z, or R.
    pub statistic: f64,
    /// How many stretches of ten minutes of a day would look like this by normal variation alone.
    pub per_day: f64,
}

/// A detector without an opinion.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Abstained {
    /// Which.
    pub detector: FleetDetector,
    /// Why.
    pub reason: AbstainReason,
}

/// Why a detector has no opinion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum AbstainReason {
    /// Its weight is 0.
    Disabled,
    /// It needs a trained model and has none.
    NoModel,
    /// Its model was refused when it was to be set.
    ModelRefused,
    /// It is still warming up: points, roll-ups or stretches of ten minutes known and needed.
    TooLittleData {
        /// How many it has.
        known: u32,
        /// How many it needs.
        needed: u32,
    },
    /// The last stretch has holes.
    Gap,
    /// No metric it judges has a value.
    NoValues,
    /// The look is not newer than the one before.
    OutOfOrder,
}

impl fmt::Display for AbstainReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => write!(f, "its weight is 0"),
            Self::NoModel => write!(f, "it has no model; run `evenkeelctl model train`"),
            Self::ModelRefused => write!(f, "its model was refused; run `evenkeelctl model train`"),
            Self::TooLittleData { known, needed } => write!(f, "it knows {known} of the {needed} it needs"),
            Self::Gap => write!(f, "the last stretch has holes"),
            Self::NoValues => write!(f, "no metric has a value"),
            Self::OutOfOrder => write!(f, "the look is not newer than the one before"),
        }
    }
}
