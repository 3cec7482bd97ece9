//! From verdicts to anomalies: one opening, one closing.
//!
//! An anomaly opens when the panel is confident enough of a deviation of three sigma or more. While it is open
//! it does not teach: the baseline it is measured against stays as it was. It closes in one of three ways:
//!
//! * the series is back: `quiet_steps` steps in a row within `close_deviation` sigma (30 s by default);
//! * the series stays where it is: after `accept_after_s` (30 min) that is the new normal, and the z-score and
//!   EWMA learn it from scratch;
//! * the series stops: after `silence_after_s` (5 min) without samples, see [`SeriesWatch::silence`].
//!
//! After a closing the series holds off: a minute at first, twice that after every further opening, up to 8.5
//! hours, and half again with every four hours without one. So a series that its detectors do not understand
//! can not open more than about a dozen anomalies on its worst day. Steps teach meanwhile (winsorised), which is how it
//! comes to be understood.
//!
//! What opened at about this hour of each of the last two days, on the same side, is a habit ([`crate::habit`]): it is
//! followed as any anomaly, so that it teaches nothing, and not told.
//!
//! | input | what happens |
//! |---|---|
//! | NaN, infinity, beyond 1e30 | ignored, as if the sample were missing |
//! | gap of more than ten intervals | half a step is dropped, the value has to be held anew; after an hour the z-score and EWMA, after a day everything starts again |
//! | counter reset | comes as a missing sample: collectors turn counters into rates |
//! | flat series | has the floor of its metric for a sigma |
//! | time that steps back | as a gap; when it is far, an open anomaly closes and the hold-off ends |

use std::time::Duration;

use evenkeel_common::anomaly::{Severity, Vote};
use evenkeel_common::sample::Metric;
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Probability;
use serde::{Deserialize, Serialize};

use crate::config::WatchConfig;
use crate::habit::Habits;
use crate::scale::{Scale, scale_floor};
use crate::step::{Step, Stepper};
use crate::vote::{Panel, Verdict};

/// Intervals without a sample that are a gap.
const GAP_INTERVALS: u32 = 10;
/// Larger readings are no readings: a float of four bytes and its square must hold them.
const LARGEST: f64 = 1e30;
/// Deviation below which nothing opens, however confident: the lower bound of a warning.
const MIN_DEVIATION: f64 = 3.0;
/// Doublings of the hold-off, at most.
const MAX_DOUBLINGS: u8 = 9;
/// Time without an opening that takes one doubling back.
const FORGIVE: Duration = Duration::from_secs(4 * 3600);

/// An anomaly as the watch knows it; the agent adds number, series and whether it was injected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnomalyState {
    /// When it opened.
    pub opened_at: Timestamp,
    /// When it closed, if it has.
    pub closed_at: Option<Timestamp>,
    /// The value farthest from the expectation so far, in the metric's unit.
    pub value: f64,
    /// What the baseline expected at the opening, in the metric's unit.
    pub expected: f64,
    /// Signed distance of `value` from `expected` in baseline sigma (of the logarithm, for rates and times).
    pub deviation: f64,
    /// Highest confidence so far.
    pub confidence: Probability,
    /// By [`Severity::classify`].
    pub severity: Severity,
    /// The detectors that saw it, as of the highest confidence.
    pub votes: Vec<Vote>,
}

/// What changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Transition {
    /// An anomaly opened.
    Opened(AnomalyState),
    /// The open anomaly closed.
    Closed(AnomalyState),
}

/// The open anomaly and the baseline it is measured against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Open {
    state: AnomalyState,
    expected: f64,
    scale: f64,
    quiet: u16,
    /// Whether it is told: a habit is not.
    told: bool,
}

/// Watches one series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesWatch {
    metric: Metric,
    config: WatchConfig,
    interval_ms: u32,
    stepper: Stepper,
    panel: Panel,
    last: Option<Timestamp>,
    open: Option<Box<Open>>,
    hold_off_until: Option<Timestamp>,
    doublings: u8,
    calm_since: Option<Timestamp>,
    /// By whether the series was too high.
    habits: Habits<bool>,
}

impl SeriesWatch {
    /// A watch that knows nothing yet, for a series of `metric` sampled every `interval` (1 to 60 s).
    #[must_use]
    pub fn new(metric: Metric, interval: Duration, config: WatchConfig) -> Self {
        let interval = interval.clamp(Duration::from_millis(100), Duration::from_secs(3600));
        let stepper = Stepper::new(interval);
        let panel = Panel::new(&config, interval.as_secs_f64() * f64::from(stepper.samples_per_step()));
        Self {
            metric,
            config,
            interval_ms: interval.as_millis() as u32,
            stepper,
            panel,
            last: None,
            open: None,
            hold_off_until: None,
            doublings: 0,
            calm_since: None,
            habits: Habits::default(),
        }
    }

    /// The options it was made with; a restored watch with other options than today's is of no use.
    #[must_use]
    pub fn config(&self) -> &WatchConfig {
        &self.config
    }

    /// The open anomaly.
    #[must_use]
    pub fn open(&self) -> Option<&AnomalyState> {
        self.open.as_ref().filter(|open| open.told).map(|open| &open.state)
    }

    /// Takes a sample, in the metric's unit. At most one transition comes of it.
    pub fn observe(&mut self, at: Timestamp, value: f64) -> Option<Transition> {
        if value.is_nan() || value.abs() > LARGEST {
            return None;
        }
        let closed = self.bridge(at);
        self.last = Some(at);
        let scale = scale_floor(self.metric);
        let step = self.stepper.push(value, |v| scale.enter(v));
        let judged = step.and_then(|step| self.judge(at, &step, &scale));
        // A gap that closes also empties the hold, so nothing can open on the same sample.
        closed.or(judged)
    }

    /// Tells the watch the time when its series has no sample, so that an open anomaly of a series that ended
    /// does not stay open. Call it now and then; it is cheap.
    pub fn silence(&mut self, now: Timestamp) -> Option<Transition> {
        let silent = self.last.is_some_and(|last| now.since(last) >= secs(self.config.silence_after_s));
        if silent { self.close(now) } else { None }
    }

    /// Nobody follows the series from `now` on, though it goes on: what is open closes, with the hold-off of any
    /// closing, and what was learned stays.
    pub fn leave(&mut self, now: Timestamp) -> Option<Transition> {
        self.close(now)
    }

    /// Bytes of state, heap included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let open = self
            .open
            .as_ref()
            .map_or(0, |open| size_of::<Open>() + open.state.votes.capacity() * size_of::<Vote>());
        size_of::<Self>() + self.panel.heap_bytes() + self.habits.heap_bytes() + open
    }

    /// Deals with what lies between the last sample and this one.
    fn bridge(&mut self, at: Timestamp) -> Option<Transition> {
        let last = self.last?;
        let back = last.since(at);
        let gap = at.since(last).max(back);
        if back.is_zero() && gap.as_millis() <= u128::from(self.interval_ms) * u128::from(GAP_INTERVALS) {
            return None;
        }
        self.stepper.clear();
        self.panel.rearm(gap.as_secs_f64());
        if gap < secs(self.config.silence_after_s) {
            return None;
        }
        let closed = self.close(at);
        if !back.is_zero() {
            // The hold-off was told by a clock that was wrong.
            self.hold_off_until = None;
            self.calm_since = Some(at);
        }
        closed
    }

    fn judge(&mut self, at: Timestamp, step: &Step, scale: &Scale) -> Option<Transition> {
        let verdict = self.panel.observe(step, scale);
        if self.open.is_some() {
            self.panel.record(step, scale);
            return self.follow(at, step, verdict.as_ref(), scale);
        }
        let opens = verdict.as_ref().filter(|v| self.may_open(at, v));
        let Some(verdict) = opens else {
            self.panel.learn(step, verdict.as_ref(), scale);
            return None;
        };
        self.panel.record(step, scale);
        let told = !self.habits.is_habit(at, [verdict.finding.deviation() > 0.0]);
        let open = Open { told, ..Open::new(at, verdict, scale) };
        let opened = told.then(|| Transition::Opened(open.state.clone()));
        self.open = Some(Box::new(open));
        opened
    }

    fn may_open(&self, at: Timestamp, verdict: &Verdict) -> bool {
        verdict.confidence.get() >= self.config.open_confidence
            && verdict.finding.deviation().abs() >= MIN_DEVIATION
            && self.hold_off_until.is_none_or(|until| at >= until)
    }

    /// A step of an open anomaly.
    fn follow(
        &mut self,
        at: Timestamp,
        step: &Step,
        verdict: Option<&Verdict>,
        scale: &Scale,
    ) -> Option<Transition> {
        let open = self.open.as_mut()?;
        open.update(step, verdict, scale);
        let away = ((step.median - open.expected) / open.scale).abs();
        open.quiet = if away < self.config.close_deviation { open.quiet.saturating_add(1) } else { 0 };
        if open.quiet >= self.config.quiet_steps {
            return self.close(at);
        }
        if at.since(open.state.opened_at) >= secs(self.config.accept_after_s) {
            self.panel.accept();
            return self.close(at);
        }
        None
    }

    fn close(&mut self, at: Timestamp) -> Option<Transition> {
        let Open { mut state, told, .. } = *self.open.take()?;
        state.closed_at = Some(at);
        if let Some(since) = self.calm_since {
            let forgiven = state.opened_at.since(since).as_secs() / FORGIVE.as_secs();
            self.doublings = self.doublings.saturating_sub(forgiven.min(255) as u8);
        }
        let hold_off = secs(self.config.hold_off_s) * (1 << self.doublings.min(MAX_DOUBLINGS));
        self.hold_off_until = Some(at.after(hold_off));
        self.calm_since = Some(at);
        self.doublings = (self.doublings + 1).min(MAX_DOUBLINGS);
        told.then_some(Transition::Closed(state))
    }
}

impl Open {
    fn new(at: Timestamp, verdict: &Verdict, scale: &Scale) -> Self {
        let finding = &verdict.finding;
        let state = AnomalyState {
            opened_at: at,
            closed_at: None,
            value: scale.leave(finding.value),
            expected: scale.leave(finding.expected),
            deviation: finding.deviation(),
            confidence: verdict.confidence,
            severity: Severity::classify(verdict.confidence, finding.deviation()),
            votes: verdict.votes.into_iter().flatten().collect(),
        };
        Self { state, expected: finding.expected, scale: finding.scale, quiet: 0, told: true }
    }

    /// Keeps the worst seen so far.
    fn update(&mut self, step: &Step, verdict: Option<&Verdict>, scale: &Scale) {
        let deviation = (step.median - self.expected) / self.scale;
        if deviation.signum() == self.state.deviation.signum() && deviation.abs() > self.state.deviation.abs()
        {
            self.state.deviation = deviation;
            self.state.value = scale.leave(step.median);
        }
        let worse = |v: &&Verdict| {
            v.confidence > self.state.confidence
                && v.finding.deviation().signum() == self.state.deviation.signum()
        };
        if let Some(verdict) = verdict.filter(worse) {
            self.state.confidence = verdict.confidence;
            self.state.votes.clear();
            self.state.votes.extend(verdict.votes.into_iter().flatten());
        }
        self.state.severity = Severity::classify(self.state.confidence, self.state.deviation);
    }
}

fn secs(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}
