//! What the moves of an answer come to: each move as a person has to know it, the nodes before and after, and whether
//! one more of them may fail then.

use evenkeel_common::decision::{Recommendation, Resource};
use evenkeel_common::id::NodeId;
use evenkeel_common::reason::Reason;
use evenkeel_common::units::Bytes;

use super::Ground;
use crate::score;
use crate::score::fleet::Fleet;
use crate::score::spare::Supposed;
use crate::snapshot::takes_part;

/// One guest that moves.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// Target, cost and evidence.
    pub recommendation: Recommendation,
    /// A container: it is stopped and started, not moved live.
    pub restart: bool,
    /// Whether evenkeel itself may do it: a container's tags must allow the restart.
    pub allowed: bool,
}

/// A node before and after; percent of what it has, as expected.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // The names say it.
pub struct NodeAfter {
    pub node: NodeId,
    pub score_before: f64,
    pub score_after: f64,
    pub cpu_before: f64,
    pub cpu_after: f64,
    pub memory_before: f64,
    pub memory_after: f64,
}

/// A node whose failure the rest could not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFailure {
    /// Which node.
    pub node: NodeId,
    /// Guests that would find no memory, by the largest first.
    pub guests: u32,
    /// Memory that they need.
    pub memory: Bytes,
}

impl Ground<'_> {
    /// Nodes whose figures count, by index.
    pub(super) fn counted(&self) -> Vec<usize> {
        let counts = |index: &usize| takes_part(&self.snapshot.nodes[*index]);
        (0..self.snapshot.nodes.len()).filter(counts).collect()
    }

    /// These nodes before and after.
    pub(super) fn after(&self, fleet: &Fleet, nodes: &[usize]) -> Vec<NodeAfter> {
        let shown = |&index: &usize| {
            let (before, after) = (&self.fleet.nodes[index], &fleet.nodes[index]);
            NodeAfter {
                node: self.snapshot.nodes[index].id.clone(),
                score_before: score::score(before).get(),
                score_after: score::score(after).get(),
                cpu_before: before.cpu_percent(),
                cpu_after: after.cpu_percent(),
                memory_before: before.memory_percent(),
                memory_after: after.memory_percent(),
            }
        };
        nodes.iter().map(shown).collect()
    }

    /// Those of these nodes that the moves would bring over a threshold.
    pub(super) fn newly_over(&self, fleet: &Fleet, nodes: &[usize]) -> Vec<Reason> {
        let over = |&index: &usize| {
            let (before, after) = (&self.fleet.nodes[index], &fleet.nodes[index]);
            let parts = [
                (Resource::Cpu, before.cpu_percent(), after.cpu_percent(), self.policy.cpu_threshold),
                (
                    Resource::Memory,
                    before.memory_percent(),
                    after.memory_percent(),
                    self.policy.mem_threshold,
                ),
            ];
            let (resource, _, percent, limit_percent) =
                parts.into_iter().find(|(_, before, after, limit)| after > limit && before <= limit)?;
            let target = self.snapshot.nodes[index].id.clone();
            Some(Reason::TargetOverLimit { target, resource, percent, limit_percent })
        };
        nodes.iter().filter_map(over).collect()
    }

    /// Those of these nodes whose guests would not find memory on the rest if they failed.
    pub(super) fn failures(&self, fleet: &Fleet, nodes: &[usize]) -> Vec<NodeFailure> {
        let stranded = Supposed::as_is(fleet).stranded();
        let fails = |&index: &usize| {
            let (guests, memory) = (stranded[index].guests, Bytes::from_f64(stranded[index].memory));
            let node = self.snapshot.nodes[index].id.clone();
            (guests > 0).then_some(NodeFailure { node, guests, memory })
        };
        nodes.iter().filter_map(fails).collect()
    }
}
