//! One channel: what is usual for it, and how far a value is from that on three time scales.
//!
//! | deviation | from what | sees |
//! |---|---|---|
//! | `change` | its own last dozen steps, after the hour of the day | bursts, jumps, unrest; immune to drift |
//! | `level` | its long-term level at this hour of the day | what lasts |
//! | `leap` | its last twenty minutes, in its own unit ([`super::leap`]) | incidents |
//!
//! Levels and spreads of the first two are exponentially weighted and winsorised (Huber 1964): a value teaches at most what one at
//! a few spreads would. All are in spreads, capped, so that no single channel outshouts the rest.

use serde::{Deserialize, Serialize};

use super::domain::Domain;
use super::leap::{Leap, Stride};
use super::season::{Hour, Season};

/// Largest deviation that counts.
pub(super) const CAP: f32 = 15.0;
/// What the first move of a channel that has never moved counts.
const NEWS: f32 = 6.0;
/// Steps that `change` looks back on.
const SHORT: f32 = 12.0;
/// Spreads beyond which a value teaches the level no more.
const TEACH_LEVEL: f32 = 3.0;
/// Spreads beyond which a value teaches the spread no more: bursts belong to it, accidents do not.
const TEACH_SPREAD: f32 = 15.0;
/// What a step leaves of the heat of the one before.
const COOLING: f32 = 0.5;
/// Steps until the above bounds hold: what is known before is no measure.
const BOUNDED_FROM: u32 = 64;

/// How far a value is from what is usual, in spreads, within +-[`CAP`], and a leap within its own cap.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Deviation {
    pub(super) change: f32,
    pub(super) level: f32,
    pub(super) leap: f32,
}

/// What all channels of a step share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Where in the day.
    pub(super) hour: Hour,
    /// Steps in a day.
    pub(super) day: u32,
    /// Steps that all count alike, and over which the past fades once there are as many.
    pub(super) settled: f32,
    pub(super) memory: f32,
    /// Factor on the speed of learning, 0..1, and the least speed, 0..1.
    pub(super) speed: f32,
    pub(super) least: f32,
    /// Steps before a channel is judged.
    pub(super) warm_up: u32,
    pub(super) stride: Stride,
}

impl Pace {
    /// Weight of the newest of `seen` steps among all that are known.
    pub(super) fn share(&self, seen: u32) -> f32 {
        (self.speed * self.calm_share(seen)).max(self.least)
    }

    /// The same at full speed: learn quickly what is new, change slowly what is settled.
    pub(super) fn calm_share(&self, seen: u32) -> f32 {
        let seen = seen.max(1) as f32;
        if seen < self.settled { 1.0 / seen } else { 1.0 / self.memory.max(1.0) }
    }
}

/// State of a channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Channel {
    domain: Domain,
    season: Season,
    leap: Leap,
    seen: u32,
    /// Average of the last dozen steps, after the season.
    short: f32,
    /// Long-term averages with and without the season.
    level: f32,
    middle: f32,
    /// Variances of the two deviations.
    change_variance: f32,
    level_variance: f32,
    /// Mean distance from the season's prediction and from the plain level: what the season is good for.
    season_miss: f32,
    plain_miss: f32,
    /// The largest deviation of late, signed, fading: what the causes are ranked by.
    pub(super) heat: f32,
}

impl Channel {
    pub(super) fn new() -> Self {
        Self {
            domain: Domain::new(),
            season: Season::new(),
            leap: Leap::new(),
            seen: 0,
            short: 0.0,
            level: 0.0,
            middle: 0.0,
            change_variance: 0.0,
            level_variance: 0.0,
            season_miss: 0.0,
            plain_miss: 0.0,
            heat: 0.0,
        }
    }

    /// Judges a value by what was known before it, then learns it. None: absent, or not known long enough.
    pub(super) fn observe(&mut self, value: f64, pace: &Pace) -> Option<Deviation> {
        if !value.is_finite() {
            self.miss(1);
            self.heat *= COOLING;
            return None;
        }
        let leap = self.leap.observe(value, &pace.stride).unwrap_or(0.0);
        let (entered, changed) = self.domain.enter(value, pace.day);
        let value = entered?;
        if changed {
            *self = Self { domain: self.domain.clone(), leap: self.leap.clone(), ..Self::new() };
        }
        if self.seen == 0 {
            (self.short, self.level, self.middle) = (value, value, value);
        }
        let usual = self.season.usual(pace.hour);
        let season = usual.unwrap_or(0.0) * self.gain();
        let plain = value - season;
        let (change, level) = (plain - self.short, plain - self.level);
        let deviation = Deviation {
            change: in_spreads(change, &mut self.change_variance, self.seen),
            level: in_spreads(level, &mut self.level_variance, self.seen),
            leap,
        };
        self.learn(value, usual, change, level, pace);
        self.heat *= COOLING;
        for seen in [deviation.change, deviation.level, deviation.leap] {
            if seen.abs() > self.heat.abs() {
                self.heat = seen;
            }
        }
        (self.seen > pace.warm_up).then_some(deviation)
    }

    /// So many steps passed without a value.
    pub(super) fn miss(&mut self, steps: u32) {
        self.leap.miss(steps);
    }

    /// How much of the season is believed: nothing unless it predicts better than the plain level does.
    fn gain(&self) -> f32 {
        if self.plain_miss <= 0.0 {
            return 0.0;
        }
        ((0.95 - self.season_miss / self.plain_miss) / 0.3).clamp(0.0, 1.0)
    }

    fn learn(&mut self, value: f32, usual: Option<f32>, change: f32, level: f32, pace: &Pace) {
        self.seen = self.seen.saturating_add(1);
        let alpha = pace.share(self.seen);
        let bounded = self.seen > BOUNDED_FROM;
        let limit = |offset: f32, variance: f32, spreads: f32| {
            let reach = if bounded { spreads * variance.sqrt() } else { f32::MAX };
            // Not `clamp`, which panics on a damaged state.
            offset.max(-reach).min(reach)
        };
        // The short-term level follows in any case: it is what makes `change` immune to drift.
        self.short += change / SHORT;
        if let Some(usual) = usual {
            let miss = (value - usual - self.level).abs();
            self.season_miss += alpha * (miss - self.season_miss);
            self.plain_miss += alpha * ((value - self.middle).abs() - self.plain_miss);
        }
        self.season.learn(pace.hour, value, self.level_variance.sqrt());
        self.level += alpha * limit(level, self.level_variance, TEACH_LEVEL);
        self.middle += alpha * limit(value - self.middle, self.level_variance, 2.0 * TEACH_LEVEL);
        for (variance, offset) in [(&mut self.change_variance, change), (&mut self.level_variance, level)] {
            let offset = limit(offset, *variance, TEACH_SPREAD);
            *variance += alpha * (offset * offset - *variance);
        }
    }

    /// Bytes, with the heap.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.season.heap_bytes() + self.leap.heap_bytes()
    }
}

/// An offset in spreads. A channel that has never moved gets a spread by its first move, which is news, not
/// infinity.
fn in_spreads(offset: f32, variance: &mut f32, seen: u32) -> f32 {
    const STILL: f32 = 1e-12;
    if *variance < STILL {
        if offset * offset < STILL || seen < 2 {
            return 0.0;
        }
        *variance = (offset / NEWS) * (offset / NEWS);
    }
    (offset / variance.sqrt()).clamp(-CAP, CAP)
}
