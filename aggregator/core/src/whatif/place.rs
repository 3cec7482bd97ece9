//! Where a new guest belongs: every node with its score before and after, or why it is out.
//!
//! Nobody knows what a guest that is not there yet will need. Its memory is taken in full; its CPU, unless told, as half
//! of its vCPUs. The node where the cluster's score rises least comes first.

use evenkeel_common::decision::Resource;
use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::reason::Reason;
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Bytes;

use super::{Ground, WhatifError, arrived, doubts};
use crate::policy::Policy;
use crate::score::fleet::{Fleet, NodeLoad};
use crate::snapshot::{GuestState, NodeState, Pressure, Snapshot, takes_part};
use crate::{recommend, score};

/// Most that a guest may ask for; Proxmox VE's own limits are lower.
const MOST_VCPUS: f64 = 8192.0;
const MOST_MEMORY: Bytes = Bytes::gib(64 * 1024);
/// Most tags of a guest.
const MOST_TAGS: usize = 64;
/// Where the new guest waits: a node that takes no part, under a name that no node has.
const LIMBO: &str = "not-placed-yet";

/// A guest that is to be made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewGuest {
    /// CPUs it will see.
    pub vcpus: f64,
    /// Memory it will have.
    pub memory: Bytes,
    /// CPU it is expected to use, in cores; without: half of its vCPUs.
    pub cpu_load: Option<f64>,
    /// Storage its disks will lie on, if that is known.
    pub disk_storage: Option<String>,
    /// Tags it will have: pins and groups count.
    pub tags: Vec<String>,
}

/// Where it belongs.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// As of when.
    pub at: Timestamp,
    /// Why there is no answer, if so: all else is empty then.
    pub problems: Vec<Reason>,
    /// Tags that could not be followed, and what else to know.
    pub cautions: Vec<Reason>,
    /// CPU that was expected of it, in cores.
    pub cpu_load: f64,
    /// The best node; `None` when it fits nowhere.
    pub best: Option<NodeId>,
    /// All nodes, the best first, those that are out last.
    pub nodes: Vec<NodeChoice>,
}

/// One node as a home.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeChoice {
    /// Which.
    pub node: NodeId,
    /// Whether the guest may go there.
    pub fits: bool,
    /// Its score, 0 to 100, without the guest and with it; `None` where it takes no part.
    pub scores: Option<(f64, f64)>,
    /// Memory that would stay free beyond the node's reserve, in bytes; below zero = it lacks that much. `None` where it
    /// takes no part.
    pub free_after_reserve: Option<f64>,
    /// Why it is out; or, where it fits, what it would be short of.
    pub reason: Option<Reason>,
}

impl NewGuest {
    fn checked(&self) -> Result<f64, WhatifError> {
        let bad = |what, given: String, allowed: String| Err(WhatifError::BadGuest { what, given, allowed });
        if !(self.vcpus > 0.0 && self.vcpus <= MOST_VCPUS) {
            return bad("vcpus", self.vcpus.to_string(), format!("above 0, to {MOST_VCPUS}"));
        }
        if self.memory.0 == 0 || self.memory > MOST_MEMORY {
            return bad("memory", self.memory.to_string(), format!("above 0, to {MOST_MEMORY}"));
        }
        let load = self.cpu_load.unwrap_or(self.vcpus / 2.0);
        if !(0.0..=self.vcpus).contains(&load) {
            return bad("cpu-load", load.to_string(), format!("0 to its {} vCPUs, in cores", self.vcpus));
        }
        if self.tags.len() > MOST_TAGS || self.tags.iter().any(|tag| tag.is_empty() || tag.len() > 128) {
            return bad("tags", self.tags.len().to_string(), format!("{MOST_TAGS} of 1 to 128 bytes"));
        }
        Ok(load)
    }
}

/// Ranks the nodes for a new guest.
///
/// # Errors
/// [`WhatifError::BadGuest`].
pub fn place(input: &Snapshot, policy: &Policy, guest: &NewGuest) -> Result<Placement, WhatifError> {
    let cpu_load = guest.checked()?;
    let snapshot = arrived(input);
    let (mut problems, cautions) = doubts(&snapshot, policy);
    // A node alone has nowhere to move guests to, but new ones can be put on it.
    problems.retain(|problem| !matches!(problem, Reason::TooFewNodes { nodes: 1.. }));
    let mut answer = Placement { at: input.at, problems, cautions, cpu_load, best: None, nodes: Vec::new() };
    if !answer.problems.is_empty() {
        return Ok(answer);
    }
    let Some((ground, index)) = Ground::with_new(snapshot, policy, guest, cpu_load) else {
        return Ok(answer);
    };
    let own = |reason: &&Reason| matches!(reason, Reason::TagNotUnderstood { guest, .. } if *guest == ground.snapshot.guests[index].vmid);
    answer.cautions.extend(ground.facts.warnings().iter().filter(own).cloned());
    let home = ground.fleet.place[index];
    let nodes = (0..ground.fleet.nodes.len()).filter(|&target| target != home);
    let mut ranked: Vec<_> = nodes.map(|target| ground.choice(index, home, target)).collect();
    // What the cluster would hardly feel is decided by the node's own score.
    let felt = |charge: f64| (charge * 100.0).round();
    let after = |choice: &NodeChoice| choice.scores.map_or(f64::INFINITY, |(_, after)| after);
    ranked.sort_by(|(a, left), (b, right)| {
        let by_cluster = right.fits.cmp(&left.fits).then(felt(*b).total_cmp(&felt(*a)));
        by_cluster.then(after(left).total_cmp(&after(right))).then(left.node.cmp(&right.node))
    });
    answer.nodes = ranked.into_iter().map(|(_, choice)| choice).collect();
    answer.best = answer.nodes.first().filter(|choice| choice.fits).map(|choice| choice.node.clone());
    Ok(answer)
}

impl<'a> Ground<'a> {
    /// The ground with the new guest in limbo, and its index. `None` where no number is free, which can not happen.
    fn with_new(
        mut snapshot: Snapshot,
        policy: &'a Policy,
        guest: &NewGuest,
        cpu_load: f64,
    ) -> Option<(Self, usize)> {
        let taken = |name: &str| snapshot.nodes.iter().any(|node| node.id.as_str() == name);
        let names = (0..).map(|n| if n == 0 { LIMBO.to_owned() } else { format!("{LIMBO}-{n}") });
        let limbo = NodeId::new(names.into_iter().find(|name| !taken(name))?).ok()?;
        let free = |number: &u32| !snapshot.guests.iter().any(|guest| guest.vmid.get() == *number);
        let vmid = Vmid::new((100..=999_999_999).rev().find(free)?).ok()?;
        snapshot.nodes.push(nowhere(limbo.clone()));
        snapshot.guests.push(GuestState {
            vmid,
            name: String::new(),
            kind: GuestKind::Qemu,
            node: limbo.clone(),
            running: true,
            template: false,
            lock: None,
            disputed: None,
            vcpus: guest.vcpus,
            memory_max: guest.memory,
            memory_used: guest.memory,
            cpu_used: Some(cpu_load),
            cpu_waited: 0.0,
            profile: None,
            tags: guest.tags.clone(),
            ha_state: None,
            local_disks: Vec::new(),
            local_disk_bytes: Bytes(0),
            devices: Vec::new(),
            storages: guest.disk_storage.iter().cloned().collect(),
            cpu_host: false,
            disks: 0,
            dirty_mb_s: None,
            net_mb_s: None,
        });
        let mut ground = Self::new(snapshot.sorted(), policy);
        let index = ground.snapshot.guest_index(vmid)?;
        // Tags that keep a guest where it is say nothing about where it begins.
        let tags = &mut ground.facts.tags[index];
        tags.ignore = None;
        if let Some(stay) = tags.pins.iter().position(|pin| *pin == limbo) {
            tags.pins.remove(stay);
            tags.pin_tags.retain(|tag| tag != "evenkeel-pin");
        }
        Some((ground, index))
    }

    /// One node as a home, and by how much the cluster's score falls (as a rule, below zero).
    fn choice(&self, guest: usize, home: usize, target: usize) -> (f64, NodeChoice) {
        let mut after = self.fleet.clone();
        after.apply(guest, target);
        let state = &self.snapshot.nodes[target];
        let counts = takes_part(state).then_some(&after.nodes[target]);
        let objection = self
            .objection(&after, guest, home, target)
            .or_else(|| self.apart_from_its_group(&after, guest, target))
            .or_else(|| self.too_full(&after, target))
            .or_else(|| over(&state.id, &after.nodes[target], 100.0, 100.0));
        let short = || {
            let Policy { cpu_threshold, mem_threshold, .. } = *self.policy;
            over(&state.id, &after.nodes[target], cpu_threshold, mem_threshold)
        };
        let choice = NodeChoice {
            node: state.id.clone(),
            fits: objection.is_none(),
            scores: counts
                .map(|load| (score::score(&self.fleet.nodes[target]).get(), score::score(load).get())),
            free_after_reserve: counts.map(|load| load.memory - load.memory_used - after.reserve_of(target)),
            reason: objection.or_else(short),
        };
        (recommend::charge(&self.fleet, guest, target), choice)
    }

    /// A group that stays together takes its new member where its others are; where it is spread, anywhere among them.
    fn apart_from_its_group(&self, fleet: &Fleet, guest: usize, target: usize) -> Option<Reason> {
        self.facts.tags[guest].together.iter().find_map(|group| {
            let runs = |member: &&usize| **member != guest && self.snapshot.guests[**member].running;
            let peers: Vec<usize> = self.facts.groups.get(group)?.iter().filter(runs).copied().collect();
            let first = fleet.place[*peers.first()?];
            let apart = peers.iter().all(|&peer| fleet.place[peer] != target);
            let on_first = peers.iter().filter(|&&peer| fleet.place[peer] == first);
            apart.then(|| Reason::TagTogether {
                group: group.clone(),
                peers: on_first.map(|&peer| self.snapshot.guests[peer].vmid).collect(),
                source: self.snapshot.nodes[first].id.clone(),
            })
        })
    }
}

/// What a node would have too little of, by these limits in percent.
fn over(node: &NodeId, load: &NodeLoad, cpu: f64, memory: f64) -> Option<Reason> {
    let parts = [(Resource::Cpu, load.cpu_percent(), cpu), (Resource::Memory, load.memory_percent(), memory)];
    let (resource, percent, limit_percent) = parts.into_iter().find(|(_, after, limit)| after > limit)?;
    Some(Reason::TargetOverLimit { target: node.clone(), resource, percent, limit_percent })
}

/// A node that takes no part in anything.
fn nowhere(id: NodeId) -> NodeState {
    NodeState {
        id,
        online: false,
        maintenance: false,
        barred: None,
        agent_age_s: None,
        cores: 0.0,
        memory: Bytes(0),
        memory_used: Bytes(0),
        cpu_used: 0.0,
        cpu_waited: 0.0,
        net_mb_s: None,
        link_mb_s: None,
        demand_trail: Vec::new(),
        pressure: Pressure::default(),
        iowait_percent: 0.0,
        cpu_model: None,
        storages: std::collections::BTreeSet::new(),
    }
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
