//! One node among its peers: its last minutes, how it usually differs, and whether what it does now lasts.

use std::collections::VecDeque;

use evenkeel_common::time::Timestamp;

use super::{Likeness, METRICS, Unlike, enter, high_only, leave};
use crate::habit::Habits;
use crate::tail::Tail;

/// Seconds over which a node is averaged.
const MEAN_S: u64 = 120;
/// Seconds for which a distance must be held to count.
const HOLD_S: u64 = 300;
/// Memory of what usually tells a node from its peers, seconds.
const MEMORY_S: f64 = 86_400.0;
/// Seconds known before a metric is judged.
const WARM_UP_S: f64 = 7200.0;
/// Longest step that counts, seconds: what lies in a gap is not known.
const LONGEST_STEP_S: f64 = 900.0;
/// Sigma beyond which a look teaches no more than this.
const TEACH_LIMIT: f64 = 3.0;
/// Sigma below which nothing is told, however rare.
const LEAST_SIGMA: f64 = 4.0;
/// Seconds that the looks must cover before they say what was held.
const COVERED_S: u64 = HOLD_S * 2 / 3;
/// How often a day normal variation may bring what counts as calm again.
const CALM_PER_DAY: f64 = 2.0;
/// Seconds after a closing in which nothing opens.
const HOLD_OFF_S: u64 = 1800;
/// Seconds after which an anomaly is how the node is.
const ACCEPT_S: u64 = 86_400;

/// A node against its peers at one look, for one metric.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compared {
    /// Distance from the peers' median, in the domain.
    pub(super) apart: f64,
    /// Smallest sigma now, in the domain.
    pub(super) floor: f64,
    /// Own value and the peers' median, in the unit.
    pub(super) value: f64,
    pub(super) peers: f64,
    /// The peers' median in the domain.
    pub(super) peers_in_domain: f64,
    /// Number of peers.
    pub(super) compared: usize,
}

/// How a node usually differs in one metric, in the domain.
#[derive(Clone, Copy, Debug, Default)]
struct Usual {
    offset: f64,
    /// Mean distance from the offset.
    spread: f64,
    known_s: f64,
    last: Option<Timestamp>,
}

/// What goes on.
#[derive(Clone, Copy, Debug)]
struct Open {
    since: Timestamp,
    metric: usize,
    /// Whether it is told: a habit is not.
    told: bool,
    calm_since: Option<Timestamp>,
}

/// One node.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) seen: Option<Timestamp>,
    pub(super) compared: [Option<Compared>; METRICS],
    rows: VecDeque<(Timestamp, [f64; METRICS])>,
    usual: [Usual; METRICS],
    /// Of each metric's distance, in sigma.
    tails: [Tail; METRICS],
    /// Distances at the looks of the last minutes, in sigma; NaN where unknown.
    looks: VecDeque<(Timestamp, [f32; METRICS])>,
    open: Option<Open>,
    hold_off_until: Option<Timestamp>,
    habits: Habits<usize>,
}

impl Node {
    /// Takes an opening in and says whether it is a habit.
    pub(super) fn is_habit(&mut self, at: Timestamp, metric: usize) -> bool {
        self.habits.is_habit(at, [metric])
    }

    /// Takes a row in.
    pub(super) fn push(&mut self, at: Timestamp, row: &[f64; METRICS]) {
        if self.seen.is_some_and(|seen| at < seen) {
            // The clock went back: what lies ahead of it is not the past.
            self.rows.clear();
            self.looks.clear();
        }
        self.seen = Some(at);
        self.compared = [None; METRICS];
        self.rows.push_back((at, *row));
        self.rows.retain(|(then, _)| at.since(*then).as_secs() < MEAN_S);
    }

    /// Means of the window: in the domain, and in the unit. NaN without a value.
    pub(super) fn means(&self) -> [(f64, f64); METRICS] {
        std::array::from_fn(|metric| {
            let known = self.rows.iter().map(|(_, row)| row[metric]);
            let known = known.map(|raw| (enter(metric, raw), raw)).filter(|(value, _)| value.is_finite());
            let (n, a, b) = known.fold((0.0, 0.0, 0.0), |(n, a, b), (x, y)| (n + 1.0, a + x, b + y));
            if n > 0.0 { (a / n, b / n) } else { (f64::NAN, f64::NAN) }
        })
    }

    /// Its usual distance from its peers.
    pub(super) fn usual(&self, metric: usize) -> f64 {
        self.usual[metric].offset
    }

    /// Judges what [`Self::compared`] holds, and learns from it when nothing is wrong.
    pub(super) fn judge(&mut self, at: Timestamp, limit: f64) -> Likeness {
        let scores: [f64; METRICS] = std::array::from_fn(|metric| self.score(metric));
        self.looks.push_back((at, scores.map(|score| score as f32)));
        self.looks.retain(|(then, _)| at.since(*then).as_secs() <= HOLD_S);
        let held: [f64; METRICS] = std::array::from_fn(|metric| self.held(at, metric));
        let rarity = |metric: usize| Some((metric, self.tails[metric].per_day(held[metric])?));
        let foremost = (0..METRICS).filter_map(rarity).min_by(|a, b| a.1.total_cmp(&b.1));
        let beyond = foremost.filter(|(metric, per_day)| *per_day <= limit && held[*metric] >= LEAST_SIGMA);
        if self.open.is_some() {
            self.follow(at, &scores);
        } else if let Some((metric, _)) = beyond
            && self.hold_off_until.is_none_or(|until| at >= until)
        {
            let told = !self.habits.is_habit(at, [metric]);
            self.open = Some(Open { since: at, metric, told, calm_since: None });
        }
        if self.open.is_none() {
            self.learn(at);
            self.tails.iter_mut().zip(held).for_each(|(tail, held)| tail.learn(at, held));
        }
        match foremost {
            _ if self.is_told() => self.told(&scores),
            Some(_) => Likeness::Alike,
            None => Likeness::Unknown,
        }
    }

    fn is_told(&self) -> bool {
        self.open.is_some_and(|open| open.told)
    }

    /// Distance of one metric from what is usual, in sigma; NaN when it can not be judged.
    fn score(&self, metric: usize) -> f64 {
        let usual = &self.usual[metric];
        let Some(compared) = self.compared[metric].filter(|_| usual.known_s >= WARM_UP_S) else {
            return f64::NAN;
        };
        let score = (compared.apart - usual.offset) / usual.sigma(compared.floor);
        if high_only(metric) { score.max(0.0) } else { score }
    }

    /// The distance that was held through the last minutes on one side; 0 when it was on both, NaN when unknown.
    fn held(&self, at: Timestamp, metric: usize) -> f64 {
        let known = self.looks.iter().map(|(then, scores)| (*then, f64::from(scores[metric])));
        let known: Vec<(Timestamp, f64)> = known.filter(|(_, score)| score.is_finite()).collect();
        match known.first() {
            Some((first, _)) if at.since(*first).as_secs() >= COVERED_S => {
                let low = known.iter().map(|(_, score)| *score).fold(f64::INFINITY, f64::min);
                let high = known.iter().map(|(_, score)| *score).fold(f64::NEG_INFINITY, f64::max);
                low.max(-high).max(0.0)
            }
            _ => f64::NAN,
        }
    }

    /// An anomaly under way: it ends when its metric has been calm for a window, or has become how the node is.
    fn follow(&mut self, at: Timestamp, scores: &[f64; METRICS]) {
        let Some(mut open) = self.open else { return };
        let score = scores[open.metric];
        let rare = self.tails[open.metric].per_day(score.abs()).is_some_and(|n| n <= CALM_PER_DAY);
        // Without data nothing is known of it: it stays as it is.
        if score.is_finite() {
            let calm = !rare || score.abs() < LEAST_SIGMA / 2.0;
            open.calm_since = calm.then(|| open.calm_since.unwrap_or(at));
        }
        let accepted = at.since(open.since).as_secs() >= ACCEPT_S;
        let over = open.calm_since.is_some_and(|since| at.since(since).as_secs() >= HOLD_S);
        if accepted && !over {
            // From now on this is how it differs.
            for usual in &mut self.usual {
                *usual = Usual::default();
            }
        }
        self.open = Some(open);
        if accepted || over {
            self.open = None;
            self.looks.clear();
            self.hold_off_until = Some(at.after(std::time::Duration::from_secs(HOLD_OFF_S)));
        }
    }

    fn told(&self, scores: &[f64; METRICS]) -> Likeness {
        let Some(open) = self.open else { return Likeness::Unknown };
        let Some(compared) = self.compared[open.metric].filter(|_| scores[open.metric].is_finite()) else {
            return Likeness::Unknown;
        };
        let deviation = scores[open.metric];
        Likeness::Unlike(Unlike {
            metric: open.metric,
            value: compared.value,
            peers: compared.peers,
            expected: leave(open.metric, compared.peers_in_domain + self.usual[open.metric].offset),
            deviation,
            per_day: self.tails[open.metric].per_day(deviation.abs()).unwrap_or_default(),
            compared: compared.compared,
        })
    }

    fn learn(&mut self, at: Timestamp) {
        for (usual, compared) in self.usual.iter_mut().zip(&self.compared) {
            if let Some(compared) = compared {
                usual.learn(at, compared);
            }
        }
    }
}

impl Usual {
    /// Sigma of the distance: 1.25 times its mean absolute value, as of normal noise.
    fn sigma(&self, floor: f64) -> f64 {
        (1.2533 * self.spread).max(floor)
    }

    fn learn(&mut self, at: Timestamp, compared: &Compared) {
        let step = self.last.map_or(0.0, |last| at.since(last).as_secs_f64().min(LONGEST_STEP_S));
        if self.last.replace(at).is_none() {
            self.offset = compared.apart;
            return;
        }
        let left = compared.apart - self.offset;
        let reach = TEACH_LIMIT * self.sigma(compared.floor);
        let left = if self.known_s < WARM_UP_S { left } else { left.clamp(-reach, reach) };
        self.known_s = (self.known_s + step).min(MEMORY_S);
        // The mean of all that is known, until that is as much as is remembered.
        let weight = (step / self.known_s.max(1.0)).min(1.0);
        self.offset += weight * left;
        self.spread += weight * (left.abs() - self.spread);
    }
}
