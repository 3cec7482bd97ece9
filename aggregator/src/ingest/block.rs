//! Sample blocks: about a minute of one node's ticks, the unit in which samples become durable.

use evenkeel_common::columns::{Base, ColumnError, Columns};
use evenkeel_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::live::Epoch;

/// How the samples of a block were thinned on the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Thinned {
    /// One column a series, a value a tick.
    #[default]
    No,
    /// Four columns a series (min, mean, max, p95), a record per 10 s.
    To10s,
    /// The same per 60 s.
    To60s,
}

impl Thinned {
    /// Columns a series takes.
    #[must_use]
    pub const fn width(self) -> usize {
        match self {
            Self::No => 1,
            Self::To10s | Self::To60s => 4,
        }
    }
}

/// Consecutive ticks of one node, self-contained but for the node's series table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleBlock {
    /// Layout of this record.
    pub version: u8,
    /// Epoch of the agent's spool.
    pub epoch: Epoch,
    /// Number of the first tick.
    pub first_seq: u64,
    /// Number of the last tick.
    pub last_seq: u64,
    /// Agent's wall clock at each record, milliseconds: the first absolute, then differences.
    pub times_ms: Vec<i64>,
    /// Thinning.
    pub thinned: Thinned,
    /// Stored series numbers, a row (or four, when thinned) of the matrix each: the first absolute, then
    /// differences; they ascend only by accident.
    pub series: Vec<i64>,
    /// The matrix, see `evenkeel_common::columns`.
    pub columns: Vec<u8>,
}

/// Version of [`SampleBlock`] written now.
const VERSION: u8 = 1;
/// Cells a stored block may hold: an hour of a thousand series.
const MAX_CELLS: usize = 3_600_000;

/// A stored block that can not be read.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// Not a block.
    #[error("sample block is damaged: {0}")]
    Damaged(#[from] postcard::Error),
    /// Its matrix does not fit its head.
    #[error("sample block is damaged: {0}")]
    Columns(#[from] ColumnError),
    /// From a newer version.
    #[error("sample block of layout {0}, this version knows {VERSION}")]
    Version(u8),
}

impl SampleBlock {
    /// The block as stored.
    ///
    /// # Errors
    /// Only if serialisation fails, which plain data does not.
    pub fn to_bytes(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(self)
    }

    /// Reads a stored block.
    ///
    /// # Errors
    /// [`BlockError`] when it is not whole.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BlockError> {
        let block: Self = postcard::from_bytes(bytes)?;
        if block.version == VERSION { Ok(block) } else { Err(BlockError::Version(block.version)) }
    }

    /// Series numbers, times and values: `value(row, record)` in steps of the metric's resolution.
    ///
    /// # Errors
    /// [`BlockError::Columns`] when the matrix does not fit the head.
    pub fn matrix(&self) -> Result<(Vec<u32>, Vec<Timestamp>, Columns), BlockError> {
        let rows = self.series.len() * self.thinned.width();
        let matrix = Columns::decode(&self.columns, rows, self.times_ms.len(), &mut Base::new(), MAX_CELLS)?;
        let series = running(&self.series).map(|n| u32::try_from(n).unwrap_or(u32::MAX)).collect();
        Ok((series, running(&self.times_ms).map(Timestamp::from_millis).collect(), matrix))
    }

    /// Wall time of the last record.
    #[must_use]
    pub fn ends_at(&self) -> Timestamp {
        Timestamp::from_millis(running(&self.times_ms).last().unwrap_or_default())
    }

    /// Wall time of the first record.
    #[must_use]
    pub fn starts_at(&self) -> Timestamp {
        Timestamp::from_millis(self.times_ms.first().copied().unwrap_or_default())
    }
}

fn running(differences: &[i64]) -> impl Iterator<Item = i64> + '_ {
    differences.iter().scan(0i64, |sum, d| {
        *sum = sum.saturating_add(*d);
        Some(*sum)
    })
}

fn differences(values: impl Iterator<Item = i64>) -> Vec<i64> {
    let mut last = 0;
    values.map(|v| v - std::mem::replace(&mut last, v)).collect()
}

/// Ticks on their way into a block. Every tick covers the same or more rows than the one before.
#[derive(Debug, Default)]
pub struct BlockBuilder {
    first_seq: u64,
    last_seq: u64,
    times: Vec<i64>,
    /// Stored series number of each row.
    series: Vec<u32>,
    /// Rows of each tick, and its values as they would be on the wire: a tenth of what they take as numbers, and
    /// every series of the fleet has a minute of them here.
    ticks: Vec<(usize, Vec<u8>)>,
    /// What the next tick is told against.
    base: Base,
}

impl BlockBuilder {
    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ticks.is_empty()
    }

    /// Time between the first and the last tick.
    #[must_use]
    pub fn span_ms(&self) -> i64 {
        match (self.times.first(), self.times.last()) {
            (Some(first), Some(last)) => last - first,
            _ => 0,
        }
    }

    /// Cells held.
    #[must_use]
    pub fn cells(&self) -> usize {
        self.series.len() * self.ticks.len()
    }

    /// Adds one tick: its number, its time and its values. `series` names the rows of the whole stream.
    pub fn push(&mut self, seq: u64, at: Timestamp, series: &[u32], tick: &Columns) {
        if self.ticks.is_empty() {
            self.first_seq = seq;
        }
        self.last_seq = seq;
        self.series.extend_from_slice(series.get(self.series.len()..).unwrap_or_default());
        self.times.push(at.as_millis());
        let mut bytes = tick.encode(&mut self.base);
        bytes.shrink_to_fit();
        self.ticks.push((tick.series(), bytes));
    }

    /// Closes the block and begins the next.
    pub fn take(&mut self, epoch: Epoch) -> Option<SampleBlock> {
        if self.ticks.is_empty() {
            return None;
        }
        let built = std::mem::take(self);
        let mut base = Base::new();
        // What this builder encoded itself can be decoded; were it not so, the tick would be without values.
        let ticks: Vec<Columns> = built
            .ticks
            .iter()
            .map(|(rows, bytes)| Columns::decode(bytes, *rows, 1, &mut base, MAX_CELLS))
            .map(|tick| tick.unwrap_or_else(|_| Columns::missing(0, 1)))
            .collect();
        // A series without any value in this block (a guest that is gone) takes no row.
        let present: Vec<usize> = (0..built.series.len())
            .filter(|&row| ticks.iter().any(|tick| tick.get(row, 0).is_some()))
            .collect();
        let mut matrix = Columns::missing(present.len(), ticks.len());
        for (at, tick) in ticks.iter().enumerate() {
            for (row, &series) in present.iter().enumerate() {
                matrix.set(row, at, tick.get(series, 0));
            }
        }
        Some(SampleBlock {
            version: VERSION,
            epoch,
            first_seq: built.first_seq,
            last_seq: built.last_seq,
            times_ms: differences(built.times.iter().copied()),
            thinned: Thinned::No,
            series: differences(present.iter().map(|&row| i64::from(built.series[row]))),
            columns: matrix.encode(&mut Base::new()),
        })
    }
}

/// A block of records that the agent thinned: stored as it came.
#[must_use]
pub fn thinned_block(
    epoch: Epoch,
    (first_seq, last_seq): (u64, u64),
    times: &[Timestamp],
    series: &[u32],
    thinned: Thinned,
    matrix: &Columns,
) -> SampleBlock {
    SampleBlock {
        version: VERSION,
        epoch,
        first_seq,
        last_seq,
        times_ms: differences(times.iter().map(|t| t.as_millis())),
        thinned,
        series: differences(series.iter().map(|&n| i64::from(n))),
        columns: matrix.encode(&mut Base::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(values: &[Option<i64>]) -> Columns {
        let mut tick = Columns::missing(values.len(), 1);
        values.iter().enumerate().for_each(|(row, &value)| tick.set(row, 0, value));
        tick
    }

    #[test]
    fn a_block_gives_back_what_went_in_and_leaves_out_dead_series() {
        let mut builder = BlockBuilder::default();
        builder.push(7, Timestamp::from_millis(1_000), &[4, 9], &tick(&[Some(10), None]));
        builder.push(8, Timestamp::from_millis(2_003), &[4, 9, 2], &tick(&[None, None, Some(-5)]));
        let block = builder.take([1; 16]).unwrap();
        assert!(builder.is_empty() && builder.take([1; 16]).is_none());
        let block = SampleBlock::from_bytes(&block.to_bytes().unwrap()).unwrap();
        assert_eq!((block.first_seq, block.last_seq), (7, 8));
        let (series, times, matrix) = block.matrix().unwrap();
        assert_eq!(series, [4, 2]);
        assert_eq!(times, [Timestamp::from_millis(1_000), Timestamp::from_millis(2_003)]);
        assert_eq!((matrix.get(0, 0), matrix.get(0, 1)), (Some(10), None));
        assert_eq!((matrix.get(1, 0), matrix.get(1, 1)), (None, Some(-5)));
    }

    #[test]
    fn damage_is_an_error() {
        let mut builder = BlockBuilder::default();
        builder.push(1, Timestamp::from_millis(1), &[1], &tick(&[Some(3)]));
        let bytes = builder.take([0; 16]).unwrap().to_bytes().unwrap();
        assert!(SampleBlock::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        let mut newer = bytes;
        newer[0] = 9;
        assert!(matches!(SampleBlock::from_bytes(&newer), Err(BlockError::Version(9))));
    }
}
