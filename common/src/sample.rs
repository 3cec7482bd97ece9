//! Metrics, series and ticks of samples.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::Vmid;
use crate::time::Timestamp;

/// Unit of a metric's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// 0 to 100.
    Percent,
    /// CPU cores' worth of time: 1.5 = one and a half cores busy.
    Cores,
    /// Bytes.
    Bytes,
    /// Bytes a second.
    BytesPerSecond,
    /// Events a second.
    PerSecond,
    /// Milliseconds.
    Milliseconds,
    /// Megabits (10^6) a second.
    MegabitsPerSecond,
    /// A plain number.
    Count,
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $variant:ident = $wire:literal, $name:literal, $unit:ident, $resolution:expr;)*) => {
        /// Everything evenkeel measures. The number is the wire id: never re-used, only added to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        #[repr(u16)]
        pub enum Metric {
            $($(#[$doc])* $variant = $wire,)*
        }

        impl Metric {
            /// All metrics, in wire order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Stable name in tables, JSON and labels.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Unit of its values.
            #[must_use]
            pub const fn unit(self) -> Unit {
                match self { $(Self::$variant => Unit::$unit,)* }
            }

            /// Smallest difference that is kept on the wire and in the store, in its unit.
            #[must_use]
            pub const fn resolution(self) -> f64 {
                match self { $(Self::$variant => $resolution,)* }
            }

            /// The metric of a wire id, if this version knows it.
            #[must_use]
            pub const fn from_wire(id: u32) -> Option<Self> {
                match id { $($wire => Some(Self::$variant),)* _ => None }
            }

            /// The metric of a name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

metrics! {
    /// Node: CPU not idle and not waiting for I/O, percent of all CPUs (user+nice+system+irq+softirq+steal).
    CpuUsed = 1, "cpu_used", Percent, 0.01;
    /// Node: CPU idle with I/O outstanding, percent of all CPUs.
    CpuIowait = 2, "cpu_iowait", Percent, 0.01;
    /// Node: CPU taken by a hypervisor below, percent of all CPUs.
    CpuSteal = 3, "cpu_steal", Percent, 0.01;
    /// Node: load average over one minute.
    Load1 = 4, "load1", Count, 0.01;
    /// Node: memory not available, percent of all memory (MemTotal - MemAvailable).
    MemUsed = 5, "mem_used", Percent, 0.01;
    /// Node: memory not available.
    MemUsedBytes = 6, "mem_used_bytes", Bytes, 65536.0;
    /// Node: swap in use.
    SwapUsedBytes = 7, "swap_used_bytes", Bytes, 65536.0;
    /// Node: ZFS adaptive replacement cache; part of used memory that the kernel gives back under pressure.
    ZfsArcBytes = 8, "zfs_arc_bytes", Bytes, 65536.0;
    /// Node: share of time in which some task waited for a CPU.
    PsiCpuSome = 9, "psi_cpu_some", Percent, 0.01;
    /// Node: share of time in which some task waited for memory.
    PsiMemSome = 10, "psi_mem_some", Percent, 0.01;
    /// Node: share of time in which all tasks waited for memory.
    PsiMemFull = 11, "psi_mem_full", Percent, 0.01;
    /// Node: share of time in which some task waited for I/O.
    PsiIoSome = 12, "psi_io_some", Percent, 0.01;
    /// Node: share of time in which all tasks waited for I/O.
    PsiIoFull = 13, "psi_io_full", Percent, 0.01;
    /// Node as a whole: how little all its series together are themselves, 0 to 1; an anomaly from 0.5 on. Not sampled:
    /// the anomalies of the node's detector bear it.
    NodeAnomaly = 14, "node_anomaly", Count, 0.001;
    /// Node, per NIC: bytes received.
    NetRx = 20, "net_rx", BytesPerSecond, 16.0;
    /// Node, per NIC: bytes sent.
    NetTx = 21, "net_tx", BytesPerSecond, 16.0;
    /// Node, per NIC: packets received.
    NetRxPackets = 22, "net_rx_packets", PerSecond, 1.0;
    /// Node, per NIC: packets sent.
    NetTxPackets = 23, "net_tx_packets", PerSecond, 1.0;
    /// Node, per NIC: receive and transmit errors together.
    NetErrors = 24, "net_errors", PerSecond, 0.1;
    /// Node, per NIC: packets dropped, both directions together.
    NetDrops = 25, "net_drops", PerSecond, 0.1;
    /// Node, per disk: bytes read.
    DiskRead = 30, "disk_read", BytesPerSecond, 512.0;
    /// Node, per disk: bytes written.
    DiskWrite = 31, "disk_write", BytesPerSecond, 512.0;
    /// Node, per disk: share of time with a request in flight.
    DiskUtil = 32, "disk_util", Percent, 0.01;
    /// Node, per disk: mean time a request took, queueing included; missing while there were none.
    DiskAwait = 33, "disk_await", Milliseconds, 0.01;
    /// Node, per mount point: space in use, percent.
    FsUsed = 40, "fs_used", Percent, 0.01;
    /// Guest: CPU used, in cores.
    GuestCpu = 60, "guest_cpu", Cores, 0.001;
    /// Guest: memory held without page cache (memory.current - file).
    GuestMem = 61, "guest_mem", Bytes, 65536.0;
    /// Guest: bytes its disks read.
    GuestDiskRead = 62, "guest_disk_read", BytesPerSecond, 512.0;
    /// Guest: bytes its disks wrote.
    GuestDiskWrite = 63, "guest_disk_write", BytesPerSecond, 512.0;
    /// Guest: bytes it received (the host's transmit side of tap or veth).
    GuestNetIn = 64, "guest_net_in", BytesPerSecond, 16.0;
    /// Guest: bytes it sent (the host's receive side of tap or veth).
    GuestNetOut = 65, "guest_net_out", BytesPerSecond, 16.0;
    /// Guest: share of time in which some of its tasks waited for a CPU.
    GuestPsiCpuSome = 66, "guest_psi_cpu_some", Percent, 0.01;
    /// Guest: share of time in which some of its tasks waited for memory.
    GuestPsiMemSome = 67, "guest_psi_mem_some", Percent, 0.01;
    /// Guest: share of time in which some of its tasks waited for I/O.
    GuestPsiIoSome = 68, "guest_psi_io_some", Percent, 0.01;
    /// Probe, per peer and as median over the peers: round trip.
    ProbeLatency = 80, "probe_latency", Milliseconds, 0.001;
    /// Probe, per peer and as median over the peers: mean difference between successive round trips.
    ProbeJitter = 81, "probe_jitter", Milliseconds, 0.001;
    /// Probe, per peer and as median over the peers: share of probes without an answer.
    ProbeLoss = 82, "probe_loss", Percent, 0.01;
    /// Node: fault drills under way. Only there while there are some: it marks the values beside it as made up.
    DrillActive = 90, "drill_active", Count, 1.0;
    /// Made by the aggregator: how long a node, guest or probe has said nothing although it should.
    Silence = 91, "silence", Milliseconds, 1.0;
    /// Made by the aggregator: share of the Proxmox tasks of the last hour that failed.
    TaskErrorRate = 92, "task_error_rate", Percent, 0.01;
    /// Made by the aggregator: share of failures among what a node did: packets lost to errors and drops, or failed
    /// tasks, whichever is larger.
    ErrorRate = 93, "error_rate", Percent, 0.0001;
    /// Made by the aggregator: traffic of all physical NICs of a node, both directions together.
    Bandwidth = 94, "bandwidth", MegabitsPerSecond, 0.001;
}

impl Metric {
    /// Whether it belongs to a guest rather than to the node.
    #[must_use]
    pub const fn of_guest(self) -> bool {
        matches!(self as u16, 60..=79)
    }

    /// The value in units of the resolution, as kept on the wire; `None` where there is no finite value.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)]
    pub fn quantise(self, value: f64) -> Option<i64> {
        let steps = (value / self.resolution()).round();
        // 2^53: beyond it a float no longer tells neighbours apart, and no honest reading gets there.
        (steps.abs() < 9_007_199_254_740_992.0).then_some(steps as i64)
    }

    /// The value of a quantised reading.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn restore(self, steps: i64) -> f64 {
        steps as f64 * self.resolution()
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whose series it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The node itself.
    Node,
    /// One of its guests.
    Guest(Vmid),
}

/// Identity of a series within one node: subject, metric and, where there are several, the device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesKey {
    /// Whose it is.
    pub subject: Subject,
    /// What is measured.
    pub metric: Metric,
    /// NIC, disk, mount point or peer; empty where there is only one.
    pub instance: String,
}

/// Longest instance name kept; longer ones are cut by the collector.
pub const MAX_INSTANCE_LEN: usize = 64;

impl SeriesKey {
    /// A series of the node without instance.
    #[must_use]
    pub fn node(metric: Metric) -> Self {
        Self { subject: Subject::Node, metric, instance: String::new() }
    }

    /// A series of one of the node's devices.
    #[must_use]
    pub fn device(metric: Metric, instance: impl Into<String>) -> Self {
        Self { subject: Subject::Node, metric, instance: instance.into() }
    }

    /// A series of a guest.
    #[must_use]
    pub fn guest(vmid: Vmid, metric: Metric) -> Self {
        Self { subject: Subject::Guest(vmid), metric, instance: String::new() }
    }

    /// Whether it is about the way between this node and one other. What is wrong there may be this node's fault, the
    /// other's, or of what lies between: one end alone can not tell.
    #[must_use]
    pub fn is_of_peer(&self) -> bool {
        let probe = matches!(self.metric, Metric::ProbeLatency | Metric::ProbeJitter | Metric::ProbeLoss);
        probe && !self.instance.is_empty()
    }
}

impl fmt::Display for SeriesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Subject::Guest(vmid) = self.subject {
            write!(f, "{vmid}/")?;
        }
        write!(f, "{}", self.metric)?;
        if self.instance.is_empty() { Ok(()) } else { write!(f, "[{}]", self.instance) }
    }
}

/// Number of a series in an agent's registry: dense, from 0, never re-used within a run of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SeriesId(pub u32);

/// All samples of one node at one time. Series without a value at this time are simply absent.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// Wall-clock time of the readings.
    pub at: Timestamp,
    /// Time since the node booted; orders ticks even when the wall clock jumps.
    pub uptime: Duration,
    /// Values in the metric's unit, finite, ascending by series id, each series at most once.
    pub values: Vec<(SeriesId, f64)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn metric_names_and_wire_ids_are_unique_and_found_again() {
        let names: HashSet<_> = Metric::ALL.iter().map(|m| m.name()).collect();
        assert_eq!(names.len(), Metric::ALL.len());
        for &metric in Metric::ALL {
            assert_eq!(Metric::from_wire(metric as u32), Some(metric));
            assert_eq!(Metric::from_name(metric.name()), Some(metric));
            assert_eq!(metric.of_guest(), metric.name().starts_with("guest_"));
        }
    }

    #[test]
    fn quantising_keeps_the_resolution_and_refuses_what_is_not_a_number() {
        let m = Metric::CpuUsed;
        assert_eq!(m.quantise(12.345), Some(1235));
        assert!((m.restore(1235) - 12.35).abs() < 1e-9);
        for bad in [f64::NAN, f64::INFINITY, -f64::INFINITY, 1e300] {
            assert_eq!(m.quantise(bad), None);
        }
    }
}
