//! Up to a minute of consecutive ticks with everything needed to understand them: what the spool keeps in a
//! file, and what replay sends.
//!
//! On disk a chunk is its wire form (the dictionary as `SeriesAdded`, the ticks as a keyframe `SampleBatch`)
//! behind a checksum, so a newer agent reads what an older one left.

use std::sync::Arc;

use evenkeel_common::columns::{Base, Columns};
use evenkeel_common::sample::{SeriesId, SeriesKey};
use evenkeel_common::time::{Timestamp, Window};
use evenkeel_proto::v1;
use prost::Message as _;

/// Most ticks in a chunk, and in a batch of the replay.
pub const CHUNK_TICKS: usize = 60;
/// Columns of a series in a thinned chunk: min, mean, max, p95.
pub const THINNED_COLUMNS: usize = 4;

const MAGIC: [u8; 4] = *b"EKC1";
/// Most cells a stored chunk may hold: 64 Ki series of a whole chunk, far above any configured limit.
const MAX_CELLS: usize = CHUNK_TICKS << 16;
/// Fastest compression: a chunk is written once and mostly read never.
const ZSTD_LEVEL: i32 = 1;

/// All samples of one time as the sample lane carries them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Wall clock.
    pub at: Timestamp,
    /// Boot clock, in milliseconds.
    pub uptime_ms: u64,
    /// Quantised values, ascending by series.
    pub values: Vec<(SeriesId, i64)>,
}

/// What one record of a chunk stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resolution {
    /// One tick.
    Raw,
    /// About ten seconds: min, mean, max and p95 of each series.
    TenSeconds,
    /// About a minute.
    Minute,
}

impl Resolution {
    /// Columns of a series.
    #[must_use]
    pub const fn columns(self) -> usize {
        match self {
            Self::Raw => 1,
            Self::TenSeconds | Self::Minute => THINNED_COLUMNS,
        }
    }

    const fn thinning(self) -> v1::Thinning {
        match self {
            Self::Raw => v1::Thinning::None,
            Self::TenSeconds => v1::Thinning::Thinning10s,
            Self::Minute => v1::Thinning::Thinning60s,
        }
    }
}

/// Consecutive ticks, self-contained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Number of the first tick.
    pub first_seq: u64,
    /// Number of the last tick.
    pub last_seq: u64,
    /// Wall clock of the first record.
    pub at: Timestamp,
    /// Boot clock of the first record, in milliseconds.
    pub uptime_ms: u64,
    /// Between records, in milliseconds.
    pub step_ms: u32,
    /// What a record stands for.
    pub resolution: Resolution,
    /// The dictionary: series `i` has the columns from `i * resolution.columns()` on.
    pub series: Vec<Arc<SeriesKey>>,
    /// The values.
    pub columns: Columns,
}

/// A stored chunk that can not be read: damaged, or of a version this one does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chunk is damaged")]
pub struct Damaged;

impl Chunk {
    /// Records in it.
    #[must_use]
    pub const fn records(&self) -> usize {
        self.columns.ticks()
    }

    /// The time it covers.
    #[must_use]
    pub fn window(&self) -> Window {
        window(self.at, self.step_ms, self.records())
    }

    /// The part from tick `seq` on; `None` when nothing is left. Thinned chunks are not cut: their records
    /// stand for several numbers.
    #[must_use]
    pub fn starting_at(self, seq: u64) -> Option<Self> {
        if seq > self.last_seq {
            return None;
        }
        let skip = usize::try_from(seq.saturating_sub(self.first_seq)).unwrap_or(usize::MAX);
        if skip == 0 || self.resolution != Resolution::Raw || skip >= self.records() {
            return Some(self);
        }
        Some(self.part(skip, self.records()))
    }

    /// The first `records` ticks of a raw chunk, or all of it when it has no more.
    #[must_use]
    pub fn up_to(self, records: usize) -> Self {
        if records >= self.records() || self.resolution != Resolution::Raw {
            self
        } else {
            self.part(0, records)
        }
    }

    fn part(&self, from: usize, to: usize) -> Self {
        let mut columns = Columns::missing(self.columns.series(), to - from);
        for series in 0..self.columns.series() {
            for tick in from..to {
                columns.set(series, tick - from, self.columns.get(series, tick));
            }
        }
        let skipped_ms = u64::from(self.step_ms) * from as u64;
        Self {
            first_seq: self.first_seq + from as u64,
            last_seq: self.first_seq + to as u64 - 1,
            at: self.at.after(std::time::Duration::from_millis(skipped_ms)),
            uptime_ms: self.uptime_ms + skipped_ms,
            step_ms: self.step_ms,
            resolution: self.resolution,
            series: self.series.clone(),
            columns,
        }
    }

    /// The wire form of `columns`, which are this chunk's, perhaps in the order of another dictionary of
    /// `series` entries. A keyframe; `base` (fresh, or a stream's) then holds the values after it.
    #[must_use]
    pub fn batch(&self, columns: &Columns, series: usize, base: &mut Base, zstd: bool) -> v1::SampleBatch {
        base.clear();
        let plain = columns.encode(base);
        // Where zstd fails or does not pay, plain bytes do.
        let packed = zstd.then(|| zstd::bulk::compress(&plain, ZSTD_LEVEL).ok()).flatten();
        let packed = packed.filter(|packed| packed.len() < plain.len());
        v1::SampleBatch {
            first_seq: self.first_seq,
            last_seq: self.last_seq,
            keyframe: true,
            at_ms: self.at.as_millis(),
            uptime_ms: self.uptime_ms,
            step_ms: if self.records() > 1 { self.step_ms } else { 0 },
            ticks: u32::try_from(self.records()).unwrap_or(u32::MAX),
            thinning: self.resolution.thinning().into(),
            zstd: packed.is_some(),
            columns: packed.unwrap_or(plain),
            series: u32::try_from(series).unwrap_or(u32::MAX),
        }
    }

    /// The bytes of its file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let series = self.series.iter().map(|key| v1::SeriesDef::from(&**key)).collect();
        let dictionary = v1::SeriesAdded { first_index: 0, series };
        let mut batch = self.batch(&self.columns, self.series.len(), &mut Base::new(), true);
        // A chunk of one tick keeps its step: it says how long the tick stands for.
        batch.step_ms = self.step_ms;
        let mut body = dictionary.encode_length_delimited_to_vec();
        body.extend(batch.encode_length_delimited_to_vec());
        let mut bytes = MAGIC.to_vec();
        bytes.extend(crc32fast::hash(&body).to_le_bytes());
        bytes.extend(body);
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`Damaged`] when the checksum or anything in it is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Damaged> {
        let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(Damaged)?;
        let (crc, mut body) = rest.split_first_chunk::<4>().ok_or(Damaged)?;
        if *magic != MAGIC || crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(Damaged);
        }
        let dictionary = v1::SeriesAdded::decode_length_delimited(&mut body).map_err(|_| Damaged)?;
        let batch = v1::SampleBatch::decode_length_delimited(&mut body).map_err(|_| Damaged)?;
        let resolution = match batch.thinning() {
            v1::Thinning::None => Resolution::Raw,
            v1::Thinning::Thinning10s => Resolution::TenSeconds,
            v1::Thinning::Thinning60s => Resolution::Minute,
        };
        let series = dictionary
            .series
            .into_iter()
            .map(|def| SeriesKey::try_from(def).map(Arc::new).map_err(|_| Damaged))
            .collect::<Result<Vec<_>, _>>()?;
        let (width, ticks) = (series.len() * resolution.columns(), batch.ticks as usize);
        let plain = match batch.zstd {
            // A cell takes at most nine bytes.
            true => zstd::bulk::decompress(&batch.columns, width * ticks.min(MAX_CELLS) * 9)
                .map_err(|_| Damaged)?,
            false => batch.columns,
        };
        let columns =
            Columns::decode(&plain, width, ticks, &mut Base::new(), MAX_CELLS).map_err(|_| Damaged)?;
        Ok(Self {
            first_seq: batch.first_seq,
            last_seq: batch.last_seq,
            at: Timestamp::from_millis(batch.at_ms),
            uptime_ms: batch.uptime_ms,
            step_ms: batch.step_ms,
            resolution,
            series,
            columns,
        })
    }
}

/// The time covered by `records` of `step_ms` from `at` on.
pub(super) fn window(at: Timestamp, step_ms: u32, records: usize) -> Window {
    let span = std::time::Duration::from_millis(u64::from(step_ms) * records as u64);
    Window { from: at, to: at.after(span) }
}

/// A chunk of `ticks` ticks from `first_seq` on, a second each, for tests: series `i` has value `seq * i`, and
/// every seventh tick of series 1 is missing.
#[cfg(test)]
pub(crate) fn sample_chunk(first_seq: u64, ticks: usize, series: usize) -> Chunk {
    use evenkeel_common::sample::Metric;
    let mut columns = Columns::missing(series, ticks);
    for s in 0..series {
        for t in 0..ticks {
            let seq = first_seq + t as u64;
            columns.set(s, t, (s != 1 || !seq.is_multiple_of(7)).then_some((seq * s as u64).cast_signed()));
        }
    }
    Chunk {
        first_seq,
        last_seq: first_seq + ticks as u64 - 1,
        at: Timestamp::from_millis(first_seq.cast_signed() * 1000),
        uptime_ms: first_seq * 1000,
        step_ms: 1000,
        resolution: Resolution::Raw,
        series: (0..series).map(|i| Arc::new(SeriesKey::device(Metric::NetRx, format!("nic{i}")))).collect(),
        columns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_comes_back_from_bytes_and_any_damage_is_noticed() {
        let chunk = sample_chunk(100, 60, 12);
        let bytes = chunk.to_bytes();
        assert_eq!(Chunk::from_bytes(&bytes), Ok(chunk));
        for place in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[place] ^= 0x10;
            assert_eq!(Chunk::from_bytes(&flipped), Err(Damaged), "bit flipped in byte {place}");
            assert_eq!(Chunk::from_bytes(&bytes[..place]), Err(Damaged), "cut at {place}");
        }
    }

    #[test]
    fn a_part_of_a_chunk_keeps_numbers_times_and_values() {
        let part = sample_chunk(100, 60, 3).starting_at(110).unwrap().up_to(5);
        assert_eq!(part, sample_chunk(110, 5, 3));
        assert_eq!(sample_chunk(100, 60, 3).starting_at(160), None);
        assert_eq!(sample_chunk(100, 60, 3).starting_at(7).unwrap().first_seq, 100);
    }
}
