//! What others may see and ask of a cluster's decision cycle.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evenkeel_common::id::ClusterId;
use evenkeel_common::time::Timestamp;
use evenkeel_core::{Policy, RunRecord};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};

use super::execution;
use crate::execute::{Book, ExecuteConfig, Gate};
use crate::pve::Inventory;
use crate::store::{Batch, Store, StoreError, trees};

/// Runs that a slow watcher may fall behind.
const BACKLOG: usize = 64;

/// One cluster, as the server sees it.
#[derive(Debug)]
pub struct ClusterHandle {
    /// Its name.
    pub id: ClusterId,
    /// How it is decided; fixed while the process runs.
    pub policy: Policy,
    /// How decisions are acted on.
    pub execute: ExecuteConfig,
    /// What is to be started, under way and over.
    pub book: Arc<Book>,
    /// What a call to Proxmox VE holds, and a pause waits for.
    pub gate: Arc<Gate>,
    state: Mutex<ClusterState>,
    runs: broadcast::Sender<Arc<RunRecord>>,
    /// Time of the last finished step, a run or a look at Proxmox, whatever came of it.
    finished: watch::Sender<Option<Timestamp>>,
}

/// What changes.
#[derive(Debug, Default)]
pub struct ClusterState {
    /// The newest whole inventory.
    pub inventory: Option<Arc<Inventory>>,
    /// Why the newest attempt at one failed, if it did.
    pub inventory_error: Option<String>,
    /// The last run.
    pub last_run: Option<Arc<RunRecord>>,
    /// Who paused it, if someone did.
    pub pause: Option<Pause>,
}

/// A pause, as kept in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Label of the token that paused.
    pub by: String,
    /// Why, in their words; may be empty.
    pub why: String,
    /// Since when.
    pub at: Timestamp,
}

/// That an operator has looked after what stopped the executor, as kept in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rearmed {
    /// Label of the token.
    pub by: String,
    /// Why, in their words; may be empty.
    pub why: String,
    /// When.
    pub at: Timestamp,
}

impl ClusterHandle {
    /// A cluster whose pause is read from the store.
    ///
    /// # Errors
    /// Of the store.
    pub fn open(
        id: ClusterId,
        policy: Policy,
        execute: ExecuteConfig,
        store: &Arc<dyn Store>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let stored = trees::CONTROL.get(store.as_ref(), &pause_key(&id))?;
        // A pause that can not be read is still a pause: the safe reading.
        let unreadable =
            || Pause { by: "unknown".into(), why: "unreadable record".into(), at: Timestamp::default() };
        let pause = stored.map(|value| serde_json::from_value(value).unwrap_or_else(|_| unreadable()));
        let rearmed = trees::CONTROL.get(store.as_ref(), &rearm_key(&id))?;
        // One that can not be read never was: the safe reading.
        let rearmed: Option<Rearmed> = rearmed.and_then(|value| serde_json::from_value(value).ok());
        let book = execution::open_book(store, &id, rearmed.map(|rearmed| rearmed.at), now)?;
        let state = Mutex::new(ClusterState { pause, ..ClusterState::default() });
        Ok(Self {
            id,
            policy,
            execute,
            book,
            gate: Arc::default(),
            state,
            runs: broadcast::Sender::new(BACKLOG),
            finished: watch::Sender::new(None),
        })
    }

    /// The state, locked. Hold it briefly.
    pub fn lock(&self) -> MutexGuard<'_, ClusterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the runs.
    #[must_use]
    pub fn runs(&self) -> broadcast::Receiver<Arc<RunRecord>> {
        self.runs.subscribe()
    }

    /// Follows when steps end.
    #[must_use]
    pub fn finished(&self) -> watch::Receiver<Option<Timestamp>> {
        self.finished.subscribe()
    }

    pub(super) fn publish(&self, record: Arc<RunRecord>) {
        self.lock().last_run = Some(Arc::clone(&record));
        // Nobody watches: nobody to tell.
        let _ = self.runs.send(record);
    }

    pub(super) fn finish(&self, at: Timestamp) {
        self.finished.send_replace(Some(at));
    }

    /// Pauses: durable before this returns, and from then on nothing is started. A pause that stands keeps its author.
    /// Blocks while a call to Proxmox VE has no answer yet.
    ///
    /// # Errors
    /// Of the store; the cluster then counts as paused until the process ends.
    pub fn pause(&self, pause: Pause, store: &dyn Store) -> Result<(), StoreError> {
        let pause = self.lock().pause.get_or_insert(pause).clone();
        let mut batch = Batch::new();
        let value = serde_json::to_value(&pause)
            .map_err(|source| StoreError::Encode { tree: trees::CONTROL.id().name, source })?;
        batch.put(&trees::CONTROL, &pause_key(&self.id), &value)?;
        store.apply(batch)?;
        store.flush()?;
        // What was being started when the pause came has its answer, and after that nothing is.
        self.gate.wait();
        Ok(())
    }

    /// Arms it anew: breakers begin a new count, and what is unknown no longer stops the rest. Durable on return.
    ///
    /// # Errors
    /// Of the store; nothing has changed then.
    pub fn rearm(&self, rearmed: &Rearmed, store: &dyn Store) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        let value = serde_json::to_value(rearmed)
            .map_err(|source| StoreError::Encode { tree: trees::CONTROL.id().name, source })?;
        batch.put(&trees::CONTROL, &rearm_key(&self.id), &value)?;
        store.apply(batch)?;
        store.flush()?;
        self.book.rearm(rearmed.at);
        Ok(())
    }

    /// Ends a pause: durable first, so that a crash can not bring back what an operator ended.
    ///
    /// # Errors
    /// Of the store; the cluster then stays paused.
    pub fn resume(&self, store: &dyn Store) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        batch.delete(&trees::CONTROL, &pause_key(&self.id));
        store.apply(batch)?;
        store.flush()?;
        self.lock().pause = None;
        Ok(())
    }
}

fn pause_key(cluster: &ClusterId) -> String {
    format!("pause/{cluster}")
}

fn rearm_key(cluster: &ClusterId) -> String {
    format!("rearm/{cluster}")
}
