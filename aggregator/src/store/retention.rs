//! Deletes what is older than the configuration keeps, in batches small enough to run beside ingest.

use std::ops::ControlFlow;
use std::time::Duration;

use evenkeel_common::time::Timestamp;

use super::config::StoreConfig;
use super::error::StoreError;
use super::key::{Key, KeyRange, after_prefix};
use super::records::{
    AnomalyKey, AnomalyTimeKey, BlockKey, DecisionKey, EventKey, GapKey, HostDayKey, MigrationKey, MoveKey,
    RunKey, ScoreKey,
};
use super::tree::{Batch, Coding, Tree};
use super::trees::{
    ANOMALIES, ANOMALIES_BY_TIME, BLOCKS, DECISIONS, EVENTS, FEEDBACK, GAPS, HOST_SCORES, INTENTS,
    MIGRATIONS, MOVES, ROLLUPS, RUNS, SCORES,
};
use super::{Direction, Store};

/// Rows deleted in one batch. Each may be a block with many chunks to sweep, and other writers wait meanwhile.
const BATCH_ROWS: usize = 50;

/// How many rows of each kind were deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Blocks of samples.
    pub blocks: u64,
    /// Events, anomalies, gaps, health scores and roll-ups.
    pub events: u64,
    /// Decisions and their runs.
    pub decisions: u64,
    /// Moves.
    pub moves: u64,
    /// Migration records and archived scores.
    pub migrations: u64,
}

/// A key with a time in it, whose earlier parts say whose time that is.
trait Dated: Key {
    /// The parts before the time, as bytes.
    fn owner(&self) -> Vec<u8>;
    /// The time.
    fn at(&self) -> Timestamp;
}

macro_rules! dated {
    ($($name:ident: ($($owner:ident),+) $at:expr;)+) => {$(
        impl Dated for $name {
            fn owner(&self) -> Vec<u8> {
                let mut bytes = Vec::new();
                $(self.$owner.encode(&mut bytes);)+
                bytes
            }
            fn at(&self) -> Timestamp {
                let at: fn(&Self) -> Timestamp = $at;
                at(self)
            }
        }
    )+};
}
dated! {
    BlockKey: (cluster, node) |key| key.start;
    GapKey: (cluster, node) |key| key.from;
    EventKey: (cluster) |key| key.at;
    AnomalyTimeKey: (cluster) |key| key.opened;
    MoveKey: (cluster) |key| key.at;
    MigrationKey: (cluster) |key| key.at;
    HostDayKey: (cluster, host) |key| key.day;
    ScoreKey: (cluster, subject) |key| key.at;
    RunKey: (cluster) |key| Timestamp::from_millis(key.run_s.saturating_mul(1000));
    DecisionKey: (cluster) |key| Timestamp::from_millis(key.run_s.saturating_mul(1000));
}

/// Deletes everything that at `now` is older than `config` keeps. Ends with a flush when anything was deleted. An
/// anomaly that is still open goes by the time it opened, too.
///
/// # Errors
/// As [`Store::scan`], [`Store::apply`] and [`Store::flush`].
pub fn expire(
    store: &(impl Store + ?Sized),
    config: &StoreConfig,
    now: Timestamp,
) -> Result<Expired, StoreError> {
    let before = |days: u32| now.before(Duration::from_secs(86_400) * days);
    let events = before(config.events_days);
    let decisions = before(config.decisions_days);
    let migrations = before(config.migrations_days);
    let anomalies = expire_tree(store, &ANOMALIES_BY_TIME, events, |batch, key| {
        let AnomalyTimeKey { cluster, node, epoch, number, .. } = key.clone();
        let key = AnomalyKey { cluster, node, epoch, number };
        batch.delete(&ANOMALIES, &key);
        // What people said of it goes with it.
        batch.delete(&FEEDBACK, &key);
    })?;
    let done = Expired {
        blocks: expire_tree(store, &BLOCKS, before(config.samples_days), |_, _| {})?,
        events: anomalies
            + expire_tree(store, &EVENTS, events, |_, _| {})?
            + expire_tree(store, &GAPS, events, |_, _| {})?
            + expire_tree(store, &SCORES, events, |_, _| {})?
            // Sixty rows an hour of the blocks are six here: they may be kept as long as events are.
            + expire_tree(store, &ROLLUPS, events, |_, _| {})?,
        decisions: expire_tree(store, &DECISIONS, decisions, |_, _| {})?
            + expire_tree(store, &RUNS, decisions, |_, _| {})?
            + expire_tree(store, &INTENTS, decisions, |_, _| {})?,
        moves: expire_tree(store, &MOVES, before(config.moves_days), |_, _| {})?,
        migrations: expire_tree(store, &MIGRATIONS, migrations, |_, _| {})?
            + expire_tree(store, &HOST_SCORES, migrations, |_, _| {})?,
    };
    if done != Expired::default() {
        store.flush()?;
    }
    Ok(done)
}

/// Deletes the rows before `cutoff`, owner by owner: past the first row that stays, it jumps to the next owner.
fn expire_tree<K: Dated, V, C: Coding<V>>(
    store: &(impl Store + ?Sized),
    tree: &Tree<K, V, C>,
    cutoff: Timestamp,
    mut also: impl FnMut(&mut Batch, &K),
) -> Result<u64, StoreError> {
    let (mut range, mut deleted) = (KeyRange::all(), 0);
    loop {
        let mut batch = Batch::new();
        let mut go_on = None;
        store.scan_keys(tree.id(), &range, Direction::Forward, &mut |bytes| {
            // What is no key of this tree is left to the scrub.
            let Some(key) = K::from_bytes(bytes) else { return ControlFlow::Continue(()) };
            if key.at() >= cutoff {
                go_on = after_prefix(&key.owner()).map(|start| KeyRange { start, end: None });
                return ControlFlow::Break(());
            }
            batch.push(tree.id(), bytes.to_vec(), None);
            also(&mut batch, &key);
            deleted += 1;
            if batch.len() < BATCH_ROWS {
                return ControlFlow::Continue(());
            }
            go_on = Some(range.after(bytes));
            ControlFlow::Break(())
        })?;
        if !batch.is_empty() {
            store.apply(batch)?;
        }
        match go_on {
            Some(next) => range = next,
            None => return Ok(deleted),
        }
    }
}
