//! How far a channel is from where it was in the last twenty minutes, in its own unit and by difference.
//!
//! The distance is measured by what one step in a hundred reaches, over ten days, and by a part of the deviation for
//! channels that seldom move. Nothing is compressed before a high cap: that a channel is thirty times as far as
//! usual, and eight of them at once, is what tells an incident from a busy minute.

use serde::{Deserialize, Serialize};

use super::histogram::LogHistogram;

/// Largest leap that counts; also what a channel counts that has never moved and does.
pub(super) const CAP: f32 = 40.0;
/// Seconds over which the recent level follows.
const RECENT_S: f64 = 22.0 * 60.0;
/// Days over which the distances fade.
const MEMORY_DAYS: f32 = 10.0;
/// A normal deviation reaches its percentile at this many sigma.
const BEYOND: f32 = 0.01;
const PERCENTILE_SIGMA: f32 = 2.6;
/// Share of the root mean square that a sigma is at least.
const LEAST_SIGMA: f32 = 0.3;
/// Steps between two looks at the percentile, at the least.
const LEAST_LOOK: u32 = 20;
/// Steps before a distance is judged.
const WARM_UP: u32 = 100;
/// Differences smaller than this part of the level are what rounding leaves.
const ROUNDING: f64 = 1e-9;
/// Largest distance in units that is told apart at once: its square has to fit into 32 bits.
const FURTHEST: f64 = 1e15;

/// What all channels of a node share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stride {
    /// Steps of a day.
    day: f32,
    /// Steps without a value after which the recent level is another one.
    long_gap: u32,
    /// Share of the newest value in the recent level.
    follow: f64,
}

impl Stride {
    pub(super) fn of(step_s: f64) -> Self {
        let follow = 1.0 - (-step_s / RECENT_S).exp();
        Self { day: (86_400.0 / step_s) as f32, long_gap: (RECENT_S / step_s).ceil() as u32, follow }
    }
}

/// State of a channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Leap {
    seen: u32,
    /// Steps without a value since the last one.
    missed: u32,
    recent: f64,
    /// The first distance; the others are counted in it.
    unit: f64,
    /// Mean square of the distances, and a sigma of them, in units.
    square: f32,
    sigma: f32,
    distances: LogHistogram,
}

impl Leap {
    pub(super) fn new() -> Self {
        let distances = LogHistogram::wide();
        Self { seen: 0, missed: 0, recent: 0.0, unit: 0.0, square: 0.0, sigma: 0.0, distances }
    }

    /// The signed distance of a finite value in sigma, within +-[`CAP`], then learns it. None while too
    /// little is known.
    pub(super) fn observe(&mut self, value: f64, stride: &Stride) -> Option<f32> {
        let value = value.clamp(-1e150, 1e150);
        // A level of before a long gap is not recent, and what changed meanwhile is no leap.
        if self.seen == 0 || std::mem::take(&mut self.missed) >= stride.long_gap {
            self.recent = value;
        }
        let offset = value - self.recent;
        let offset = if offset.abs() <= ROUNDING * self.recent.abs() { 0.0 } else { offset };
        self.seen = self.seen.saturating_add(1);
        self.recent += offset * stride.follow.max(1.0 / (f64::from(self.seen) + 1.0));
        if self.unit == 0.0 {
            self.unit = offset.abs();
        }
        let distance = if self.unit > 0.0 { (offset.abs() / self.unit).min(FURTHEST) as f32 } else { 0.0 };
        let leap = match distance / self.sigma {
            _ if distance == 0.0 => 0.0,
            // Of the first move there is no sigma yet, so it is infinite.
            leap => leap.min(CAP),
        };
        self.learn(distance, stride.day);
        (self.seen > WARM_UP).then_some(leap.copysign(offset as f32))
    }

    /// So many steps passed without a value.
    pub(super) fn miss(&mut self, steps: u32) {
        self.missed = self.missed.saturating_add(steps);
    }

    fn learn(&mut self, mut distance: f32, day: f32) {
        while self.distances.too_small_for(distance) {
            let factor = self.distances.raise();
            self.unit *= f64::from(factor);
            self.square /= factor * factor;
            self.sigma /= factor;
            distance /= factor;
        }
        let share = 1.0 / (self.seen as f32).min(MEMORY_DAYS * day).max(1.0);
        self.square += share * (distance * distance - self.square);
        self.distances.learn(distance, share);
        if self.seen.is_multiple_of(LEAST_LOOK.max((day / 24.0) as u32)) {
            let percentile = self.distances.quantile(BEYOND).unwrap_or(0.0);
            self.sigma = (percentile / PERCENTILE_SIGMA).max(LEAST_SIGMA * self.square.sqrt());
        }
    }

    /// Bytes of the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.distances.heap_bytes()
    }
}

/// Most channels of a step that are counted.
const FOREMOST: usize = 8;

/// The largest leaps of one step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Foremost {
    largest: [f32; FOREMOST],
    counted: usize,
    lowest: usize,
}

impl Foremost {
    /// Of so many channels: eight of them, half of a narrow table.
    pub(super) fn of(channels: usize) -> Self {
        let counted = channels.div_ceil(2).clamp(1, FOREMOST);
        Self { largest: [0.0; FOREMOST], counted, lowest: 0 }
    }

    pub(super) fn add(&mut self, leap: f32) {
        let leap = leap.abs();
        if leap > self.largest[self.lowest] {
            self.largest[self.lowest] = leap;
            let counted = &self.largest[..self.counted];
            self.lowest = (0..counted.len()).min_by(|&a, &b| counted[a].total_cmp(&counted[b])).unwrap_or(0);
        }
    }

    /// Their mean.
    pub(super) fn mean(&self) -> f32 {
        self.largest.iter().sum::<f32>() / self.counted as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP_S: f64 = 60.0;

    fn noise(step: u32) -> f64 {
        f64::from(step.wrapping_mul(2_654_435_761) >> 16) / 65_536.0
    }

    fn leaps(steps: u32, value: impl Fn(u32) -> f64) -> Vec<f32> {
        let mut leap = Leap::new();
        (0..steps).filter_map(|step| leap.observe(value(step), &Stride::of(STEP_S))).collect()
    }

    #[test]
    fn noise_is_small_in_any_unit_and_a_leap_is_large() {
        for unit in [1e-12, 1.0, 1e15] {
            let value = |step| unit * (noise(step) + if step == 3000 { 20.0 } else { 0.0 });
            let all = leaps(3001, value);
            let (last, usual) = all.split_last().unwrap();
            assert!(usual.iter().all(|leap| leap.abs() < 4.0) && *last > 30.0, "{unit} {last}");
        }
    }

    #[test]
    fn a_slow_drift_is_no_leap_and_a_unit_that_was_too_small_grows() {
        assert!(leaps(5000, |step| f64::from(step) * 0.01 + noise(step)).iter().all(|leap| leap.abs() < 4.0));
        // The first distance is a trifle beside all that come.
        let all = leaps(5000, |step| if step < 3 { f64::from(step) * 1e-9 } else { 1e9 * noise(step) });
        assert!(all[1000..].iter().all(|leap| leap.abs() < 4.0));
    }

    #[test]
    fn what_never_moved_is_news_and_rounding_is_no_move() {
        let all = leaps(500, |step| if step == 499 { 1.0 } else { 0.1 + f64::from(step % 2) * 1e-17 });
        assert!(all[..all.len() - 1].iter().all(|leap| *leap == 0.0));
        assert_eq!(all.last(), Some(&CAP));
    }

    #[test]
    fn what_changed_in_a_gap_is_no_leap() {
        for (missed, leapt) in [(5, true), (60, false)] {
            let mut leap = Leap::new();
            (0..3000).for_each(|step| {
                leap.observe(noise(step), &Stride::of(STEP_S));
            });
            leap.miss(missed);
            assert_eq!(leap.observe(20.0, &Stride::of(STEP_S)).unwrap() > 10.0, leapt);
        }
    }

    #[test]
    fn nothing_is_too_large_or_too_small() {
        for (small, large) in [(1e-300, 1e150), (f64::MIN_POSITIVE, f64::MAX), (-1e-20, -1e300)] {
            let all = leaps(
                2000,
                |step| if step < 150 { small * f64::from(step % 2) } else { large * noise(step) },
            );
            assert!(all.iter().all(|leap| leap.is_finite()));
            assert!(all[1000..].iter().all(|leap| leap.abs() < 4.0), "{small} {large}");
        }
    }

    #[test]
    fn the_foremost_are_the_largest() {
        let mut few = Foremost::of(3);
        [1.0, -5.0, 3.0].into_iter().for_each(|leap| few.add(leap));
        assert_eq!(few.mean(), 4.0);
        let mut many = Foremost::of(100);
        (0..100).for_each(|leap| many.add(leap as f32));
        assert_eq!(many.mean(), (92..100).sum::<i32>() as f32 / 8.0);
    }
}
