//! The decision cycle of one cluster: inventory, snapshot, core, store, and then the next. Every run is stored with
//! all it was made of before anyone sees it.

pub mod execution;
pub mod handle;
mod hypervisor;
mod learning;
mod moves;
mod others;
mod outcomes;
mod past;
pub mod snapshot;
mod trail;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::guest::GuestProfile;
use evenkeel_common::id::Vmid;
use evenkeel_common::reason::Reason;
use evenkeel_common::time::Timestamp;
use evenkeel_core::{Memory, RunRecord, Snapshot};
use evenkeel_runtime::clock::{Clock, Ticker};
use tokio_util::sync::CancellationToken;

use execution::Execution;
pub use handle::{ClusterHandle, ClusterState, Pause, Rearmed};
use learning::Learning;
use moves::Moves;
use others::Others;
use outcomes::Outcomes;
use past::PastReader;
use trail::Trails;

use crate::execute::LogError;
use crate::execute::executor::in_flight;
use crate::ingest::{Histories, Live};
use crate::pve::migrate::Migrator;
use crate::pve::resources::GuestStatus;
use crate::pve::{Inventory, InventoryReader, PveError};
use crate::store::records::{DecisionKey, RunKey};
use crate::store::{Batch, Direction, KeyRange, OnDamage, Store, StoreError, trees};

/// Guest configurations read per inventory: the API is shared with people, and a thousand guests are known after five of them.
const CONFIGS_PER_LOOK: usize = 200;

/// Decides about one cluster, over and over.
pub struct Cycle {
    handle: Arc<ClusterHandle>,
    live: Arc<Live>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    pve: Option<PveSide>,
    max_skew_ms: u64,
    memory: Memory,
    moves: Moves,
    trails: Trails,
    others: Others,
    outcomes: Outcomes,
    past: PastReader,
    learning: Learning,
    execution: Option<Execution>,
}

/// The way to the cluster's API.
pub struct PveSide {
    /// Reads inventories.
    pub reader: InventoryReader,
    /// Time between two of them.
    pub poll: Duration,
    /// Starts migrations.
    pub migrator: Migrator,
}

/// Why a cycle can not go on.
#[derive(Debug, thiserror::Error)]
enum CycleError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Intent(#[from] LogError),
}

/// What a cycle needs.
pub struct Parts {
    /// The cluster.
    pub handle: Arc<ClusterHandle>,
    /// What agents say.
    pub live: Arc<Live>,
    /// Where runs go.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The API, if it is configured.
    pub pve: Option<PveSide>,
    /// The file that forbids every migration while it is there.
    pub no_execute: PathBuf,
    /// Most milliseconds a node's clock may be off.
    pub max_skew_ms: u64,
    /// Where what is known of guests from before is kept.
    pub histories: Arc<Histories>,
}

impl Cycle {
    /// Takes up where the last process left off.
    ///
    /// # Errors
    /// Of the store.
    pub fn open(parts: Parts) -> Result<Self, StoreError> {
        let Parts { handle, live, store, clock, pve, no_execute, max_skew_ms, histories } = parts;
        let moves = Moves::load(store.as_ref(), &handle.id, clock.now())?;
        let last = last_run(store.as_ref(), &handle)?;
        let memory = last.as_ref().map(|record| record.run.memory_out.clone()).unwrap_or_default();
        let trails = Trails::of(last.as_ref());
        let learning = Learning::load(store.as_ref(), &handle.id, last.as_ref())?;
        let others = Others::of(last.as_ref().map_or(&[], |record| &record.snapshot.others));
        handle.lock().last_run = last.map(Arc::new);
        let past = PastReader::new(handle.id.clone(), Arc::clone(&live), histories);
        let outcomes = Outcomes::default();
        let execution =
            pve.as_ref().map(|pve| Execution::new(&handle, pve.migrator.clone(), no_execute, &clock));
        Ok(Self {
            handle,
            live,
            store,
            clock,
            pve,
            max_skew_ms,
            memory,
            moves,
            trails,
            others,
            outcomes,
            past,
            learning,
            execution,
        })
    }

    /// Runs until `stop`. Inventories are read between the runs as well, so that people see a fresh one. A store that
    /// fails cancels `failed`: what was decided could not be kept.
    pub async fn run(mut self, stop: CancellationToken, failed: CancellationToken) {
        let interval = Duration::from_secs(self.handle.policy.decision_interval.into());
        let poll = self.pve.as_ref().map_or(interval, |pve| pve.poll).min(interval);
        let mut steps = Ticker::new(Arc::clone(&self.clock), poll);
        // One ticker for both, so that a run and a look never follow each other on the same step.
        // The first run waits for its turn too: agents reconnect meanwhile, and runs stay a whole interval apart.
        let mut next_run = next_multiple(self.clock.uptime(), interval);
        loop {
            let due = tokio::select! {
                () = stop.cancelled() => return,
                due = steps.tick() => due,
            };
            let at = Timestamp::from_millis(self.clock.now().as_secs() * 1000);
            let outcome = if due >= next_run {
                next_run = next_multiple(due, interval);
                self.decide(at).await
            } else {
                self.between(at).await
            };
            if let Err(error) = outcome {
                tracing::error!(cluster = %self.handle.id, %error, "what was decided or done could not be stored, stopping");
                failed.cancel();
                return;
            }
            self.read_past().await;
            self.handle.finish(at);
        }
    }

    /// Reads an inventory and notes the moves it shows.
    async fn look(&mut self) -> Result<Result<Arc<Inventory>, Reason>, CycleError> {
        let Some(pve) = self.pve.as_mut() else {
            let detail = format!("cluster {} has no pve.endpoints", self.handle.id);
            return Ok(Err(Reason::NotConfigured { detail }));
        };
        match fetch(&mut pve.reader, self.clock.now()).await {
            Ok(inventory) => {
                let inventory = Arc::new(inventory);
                let agents = self.live.cluster(&self.handle.id);
                if let Some(execution) = &self.execution {
                    execution.follow(&inventory, &snapshot::placements(&agents)).await?;
                }
                let mut batch = Batch::new();
                let intents = self.handle.book.all();
                self.moves.observe(&inventory, &self.handle.id, &intents, &mut batch)?;
                self.outcomes.observe(&inventory, &self.handle.id, &mut batch)?;
                self.others.observe(&inventory, pve.reader.client().token_id(), &intents);
                if !batch.is_empty() {
                    self.write(batch).await?;
                }
                let mut state = self.handle.lock();
                state.inventory = Some(Arc::clone(&inventory));
                state.inventory_error = None;
                Ok(Ok(inventory))
            }
            Err(error) => {
                let detail = error.to_string();
                let mut state = self.handle.lock();
                if state.inventory_error.as_ref() != Some(&detail) {
                    tracing::warn!(cluster = %self.handle.id, error = detail, "no inventory from Proxmox");
                }
                state.inventory_error = Some(detail.clone());
                Ok(Err(Reason::NoPveInventory { detail }))
            }
        }
    }

    /// Asks Proxmox for the past of a few guests of which nobody knows any. After the decisions, which do not wait.
    async fn read_past(&mut self) {
        let Some(pve) = self.pve.as_ref() else { return };
        let inventory = {
            let state = self.handle.lock();
            // One that was not read now does not answer now.
            state.inventory.clone().filter(|_| state.inventory_error.is_none())
        };
        if let Some(inventory) = inventory {
            self.past.step(&pve.reader.client(), &inventory, self.clock.now(), self.clock.uptime()).await;
        }
    }

    /// One run, and what follows from it.
    async fn decide(&mut self, at: Timestamp) -> Result<(), CycleError> {
        let inventory = self.look().await?;
        let mut snapshot = self.snapshot(at, inventory.as_deref().map_err(Clone::clone)).await?;
        self.trails.follow(&mut snapshot);
        let record = RunRecord::of(snapshot, self.handle.policy.clone(), self.memory.clone());
        let (batches, verdicts) = self.learning.follow(&record.snapshot, &mut self.moves)?;
        for batch in batches {
            self.write(batch).await?;
        }
        self.learning.note(&record);
        self.keep(&record).await?;
        self.memory = record.run.memory_out.clone();
        tracing::info!(
            cluster = %record.run.cluster,
            decisions = record.run.decisions.len(),
            summary = %record.run.summary,
            suppressed = record.run.suppressed.as_ref().map(ToString::to_string),
            "decision run"
        );
        let record = Arc::new(record);
        self.handle.publish(Arc::clone(&record));
        if let (Some(execution), Ok(inventory)) = (&self.execution, inventory) {
            execution.check(&record.snapshot).await?;
            execution.judge(&verdicts, at).await?;
            execution.take_up(&record).await?;
            self.start(record.snapshot.clone(), &inventory).await?;
        }
        Ok(())
    }

    /// A look between two runs, and what may be started on it.
    async fn between(&mut self, at: Timestamp) -> Result<(), CycleError> {
        let inventory = self.look().await?;
        if let Ok(inventory) = inventory
            && self.execution.as_ref().is_some_and(Execution::has_work)
        {
            let snapshot = self.snapshot(at, Ok(&inventory)).await?;
            self.start(snapshot, &inventory).await?;
        }
        Ok(())
    }

    async fn start(&self, snapshot: Snapshot, inventory: &Inventory) -> Result<(), CycleError> {
        let seen = snapshot::placements(&self.live.cluster(&self.handle.id));
        match &self.execution {
            Some(execution) => Ok(execution.start(snapshot, inventory, &seen).await?),
            None => Ok(()),
        }
    }

    /// What a decision made now would rest on.
    async fn snapshot(
        &self,
        at: Timestamp,
        inventory: Result<&Inventory, Reason>,
    ) -> Result<Snapshot, StoreError> {
        let profiles = self.profiles()?;
        let hands_off = match &self.execution {
            Some(execution) => execution.hands_off(inventory.as_ref().ok().copied()).await,
            None => Vec::new(),
        };
        let paused = self.handle.lock().pause.as_ref().map(|pause| pause.why.clone());
        Ok(snapshot::build(snapshot::Inputs {
            cluster: &self.handle.id,
            at,
            uptime: self.clock.uptime(),
            agents: &self.live.cluster(&self.handle.id),
            inventory,
            inventory_limit: self.pve.as_ref().map_or(Duration::MAX, |pve| pve.poll * 3),
            profiles: &profiles,
            history: self.moves.known(),
            others: self.others.known(),
            in_flight: in_flight(&self.handle.book),
            hands_off,
            experience: execution::experience(&self.handle.book, at),
            paused,
            max_skew_ms: self.max_skew_ms,
        }))
    }

    /// Stored profiles; the agents' own, newer ones take precedence over them.
    fn profiles(&self) -> Result<BTreeMap<Vmid, GuestProfile>, StoreError> {
        let mut profiles = BTreeMap::new();
        let range = KeyRange::under(&self.handle.id);
        trees::PROFILES.scan(
            self.store.as_ref(),
            &range,
            Direction::Forward,
            OnDamage::Skip,
            |key, record| {
                profiles.insert(key.vmid, record.profile);
                ControlFlow::Continue(())
            },
        )?;
        Ok(profiles)
    }

    /// Stores a run and its decisions, durable on return.
    async fn keep(&self, record: &RunRecord) -> Result<(), StoreError> {
        let run_s = record.run.at.as_secs();
        let mut batch = Batch::new();
        let value = serde_json::to_value(record)
            .map_err(|source| StoreError::Encode { tree: trees::RUNS.id().name, source })?;
        batch.put(&trees::RUNS, &RunKey { cluster: record.run.cluster.clone(), run_s }, &value)?;
        for decision in &record.run.decisions {
            let key = DecisionKey {
                cluster: record.run.cluster.clone(),
                run_s: decision.id.run_s,
                number: decision.id.number,
            };
            batch.put(&trees::DECISIONS, &key, decision)?;
        }
        self.write(batch).await
    }

    async fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let store = Arc::clone(&self.store);
        let written = tokio::task::spawn_blocking(move || {
            store.apply(batch)?;
            store.flush()
        });
        match written.await {
            Ok(outcome) => outcome,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// An inventory with the configurations of the guests that run; those still missing are read a few at a time, and their
/// guests stay where they are meanwhile.
async fn fetch(reader: &mut InventoryReader, now: Timestamp) -> Result<Inventory, PveError> {
    let mut inventory = reader.fetch(now).await?;
    let missing = inventory
        .guests
        .values()
        .filter(|guest| guest.status == GuestStatus::Running && !inventory.configs.contains_key(&guest.vmid))
        .map(|guest| guest.vmid)
        .take(CONFIGS_PER_LOOK);
    let missing: Vec<Vmid> = missing.collect();
    reader.add_configs(&mut inventory, missing, now).await?;
    Ok(inventory)
}

/// The first whole multiple of `step` after `due`.
fn next_multiple(due: Duration, step: Duration) -> Duration {
    let steps = due.as_millis() / step.as_millis().max(1) + 1;
    step.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
}

/// The newest stored run, unless it was decided by other rules.
fn last_run(store: &dyn Store, handle: &ClusterHandle) -> Result<Option<RunRecord>, StoreError> {
    let range = KeyRange::under(&handle.id);
    let newest = trees::RUNS.page(store, &range, Direction::Backward, 1)?;
    let record = newest.into_iter().next().and_then(|(_, value)| serde_json::from_value(value).ok());
    if record.is_none() {
        tracing::info!(cluster = %handle.id, "no earlier run to continue from");
    }
    Ok(record)
}
