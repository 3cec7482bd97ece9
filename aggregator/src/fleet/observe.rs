//! One look at a node: what its live state says now, copied out under the lock. What is absent is absent, never zero.

use std::time::Duration;

use evenkeel_common::anomaly::Severity;
use evenkeel_common::id::Vmid;
use evenkeel_common::sample::{Metric, Subject};
use evenkeel_common::time::{Timestamp, Window};
use evenkeel_common::units::Bytes;

use crate::ingest::live::NodeLive;
use crate::store::records::FLEET_EPOCH;

/// The seven metrics, in the order of the specification's CSV.
pub const SEVEN: [Metric; 7] = [
    Metric::Bandwidth,
    Metric::ProbeLatency,
    Metric::ProbeLoss,
    Metric::ProbeJitter,
    Metric::CpuUsed,
    Metric::MemUsed,
    Metric::ErrorRate,
];
/// Places of single metrics among them.
pub const LATENCY: usize = 1;
/// See [`LATENCY`].
pub const LOSS: usize = 2;
/// See [`LATENCY`].
pub const CPU: usize = 4;
/// See [`LATENCY`].
pub const MEMORY: usize = 5;
/// See [`LATENCY`].
pub const ERRORS: usize = 6;

/// Packets and errors are counted over this long: single packets decide nothing.
const COUNTED: Duration = Duration::from_secs(60);
/// Packets a second below which a share of errors means nothing.
const FEWEST_PACKETS: f64 = 1.0;

/// What a node looked like.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// The seven metrics; NaN = no data.
    pub seven: [f64; 7],
    /// Share of packets lost to errors and drops over the last minute, percent.
    pub packet_errors: Option<f64>,
    /// Memory in use, percent.
    pub memory: Option<f64>,
    /// The highest of CPU, memory and I/O pressure, percent.
    pub pressure: Option<f64>,
    /// File systems, percent in use.
    pub file_systems: Vec<(String, f64)>,
    /// Swap in use, bytes.
    pub swap: Option<f64>,
    /// Guests that its agent lists.
    pub guests: Vec<GuestSeen>,
    /// Peers with the share of probes that got no answer, percent.
    pub probes: Vec<(String, f64)>,
    /// Anomalies that are open.
    pub anomalies: Vec<OpenAnomaly>,
    /// Collectors that fail.
    pub faults: Vec<String>,
    /// Whether a fault drill runs on it.
    pub injected: bool,
}

impl Observation {
    /// Whether none of the node's probes is answered, by most of its several peers.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        self.probes.len() > 1 && self.seven[LOSS] >= 99.9
    }
}

/// A guest as the agent of its node lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct GuestSeen {
    /// Which.
    pub vmid: Vmid,
    /// Its name.
    pub name: String,
    /// How long its series have had no value while the node's had; `None` = they never had one.
    pub silent_for: Option<Duration>,
    /// Share of time its tasks wait for a CPU, percent.
    pub pressure: Option<f64>,
    /// Memory in use, percent of its limit, where the limit binds what is measured (containers).
    pub memory: Option<f64>,
}

/// An open anomaly, as far as health cares.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenAnomaly {
    /// How bad.
    pub severity: Severity,
    /// Whose.
    pub subject: Subject,
    /// Its series as people read it.
    pub series: String,
    /// Whether it is silence, which health counts by itself.
    pub is_silence: bool,
}

/// Looks at a node whose data is fresh. Means are over the last `interval`, by the node's own clock: its samples may be
/// a little ahead of or behind ours.
#[must_use]
pub fn observe(live: &NodeLive, interval: Duration) -> Observation {
    let Some(tick) = live.tick_at else {
        return Observation { seven: [f64::NAN; 7], ..Observation::default() };
    };
    let end = tick.after(Duration::from_millis(1));
    let (now, minute) = (Window::ending(end, interval), Window::ending(end, COUNTED));
    let bytes = [Metric::NetRx, Metric::NetTx].map(|metric| live.wide.sum(metric, now));
    let bandwidth = bytes.into_iter().flatten().reduce(|a, b| a + b).map(|bytes| bytes * 8.0 / 1e6);
    let packet_errors = packet_errors(live, minute);
    let load = &live.load;
    let pressure = [&load.psi_cpu, &load.psi_mem, &load.psi_io].into_iter();
    let owned = |(name, mean): (&str, f64)| (name.to_owned(), mean);
    let seven = [
        bandwidth,
        live.wide.median(Metric::ProbeLatency, now),
        live.wide.median(Metric::ProbeLoss, now),
        live.wide.median(Metric::ProbeJitter, now),
        load.cpu.mean(now),
        load.mem.mean(now),
        packet_errors,
    ];
    Observation {
        seven: seven.map(|value| value.filter(|v| v.is_finite()).unwrap_or(f64::NAN)),
        packet_errors,
        memory: load.mem.mean(minute),
        pressure: pressure.filter_map(|psi| psi.mean(minute)).reduce(f64::max),
        file_systems: live.wide.means(Metric::FsUsed, minute).map(owned).collect(),
        swap: live.wide.sum(Metric::SwapUsedBytes, minute),
        guests: guests(live, tick, minute),
        probes: live
            .wide
            .means(Metric::ProbeLoss, minute)
            .filter(|(peer, _)| !peer.is_empty())
            .map(owned)
            .collect(),
        anomalies: anomalies(live),
        faults: live.faults.keys().cloned().collect(),
        injected: load.drill.mean(minute).is_some() || live.open.values().any(|anomaly| anomaly.injected),
    }
}

fn packet_errors(live: &NodeLive, minute: Window) -> Option<f64> {
    let of = |metric| live.wide.sum(metric, minute);
    let packets = of(Metric::NetRxPackets)? + of(Metric::NetTxPackets)?;
    let lost = of(Metric::NetErrors).unwrap_or(0.0) + of(Metric::NetDrops).unwrap_or(0.0);
    (packets + lost >= FEWEST_PACKETS).then(|| 100.0 * lost / (packets + lost))
}

fn guests(live: &NodeLive, tick: Timestamp, minute: Window) -> Vec<GuestSeen> {
    let guest = |(&vmid, guest): (&Vmid, &crate::ingest::live::GuestLive)| {
        let newest = [&guest.cpu, &guest.mem, &guest.net[0]].into_iter().filter_map(|recent| recent.newest());
        let limit = guest.facts.memory_max.map(Bytes::as_f64);
        let container = guest.facts.kind == evenkeel_common::guest::GuestKind::Lxc;
        let memory = guest.mem.mean(minute).zip(limit.filter(|max| container && *max > 0.0));
        GuestSeen {
            vmid,
            name: guest.facts.name.clone().unwrap_or_default(),
            silent_for: newest.max().map(|at| tick.since(at)),
            pressure: guest.psi_cpu.mean(minute),
            memory: memory.map(|(used, max)| 100.0 * used / max),
        }
    };
    live.guests.iter().map(guest).collect()
}

fn anomalies(live: &NodeLive) -> Vec<OpenAnomaly> {
    let open = live.open.iter().filter(|(_, anomaly)| !anomaly.injected);
    open.map(|((epoch, _), anomaly)| OpenAnomaly {
        severity: anomaly.severity,
        subject: anomaly.series.subject,
        series: anomaly.series.to_string(),
        is_silence: *epoch == FLEET_EPOCH && anomaly.series.metric == Metric::Silence,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::guest::{GuestFacts, GuestKind};
    use evenkeel_common::sample::SeriesKey;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_millis(s * 1000)
    }

    fn node() -> NodeLive {
        let mut live = NodeLive::default();
        for s in 0..60 {
            for (metric, nic, value) in [
                (Metric::NetRx, "eno1", 1e6),
                (Metric::NetTx, "eno1", 0.25e6),
                (Metric::NetRxPackets, "eno1", 900.0),
                (Metric::NetTxPackets, "eno1", 90.0),
                (Metric::NetErrors, "eno1", 10.0),
                (Metric::NetDrops, "eno1", 0.0),
            ] {
                live.apply(&SeriesKey::device(metric, nic), at(s), value);
            }
            live.apply(&SeriesKey::node(Metric::CpuUsed), at(s), 40.0);
            live.tick_at = Some(at(s));
        }
        live
    }

    #[test]
    fn the_seven_are_in_their_units_and_what_is_absent_is_nan() {
        let seen = observe(&node(), Duration::from_secs(10));
        assert_eq!((seen.seven[0], seen.seven[CPU], seen.seven[ERRORS]), (10.0, 40.0, 1.0));
        assert!([1, 2, 3, MEMORY].iter().all(|&place| seen.seven[place].is_nan()), "{:?}", seen.seven);
        let nothing = observe(&NodeLive::default(), Duration::from_secs(10));
        assert!(nothing.seven.iter().all(|value| value.is_nan()));
    }

    #[test]
    fn a_guest_without_traffic_is_not_silent_and_one_without_samples_is() {
        let (quiet, mute) = (Vmid::new(101).unwrap(), Vmid::new(102).unwrap());
        let facts = |vmid| GuestFacts {
            vmid,
            kind: GuestKind::Qemu,
            name: None,
            vcpus: None,
            memory_max: None,
            tags: vec![],
            started_at: at(0),
        };
        let mut live = NodeLive::default();
        live.set_guests(vec![facts(quiet), facts(mute), facts(Vmid::new(103).unwrap())]);
        for s in 0..60 {
            live.apply(&SeriesKey::guest(quiet, Metric::GuestNetIn), at(s), 0.0);
            if s < 20 {
                live.apply(&SeriesKey::guest(mute, Metric::GuestCpu), at(s), 0.5);
            }
            live.tick_at = Some(at(s));
        }
        let seen = observe(&live, Duration::from_secs(10)).guests;
        let silent: Vec<_> = seen.iter().map(|g| g.silent_for.map(|d| d.as_secs())).collect();
        assert_eq!(silent, [Some(0), Some(40), None], "the third has not spoken yet");
    }
}
