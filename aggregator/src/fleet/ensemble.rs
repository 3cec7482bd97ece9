//! The ensemble of each node: its models, what people taught it, and its verdicts as signs.

use std::ops::ControlFlow;

use evenkeel_common::anomaly::{DetectorKind, Vote};
use evenkeel_common::id::ClusterId;
use evenkeel_common::sample::SeriesKey;
use evenkeel_common::units::Probability;
use evenkeel_detect::ensemble::{EnsembleConfig, EnsembleDetector, FleetDetector, Verdict};
use evenkeel_detect::feedback::Feedback;
use evenkeel_detect::model::{Drift, ModelKind, drift};
use evenkeel_detect::seven::SevenMetrics;

use super::Fleet;
use super::book::Book;
use super::history::History;
use super::models::Shelf;
use super::observe::{Observation, SEVEN};
use super::rules::{Evidence, Sign, Signed};
use crate::store::records::{FLEET_EPOCH, NodeKey};
use crate::store::{Direction, KeyRange, OnDamage, Store, StoreError, trees};

/// Instance of the ensemble's series, which tells its anomalies from those of the rules about the same metric.
pub const INSTANCE: &str = "ensemble";
/// Stretches of ten minutes in a day, in which rarity is counted.
const STRETCHES: f64 = 144.0;

/// The ensemble of one node.
pub struct Ensemble {
    detector: EnsembleDetector,
    /// What it said last.
    pub last: Option<Verdict>,
    /// Number of the training in use.
    pub model: Option<u32>,
    /// What is wrong with its files, a sentence each.
    pub problems: Vec<String>,
    /// Whether the alert under way is a habit.
    habit: Option<bool>,
}

impl Ensemble {
    /// One with the models in use for this node.
    ///
    /// # Errors
    /// Of the store. Files that can not be used are no error: their detectors abstain.
    pub fn open(config: &EnsembleConfig, shelf: &Shelf, node: &NodeKey) -> Result<Self, StoreError> {
        let mut new = Self {
            detector: EnsembleDetector::new(*config),
            last: None,
            model: None,
            problems: Vec::new(),
            habit: None,
        };
        new.equip(shelf, node)?;
        Ok(new)
    }

    /// Takes the models now in use; what it remembers of the last looks stays.
    ///
    /// # Errors
    /// Of the store.
    pub fn equip(&mut self, shelf: &Shelf, node: &NodeKey) -> Result<(), StoreError> {
        self.model = shelf.in_use(&node.cluster, &node.node)?;
        self.problems = match self.model {
            Some(number) => shelf.give(&node.cluster, number, &mut self.detector),
            None => Vec::new(),
        };
        Ok(())
    }

    /// Moves thresholds by what people said.
    pub fn adapt(&mut self, feedback: &Feedback) {
        for detector in FleetDetector::ALL {
            self.detector.set_multiplier(detector, feedback.of(detector).multiplier());
        }
    }

    /// Looks, and says whether the node is itself. An anomaly that is open keeps its series, whatever metric stands out
    /// most by now. `is_habit`: asked once when an alert begins, with the place of its metric; a habit is not told.
    pub fn look(
        &mut self,
        at: evenkeel_common::time::Timestamp,
        seen: &Observation,
        book: &Book,
        history: &History,
        is_habit: impl FnOnce(usize) -> bool,
    ) -> Signed {
        let verdict = self.detector.observe(at, &SevenMetrics(seen.seven));
        let open =
            book.open_anomalies().map(|record| &record.anomaly.series).find(|s| s.instance == INSTANCE);
        let place = verdict.consensus_metric.map(|metric| metric.index());
        let consensus = place.map(|place| SeriesKey::device(SEVEN[place], INSTANCE));
        let series = open.cloned().or(consensus).unwrap_or_else(|| SeriesKey::device(SEVEN[0], INSTANCE));
        let alert = place.filter(|_| verdict.alert);
        self.habit = alert.map(|place| self.habit.unwrap_or_else(|| is_habit(place)));
        let sign = match alert {
            Some(_) if self.habit == Some(true) => Sign::Absent,
            Some(place) => Sign::Present(Box::new(evidence(&verdict, place, seen, history))),
            None if verdict.votes.is_empty() => Sign::Abstain,
            None => Sign::Absent,
        };
        self.last = Some(verdict);
        (series, sign)
    }
}

/// What an alert rests on.
fn evidence(verdict: &Verdict, place: usize, seen: &Observation, history: &History) -> Evidence {
    let rarest = verdict.votes.iter().map(|vote| vote.per_day).fold(STRETCHES, f64::min);
    // The distance at which normal noise would be as rare as this.
    let deviation = (-2.0 * (rarest / STRETCHES).clamp(1e-30, 1.0).ln()).sqrt();
    let finite = |value: f64| if value.is_finite() { value } else { 0.0 };
    let votes = verdict.votes.iter().filter(|vote| vote.confidence > 0.0).map(|vote| Vote {
        detector: kind(vote.detector),
        score: finite(vote.statistic),
        confidence: Probability::clamped(vote.confidence),
    });
    let votes: Vec<Vote> = votes.collect();
    let names: Vec<&str> = votes.iter().map(|vote| vote.detector.name()).collect();
    let metric = SEVEN[place];
    Evidence {
        value: finite(seen.seven[place]),
        expected: history.usual(place).unwrap_or_else(|| finite(seen.seven[place])),
        deviation,
        confidence: verdict.score,
        text: format!(
            "the seven metrics together are unlike this node, {metric} most of all (by {})",
            names.join(", ")
        ),
        votes,
        samples: Vec::new(),
        abstained: verdict
            .abstained
            .iter()
            .map(|silent| format!("{}: {}", silent.detector, silent.reason))
            .collect(),
    }
}

/// Our name for a detector of the ensemble.
const fn kind(detector: FleetDetector) -> DetectorKind {
    match detector {
        FleetDetector::IsolationForest => DetectorKind::IsolationForest,
        FleetDetector::LstmAutoencoder => DetectorKind::LstmAutoencoder,
        FleetDetector::ZScore => DetectorKind::ZScore,
        FleetDetector::SeasonalEsd => DetectorKind::SeasonalEsd,
    }
}

/// What people said about the ensemble's anomalies.
///
/// # Errors
/// Of the store.
pub fn feedback(store: &dyn Store) -> Result<Feedback, StoreError> {
    let mut answers = Vec::new();
    trees::FEEDBACK.scan(store, &KeyRange::all(), Direction::Forward, OnDamage::Skip, |key, said| {
        if key.epoch == FLEET_EPOCH {
            answers.push((key, said.good));
        }
        ControlFlow::Continue(())
    })?;
    let mut feedback = Feedback::default();
    for (key, good) in answers {
        let Some(record) = trees::ANOMALIES.get(store, &key)? else { continue };
        if record.anomaly.series.instance == super::peers::INSTANCE {
            feedback.peers.record(good);
        }
        if record.anomaly.series.instance == INSTANCE {
            let voted = |d: &FleetDetector| record.anomaly.votes.iter().any(|vote| vote.detector == kind(*d));
            let voters: Vec<FleetDetector> = FleetDetector::ALL.into_iter().filter(voted).collect();
            feedback.record(&voters, good);
        }
    }
    Ok(feedback)
}

impl Fleet {
    /// The models, as files and index.
    #[must_use]
    pub fn shelf(&self) -> Shelf {
        Shelf::new(self.parts.models_dir.clone(), std::sync::Arc::clone(&self.parts.store))
    }

    /// Gives every node of a cluster the models now in use. Blocks the thread.
    ///
    /// # Errors
    /// Of the store.
    pub fn reload(&self, cluster: &ClusterId) -> Result<(), StoreError> {
        let shelf = self.shelf();
        for (node, of) in self.lock().nodes.iter_mut().filter(|(key, _)| key.cluster == *cluster) {
            of.ensemble.equip(&shelf, node)?;
        }
        Ok(())
    }

    /// What the ensemble said of a node at the last look.
    #[must_use]
    pub fn verdict(&self, node: &NodeKey) -> Option<Verdict> {
        self.lock().nodes.get(node)?.ensemble.last.clone()
    }

    /// Takes in what people said meanwhile. Blocks the thread.
    ///
    /// # Errors
    /// Of the store.
    pub fn adapt(&self) -> Result<(), StoreError> {
        let feedback = feedback(self.parts.store.as_ref())?;
        let mut state = self.lock();
        state.nodes.values_mut().for_each(|of| of.ensemble.adapt(&feedback));
        let multiplier = feedback.peers.multiplier();
        state.peers.values_mut().for_each(|peers| peers.set_multiplier(multiplier));
        Ok(())
    }

    /// How far the last day of a model's node is from what it was trained on; `None` for a model of a whole cluster and
    /// one that can not be read.
    ///
    /// # Errors
    /// Of the store.
    pub fn drift(&self, cluster: &ClusterId, number: u32) -> Result<Option<Drift>, StoreError> {
        let shelf = self.shelf();
        let record = shelf.list(cluster)?.into_iter().find(|(known, _)| *known == number);
        let Some(name) = record.and_then(|(_, record)| record.node) else { return Ok(None) };
        let Some(model) = shelf.model(cluster, number, ModelKind::IsolationForest) else { return Ok(None) };
        let node = NodeKey { cluster: cluster.clone(), node: name };
        let since = self.parts.clock.now().before(std::time::Duration::from_hours(24));
        let recent: Vec<SevenMetrics> = self.rows(&node, since)?.iter().map(|row| row.metrics).collect();
        Ok(Some(drift(&model.about, &recent)))
    }
}
