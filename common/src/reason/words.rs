//! How reasons put their numbers and names.

use std::fmt;

use crate::decision::{Mover, Resource};
use crate::guest::ProfileClass;
use crate::id::NodeId;

/// Names one after the other, with commas.
pub(super) fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

pub(super) fn arrows(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join("->")
}

pub(super) const fn mover(by: Mover) -> &'static str {
    match by {
        Mover::Evenkeel => "evenkeel",
        Mover::Foreign => "someone else",
    }
}

pub(super) fn gains(improvement: f64, needed: f64) -> String {
    if improvement <= -0.005 {
        format!("would make the cluster worse by {:.2} points", -improvement)
    } else {
        format!("improves the cluster by only {:.2} points, {needed:.2} are needed", improvement.max(0.0))
    }
}

pub(super) fn verb(nodes: &[NodeId]) -> String {
    format!("{} {}", list(nodes), if nodes.len() == 1 { "is" } else { "are" })
}

/// A second of the day as people write it.
pub(super) fn clock(second: u32) -> String {
    format!("{:02}:{:02}", second / 3600, second / 60 % 60)
}

pub(super) const fn resource_word(resource: Resource) -> &'static str {
    match resource {
        Resource::Cpu => "CPU",
        Resource::Memory => "memory",
        Resource::Pressure => "pressure",
        Resource::Network => "network",
    }
}

pub(super) const fn basis(class: ProfileClass) -> &'static str {
    match class {
        ProfileClass::Steady => "steady: its average",
        ProfileClass::Bursty => "bursty: its 95th percentile",
        ProfileClass::Growing => "growing: 48 h ahead",
        ProfileClass::Cyclical => "cyclical: its peak hour",
        ProfileClass::Unknown => {
            "without or outside of its profile: the higher of now and its 95th percentile"
        }
    }
}
