//! What agents sent, as rows: data and cursor in one atomic batch, so that after any crash the cursor tells exactly
//! what is there. Repetitions are recognised here as well, whatever a stream believes.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evenkeel_common::event::{AgentEvent, EventKind, Loss, LossKind};
use evenkeel_common::guest::GuestProfile;
use evenkeel_common::id::ClusterId;
use evenkeel_common::node::NodeFacts;
use evenkeel_common::time::{Timestamp, Window};
use evenkeel_runtime::clock::Clock;
use tokio::sync::broadcast;

use super::block::SampleBlock;
use super::dictionary::SeriesTable;
use super::histories::{Histories, Told};
use super::live::Epoch;
use super::writer::{Cursors, Work};
use crate::store::records::{
    AnomalyKey, AnomalyRecord, AnomalyTimeKey, BlockKey, Cursor, EventKey, EventRecord, FLEET_EPOCH, GapKey,
    GapRecord, GuestKey, NodeKey, NodeRecord, ProfileRecord, SeriesNumber,
};
use crate::store::{Batch, Direction, KeyRange, OnDamage, Store, StoreError, trees};

/// Time between two blocks from which on it counts as a gap. Ticks are a second apart and may come late by one.
const GAP: Duration = Duration::from_secs(4);

/// Counts since the start, for status and metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Samples that became durable.
    pub samples: AtomicU64,
    /// Events that became durable.
    pub events: AtomicU64,
    /// Samples and events received again and dropped.
    pub duplicates: AtomicU64,
    /// Gap records written.
    pub gaps: AtomicU64,
    /// Damaged or missing rows that the scrub of the store has found.
    pub damaged: AtomicU64,
}

/// An anomaly that opened or closed, for those who watch.
#[derive(Clone, Debug)]
pub struct AnomalyNews {
    /// Where.
    pub cluster: ClusterId,
    /// Its latest state, durable.
    pub record: Arc<AnomalyRecord>,
}

/// Turns work into rows.
pub struct Ledger {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    counts: Arc<Counts>,
    news: broadcast::Sender<AnomalyNews>,
    nodes: BTreeMap<NodeKey, NodeLedger>,
    batch: Batch,
    pending_news: Vec<AnomalyNews>,
    histories: Option<Arc<Histories>>,
}

/// What is remembered of a node between jobs; all of it can be read back from the store.
#[derive(Debug, Default)]
struct NodeLedger {
    cursor: Cursor,
    /// End of the newest stored samples.
    samples_until: Option<Timestamp>,
    /// Anomalies that are open, so that a restart of the agent can close them.
    open: BTreeMap<(Epoch, u64), AnomalyRecord>,
    first_seen: Option<Timestamp>,
}

impl Ledger {
    /// A ledger on a store.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        counts: Arc<Counts>,
        news: broadcast::Sender<AnomalyNews>,
    ) -> Self {
        let (nodes, batch, pending_news, histories) = Default::default();
        Self { store, clock, counts, news, nodes, batch, pending_news, histories }
    }

    /// Keeps histories of guests there; without, they are left out.
    #[must_use]
    pub fn with_histories(self, histories: Arc<Histories>) -> Self {
        Self { histories: Some(histories), ..self }
    }

    /// How far an epoch is durable. Another epoch than before begins at zero.
    ///
    /// # Errors
    /// Of the store.
    pub fn begin(&mut self, node: &NodeKey, epoch: Epoch) -> Result<Cursors, StoreError> {
        let known = self.node(node)?;
        if known.cursor.epoch != epoch {
            known.cursor = Cursor { epoch, event: 0, sample: 0 };
        }
        Ok(Cursors { event: known.cursor.event, sample: known.cursor.sample })
    }

    /// Turns work into rows of the batch under way. Returns the cursors that hold once it is committed; `None` when
    /// the work does not continue what is stored, so that its stream must begin again.
    ///
    /// # Errors
    /// Of the store.
    pub fn take(&mut self, node: &NodeKey, epoch: Epoch, work: Work) -> Result<Option<Cursors>, StoreError> {
        let cursor = self.node(node)?.cursor;
        if cursor.epoch != epoch {
            return Ok(None);
        }
        let continued = match work {
            Work::Events { first_seq, events } => self.events(node, cursor, first_seq, events)?,
            Work::Block { block, table } => self.block(node, cursor, &block, &table)?,
            Work::Profiles(profiles) => self.profiles(node, profiles)?,
            Work::Histories(histories) => self.histories(histories)?,
            Work::Facts(facts) => self.facts(node, epoch, facts)?,
            Work::SkipTo(to) => self.skip(node, to)?,
        };
        if self.batch.is_full() {
            self.apply()?;
        }
        let cursor = self.node(node)?.cursor;
        Ok(continued.then_some(Cursors { event: cursor.event, sample: cursor.sample }))
    }

    /// Makes everything taken so far durable, then tells those who watch.
    ///
    /// # Errors
    /// Of the store: nothing may be acknowledged any more.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        self.apply()?;
        self.store.flush()?;
        for news in self.pending_news.drain(..) {
            // Nobody watches: nobody to tell.
            let _ = self.news.send(news);
        }
        Ok(())
    }

    fn apply(&mut self) -> Result<(), StoreError> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() { Ok(()) } else { self.store.apply(batch) }
    }

    fn node(&mut self, key: &NodeKey) -> Result<&mut NodeLedger, StoreError> {
        if !self.nodes.contains_key(key) {
            let loaded = load(self.store.as_ref(), key)?;
            self.nodes.insert(key.clone(), loaded);
        }
        Ok(self.nodes.entry(key.clone()).or_default())
    }

    fn set_cursor(&mut self, node: &NodeKey, change: impl FnOnce(&mut Cursor)) -> Result<(), StoreError> {
        let known = self.node(node)?;
        change(&mut known.cursor);
        let cursor = known.cursor;
        self.batch.put(&trees::CURSORS, node, &cursor)
    }

    fn events(
        &mut self,
        node: &NodeKey,
        cursor: Cursor,
        first_seq: u64,
        events: Vec<AgentEvent>,
    ) -> Result<bool, StoreError> {
        if first_seq > cursor.event + 1 {
            return Ok(false);
        }
        for (event, seq) in events.into_iter().zip(first_seq..) {
            if seq <= cursor.event {
                self.counts.duplicates.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            self.event(node, cursor.epoch, seq, event)?;
            self.set_cursor(node, |c| c.event = seq)?;
            self.counts.events.fetch_add(1, Ordering::Relaxed);
            if self.batch.is_full() {
                self.apply()?;
            }
        }
        Ok(true)
    }

    fn event(&mut self, node: &NodeKey, epoch: Epoch, seq: u64, event: AgentEvent) -> Result<(), StoreError> {
        match &event.kind {
            EventKind::AgentStarted { .. } => self.close_left_open(node, event.at)?,
            EventKind::AnomalyOpened(anomaly) | EventKind::AnomalyClosed(anomaly) => {
                let node_id = node.node.clone();
                let record = AnomalyRecord { anomaly: anomaly.clone(), node: node_id, epoch, fleet: None };
                self.anomaly(node, record)?;
            }
            EventKind::SamplesLost(loss) => self.gap(node, loss, seq)?,
            EventKind::EventsLost(loss) => {
                // A closing may be among them, and no anomaly may stay open for ever. One that does go on is told
                // again when it closes.
                self.close_left_open(node, event.at)?;
                self.gap(node, loss, seq)?;
            }
            EventKind::GuestVanished { profile: Some(profile), .. } => {
                self.profiles(node, vec![(**profile).clone()])?;
            }
            _ => {}
        }
        let key = EventKey { cluster: node.cluster.clone(), at: event.at, node: node.node.clone(), seq };
        self.batch.put(&trees::EVENTS, &key, &EventRecord { node: node.node.clone(), epoch, seq, event })
    }

    fn anomaly(&mut self, node: &NodeKey, record: AnomalyRecord) -> Result<(), StoreError> {
        let (epoch, number) = (record.epoch, record.anomaly.number);
        let key = AnomalyKey { cluster: node.cluster.clone(), node: node.node.clone(), epoch, number };
        self.batch.put(&trees::ANOMALIES, &key, &record)?;
        let by_time = AnomalyTimeKey {
            cluster: node.cluster.clone(),
            opened: record.anomaly.opened_at,
            node: node.node.clone(),
            epoch,
            number,
        };
        self.batch.put(&trees::ANOMALIES_BY_TIME, &by_time, &())?;
        let known = self.node(node)?;
        if record.anomaly.closed_at.is_none() {
            known.open.insert((epoch, number), record.clone());
        } else {
            known.open.remove(&(epoch, number));
        }
        self.pending_news.push(AnomalyNews { cluster: node.cluster.clone(), record: Arc::new(record) });
        Ok(())
    }

    /// An agent that starts anew does not remember what it had opened: that ends with its previous life.
    fn close_left_open(&mut self, node: &NodeKey, at: Timestamp) -> Result<(), StoreError> {
        let open = std::mem::take(&mut self.node(node)?.open);
        for (_, mut record) in open {
            record.anomaly.closed_at = Some(at.max(record.anomaly.opened_at));
            self.anomaly(node, record)?;
        }
        Ok(())
    }

    fn gap(&mut self, node: &NodeKey, loss: &Loss, seq: u64) -> Result<(), StoreError> {
        let key =
            GapKey { cluster: node.cluster.clone(), node: node.node.clone(), from: loss.window.from, seq };
        let record = GapRecord { window: loss.window, kind: loss.how, count: loss.count };
        self.counts.gaps.fetch_add(1, Ordering::Relaxed);
        self.batch.put(&trees::GAPS, &key, &record)
    }

    fn block(
        &mut self,
        node: &NodeKey,
        cursor: Cursor,
        block: &SampleBlock,
        table: &SeriesTable,
    ) -> Result<bool, StoreError> {
        for (series, key) in table.take_fresh() {
            let number = SeriesNumber { cluster: node.cluster.clone(), node: node.node.clone(), series };
            self.batch.put(&trees::SERIES, &number, &key)?;
            // A number may be there without a block that uses it, and a large node's numbers exceed one batch.
            if self.batch.is_full() {
                self.apply()?;
            }
        }
        if block.last_seq <= cursor.sample {
            self.counts.duplicates.fetch_add(block.last_seq - block.first_seq + 1, Ordering::Relaxed);
            return Ok(true);
        }
        if block.first_seq != cursor.sample + 1 {
            return Ok(false);
        }
        self.note_silence(node, block)?;
        let key =
            BlockKey { cluster: node.cluster.clone(), node: node.node.clone(), start: block.starts_at() };
        let bytes = block.to_bytes().map_err(|error| StoreError::Damaged {
            tree: trees::BLOCKS.id().name,
            key: format!("{}-{}", block.first_seq, block.last_seq),
            problem: error.to_string(),
        })?;
        self.batch.put(&trees::BLOCKS, &key, &bytes)?;
        self.set_cursor(node, |c| c.sample = block.last_seq)?;
        Ok(true)
    }

    /// Writes a gap record for the time between the newest stored sample and this block, if there is one.
    fn note_silence(&mut self, node: &NodeKey, block: &SampleBlock) -> Result<(), StoreError> {
        let starts = block.starts_at();
        let ends = block.ends_at();
        let known = self.node(node)?;
        let until = known.samples_until.replace(known.samples_until.map_or(ends, |u| u.max(ends)));
        let Some(until) = until else { return Ok(()) };
        let silence = starts.since(until);
        if silence < GAP {
            return Ok(());
        }
        let window = Window { from: until, to: starts };
        let loss = Loss { count: silence.as_secs(), window, how: LossKind::Unwritten };
        self.gap(node, &loss, block.first_seq)
    }

    fn profiles(&mut self, node: &NodeKey, profiles: Vec<GuestProfile>) -> Result<bool, StoreError> {
        let at = self.clock.now();
        for profile in profiles {
            let key = GuestKey { cluster: node.cluster.clone(), vmid: profile.vmid };
            let record = ProfileRecord { node: node.node.clone(), profile, at };
            self.batch.put(&trees::PROFILES, &key, &record)?;
            if self.batch.is_full() {
                self.apply()?;
            }
        }
        Ok(true)
    }

    fn histories(&mut self, told: Vec<Told>) -> Result<bool, StoreError> {
        let Some(histories) = self.histories.clone() else { return Ok(true) };
        for told in told {
            self.apply()?; // What came before is read, perhaps merged.
            histories.take(told, &mut self.batch, self.clock.now())?;
        }
        Ok(true)
    }

    fn facts(&mut self, node: &NodeKey, epoch: Epoch, facts: NodeFacts) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let first_seen = *self.node(node)?.first_seen.get_or_insert(now);
        self.batch.put(&trees::NODES, node, &NodeRecord { facts, first_seen, last_seen: now, epoch })?;
        Ok(true)
    }

    fn skip(&mut self, node: &NodeKey, to: Cursors) -> Result<bool, StoreError> {
        self.set_cursor(node, |c| {
            c.event = c.event.max(to.event);
            c.sample = c.sample.max(to.sample);
        })?;
        Ok(true)
    }
}

fn load(store: &dyn Store, key: &NodeKey) -> Result<NodeLedger, StoreError> {
    let cursor = trees::CURSORS.get(store, key)?.unwrap_or_default();
    let first_seen = trees::NODES.get(store, key)?.map(|record| record.first_seen);
    let mut samples_until = None;
    trees::BLOCKS.scan(store, &KeyRange::under(key), Direction::Backward, OnDamage::Skip, |_, bytes| {
        match SampleBlock::from_bytes(&bytes) {
            Ok(block) => {
                samples_until = Some(block.ends_at());
                ControlFlow::Break(())
            }
            Err(_) => ControlFlow::Continue(()),
        }
    })?;
    let mut open = BTreeMap::new();
    trees::ANOMALIES.scan(
        store,
        &KeyRange::under(key),
        Direction::Forward,
        OnDamage::Skip,
        |_, record| {
            // The aggregator's own anomalies do not end with the agent.
            if record.anomaly.closed_at.is_none() && record.epoch != FLEET_EPOCH {
                open.insert((record.epoch, record.anomaly.number), record);
            }
            ControlFlow::Continue(())
        },
    )?;
    Ok(NodeLedger { cursor, samples_until, open, first_seen })
}

/// The series table of a node as stored.
///
/// # Errors
/// Of the store; a damaged row is an error, since a number given twice would mix two series.
pub fn series_table(store: &dyn Store, node: &NodeKey) -> Result<SeriesTable, StoreError> {
    let mut stored = Vec::new();
    trees::SERIES.scan(
        store,
        &KeyRange::under(node),
        Direction::Forward,
        OnDamage::Fail,
        |number, key| {
            stored.push((number.series, key));
            ControlFlow::Continue(())
        },
    )?;
    Ok(SeriesTable::from_stored(stored))
}
