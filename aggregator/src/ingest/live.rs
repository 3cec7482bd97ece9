//! What is known of every node right now: the newest values and the last minutes, in memory only. It is rebuilt
//! from the agents' hello and live data within seconds of a restart, and is never load zero where data is absent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use evenkeel_common::anomaly::Anomaly;
use evenkeel_common::guest::{GuestFacts, GuestProfile, ProfilePiece};
use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::node::NodeFacts;
use evenkeel_common::sample::{Metric, SeriesKey, Subject};
use evenkeel_common::time::Timestamp;
use tokio::sync::watch;

use super::recent::Recent;
use super::wide::Wide;

/// All nodes of all clusters.
#[derive(Debug, Default)]
pub struct Live {
    nodes: RwLock<BTreeMap<ClusterId, BTreeMap<NodeId, Arc<NodeCell>>>>,
}

/// One node, shared between its stream and everyone who reads.
#[derive(Debug)]
pub struct NodeCell {
    live: Mutex<NodeLive>,
    /// Wall time of the newest tick applied, for those who wait for data to have arrived.
    applied: watch::Sender<Timestamp>,
}

impl NodeCell {
    fn new() -> Self {
        Self { live: Mutex::default(), applied: watch::Sender::new(Timestamp::default()) }
    }

    /// The node, locked. Hold it briefly.
    pub fn lock(&self) -> MutexGuard<'_, NodeLive> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells waiters how far this node's data has come.
    pub fn announce(&self, at: Timestamp) {
        self.applied.send_if_modified(|newest| {
            let newer = at > *newest;
            *newest = (*newest).max(at);
            newer
        });
    }

    /// Follows how far this node's data has come.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<Timestamp> {
        self.applied.subscribe()
    }
}

impl Live {
    /// The node, made known if it is new.
    pub fn node(&self, cluster: &ClusterId, node: &NodeId) -> Arc<NodeCell> {
        if let Some(cell) = self.get(cluster, node) {
            return cell;
        }
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let cell = nodes.entry(cluster.clone()).or_default().entry(node.clone());
        Arc::clone(cell.or_insert_with(|| Arc::new(NodeCell::new())))
    }

    /// The node, if it ever reported.
    #[must_use]
    pub fn get(&self, cluster: &ClusterId, node: &NodeId) -> Option<Arc<NodeCell>> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.get(cluster)?.get(node).cloned()
    }

    /// All nodes of a cluster, by name.
    #[must_use]
    pub fn cluster(&self, cluster: &ClusterId) -> BTreeMap<NodeId, Arc<NodeCell>> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.get(cluster).cloned().unwrap_or_default()
    }

    /// All clusters that any agent reported for.
    #[must_use]
    pub fn clusters(&self) -> Vec<ClusterId> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

/// One node as its agent tells it.
#[derive(Debug, Default)]
pub struct NodeLive {
    /// What it is; default until the first hello.
    pub facts: NodeFacts,
    /// Number of the stream that speaks for it; a newer stream replaces an older one.
    pub session: u64,
    /// Whether that stream is open.
    pub connected: bool,
    /// Aggregator's uptime when the newest sample arrived. Staleness counts from here, never from wall clocks.
    pub received: Option<Duration>,
    /// Agent's wall time of the newest tick.
    pub tick_at: Option<Timestamp>,
    /// Agent's clock minus the aggregator's, milliseconds.
    pub skew_ms: Option<i64>,
    /// The node's own figures.
    pub load: NodeLoad,
    /// Its figures by device and peer.
    pub wide: Wide,
    /// Guests that run on it by its agent's word.
    pub guests: BTreeMap<Vmid, GuestLive>,
    /// Anomalies that are open, by epoch and number.
    pub open: BTreeMap<(Epoch, u64), Anomaly>,
    /// What the agent said of the last drills, by their id.
    pub drills: BTreeMap<String, DrillTold>,
    /// Collectors that fail now, with what they say.
    pub faults: BTreeMap<String, String>,
    /// Number of the newest event received.
    pub events_received: u64,
    /// Number of the newest event the agent held at its hello.
    pub events_until: u64,
}

/// What an agent said of a drill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DrillTold {
    /// It is at it.
    Started,
    /// It ended, and whether before its time.
    Ended {
        /// Cleared.
        cleared: bool,
    },
    /// It does not do it, and why.
    Refused(String),
}

/// Drills remembered of a node.
const DRILLS: usize = 64;

/// Epoch of an agent's spool.
pub type Epoch = [u8; 16];

/// The last minutes of the figures of a node that decisions use.
#[derive(Debug, Default)]
pub struct NodeLoad {
    /// [`Metric::CpuUsed`], percent.
    pub cpu: Recent,
    /// [`Metric::CpuIowait`], percent.
    pub iowait: Recent,
    /// [`Metric::MemUsed`], percent.
    pub mem: Recent,
    /// [`Metric::MemUsedBytes`].
    pub mem_bytes: Recent,
    /// [`Metric::PsiCpuSome`], percent.
    pub psi_cpu: Recent,
    /// [`Metric::PsiMemSome`], percent.
    pub psi_mem: Recent,
    /// [`Metric::PsiIoSome`], percent.
    pub psi_io: Recent,
    /// [`Metric::DrillActive`]: where it has a value, those beside it are made up.
    pub drill: Recent,
}

/// One guest as the agent of its node tells it.
#[derive(Debug)]
pub struct GuestLive {
    /// What it is.
    pub facts: GuestFacts,
    /// [`Metric::GuestCpu`], cores.
    pub cpu: Recent,
    /// [`Metric::GuestMem`], bytes.
    pub mem: Recent,
    /// Share of time its tasks waited for a CPU, percent.
    pub psi_cpu: Recent,
    /// Disk traffic both ways, bytes a second; reads and writes in turn.
    pub disk: [Recent; 2],
    /// Network traffic both ways, bytes a second.
    pub net: [Recent; 2],
    /// Its profile, when the agent has sent one that tells more than what is stored of this guest.
    pub profile: Option<GuestProfile>,
    /// What the agent's profile of it was made of, when it was last told.
    pub pieces: Option<Vec<ProfilePiece>>,
    /// What tells it from another guest that had its number before, once Proxmox was asked in this life of it.
    pub identity: Option<String>,
}

impl GuestLive {
    /// A guest of which only the facts are known.
    #[must_use]
    pub fn new(facts: GuestFacts) -> Self {
        let (cpu, mem, psi_cpu) = Default::default();
        let (disk, net, profile, pieces, identity) = Default::default();
        Self { facts, cpu, mem, psi_cpu, disk, net, profile, pieces, identity }
    }
}

impl NodeLive {
    /// Whether events from before the hello are still to come, so that the list of guests is not the latest.
    #[must_use]
    pub fn is_catching_up(&self) -> bool {
        self.events_received < self.events_until
    }

    /// Forgets the figures, because the node's clock was set back: they lie in its future now, and would stand in the
    /// way of all that comes until it gets there.
    pub fn forget_times(&mut self) {
        self.tick_at = None;
        (self.load, self.wide) = (NodeLoad::default(), Wide::default());
        for guest in self.guests.values_mut() {
            let (profile, pieces, identity) =
                (guest.profile.take(), guest.pieces.take(), guest.identity.take());
            *guest = GuestLive { profile, pieces, identity, ..GuestLive::new(guest.facts.clone()) };
        }
    }

    /// Notes what the agent said of a drill.
    pub fn note_drill(&mut self, id: &str, told: DrillTold) {
        self.drills.insert(id.to_owned(), told);
        while self.drills.len() > DRILLS {
            self.drills.pop_first();
        }
    }

    /// Takes over the list of guests that run now; those not in it are gone, those that are keep their past.
    pub fn set_guests(&mut self, guests: Vec<GuestFacts>) {
        let mut old = std::mem::take(&mut self.guests);
        for facts in guests {
            let vmid = facts.vmid;
            let guest = match old.remove(&vmid) {
                Some(mut known) if known.facts.started_at == facts.started_at => {
                    known.facts = facts;
                    known
                }
                _ => GuestLive::new(facts),
            };
            self.guests.insert(vmid, guest);
        }
    }

    /// One guest appeared or changed.
    pub fn set_guest(&mut self, facts: GuestFacts) {
        match self.guests.get_mut(&facts.vmid) {
            Some(known) if known.facts.started_at == facts.started_at => known.facts = facts,
            _ => {
                self.guests.insert(facts.vmid, GuestLive::new(facts));
            }
        }
    }

    /// Applies one value. Metrics that nobody asks the live state for are not kept.
    pub fn apply(&mut self, key: &SeriesKey, at: Timestamp, value: f64) {
        match key.subject {
            Subject::Node => {
                if let Some(recent) = self.load.of(key.metric) {
                    recent.push(at, value);
                } else if Wide::keeps(key.metric) {
                    self.wide.push(key, at, value);
                }
            }
            Subject::Guest(vmid) => {
                if let Some(recent) = self.guests.get_mut(&vmid).and_then(|g| g.of(key.metric)) {
                    recent.push(at, value);
                }
            }
        }
    }

    /// Whether [`Self::apply`] keeps this series, so that the others need not be restored at all.
    #[must_use]
    pub fn keeps(key: &SeriesKey) -> bool {
        use Metric as M;
        Wide::keeps(key.metric)
            || matches!(
                key.metric,
                M::CpuUsed
                    | M::CpuIowait
                    | M::MemUsed
                    | M::MemUsedBytes
                    | M::PsiCpuSome
                    | M::PsiMemSome
                    | M::PsiIoSome
                    | M::DrillActive
                    | M::GuestCpu
                    | M::GuestMem
                    | M::GuestPsiCpuSome
                    | M::GuestDiskRead
                    | M::GuestDiskWrite
                    | M::GuestNetIn
                    | M::GuestNetOut
            )
    }
}

impl NodeLoad {
    fn of(&mut self, metric: Metric) -> Option<&mut Recent> {
        Some(match metric {
            Metric::CpuUsed => &mut self.cpu,
            Metric::CpuIowait => &mut self.iowait,
            Metric::MemUsed => &mut self.mem,
            Metric::MemUsedBytes => &mut self.mem_bytes,
            Metric::PsiCpuSome => &mut self.psi_cpu,
            Metric::PsiMemSome => &mut self.psi_mem,
            Metric::PsiIoSome => &mut self.psi_io,
            Metric::DrillActive => &mut self.drill,
            _ => return None,
        })
    }
}

impl GuestLive {
    fn of(&mut self, metric: Metric) -> Option<&mut Recent> {
        Some(match metric {
            Metric::GuestCpu => &mut self.cpu,
            Metric::GuestMem => &mut self.mem,
            Metric::GuestPsiCpuSome => &mut self.psi_cpu,
            Metric::GuestDiskRead => &mut self.disk[0],
            Metric::GuestDiskWrite => &mut self.disk[1],
            Metric::GuestNetIn => &mut self.net[0],
            Metric::GuestNetOut => &mut self.net[1],
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::guest::GuestKind;

    fn facts(vmid: u32, started_s: i64) -> GuestFacts {
        GuestFacts {
            vmid: Vmid::new(vmid).unwrap(),
            kind: GuestKind::Qemu,
            name: None,
            vcpus: None,
            memory_max: None,
            tags: vec![],
            started_at: Timestamp::from_millis(started_s * 1000),
        }
    }

    #[test]
    fn a_reused_vmid_starts_without_the_past_of_the_old_guest() {
        let mut node = NodeLive::default();
        let key = SeriesKey::guest(Vmid::new(101).unwrap(), Metric::GuestCpu);
        node.apply(&key, Timestamp::from_millis(1), 1.0); // Not known yet: nothing to keep it with.
        node.set_guests(vec![facts(101, 5), facts(102, 5)]);
        node.apply(&key, Timestamp::from_millis(2), 2.0);
        node.set_guest(facts(101, 5));
        let vmid = Vmid::new(101).unwrap();
        assert_eq!(node.guests[&vmid].cpu.latest(), Some(2.0));
        node.set_guests(vec![facts(101, 9)]);
        assert_eq!(node.guests[&vmid].cpu.latest(), None);
        assert_eq!(node.guests.len(), 1);
    }

    #[test]
    fn what_is_kept_is_what_is_applied() {
        let mut node = NodeLive::default();
        node.set_guests(vec![facts(101, 5)]);
        for &metric in Metric::ALL {
            let key = if metric.of_guest() {
                SeriesKey::guest(Vmid::new(101).unwrap(), metric)
            } else {
                SeriesKey::node(metric)
            };
            let kept = if metric.of_guest() {
                node.guests.values_mut().next().unwrap().of(metric).is_some()
            } else {
                node.load.of(metric).is_some() || Wide::keeps(metric)
            };
            assert_eq!(NodeLive::keeps(&key), kept, "{metric}");
        }
    }
}
