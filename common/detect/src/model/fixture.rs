//! Small models for tests, of a node that does nothing special.

use std::sync::OnceLock;

use evenkeel_common::time::Timestamp;

use super::{Model, ModelKind, ModelMetadata};
use crate::chance::Chance;
use crate::ensemble::{EnsembleConfig, Models, TrainingConfig, TrainingRow, train};
use crate::isolation_forest::ForestConfig;
use crate::lstm_autoencoder::LstmConfig;
use crate::seven::SevenMetrics;

fn models(looks: &[SevenMetrics]) -> Models {
    let config = EnsembleConfig {
        isolation_forest: ForestConfig { trees: 10, sample_size: 32, ..ForestConfig::default() },
        lstm_autoencoder: LstmConfig {
            steps: 5,
            hidden: 4,
            latent: 2,
            windows: 64,
            epochs: 1,
            ..LstmConfig::default()
        },
        training: TrainingConfig { min_rows: 200, min_days: 1.0, ..TrainingConfig::default() },
        ..EnsembleConfig::default()
    };
    let row = |(i, metrics): (usize, &SevenMetrics)| TrainingRow {
        at: Timestamp::from_millis(i as i64 * 600_000),
        metrics: *metrics,
        anomalous: false,
    };
    let rows: Vec<TrainingRow> = looks.iter().enumerate().map(row).collect();
    train(&rows, &config, Timestamp::from_millis(1), &mut |_| true).unwrap()
}

fn standard(kind: ModelKind) -> Model {
    static MODELS: OnceLock<Models> = OnceLock::new();
    let models = MODELS.get_or_init(|| {
        let mut chance = Chance::new(7);
        let mut value = |mean: f64| mean * (1.0 + 0.1 * chance.unit());
        let look =
            |_| SevenMetrics([value(100.0), value(1.0), 0.0, value(0.5), value(20.0), value(50.0), 0.0]);
        models(&(0..1200).map(look).collect::<Vec<_>>())
    });
    models.get(kind).unwrap().clone()
}

/// An isolation forest of ten trees.
pub(crate) fn forest() -> Model {
    standard(ModelKind::IsolationForest)
}

/// A network of four cells.
pub(crate) fn autoencoder() -> Model {
    standard(ModelKind::LstmAutoencoder)
}

/// The tail of a z-score.
pub(crate) fn z_score() -> Model {
    standard(ModelKind::ZScore)
}

/// What is noted of these looks.
pub(crate) fn about(looks: &[SevenMetrics]) -> ModelMetadata {
    models(looks).get(ModelKind::ZScore).unwrap().about.clone()
}
