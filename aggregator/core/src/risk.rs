//! How much a migration could hurt, and by what: filter 6 asks for more certainty where it is much.
//!
//! A live migration takes as long as memory and local disks take to cross, and again what changes meanwhile; all
//! virtual CPUs and disks stop together for the hand-over. Where one of these is at its limit the risk is high, from a
//! quarter of the limit in memory and half of it in all else it is medium. What is not known is not held against a
//! guest, but for disks: that they are local is known without their size, and then counts as too much.

use evenkeel_common::decision::{Risk, RiskPart};
use evenkeel_common::guest::GuestKind;
use evenkeel_common::reason::Reason;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::GuestState;

const GIB: f64 = 1_073_741_824.0;

/// What makes a move one of high risk, each by itself. Medium begins at a quarter of the memory and half of the rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RiskLimits {
    /// Memory in GiB that a guest may use, from which moving it is of high risk. Too high, and the moves that take
    /// longest are made as lightly as any other.
    #[schemars(range(min = 1, max = 65_536))]
    pub memory_gib: f64,
    /// Virtual CPUs from which moving a guest is of high risk.
    #[schemars(range(min = 1, max = 1024))]
    pub vcpus: f64,
    /// Disks from which moving a guest is of high risk.
    #[schemars(range(min = 1, max = 256))]
    pub disks: u32,
    /// Local disks in GiB from which moving a guest is of high risk; 0: any local disk.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub local_disk_gib: f64,
    /// Memory in MB/s that a guest changes, where that is known, from which moving it is of high risk. Beyond the speed
    /// of the migration network a live migration does not end by itself.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub dirty_rate_mb_s: f64,
}

impl Default for RiskLimits {
    fn default() -> Self {
        Self { memory_gib: 64.0, vcpus: 16.0, disks: 8, local_disk_gib: 0.0, dirty_rate_mb_s: 200.0 }
    }
}

/// How risky a move of a guest is, and what makes it so.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessment {
    /// The highest of its parts.
    pub level: Risk,
    /// What reaches that level; empty when it is low.
    pub parts: Vec<RiskPart>,
}

impl Assessment {
    /// The evidence; `None` when the risk is low.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        (self.level != Risk::Low).then(|| Reason::RiskParts { risk: self.level, parts: self.parts.clone() })
    }
}

/// Judges what moving a guest would risk, wherever it goes.
#[must_use]
pub fn assess(guest: &GuestState, limits: &RiskLimits) -> Assessment {
    let level = |value: f64, high: f64, medium_share: f64| {
        if value >= high {
            Risk::High
        } else if value >= medium_share * high {
            Risk::Medium
        } else {
            Risk::Low
        }
    };
    let memory = guest.memory_max.max(guest.memory_used);
    let dirty = guest.dirty_mb_s.filter(|rate| rate.is_finite()).unwrap_or(0.0);
    let local = guest.local_disk_bytes.as_f64() / GIB;
    let local_level = match (guest.local_disks.is_empty(), local > 0.0) {
        (true, false) => Risk::Low,
        (false, false) => Risk::High,
        (_, true) => level(local, limits.local_disk_gib, 0.5),
    };
    let restart = if guest.kind == GuestKind::Lxc { Risk::Medium } else { Risk::Low };
    let all = [
        (level(memory.as_f64() / GIB, limits.memory_gib, 0.25), RiskPart::Memory { memory }),
        (level(guest.vcpus, limits.vcpus, 0.5), RiskPart::Vcpus { vcpus: guest.vcpus }),
        (level(guest.disks.into(), limits.disks.into(), 0.5), RiskPart::Disks { disks: guest.disks }),
        (local_level, RiskPart::LocalDisks { size: guest.local_disk_bytes }),
        (level(dirty, limits.dirty_rate_mb_s, 0.5), RiskPart::DirtyRate { mb_s: dirty }),
        (restart, RiskPart::Restart),
    ];
    let top = all.iter().map(|(level, _)| *level).max().unwrap_or(Risk::Low);
    let of_top = all.into_iter().filter(|(level, _)| top != Risk::Low && *level == top);
    Assessment { level: top, parts: of_top.map(|(_, part)| part).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn told(guest: &str, limits: &RiskLimits) -> String {
        let snapshot = fixture::snapshot(&format!("pve1 | 101 {guest}"));
        let found = assess(&snapshot.guests[0], limits);
        let parts: Vec<_> = found.parts.iter().map(ToString::to_string).collect();
        format!("{} {}", found.level, parts.join(", ")).trim_end().to_owned()
    }

    #[test]
    fn the_risk_is_that_of_the_worst_part_and_names_it() {
        for (guest, expected) in [
            ("mem=15 vcpus=7", "low"),
            ("mem=16 vcpus=7", "medium 16.0 GiB of memory"),
            ("mem=4 max=63", "medium 63.0 GiB of memory"),
            ("mem=4 max=80 vcpus=16", "high 80.0 GiB of memory, 16 vCPUs"),
            ("mem=64 vcpus=8", "high 64.0 GiB of memory"),
            ("diskcount=3", "low"),
            ("diskcount=4", "medium 4 disks"),
            ("diskcount=8", "high 8 disks"),
            ("dirty=99", "low"),
            ("dirty=100", "medium changes 100 MB/s of memory"),
            ("dirty=200", "high changes 200 MB/s of memory"),
            ("dirty=NaN", "low"),
            ("lxc", "medium moves by restart"),
            ("disks=scsi0", "high local disks"),
            ("localgib=1", "high 1.0 GiB of local disks"),
        ] {
            assert_eq!(told(guest, &RiskLimits::default()), expected, "{guest}");
        }
        let limits = RiskLimits { local_disk_gib: 100.0, vcpus: 4.0, ..RiskLimits::default() };
        for (guest, expected) in [
            ("disks=scsi0 localgib=49", "low"),
            ("disks=scsi0 localgib=50", "medium 50.0 GiB of local disks"),
            ("disks=scsi0 localgib=100 vcpus=2", "high 100.0 GiB of local disks"),
            ("disks=scsi0", "high local disks"),
            ("vcpus=4", "high 4 vCPUs"),
        ] {
            assert_eq!(told(guest, &limits), expected, "{guest}");
        }
    }
}
