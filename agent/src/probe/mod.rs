//! The probe mesh: every agent asks a few others once a second over UDP how they are, which gives latency, jitter and
//! loss between nodes. The aggregator names the peers and hands out the cluster's key; nobody else is answered.
//!
//! [`Probed`] adds the figures to what another source reads, so that they are series like all others. The socket
//! lives in a task of its own beside the ticks ([`run`]) and takes the time when a packet goes out and comes in; it
//! asks halfway between two ticks, when this agent's one thread is free, and what a tick of the other side adds now
//! and then does not show in a median.

mod mesh;
mod packet;
mod peer;
mod socket;
#[cfg(test)]
mod tests;

pub use mesh::{MAX_PEERS, Membership, Mesh, Peer};
pub use peer::Figures;
pub use socket::{bind, run};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_common::node::NodeFacts;
use evenkeel_common::sample::{MAX_INSTANCE_LEN, Metric, SeriesId, SeriesKey};
use evenkeel_common::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::collect::source::{Fault, Reading, Registry, Source};

/// Latency, jitter and loss between nodes, measured by the agents themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProbeConfig {
    /// Whether this agent takes part: it asks peers that the aggregator names, and answers them.
    pub enabled: bool,
    /// Address and UDP port to listen on. Peers reach it at the address from which this agent connects to the
    /// aggregator, so that this port must be open between the nodes of the cluster, and nowhere else.
    pub listen: SocketAddr,
    /// Most peers that are asked. Each costs two packets of 40 bytes an interval.
    #[schemars(range(min = 1, max = 16))]
    pub max_peers: u8,
    /// Milliseconds between two questions to the same peer. Loss is told over thirty of them. Below 250 peers answer
    /// only a part.
    #[schemars(range(min = 200, max = 10_000))]
    pub interval_ms: u32,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        let listen = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 7444));
        Self { enabled: true, listen, max_peers: 4, interval_ms: 1000 }
    }
}

/// Another source, and the figures of the mesh beside it.
pub struct Probed {
    inner: Box<dyn Source>,
    mesh: Mesh,
    /// Series of each peer.
    series: BTreeMap<String, [Option<SeriesId>; 3]>,
    /// Series of the node itself: medians over the peers.
    own: [Option<SeriesId>; 3],
}

/// What is measured, in the order of [`Figures`].
pub const METRICS: [Metric; 3] = [Metric::ProbeLatency, Metric::ProbeJitter, Metric::ProbeLoss];
/// Peers from which on a node has figures of its own. With one peer nobody can tell whose fault it is.
const FEWEST_PEERS: usize = 2;

/// What the ways to most peers are like: the median of their figures, the lower one of two, so that it stays where it
/// is when a single peer is slow or gone, and moves when this node's own link does. `None` with fewer than two peers.
#[must_use]
pub fn own_figure(mut of_peers: Vec<f64>) -> Option<f64> {
    of_peers.sort_by(f64::total_cmp);
    of_peers.get(of_peers.len().saturating_sub(1) / 2).copied().filter(|_| of_peers.len() >= FEWEST_PEERS)
}

impl Probed {
    /// Adds what `mesh` knows to `inner`.
    #[must_use]
    pub fn new(inner: Box<dyn Source>, mesh: Mesh) -> Self {
        Self { inner, mesh, series: BTreeMap::new(), own: [None; 3] }
    }
}

impl Source for Probed {
    fn facts(&mut self) -> NodeFacts {
        let mut facts = self.inner.facts();
        facts.blind_spots.extend(self.mesh.fault());
        facts
    }

    fn read(&mut self, at: Timestamp, uptime: Duration, registry: &mut Registry) -> Reading {
        let mut reading = self.inner.read(at, uptime, registry);
        let figures = self.mesh.figures(uptime);
        self.series.retain(|node, series| {
            let stays = figures.iter().any(|(name, _)| name == node);
            if !stays {
                series.iter().flatten().for_each(|id| registry.retire(*id));
            }
            stays
        });
        let mut all: [Vec<f64>; 3] = Default::default();
        for (node, figures) in figures {
            let Some(Figures { latency_ms, jitter_ms, loss_percent }) = figures else { continue };
            let values = [latency_ms, jitter_ms, Some(loss_percent)];
            let series = self.series.entry(node.clone()).or_default();
            for (((metric, value), id), all) in METRICS.into_iter().zip(values).zip(series).zip(&mut all) {
                let Some(value) = value else { continue };
                all.push(value);
                if id.is_none() {
                    let name: String = node.chars().take(MAX_INSTANCE_LEN).collect();
                    *id = registry.intern(&SeriesKey::device(metric, name));
                }
                reading.tick.values.extend(id.map(|id| (id, value)));
            }
        }
        for ((metric, of_peers), id) in METRICS.into_iter().zip(all).zip(&mut self.own) {
            let Some(value) = own_figure(of_peers) else { continue };
            *id = id.or_else(|| registry.intern(&SeriesKey::node(metric)));
            reading.tick.values.extend(id.map(|id| (id, value)));
        }
        reading.tick.values.sort_unstable_by_key(|(id, _)| *id);
        let fault = self.mesh.fault().map(|message| Fault { collector: "probe", message });
        reading.faults.extend(fault);
        reading
    }
}
