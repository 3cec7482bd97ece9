//! Thinning: fewer records of a chunk, each standing for a longer stretch.

use evenkeel_common::columns::Columns;

use super::chunk::{Chunk, Resolution, THINNED_COLUMNS};

/// Milliseconds a record stands for.
const fn span_ms(resolution: Resolution) -> u32 {
    match resolution {
        Resolution::Raw => 0,
        Resolution::TenSeconds => 10_000,
        Resolution::Minute => 60_000,
    }
}

/// Records that become one, when a chunk of `from` with `step_ms` between records is thinned to `to`; `None`
/// where that would save nothing (a raw record has one column, a thinned one four).
pub(super) fn group(from: Resolution, step_ms: u32, to: Resolution) -> Option<usize> {
    let size = span_ms(to).checked_div(step_ms)? as usize;
    (from < to && size * from.columns() > THINNED_COLUMNS).then_some(size)
}

/// The chunk with one record for each [`group`] of records: least of the least, mean of the means, greatest of
/// the greatest. The p95 of ticks is exact (nearest rank); thinned again, it is the greatest of the p95s, which
/// errs on the safe side. A record has no value where none of its ticks had one.
pub(super) fn thin(chunk: &Chunk, to: Resolution) -> Option<Chunk> {
    let size = group(chunk.resolution, chunk.step_ms, to)?;
    let records = chunk.records().div_ceil(size);
    let mut columns = Columns::missing(chunk.series.len() * THINNED_COLUMNS, records);
    let width = chunk.resolution.columns();
    let mut values = [const { Vec::new() }; THINNED_COLUMNS];
    for series in 0..chunk.series.len() {
        for record in 0..records {
            for (stat, values) in values.iter_mut().enumerate() {
                // A raw chunk has one column, which serves all four.
                let column = series * width + stat.min(width - 1);
                let ticks = record * size..((record + 1) * size).min(chunk.records());
                values.clear();
                values.extend(ticks.filter_map(|tick| chunk.columns.get(column, tick)));
            }
            let [least, means, greatest, tails] = &mut values;
            tails.sort_unstable();
            let tail = match chunk.resolution {
                Resolution::Raw => tails.get((tails.len() * 95).div_ceil(100).saturating_sub(1)),
                Resolution::TenSeconds | Resolution::Minute => tails.last(),
            };
            let stats =
                [least.iter().min().copied(), mean(means), greatest.iter().max().copied(), tail.copied()];
            for (stat, value) in stats.into_iter().enumerate() {
                columns.set(series * THINNED_COLUMNS + stat, record, value);
            }
        }
    }
    let step_ms = chunk.step_ms.saturating_mul(u32::try_from(size).unwrap_or(u32::MAX));
    Some(Chunk { step_ms, resolution: to, columns, series: chunk.series.clone(), ..*chunk })
}

fn mean(values: &[i64]) -> Option<i64> {
    let count = i128::try_from(values.len()).ok().filter(|&n| n > 0)?;
    let sum: i128 = values.iter().map(|&v| i128::from(v)).sum();
    i64::try_from((2 * sum + count).div_euclid(2 * count)).ok()
}

#[cfg(test)]
mod tests {
    use super::super::chunk::sample_chunk;
    use super::*;

    fn stats(chunk: &Chunk, series: usize, record: usize) -> [Option<i64>; 4] {
        [0, 1, 2, 3].map(|stat| chunk.columns.get(series * THINNED_COLUMNS + stat, record))
    }

    #[test]
    fn a_minute_becomes_six_records_and_then_one() {
        let raw = sample_chunk(0, 60, 3);
        let ten = thin(&raw, Resolution::TenSeconds).unwrap();
        assert_eq!((ten.first_seq, ten.last_seq, ten.records(), ten.step_ms), (0, 59, 6, 10_000));
        assert_eq!(ten.window(), raw.window());
        // Series 2 has values 0, 2, 4, ... 118.
        assert_eq!(stats(&ten, 2, 1), [Some(20), Some(29), Some(38), Some(38)]);
        let minute = thin(&ten, Resolution::Minute).unwrap();
        assert_eq!((minute.records(), minute.step_ms), (1, 60_000));
        assert_eq!(stats(&minute, 2, 0), [Some(0), Some(59), Some(118), Some(118)]);
        assert_eq!(Chunk::from_bytes(&minute.to_bytes()), Ok(minute));
    }

    #[test]
    fn missing_ticks_count_neither_as_zero_nor_at_all() {
        let mut raw = sample_chunk(0, 20, 1);
        (0..10).for_each(|tick| raw.columns.set(0, tick, None));
        (10..20).for_each(|tick| raw.columns.set(0, tick, (tick % 2 == 0).then_some(7)));
        let ten = thin(&raw, Resolution::TenSeconds).unwrap();
        assert_eq!(stats(&ten, 0, 0), [None; 4]);
        assert_eq!(stats(&ten, 0, 1), [Some(7); 4]);
    }

    #[test]
    fn p95_is_the_nearest_rank() {
        let mut raw = sample_chunk(0, 60, 1);
        (0..60).for_each(|tick| raw.columns.set(0, tick, Some(60 - tick as i64)));
        raw.step_ms = 500;
        // Twenty values 41..=60: rank 19 of 20.
        assert_eq!(stats(&thin(&raw, Resolution::TenSeconds).unwrap(), 0, 0)[3], Some(59));
    }

    #[test]
    fn what_would_not_shrink_is_left_alone() {
        let mut slow = sample_chunk(0, 60, 1);
        slow.step_ms = 10_000;
        assert_eq!(thin(&slow, Resolution::TenSeconds), None);
        assert_eq!(thin(&slow, Resolution::Minute).unwrap().records(), 10);
        slow.step_ms = 60_000;
        assert_eq!(thin(&slow, Resolution::Minute), None);
        slow.step_ms = 0;
        assert_eq!(thin(&slow, Resolution::Minute), None);
    }
}
