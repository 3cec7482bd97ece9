//! Ticks in memory until they are acknowledged: a few minutes of them, delta-coded, so that a thousand series
//! cost about a kilobyte a tick.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::columns::{Base, Columns};
use evenkeel_common::sample::{SeriesId, SeriesKey};
use evenkeel_common::time::Timestamp;

use crate::spool::{CHUNK_TICKS, Chunk, Resolution, Row};

/// How far a tick may lie from where the steps of its chunk expect it. More means a late tick or a clock that
/// was set, and begins a new chunk.
const TOLERANCE_MS: u64 = 100;

/// The ticks, oldest first.
#[derive(Debug, Default)]
pub(super) struct Ring {
    parts: VecDeque<Part>,
}

impl Ring {
    /// Ticks held.
    pub(super) fn ticks(&self) -> usize {
        self.parts.iter().map(|part| part.ticks.len()).sum()
    }

    /// Adds the tick `seq`. `key_of` names series that are new to the current chunk; one without a name is left
    /// out.
    pub(super) fn push(&mut self, seq: u64, row: &Row, key_of: impl Fn(SeriesId) -> Option<Arc<SeriesKey>>) {
        if !self.parts.back().is_some_and(|part| part.takes(seq, row)) {
            self.parts.push_back(Part::new(seq, row));
        }
        if let Some(part) = self.parts.back_mut() {
            part.push(row, key_of);
        }
    }

    /// Removes the oldest chunk.
    pub(super) fn pop(&mut self) -> Option<Chunk> {
        self.parts.pop_front().map(|part| part.chunk())
    }

    /// Frees chunks up to tick `cursor`.
    pub(super) fn free_to(&mut self, cursor: u64) {
        while self.parts.front().is_some_and(|part| part.last_seq() <= cursor) {
            self.parts.pop_front();
        }
    }

    /// The first tick held from `seq` on.
    pub(super) fn next_held(&self, seq: u64) -> Option<u64> {
        self.parts.iter().find(|part| part.last_seq() >= seq).map(|part| part.first_seq.max(seq))
    }

    /// The chunk that holds tick `seq`, or the next one.
    pub(super) fn chunk_from(&self, seq: u64) -> Option<Chunk> {
        self.parts.iter().find(|part| part.last_seq() >= seq).map(Part::chunk)
    }
}

/// A chunk in the making.
#[derive(Debug)]
struct Part {
    first_seq: u64,
    at: Timestamp,
    uptime_ms: u64,
    /// 0 until the second tick.
    step_ms: u32,
    series: Vec<Arc<SeriesKey>>,
    slots: HashMap<SeriesId, usize>,
    base: Base,
    /// Each told against the one before.
    ticks: Vec<Box<[u8]>>,
    /// Series known at each tick.
    widths: Vec<u32>,
}

impl Part {
    fn new(first_seq: u64, row: &Row) -> Self {
        Self {
            first_seq,
            at: row.at,
            uptime_ms: row.uptime_ms,
            step_ms: 0,
            series: Vec::new(),
            slots: HashMap::new(),
            base: Base::new(),
            ticks: Vec::new(),
            widths: Vec::new(),
        }
    }

    fn last_seq(&self) -> u64 {
        self.first_seq + self.ticks.len() as u64 - 1
    }

    /// Whether this tick is the next one of this chunk, a step after the last by both clocks.
    fn takes(&self, seq: u64, row: &Row) -> bool {
        if seq != self.last_seq() + 1 || self.ticks.len() >= CHUNK_TICKS {
            return false;
        }
        let Some(elapsed_ms) = row.uptime_ms.checked_sub(self.uptime_ms) else { return false };
        let expected_ms = match self.step_ms {
            0 => elapsed_ms.min(u64::from(u32::MAX)),
            step_ms => u64::from(step_ms) * self.ticks.len() as u64,
        };
        let wall_ms =
            row.at.as_millis().abs_diff(self.at.after(Duration::from_millis(expected_ms)).as_millis());
        elapsed_ms > 0 && elapsed_ms.abs_diff(expected_ms) <= TOLERANCE_MS && wall_ms <= TOLERANCE_MS
    }

    fn push(&mut self, row: &Row, key_of: impl Fn(SeriesId) -> Option<Arc<SeriesKey>>) {
        if self.ticks.len() == 1 {
            self.step_ms = u32::try_from(row.uptime_ms - self.uptime_ms).unwrap_or(u32::MAX);
        }
        for &(id, _) in &row.values {
            if !self.slots.contains_key(&id)
                && let Some(key) = key_of(id)
            {
                self.slots.insert(id, self.series.len());
                self.series.push(key);
            }
        }
        let mut tick = Columns::missing(self.series.len(), 1);
        for &(id, value) in &row.values {
            if let Some(&slot) = self.slots.get(&id) {
                tick.set(slot, 0, Some(value));
            }
        }
        self.ticks.push(tick.encode(&mut self.base).into_boxed_slice());
        self.widths.push(u32::try_from(self.series.len()).unwrap_or(u32::MAX));
    }

    fn chunk(&self) -> Chunk {
        let mut columns = Columns::missing(self.series.len(), self.ticks.len());
        let mut base = Base::new();
        for (tick, (bytes, &width)) in self.ticks.iter().zip(&self.widths).enumerate() {
            // Our own bytes always decode; if they ever did not, a gap would be the honest answer.
            let Ok(row) = Columns::decode(bytes, width as usize, 1, &mut base, usize::MAX) else { break };
            for series in 0..row.series() {
                columns.set(series, tick, row.get(series, 0));
            }
        }
        Chunk {
            first_seq: self.first_seq,
            last_seq: self.last_seq(),
            at: self.at,
            uptime_ms: self.uptime_ms,
            step_ms: self.step_ms,
            resolution: Resolution::Raw,
            series: self.series.clone(),
            columns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::sample::Metric;

    fn key(id: SeriesId) -> Option<Arc<SeriesKey>> {
        Some(Arc::new(SeriesKey::device(Metric::NetRx, id.0.to_string())))
    }

    fn row(second: u64, values: &[(u32, i64)]) -> Row {
        Row {
            at: Timestamp::from_millis(second.cast_signed() * 1000),
            uptime_ms: second * 1000,
            values: values.iter().map(|&(id, value)| (SeriesId(id), value)).collect(),
        }
    }

    #[test]
    fn chunks_hold_what_was_pushed_and_series_may_come_and_go() {
        let mut ring = Ring::default();
        ring.push(1, &row(1, &[(0, 5)]), key);
        ring.push(2, &row(2, &[(0, 6), (7, -3)]), key);
        ring.push(3, &row(3, &[(7, -4)]), key);
        let chunk = ring.chunk_from(2).unwrap();
        assert_eq!((chunk.first_seq, chunk.last_seq, chunk.step_ms), (1, 3, 1000));
        assert_eq!(chunk.columns.column(0).collect::<Vec<_>>(), [Some(5), Some(6), None]);
        assert_eq!(chunk.columns.column(1).collect::<Vec<_>>(), [None, Some(-3), Some(-4)]);
        assert_eq!(ring.pop(), Some(chunk));
        assert_eq!(ring.ticks(), 0);
    }

    #[test]
    fn a_missed_tick_a_set_clock_and_a_full_minute_begin_a_new_chunk() {
        let mut ring = Ring::default();
        let mut seq = 0;
        let mut push = |ring: &mut Ring, row: Row| {
            seq += 1;
            ring.push(seq, &row, key);
        };
        (1..=61).for_each(|second| push(&mut ring, row(second, &[(0, 1)])));
        push(&mut ring, row(63, &[(0, 1)]));
        push(&mut ring, row(64, &[(0, 1)]));
        push(&mut ring, Row { at: Timestamp::from_millis(70_000), ..row(65, &[(0, 1)]) });
        let firsts: Vec<_> =
            std::iter::from_fn(|| ring.pop()).map(|chunk| (chunk.first_seq, chunk.last_seq)).collect();
        // Two ticks may be any step apart: 61 and 63 are.
        assert_eq!(firsts, [(1, 60), (61, 62), (63, 63), (64, 64)]);
    }

    #[test]
    fn freeing_is_by_whole_chunks() {
        let mut ring = Ring::default();
        (1..=100).for_each(|second| ring.push(second, &row(second, &[(0, 1)]), key));
        ring.free_to(59);
        assert_eq!((ring.ticks(), ring.next_held(1)), (100, Some(1)));
        ring.free_to(60);
        assert_eq!((ring.ticks(), ring.next_held(1), ring.next_held(99)), (40, Some(61), Some(99)));
        assert_eq!(ring.next_held(101), None);
    }
}
