//! Training of the whole ensemble from the history of one node.
//!
//! Stretches marked anomalous are left out as if nothing had been seen. Three days of four teach the forest and
//! the network; the fourth, which they have not seen, tells how large their statistics are when nothing is wrong.
//! Then the history is replayed through the ensemble as it will run, which fills what needs no model: the tail of
//! the z-score, the roll-ups of the seasonal test, and the tail of the fused surprise.

use std::fmt;

use evenkeel_common::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EnsembleConfig, EnsembleDetector, FleetDetector, History, Teach};
use crate::isolation_forest::IsolationForest;
use crate::lstm_autoencoder::{LstmAutoencoder, Progress, TrainFailure};
use crate::model::{DECILES, Model, ModelError, ModelKind, ModelMetadata, Payload, fingerprint};
use crate::seven::{SEVEN, SevenMetric, SevenMetrics};
use crate::tail::Tail;

/// Of so many days the last is not learned from.
const HELD_OUT: i64 = 4;
const DAY_MS: i64 = 86_400_000;
/// Steps on the grid of a history: bounds memory, however far apart two rows are.
const MAX_GRID: usize = 400_000;

/// Options of the training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingConfig {
    /// Rows that a training needs, without those left out. The default is a week of five-minute rows.
    #[schemars(range(min = 200, max = 1_000_000))]
    pub min_rows: u32,
    /// Days that the rows must cover. With less than a week a model takes the first weekend for an anomaly.
    #[schemars(range(min = 1.0, max = 365.0))]
    pub min_days: f64,
    /// Rows that are used at most, the newest: 60 days of minutes.
    #[schemars(range(min = 1000, max = 200_000))]
    pub max_rows: u32,
    /// Where the random choices of the training begin: the same seed and rows give the same models.
    pub seed: u64,
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Self { min_rows: 2000, min_days: 6.9, max_rows: 86_400, seed: 1 }
    }
}

/// One row of history.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingRow {
    /// When.
    pub at: Timestamp,
    /// What was measured, as a mean over the step.
    pub metrics: SevenMetrics,
    /// Whether it lies in a stretch known as anomalous, which is left out.
    pub anomalous: bool,
}

/// Why there are no models.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TrainError {
    /// Too little is left.
    TooFewRows {
        /// Rows that are left.
        rows: usize,
        /// Rows left out because they are marked anomalous.
        anomalous: usize,
        /// Rows needed.
        needed: u32,
    },
    /// The rows cover too little time.
    TooShort {
        /// Days covered.
        days: f64,
        /// Days needed.
        needed: f64,
    },
    /// Rows are not in the order of time.
    NotInOrder {
        /// The first that is not later than the one before, from 0.
        row: usize,
    },
    /// Rows lie so far apart that there are no windows to learn from.
    TooSparse {
        /// Seconds between rows, as a rule.
        step_s: u32,
    },
    /// The caller cancelled.
    Cancelled,
}

impl fmt::Display for TrainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFewRows { rows, anomalous, needed } => write!(
                f,
                "{rows} rows are left ({anomalous} are marked anomalous), {needed} are needed; \
                 wait for more history or lower `min_rows`"
            ),
            Self::TooShort { days, needed } => write!(
                f,
                "the rows cover {days:.1} days, {needed:.1} are needed; wait for more history or lower `min_days`"
            ),
            Self::NotInOrder { row } => {
                write!(f, "row {row} is not later than the one before; sort the rows by time, each time once")
            }
            Self::TooSparse { step_s } => write!(
                f,
                "the rows, {step_s} s apart, have too many holes for windows; train on rows at one interval of at most an hour"
            ),
            Self::Cancelled => write!(f, "the training was cancelled; the models in use stay"),
        }
    }
}

impl std::error::Error for TrainError {}

/// The models of one training.
#[derive(Clone, Debug, PartialEq)]
pub struct Models(Vec<Model>);

impl Models {
    /// All, one of each kind.
    #[must_use]
    pub fn all(&self) -> &[Model] {
        &self.0
    }

    /// The one of a kind.
    #[must_use]
    pub fn get(&self, kind: ModelKind) -> Option<&Model> {
        self.0.iter().find(|model| model.kind() == kind)
    }

    /// Gives all to a detector.
    ///
    /// # Errors
    /// The first refusal; see [`EnsembleDetector::set_model`].
    pub fn apply(&self, to: &mut EnsembleDetector) -> Result<(), ModelError> {
        self.0.iter().try_for_each(|model| to.set_model(model.kind(), model.clone()))
    }
}

/// Trains all models on the history of one node: `rows` in order of time. `progress` is called after each round
/// of the network and cancels by returning `false`. `now` is only noted.
///
/// # Errors
/// See [`TrainError`].
pub fn train(
    rows: &[TrainingRow],
    config: &EnsembleConfig,
    now: Timestamp,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Models, TrainError> {
    let (kept, step_s) = usable(rows, &config.training)?;
    let mut detector = EnsembleDetector::new(EnsembleConfig { check_interval_s: step_s, ..*config });
    detector.forest = Some((grow_forest(&kept, step_s, config)?, step_s));
    detector.autoencoder = Some((train_network(&kept, step_s, config, progress)?, step_s));
    let [forest_tail, network_tail] = unseen_tails(&kept, &detector, config);
    detector.tails[FleetDetector::IsolationForest.index()] = forest_tail;
    detector.tails[FleetDetector::LstmAutoencoder.index()] = network_tail;
    let about = describe(&kept, step_s, config, now);
    let (forest, network) = (detector.forest.clone(), detector.autoencoder.clone());
    for row in &kept {
        let unseen = is_held_out(row.at);
        detector.look(row.at, &row.metrics, Teach { models: false, fused: unseen });
    }
    let (rollups, [forest_tail, network_tail, z_tail, seasonal_tail], fused) = detector.into_parts();
    let mut payloads = Vec::with_capacity(ModelKind::ALL.len());
    payloads.extend(forest.map(|(forest, _)| Payload::IsolationForest { forest, tail: forest_tail }));
    payloads
        .extend(network.map(|(autoencoder, _)| Payload::LstmAutoencoder { autoencoder, tail: network_tail }));
    payloads.push(Payload::ZScore { tail: z_tail });
    payloads.push(Payload::SeasonalEsd { rollups, tail: seasonal_tail });
    payloads.push(Payload::Fusion { tail: fused });
    let model = |payload: Payload| {
        let error_quantiles = payload.tail().quantiles([0.5, 0.9, 0.99, 0.999, 1.0]);
        Model { about: ModelMetadata { error_quantiles, ..about.clone() }, payload }
    };
    Ok(Models(payloads.into_iter().map(model).collect()))
}

fn is_held_out(at: Timestamp) -> bool {
    at.as_millis().div_euclid(DAY_MS).rem_euclid(HELD_OUT) == HELD_OUT - 1
}

/// The rows to use and the seconds between them.
fn usable(rows: &[TrainingRow], config: &TrainingConfig) -> Result<(Vec<TrainingRow>, u32), TrainError> {
    if let Some(row) = rows.windows(2).position(|pair| pair[1].at <= pair[0].at) {
        return Err(TrainError::NotInOrder { row: row + 1 });
    }
    let newest = &rows[rows.len().saturating_sub(config.max_rows as usize)..];
    let kept: Vec<TrainingRow> = newest.iter().filter(|row| !row.anomalous).copied().collect();
    let (first, last) = match (kept.first(), kept.last()) {
        (Some(first), Some(last)) if kept.len() >= config.min_rows.max(200) as usize => (first.at, last.at),
        _ => {
            let anomalous = newest.len() - kept.len();
            return Err(TrainError::TooFewRows {
                rows: kept.len(),
                anomalous,
                needed: config.min_rows.max(200),
            });
        }
    };
    let days = last.since(first).as_secs_f64() / 86_400.0;
    if days < config.min_days {
        return Err(TrainError::TooShort { days, needed: config.min_days });
    }
    let mut gaps: Vec<i64> = kept.windows(2).map(|p| p[1].at.as_millis() - p[0].at.as_millis()).collect();
    let middle = gaps.len() / 2;
    let step = *gaps.select_nth_unstable(middle).1;
    let step_s = u32::try_from((step + 500) / 1000).unwrap_or(u32::MAX).max(1);
    if step_s > 3600 || days * 86_400.0 / f64::from(step_s) > MAX_GRID as f64 {
        return Err(TrainError::TooSparse { step_s });
    }
    Ok((kept, step_s))
}

fn grow_forest(
    rows: &[TrainingRow],
    step_s: u32,
    config: &EnsembleConfig,
) -> Result<IsolationForest, TrainError> {
    let mut scratch = EnsembleDetector::new(*config);
    let mut table = Vec::with_capacity(rows.len());
    for row in rows {
        scratch.history.push(row.at, row.metrics.domain(), usize::from(config.buffer_size));
        if !is_held_out(row.at) {
            table.push(scratch.forest_row(step_s).to_vec());
        }
    }
    IsolationForest::train(&table, &config.isolation_forest, config.training.seed)
        .ok_or(TrainError::TooSparse { step_s })
}

fn train_network(
    rows: &[TrainingRow],
    step_s: u32,
    config: &EnsembleConfig,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<LstmAutoencoder, TrainError> {
    let step_ms = i64::from(step_s) * 1000;
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
        return Err(TrainError::TooSparse { step_s });
    };
    let place = |at: Timestamp| ((at.as_millis() - first.at.as_millis() + step_ms / 2) / step_ms) as usize;
    let mut grid = vec![vec![f64::NAN; SEVEN]; place(last.at) + 1];
    let mut seen = vec![false; grid.len()];
    for row in rows {
        let at = place(row.at);
        grid[at] = row.metrics.domain().to_vec();
        seen[at] = !is_held_out(row.at);
    }
    let steps = usize::from(config.lstm_autoencoder.steps);
    // A window is whole, and lies in days that may be learned from.
    let mut run = 0;
    let mut starts = Vec::new();
    for (i, &seen) in seen.iter().enumerate() {
        run = if seen { run + 1 } else { 0 };
        if run >= steps {
            starts.push(i + 1 - steps);
        }
    }
    let floors = SevenMetric::ALL.map(SevenMetric::floor);
    let seed = config.training.seed;
    LstmAutoencoder::train(&grid, &starts, &floors, &config.lstm_autoencoder, seed, progress).map_err(
        |failure| match failure {
            TrainFailure::NoWindow => TrainError::TooSparse { step_s },
            TrainFailure::Cancelled => TrainError::Cancelled,
        },
    )
}

/// Tails of forest and network on the days that they have not seen.
fn unseen_tails(rows: &[TrainingRow], trained: &EnsembleDetector, config: &EnsembleConfig) -> [Tail; 2] {
    let mut detector = trained.clone();
    detector.history = History::default();
    let (mut scores, mut network) = (Vec::new(), Tail::default());
    for row in rows {
        detector.history.push(row.at, row.metrics.domain(), usize::from(config.buffer_size));
        if !is_held_out(row.at) {
            continue;
        }
        scores.extend(detector.judge_forest().ok().map(|found| (row.at, found.statistic)));
        if let Ok(found) = detector.judge_autoencoder() {
            network.learn(row.at, found.statistic);
        }
    }
    let mut sorted: Vec<f64> = scores.iter().map(|(_, score)| *score).collect();
    sorted.sort_by(f64::total_cmp);
    let trusted =
        (sorted.len() as f64 * (1.0 - config.isolation_forest.contamination.clamp(0.0, 0.5))) as usize;
    let most = sorted.get(trusted.min(sorted.len().saturating_sub(1))).copied().unwrap_or(1.0);
    let mut forest = Tail::default();
    scores.iter().for_each(|(at, score)| forest.learn(*at, score.min(most)));
    [forest, network]
}

fn describe(rows: &[TrainingRow], step_s: u32, config: &EnsembleConfig, now: Timestamp) -> ModelMetadata {
    let edge = |row: Option<&TrainingRow>| row.map_or(now, |row| row.at);
    let mut about = ModelMetadata {
        trained_at: now,
        rows: u32::try_from(rows.len()).unwrap_or(u32::MAX),
        from: edge(rows.first()),
        to: edge(rows.last()),
        step_s,
        config_hash: fingerprint(config),
        error_quantiles: [0.0; 5],
        means: [0.0; SEVEN],
        deviations: [0.0; SEVEN],
        deciles: [[0.0; DECILES]; SEVEN],
    };
    for metric in SevenMetric::ALL {
        let i = metric.index();
        let mut values: Vec<f64> =
            rows.iter().map(|row| metric.enter(row.metrics.0[i])).filter(|v| v.is_finite()).collect();
        if values.is_empty() {
            continue;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        about.means[i] = mean as f32;
        about.deviations[i] = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt() as f32;
        values.sort_by(f64::total_cmp);
        about.deciles[i] =
            std::array::from_fn(|k| values[(values.len() * k / 10).min(values.len() - 1)] as f32);
    }
    about
}
