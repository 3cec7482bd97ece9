//! One series at a steady step, with no knowledge of its metric.
//!
//! [`crate::watch`] knows what a metric's differences mean to an admin and answers within seconds. This detector
//! knows nothing but the series, looks at minutes to days, and says how surprising it is, one peak an event:
//!
//! | stage | what it does | file |
//! |---|---|---|
//! | tick | samples faster than five minutes are averaged | here |
//! | baselines | winsorised EWMA level and spread over 100 and 1000 ticks and the whole past | `baseline.rs` |
//! | season | what is usual at this hour of the day, of the week | `season.rs` |
//! | parts | each measures one kind of strangeness: | |
//! | | distance from the season, and the same smoothed | `season.rs` |
//! | | level of hours against level of a day | `level.rs` |
//! | | last values against all, and beyond the outer percentiles | `distribution.rs` |
//! | | how often it jumps | `jumps.rs` |
//! | | shapes never seen | `shape.rs` |
//! | | a standstill | `frozen.rs` |
//! | | cumulated deviations, rolling z-score (off by default) | `cusum.rs`, `baseline.rs` |
//! | tail | each part's statistic becomes a surprise by the tail of its own past | `tail.rs` |
//! | fusion | the parts' surprises become one: their third-power mean | here |
//! | gate | hysteresis, hold-off, a bar that rises with past alarms: one event, one peak | `gate.rs` |
//! | slope | where a leak leads to; no say in the score | `slope.rs` |
//!
//! Which parts earn their place, and how good the whole is on labelled data: `packaging/doc/detection-univariate.md`.
//!
//! Warm-up: nothing in the first 50 ticks. Flat series: every scale has a floor relative to the series' own
//! spread and level. Gap of more than 24 ticks: the past stays, but the next value is no neighbour of the last.
//! What is no number is missing, and so is a counter's reset: its reader sends NaN.

mod baseline;
mod config;
mod cusum;
mod distribution;
mod frozen;
mod gate;
mod jumps;
mod level;
mod season;
mod shape;
mod slope;
mod tail;

use std::time::Duration;

use evenkeel_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::calibrate::confidence;
use baseline::Baseline;
use cusum::Cusum;
use distribution::Distribution;
use frozen::Frozen;
use gate::Gate;
use jumps::Jumps;
use level::Level;
use season::{Expected, Season};
use shape::Shape;
use slope::Slope;
use tail::Tail;

pub use config::{PartsConfig, SeriesConfig};

/// Score from which a tick is an anomaly.
pub const THRESHOLD: f64 = 0.5;

/// Ticks before anything is said.
const WARM_UP: u32 = 50;
/// Gap, in ticks, from which the next value is no neighbour of the last.
const GAP_TICKS: i64 = 24;
/// Largest value that is taken as it is; larger ones are taken for this.
const LARGEST: f64 = 1e30;
/// Alarms a day at the threshold, to put surprise on the common scale of confidence.
const PER_DAY: f64 = 0.1;
/// Score of a tick that belongs to an event already told, as a share of what it would have been.
const DAMPED: f64 = 0.1;

/// The part that saw most of an anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// Far from what is usual at this hour.
    Season,
    /// Somewhat off for long.
    Drift,
    /// A level that changed.
    Level,
    /// Values mixed as never before.
    Distribution,
    /// A value beyond all that was reached.
    Percentile,
    /// A burst of jumps.
    Jumps,
    /// A shape never seen.
    Shape,
    /// A standstill.
    Frozen,
    /// Far from the last 100 ticks.
    ZScore,
    /// Deviations that added up.
    Cusum,
}

/// All parts, in the order of their tails.
const PARTS: [Part; 10] = [
    Part::Season,
    Part::Drift,
    Part::Level,
    Part::Distribution,
    Part::Percentile,
    Part::Jumps,
    Part::Shape,
    Part::Frozen,
    Part::ZScore,
    Part::Cusum,
];

impl PartsConfig {
    fn has(&self, part: Part) -> bool {
        match part {
            Part::Season => self.season,
            Part::Drift => self.drift,
            Part::Level => self.level,
            Part::Distribution => self.distribution,
            Part::Percentile => self.percentile,
            Part::Jumps => self.jumps,
            Part::Shape => self.shape,
            Part::Frozen => self.frozen,
            Part::ZScore => self.zscore,
            Part::Cusum => self.cusum,
        }
    }
}

/// What a tick looks like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeriesScore {
    /// 0 to 1: peaks where an event begins, damped while one is told already. Comparable across series.
    pub score: f64,
    /// Whether the score reaches [`THRESHOLD`].
    pub is_anomaly: bool,
    /// What was expected, in the unit of the series.
    pub expected: f64,
    /// Distance from it in standard deviations, signed.
    pub deviation: f64,
    /// The part that saw most of it.
    pub lead: Part,
}

/// The detector of one series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesDetector {
    config: SeriesConfig,
    step_ms: i64,
    tick_ms: i64,
    /// The tick under way: its begin, the sum and number of its values.
    begun_ms: i64,
    sum: f64,
    count: u32,
    last_ms: i64,
    last: f64,
    ticks: u32,
    all: Baseline,
    long: Baseline,
    short: Baseline,
    /// Mean distance from what is usual at the hour.
    spread: f64,
    smooth: f64,
    season: Season,
    level: Level,
    distribution: Distribution,
    jumps: Jumps,
    shape: Shape,
    frozen: Frozen,
    cusum: Cusum,
    slope: Slope,
    tails: Vec<Tail>,
    gate: Gate,
}

impl SeriesDetector {
    /// Knows nothing yet. `step`: the steady distance of samples, 1 s to 1 day.
    #[must_use]
    pub fn new(step: Duration, config: SeriesConfig) -> Self {
        let step_ms = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).clamp(1, 86_400_000);
        let tick_ms = step_ms * ((i64::from(config.tick_s) * 1000 + step_ms - 1) / step_ms).max(1);
        Self {
            config,
            step_ms,
            tick_ms,
            begun_ms: 0,
            sum: 0.0,
            count: 0,
            last_ms: i64::MIN,
            last: 0.0,
            ticks: 0,
            all: Baseline::default(),
            long: Baseline::default(),
            short: Baseline::default(),
            spread: 0.0,
            smooth: 0.0,
            season: Season::new(),
            level: Level::default(),
            distribution: Distribution::default(),
            jumps: Jumps::default(),
            shape: Shape::default(),
            frozen: Frozen::default(),
            cusum: Cusum::default(),
            slope: Slope::new(tick_ms as f64 / 1000.0),
            tails: vec![Tail::default(); PARTS.iter().filter(|&&p| config.parts.has(p)).count()],
            gate: Gate::default(),
        }
    }

    /// Judges a sample and learns it. `None` during warm-up, for what is no number, and while a tick is under way.
    pub fn observe(&mut self, at: Timestamp, value: f64) -> Option<SeriesScore> {
        if !value.is_finite() {
            return None;
        }
        let (at, value) = (at.as_millis(), value.clamp(-LARGEST, LARGEST));
        if self.count > 0 && !(0..2 * self.tick_ms).contains(&at.saturating_sub(self.begun_ms)) {
            (self.sum, self.count) = (0.0, 0);
        }
        if self.count == 0 {
            self.begun_ms = at;
        }
        self.sum += value;
        self.count += 1;
        if at.saturating_sub(self.begun_ms) < self.tick_ms - self.step_ms {
            return None;
        }
        let mean = self.sum / f64::from(self.count);
        (self.sum, self.count) = (0.0, 0);
        self.tick(at, mean)
    }

    /// How long until the series reaches `limit` when it goes on like in the last half day; `None` when it does
    /// not lead there, or not steadily.
    #[must_use]
    pub fn time_to(&self, limit: f64) -> Option<Duration> {
        let line = self.slope.line()?;
        let ticks = (limit - line.now) / line.per_tick;
        let seconds = ticks * self.tick_ms as f64 / 1000.0;
        (seconds.is_finite() && (0.0..1e12).contains(&seconds)).then(|| Duration::from_secs_f64(seconds))
    }

    /// Bytes of state, on the heap as well.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.season.heap_bytes()
            + self.shape.heap_bytes()
            + self.tails.capacity() * size_of::<Tail>()
    }

    fn tick(&mut self, at: i64, value: f64) -> Option<SeriesScore> {
        let gap = self.last_ms.checked_add(self.tick_ms.saturating_mul(GAP_TICKS)).is_some_and(|l| at > l);
        if self.ticks == 0 || gap || at < self.last_ms {
            self.rearm(value);
        }
        let floor = (self.all.spread * 0.02).max(value.abs() * 1e-4).max(1e-9);
        let expected = self.season.expected(at, self.tick_ms, value, self.long.mean, self.spread);
        let weight = self.weight();
        let statistics = self.measure(value, &expected, floor, weight);
        let (fused, lead) = self.fuse(&statistics);
        self.learn(at, value, &expected, floor, weight);
        (self.last, self.last_ms) = (value, at);
        self.ticks = self.ticks.saturating_add(1);
        if self.ticks <= WARM_UP {
            return None;
        }
        let days = self.season.days(at) as f32;
        let passed = self.gate.pass(fused, self.ticks, days, &self.config);
        let per_day = PER_DAY * 10_f64.powf(f64::from(self.config.surprise - passed.surprise));
        let score = confidence(per_day).get() * if passed.fresh { 1.0 } else { DAMPED };
        let sigma = 1.25 * (0.5 * (expected.spread + self.spread)).max(floor);
        let deviation = (value - expected.value) / sigma;
        Some(SeriesScore { score, is_anomaly: score >= THRESHOLD, expected: expected.value, deviation, lead })
    }

    /// How much a tick teaches: less while an event is told, for a limited time.
    fn weight(&self) -> f64 {
        let open = self.gate.open_for(self.config.surprise);
        let slow = open.is_some_and(|ticks| ticks < f32::from(self.config.slow_ticks));
        if slow { f64::from(self.config.slow_learning) } else { 1.0 }
    }

    /// The statistic of each part, at least 0; `None` while it can not say. Parts that keep a state of their own
    /// learn here.
    fn measure(&mut self, value: f64, expected: &Expected, floor: f64, weight: f64) -> [Option<f64>; 10] {
        let known = self.ticks > 20;
        let wide = (self.all.spread * 1.25).max(floor);
        let residual = value - expected.value;
        let usual = (0.5 * (expected.spread + self.spread)).max(floor);
        self.smooth += 0.15 * (residual - self.smooth);
        let level = self.level.observe(value, (self.all.spread * 0.1).max(floor), weight);
        let step = value - self.last;
        let jumps = self.jumps.observe(step, floor, weight);
        let shape = self.shape.observe((value - self.long.mean) / wide, true);
        let offset = (value - self.all.mean) / wide;
        let beyond = self.config.parts.percentile.then(|| self.distribution.beyond(offset)).flatten();
        self.distribution.learn(offset);
        let cusum = self.cusum.observe(residual / (1.25 * self.spread).max(floor));
        [
            Some(residual.abs() / usual),
            Some(self.smooth.abs() / self.spread.max(floor)),
            level,
            self.distribution.entropy(),
            beyond,
            Some(jumps),
            shape,
            Some(self.frozen.observe(value)),
            Some(self.short.distance(value, floor)),
            Some(cusum),
        ]
        .map(|s| s.filter(|_| known))
    }

    /// The parts' surprises as one, and the part that saw most.
    fn fuse(&mut self, statistics: &[Option<f64>; 10]) -> (f32, Part) {
        let (mut sum, mut lead, mut most) = (0.0_f32, Part::Season, 0.0);
        let on = PARTS.iter().zip(statistics).filter(|(part, _)| self.config.parts.has(**part));
        for (tail, (part, statistic)) in self.tails.iter_mut().zip(on) {
            let Some(statistic) = *statistic else { continue };
            let surprise = tail.surprise(statistic);
            tail.learn(statistic);
            sum += surprise * surprise * surprise;
            if surprise > most {
                (most, lead) = (surprise, *part);
            }
        }
        (sum.cbrt(), lead)
    }

    fn learn(&mut self, at: i64, value: f64, expected: &Expected, floor: f64, weight: f64) {
        self.all.learn(value, 1e9, weight);
        self.long.learn(value, 1000.0, weight);
        self.short.learn(value, 100.0, weight);
        let reach = if self.ticks > 50 { 6.0 * self.spread.max(floor) } else { f64::MAX };
        let residual = (value - expected.value).abs().min(reach);
        let alpha = weight / f64::from(self.ticks + 1).min(3000.0);
        self.spread += alpha * (residual - self.spread);
        self.season.learn(at, value, self.spread.max(floor), weight);
        self.slope.learn(value);
    }

    fn rearm(&mut self, value: f64) {
        self.last = value;
        self.smooth = 0.0;
        self.level.rearm();
        self.shape.rearm();
        self.frozen.rearm();
        self.cusum = Cusum::default();
    }
}
