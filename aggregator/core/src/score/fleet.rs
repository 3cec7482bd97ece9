//! The cluster in numbers, laid out for the search: what a move changes is two nodes' sums.

use crate::policy::Policy;
use crate::score::forecast::HOURS;
use crate::score::predict::{Predicted, predict};
use crate::score::waiting;
use crate::snapshot::{NodeState, Snapshot, takes_part};

/// Standard deviation of what a node will ask for, as a share of it, beyond its guests' bursts: no forecast is exact.
const DOUBT: f64 = 0.1;

/// Share of a node's cores by which its guests' vCPUs exceed them until bursts count in full.
const CROWDED: f64 = 0.25;

/// Share of a node's hours that is spent waiting, from which on it is worth a look.
const WAITS: f64 = 0.005;

/// Points for one squared percentage point in the variance of the nodes' use, where evenness counts.
const EVEN: f64 = 9.0;

/// Expected load of one node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeLoad {
    /// Capacity in cores.
    pub cores: f64,
    /// Capacity in bytes.
    pub memory: f64,
    /// Size against the cluster's mean node.
    pub cpu_weight: f64,
    pub memory_weight: f64,
    /// CPU of the host itself.
    base: f64,
    /// Sum of its guests' levels, and of the squares of their spreads.
    level: f64,
    spread_squared: f64,
    /// Mean cores asked for in the coming hours, host and guests, and the variance of what is runnable.
    ahead: [f64; HOURS],
    bursts: [f64; HOURS],
    /// vCPUs of its guests.
    vcpus: f64,
    /// Expected memory in use, host and guests.
    pub memory_used: f64,
    /// Traffic of its NICs, host and guests, and what they can carry, in MB/s; 0 when not known.
    net: f64,
    link: f64,
    /// Guests that run on it.
    pub guests: u32,
    /// CPU pressure as measured, and the demand it was measured at.
    cpu_pressure: f64,
    demand_then: f64,
    /// Highest of memory and I/O pressure: not known by guest, so a move changes nothing about it.
    other_pressure: f64,
    /// Points for each squared percentage point between its use and what is even, and what is even (0 to 1).
    even: f64,
    even_use: f64,
    /// Whether guests may come.
    pub takes: bool,
    /// Whether it is to be emptied.
    pub leaving: bool,
}

impl NodeLoad {
    /// Expected CPU demand in cores.
    pub(crate) fn cpu_demand(&self) -> f64 {
        self.base + self.level + self.spread_squared.sqrt()
    }

    /// Expected CPU demand in percent; above 100 when more is asked than there is.
    pub(crate) fn cpu_percent(&self) -> f64 {
        100.0 * self.cpu_demand() / self.cores
    }

    /// Work that is expected to wait in the coming hours, in core hours.
    pub(crate) fn waiting(&self) -> f64 {
        // No two vCPUs share a core while there is one for each; a few more than cores make no cliff.
        let crowded = ((self.vcpus - self.cores) / (CROWDED * self.cores)).clamp(0.0, 1.0);
        let hours = self.ahead.iter().zip(self.bursts);
        let waits = hours.map(|(&mean, bursts)| {
            let doubt = DOUBT * mean;
            waiting::expected(mean, doubt * doubt + crowded * bursts, self.cores)
        });
        waits.sum()
    }

    /// Whether work is expected to wait at all.
    pub(crate) fn waits(&self) -> bool {
        self.takes && self.waiting() > WAITS * self.cores
    }

    /// Expected CPU demand of the busiest of the coming hours, in percent.
    pub(crate) fn ahead_percent(&self) -> f64 {
        100.0 * self.ahead.iter().fold(0.0, |a: f64, &b| a.max(b)) / self.cores
    }

    pub(crate) fn memory_percent(&self) -> f64 {
        100.0 * self.memory_used / self.memory
    }

    /// Share of what its NICs can carry that they do carry; 0 when not known.
    pub(crate) fn network(&self) -> f64 {
        if self.link > 0.0 { self.net / self.link } else { 0.0 }
    }

    /// Expected highest pressure. CPU pressure follows demand in proportion, to twice what was measured at most.
    pub(crate) fn pressure_percent(&self) -> f64 {
        let ratio =
            if self.demand_then > 0.0 { (self.cpu_demand() / self.demand_then).min(2.0) } else { 1.0 };
        (self.cpu_pressure * ratio).min(100.0).max(self.other_pressure)
    }

    /// Mean of the shares of CPU and memory in use, as PVE's own balancer counts: 1.0 = full.
    fn used(&self) -> f64 {
        let cpu = self.ahead.iter().sum::<f64>() / self.ahead.len() as f64;
        (cpu / self.cores + self.memory_used / self.memory) / 2.0
    }

    /// What its distance from even adds to the cluster's score, in points.
    pub(crate) fn uneven(&self) -> f64 {
        if self.even == 0.0 {
            return 0.0;
        }
        let percent = 100.0 * (self.used() - self.even_use);
        self.even * percent * percent
    }

    /// Whether it has more than is even, where that counts.
    pub(crate) fn above_even(&self) -> bool {
        self.even > 0.0 && self.used() > self.even_use
    }

    /// The same node with this guest too.
    pub(crate) fn with(mut self, guest: &Predicted) -> Self {
        self.level += guest.level;
        self.spread_squared += guest.spread * guest.spread;
        self.memory_used += guest.memory;
        self.net += guest.net;
        self.vcpus += guest.vcpus;
        for hour in 0..HOURS {
            self.ahead[hour] += guest.ahead[hour];
            self.bursts[hour] += guest.bursts[hour];
        }
        self.guests += 1;
        self
    }

    /// The same node without this guest of its own.
    pub(crate) fn without(mut self, guest: &Predicted) -> Self {
        self.level = (self.level - guest.level).max(0.0);
        self.spread_squared = (self.spread_squared - guest.spread * guest.spread).max(0.0);
        self.memory_used = (self.memory_used - guest.memory).max(0.0);
        self.net = (self.net - guest.net).max(0.0);
        self.vcpus = (self.vcpus - guest.vcpus).max(0.0);
        for hour in 0..HOURS {
            self.ahead[hour] = (self.ahead[hour] - guest.ahead[hour]).max(0.0);
            self.bursts[hour] = (self.bursts[hour] - guest.bursts[hour]).max(0.0);
        }
        self.guests = self.guests.saturating_sub(1);
        self
    }
}

/// Expected loads of a sorted snapshot; indices are its.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    pub nodes: Vec<NodeLoad>,
    /// What each guest is expected to need; zero for those that do not run.
    pub guests: Vec<Predicted>,
    /// Node of each guest.
    pub place: Vec<usize>,
    /// Whether evenness counts.
    pub evens_out: bool,
    /// Share of memory a target keeps free.
    reserve: f64,
}

impl Fleet {
    pub(crate) fn of(snapshot: &Snapshot, policy: &Policy) -> Self {
        let counted: Vec<_> = snapshot.nodes.iter().filter(|node| takes_part(node)).collect();
        #[allow(clippy::cast_precision_loss)] // Far below 2^53.
        let mean = |sum: f64| sum / counted.len().max(1) as f64;
        let mean_cores = mean(counted.iter().map(|node| node.cores).sum());
        let mean_memory = mean(counted.iter().map(|node| node.memory.as_f64()).sum());
        let mut nodes: Vec<_> =
            snapshot.nodes.iter().map(|node| empty(node, mean_cores, mean_memory)).collect();

        let (mut guests, mut place) = (Vec::new(), Vec::new());
        for guest in &snapshot.guests {
            let at = snapshot.node_index(&guest.node).unwrap_or_default();
            let mut predicted = predict(guest, snapshot.at);
            if guest.running {
                let node = &mut nodes[at];
                // What the guests use is not the host's own. A guest without figures counts as its node's.
                node.base -= guest.cpu_used.unwrap_or(0.0) + guest.cpu_waited;
                node.memory_used -= guest.memory_used.as_f64();
                node.net -= guest.net_mb_s.unwrap_or(0.0);
            } else {
                predicted = predicted.at_rest();
            }
            guests.push(predicted);
            place.push(at);
        }
        for node in &mut nodes {
            // Below zero when figures are of different seconds, memory pages are shared, or guests talk to each other.
            node.base = node.base.max(0.0);
            node.memory_used = node.memory_used.max(0.0);
            node.net = node.net.max(0.0);
            node.ahead = [node.base; HOURS];
        }
        for ((guest, state), &at) in guests.iter().zip(&snapshot.guests).zip(&place) {
            if state.running {
                nodes[at] = nodes[at].with(guest);
            }
        }
        for node in &mut nodes {
            node.demand_then = node.cpu_demand();
        }
        Self { nodes, guests, place, evens_out: false, reserve: policy.memory_reserve_percent / 100.0 }
    }

    /// Makes evenness count from here on: the variance of the nodes' use as it is now, in points.
    ///
    /// For a plan that is made at once. What is done run by run leaves nodes at ease alone, since what is uneven
    /// harms nobody until somebody waits, and then there is another run; a plan has no later run.
    pub(crate) fn even_out(&mut self) {
        let counted = || self.nodes.iter().filter(|node| node.takes);
        let count = counted().count().max(1) as f64;
        let mean = counted().map(NodeLoad::used).sum::<f64>() / count;
        self.evens_out = true;
        for node in self.nodes.iter_mut().filter(|node| node.takes) {
            (node.even, node.even_use) = (EVEN / count, mean);
        }
    }

    /// Evenness counts no longer.
    pub(crate) fn as_it_is(&mut self) {
        self.evens_out = false;
        self.nodes.iter_mut().for_each(|node| node.even = 0.0);
    }

    /// Moves a guest.
    pub(crate) fn apply(&mut self, guest: usize, target: usize) {
        let source = self.place[guest];
        self.nodes[source] = self.nodes[source].without(&self.guests[guest]);
        self.nodes[target] = self.nodes[target].with(&self.guests[guest]);
        self.place[guest] = target;
    }

    /// Bytes a target keeps free.
    pub(crate) fn reserve_of(&self, target: usize) -> f64 {
        self.reserve * self.nodes[target].memory
    }

    /// Whether guests fit a target's memory with the reserve kept.
    pub(crate) fn fits(&self, guests: &[usize], target: usize) -> bool {
        let node = &self.nodes[target];
        let used = guests.iter().fold(node.memory_used, |used, &guest| used + self.guests[guest].memory);
        used <= node.memory - self.reserve_of(target)
    }
}

/// A node without its guests: `base` and `memory_used` still hold the whole node's figures.
fn empty(node: &NodeState, mean_cores: f64, mean_memory: f64) -> NodeLoad {
    let part = takes_part(node);
    // A node that takes no part may have no capacity on record.
    let cores = if node.cores > 0.0 { node.cores } else { 1.0 };
    let memory = if node.memory.0 > 0 { node.memory.as_f64() } else { 1.0 };
    let weight = |own: f64, mean: f64| if part && mean > 0.0 { own / mean } else { 0.0 };
    NodeLoad {
        cores,
        memory,
        cpu_weight: weight(cores, mean_cores),
        memory_weight: weight(memory, mean_memory),
        base: node.cpu_used + node.cpu_waited,
        level: 0.0,
        spread_squared: 0.0,
        ahead: [0.0; HOURS],
        bursts: [0.0; HOURS],
        vcpus: 0.0,
        memory_used: node.memory_used.as_f64(),
        net: node.net_mb_s.unwrap_or(0.0),
        // Without its traffic the speed tells nothing.
        link: node.net_mb_s.and(node.link_mb_s).unwrap_or(0.0),
        guests: 0,
        cpu_pressure: node.pressure.cpu.unwrap_or(0.0),
        demand_then: 0.0,
        even: 0.0,
        even_use: 0.0,
        other_pressure: node
            .pressure
            .memory
            .unwrap_or(0.0)
            .max(node.pressure.io.unwrap_or(node.iowait_percent)),
        takes: part && !node.maintenance,
        leaving: part && node.maintenance,
    }
}
