//! A node that behaves unlike its like: its metrics against those of the other nodes of its cluster, at the same time.
//!
//! What moves all nodes alike (working hours, a migration of the network) is no news about any of them, and no
//! detector that looks at one node alone can know that. So each look compares the mean of a node's last two minutes
//! with the median of the same of its peers, without itself. Nodes differ for good (another disk, another customer):
//! each metric's usual distance from the peers is learned with a memory of a day and taken away first. What remains is
//! measured in the larger of the node's own usual spread, the spread of the peers just now (1.48 times the median
//! distance: Hampel 1974) and [`SevenMetric::floor`]. What counts is the distance that is held through five minutes; its
//! tail ([`crate::tail`]) says how often normal variation brings the like, and beyond the budget of false alarms the node
//! is told, with the metric. (Comparing machines that do alike with their median: Kandula et
//! al. 2009; removing each one's own level: Laptev et al. 2015, "outliers among time series".)
//!
//! | input | what happens |
//! |---|---|
//! | NaN, infinite, below zero | missing; a metric that fewer than `least_peers` others have is not judged |
//! | a shift of all nodes | nothing: the median moves along |
//! | a shift that stays | one anomaly; after a day it is how this node is, and the anomaly closes |
//! | the same hour night after night | a habit from the third night on, see [`crate::habit`] |
//! | a new node | eight hours are learned first: two of distances, then six of their tail |

mod node;

use std::collections::BTreeMap;

use evenkeel_common::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::seven::{SEVEN, SevenMetric};
use node::Node;

/// Metrics compared: the seven, then pressure in percent.
pub const METRICS: usize = SEVEN + 1;
/// Place of pressure among them.
pub const PRESSURE: usize = SEVEN;
/// Smallest sigma of pressure, percent.
const PRESSURE_FLOOR: f64 = 2.0;
/// A node that has not been seen for so long is forgotten.
const FORGOTTEN_S: u64 = 7 * 86_400;

/// When a node behaves unlike the other nodes of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PeersConfig {
    /// Whether nodes are compared with each other at all. Default true.
    pub enabled: bool,
    /// Other nodes that must have a metric before it is compared, 4 by default. With fewer, one odd peer moves the
    /// median.
    #[schemars(range(min = 2, max = 64))]
    pub least_peers: u8,
    /// False alarms a node may cause in a day, 0.1 by default. Smaller alarms later and less.
    #[schemars(range(min = 0.001, max = 10.0))]
    pub false_alarms_per_day: f64,
}

impl Default for PeersConfig {
    fn default() -> Self {
        Self { enabled: true, least_peers: 4, false_alarms_per_day: 0.1 }
    }
}

/// What was found of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unlike {
    /// Place of the metric that stands out most.
    pub metric: usize,
    /// The node's value, in the metric's unit: mean of two minutes.
    pub value: f64,
    /// Median of its peers.
    pub peers: f64,
    /// What this node would have if it differed from its peers as it usually does.
    pub expected: f64,
    /// Signed distance from that in sigma.
    pub deviation: f64,
    /// How many stretches of ten minutes a day normal variation brings of this.
    pub per_day: f64,
    /// How many peers it was compared with.
    pub compared: usize,
}

/// What a look says of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Likeness {
    /// It can not be told: too few peers, or too little known.
    Unknown,
    /// As its peers, apart from what usually tells them apart.
    Alike,
    /// Unlike its peers for minutes.
    Unlike(Unlike),
}

/// The nodes of one cluster, by name.
#[derive(Clone, Debug)]
pub struct Peers<K> {
    config: PeersConfig,
    multiplier: f64,
    nodes: BTreeMap<K, Node>,
}

/// The nodes' means of one metric now, without those that have none.
struct Field {
    /// Of each node that has one: its place in the look, the value in the domain of the metric, and in its unit.
    of: Vec<(usize, f64, f64)>,
}

impl<K: Ord + Clone> Peers<K> {
    /// Knows nobody yet.
    #[must_use]
    pub fn new(config: PeersConfig) -> Self {
        Self { config, multiplier: 1.0, nodes: BTreeMap::new() }
    }

    /// Moves the threshold by what people said: 2 asks for the square of the rarity, 0.5 for its root. See
    /// [`crate::feedback`].
    pub fn set_multiplier(&mut self, multiplier: f64) {
        self.multiplier = if multiplier.is_finite() { multiplier.clamp(0.1, 10.0) } else { 1.0 };
    }

    /// Takes in that somebody else found this metric of a node out of order, and says whether the like began at about
    /// this time of each of the last two days, whoever found it.
    pub fn is_habit(&mut self, key: &K, at: Timestamp, metric: usize) -> bool {
        self.nodes.entry(key.clone()).or_default().is_habit(at, metric)
    }

    /// Looks at all nodes at once. Rows in the order of [`SevenMetric::ALL`], then pressure, in their units, NaN =
    /// missing; a node without a row is neither judged nor a peer. Answers for those with a row, in order.
    pub fn look(&mut self, at: Timestamp, rows: &BTreeMap<K, [f64; METRICS]>) -> BTreeMap<K, Likeness> {
        if !self.config.enabled {
            return BTreeMap::new();
        }
        for (key, row) in rows {
            self.nodes.entry(key.clone()).or_default().push(at, row);
        }
        self.nodes.retain(|_, node| node.seen.is_none_or(|seen| at.since(seen).as_secs() < FORGOTTEN_S));
        let (config, limit) = (self.config, self.limit());
        let mut present: Vec<&mut Node> =
            self.nodes.iter_mut().filter(|(key, _)| rows.contains_key(key)).map(|(_, node)| node).collect();
        let means: Vec<[(f64, f64); METRICS]> = present.iter().map(|node| node.means()).collect();
        for metric in 0..METRICS {
            let of = means.iter().map(|of| of[metric]).enumerate();
            let field =
                Field { of: of.filter(|(_, m)| m.0.is_finite()).map(|(i, m)| (i, m.0, m.1)).collect() };
            field.compare(metric, usize::from(config.least_peers), &mut present);
        }
        let answers = present.into_iter().map(|node| node.judge(at, limit));
        rows.keys().cloned().zip(answers).collect()
    }

    /// Stretches a day below which something is told.
    fn limit(&self) -> f64 {
        let day = crate::tail::BLOCKS_PER_DAY;
        let budget = self.config.false_alarms_per_day.clamp(1e-4, 10.0);
        day * (budget / day).powf(self.multiplier)
    }
}

impl Field {
    /// Gives each node its distance from its peers, in what is usual.
    fn compare(&self, metric: usize, least: usize, nodes: &mut [&mut Node]) {
        if self.of.len() <= least {
            return;
        }
        let domain = Ranked::of(self.of.iter().map(|(_, value, _)| *value));
        let raw = Ranked::of(self.of.iter().map(|(.., value)| *value));
        let apart: Vec<f64> = (0..self.of.len()).map(|i| self.of[i].1 - domain.median_without(i)).collect();
        let left = |i: usize| apart[i] - nodes[self.of[i].0].usual(metric);
        let left: Vec<f64> = (0..self.of.len()).map(left).collect();
        let spread = Ranked::of(left.iter().map(|r| r.abs()));
        for (i, (place, _, value)) in self.of.iter().enumerate() {
            let floor = floor(metric).max(1.4826 * spread.median_without(i));
            let compared = node::Compared {
                apart: apart[i],
                floor,
                value: *value,
                peers: raw.median_without(i),
                peers_in_domain: domain.median_without(i),
                compared: self.of.len() - 1,
            };
            nodes[*place].compared[metric] = Some(compared);
        }
    }
}

/// Values in order, to take the median of all but one at no cost.
struct Ranked {
    sorted: Vec<f64>,
    /// Place of each value in that order.
    rank: Vec<usize>,
}

impl Ranked {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.collect();
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
        let mut rank = vec![0; values.len()];
        for (place, &i) in order.iter().enumerate() {
            rank[i] = place;
        }
        Self { sorted: order.iter().map(|&i| values[i]).collect(), rank }
    }

    /// Median of all values but the `i`th; there must be at least two.
    fn median_without(&self, i: usize) -> f64 {
        let n = self.sorted.len().saturating_sub(1);
        let own = self.rank.get(i).copied().unwrap_or(n);
        let nth = |k: usize| self.sorted.get(if k < own { k } else { k + 1 }).copied().unwrap_or(f64::NAN);
        if n % 2 == 1 { nth(n / 2) } else { 0.5 * (nth((n / 2).saturating_sub(1)) + nth(n / 2)) }
    }
}

/// A value in the domain in which nodes are compared.
fn enter(metric: usize, value: f64) -> f64 {
    match SevenMetric::ALL.get(metric) {
        Some(metric) => metric.enter(value),
        None if value.is_finite() && value >= 0.0 => value.min(100.0),
        None => f64::NAN,
    }
}

/// Back to the metric's unit.
fn leave(metric: usize, value: f64) -> f64 {
    SevenMetric::ALL.get(metric).map_or(value, |metric| metric.leave(value)).max(0.0)
}

fn floor(metric: usize) -> f64 {
    SevenMetric::ALL.get(metric).map_or(PRESSURE_FLOOR, |metric| metric.floor())
}

/// Whether less of it than the peers have is no trouble.
fn high_only(metric: usize) -> bool {
    use SevenMetric as M;
    let both = [M::Bandwidth, M::CpuUsage, M::MemoryUsage];
    SevenMetric::ALL.get(metric).is_none_or(|metric| !both.contains(metric))
}

#[cfg(test)]
mod tests;
