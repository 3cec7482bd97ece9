//! The ensemble's seasonal ESD: is the present an outlier among the residuals of the last weeks?
//!
//! Roll-ups of a quarter of an hour are kept per metric. Four times a day the season (and, after three weeks, the
//! week) is taken away from them and the test of [`crate::seasonal_esd`] run on what is left, with its at most ten
//! outliers; that gives centre, scale and the critical value against which the present is held until the next run.
//! A point beyond it is one that the test would have named.

use std::collections::VecDeque;

use evenkeel_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::seasonal_esd::{MIN_PERIODS, SeasonalEsdConfig, Spread, generalised_esd, season};
use crate::seven::{SEVEN, SevenMetric};

/// Roll-ups of one node: what a stored model of this detector holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rollups {
    /// Seconds of one.
    pub(crate) step_s: u32,
    /// Number since 1970 of the newest that is complete.
    pub(crate) newest: i64,
    /// Oldest first, in the metrics' domain; NaN = missing.
    pub(crate) rows: VecDeque<[f32; SEVEN]>,
}

impl Rollups {
    /// Whether stored roll-ups can be believed.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        (60..=3600).contains(&self.step_s)
            && self.newest.unsigned_abs() < 1 << 40
            && self.rows.len() <= MAX_ROLLUPS
            && self.rows.iter().flatten().all(|v| v.is_nan() || v.abs() <= 1e9)
    }
}

/// Bound of a stored history: 60 days of minutes.
const MAX_ROLLUPS: usize = 60 * 1440;
/// Seconds between two runs of the test: a season of weeks changes little in a quarter of a day.
const REFIT_S: u32 = 6 * 3600;
/// Seconds over which the present is averaged.
pub(super) const PRESENT_S: u32 = 300;

/// What the present is held against, for one metric.
#[derive(Clone, Debug)]
struct Baseline {
    season: Vec<f64>,
    week: Vec<f64>,
    centre: f64,
    scale: f64,
    lambda: f64,
}

/// What one metric looks like against its season.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Residual {
    /// Distance in robust sigma; NaN when it can not be judged.
    pub(super) r: f64,
    /// Whether the test would have named it.
    pub(super) outlier: bool,
}

/// Roll-ups and baselines of one node.
#[derive(Clone, Debug)]
pub(super) struct Seasonal {
    config: SeasonalEsdConfig,
    rollups: Rollups,
    open: Option<(i64, [f64; SEVEN], [u32; SEVEN])>,
    baselines: Vec<Option<Baseline>>,
}

impl Seasonal {
    pub(super) fn new(config: SeasonalEsdConfig) -> Self {
        let rollups = Rollups { step_s: config.rollup_s.clamp(60, 3600), ..Rollups::default() };
        Self { config, rollups, open: None, baselines: Vec::new() }
    }

    pub(super) fn rollups(&self) -> &Rollups {
        &self.rollups
    }

    /// Begins with stored roll-ups; those of another step are of no use, which `false` says.
    pub(super) fn restore(&mut self, rollups: Rollups) -> bool {
        if rollups.step_s != self.rollups.step_s {
            return false;
        }
        self.rollups = rollups;
        self.open = None;
        self.refit();
        true
    }

    /// Roll-ups known, and how many are needed.
    pub(super) fn known(&self) -> (usize, usize) {
        (self.rollups.rows.len(), MIN_PERIODS * self.period())
    }

    /// Holds the present against the season; `None` while no metric has a baseline.
    pub(super) fn judge(&self, at: Timestamp, present: &[f64; SEVEN]) -> Option<[Residual; SEVEN]> {
        if self.baselines.iter().all(Option::is_none) {
            return None;
        }
        let slot = at.as_secs().div_euclid(i64::from(self.rollups.step_s));
        let mut found = [Residual { r: f64::NAN, outlier: false }; SEVEN];
        for ((found, baseline), &value) in found.iter_mut().zip(&self.baselines).zip(present) {
            let Some(baseline) = baseline else { continue };
            let expected = baseline.centre + phase(&baseline.season, slot) + phase(&baseline.week, slot);
            let r = (value - expected).abs() / baseline.scale;
            if r.is_finite() {
                *found = Residual { r, outlier: r > baseline.lambda };
            }
        }
        Some(found)
    }

    /// Learns a look.
    pub(super) fn learn(&mut self, at: Timestamp, values: &[f64; SEVEN]) {
        let slot = at.as_secs().div_euclid(i64::from(self.rollups.step_s));
        if let Some((open, sums, known)) = self.open.filter(|(open, ..)| slot > *open) {
            self.close(open, std::array::from_fn(|i| (sums[i] / f64::from(known[i])) as f32));
            self.open = None;
        }
        let (_, sums, known) = self.open.get_or_insert((slot, [0.0; SEVEN], [0; SEVEN]));
        for (i, v) in values.iter().enumerate().filter(|(_, v)| v.is_finite()) {
            sums[i] += v;
            known[i] += 1;
        }
    }

    fn period(&self) -> usize {
        (usize::from(self.config.period_hours.clamp(1, 168)) * 3600 / self.rollups.step_s as usize).max(2)
    }

    fn close(&mut self, slot: i64, row: [f32; SEVEN]) {
        let days = usize::from(self.config.history_days.clamp(4, 60));
        let most = days * 86_400 / self.rollups.step_s as usize;
        if !self.rollups.rows.is_empty() {
            // What lies between was not seen: missing, not forgotten.
            let holes = usize::try_from(slot - self.rollups.newest - 1).unwrap_or(0).min(most);
            self.rollups.rows.extend(std::iter::repeat_n([f32::NAN; SEVEN], holes));
        }
        self.rollups.rows.push_back(row);
        self.rollups.newest = slot;
        let surplus = self.rollups.rows.len().saturating_sub(most);
        self.rollups.rows.drain(..surplus);
        let between = i64::from(REFIT_S / self.rollups.step_s).max(1);
        if slot % between == 0 || self.baselines.is_empty() {
            self.refit();
        }
    }

    fn refit(&mut self) {
        let (known, needed) = self.known();
        if known < needed {
            return;
        }
        self.baselines = SevenMetric::ALL.map(|metric| self.baseline(metric)).to_vec();
    }

    fn baseline(&self, metric: SevenMetric) -> Option<Baseline> {
        let rollups = &self.rollups;
        let (period, week) = (self.period(), 7 * 86_400 / rollups.step_s as usize);
        let oldest = rollups.newest - rollups.rows.len() as i64 + 1;
        let mut rest: Vec<f64> = rollups.rows.iter().map(|row| f64::from(row[metric.index()])).collect();
        let take = |rest: &mut Vec<f64>, period: usize, reach: usize| {
            let found = season(rest, oldest.rem_euclid(period as i64) as usize, period, reach);
            for (i, v) in rest.iter_mut().enumerate() {
                *v -= phase(&found, oldest + i as i64);
            }
            found
        };
        let daily = take(&mut rest, period, 1);
        let long = self.config.weekly && period < week && rest.len() >= MIN_PERIODS * week;
        let weekly = if long { take(&mut rest, week, 4) } else { Vec::new() };
        let most = usize::from(self.config.max_anomalies);
        let esd = generalised_esd(&rest, most, self.config.alpha, Spread::MedianMad, metric.floor())?;
        Some(Baseline {
            season: daily,
            week: weekly,
            centre: esd.centre,
            scale: esd.scale,
            lambda: esd.lambda,
        })
    }
}

/// The season's value at a slot counted from 1970; 0 without a season.
fn phase(season: &[f64], slot: i64) -> f64 {
    if season.is_empty() { 0.0 } else { season[slot.rem_euclid(season.len() as i64) as usize] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: f64) -> Timestamp {
        Timestamp::from_millis((hour * 3_600_000.0) as i64)
    }

    fn values(cpu: f64) -> [f64; SEVEN] {
        let mut values = [f64::NAN; SEVEN];
        values[SevenMetric::CpuUsage.index()] = cpu;
        values
    }

    /// Twice as busy from 8 to 18 o'clock, on weekdays only when `weekend` says so.
    fn level(hour: usize, weekend: bool) -> f64 {
        let resting = weekend && (hour / 24) % 7 >= 5;
        if (8..18).contains(&(hour % 24)) && !resting { 60.0 } else { 30.0 }
    }

    fn taught(days: usize, weekend: bool) -> Seasonal {
        let mut seasonal = Seasonal::new(SeasonalEsdConfig::default());
        for quarter in 0..days * 96 {
            seasonal.learn(at(quarter as f64 / 4.0), &values(level(quarter / 4, weekend)));
        }
        seasonal
    }

    fn judged(seasonal: &Seasonal, hour: f64, cpu: f64) -> Residual {
        seasonal.judge(at(hour), &values(cpu)).unwrap()[SevenMetric::CpuUsage.index()]
    }

    #[test]
    fn the_same_value_is_normal_by_day_and_an_outlier_by_night() {
        let seasonal = taught(7, false);
        assert!(!judged(&seasonal, 7.0 * 24.0 + 12.0, 60.0).outlier);
        assert!(judged(&seasonal, 7.0 * 24.0 + 2.0, 60.0).outlier);
        let known = seasonal.judge(at(170.0), &values(60.0)).unwrap();
        assert!(known[0].r.is_nan() && !known[0].outlier, "a metric without values is not judged");
    }

    #[test]
    fn two_days_are_too_little_and_four_weeks_know_the_weekend() {
        assert!(taught(2, false).judge(at(50.0), &values(60.0)).is_none());
        let seasonal = taught(28, true);
        assert!(judged(&seasonal, 33.0 * 24.0 + 12.0, 60.0).outlier, "a Saturday");
        assert!(!judged(&seasonal, 33.0 * 24.0 + 12.0, 30.0).outlier);
        assert!(!judged(&seasonal, 30.0 * 24.0 + 12.0, 60.0).outlier, "a Wednesday");
    }

    #[test]
    fn gaps_are_missing_and_stored_rollups_go_on() {
        let mut seasonal = taught(7, false);
        seasonal.learn(at(9.0 * 24.0), &values(30.0));
        seasonal.learn(at(9.0 * 24.0 + 1.0), &values(30.0));
        assert!(seasonal.rollups().rows.iter().rev().take(100).filter(|row| row[4].is_nan()).count() > 90);
        assert!(seasonal.rollups().is_sound());
        let mut other = Seasonal::new(SeasonalEsdConfig::default());
        assert!(other.restore(seasonal.rollups().clone()));
        assert!(judged(&other, 10.0 * 24.0 + 2.0, 60.0).outlier);
        let hourly = SeasonalEsdConfig { rollup_s: 3600, ..SeasonalEsdConfig::default() };
        assert!(!Seasonal::new(hourly).restore(seasonal.rollups().clone()));
    }
}
