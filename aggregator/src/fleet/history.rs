//! What is remembered of a node: the last looks, in memory, and means of some minutes, in the store. Latency has a
//! usual level for each hour of the day once there is a day of means; until then the last looks must do.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::time::Duration;

use evenkeel_common::time::Timestamp;

use super::observe::{ERRORS, LATENCY, Observation};
use crate::store::records::{BlockKey, NodeKey, RollupRecord};
use crate::store::{Direction, KeyRange, OnDamage, Store, StoreError, trees};

/// Days of means behind the hourly levels.
const DAYS: u64 = 14;
/// Means kept of one hour of the day: two weeks of five minutes.
const PER_HOUR: usize = 12 * DAYS as usize;
/// Hours of the day that must be known before any has a level of its own.
const A_DAY: usize = 24;
/// Fewest means that make the level of an hour.
const FEWEST_OF_HOUR: usize = 3;
/// Fewest looks that make a level.
const FEWEST_LOOKS: usize = 60;
/// The newest looks, which may be the anomaly itself, are left out of the level.
const LEFT_OUT: usize = 30;
/// File systems in a mean.
const MOST_FILE_SYSTEMS: usize = 64;

/// One look: when, and the seven metrics (NaN = no data).
pub type Row = (Timestamp, [f64; 7]);

/// The past of one node.
#[derive(Debug, Default)]
pub struct History {
    rows: VecDeque<Row>,
    sums: Sums,
    /// Latency means by hour of day, UTC.
    hours: BTreeMap<u8, VecDeque<f64>>,
}

/// A mean under way.
#[derive(Debug, Default)]
struct Sums {
    since: Option<Timestamp>,
    count: u32,
    seven: [(f64, u32); 7],
    file_systems: BTreeMap<String, f64>,
    swap: Option<f64>,
}

impl History {
    /// The past of a node as far as the store has it.
    ///
    /// # Errors
    /// Of the store.
    pub fn load(store: &dyn Store, node: &NodeKey, now: Timestamp) -> Result<Self, StoreError> {
        let mut history = Self::default();
        for (at, record) in rollups(store, node, now.before(Duration::from_hours(24 * DAYS)))? {
            history.learn_hour(at, &record);
        }
        Ok(history)
    }

    /// Takes a look. Returns a mean with its start once `rollup` is over.
    pub fn push(
        &mut self,
        at: Timestamp,
        seen: &Observation,
        most: usize,
        rollup: Duration,
    ) -> Option<(Timestamp, RollupRecord)> {
        while self.rows.len() >= most.max(1) {
            self.rows.pop_front();
        }
        self.rows.push_back((at, seen.seven));
        let span = i64::try_from(rollup.as_millis()).unwrap_or(i64::MAX).max(1);
        let start = Timestamp::from_millis(at.as_millis().div_euclid(span) * span);
        let ended = self.sums.since.filter(|since| *since != start);
        let done = ended.and_then(|since| Some((since, std::mem::take(&mut self.sums).finish()?)));
        if ended.is_some() {
            self.sums = Sums::default();
        }
        self.sums.add(start, seen);
        if let Some((since, record)) = &done {
            self.learn_hour(*since, record);
        }
        done
    }

    /// The looks, oldest first.
    pub fn rows(&self) -> impl DoubleEndedIterator<Item = &Row> + ExactSizeIterator {
        self.rows.iter()
    }

    /// Usual share of lost packets, percent: the median of the looks before the last ones.
    #[must_use]
    pub fn usual_errors(&self) -> Option<f64> {
        self.usual(ERRORS)
    }

    /// Usual latency and its spread, and whether that is of this hour of the day rather than of the last looks.
    #[must_use]
    pub fn usual_latency(&self, now: Timestamp) -> (Option<(f64, f64)>, bool) {
        let of_hour = self.hours.get(&hour(now)).filter(|means| means.len() >= FEWEST_OF_HOUR);
        match of_hour.filter(|_| self.hours.len() >= A_DAY) {
            Some(means) => (spread(means.iter().copied().collect()), true),
            None => (self.level(LATENCY), false),
        }
    }

    /// Usual value of one of the seven metrics.
    #[must_use]
    pub fn usual(&self, place: usize) -> Option<f64> {
        self.level(place).map(|(median, _)| median)
    }

    fn level(&self, place: usize) -> Option<(f64, f64)> {
        let before = self.rows.iter().rev().skip(LEFT_OUT).map(|(_, seven)| seven[place]);
        let values: Vec<f64> = before.filter(|value| value.is_finite()).collect();
        if values.len() < FEWEST_LOOKS { None } else { spread(values) }
    }

    fn learn_hour(&mut self, at: Timestamp, record: &RollupRecord) {
        if let Some(latency) = record.seven[LATENCY].filter(|value| value.is_finite()) {
            let means = self.hours.entry(hour(at)).or_default();
            means.push_back(latency);
            while means.len() > PER_HOUR {
                means.pop_front();
            }
        }
    }
}

fn hour(at: Timestamp) -> u8 {
    u8::try_from(at.as_secs().rem_euclid(86_400) / 3600).unwrap_or_default()
}

/// Median, and 1.48 times the median distance from it: the standard deviation of normal noise, deaf to outliers.
fn spread(mut values: Vec<f64>) -> Option<(f64, f64)> {
    let middle = median(&mut values)?;
    let mut apart: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
    Some((middle, 1.4826 * median(&mut apart)?))
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

impl Sums {
    fn add(&mut self, start: Timestamp, seen: &Observation) {
        self.since = Some(start);
        self.count += 1;
        for ((sum, count), value) in self.seven.iter_mut().zip(seen.seven) {
            if value.is_finite() {
                *sum += value;
                *count += 1;
            }
        }
        for (mount, percent) in seen.file_systems.iter().filter(|(_, percent)| percent.is_finite()) {
            if self.file_systems.len() < MOST_FILE_SYSTEMS || self.file_systems.contains_key(mount) {
                self.file_systems.insert(mount.clone(), *percent);
            }
        }
        self.swap = seen.swap.filter(|bytes| bytes.is_finite()).or(self.swap);
    }

    fn finish(self) -> Option<RollupRecord> {
        let mean = |(sum, count): (f64, u32)| (count > 0).then(|| sum / f64::from(count));
        let Self { count, seven, file_systems, swap, .. } = self;
        (count > 0).then(|| RollupRecord { count, seven: seven.map(mean), file_systems, swap_bytes: swap })
    }
}

/// Stored means of a node since a time, oldest first.
///
/// # Errors
/// Of the store.
pub fn rollups(
    store: &dyn Store,
    node: &NodeKey,
    since: Timestamp,
) -> Result<Vec<(Timestamp, RollupRecord)>, StoreError> {
    let (cluster, name) = (node.cluster.clone(), node.node.clone());
    let end = (cluster.clone(), name.clone(), Timestamp::from_millis(i64::MAX));
    let range = KeyRange::between(&(cluster, name, since), &end);
    let mut found = Vec::new();
    trees::ROLLUPS.scan(store, &range, Direction::Forward, OnDamage::Skip, |key: BlockKey, record| {
        found.push((key.start, record));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// When the newest stored mean of a node began.
///
/// # Errors
/// Of the store.
pub fn newest_rollup(store: &dyn Store, node: &NodeKey) -> Result<Option<Timestamp>, StoreError> {
    let mut newest = None;
    store.scan_keys(trees::ROLLUPS.id(), &KeyRange::under(node), Direction::Backward, &mut |key| {
        newest = <BlockKey as crate::store::Key>::from_bytes(key).map(|key| key.start);
        ControlFlow::Break(())
    })?;
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_MINUTES: Duration = Duration::from_mins(10);

    fn seen(latency: f64) -> Observation {
        let mut seven = [f64::NAN; 7];
        seven[LATENCY] = latency;
        Observation { seven, file_systems: vec![("/".into(), 40.0)], ..Observation::default() }
    }

    #[test]
    fn means_close_with_their_time_and_leave_out_what_is_absent() {
        let mut history = History::default();
        let mut done = Vec::new();
        for s in (0..1210).step_by(10) {
            let value = if s % 20 == 0 { 2.0 } else { f64::NAN };
            done.extend(history.push(Timestamp::from_millis(s * 1000), &seen(value), 50, TEN_MINUTES));
        }
        assert_eq!(done.len(), 2);
        assert_eq!((done[1].0, done[1].1.count), (Timestamp::from_millis(600_000), 60));
        assert_eq!(done[1].1.seven[LATENCY], Some(2.0));
        assert_eq!(done[1].1.seven[0], None, "no data is not zero");
        assert_eq!(done[1].1.file_systems["/"], 40.0);
        assert_eq!(history.rows().len(), 50);
    }

    #[test]
    fn latency_has_its_level_by_the_hour_after_a_day_and_by_the_last_looks_before() {
        let mut history = History::default();
        let mut at = Timestamp::from_millis(0);
        let mut pass = |history: &mut History, hours: u64, of: fn(u8) -> f64| {
            for _ in 0..hours * 360 {
                history.push(at, &seen(of(hour(at))), 1000, TEN_MINUTES);
                at = at.after(Duration::from_secs(10));
            }
            at
        };
        let night_is_slow = |hour: u8| if hour < 6 { 9.0 } else { 1.0 };
        let now = pass(&mut history, 12, night_is_slow);
        assert_eq!(history.usual_latency(now), (Some((1.0, 0.0)), false));
        let now = pass(&mut history, 15, night_is_slow); // To three in the morning.
        assert_eq!(history.usual_latency(now), (Some((9.0, 0.0)), true), "slow at night is usual at night");
        assert_eq!(History::default().usual_latency(now), (None, false));
    }
}
