//! The network between simulated nodes, as the probes of their agents would find it.

use evenkeel_common::id::NodeId;
use evenkeel_common::time::Timestamp;

use super::fault::Fault;
use super::fleet::Fleet;
use super::workload::unit;

/// Peers that each node asks.
const PEERS: usize = 4;

/// The way from one node to another at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkUse {
    /// The other node.
    pub peer: NodeId,
    /// Round trip, milliseconds; none while nothing comes back.
    pub latency_ms: Option<f64>,
    /// Mean difference of successive round trips, milliseconds.
    pub jitter_ms: Option<f64>,
    /// Percent of probes without an answer.
    pub loss_percent: f64,
}

impl Fleet {
    /// The ways to the peers that the node asks: the next on the ring, as the aggregator chooses them.
    #[must_use]
    pub fn links(&self, node: &NodeId, at: Timestamp) -> Vec<LinkUse> {
        let names: Vec<&NodeId> = self.nodes.keys().collect();
        let Some(own) = names.iter().position(|name| *name == node) else { return Vec::new() };
        let peers = (1..names.len().min(PEERS + 1)).map(|step| names[(own + step) % names.len()]);
        peers.map(|peer| self.link(node, peer, at)).collect()
    }

    /// A switched network within a rack: some 0.2 ms, now and then a little more, and hardly ever a loss; what is wrong
    /// at either end comes on top.
    fn link(&self, from: &NodeId, to: &NodeId, at: Timestamp) -> LinkUse {
        let name = from.as_str().bytes().chain(to.as_str().bytes());
        let salt = name.fold(self.seed ^ 99, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let noise = |n: u64| unit(salt ^ n, at.as_secs());
        let spike = if noise(1) > 0.99 { 0.4 * noise(2) } else { 0.0 };
        let (mut latency, mut jitter) =
            (0.15 + 0.1 * unit(salt, 0) + 0.05 * noise(3) + spike, 0.02 + 0.02 * noise(4));
        let mut loss: f64 = 0.0;
        for fault in &self.faults {
            match fault {
                Fault::Link { node, extra_ms, loss_percent, during }
                    if (node == from || node == to) && during.contains(at) =>
                {
                    latency += extra_ms * (0.8 + 0.4 * noise(5));
                    jitter += extra_ms * 0.2 * noise(6);
                    loss = loss.max(*loss_percent);
                }
                Fault::Silent { node, during } if node == to && during.contains(at) => loss = 100.0,
                _ => {}
            }
        }
        let answers = loss < 100.0;
        LinkUse {
            peer: to.clone(),
            latency_ms: answers.then_some(latency),
            jitter_ms: answers.then_some(jitter),
            loss_percent: loss,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::id::ClusterId;
    use evenkeel_common::time::Window;

    #[test]
    fn a_slow_link_is_slow_from_both_ends_and_for_as_long_as_ordered() {
        let mut fleet = Fleet::lab(ClusterId::new("lab").unwrap(), 1, Timestamp::from_millis(0));
        let node = |n: u32| NodeId::new(format!("pve{n}")).unwrap();
        let during = Window { from: Timestamp::from_millis(10_000), to: Timestamp::from_millis(20_000) };
        fleet.faults.push(Fault::Link { node: node(2), extra_ms: 20.0, loss_percent: 10.0, during });
        for (second, slow) in [(5, false), (15, true), (25, false)] {
            let at = Timestamp::from_millis(second * 1000);
            let links: Vec<LinkUse> = (1..=8).flat_map(|n| fleet.links(&node(n), at)).collect();
            assert_eq!(links.len(), 32);
            let lossy = links.iter().filter(|link| link.loss_percent == 10.0).count();
            let late = links.iter().filter(|link| link.latency_ms.is_some_and(|ms| ms > 10.0)).count();
            // Its own four, and the four that ask it.
            assert_eq!((lossy, late), if slow { (8, 8) } else { (0, 0) }, "second {second}");
        }
    }
}
