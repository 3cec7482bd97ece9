//! How loaded a node and the cluster are.
//!
//! Each part is 0 at rest and 1.0 at the node's limit, and is scaled so that the thresholds (CPU 70 %, memory 80 %,
//! pressure 20 %) stand for the same urgency. A node's score is 100 x the 8th root of the weighted sum of 8th powers
//! of its parts: smooth, ruled by the part that is closest to its limit, and higher when several are.
//!
//! The cluster's score is something else: what the way the guests are placed is expected to cost. One point is one
//! percent of an average node for an hour. It adds up, over nodes,
//! - the work that is expected to wait for CPU in the coming four hours ([`forecast`], [`waiting`]): nothing on a node
//!   with cores to spare, all that is too much on a full one, and softly in between;
//! - memory, `30 x part^8`: it has no queue, so the last percents before it is short weigh as much as waiting does;
//! - its NICs, `30 x share^8`, where speed and traffic are known: who talks much should not meet others who do. It is
//!   what passes this minute and no forecast, so it ranks moves and targets but makes no node one to relieve;
//! - guests on a node that is to be emptied, and tags that are not kept ([`crate::repair`]);
//! - in a plan that is made at once, and there only, how uneven the nodes are ([`fleet::Fleet::even_out`]).
//!
//! I/O has no part: a guest that may move has all its disks on shared storage, which has the same work to do wherever
//! the guest runs. I/O pressure of a node is among what it is judged by all the same (the score, the limits of a target).
//!
//! So it is convex (the hottest node counts most), does not reward shuffling among calm nodes, does not depend on how
//! many nodes there are, and weighs nodes by their size, so that a large one is not run hotter than a small one.
//!
//! Only sums, products, quotients and square roots: these give the same bits on every machine, which replay needs.

mod cpu;
pub(crate) mod fleet;
pub(crate) mod forecast;
pub mod health;
mod memory;
pub mod predict;
mod pressure;
pub(crate) mod season;
pub(crate) mod spare;
pub(crate) mod waiting;

use evenkeel_common::decision::Resource;
use evenkeel_common::id::NodeId;
use evenkeel_common::units::Score;
use serde::{Deserialize, Serialize};

use crate::snapshot::{Snapshot, takes_part};
use fleet::{Fleet, NodeLoad};

type Part = fn(&NodeLoad) -> f64;

/// The parts with their weights.
const PARTS: [(Resource, f64, Part); 3] = [
    (Resource::Cpu, 1.0, cpu::part),           // What guests compete for first.
    (Resource::Memory, 1.0, memory::part),     // Hard when it ends, so it weighs as much.
    (Resource::Pressure, 0.5, pressure::part), // A symptom of the other two (or of I/O): half.
];

/// Points of a node that is out of memory.
const MEMORY: f64 = 30.0;

/// Points of a node whose NICs carry all they can.
const NETWORK: f64 = 30.0;

/// Points for each guest on a node that is to be emptied: enough to outweigh what it adds on any calm node.
pub(crate) const STRANDED: f64 = 20.0;

/// Score of one node and what it is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeScore {
    /// Which node.
    pub node: NodeId,
    /// 0 to 100, higher = closer to its limit.
    pub score: Score,
    /// 0 to 100, higher = better as a target; 0 when it takes no guests.
    pub suitability: Score,
    /// The score's parts, 0 to 100 and above when more is asked than there is.
    pub parts: Vec<ScorePart>,
    /// CPU demand now (used and waited for) in percent of its cores.
    pub cpu_percent: f64,
    /// Memory in use now, in percent.
    pub memory_percent: f64,
    /// Highest pressure now, in percent.
    pub pressure_percent: f64,
}

/// One part of a node's score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScorePart {
    /// Of what.
    pub resource: Resource,
    /// 100 = at the limit.
    pub value: f64,
    /// Its weight in the score.
    pub weight: f64,
}

fn pow8(value: f64) -> f64 {
    let square = value * value;
    let fourth = square * square;
    fourth * fourth
}

/// Parts of a node, each 100 at its limit.
pub(crate) fn parts(node: &NodeLoad) -> Vec<ScorePart> {
    PARTS
        .iter()
        .map(|&(resource, weight, part)| ScorePart { resource, value: 100.0 * part(node), weight })
        .collect()
}

/// A node's score, 0 to 100.
pub(crate) fn score(node: &NodeLoad) -> Score {
    let sum: f64 = PARTS.iter().map(|(_, weight, part)| weight * pow8(part(node))).sum();
    Score::clamped(100.0 * sum.sqrt().sqrt().sqrt())
}

/// What the work that is expected to wait on a node adds to the cluster's score, in points.
pub(crate) fn waiting_points(node: &NodeLoad) -> f64 {
    node.cpu_weight * 100.0 * node.waiting() / node.cores
}

/// What a node adds to the cluster's score, in points.
pub(crate) fn strain(node: &NodeLoad) -> f64 {
    let stranded = if node.leaving { STRANDED * f64::from(node.guests) } else { 0.0 };
    let cpu = waiting_points(node);
    let memory = MEMORY * node.memory_weight * pow8(memory::part(node));
    let network = NETWORK * pow8(node.network());
    cpu + memory + network + stranded + node.uneven()
}

/// Scores of all nodes that take part, in the snapshot's order.
pub(crate) fn of_all(snapshot: &Snapshot, fleet: &Fleet) -> Vec<NodeScore> {
    let counted = snapshot.nodes.iter().zip(&fleet.nodes).filter(|(node, _)| takes_part(node));
    counted
        .map(|(node, load)| {
            let score = score(load);
            let pressure = node.pressure;
            let io = pressure.io.unwrap_or(node.iowait_percent);
            NodeScore {
                node: node.id.clone(),
                score,
                suitability: if load.takes { Score::clamped(100.0 - score.get()) } else { Score::MIN },
                parts: parts(load),
                cpu_percent: 100.0 * (node.cpu_used + node.cpu_waited) / load.cores,
                memory_percent: 100.0 * node.memory_used.as_f64() / load.memory,
                pressure_percent: io.max(pressure.cpu.unwrap_or(0.0)).max(pressure.memory.unwrap_or(0.0)),
            }
        })
        .collect()
}

/// Difference of the highest and the lowest score of the nodes that take part.
pub(crate) fn spread(scores: &[NodeScore]) -> f64 {
    let all = || scores.iter().map(|score| score.score.get());
    let (high, low) = (all().fold(0.0, f64::max), all().fold(100.0, f64::min));
    (high - low).max(0.0)
}
