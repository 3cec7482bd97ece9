//! A simulated node behind the same seam as the real collectors.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel_agent::collect::source::{Reading, Registry, Source};
use evenkeel_agent::probe::{METRICS, own_figure};
use evenkeel_common::guest::GuestFacts;
use evenkeel_common::id::NodeId;
use evenkeel_common::node::NodeFacts;
use evenkeel_common::sample::{Metric, SeriesKey, Tick};
use evenkeel_common::time::Timestamp;

use super::fleet::{Fleet, NodeUse};
use super::workload::unit;

/// Reads one node of a fleet.
#[derive(Debug)]
pub struct SimSource {
    fleet: Arc<Mutex<Fleet>>,
    node: NodeId,
    told: Option<Vec<GuestFacts>>,
}

impl SimSource {
    /// The source of one node.
    #[must_use]
    pub fn new(fleet: Arc<Mutex<Fleet>>, node: NodeId) -> Self {
        Self { fleet, node, told: None }
    }
}

impl Source for SimSource {
    fn facts(&mut self) -> NodeFacts {
        let fleet = self.fleet.lock().unwrap_or_else(PoisonError::into_inner);
        let node = fleet.nodes.get(&self.node);
        NodeFacts {
            hostname: self.node.to_string(),
            cpus: node.map_or(0, |n| n.cores as u32),
            memory: node.map(|n| n.memory).unwrap_or_default(),
            kernel: "6.17.2-1-pve".into(),
            pve_version: "9.2.11".into(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            boot_id: format!("sim-{}-{}", fleet.seed, self.node),
            psi: true,
            link_mbps: 10_000,
            blind_spots: vec!["simulated node".into()],
        }
    }

    fn read(&mut self, at: Timestamp, uptime: Duration, registry: &mut Registry) -> Reading {
        let fleet = self.fleet.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tick = Tick { at, uptime, values: Vec::new() };
        let Some(seen) = fleet.node_use(&self.node, at) else {
            return Reading { tick, guests: None, faults: vec![] };
        };
        let total = fleet.nodes.get(&self.node).map_or(1.0, |n| n.memory.as_f64());
        let mut put = |key: SeriesKey, value: f64| {
            if let Some(id) = registry.intern(&key) {
                tick.values.push((id, value));
            }
        };
        host_values(&self.node, &seen, total, at, &mut put);
        let mut of_peers: [Vec<f64>; 3] = Default::default();
        for link in fleet.links(&self.node, at) {
            let values = [link.latency_ms, link.jitter_ms, Some(link.loss_percent)];
            for ((metric, value), all) in METRICS.into_iter().zip(values).zip(&mut of_peers) {
                let Some(value) = value else { continue };
                put(SeriesKey::device(metric, link.peer.as_str()), value);
                all.push(value);
            }
        }
        for (metric, of_peers) in METRICS.into_iter().zip(of_peers) {
            if let Some(value) = own_figure(of_peers) {
                put(SeriesKey::node(metric), value);
            }
        }
        for guest in seen.guests.iter().filter(|guest| !fleet.is_mute(guest.vmid, at)) {
            let series = |metric| SeriesKey::guest(guest.vmid, metric);
            put(series(Metric::GuestCpu), guest.cpu);
            put(series(Metric::GuestMem), guest.memory);
            put(series(Metric::GuestPsiCpuSome), 100.0 * guest.waited);
            let [read, write, into, out] = guest.traffic;
            put(series(Metric::GuestDiskRead), read);
            put(series(Metric::GuestDiskWrite), write);
            put(series(Metric::GuestNetIn), into);
            put(series(Metric::GuestNetOut), out);
        }
        tick.values.sort_unstable_by_key(|(id, _)| *id);
        let now: Vec<GuestFacts> = fleet
            .guests
            .values()
            .filter(|g| g.node == self.node)
            .map(super::fleet::SimGuest::facts)
            .collect();
        let guests = (self.told.as_ref() != Some(&now)).then(|| now.clone());
        self.told = Some(now);
        Reading { tick, guests, faults: vec![] }
    }
}

fn host_values(
    node: &NodeId,
    seen: &NodeUse,
    total: f64,
    at: Timestamp,
    put: &mut impl FnMut(SeriesKey, f64),
) {
    let salt = node.as_str().bytes().fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
    let noise = |n: u64| unit(salt ^ n, at.as_secs());
    put(SeriesKey::node(Metric::CpuUsed), seen.cpu_percent);
    put(SeriesKey::node(Metric::CpuIowait), seen.iowait + 0.5 + noise(1));
    put(SeriesKey::node(Metric::CpuSteal), 0.0);
    put(SeriesKey::node(Metric::Load1), seen.cpu_percent / 10.0 + noise(2));
    put(SeriesKey::node(Metric::MemUsed), 100.0 * seen.memory / total);
    put(SeriesKey::node(Metric::MemUsedBytes), seen.memory);
    put(SeriesKey::node(Metric::SwapUsedBytes), 0.0);
    put(SeriesKey::node(Metric::PsiCpuSome), (seen.psi_cpu + noise(3)).min(100.0));
    put(SeriesKey::node(Metric::PsiMemSome), 0.0);
    put(SeriesKey::node(Metric::PsiIoSome), 0.3 * noise(4));
    let traffic = |n: usize| seen.traffic[n] + seen.guests.iter().map(|g| g.traffic[n]).sum::<f64>();
    put(SeriesKey::device(Metric::DiskRead, "nvme0n1"), traffic(0));
    put(SeriesKey::device(Metric::DiskWrite, "nvme0n1"), traffic(1));
    put(SeriesKey::device(Metric::NetErrors, "eno1"), 0.0);
    put(SeriesKey::device(Metric::NetDrops, "eno1"), 0.0);
    put(SeriesKey::device(Metric::NetRx, "eno1"), traffic(2));
    put(SeriesKey::device(Metric::NetTx, "eno1"), traffic(3));
}
