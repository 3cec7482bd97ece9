//! The executor's place in the cycle: what it sees, where its intents are kept, and what follows from them for
//! snapshots and history.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::decision::Mover;
use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::reason::Reason;
use evenkeel_common::time::Timestamp;
use evenkeel_core::experience::Ended;
use evenkeel_core::learn::Verdict;
use evenkeel_core::{Experience, HandsOff, Mode, PastMove, RunRecord, Snapshot};
use evenkeel_runtime::clock::Clock;

use super::handle::ClusterHandle;
use super::hypervisor::{ClusterSwitches, Proxmox};
use crate::execute::holds::holds;
use crate::execute::view::{Placed, Task};
use crate::execute::{Book, Executor, Hypervisor, Intent, IntentLog, LogError, State, View};
use crate::pve::Inventory;
use crate::pve::inventory::Warning;
use crate::pve::migrate::Migrator;
use crate::pve::resources::NodeStatus;
use crate::pve::tasks::{MigrationKind, TaskOutcome};
use crate::store::records::DecisionKey;
use crate::store::{Batch, Direction, KeyRange, OnDamage, Store, StoreError, trees};

/// Before the call and after the end, how far a move may be from its intent and still be it: clocks differ.
const NEAR: Duration = Duration::from_mins(5);

/// Executes for one cluster.
pub struct Execution {
    executor: Executor<Proxmox>,
    started: Duration,
}

impl Execution {
    /// Takes up what the handle's book holds. `no_execute`: the file that forbids every start.
    #[must_use]
    pub fn new(
        handle: &Arc<ClusterHandle>,
        migrator: Migrator,
        no_execute: PathBuf,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let executor = Executor {
            book: Arc::clone(&handle.book),
            gate: Arc::clone(&handle.gate),
            hypervisor: Proxmox::new(migrator),
            switches: Arc::new(ClusterSwitches { handle: Arc::clone(handle), no_execute }),
            policy: handle.policy.clone(),
            config: handle.execute.clone(),
            clock: Arc::clone(clock),
        };
        Self { executor, started: clock.uptime() }
    }

    /// Follows what is under way, as far as an inventory can be relied on. `seen`: where agents see guests.
    ///
    /// # Errors
    /// [`LogError`]: nothing may be started any more.
    pub async fn follow(
        &self,
        inventory: &Inventory,
        seen: &BTreeMap<Vmid, Vec<NodeId>>,
    ) -> Result<(), LogError> {
        match view(inventory, seen) {
            Some(view) => self.executor.follow(&view).await,
            None => Ok(()),
        }
    }

    /// Takes up what a run decided.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn take_up(&self, record: &RunRecord) -> Result<(), LogError> {
        self.executor.take_up(record).await
    }

    /// Looks at what came of migrations a while after they were done.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn check(&self, snapshot: &Snapshot) -> Result<(), LogError> {
        self.executor.check(snapshot).await
    }

    /// Notes what was said of moves that were its own.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn judge(&self, verdicts: &[Verdict], at: Timestamp) -> Result<(), LogError> {
        for Verdict { of, helped } in verdicts {
            let own = |intent: &&Intent| {
                let ended = intent.ended_at().is_some_and(|ended| near(ended, of.at));
                (intent.guest, &intent.target) == (of.guest, &of.target) && ended
            };
            let done = self.executor.book.in_state(&[State::Done]);
            let Some(intent) = done.iter().find(own) else { continue };
            let said = match helped {
                Some(true) => "it helped",
                Some(false) => "it did not help",
                None => "nothing can be said of whether it helped",
            };
            let (hours, spared) = (of.outcome.hours, of.outcome.spared());
            let detail = match hours > 0.0 {
                true => format!("{said}: {spared:.2} core hours less waiting in {hours:.1} h"),
                false => format!("{said}: what it was for was reached with its arrival"),
            };
            let note = |intent: &mut Intent| {
                intent.note(at, detail);
                Ok::<_, LogError>(())
            };
            self.executor.book.change(&intent.id, note).await?;
        }
        Ok(())
    }

    /// Whether something may be to start.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.executor.has_work()
    }

    /// Starts what may be started. Snapshot, inventory and `seen` have to be of one fresh look.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn start(
        &self,
        snapshot: Snapshot,
        inventory: &Inventory,
        seen: &BTreeMap<Vmid, Vec<NodeId>>,
    ) -> Result<(), LogError> {
        match view(inventory, seen) {
            Some(view) => self.executor.start(snapshot, &view).await,
            None => Ok(()),
        }
    }

    /// What is not to be started, besides what the whole cluster is paused for. Nothing is said in mode advise, where
    /// nothing is started anyway.
    pub async fn hands_off(&self, inventory: Option<&Inventory>) -> Vec<HandsOff> {
        let executor = &self.executor;
        if executor.policy.mode == Mode::Advise {
            return Vec::new();
        }
        let all = |why: Reason| HandsOff { node: None, guest: None, why };
        let mut off = Vec::new();
        let switched = executor.switches.off().filter(|why| !matches!(why, Reason::Paused { .. }));
        off.extend(switched.map(all));
        off.extend(executor.hypervisor.caller().await.err().map(all));
        let since = executor.clock.uptime().saturating_sub(self.started);
        let left = executor.config.quiet().saturating_sub(since);
        if !left.is_zero() {
            off.push(all(Reason::Starting { seconds_left: left.as_secs().max(1) }));
        }
        off.extend(holds(&executor.book, executor.config.rest(), executor.clock.now()));
        for backup in inventory.into_iter().flat_map(|inventory| &inventory.backups) {
            let (node, guest) = (backup.node.clone(), backup.guest);
            let why = Reason::BackupRunning { node: node.clone(), guest };
            off.push(HandsOff { node: Some(node).filter(|_| guest.is_none()), guest, why });
        }
        off
    }
}

/// What can be relied on: nothing, where the token does not see everything or no majority is there.
fn view(inventory: &Inventory, seen: &BTreeMap<Vmid, Vec<NodeId>>) -> Option<View> {
    let partial = inventory.warnings.iter().any(|warning| matches!(warning, Warning::PartialView(_)));
    if partial || !inventory.quorate {
        return None;
    }
    let placed = inventory.guests.values().map(|guest| {
        let placed = Placed {
            node: guest.node.clone(),
            seen_on: seen.get(&guest.vmid).cloned().unwrap_or_default(),
            lock: guest.lock.clone(),
            identity: inventory.configs.get(&guest.vmid).and_then(|config| config.identity.clone()),
            ha: inventory.ha.services.get(&guest.vmid).map(|service| service.state.to_string()),
        };
        (guest.vmid, placed)
    });
    let tasks = inventory.history.iter().chain(&inventory.running).map(|task| Task {
        upid: task.upid.to_string(),
        node: task.source().clone(),
        guest: task.vmid,
        request: task.kind == MigrationKind::HaRequest,
        user: task.upid.user.clone(),
        started: task.upid.started_at,
        ended: task.ended_at.map(|at| (at, failure(&task.outcome))),
    });
    let mut tasks: Vec<Task> = tasks.collect();
    tasks.sort_by(|a, b| (a.started, &a.upid).cmp(&(b.started, &b.upid)));
    let online = inventory.nodes.values().filter(|node| node.status == NodeStatus::Online);
    Some(View {
        at: inventory.taken_at,
        guests: placed.collect(),
        tasks,
        online: online.map(|node| node.id.clone()).collect(),
    })
}

fn failure(outcome: &TaskOutcome) -> Option<String> {
    match outcome {
        TaskOutcome::Failed(words) => Some(words.clone()),
        TaskOutcome::Running | TaskOutcome::Ok | TaskOutcome::Warnings(_) => None,
    }
}

fn near(a: Timestamp, b: Timestamp) -> bool {
    a.since(b).max(b.since(a)) <= NEAR
}

/// Whether evenkeel moved a guest to a node at a time.
pub(super) fn moved_by_us(book: &[Intent], guest: Vmid, to: &NodeId, at: Timestamp) -> bool {
    book.iter().any(|intent| {
        let own = intent.guest == guest || intent.along.contains(&guest);
        let Some(from) = intent.submitted_at.filter(|_| own && intent.target == *to) else { return false };
        at >= from.before(NEAR) && intent.ended_at().is_none_or(|end| at <= end.after(NEAR))
    })
}

/// What evenkeel's own migrations taught.
pub(super) fn experience(book: &Book, now: Timestamp) -> Experience {
    let ended = book.all().into_iter().filter_map(|intent| {
        let refused = matches!(intent.why, Some(Reason::NotAccepted { .. }));
        let counts = matches!(intent.state, State::Done | State::Failed) && !refused;
        // By the configured speed alone, or what was learnt would be learnt again.
        let told = intent.predicted.minutes / intent.predicted.pace.max(0.01);
        Some(Ended {
            at: intent.ended_at().filter(|_| counts)?,
            told_minutes: told,
            took_minutes: intent.took().map(|took| took.as_secs_f64() / 60.0),
        })
    });
    Experience::of(ended, book.rearmed_at(), now)
}

/// Migrations of evenkeel that Proxmox VE began and that came to nothing, as the history has them.
pub(super) fn failures(book: &[Intent]) -> impl Iterator<Item = PastMove> {
    let failed = |intent: &&Intent| {
        intent.state == State::Failed && !matches!(intent.why, Some(Reason::NotAccepted { .. }))
    };
    book.iter().filter(failed).filter_map(|intent| {
        Some(PastMove {
            guest: intent.guest,
            from: intent.source.clone(),
            to: intent.target.clone(),
            at: intent.ended_at()?,
            by: Mover::Evenkeel,
            ok: false,
            helped: None,
        })
    })
}

/// The intents of a cluster that the store has, and how many rows can not be read: what these started is not known.
fn load(store: &dyn Store, cluster: &ClusterId) -> Result<(Vec<Intent>, u32), StoreError> {
    let (mut intents, mut unreadable) = (Vec::new(), 0_u64);
    let range = KeyRange::under(cluster);
    let damaged = trees::INTENTS.scan(store, &range, Direction::Forward, OnDamage::Skip, |_, value| {
        match serde_json::from_value(value) {
            Ok(intent) => intents.push(intent),
            Err(_) => unreadable += 1,
        }
        ControlFlow::Continue(())
    })?;
    Ok((intents, u32::try_from(damaged + unreadable).unwrap_or(u32::MAX)))
}

/// Keeps intents, and what they mean for the decisions they come from.
pub(super) struct StoreLog {
    pub(super) store: Arc<dyn Store>,
}

impl IntentLog for StoreLog {
    fn keep(&self, intent: &Intent) -> Result<(), LogError> {
        self.write(intent).map_err(|error| LogError(error.to_string()))
    }
}

impl StoreLog {
    fn write(&self, intent: &Intent) -> Result<(), StoreError> {
        let (cluster, run_s, number) = (intent.id.cluster.clone(), intent.id.run_s, intent.id.number);
        let key = DecisionKey { cluster, run_s, number };
        let value = serde_json::to_value(intent)
            .map_err(|source| StoreError::Encode { tree: trees::INTENTS.id().name, source })?;
        let mut batch = Batch::new();
        batch.put(&trees::INTENTS, &key, &value)?;
        let decision = match trees::DECISIONS.get(self.store.as_ref(), &key) {
            // The row only tells people; that it is damaged keeps no migration from being written down.
            Err(StoreError::Damaged { .. }) => None,
            read => read?,
        };
        if let Some(mut decision) = decision {
            let (action, reason) = intent.fate();
            decision.action = action;
            decision.reason = reason.unwrap_or(decision.reason);
            batch.put(&trees::DECISIONS, &key, &decision)?;
        }
        self.store.apply(batch)?;
        self.store.flush()
    }
}

/// A book on what the store has.
pub(super) fn open_book(
    store: &Arc<dyn Store>,
    cluster: &ClusterId,
    rearmed_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<Arc<Book>, StoreError> {
    let (kept, unreadable) = load(store.as_ref(), cluster)?;
    if unreadable > 0 {
        tracing::error!(%cluster, unreadable, "records of migrations can not be read; nothing is started until `evenkeelctl rearm`");
    }
    let log = Arc::new(StoreLog { store: Arc::clone(store) });
    let damage = (unreadable > 0).then_some((unreadable, now));
    Ok(Arc::new(Book::with_damage(log, kept, rearmed_at, damage)))
}
