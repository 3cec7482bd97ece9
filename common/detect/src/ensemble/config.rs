//! Options of the ensemble, one section of the aggregator's configuration.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::training::TrainingConfig;
use crate::isolation_forest::ForestConfig;
use crate::lstm_autoencoder::LstmConfig;
use crate::seasonal_esd::SeasonalEsdConfig;

/// The detectors of the ensemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FleetDetector {
    /// Points unlike the rest, in all metrics at once.
    IsolationForest,
    /// Courses that a network of the normal ones can not rebuild.
    LstmAutoencoder,
    /// Distance from a rolling mean.
    ZScore,
    /// Outliers against the season.
    SeasonalEsd,
}

impl FleetDetector {
    /// All, in the order in which they are stored and shown.
    pub const ALL: [Self; 4] =
        [Self::IsolationForest, Self::LstmAutoencoder, Self::ZScore, Self::SeasonalEsd];

    /// Stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IsolationForest => "isolation_forest",
            Self::LstmAutoencoder => "lstm_autoencoder",
            Self::ZScore => "z_score",
            Self::SeasonalEsd => "seasonal_esd",
        }
    }

    /// Its place in lists by detector.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for FleetDetector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How the detectors' opinions become one score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fusion {
    /// Weighted sum of confidences: most of the weight has to agree.
    Vote,
    /// Weighted sum of surprises, judged by the tail of its own past: one very surprised detector is enough, and so
    /// are several that are a little surprised.
    #[default]
    Calibrated,
}

/// What each detector counts for. Only the ratios matter; 0 takes a detector out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Weights {
    /// Weight of the isolation forest.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub isolation_forest: f64,
    /// Weight of the LSTM autoencoder.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub lstm_autoencoder: f64,
    /// Weight of the z-score.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub z_score: f64,
    /// Weight of the seasonal ESD test.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub seasonal_esd: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { isolation_forest: 0.3, lstm_autoencoder: 0.3, z_score: 0.2, seasonal_esd: 0.2 }
    }
}

impl Weights {
    /// The weight of one detector; 0 for what is no weight.
    #[must_use]
    pub fn of(&self, detector: FleetDetector) -> f64 {
        let weight = match detector {
            FleetDetector::IsolationForest => self.isolation_forest,
            FleetDetector::LstmAutoencoder => self.lstm_autoencoder,
            FleetDetector::ZScore => self.z_score,
            FleetDetector::SeasonalEsd => self.seasonal_esd,
        };
        if weight.is_finite() { weight.clamp(0.0, 1e6) } else { 0.0 }
    }
}

/// What each detector counts for in the calibrated fusion. A type of its own, because its defaults are: an admin who
/// sets one of them keeps the others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CalibratedWeights {
    /// Weight of the isolation forest.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub isolation_forest: f64,
    /// Weight of the LSTM autoencoder.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub lstm_autoencoder: f64,
    /// Weight of the z-score.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub z_score: f64,
    /// Weight of the seasonal ESD test.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub seasonal_esd: f64,
}

impl Default for CalibratedWeights {
    fn default() -> Self {
        Self { isolation_forest: 0.33, lstm_autoencoder: 0.33, z_score: 0.01, seasonal_esd: 0.33 }
    }
}

impl From<CalibratedWeights> for Weights {
    fn from(weights: CalibratedWeights) -> Self {
        let CalibratedWeights { isolation_forest, lstm_autoencoder, z_score, seasonal_esd } = weights;
        Self { isolation_forest, lstm_autoencoder, z_score, seasonal_esd }
    }
}

/// Whether the seven metrics of a node, taken together, are normal.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EnsembleConfig {
    /// Seconds between two looks at a node.
    #[schemars(range(min = 1, max = 3600))]
    pub check_interval_s: u32,
    /// Looks kept per node: 1000 at 10 s are 2.8 hours. Windows of the detectors are cut from them, so fewer
    /// than a window of the LSTM autoencoder (half an hour) silence it.
    #[schemars(range(min = 100, max = 20000))]
    pub buffer_size: u16,
    /// Score beyond which a node alerts.
    #[schemars(range(min = 0.05, max = 0.999))]
    pub ensemble_threshold: f64,
    /// What each detector counts for in a vote. Weights of those that abstain are shared out among the rest.
    pub weights: Weights,
    /// What each detector counts for in the calibrated fusion, shared out likewise. On labelled data the z-score
    /// did not earn a weight beside the others; its trace of one lets it speak when nobody else can.
    pub calibrated_weights: CalibratedWeights,
    /// How opinions become one score.
    pub fusion: Fusion,
    /// Stretches of ten minutes per day and node in which something is really wrong, assumed. A confidence of
    /// one half means that normal variation brings the like just as often; a smaller figure alarms less.
    #[schemars(range(min = 0.001, max = 10.0))]
    pub real_per_day: f64,
    /// Looks in the rolling window of the z-score.
    #[schemars(range(min = 20, max = 1000))]
    pub z_window: u16,
    /// Standard deviations below which the z-score has no confidence in a vote.
    #[schemars(range(min = 1.0, max = 20.0))]
    pub z_threshold: f64,
    /// The isolation forest, with `contamination`.
    pub isolation_forest: ForestConfig,
    /// The LSTM autoencoder.
    pub lstm_autoencoder: LstmConfig,
    /// The seasonal ESD test.
    pub seasonal_esd: SeasonalEsdConfig,
    /// What a training needs.
    pub training: TrainingConfig,
}

impl Default for EnsembleConfig {
    fn default() -> Self {
        Self {
            check_interval_s: 10,
            buffer_size: 1000,
            ensemble_threshold: 0.6,
            weights: Weights::default(),
            calibrated_weights: CalibratedWeights::default(),
            fusion: Fusion::default(),
            real_per_day: 0.1,
            z_window: 100,
            z_threshold: 3.0,
            isolation_forest: ForestConfig::default(),
            lstm_autoencoder: LstmConfig::default(),
            seasonal_esd: SeasonalEsdConfig::default(),
            training: TrainingConfig::default(),
        }
    }
}

impl EnsembleConfig {
    /// The weight of a detector in the chosen fusion, before abstentions.
    #[must_use]
    pub fn weight(&self, detector: FleetDetector) -> f64 {
        match self.fusion {
            Fusion::Vote => self.weights.of(detector),
            Fusion::Calibrated => Weights::from(self.calibrated_weights).of(detector),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_documented() {
        evenkeel_common::config::assert_documented::<EnsembleConfig>();
        evenkeel_common::config::assert_documented::<ForestConfig>();
        evenkeel_common::config::assert_documented::<LstmConfig>();
        evenkeel_common::config::assert_documented::<SeasonalEsdConfig>();
        evenkeel_common::config::assert_documented::<Weights>();
        evenkeel_common::config::assert_documented::<TrainingConfig>();
    }

    #[test]
    fn the_defaults_are_the_specifications() {
        let config = EnsembleConfig::default();
        assert_eq!(FleetDetector::ALL.map(|d| config.weights.of(d)), [0.3, 0.3, 0.2, 0.2]);
        assert_eq!((config.check_interval_s, config.buffer_size), (10, 1000));
        assert_eq!((config.ensemble_threshold, config.z_window, config.z_threshold), (0.6, 100, 3.0));
    }
}
