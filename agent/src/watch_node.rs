//! Watches the node as a whole: the means of its own series, step by step, go to one detector that knows how they
//! usually go together. Its anomalies name the series behind them.
//!
//! Only the node's series take part, not its guests': guests come and go, and each has its own watch.

use std::collections::HashMap;
use std::time::Duration;

use evenkeel_common::anomaly::{Anomaly, Cause, DetectorKind, Severity, Vote};
use evenkeel_common::sample::{Metric, SeriesId, SeriesKey, Subject};
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Probability;
use evenkeel_detect::habit::Habits;
use evenkeel_detect::node::{ANOMALY_SCORE, NodeConfig, NodeDetector, NodeScore};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::collect::source::Registry;

/// Most series that take part; a node has some twenty, and a few per disk and NIC.
const MOST_CHANNELS: usize = 512;
/// Causes told with an anomaly.
const CAUSES_TOLD: usize = 10;
/// Deviation in sigma of the foremost series below which nothing opens: the lower bound of a warning.
const LEAST_DEVIATION: f64 = 3.0;
/// Deviation in sigma below which a series is no cause.
const LEAST_CAUSE: f64 = 1.0;
/// When a node is not itself, although each of its series may be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NodeWatchConfig {
    /// Whether the node is watched as a whole.
    pub enabled: bool,
    /// Seconds of samples that make one step. Shorter finds sooner, and learns for fewer hours what is usual.
    #[schemars(range(min = 10, max = 600))]
    pub step_s: u32,
    /// Steps in a row below the threshold that close an anomaly.
    #[schemars(range(min = 1, max = 60))]
    pub quiet_steps: u16,
    /// The detector.
    pub detector: NodeConfig,
}

impl Default for NodeWatchConfig {
    fn default() -> Self {
        Self { enabled: true, step_s: 60, quiet_steps: 3, detector: NodeConfig::default() }
    }
}

/// What changed.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeTransition {
    /// The node is not itself.
    Opened(Anomaly),
    /// It is itself again.
    Closed(Anomaly),
}

/// Sum and number of the samples of one series in the step that runs.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    samples: u32,
}

/// The watch of one node.
#[derive(Debug)]
pub struct NodeWatch {
    config: NodeWatchConfig,
    detector: NodeDetector,
    channels: Vec<SeriesKey>,
    /// Channel of a series of this run; `None` for those that take no part.
    by_id: HashMap<SeriesId, Option<usize>>,
    means: Vec<Mean>,
    /// The step that runs, in steps since 1970.
    step: Option<i64>,
    open: Option<Anomaly>,
    /// Whether what is going on is a habit and was not told.
    habit: bool,
    quiet: u16,
    habits: Habits<SeriesKey>,
}

/// What a watch has learned, for the next run of the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeMemory {
    config: NodeWatchConfig,
    detector: NodeDetector,
    channels: Vec<SeriesKey>,
    habits: Habits<SeriesKey>,
}

impl NodeWatch {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(config: NodeWatchConfig) -> Self {
        let step = Duration::from_secs(config.step_s.max(1).into());
        Self {
            config,
            detector: NodeDetector::new(0, step, config.detector),
            channels: Vec::new(),
            by_id: HashMap::new(),
            means: Vec::new(),
            step: None,
            open: None,
            habit: false,
            quiet: 0,
            habits: Habits::default(),
        }
    }

    /// What was learned; `None` when nothing was.
    #[must_use]
    pub fn learned(&self) -> Option<NodeMemory> {
        (!self.channels.is_empty()).then(|| NodeMemory {
            config: self.config,
            detector: self.detector.clone(),
            channels: self.channels.clone(),
            habits: self.habits.clone(),
        })
    }

    /// Goes on with what an earlier run has learned, if it was learned with the same options.
    pub fn remember(&mut self, memory: NodeMemory) {
        let NodeMemory { config, detector, channels, habits } = memory;
        if config == self.config && channels.len() <= MOST_CHANNELS {
            self.means = vec![Mean::default(); channels.len()];
            self.by_id.clear();
            (self.detector, self.channels, self.habits) = (detector, channels, habits);
        }
    }

    /// Takes a tick's values. When a step is complete it is judged, and at most one transition comes of it.
    pub fn observe(
        &mut self,
        at: Timestamp,
        values: impl IntoIterator<Item = (SeriesId, f64)>,
        registry: &Registry,
        number: &mut dyn FnMut() -> u64,
    ) -> Option<NodeTransition> {
        if !self.config.enabled {
            return None;
        }
        let step_ms = i64::from(self.config.step_s.max(1)) * 1000;
        let step = at.as_millis().div_euclid(step_ms);
        let ended = self.step.filter(|&running| running != step);
        let transition =
            ended.and_then(|ended| self.judge(Timestamp::from_millis((ended + 1) * step_ms), number));
        self.step = Some(step);
        for (id, value) in values {
            if let Some(channel) = self.channel(id, registry)
                && let Some(mean) = self.means.get_mut(channel)
                && value.is_finite()
            {
                mean.sum += value;
                mean.samples += 1;
            }
        }
        transition
    }

    /// The closing of the open anomaly, as the watch ends.
    pub fn close(&mut self, at: Timestamp) -> Option<Anomaly> {
        let open = self.open.take()?;
        Some(Anomaly { closed_at: Some(at), ..open })
    }

    /// The channel of a series; new ones are taken in while there is room.
    fn channel(&mut self, id: SeriesId, registry: &Registry) -> Option<usize> {
        if let Some(known) = self.by_id.get(&id) {
            return *known;
        }
        let takes_part = |key: &&SeriesKey| {
            key.subject == Subject::Node && key.metric != Metric::DrillActive && !key.is_of_peer()
        };
        let key = registry.key(id).filter(takes_part);
        let channel = key.and_then(|key| {
            let known = self.channels.iter().position(|known| known == key);
            known.or_else(|| {
                (self.channels.len() < MOST_CHANNELS).then(|| {
                    self.channels.push(key.clone());
                    self.means.push(Mean::default());
                    self.detector.resize(self.channels.len());
                    self.channels.len() - 1
                })
            })
        });
        self.by_id.insert(id, channel);
        channel
    }

    fn judge(&mut self, at: Timestamp, number: &mut dyn FnMut() -> u64) -> Option<NodeTransition> {
        let row: Vec<f64> = self
            .means
            .iter_mut()
            .map(|mean| {
                let Mean { sum, samples } = std::mem::take(mean);
                // Without a sample there is no value, which is not zero.
                if samples == 0 { f64::NAN } else { sum / f64::from(samples) }
            })
            .collect();
        let score = self.detector.observe(at, &row);
        let far =
            |score: &NodeScore| score.causes.first().is_some_and(|cause| cause.1.abs() >= LEAST_DEVIATION);
        let anomalous =
            score.as_ref().filter(|score| score.is_anomaly && (self.open.is_some() || far(score)));
        match (&mut self.open, anomalous) {
            (None, None) => {
                self.habit = false;
                None
            }
            (None, Some(_)) if self.habit => None,
            (None, Some(score)) => {
                self.quiet = 0;
                let anomaly = told(0, at, score, &self.channels);
                let causes = anomaly.causes.iter().map(|cause| cause.series.clone());
                self.habit = self.habits.is_habit(at, causes);
                if self.habit {
                    return None;
                }
                let anomaly = Anomaly { number: number(), ..anomaly };
                self.open = Some(anomaly.clone());
                Some(NodeTransition::Opened(anomaly))
            }
            (Some(open), Some(score)) => {
                self.quiet = 0;
                if score.score > open.value {
                    *open =
                        Anomaly { opened_at: open.opened_at, ..told(open.number, at, score, &self.channels) };
                }
                None
            }
            (Some(_), None) => {
                self.quiet += 1;
                (self.quiet >= self.config.quiet_steps)
                    .then(|| self.close(at))
                    .flatten()
                    .map(NodeTransition::Closed)
            }
        }
    }
}

fn told(number: u64, at: Timestamp, score: &NodeScore, channels: &[SeriesKey]) -> Anomaly {
    let deviates = |&&(_, deviation): &&(usize, f64)| deviation.abs() >= LEAST_CAUSE;
    let causes = score.causes.iter().filter(deviates).take(CAUSES_TOLD);
    let causes: Vec<Cause> = causes
        .filter_map(|&(channel, deviation)| Some(Cause { series: channels.get(channel)?.clone(), deviation }))
        .collect();
    let confidence = Probability::clamped(score.confidence);
    let deviation = causes.first().map_or(0.0, |cause| cause.deviation);
    Anomaly {
        number,
        series: SeriesKey::node(Metric::NodeAnomaly),
        opened_at: at,
        closed_at: None,
        value: score.score,
        expected: ANOMALY_SCORE,
        deviation,
        confidence,
        severity: Severity::classify(confidence, deviation),
        votes: vec![Vote { detector: DetectorKind::Multivariate, score: deviation, confidence }],
        causes,
        injected: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::id::Vmid;

    /// Two days of a calm node; then CPU and load leap together for a quarter of an hour.
    #[test]
    fn a_node_that_is_not_itself_is_told_once_with_what_leapt() {
        let mut registry = Registry::new(100);
        let mut intern = |key: SeriesKey| registry.intern(&key).unwrap();
        let [cpu, load, mem] =
            [Metric::CpuUsed, Metric::Load1, Metric::MemUsed].map(|m| intern(SeriesKey::node(m)));
        let guest = intern(SeriesKey::guest(Vmid::new(100).unwrap(), Metric::GuestCpu));
        let mut watch = NodeWatch::new(NodeWatchConfig::default());
        let (mut told, mut numbers, mut seed) = (Vec::new(), 0, 1_u64);
        let leap = 2 * 86_400..2 * 86_400 + 900;
        for second in (0..2 * 86_400 + 7200_u64).step_by(10) {
            let at = Timestamp::from_millis(1_700_000_000_000 + second as i64 * 1000);
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let noise = (seed >> 40) as f64 / (1 << 24) as f64;
            let more = if leap.contains(&second) { 60.0 } else { 0.0 };
            let wild = (second % 7) as f64 * 1000.0;
            let values = vec![
                (cpu, 20.0 + noise * 4.0 + more),
                (load, 2.0 + noise + more / 8.0),
                (mem, 50.0 + noise),
                (guest, wild),
            ];
            let mut number = || {
                numbers += 1;
                numbers
            };
            told.extend(
                watch.observe(at, values, &registry, &mut number).map(|transition| (second, transition)),
            );
        }
        let [(opened_at, NodeTransition::Opened(opened)), (closed_at, NodeTransition::Closed(closed))] =
            &told[..]
        else {
            panic!("{told:#?}");
        };
        assert!((leap.start..leap.start + 300).contains(opened_at), "{opened_at}");
        assert!((leap.end..leap.end + 3600).contains(closed_at), "{closed_at}");
        assert_eq!((opened.number, closed.number), (1, 1));
        let causes: Vec<Metric> = closed.causes.iter().map(|cause| cause.series.metric).take(2).collect();
        assert!(causes.contains(&Metric::CpuUsed) && causes.contains(&Metric::Load1), "{closed:?}");
    }
}
