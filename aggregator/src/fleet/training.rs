//! Training: rows from the stored means of a node or from a file, anomalous stretches left out, one training at a time,
//! with rests between its rounds.

use std::ops::ControlFlow;
use std::sync::{Arc, TryLockError};
use std::time::Duration;

use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_common::time::{Timestamp, Window};
use evenkeel_detect::ensemble::{TrainError, TrainingRow, train};
use evenkeel_detect::seven::SevenMetrics;
use evenkeel_runtime::clock::sleep;
use tokio_util::sync::CancellationToken;

use super::models::{ModelsError, Shelf};
use super::{Fleet, history};
use crate::store::records::{AnomalyRecord, ModelRecord, NodeKey};
use crate::store::{Direction, KeyRange, OnDamage, Store, StoreError, trees};

/// Data that a training by itself uses.
pub const LOOK_BACK: Duration = Duration::from_hours(24 * 30);
/// Least data that it is started with.
const LEAST: Duration = Duration::from_hours(24 * 7);
/// Between two looks whether a training is due.
const EVERY: Duration = Duration::from_hours(1);
/// Anomalies looked at for stretches to leave out.
const MOST_ANOMALIES: usize = 50_000;

/// Why there is no new model.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// The rows do not do.
    #[error(transparent)]
    Rows(#[from] TrainError),
    /// The models can not be kept.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// Of the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another one is under way.
    #[error("another training is under way; try again when it has ended")]
    Busy,
}

/// What to train on.
pub struct Material {
    /// For which node; `None` = every node of the cluster.
    pub node: Option<NodeId>,
    /// The rows, in order of time.
    pub rows: Vec<TrainingRow>,
    /// store, csv or monthly.
    pub source: &'static str,
    /// Who asked.
    pub by: String,
}

impl Fleet {
    /// Rows of a node from the store since a time. Blocks the thread.
    ///
    /// # Errors
    /// Of the store.
    pub fn rows(&self, node: &NodeKey, since: Timestamp) -> Result<Vec<TrainingRow>, StoreError> {
        let store = self.parts.store.as_ref();
        let stretches = anomalous(store, node, since)?;
        let rollups = history::rollups(store, node, since)?;
        let half = self.parts.config.rollup();
        Ok(rollups
            .into_iter()
            .map(|(at, record)| {
                let end = at.after(half);
                let anomalous = stretches.iter().any(|stretch| stretch.from < end && at < stretch.to);
                let metrics = SevenMetrics(record.seven.map(|value| value.unwrap_or(f64::NAN)));
                TrainingRow { at, metrics, anomalous }
            })
            .collect())
    }

    /// Trains and keeps the models; `progress` gets the share done and stops the training by returning `false`. Blocks
    /// the thread for minutes.
    ///
    /// # Errors
    /// [`TrainingError`]; nothing changes then.
    pub fn train(
        &self,
        cluster: &ClusterId,
        material: Material,
        activate: bool,
        progress: &mut dyn FnMut(f64) -> bool,
    ) -> Result<(u32, ModelRecord), TrainingError> {
        let _one = match self.training.try_lock() {
            Ok(one) => one,
            // Nothing is half changed by a training that broke off.
            Err(TryLockError::Poisoned(one)) => one.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(TrainingError::Busy),
        };
        let Material { node, rows, source, by } = material;
        let now = self.parts.clock.now();
        let mut last = self.parts.clock.uptime();
        let models = train(&rows, &self.parts.config.ensemble, now, &mut |round| {
            // As long a rest as the round took, so that half of the CPU is left to the rest.
            let took = self.parts.clock.uptime().saturating_sub(last).min(Duration::from_secs(5));
            std::thread::sleep(took);
            last = self.parts.clock.uptime();
            progress(f64::from(round.epoch) / f64::from(round.epochs.max(1)))
        })?;
        let left_out = rows.iter().filter(|row| row.anomalous).count();
        let data = Window {
            from: rows.first().map(|row| row.at).unwrap_or_default(),
            to: rows.last().map(|row| row.at).unwrap_or_default(),
        };
        let record = ModelRecord {
            node,
            trained_at: now,
            data,
            rows: (rows.len() - left_out) as u64,
            left_out: left_out as u64,
            source: source.into(),
            by,
            bytes: 0,
        };
        let shelf = self.shelf();
        let number = shelf.keep(cluster, record, &models)?;
        if activate {
            shelf.activate(cluster, number)?;
            self.reload(cluster)?;
        }
        let kept = shelf.list(cluster)?.into_iter().find(|(known, _)| *known == number);
        kept.ok_or_else(|| ModelsError::Unknown(Shelf::id(cluster, number)).into())
    }

    /// Trains by itself what has grown old, until `stop`.
    pub async fn retrain(self: Arc<Self>, stop: CancellationToken) {
        let days = self.parts.config.retrain_days;
        if days == 0 {
            return;
        }
        let clock = Arc::clone(&self.parts.clock);
        while stop.run_until_cancelled(sleep(clock.as_ref(), EVERY)).await.is_some() {
            let (this, stopping) = (Arc::clone(&self), stop.clone());
            let turn = tokio::task::spawn_blocking(move || this.retrain_old(days, &stopping));
            match turn.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "a training by itself failed; the models in use stay")
                }
                Err(error) => tracing::error!(%error, "a training by itself broke off"),
            }
        }
    }

    fn retrain_old(&self, days: u32, stop: &CancellationToken) -> Result<(), TrainingError> {
        let now = self.parts.clock.now();
        let shelf = self.shelf();
        let nodes: Vec<NodeKey> = self.lock().nodes.keys().cloned().collect();
        for node in nodes {
            let trained =
                shelf.list(&node.cluster)?.into_iter().find(|(_, r)| r.node.as_ref() == Some(&node.node));
            let limit = Duration::from_hours(24) * days;
            if stop.is_cancelled() || trained.is_some_and(|(_, record)| now.since(record.trained_at) < limit)
            {
                continue;
            }
            let rows = self.rows(&node, now.before(LOOK_BACK))?;
            let covered = rows.first().zip(rows.last()).map(|(a, b)| b.at.since(a.at)).unwrap_or_default();
            if covered < LEAST {
                continue;
            }
            let name = Some(node.node.clone());
            let material = Material { node: name, rows, source: "monthly", by: "evenkeel".into() };
            match self.train(&node.cluster, material, true, &mut |_| !stop.is_cancelled()) {
                Ok((number, _)) => {
                    tracing::info!(cluster = %node.cluster, node = %node.node, number, "trained new models");
                }
                Err(TrainingError::Rows(error)) => {
                    tracing::info!(node = %node.node, %error, "too little to train on");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Stretches of a node in which something was open that people did not call a false alarm. Drills are left out of
/// training as well, whatever they were called.
fn anomalous(store: &dyn Store, node: &NodeKey, since: Timestamp) -> Result<Vec<Window>, StoreError> {
    let mut found: Vec<(crate::store::records::AnomalyKey, AnomalyRecord)> = Vec::new();
    let visit = |key, record: AnomalyRecord| {
        if record.anomaly.closed_at.is_none_or(|closed| closed >= since) {
            found.push((key, record));
        }
        if found.len() < MOST_ANOMALIES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    trees::ANOMALIES.scan(store, &KeyRange::under(node), Direction::Forward, OnDamage::Skip, visit)?;
    let mut stretches = Vec::new();
    for (key, record) in found {
        let said = trees::FEEDBACK.get(store, &key)?;
        if record.anomaly.injected || said.is_none_or(|said| said.good) {
            let to = record.anomaly.closed_at.unwrap_or(Timestamp::from_millis(i64::MAX));
            stretches.push(Window { from: record.anomaly.opened_at, to });
        }
    }
    Ok(stretches)
}
