//! Mergeable summaries of one metric of one guest.
//!
//! Three parts, all bounded: the moments and the quantile sketch of this calendar week (of the epoch) and the one before,
//! and the means of the last 336 hours (two weeks), from which come the slope and the hour-of-day and
//! hour-of-week bins. So a profile tells of the last one to two weeks, not of a life long past.

use std::collections::VecDeque;

use evenkeel_common::guest::UsageSummary;
use evenkeel_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::sketch::Sketch;
use super::statistics::Line;

const HOUR_S: i64 = 3600;
const WEEK_S: i64 = 7 * 24 * HOUR_S;
/// Hours kept: two weeks.
const HOURS: i64 = 336;
/// Largest value taken; far beyond any core or byte there is, and its square is still a number.
pub(crate) const LARGEST: f64 = 1e30;
/// Hours needed for a slope.
const SLOPE_HOURS: usize = 6;

/// Count, extremes, mean and variance of values, without keeping them (Welford 1962; merged by Chan, Golub and
/// LeVeque 1979).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Number of values.
    pub count: u64,
    /// Lowest; 0 when there are none.
    pub min: f64,
    /// Highest; 0 when there are none.
    pub max: f64,
    /// Mean; 0 when there are none.
    pub mean: f64,
    /// Sum of squared distances from the mean.
    pub m2: f64,
}

impl Moments {
    /// Adds a finite value.
    pub fn add(&mut self, value: f64) {
        self.merge(&Self { count: 1, min: value, max: value, mean: value, m2: 0.0 });
    }

    /// Adds what the other has seen.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        let (here, there) = (self.count as f64, other.count as f64);
        let distance = other.mean - self.mean;
        self.count = self.count.saturating_add(other.count);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.mean += distance * (there / (here + there));
        self.m2 += other.m2 + distance * distance * (here * there / (here + there));
    }

    /// Whether it is one that values of at least 0 could have made.
    fn is_sound(&self) -> bool {
        let Self { count, min, max, mean, m2 } = *self;
        let ordered = 0.0 <= min && min <= max && max <= LARGEST;
        // The mean may leave the extremes by what adding up rounds off.
        let slack = 1e-6 * max;
        ordered
            && (min - slack..=max + slack).contains(&mean)
            && (0.0..=f64::MAX).contains(&m2)
            && (count > 0 || max == 0.0)
    }

    /// Standard deviation of the values; 0 when there are none.
    #[must_use]
    pub fn std_dev(&self) -> f64 {
        (self.m2 / self.count.max(1) as f64).sqrt()
    }
}

/// Mean of one hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HourMean {
    /// Mean of the samples.
    pub mean: f32,
    /// Number of samples; stays at 65 535, which gives a one-second sampler eighteen times the room it needs.
    pub count: u16,
}

/// Means of the last two weeks' hours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hours {
    /// Number of the first hour kept, counted from 1970-01-01 00:00 UTC.
    first: i64,
    means: VecDeque<HourMean>,
}

impl Hours {
    /// The hours that have data, oldest first: number since 1970-01-01 00:00 UTC, and mean.
    pub fn iter(&self) -> impl Iterator<Item = (i64, HourMean)> + '_ {
        self.means.iter().enumerate().map(|(i, &m)| (self.first + i as i64, m)).filter(|(_, m)| m.count > 0)
    }

    /// Mean by hour of the day (UTC), 24 values; `None` where there is no data.
    #[must_use]
    pub fn by_hour_of_day(&self) -> Vec<Option<f64>> {
        self.bins(24, 0)
    }

    /// Mean by hour of the week (UTC, from Monday 00:00), 168 values; `None` where there is no data.
    #[must_use]
    pub fn by_hour_of_week(&self) -> Vec<Option<f64>> {
        // 1970-01-01 was a Thursday.
        self.bins(168, 3 * 24)
    }

    fn bins(&self, count: usize, offset: i64) -> Vec<Option<f64>> {
        let mut bins = vec![Moments::default(); count];
        for (hour, mean) in self.iter() {
            bins[(hour + offset).rem_euclid(count as i64) as usize].add(mean.mean.into());
        }
        bins.into_iter().map(|b| (b.count > 0).then_some(b.mean)).collect()
    }

    /// Whether it is one that could have come about until `hour`.
    fn is_sound(&self, hour: i64) -> bool {
        (0..=hour).contains(&self.first)
            && self.means.len() as i64 <= HOURS
            && (self.means.is_empty() || self.newest() <= hour)
            && self.means.iter().all(|m| (0.0..=LARGEST as f32).contains(&m.mean))
    }

    fn newest(&self) -> i64 {
        self.first + self.means.len() as i64 - 1
    }

    fn add(&mut self, hour: i64, added: HourMean) {
        if added.count == 0 {
            return;
        }
        if self.means.is_empty() || hour - self.newest() >= HOURS {
            self.means.clear();
            self.first = hour;
        }
        if hour <= self.newest() - HOURS {
            return;
        }
        while hour < self.first {
            self.means.push_front(HourMean::default());
            self.first -= 1;
        }
        while hour > self.newest() {
            self.means.push_back(HourMean::default());
        }
        while self.means.len() as i64 > HOURS {
            self.means.pop_front();
            self.first += 1;
        }
        if let Some(slot) = self.means.get_mut((hour - self.first) as usize) {
            let (here, there) = (f64::from(slot.count), f64::from(added.count));
            let mean = f64::from(slot.mean);
            slot.mean = (mean + (f64::from(added.mean) - mean) * there / (here + there)) as f32;
            slot.count = slot.count.saturating_add(added.count);
        }
    }
}

/// A summary of one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Smallest value that matters, the same in all summaries that are merged.
    unit: f64,
    /// Number of the newest week, and its figures and those of the one before.
    week: i64,
    current: Week,
    previous: Week,
    hours: Hours,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Week {
    moments: Moments,
    sketch: Sketch,
}

impl Week {
    fn merge(&mut self, other: &Self) {
        self.moments.merge(&other.moments);
        self.sketch.merge(&other.sketch);
    }
}

impl Summary {
    /// Of a metric in which nothing below `unit` matters.
    #[must_use]
    pub fn new(unit: f64) -> Self {
        Self {
            unit,
            week: i64::MIN,
            current: Week::default(),
            previous: Week::default(),
            hours: Hours::default(),
        }
    }

    /// Adds a finite sample. A clock that was weeks ahead and was set right costs the history, not the future.
    pub fn observe(&mut self, at: Timestamp, value: f64) {
        self.observe_many(at, value, 1);
    }

    /// Adds a value that held for some seconds from `at` on, as if it had been sampled every second.
    pub(crate) fn observe_span(&mut self, at: Timestamp, seconds: u32, value: f64) {
        let (mut from, end) = (at.as_secs(), at.as_secs().saturating_add(seconds.into()));
        while from < end {
            let until = end.min((from.div_euclid(HOUR_S) + 1) * HOUR_S);
            self.observe_many(
                Timestamp::from_millis(from.saturating_mul(1000)),
                value,
                (until - from) as u16,
            );
            from = until;
        }
    }

    fn observe_many(&mut self, at: Timestamp, value: f64, count: u16) {
        let (hour, week) = (at.as_secs().div_euclid(HOUR_S), at.as_secs().div_euclid(WEEK_S));
        if week < self.week.saturating_sub(1) {
            *self = Self::new(self.unit);
        }
        let unit = self.unit;
        if let Some(figures) = self.figures(week) {
            let (min, max, mean) = (value, value, value);
            figures.moments.merge(&Moments { count: count.into(), min, max, mean, m2: 0.0 });
            figures.sketch.add_many(value, unit, count.into());
        }
        self.hours.add(hour, HourMean { mean: value as f32, count });
    }

    /// Whether it is one of this unit that could have come about until `at`.
    pub(crate) fn is_sound(&self, unit: f64, at: Timestamp) -> bool {
        let weeks = [&self.current, &self.previous];
        let empty = self.week == i64::MIN && weeks.iter().all(|w| w.moments.count == 0);
        self.unit == unit
            && (empty || (0..=at.as_secs().div_euclid(WEEK_S)).contains(&self.week))
            && weeks.iter().all(|week| week.moments.is_sound() && week.sketch.is_sound())
            && self.hours.is_sound(at.as_secs().div_euclid(HOUR_S))
    }

    /// Adds what the other has seen of the same guest at other times.
    pub fn merge(&mut self, other: &Self) {
        for (week, figures) in [(other.week.saturating_sub(1), &other.previous), (other.week, &other.current)]
        {
            if figures.moments.count > 0
                && let Some(mine) = self.figures(week)
            {
                mine.merge(figures);
            }
        }
        for (hour, mean) in other.hours.iter() {
            self.hours.add(hour, mean);
        }
    }

    /// The hourly means.
    #[must_use]
    pub fn hours(&self) -> &Hours {
        &self.hours
    }

    /// The figures that decisions and people use. The slope is that of a line through the hourly means.
    #[must_use]
    pub fn usage(&self) -> UsageSummary {
        let mut both = self.previous.clone();
        both.merge(&self.current);
        let points: Vec<(f64, f64)> = self.hours.iter().map(|(h, m)| (h as f64, m.mean.into())).collect();
        let slope = if points.len() < SLOPE_HOURS { None } else { Line::fit(&points).map(|line| line.slope) };
        UsageSummary {
            min: both.moments.min,
            max: both.moments.max,
            mean: both.moments.mean,
            std_dev: both.moments.std_dev(),
            p95: both.sketch.quantile(0.95, self.unit).min(both.moments.max),
            slope_per_hour: slope.unwrap_or(0.0),
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.current.sketch.heap_bytes()
            + self.previous.sketch.heap_bytes()
            + self.hours.means.capacity() * size_of::<HourMean>()
    }

    /// The figures of a week, moving on to it when it is newer; `None` when it is too old.
    fn figures(&mut self, week: i64) -> Option<&mut Week> {
        if week > self.week {
            let newest = std::mem::take(&mut self.current);
            self.previous = if week == self.week.saturating_add(1) { newest } else { Week::default() };
            self.week = week;
        }
        match self.week.saturating_sub(week) {
            0 => Some(&mut self.current),
            1 => Some(&mut self.previous),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: f64) -> Timestamp {
        Timestamp::from_millis((hours * 3_600_000.0) as i64)
    }

    #[test]
    fn moments_are_those_of_the_values() {
        let mut moments = Moments::default();
        [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0].into_iter().for_each(|v| moments.add(v));
        assert!((moments.mean - 5.0).abs() < 1e-12 && (moments.std_dev() - 2.0).abs() < 1e-12);
        assert_eq!((moments.min, moments.max), (2.0, 9.0));
    }

    #[test]
    fn the_slope_is_that_of_the_hours() {
        let mut summary = Summary::new(0.001);
        for minute in 0..(60 * 24) {
            summary.observe(at(f64::from(minute) / 60.0), 1.0 + 0.01 * f64::from(minute) / 60.0);
        }
        assert!((summary.usage().slope_per_hour - 0.01).abs() < 1e-5);
    }

    #[test]
    fn the_past_fades_after_two_weeks_and_memory_stays_bounded() {
        let mut summary = Summary::new(0.001);
        for hour in 0..(24 * 60) {
            summary.observe(at(f64::from(hour)), if hour < 24 * 30 { 8.0 } else { 1.0 });
        }
        let usage = summary.usage();
        assert!((usage.max - 1.0).abs() < 1e-9 && (usage.p95 - 1.0).abs() < 0.06, "{usage:?}");
        assert_eq!(summary.hours.means.len() as i64, HOURS);
        assert!(summary.heap_bytes() < 8192);
    }

    #[test]
    fn a_clock_far_ahead_does_not_lock_the_profile() {
        let mut summary = Summary::new(0.001);
        summary.observe(at(1e6), 5.0);
        (0..100).for_each(|hour| summary.observe(at(f64::from(hour)), 1.0));
        assert!((summary.usage().max - 1.0).abs() < 1e-9);
        assert_eq!(summary.hours.iter().count(), 100);
    }

    #[test]
    fn bins_follow_the_calendar() {
        let mut summary = Summary::new(0.001);
        // 2026-11-16 was a Monday; 05:00 UTC.
        let monday = 1_794_787_200 / 3600;
        summary.observe(Timestamp::from_millis((monday + 5) * 3_600_000), 3.0);
        assert_eq!(summary.hours().by_hour_of_day()[5], Some(3.0));
        assert_eq!(summary.hours().by_hour_of_week()[5], Some(3.0));
        assert_eq!(summary.hours().by_hour_of_week().iter().flatten().count(), 1);
    }
}
