//! From the channels' deviations to two numbers for the node.
//!
//! Three views of a step, each measured against its own 99th percentile: unrest of all channels in this step, the
//! same over twenty steps, and the largest levels over three. The first alone is the *quick* evidence, which sees
//! a burst at once; the other two together are the *steady* one, which stays high for as long as an anomaly lasts
//! and sees what is small but lasts. They are added as roots: one view that is a thousand times its usual self
//! does not shout the other down.

use serde::{Deserialize, Serialize};

use super::channel::Deviation;
use super::histogram::LogHistogram;

/// Share of steps beyond the percentile that each view is measured by.
const BEYOND: f32 = 0.01;
/// Most channels whose levels are looked at.
const TOP: usize = 16;
/// Steps over which unrest and levels are averaged.
const UNREST_STEPS: usize = 20;
const LEVEL_STEPS: usize = 3;
/// Weight of unrest in the steady evidence; the levels have the rest.
const UNREST_WEIGHT: f32 = 0.67;
/// Least unit of a view: below, a node in which nothing moves would be judged by its rounding errors.
const LEAST: f32 = 1e-3;

/// The channels of one step, as they come in.
#[derive(Clone, Debug)]
pub(super) struct Gathering {
    channels: usize,
    change: f32,
    /// The largest levels, in no order, and where the least of them is.
    top: [f32; TOP],
    top_limit: usize,
    lowest: usize,
}

impl Gathering {
    /// `channels`: how many the node has; of a large node a few more levels are looked at.
    pub(super) fn new(channels: usize) -> Self {
        let top_limit = (3 + channels / 64).min(TOP);
        Self { channels: 0, change: 0.0, top: [0.0; TOP], top_limit, lowest: 0 }
    }

    pub(super) fn add(&mut self, deviation: Deviation) {
        self.channels += 1;
        self.change += deviation.change * deviation.change;
        let level = deviation.level.abs();
        if level > self.top[self.lowest] {
            self.top[self.lowest] = level;
            let top = &self.top[..self.top_limit];
            self.lowest = (0..top.len()).min_by(|&a, &b| top[a].total_cmp(&top[b])).unwrap_or(0);
        }
    }

    /// Mean square of the changes, and square of the mean of the largest levels.
    fn views(&self) -> Option<(f32, f32)> {
        if self.channels == 0 {
            return None;
        }
        let top = self.top.iter().sum::<f32>() / self.top_limit.min(self.channels) as f32;
        Some((self.change / self.channels as f32, top * top))
    }
}

/// How abnormal a step is, in units of what one step in a hundred reaches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Weight {
    pub(super) quick: f32,
    pub(super) steady: f32,
}

/// What the evidence of a step is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Evidence {
    unrest: Recent,
    level: Recent,
    usual: [LogHistogram; 3],
}

impl Evidence {
    pub(super) fn new() -> Self {
        let usual = [LogHistogram::narrow(), LogHistogram::narrow(), LogHistogram::narrow()];
        Self { unrest: Recent::default(), level: Recent::default(), usual }
    }

    /// Weighs a step by what was known before it, then learns it as `share` of all that is known. None when no
    /// channel can be judged.
    pub(super) fn weigh(&mut self, gathering: &Gathering, share: f32) -> Option<Weight> {
        let (change, level) = gathering.views()?;
        let views = [change, self.unrest.mean(change, UNREST_STEPS), self.level.mean(level, LEVEL_STEPS)];
        let mut roots = [0.0; 3];
        for ((root, view), usual) in roots.iter_mut().zip(views).zip(&mut self.usual) {
            *root = (view / usual.quantile(BEYOND).unwrap_or(1.0).max(LEAST)).sqrt();
            usual.learn(view, share);
        }
        let [quick, unrest, level] = roots;
        Some(Weight { quick, steady: UNREST_WEIGHT * unrest + (1.0 - UNREST_WEIGHT) * level })
    }
}

/// The last few values of a view.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Recent {
    values: Vec<f32>,
    next: u8,
}

impl Recent {
    /// Adds a value and returns the average of the last `steps`.
    fn mean(&mut self, value: f32, steps: usize) -> f32 {
        if self.values.len() < steps {
            self.values.push(value);
        } else {
            self.values[usize::from(self.next) % steps] = value;
            self.next = ((usize::from(self.next) + 1) % steps) as u8;
        }
        self.values.iter().sum::<f32>() / self.values.len() as f32
    }
}
