//! A cluster's nodes and guests, where they run, and what that makes of their wishes.

use std::collections::BTreeMap;

use evenkeel_common::guest::{GuestFacts, GuestKind, ProfileClass};
use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Bytes;

use super::fault::Fault;
use super::workload::{Workload, unit};

/// A simulated node.
#[derive(Clone, Debug, PartialEq)]
pub struct SimNode {
    /// Its name.
    pub id: NodeId,
    /// Logical CPUs.
    pub cores: f64,
    /// Physical memory.
    pub memory: Bytes,
}

/// A simulated guest.
#[derive(Clone, Debug, PartialEq)]
pub struct SimGuest {
    /// Its number.
    pub vmid: Vmid,
    /// Its name.
    pub name: String,
    /// Kind.
    pub kind: GuestKind,
    /// Where it runs.
    pub node: NodeId,
    /// CPUs it sees.
    pub vcpus: f64,
    /// Memory it may use.
    pub memory: Bytes,
    /// Tags.
    pub tags: Vec<String>,
    /// What it wants.
    pub workload: Workload,
    /// When it started to run on this node.
    pub started_at: Timestamp,
}

impl SimGuest {
    fn salt(&self, seed: u64) -> u64 {
        seed.wrapping_mul(1_000_003) ^ (u64::from(self.vmid.get()) << 8)
    }

    /// What an agent tells about it.
    #[must_use]
    pub fn facts(&self) -> GuestFacts {
        GuestFacts {
            vmid: self.vmid,
            kind: self.kind,
            name: Some(self.name.clone()),
            vcpus: Some(self.vcpus),
            memory_max: Some(self.memory),
            tags: self.tags.clone(),
            started_at: self.started_at,
        }
    }
}

/// One guest's share of its node at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GuestUse {
    /// Which guest.
    pub vmid: Vmid,
    /// CPU it gets, in cores.
    pub cpu: f64,
    /// Share of the CPU it wants that it waits for, 0 to 1.
    pub waited: f64,
    /// Memory it holds, in bytes.
    pub memory: f64,
    /// Disk read, disk write, net in, net out, in bytes a second.
    pub traffic: [f64; 4],
}

/// One node at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeUse {
    /// CPU used, in percent of all CPUs.
    pub cpu_percent: f64,
    /// Share of time in which something waited for a CPU, in percent.
    pub psi_cpu: f64,
    /// Memory used, in bytes.
    pub memory: f64,
    /// Share of time in which CPUs wait for disks, in percent.
    pub iowait: f64,
    /// What the node itself reads from and writes to disk, receives and sends, in bytes a second.
    pub traffic: [f64; 4],
    /// Its guests.
    pub guests: Vec<GuestUse>,
}

/// A simulated cluster.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// Its name.
    pub cluster: ClusterId,
    /// What makes it differ from others.
    pub seed: u64,
    /// Nodes, by name.
    pub nodes: BTreeMap<NodeId, SimNode>,
    /// Guests, by number.
    pub guests: BTreeMap<Vmid, SimGuest>,
    /// What goes wrong, and when.
    pub faults: Vec<Fault>,
}

/// Memory a node needs for itself.
const NODE_OVERHEAD: f64 = 4.0 * 1024.0 * 1024.0 * 1024.0;
/// Share of its CPUs that a node needs for itself.
const NODE_CPU: f64 = 0.02;
/// Share of its CPUs that a backup takes.
const BACKUP_CPU: f64 = 0.06;
/// What a backup reads from disk and sends, in bytes a second.
const BACKUP_BYTES: f64 = 120e6;
const DAY_MS: i64 = 86_400_000;

impl Fleet {
    /// The lab: eight unequal nodes with a hundred guests, of which one node (pve3) has more than it can serve.
    ///
    /// # Panics
    /// Never: the names are constant.
    #[must_use]
    #[allow(clippy::expect_used)]
    pub fn lab(cluster: ClusterId, seed: u64, start: Timestamp) -> Self {
        let node = |n: usize| NodeId::new(format!("pve{n}")).expect("a good name");
        let nodes: BTreeMap<NodeId, SimNode> = (1..=8)
            .map(|n| {
                let (cores, memory) =
                    if n % 4 == 0 { (64.0, Bytes::gib(256)) } else { (32.0, Bytes::gib(128)) };
                (node(n), SimNode { id: node(n), cores, memory })
            })
            .collect();
        let mut fleet = Self { cluster, seed, nodes, guests: BTreeMap::new(), faults: Vec::new() };
        // Big nodes stand twice in the round, so that all start out about equally full.
        let round = [1, 2, 3, 4, 4, 5, 6, 7, 8, 8];
        for index in 0..100u32 {
            let vmid = Vmid::new(100 + index).expect("from 100 on");
            let home = node(round[index as usize % round.len()]);
            let guest = lab_guest(seed, vmid, home, start);
            fleet.guests.insert(vmid, guest);
        }
        let hot = node(3);
        let here: Vec<Vmid> = fleet.guests.values().filter(|g| g.node == hot).map(|g| g.vmid).collect();
        for vmid in here.into_iter().take(5) {
            if let Some(guest) = fleet.guests.get_mut(&vmid) {
                guest.vcpus = 8.0;
                guest.memory = Bytes::gib(8);
                guest.workload = Workload { class: ProfileClass::Steady, level: 0.78, memory: 0.7, io: 2e6 };
            }
        }
        fleet
    }

    /// What every guest of a node gets at `at`, and what the node makes of it.
    #[must_use]
    pub fn node_use(&self, node: &NodeId, at: Timestamp) -> Option<NodeUse> {
        let host = self.nodes.get(node)?;
        let t = at.as_secs();
        let wanted: Vec<(&SimGuest, f64)> = self
            .guests
            .values()
            .filter(|g| &g.node == node)
            .map(|g| (g, self.wanted_cores(g, at, t)))
            .collect();
        let backup = if self.backs_up(node, at) { 0.8 + 0.4 * unit(self.seed ^ 78, t) } else { 0.0 };
        let host_load =
            NODE_CPU + 0.01 * unit(self.seed ^ 77, t) + BACKUP_CPU * backup + self.host_fault(node, at);
        let available = host.cores * (1.0 - host_load.min(0.9));
        let total: f64 = wanted.iter().map(|(_, cores)| cores).sum();
        // A saturated node serves everyone the same share; the rest is waited for.
        let served = if total > available { available / total } else { 1.0 };
        let guests: Vec<GuestUse> = wanted
            .into_iter()
            .map(|(guest, cores)| GuestUse {
                vmid: guest.vmid,
                cpu: cores * served,
                waited: 1.0 - served,
                memory: guest.memory.as_f64() * guest.workload.memory,
                traffic: [0, 1, 2, 3].map(|s| guest.workload.traffic(guest.salt(self.seed), s, t)),
            })
            .collect();
        let used = total * served / host.cores + host_load;
        Some(NodeUse {
            cpu_percent: (100.0 * used).clamp(0.0, 100.0),
            psi_cpu: psi_cpu(total / available),
            memory: (NODE_OVERHEAD + guests.iter().map(|g| g.memory).sum::<f64>() + self.leaked(node, at))
                .min(host.memory.as_f64()),
            iowait: 6.0 * backup,
            traffic: [BACKUP_BYTES * backup, 0.0, 0.0, BACKUP_BYTES * backup],
            guests,
        })
    }

    fn wanted_cores(&self, guest: &SimGuest, at: Timestamp, t: i64) -> f64 {
        let burst = self.faults.iter().any(
            |fault| matches!(fault, Fault::Burst { guest: g, during } if *g == guest.vmid && during.contains(at)),
        );
        let share = if burst { 1.0 } else { guest.workload.cpu(guest.salt(self.seed), t) };
        share * guest.vcpus
    }

    fn host_fault(&self, node: &NodeId, at: Timestamp) -> f64 {
        let on_node = self.faults.iter().filter_map(|fault| match fault {
            Fault::HostLoad { node: n, share, during } if n == node && during.contains(at) => Some(*share),
            _ => None,
        });
        on_node.sum()
    }

    fn leaked(&self, node: &NodeId, at: Timestamp) -> f64 {
        let on_node = self.faults.iter().filter_map(|fault| match fault {
            Fault::Leak { node: n, gib_per_hour, during } if n == node && during.contains(at) => {
                Some(gib_per_hour * Bytes::gib(1).as_f64() * at.since(during.from).as_secs_f64() / 3600.0)
            }
            _ => None,
        });
        on_node.sum()
    }

    fn backs_up(&self, node: &NodeId, at: Timestamp) -> bool {
        self.faults.iter().any(|fault| match fault {
            Fault::Backup { node: n, first } if n == node && at >= first.from => {
                let since = at.as_millis() - first.from.as_millis();
                let late = 120_000.0 * unit(self.seed ^ 79, since / DAY_MS);
                let length = first.to.since(first.from).as_millis() as f64;
                (late..late + length).contains(&((since % DAY_MS) as f64))
            }
            _ => false,
        })
    }

    /// Lets a guest run on another node from `at` on; its load goes with it.
    pub fn move_guest(&mut self, guest: Vmid, node: &NodeId, at: Timestamp) {
        if let Some(guest) = self.guests.get_mut(&guest) {
            guest.node.clone_from(node);
            guest.started_at = at;
        }
    }

    /// Whether the figures of a guest are missing at `at`.
    #[must_use]
    pub fn is_mute(&self, guest: Vmid, at: Timestamp) -> bool {
        self.faults.iter().any(
            |fault| matches!(fault, Fault::Mute { guest: g, during } if *g == guest && during.contains(at)),
        )
    }

    /// Whether the node's agent is mute at `at`.
    #[must_use]
    pub fn is_silent(&self, node: &NodeId, at: Timestamp) -> bool {
        self.faults.iter().any(
            |fault| matches!(fault, Fault::Silent { node: n, during } if n == node && during.contains(at)),
        )
    }
}

/// Share of time in which something waits for a CPU: little until a node is nearly full, then most of the time.
fn psi_cpu(load: f64) -> f64 {
    if load <= 0.6 { 0.5 } else { (100.0 * (1.0 - (-(3.0 * (load - 0.6)).powi(2)).exp())).clamp(0.5, 99.0) }
}

fn lab_guest(seed: u64, vmid: Vmid, node: NodeId, start: Timestamp) -> SimGuest {
    let dice = |n: i64| unit(seed ^ (u64::from(vmid.get()) << 20), n);
    let (class, name) = match vmid.get() % 10 {
        0..=4 => (ProfileClass::Steady, "web"),
        5..=7 => (ProfileClass::Bursty, "ci"),
        8 => (ProfileClass::Cyclical, "office"),
        _ => (ProfileClass::Growing, "db"),
    };
    let vcpus = [2.0, 2.0, 4.0, 4.0, 8.0][(dice(1) * 4.99) as usize];
    SimGuest {
        vmid,
        name: format!("{name}-{vmid}"),
        kind: if vmid.get().is_multiple_of(17) { GuestKind::Lxc } else { GuestKind::Qemu },
        node,
        vcpus,
        memory: Bytes::gib([2, 4, 4, 8, 16][(dice(2) * 4.99) as usize]),
        tags: Vec::new(),
        workload: Workload {
            class,
            level: 0.12 + 0.3 * dice(3),
            memory: 0.4 + 0.4 * dice(4),
            io: 1e4 + 1e6 * dice(5).powi(3),
        },
        started_at: start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab() -> Fleet {
        Fleet::lab(ClusterId::new("lab").unwrap(), 1, Timestamp::from_millis(0))
    }

    #[test]
    fn one_node_is_hot_and_the_others_are_not() {
        let fleet = lab();
        assert_eq!((fleet.nodes.len(), fleet.guests.len()), (8, 100));
        for t in [3_600, 43_200, 80_000] {
            for node in fleet.nodes.keys() {
                let seen = fleet.node_use(node, Timestamp::from_millis(t * 1000)).unwrap();
                if node.as_str() == "pve3" {
                    assert!(seen.cpu_percent > 88.0 && seen.psi_cpu > 20.0, "{node} {t} {seen:?}");
                } else {
                    assert!(seen.cpu_percent < 70.0, "{node} {t} {}", seen.cpu_percent);
                }
                assert!(seen.memory < 0.8 * fleet.nodes[node].memory.as_f64(), "{node}");
            }
        }
    }

    #[test]
    fn a_leak_grows_until_it_is_given_back_and_a_backup_comes_every_day() {
        let mut fleet = lab();
        let node = NodeId::new("pve1").unwrap();
        let during = |from_h: i64, to_min: i64| evenkeel_common::time::Window {
            from: Timestamp::from_millis(from_h * 3_600_000),
            to: Timestamp::from_millis(from_h * 3_600_000 + to_min * 60_000),
        };
        fleet.faults = vec![
            Fault::Leak { node: node.clone(), gib_per_hour: 4.0, during: during(10, 120) },
            Fault::Backup { node: node.clone(), first: during(2, 20) },
        ];
        let seen = |minute: i64| fleet.node_use(&node, Timestamp::from_millis(minute * 60_000)).unwrap();
        let gib = |minute: i64| (seen(minute).memory - seen(599).memory) / Bytes::gib(1).as_f64();
        assert!((gib(660) - 4.0).abs() < 0.01 && (gib(719) - 7.93).abs() < 0.01 && gib(721) < 0.01);
        for (minute, on) in [(60, false), (125, true), (145, false), (1440 + 125, true), (1440 + 145, false)]
        {
            assert_eq!(seen(minute).traffic[0] > 5e7, on, "minute {minute}");
            assert_eq!(seen(minute).iowait > 3.0, on, "minute {minute}");
        }
    }

    #[test]
    fn a_guest_that_moves_takes_its_load_along() {
        let mut fleet = lab();
        let [from, to] = ["pve3", "pve5"].map(|name| NodeId::new(name).unwrap());
        let at = Timestamp::from_millis(50_000_000);
        let of = |fleet: &Fleet, node| fleet.node_use(node, at).unwrap();
        let (vmid, before) = (of(&fleet, &from).guests[0].vmid, of(&fleet, &to).guests.len());
        fleet.move_guest(vmid, &to, at);
        assert!(of(&fleet, &from).guests.iter().all(|g| g.vmid != vmid));
        assert_eq!((of(&fleet, &to).guests.len(), fleet.guests[&vmid].started_at), (before + 1, at));
    }

    #[test]
    fn a_saturated_node_serves_no_more_than_it_has() {
        let mut fleet = lab();
        let node = NodeId::new("pve1").unwrap();
        fleet.faults.push(Fault::HostLoad {
            node: node.clone(),
            share: 0.8,
            during: evenkeel_common::time::Window {
                from: Timestamp::from_millis(0),
                to: Timestamp::from_millis(1 << 40),
            },
        });
        let seen = fleet.node_use(&node, Timestamp::from_millis(50_000_000)).unwrap();
        let served: f64 = seen.guests.iter().map(|g| g.cpu).sum();
        assert!(served <= 32.0 * 0.2 && seen.guests.iter().all(|g| g.waited > 0.2), "{served}");
    }
}
