//! Fleet detection: what the aggregator finds that no single agent can. Every few seconds it looks at every node,
//! applies its rules, keeps health and history, and tells anomalies of its own; they stand in the store beside those
//! of agents, under an epoch of their own.
//!
//! Nothing found here reaches a migration decision: a silent node is barred from decisions by its old data alone.

pub mod book;
pub mod config;
pub mod csv;
pub mod ensemble;
pub mod forecasts;
pub mod health;
pub mod history;
pub mod models;
pub mod observe;
mod peers;
pub mod rules;
mod step;
pub mod tasks;
pub mod training;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use evenkeel_core::score::health::Health;
use evenkeel_detect::peers::Peers;
use evenkeel_runtime::clock::{Clock, Ticker};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

pub use config::FleetConfig;
use health::Shown;

use crate::cycle::ClusterHandle;
use crate::ingest::{AnomalyNews, Live};
use crate::store::records::NodeKey;
use crate::store::{Batch, Direction, KeyRange, OnDamage, Store, StoreError, trees};

/// A node that has been heard of within this time is expected to speak after a restart of the aggregator.
const EXPECTED: Duration = Duration::from_hours(24);

/// Sentences for the status at most.
const MOST_WARNINGS: usize = 40;

/// What fleet detection needs.
pub struct Parts {
    /// Options.
    pub config: FleetConfig,
    /// What agents say.
    pub live: Arc<Live>,
    /// What is kept.
    pub store: Arc<dyn Store>,
    /// Where the files of models are.
    pub models_dir: PathBuf,
    /// The clusters that are decided about.
    pub clusters: Arc<BTreeMap<ClusterId, Arc<ClusterHandle>>>,
    /// Those who watch anomalies.
    pub news: broadcast::Sender<AnomalyNews>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Fleet detection, shared between its task and those who ask.
pub struct Fleet {
    parts: Parts,
    state: Mutex<State>,
    /// Held during a training: one at a time.
    training: Mutex<()>,
    finished: watch::Sender<Option<Duration>>,
}

/// What it knows.
#[derive(Default)]
struct State {
    nodes: BTreeMap<NodeKey, NodeState>,
    guests: BTreeMap<(ClusterId, Vmid), GuestState>,
    tasks: BTreeMap<ClusterId, tasks::TaskBook>,
    peers: BTreeMap<ClusterId, Peers<NodeId>>,
}

/// What it knows of a node.
struct NodeState {
    book: book::Book,
    history: history::History,
    ensemble: ensemble::Ensemble,
    /// Uptime from which on the node is expected to speak.
    since: Duration,
    forecasts: Vec<forecasts::Found>,
    health: Health,
    shown: Shown,
}

/// What it knows of a guest.
struct GuestState {
    node: NodeKey,
    name: String,
    health: Health,
    shown: Shown,
}

/// Health of a node or guest, for those who ask.
#[derive(Clone, Debug)]
pub struct HealthNow {
    /// On which node, or of which.
    pub node: NodeKey,
    /// The guest, if it is one.
    pub guest: Option<(Vmid, String)>,
    /// How it is.
    pub health: Health,
}

impl Fleet {
    /// Takes up where the last process left off: open anomalies, histories, and nodes that are expected to speak.
    ///
    /// # Errors
    /// Of the store.
    pub fn open(parts: Parts) -> Result<Self, StoreError> {
        let (store, now) = (Arc::clone(&parts.store), parts.clock.now());
        let mut known = Vec::new();
        trees::NODES.scan(
            store.as_ref(),
            &KeyRange::all(),
            Direction::Forward,
            OnDamage::Skip,
            |key, _| {
                known.push(key);
                ControlFlow::Continue(())
            },
        )?;
        let mut state = State::default();
        let shelf = models::Shelf::new(parts.models_dir.clone(), Arc::clone(&store));
        let grace = Duration::from_secs(parts.config.startup_grace_secs.into());
        let since = parts.clock.uptime() + grace;
        for node in known {
            let recent = history::newest_rollup(store.as_ref(), &node)?;
            let loaded = NodeState::load(&parts.config, (store.as_ref(), &shelf), &node, now, since)?;
            let expected = recent.is_some_and(|at| now.since(at) <= EXPECTED);
            if !expected && loaded.book.open_anomalies().next().is_none() {
                continue;
            }
            let cell = parts.live.node(&node.cluster, &node.node);
            for record in loaded.book.open_anomalies() {
                let id = (record.epoch, record.anomaly.number);
                cell.lock().open.insert(id, record.anomaly.clone());
            }
            state.nodes.insert(node, loaded);
        }
        state.peers = peers::load(store.as_ref(), &parts.config, state.nodes.keys(), now)?;
        let fleet = Self {
            parts,
            state: Mutex::new(state),
            training: Mutex::default(),
            finished: watch::Sender::new(None),
        };
        fleet.adapt()?;
        Ok(fleet)
    }

    /// Looks at every node, over and over, until `stop`. A store that fails cancels `failed`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken, failed: CancellationToken) {
        let mut steps = Ticker::new(Arc::clone(&self.parts.clock), self.parts.config.interval());
        while let Some(due) = stop.run_until_cancelled(steps.tick()).await {
            let this = Arc::clone(&self);
            // Rows are read and written at a look, and a thousand nodes take their time.
            match tokio::task::spawn_blocking(move || this.look()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(%error, "fleet detection could not store what it found, stopping");
                    failed.cancel();
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "fleet detection broke off, stopping");
                    failed.cancel();
                    return;
                }
            }
            self.finished.send_replace(Some(due));
        }
    }

    /// Follows the looks: uptime at which the last finished one was due.
    #[must_use]
    pub fn finished(&self) -> watch::Receiver<Option<Duration>> {
        self.finished.subscribe()
    }

    /// Options.
    #[must_use]
    pub fn config(&self) -> &FleetConfig {
        &self.parts.config
    }

    /// The nodes of a cluster that are looked at.
    #[must_use]
    pub fn nodes(&self, cluster: &ClusterId) -> Vec<NodeKey> {
        self.lock().nodes.keys().filter(|key| key.cluster == *cluster).cloned().collect()
    }

    /// Health of all nodes and guests of a cluster, nodes first.
    #[must_use]
    pub fn health(&self, cluster: &ClusterId) -> Vec<HealthNow> {
        let state = self.lock();
        let nodes = state.nodes.iter().filter(|(key, _)| key.cluster == *cluster);
        let nodes =
            nodes.map(|(node, of)| HealthNow { node: node.clone(), guest: None, health: of.health.clone() });
        let guests = state.guests.iter().filter(|((of, _), _)| of == cluster);
        let guests = guests.map(|((_, vmid), of)| HealthNow {
            node: of.node.clone(),
            guest: Some((*vmid, of.name.clone())),
            health: of.health.clone(),
        });
        nodes.chain(guests).collect()
    }

    /// Forecasts of a cluster's nodes.
    #[must_use]
    pub fn forecasts(&self, cluster: &ClusterId) -> Vec<(NodeKey, forecasts::Found)> {
        let state = self.lock();
        let nodes = state.nodes.iter().filter(|(key, _)| key.cluster == *cluster);
        nodes.flat_map(|(node, of)| of.forecasts.iter().map(|found| (node.clone(), found.clone()))).collect()
    }

    /// Sentences for the status: what will soon reach its limit.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let state = self.lock();
        let within = f64::from(self.parts.config.forecast_warn_hours);
        let near =
            state.nodes.iter().flat_map(|(node, of)| of.forecasts.iter().map(move |found| (node, found)));
        let broken = state.nodes.iter().flat_map(|(node, of)| {
            let told = move |problem: &String| format!("cluster {}: {}: {problem}", node.cluster, node.node);
            of.ensemble.problems.iter().map(told)
        });
        let near = near.filter(|(_, found)| found.forecast.hours <= within);
        near.map(|(node, found)| {
            format!(
                "cluster {}: {} of {} reaches {:.0} % in about {:.1} h; see `evenkeelctl forecast`",
                node.cluster, found.series, node.node, found.limit, found.forecast.hours
            )
        })
        .chain(broken)
        .take(MOST_WARNINGS)
        .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.parts.store.apply(batch)
    }
}

impl NodeState {
    fn load(
        config: &FleetConfig,
        (store, shelf): (&dyn Store, &models::Shelf),
        node: &NodeKey,
        now: Timestamp,
        since: Duration,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            book: book::Book::open(store, node)?,
            history: history::History::load(store, node, now)?,
            ensemble: ensemble::Ensemble::open(&config.ensemble, shelf, node)?,
            since,
            forecasts: Vec::new(),
            health: health::unknown(),
            shown: Shown::default(),
        })
    }
}
