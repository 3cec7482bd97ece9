//! The profile of one guest, as its node's agent keeps it.

use std::time::Duration;

use evenkeel_common::guest::GuestProfile;
use evenkeel_common::id::Vmid;
use evenkeel_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::class::classify;
use super::summary::Summary;

/// A thousandth of a core and a mebibyte: what less than that is, is nothing.
const CPU_UNIT: f64 = 0.001;
const MEMORY_UNIT: f64 = 1_048_576.0;
/// The longest time one sample speaks for; beyond, there was a gap.
const LONGEST: Duration = Duration::from_secs(120);

/// CPU and memory summaries of one guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestProfiler {
    cpu: Summary,
    memory: Summary,
    observed_ms: u64,
    last: Option<Timestamp>,
}

impl Default for GuestProfiler {
    fn default() -> Self {
        Self { cpu: Summary::new(CPU_UNIT), memory: Summary::new(MEMORY_UNIT), observed_ms: 0, last: None }
    }
}

impl GuestProfiler {
    /// Adds a reading: CPU in cores, memory in bytes. A value that is not a finite number of at least 0 is left out.
    pub fn observe(&mut self, at: Timestamp, cpu_cores: f64, memory_bytes: f64) {
        if let Some(last) = self.last
            && at.since(last) <= LONGEST
        {
            self.observed_ms += at.since(last).as_millis() as u64;
        }
        self.last = Some(at);
        for (summary, value) in [(&mut self.cpu, cpu_cores), (&mut self.memory, memory_bytes)] {
            if (0.0..=1e30).contains(&value) {
                summary.observe(at, value);
            }
        }
    }

    /// Adds what another node, or Proxmox's RRD, knows of the same guest at other times.
    pub fn merge(&mut self, other: &Self) {
        self.cpu.merge(&other.cpu);
        self.memory.merge(&other.memory);
        self.observed_ms = self.observed_ms.saturating_add(other.observed_ms);
        self.last = self.last.max(other.last);
    }

    /// The profile in figures.
    #[must_use]
    pub fn profile(&self, vmid: Vmid) -> GuestProfile {
        let cpu = self.cpu.usage();
        let observed_s = self.observed_ms / 1000;
        GuestProfile {
            vmid,
            class: classify(observed_s, &cpu, self.cpu.hours()),
            observed_s,
            cpu,
            memory: self.memory.usage(),
            cpu_by_hour: self.cpu.hours().by_hour_of_day(),
        }
    }

    /// Summary of the CPU, in cores.
    #[must_use]
    pub fn cpu(&self) -> &Summary {
        &self.cpu
    }

    /// Summary of the memory, in bytes.
    #[must_use]
    pub fn memory(&self) -> &Summary {
        &self.memory
    }

    /// Bytes of state, heap included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.cpu.heap_bytes() + self.memory.heap_bytes()
    }
}
