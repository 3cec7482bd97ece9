//! One verdict for a whole node (or any table of series at one steady step), with the channels to blame.
//!
//! | stage | what it does | file |
//! |---|---|---|
//! | domain | each channel is compared by difference or by ratio, in its own unit | [`domain`] |
//! | season | what is usual at this hour of the day | [`season`] |
//! | channel | how far a value is from its recent, seasonal and long-term level, in its own spreads | [`channel`] |
//! | leap | the same from its last twenty minutes, in its own unit, uncompressed | [`leap`] |
//! | alarm | the largest leaps of a step become alarms a day, by the bulk of the node's own peaks | [`alarm`] |
//! | evidence | the other deviations become one raw score, which ranks all steps | [`evidence`] |
//! | tail | that score becomes false alarms a day, by the extremes of the node's own past | [`tail`] |
//!
//! Causal: a row is judged by what was known before it, then learned. Nothing is trained in batches; a detector
//! that is fed a clean past with [`NodeDetector::train`] merely starts where another one is after as long.

mod alarm;
mod channel;
mod config;
mod domain;
mod evidence;
mod histogram;
mod leap;
mod season;
mod tail;

use std::time::Duration;

use evenkeel_common::time::Timestamp;
use serde::{Deserialize, Serialize};

pub use config::NodeConfig;

use alarm::{Alarm, Rhythm};
use channel::{Channel, Pace};
use evidence::{Evidence, Gathering};
use leap::{Foremost, Stride};
use season::Hour;
use tail::{Lesson, Tail};

/// Score from which a step is an anomaly.
pub const ANOMALY_SCORE: f64 = 0.5;
/// Deviation from which a channel counts as deviating.
const DEVIATES: f32 = 4.0;
/// Speed of learning while anomalous.
const SLOWED: f32 = 0.1;
/// Seconds that part two alarms: less, and an admin takes them for one.
const ALARM_GAP_S: f64 = 600.0;
/// How much more often the rarer of two correlated statistics is as rare as one of them.
const CHANCES: f64 = 1.5;
/// Until about this age the extremes seen are no measure of those to come.
const YOUNG_DAYS: f64 = 1.5;
/// Days that all count alike, before the past begins to fade.
const SETTLED_DAYS: f64 = 20.0;
/// Days in which an anomaly that is accepted becomes the usual level.
const ACCEPT_DAYS: f64 = 2.0;
/// Days before the hours of the day are known, and what they weigh afterwards.
const WILD_DAYS: f64 = 1.5;
const WILD_KEPT_DAYS: f64 = 0.15;
/// Steps whose weight only tells what weights are like; as many again only tell how high they reach.
const UNWEIGHED: u32 = 60;
/// Surprise of the unrest from which an anomaly goes on, and from which it begins without a leap: when such
/// unrest comes eight times more seldom than the budget allows.
const STAYS: f64 = 0.4;
const BEGINS: f64 = 0.6;
/// Channels named as causes at most.
const CAUSES: usize = 64;

/// What the node's detector says about a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeScore {
    /// Surprise, 0 to 1: from [`ANOMALY_SCORE`] on when the step is an anomaly, below otherwise. In either half it
    /// grows with the rarity of what is seen and changes slowly, so that the whole of an anomalous stretch ranks high.
    pub score: f64,
    /// Whether `score` reaches [`ANOMALY_SCORE`].
    pub is_anomaly: bool,
    /// Probability that this is no normal variation, on the scale of [`crate::calibrate::confidence`].
    pub confidence: f64,
    /// Share of the judged channels that deviate now, 0 to 1.
    pub anomaly_rate: f64,
    /// At most 64 channels, the one that deviates most first: index and signed deviation in spreads (at most 15)
    /// now or in the last few steps.
    pub causes: Vec<(usize, f64)>,
}

/// All series of one node at one steady step (10 s to 10 min).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeDetector {
    config: NodeConfig,
    /// Seconds of a step.
    step_s: f64,
    channels: Vec<Channel>,
    /// When the last row was.
    last: Option<Timestamp>,
    alarm: Alarm,
    evidence: Evidence,
    quick: Tail,
    steady: Tail,
    seen: u32,
    /// Steps that were weighed. What a step is compared with is nothing before some are known.
    weighed: u32,
    /// Steps for which the anomaly has lasted.
    lasting: u32,
}

impl NodeDetector {
    /// For so many channels, a row each `step`.
    #[must_use]
    pub fn new(channels: usize, step: Duration, config: NodeConfig) -> Self {
        Self {
            config: config.within_bounds(),
            step_s: step.as_secs_f64().clamp(1.0, 3600.0),
            channels: vec![Channel::new(); channels],
            last: None,
            alarm: Alarm::new(),
            evidence: Evidence::new(),
            quick: Tail::new(),
            steady: Tail::new(),
            seen: 0,
            weighed: 0,
            lasting: 0,
        }
    }

    /// Changes the number of channels: new ones are appended and warm up on their own, surplus ones are forgotten.
    pub fn resize(&mut self, channels: usize) {
        self.channels.resize(channels, Channel::new());
    }

    /// Learns a row that is known to be mostly normal. As [`Self::observe`], without a verdict.
    pub fn train(&mut self, at: Timestamp, row: &[f64]) {
        self.advance(at, row, false);
    }

    /// Judges a row, then learns it. Values beyond the channels are ignored, missing and non-finite ones are
    /// absent. None until `warm_up_steps` rows are known and as many were weighed, and when no channel can be judged.
    pub fn observe(&mut self, at: Timestamp, row: &[f64]) -> Option<NodeScore> {
        let judgement = self.advance(at, row, true)?;
        let score = judgement.score(self.config.within_bounds().false_alarms_per_day);
        Some(NodeScore {
            score,
            is_anomaly: judgement.anomalous,
            confidence: crate::calibrate::confidence(judgement.rarer()).get(),
            anomaly_rate: judgement.anomaly_rate,
            causes: self.causes(),
        })
    }

    /// Bytes of the state, with the heap.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let spare = (self.channels.capacity() - self.channels.len()) * size_of::<Channel>();
        size_of::<Self>()
            + spare
            + self.alarm.heap_bytes()
            + self.channels.iter().map(Channel::bytes).sum::<usize>()
    }

    /// One step. None while too little is known.
    fn advance(&mut self, at: Timestamp, row: &[f64], judged: bool) -> Option<Judgement> {
        let config = self.config.within_bounds();
        let pace = self.pace(at, judged, &config);
        self.skip_to(at);
        let mut gathering = Gathering::new(self.channels.len());
        let mut foremost = Foremost::of(self.channels.len());
        let (mut deviating, mut count) = (0_u32, 0_u32);
        let values = row.iter().copied().chain(std::iter::repeat(f64::NAN));
        for (channel, value) in self.channels.iter_mut().zip(values) {
            let Some(deviation) = channel.observe(value, &pace) else { continue };
            count += 1;
            deviating += u32::from(deviation.level.abs().max(deviation.change.abs()) >= DEVIATES);
            gathering.add(deviation);
            foremost.add(deviation.leap);
        }
        self.seen = self.seen.saturating_add(1);
        let lesson = self.lesson(&pace, config.false_alarms_per_day);
        let weight = self.evidence.weigh(&gathering, lesson.share)?;
        let leaps = self.alarm.observe(foremost.mean(), &self.rhythm(judged, &config));
        self.weighed = self.weighed.saturating_add(1);
        if self.weighed <= UNWEIGHED {
            return None;
        }
        let rarer = self.quick.per_day(weight.quick).min(self.steady.per_day(weight.steady));
        let age = f64::from(self.seen) / lesson.day;
        let unrest = rarer * CHANCES * (1.0 + (YOUNG_DAYS / age).powi(2));
        self.quick.learn(weight.quick, &lesson);
        self.steady.learn(weight.steady, &lesson);
        if self.weighed <= 2 * UNWEIGHED {
            return None;
        }
        let budget = config.false_alarms_per_day;
        let unrest_from = if self.lasting > 0 { STAYS } else { BEGINS };
        let anomalous = leaps <= budget || surprise(unrest, budget) >= unrest_from;
        self.lasting = if anomalous { self.lasting.saturating_add(1) } else { 0 };
        let anomaly_rate = f64::from(deviating) / f64::from(count.max(1));
        Some(Judgement { leaps, unrest, anomalous, anomaly_rate })
    }

    /// Counts the steps that were left out before this one, by an agent that was down, say.
    fn skip_to(&mut self, at: Timestamp) {
        let last = self.last.replace(at).unwrap_or(at);
        let passed = at.as_millis().saturating_sub(last.as_millis()) as f64 / 1000.0;
        let missed = (passed.abs() / self.step_s.clamp(1.0, 3600.0)).round() as u32;
        if missed > 1 {
            self.channels.iter_mut().for_each(|channel| channel.miss(missed - 1));
        }
    }

    fn rhythm(&self, judged: bool, config: &NodeConfig) -> Rhythm {
        Rhythm {
            day: self.day(),
            gap: self.gap(),
            budget: config.false_alarms_per_day,
            accept_hours: config.accept_after_hours,
            judged,
        }
    }

    /// Steps apart from which two peaks are two.
    fn gap(&self) -> u32 {
        (ALARM_GAP_S / self.step_s.clamp(1.0, 3600.0)).max(1.0) as u32
    }

    /// Steps in a day.
    fn day(&self) -> f64 {
        86_400.0 / self.step_s.clamp(1.0, 3600.0)
    }

    fn pace(&self, at: Timestamp, judged: bool, config: &NodeConfig) -> Pace {
        let day = self.day();
        let accepting = judged && f64::from(self.lasting) > config.accept_after_hours / 24.0 * day;
        let slowed = judged && self.lasting > 0 && !accepting;
        Pace {
            hour: Hour::of(at.as_millis()),
            day: day as u32,
            settled: (SETTLED_DAYS.min(config.memory_days) * day) as f32,
            memory: (config.memory_days * day) as f32,
            speed: if slowed { SLOWED } else { 1.0 },
            least: if accepting { (1.0 / (ACCEPT_DAYS * day)) as f32 } else { 0.0 },
            warm_up: config.warm_up_steps,
            stride: Stride::of(self.step_s.clamp(1.0, 3600.0)),
        }
    }

    /// How the calibration learns this step. The first day and a half, in which no hour of the day was known and
    /// everything looked wild, is cut down to what an hour or two would weigh.
    fn lesson(&mut self, pace: &Pace, budget: f64) -> Lesson {
        let day = self.day();
        let (start, kept) = ((WILD_DAYS * day) as u32, (WILD_KEPT_DAYS * day) as u32);
        if self.seen == start {
            self.quick.forget(WILD_KEPT_DAYS / WILD_DAYS);
            self.steady.forget(WILD_KEPT_DAYS / WILD_DAYS);
        }
        let seen = if self.seen >= start { self.seen - start + kept } else { self.seen };
        let share = pace.speed * pace.calm_share(seen);
        Lesson {
            share,
            weight: f64::from(share * (seen as f32).min(pace.settled)),
            fade: if (seen as f32) < pace.settled { 0.0 } else { f64::from(share) },
            day,
            gap: self.gap(),
            rarest: budget,
        }
    }

    fn causes(&self) -> Vec<(usize, f64)> {
        let mut causes: Vec<(usize, f64)> =
            self.channels.iter().map(|channel| f64::from(channel.heat)).enumerate().collect();
        causes.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
        causes.truncate(CAUSES);
        causes
    }
}

/// What came of a step.
#[derive(Clone, Copy, Debug)]
struct Judgement {
    /// How often a day normal variation brings leaps, and unrest, that are as large.
    leaps: f64,
    unrest: f64,
    /// Whether the leaps are rarer than the budget, or the unrest is, or what began still lasts.
    anomalous: bool,
    anomaly_rate: f64,
}

impl Judgement {
    fn rarer(&self) -> f64 {
        if self.anomalous { self.leaps.min(self.unrest) } else { self.unrest }
    }

    /// The surprise, squeezed into the half that the verdict belongs to.
    fn score(&self, budget: f64) -> f64 {
        let half = 0.5 * surprise(self.rarer(), budget);
        if self.anomalous { ANOMALY_SCORE + half } else { half.min(ANOMALY_SCORE - 1e-9) }
    }
}

/// 0 to 1, monotone in the rarity, half at the budget.
fn surprise(per_day: f64, budget: f64) -> f64 {
    1.0 / (1.0 + (per_day / budget).powf(0.2))
}
