//! What will reach its limit: trends of a node's stored means. The maths is [`evenkeel_detect::forecast`].

use std::time::Duration;

use evenkeel_common::sample::{Metric, SeriesKey};
use evenkeel_common::time::Timestamp;
use evenkeel_detect::forecast::{Forecast, Question, forecast};

use super::observe::{CPU, MEMORY};
use crate::store::records::{NodeKey, RollupRecord};
use crate::store::{Store, StoreError};

/// How far ahead anybody wants to know, hours.
const HORIZON_H: f64 = 720.0;
/// Data that trends are made of.
const LOOK_BACK: Duration = Duration::from_hours(24 * 7);

/// A leak that began an hour ago is nothing in a week: the last hours are asked as well, for growth that is clear
/// even so.
const RECENT_H: f64 = 2.0;
/// Growth in those hours that matters, percent of a file system or of memory.
const RECENT_GROWTH: f64 = 5.0;

/// Thresholds that count beside "full".
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// CPU, percent.
    pub cpu: f64,
    /// Memory, percent.
    pub memory: f64,
}

/// A forecast of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Which series.
    pub series: SeriesKey,
    /// The limit it will reach, in the series' unit.
    pub limit: f64,
    /// When.
    pub forecast: Forecast,
}

/// Forecasts of a node, the nearest first.
///
/// # Errors
/// Of the store.
pub fn of_node(
    store: &dyn Store,
    node: &NodeKey,
    now: Timestamp,
    thresholds: Thresholds,
) -> Result<Vec<Found>, StoreError> {
    let rows = super::history::rollups(store, node, now.before(LOOK_BACK))?;
    Ok(from_rollups(&rows, thresholds))
}

fn from_rollups(rows: &[(Timestamp, RollupRecord)], thresholds: Thresholds) -> Vec<Found> {
    let points = |value: &dyn Fn(&RollupRecord) -> Option<f64>| -> Vec<(f64, f64)> {
        let hours = |at: &Timestamp| at.as_secs() as f64 / 3600.0;
        rows.iter().filter_map(|(at, record)| Some((hours(at), value(record)?))).collect()
    };
    let mut found = Vec::new();
    let mut ask = |series: SeriesKey, points: &[(f64, f64)], threshold: f64, least: f64, daily: bool| {
        let question = |limit| Question { limit, least_growth: least, horizon_h: HORIZON_H, daily };
        // Over the threshold already: what is left to know is when it is full.
        let below = points.last().is_some_and(|(_, value)| *value < threshold);
        let limit = if below { threshold } else { 100.0 };
        let whole = forecast(points, &question(limit));
        let since = points.last().map_or(0.0, |(at, _)| at - RECENT_H);
        let recent = &points[points.partition_point(|(at, _)| *at < since)..];
        let clear = Question { least_growth: RECENT_GROWTH, ..question(limit) };
        let recent = if daily { None } else { forecast(recent, &clear) };
        let nearest = whole.into_iter().chain(recent).min_by(|a, b| a.hours.total_cmp(&b.hours));
        found.extend(nearest.map(|forecast| Found { series, limit, forecast }));
    };
    let mounts: std::collections::BTreeSet<&String> =
        rows.iter().flat_map(|(_, record)| record.file_systems.keys()).collect();
    for mount in mounts {
        let of_mount = points(&|record| record.file_systems.get(mount).copied());
        ask(SeriesKey::device(Metric::FsUsed, mount.clone()), &of_mount, 100.0, 0.5, false);
    }
    let memory = points(&|record| record.seven[MEMORY]);
    ask(SeriesKey::node(Metric::MemUsed), &memory, thresholds.memory, 1.0, false);
    // The load of a day repeats itself: without comparing like hours every morning would be a trend.
    let cpu = points(&|record| record.seven[CPU]);
    ask(SeriesKey::node(Metric::CpuUsed), &cpu, thresholds.cpu, 3.0, true);
    found.sort_by(|a, b| a.forecast.hours.total_cmp(&b.forecast.hours));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_of_the_last_hours_is_told_after_a_quiet_week() {
        let rows = |leaks: bool| -> Vec<_> {
            let row = |n: u32| {
                let mut record = RollupRecord { count: 30, ..RollupRecord::default() };
                let late = f64::from(n.saturating_sub(7 * 288 - 20)) / 12.0;
                let noise = f64::from(n * 7919 % 101) / 101.0;
                record.seven[MEMORY] = Some(40.0 + noise + if leaks { 6.0 * late } else { 0.0 });
                (Timestamp::from_millis(i64::from(n) * 300_000), record)
            };
            (0..7 * 288).map(row).collect()
        };
        let thresholds = Thresholds { cpu: 70.0, memory: 80.0 };
        assert_eq!(from_rollups(&rows(false), thresholds), []);
        let found = from_rollups(&rows(true), thresholds);
        let [leak] = found.as_slice() else { panic!("{found:?}") };
        assert!((leak.forecast.hours - 5.0).abs() < 1.0 && leak.forecast.per_hour > 5.0, "{leak:?}");
    }

    #[test]
    fn a_leak_and_a_filling_disk_are_told_and_a_daily_wave_is_not() {
        let rows: Vec<_> = (0..144 * 2)
            .map(|n| {
                let hour = f64::from(n) / 6.0;
                let mut record = RollupRecord { count: 60, ..RollupRecord::default() };
                record.seven[MEMORY] = Some(50.0 + 0.2 * hour);
                record.seven[CPU] = Some(40.0 + 25.0 * (hour / 24.0 * std::f64::consts::TAU).sin());
                record.file_systems.insert("/var".into(), 70.0 + 0.5 * hour);
                record.file_systems.insert("/boot".into(), 31.0);
                (Timestamp::from_millis(n as i64 * 600_000), record)
            })
            .collect();
        let found = from_rollups(&rows, Thresholds { cpu: 70.0, memory: 80.0 });
        let told: Vec<_> = found.iter().map(|f| (f.series.to_string(), f.limit)).collect();
        assert_eq!(told, [("fs_used[/var]".to_owned(), 100.0), ("mem_used".to_owned(), 80.0)]);
        assert!((found[0].forecast.hours - 12.2).abs() < 1.0, "{:?}", found[0]);
        assert!((found[1].forecast.hours - 102.2).abs() < 5.0, "{:?}", found[1]);
    }
}
