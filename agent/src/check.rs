//! `evenkeel-agent check`: what the agent can and can not see on this node, and how to mend it.
//!
//! Pure: it judges facts and readings that the caller took. The caller reads twice, a second or more apart,
//! since rates need two readings.

use std::collections::BTreeMap;
use std::fmt;

use evenkeel_common::guest::{GuestFacts, GuestKind};
use evenkeel_common::node::NodeFacts;
use evenkeel_common::sample::{Metric, Subject};

use crate::collect::source::{Reading, Registry};

/// How well something is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// As it should be.
    Good,
    /// Not seen, and evenkeel works without.
    Partial,
    /// Not seen, and evenkeel needs it.
    Missing,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How well it is seen.
    pub sight: Sight,
    /// What: "node", "memory", "guest 101", ...
    pub subject: String,
    /// What was seen; where something is wrong, with the remedy.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.sight {
            Sight::Good => "ok      ",
            Sight::Partial => "partial ",
            Sight::Missing => "MISSING ",
        };
        write!(f, "{mark}{}: {}", self.subject, self.message)
    }
}

/// Metrics of a node that belong together, and whether evenkeel needs them.
const NODE_GROUPS: [(&str, &[Metric], bool); 7] = [
    ("cpu", &[Metric::CpuUsed, Metric::CpuIowait, Metric::CpuSteal], true),
    ("load", &[Metric::Load1], true),
    ("memory", &[Metric::MemUsed, Metric::MemUsedBytes, Metric::SwapUsedBytes], true),
    ("pressure", &[Metric::PsiCpuSome, Metric::PsiMemSome, Metric::PsiIoSome], false),
    ("physical NICs", &[Metric::NetRx, Metric::NetTx], false),
    ("disks", &[Metric::DiskRead, Metric::DiskWrite, Metric::DiskUtil], false),
    ("zfs cache", &[Metric::ZfsArcBytes], false),
];

/// Metrics of a guest that evenkeel needs to judge a move.
const GUEST_NEEDS: [Metric; 2] = [Metric::GuestCpu, Metric::GuestMem];

/// Judges what was read: `guests` as told by the first reading or later, `reading` the second or later,
/// `registry` the one both were taken with.
#[must_use]
pub fn findings(
    facts: &NodeFacts,
    guests: &[GuestFacts],
    reading: &Reading,
    registry: &Registry,
) -> Vec<Finding> {
    let mut seen: BTreeMap<(Subject, Metric), usize> = BTreeMap::new();
    for key in reading.tick.values.iter().filter_map(|&(id, _)| registry.key(id)) {
        *seen.entry((key.subject, key.metric)).or_default() += 1;
    }
    let mut list = vec![node(facts)];
    for (name, metrics, needed) in NODE_GROUPS {
        let count = |metric: &Metric| seen.get(&(Subject::Node, *metric)).copied().unwrap_or(0);
        let missing: Vec<_> = metrics.iter().filter(|metric| count(metric) == 0).map(|m| m.name()).collect();
        let (sight, message) = match (missing.as_slice(), needed) {
            ([], _) => (Sight::Good, series(metrics.iter().map(count).sum())),
            (_, true) => (Sight::Missing, format!("no {}: see the faults below", missing.join(", "))),
            // Hosts without ZFS, pressure information or disks of their own are nothing odd.
            (_, false) => (Sight::Partial, format!("no {} here", missing.join(", "))),
        };
        list.push(Finding { sight, subject: name.to_owned(), message });
    }
    list.push(guest_count(guests));
    list.extend(guests.iter().filter_map(|guest| {
        let without =
            GUEST_NEEDS.iter().filter(|metric| !seen.contains_key(&(Subject::Guest(guest.vmid), **metric)));
        let without: Vec<_> = without.map(|metric| metric.name()).collect();
        (!without.is_empty()).then(|| Finding {
            sight: Sight::Missing,
            subject: format!("guest {}", guest.vmid),
            message: format!("no {}: it just started, or see the faults below", without.join(", ")),
        })
    }));
    let blind = |spot: &String| Finding {
        sight: Sight::Partial,
        subject: "blind spot".into(),
        message: spot.clone(),
    };
    list.extend(facts.blind_spots.iter().map(blind));
    list.extend(reading.faults.iter().map(|fault| Finding {
        sight: Sight::Missing,
        subject: format!("fault in {}", fault.collector),
        message: fault.message.clone(),
    }));
    list
}

fn node(facts: &NodeFacts) -> Finding {
    let NodeFacts { hostname, cpus, memory, kernel, pve_version, .. } = facts;
    let (sight, pve) = match pve_version.as_str() {
        "" => {
            (Sight::Partial, "no Proxmox VE found (its manager is not installed, or not readable)".to_owned())
        }
        version => (Sight::Good, format!("Proxmox VE {version}")),
    };
    let message = format!("{hostname}, {cpus} CPUs, {memory}, kernel {kernel}, {pve}");
    Finding { sight, subject: "node".into(), message }
}

fn guest_count(guests: &[GuestFacts]) -> Finding {
    let count = |kind| guests.iter().filter(|guest| guest.kind == kind).count();
    let unnamed = guests.iter().filter(|guest| guest.name.is_none()).count();
    let message = format!(
        "{} virtual machines and {} containers run here",
        count(GuestKind::Qemu),
        count(GuestKind::Lxc)
    );
    if unnamed == 0 {
        return Finding { sight: Sight::Good, subject: "guests".into(), message };
    }
    let message = format!(
        "{message}; the names of {unnamed} are unknown, because their configurations are not readable"
    );
    Finding { sight: Sight::Partial, subject: "guests".into(), message }
}

fn series(count: usize) -> String {
    if count == 1 { "1 series".into() } else { format!("{count} series") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::source::Source;
    use crate::collect::{CollectConfig, NodeSource};
    use evenkeel_common::time::Timestamp;
    use std::path::Path;
    use std::time::Duration;

    /// The report on the first moment of a fixture tree, read twice.
    fn report(tree: &str) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(tree).join("t0");
        let mut source = NodeSource::new(CollectConfig { root, ..CollectConfig::default() });
        let mut registry = Registry::new(1000);
        let mut read = |s| source.read(Timestamp::default(), Duration::from_secs(s), &mut registry);
        let guests = read(100).guests.unwrap();
        let reading = read(101);
        let facts = source.facts();
        let lines = findings(&facts, &guests, &reading, &registry);
        lines.iter().flat_map(|line| [line.to_string(), "\n".into()]).collect()
    }

    #[test]
    fn a_good_node_has_one_thing_to_say_for_each_source() {
        // The trees stand still, so no CPU time passes and there is no share of it.
        assert_eq!(
            report("pve9"),
            "ok      node: quartz, 4 CPUs, 62.5 GiB, kernel 6.14.8-2-pve, Proxmox VE 9.0.3\n\
             MISSING cpu: no cpu_used, cpu_iowait, cpu_steal: see the faults below\n\
             ok      load: 1 series\n\
             ok      memory: 3 series\n\
             ok      pressure: 3 series\n\
             ok      physical NICs: 4 series\n\
             ok      disks: 6 series\n\
             ok      zfs cache: 1 series\n\
             ok      guests: 1 virtual machines and 1 containers run here\n"
        );
    }

    #[test]
    fn what_is_not_seen_comes_with_its_remedy() {
        let text = report("no-psi");
        for expected in [
            "partial pressure: no psi_cpu_some",
            "boot the kernel with psi=1",
            "partial zfs cache",
            "no Proxmox VE found",
        ] {
            assert!(text.contains(expected), "{expected:?} not in:\n{text}");
        }
        let text = report("hostile");
        for expected in
            ["MISSING memory", "MISSING guest 130: no guest_cpu, guest_mem", "MISSING fault in net: "]
        {
            assert!(text.contains(expected), "{expected:?} not in:\n{text}");
        }
    }
}
