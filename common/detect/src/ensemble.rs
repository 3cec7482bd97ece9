//! The fleet's ensemble: isolation forest, LSTM autoencoder, z-score and seasonal ESD look at the seven metrics of
//! one node and say together whether the node is itself.
//!
//! ```text
//! look ─► history ─┬─► isolation forest ──┐ statistic
//!                  ├─► LSTM autoencoder ──┤    ─► tail of its own past ─► confidence ─┐
//!                  ├─► z-score ───────────┤       (crate::tail)                       ├─► fuse ─► verdict
//!                  └─► seasonal ESD ──────┘                                           ┘
//! ```
//!
//! Every detector's statistic becomes a probability by the tail of its own past, so a confidence means the same
//! whoever utters it. A detector that can not judge abstains with a reason, and its weight is shared out. One
//! `EnsembleDetector` belongs to one node; its memory is bounded by the configuration.

mod config;
mod fuse;
mod history;
mod rolling;
mod seasonal;
mod training;
mod verdict;

use evenkeel_common::time::Timestamp;

pub use config::{CalibratedWeights, EnsembleConfig, FleetDetector, Fusion, Weights};
pub use seasonal::Rollups;
pub use training::{Models, TrainError, TrainingConfig, TrainingRow, train};
pub use verdict::{AbstainReason, Abstained, FleetVote, Verdict};

use crate::feedback::MULTIPLIERS;
use crate::isolation_forest::IsolationForest;
use crate::lstm_autoencoder::LstmAutoencoder;
use crate::model::{Model, ModelError, ModelKind, Payload};
use crate::seven::{SEVEN, SevenMetrics, shares};
use crate::tail::{BLOCKS_PER_DAY, MIN_PEAKS, Tail};
use fuse::{Fused, Opinion};
use history::History;
use rolling::RollingZ;
use seasonal::{PRESENT_S, Seasonal};

/// Seconds of the recent past with which the isolation forest compares the present.
const CONTEXT_S: u32 = 3600;
/// Values of a row of the isolation forest: the present, and its difference to the context.
pub(crate) const FOREST_FEATURES: usize = 2 * SEVEN;

/// The ensemble of one node.
#[derive(Clone, Debug)]
pub struct EnsembleDetector {
    config: EnsembleConfig,
    history: History,
    forest: Option<(IsolationForest, u32)>,
    autoencoder: Option<(LstmAutoencoder, u32)>,
    z: RollingZ,
    seasonal: Seasonal,
    tails: [Tail; 4],
    fused: Tail,
    refused: [bool; 4],
    multipliers: [f64; 4],
}

/// What a look may teach. Only a training run differs from "everything".
#[derive(Clone, Copy, Debug)]
pub(crate) struct Teach {
    /// The tails of the detectors with models.
    pub(crate) models: bool,
    /// The tail of the fused surprise.
    pub(crate) fused: bool,
}

impl EnsembleDetector {
    /// Knows nothing yet and has no models.
    #[must_use]
    pub fn new(config: EnsembleConfig) -> Self {
        Self {
            config,
            history: History::default(),
            forest: None,
            autoencoder: None,
            z: RollingZ::default(),
            seasonal: Seasonal::new(config.seasonal_esd),
            tails: Default::default(),
            fused: Tail::default(),
            refused: [false; 4],
            multipliers: [1.0; 4],
        }
    }

    /// Gives a detector (or the fusion) what was learned for it, in place of what it had.
    ///
    /// # Errors
    /// [`ModelError::WrongKind`] when the model is for another, [`ModelError::Unusable`] when it does not fit
    /// this configuration. The detector then abstains with [`AbstainReason::ModelRefused`] until it gets a model.
    pub fn set_model(&mut self, kind: ModelKind, model: Model) -> Result<(), ModelError> {
        let found = model.kind();
        let step_s = model.about.step_s;
        let fits = found == kind && model.is_sound();
        match (model.payload, kind.detector()) {
            _ if !fits => {}
            (Payload::IsolationForest { forest, tail }, _) => {
                self.forest = Some((forest, step_s));
                self.tails[FleetDetector::IsolationForest.index()] = tail;
            }
            (Payload::LstmAutoencoder { autoencoder, tail }, _) => {
                self.autoencoder = Some((autoencoder, step_s));
                self.tails[FleetDetector::LstmAutoencoder.index()] = tail;
            }
            (Payload::ZScore { tail }, _) => self.tails[FleetDetector::ZScore.index()] = tail,
            (Payload::SeasonalEsd { rollups, tail }, _) => {
                if !self.seasonal.restore(rollups) {
                    return Err(self.refuse(kind, ModelError::Unusable { kind }));
                }
                self.tails[FleetDetector::SeasonalEsd.index()] = tail;
            }
            (Payload::Fusion { tail }, _) => self.fused = tail,
        }
        if found != kind {
            return Err(self.refuse(kind, ModelError::WrongKind { expected: kind, found }));
        }
        if !fits {
            return Err(self.refuse(kind, ModelError::Unusable { kind }));
        }
        if let Some(detector) = kind.detector() {
            self.refused[detector.index()] = false;
        }
        Ok(())
    }

    /// Records that the model of a detector could not be read, so that its abstention says why.
    pub fn refuse(&mut self, kind: ModelKind, why: ModelError) -> ModelError {
        match kind.detector() {
            Some(FleetDetector::IsolationForest) => self.forest = None,
            Some(FleetDetector::LstmAutoencoder) => self.autoencoder = None,
            _ => {}
        }
        if let Some(detector) = kind.detector() {
            self.refused[detector.index()] = true;
        }
        why
    }

    /// Raises (above 1) or lowers a detector's threshold, within [`MULTIPLIERS`]; see [`crate::feedback`].
    pub fn set_multiplier(&mut self, detector: FleetDetector, multiplier: f64) {
        let multiplier = if multiplier.is_finite() { multiplier } else { 1.0 };
        self.multipliers[detector.index()] = multiplier.clamp(MULTIPLIERS.0, MULTIPLIERS.1);
    }

    /// Looks at the node, judges, and learns. Times must rise; a look that is not newer is not taken in.
    pub fn observe(&mut self, at: Timestamp, metrics: &SevenMetrics) -> Verdict {
        self.look(at, metrics, Teach { models: true, fused: true })
    }

    pub(crate) fn look(&mut self, at: Timestamp, metrics: &SevenMetrics, teach: Teach) -> Verdict {
        if self.history.newest().is_some_and(|newest| at <= newest) {
            let silent = FleetDetector::ALL.map(|detector| abstained(detector, AbstainReason::OutOfOrder));
            return self.verdict(at, Fused::default(), silent.to_vec());
        }
        let values = metrics.domain();
        self.history.push(at, values, usize::from(self.config.buffer_size.max(100)));
        let (mut opinions, mut silent) = (Vec::with_capacity(4), Vec::new());
        for detector in FleetDetector::ALL {
            match self.opinion(detector, at, &values, teach) {
                Ok(opinion) => opinions.push((detector, self.config.weight(detector), opinion)),
                Err(reason) => silent.push(abstained(detector, reason)),
            }
        }
        self.seasonal.learn(at, &values);
        let fused = fuse::fuse(&opinions, self.config.fusion, &self.fused, self.config.real_per_day);
        if teach.fused && !opinions.is_empty() {
            self.fused.learn(at, fused.surprise);
        }
        self.verdict(at, fused, silent)
    }

    /// What one detector finds, with how often its own past brings the like.
    fn opinion(
        &mut self,
        detector: FleetDetector,
        at: Timestamp,
        values: &[f64; SEVEN],
        teach: Teach,
    ) -> Result<Opinion, AbstainReason> {
        if self.config.weight(detector) <= 0.0 {
            return Err(AbstainReason::Disabled);
        }
        let (finding, learns) = match detector {
            FleetDetector::IsolationForest => (self.judge_forest()?, teach.models),
            FleetDetector::LstmAutoencoder => (self.judge_autoencoder()?, teach.models),
            FleetDetector::ZScore => (self.judge_z(values)?, true),
            FleetDetector::SeasonalEsd => (self.judge_seasonal(at)?, true),
        };
        let tail = &mut self.tails[detector.index()];
        let per_day = tail.per_day(finding.statistic);
        if learns {
            tail.learn(at, finding.statistic);
        }
        let known = tail.len() as u32;
        let per_day = per_day.ok_or(AbstainReason::TooLittleData { known, needed: MIN_PEAKS as u32 })?;
        // A multiplier of two asks for the square of the rarity.
        let share = (per_day / BLOCKS_PER_DAY).powf(1.0 / self.multipliers[detector.index()]);
        Ok(Opinion { per_day: BLOCKS_PER_DAY * share, ..finding })
    }

    fn verdict(&self, at: Timestamp, fused: Fused, abstained: Vec<Abstained>) -> Verdict {
        Verdict {
            at,
            score: fused.score,
            alert: fused.score > self.config.ensemble_threshold,
            votes: fused.votes,
            abstained,
            consensus_metric: fused.metric,
            fusion: self.config.fusion,
        }
    }

    fn judge_forest(&self) -> Result<Opinion, AbstainReason> {
        let (forest, step_s) = self.forest.as_ref().ok_or(self.modelless(FleetDetector::IsolationForest))?;
        let row = self.forest_row(*step_s);
        let statistic = forest.score(&row).ok_or(AbstainReason::NoValues)?;
        // Below the bulk of the past nobody asks for the reason, and it costs as much as ten scores.
        let unusual =
            self.tails[FleetDetector::IsolationForest.index()].per_day(statistic).is_none_or(|n| n < 20.0);
        let by_metric = if unusual {
            let why = forest.attribution(&row);
            shares(std::array::from_fn(|i| why[i].max(0.0) + why[SEVEN + i].max(0.0)))
        } else {
            [0.0; SEVEN]
        };
        Ok(Opinion { statistic, per_day: BLOCKS_PER_DAY, beyond: true, shares: by_metric })
    }

    /// A row of the isolation forest: the present step, and its difference to the hour.
    pub(crate) fn forest_row(&self, step_s: u32) -> [f32; FOREST_FEATURES] {
        let (present, context) = (self.history.trailing(step_s), self.history.trailing(CONTEXT_S));
        std::array::from_fn(|i| {
            if i < SEVEN { present[i] as f32 } else { (present[i - SEVEN] - context[i - SEVEN]) as f32 }
        })
    }

    fn judge_autoencoder(&self) -> Result<Opinion, AbstainReason> {
        let (model, step_s) =
            self.autoencoder.as_ref().ok_or(self.modelless(FleetDetector::LstmAutoencoder))?;
        let needed = model.steps();
        let window = self.history.window(needed, *step_s).ok_or_else(|| {
            let looks = needed * (*step_s / self.config.check_interval_s.max(1)).max(1) as usize;
            if self.history.len() < looks {
                AbstainReason::TooLittleData { known: self.history.len() as u32, needed: looks as u32 }
            } else {
                AbstainReason::Gap
            }
        })?;
        let errors = model.errors(&window).ok_or(AbstainReason::NoValues)?;
        let squares: [f64; SEVEN] = std::array::from_fn(|i| errors[i] * errors[i]);
        let statistic = (squares.iter().sum::<f64>() / SEVEN as f64).sqrt();
        Ok(Opinion { statistic, per_day: BLOCKS_PER_DAY, beyond: true, shares: shares(squares) })
    }

    fn judge_z(&mut self, values: &[f64; SEVEN]) -> Result<Opinion, AbstainReason> {
        let known = self.z.known() as u32;
        let found = self.z.observe(values, self.config.z_window);
        let statistic = found.iter().filter(|z| z.is_finite()).fold(f64::NAN, |m: f64, z| m.max(z.abs()));
        if !statistic.is_finite() {
            let needed = rolling::WARM_UP as u32;
            let none = values.iter().all(|v| v.is_nan());
            return Err(if none {
                AbstainReason::NoValues
            } else {
                AbstainReason::TooLittleData { known, needed }
            });
        }
        let beyond = statistic >= self.config.z_threshold;
        Ok(Opinion { statistic, per_day: BLOCKS_PER_DAY, beyond, shares: shares(found.map(|z| z * z)) })
    }

    fn judge_seasonal(&self, at: Timestamp) -> Result<Opinion, AbstainReason> {
        if self.refused[FleetDetector::SeasonalEsd.index()] {
            return Err(AbstainReason::ModelRefused);
        }
        let (known, needed) = self.seasonal.known();
        let too_little = AbstainReason::TooLittleData { known: known as u32, needed: needed as u32 };
        let found = self.seasonal.judge(at, &self.history.trailing(PRESENT_S)).ok_or(too_little)?;
        let statistic = found.iter().filter(|f| f.r.is_finite()).fold(f64::NAN, |m: f64, f| m.max(f.r));
        if !statistic.is_finite() {
            return Err(AbstainReason::NoValues);
        }
        let beyond = found.iter().any(|f| f.outlier);
        Ok(Opinion { statistic, per_day: BLOCKS_PER_DAY, beyond, shares: shares(found.map(|f| f.r * f.r)) })
    }

    fn modelless(&self, detector: FleetDetector) -> AbstainReason {
        if self.refused[detector.index()] { AbstainReason::ModelRefused } else { AbstainReason::NoModel }
    }

    /// What a training run takes out at its end.
    pub(crate) fn into_parts(self) -> (Rollups, [Tail; 4], Tail) {
        (self.seasonal.rollups().clone(), self.tails, self.fused)
    }
}

fn abstained(detector: FleetDetector, reason: AbstainReason) -> Abstained {
    Abstained { detector, reason }
}

#[cfg(test)]
mod tests;
