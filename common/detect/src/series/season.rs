//! What is usual at this hour: of the day from the second day on, of the week from the second week on.
//!
//! A profile of 24 hours and one of 168. An hour teaches once, with its mean, when it is over; between the
//! middles of two hours the expectation is interpolated where that fits better. Little data is not believed: an hour seen `n` times
//! counts `n / (n + 0.5)` against the level of the whole series (the shrinkage of James and Stein 1961). Profiles
//! are kept as 16-bit floats relative to a fixed origin. Time is UTC; a change to summer time is learned.

use serde::{Deserialize, Serialize};

const DAY: usize = 24;
const WEEK: usize = 168;
const HOUR_MS: i64 = 3_600_000;
/// Days and weeks that an hour's profile remembers.
const DAYS: f64 = 7.0;
const WEEKS: f64 = 3.0;
/// Days after which the hour of the week is judged.
const WEEK_FROM_DAYS: f64 = 8.0;
/// Deviations beyond which an hour teaches as if it were there.
const REACH: f64 = 4.0;

/// The upper half of an `f32`: eight bits of mantissa. NaN is "not known".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Half(u16);

impl Half {
    const UNKNOWN: Self = Self(0x7fc0);

    fn new(value: f64) -> Self {
        let bits = (value as f32).to_bits();
        Self((bits.saturating_add(0x8000) >> 16) as u16)
    }

    fn get(self) -> Option<f64> {
        let value = f32::from_bits(u32::from(self.0) << 16);
        value.is_finite().then_some(f64::from(value))
    }
}

/// What is expected now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Expected {
    /// The value.
    pub value: f64,
    /// Mean absolute deviation at this hour.
    pub spread: f64,
}

/// The seasonal profile of one series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Season {
    origin: f64,
    day: [Half; DAY],
    spread: [Half; DAY],
    /// Empty before the first hour is over.
    week: Vec<Half>,
    /// The hour under way since 1970, its values less the origin, and their distance from its profile.
    hour: i64,
    sum: f64,
    distance: f64,
    count: u32,
    first_ms: i64,
}

impl Season {
    pub fn new() -> Self {
        Self {
            origin: 0.0,
            day: [Half::UNKNOWN; DAY],
            spread: [Half::UNKNOWN; DAY],
            week: Vec::new(),
            hour: 0,
            sum: 0.0,
            distance: 0.0,
            count: 0,
            first_ms: i64::MAX,
        }
    }

    /// What is expected at a time. `level`, `spread`: of the whole series, for what is not known.
    /// A day may change smoothly or by the clock: of the interpolated expectation and the hour's own, the one nearer
    /// to `value` holds.
    pub fn expected(&self, at_ms: i64, tick_ms: i64, value: f64, level: f64, spread: f64) -> Expected {
        let days = self.days(at_ms);
        if days < 1.0 {
            return Expected { value: level, spread };
        }
        let hour = at_ms.div_euclid(HOUR_MS);
        let here = self.at_hour(hour, days, level, spread);
        if tick_ms * 2 > HOUR_MS {
            return here;
        }
        let part = at_ms.rem_euclid(HOUR_MS) as f64 / HOUR_MS as f64 - 0.5;
        let next = self.at_hour(if part < 0.0 { hour - 1 } else { hour + 1 }, days, level, spread);
        let mix = |a: f64, b: f64| a + (b - a) * part.abs();
        let between = mix(here.value, next.value);
        let own = (value - here.value).abs() < (value - between).abs();
        Expected { value: if own { here.value } else { between }, spread: mix(here.spread, next.spread) }
    }

    fn at_hour(&self, hour: i64, days: f64, level: f64, spread: f64) -> Expected {
        let of_day = hour.rem_euclid(DAY as i64) as usize;
        let shrink = |known: Option<f64>, times: f64, to: f64| {
            known.map_or(to, |known| to + (known - to) * times / (times + 0.5))
        };
        let times = days.floor().min(DAYS);
        let mut value = shrink(self.day[of_day].get().map(|v| v + self.origin), times, level);
        if days >= WEEK_FROM_DAYS {
            let of_week = self.week.get(hour.rem_euclid(WEEK as i64) as usize).and_then(|h| h.get());
            value = shrink(of_week.map(|v| v + self.origin), (days / 7.0).floor().min(WEEKS), value);
        }
        // A spread needs more data than a level.
        Expected { value, spread: shrink(self.spread[of_day].get(), times / 4.0, spread) }
    }

    /// Days since the first value.
    pub fn days(&self, at_ms: i64) -> f64 {
        at_ms.saturating_sub(self.first_ms).max(0) as f64 / (24 * HOUR_MS) as f64
    }

    /// Learns a value with a weight of 0 to 1. `spread`: of the whole series around its expectation.
    pub fn learn(&mut self, at_ms: i64, value: f64, spread: f64, weight: f64) {
        let hour = at_ms.div_euclid(HOUR_MS);
        if self.first_ms > at_ms {
            (self.first_ms, self.hour) = (at_ms, hour);
            if self.week.is_empty() {
                self.origin = value;
            }
        }
        if hour != self.hour {
            self.end_hour(spread, weight);
            self.hour = hour;
        }
        let offset = value - self.origin;
        let known = self.day[hour.rem_euclid(DAY as i64) as usize].get();
        self.sum += offset;
        self.distance += known.map_or(spread, |known| (offset - known).abs());
        self.count = self.count.saturating_add(1);
    }

    fn end_hour(&mut self, spread: f64, weight: f64) {
        if self.count == 0 {
            return;
        }
        let count = f64::from(self.count);
        let (mean, distance) = (self.sum / count, self.distance / count);
        (self.sum, self.distance, self.count) = (0.0, 0.0, 0);
        if self.week.is_empty() {
            self.week = vec![Half::UNKNOWN; WEEK];
        }
        let days = self.days(self.hour.saturating_mul(HOUR_MS)).floor() + 1.0;
        let teach = |slot: &mut Half, value: f64, times: f64, reach: f64| {
            let alpha = weight / times.max(2.0);
            *slot = Half::new(slot.get().map_or(value, |k| k + alpha * (value - k).clamp(-reach, reach)));
        };
        let reach = (REACH * spread).max(f64::MIN_POSITIVE);
        let of_day = self.hour.rem_euclid(DAY as i64) as usize;
        teach(&mut self.day[of_day], mean, days.min(DAYS), reach);
        teach(&mut self.spread[of_day], distance, days.min(DAYS), reach);
        if let Some(slot) = self.week.get_mut(self.hour.rem_euclid(WEEK as i64) as usize) {
            teach(slot, mean, (days / 7.0).ceil().min(WEEKS), reach);
        }
    }

    pub fn heap_bytes(&self) -> usize {
        self.week.capacity() * size_of::<Half>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: i64 = 300_000;

    /// 20 at night, 60 from 8 to 18 o'clock, on Sundays 20.
    fn usual(at_ms: i64) -> f64 {
        let hour = at_ms.div_euclid(HOUR_MS);
        let sunday = hour.rem_euclid(WEEK as i64) / 24 == 3;
        if (8..18).contains(&hour.rem_euclid(24)) && !sunday { 60.0 } else { 20.0 }
    }

    fn taught(days: i64) -> Season {
        let mut season = Season::new();
        (0..days * 288).for_each(|i| season.learn(i * TICK, usual(i * TICK), 2.0, 1.0));
        season
    }

    fn expected(season: &Season, day: i64, hour: i64) -> f64 {
        season.expected((day * 24 + hour) * HOUR_MS + HOUR_MS / 2, TICK, 40.0, 40.0, 2.0).value
    }

    #[test]
    fn the_first_day_is_blind_and_the_second_is_not() {
        assert_eq!(expected(&taught(1), 0, 12), 40.0);
        let second = taught(2);
        assert!(expected(&second, 2, 12) > 50.0 && expected(&second, 2, 3) < 30.0);
    }

    #[test]
    fn a_weekday_that_differs_is_known_in_the_third_week() {
        let third = taught(21);
        assert!(expected(&third, 24, 12) < 35.0, "the fourth Sunday: {}", expected(&third, 24, 12));
        assert!(expected(&third, 25, 12) > 50.0, "the day after: {}", expected(&third, 25, 12));
    }

    #[test]
    fn sixteen_bits_keep_two_digits() {
        for value in [0.0, 1.0, -123.4, 1e-9, 3.2e30] {
            let kept = Half::new(value).get().unwrap();
            assert!((kept - value).abs() <= 0.005 * value.abs(), "{value} {kept}");
        }
        assert_eq!((Half::UNKNOWN.get(), Half::new(f64::NAN).get()), (None, None));
    }
}
