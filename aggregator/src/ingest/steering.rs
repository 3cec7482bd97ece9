//! What agents are told to do: whom to probe, and which fault drills to run. Every stream gets its node's settings with
//! the hello and again when they change; always the whole of them, so that only the latest counts.
//!
//! *Probes.* The nodes of a cluster, in order of their names, form a ring, and each asks the next few; so every node
//! is asked by several, and a node more or less changes the lists of its neighbours only. A node that disconnects
//! stays in the lists for a while, so that its loss is seen.
//!
//! *Drills* are held in memory only: a restart of the aggregator ends them all, since nobody would know of them any
//! more. That data was made up is told by the data themselves (`Metric::DrillActive`), not from here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_common::drill::Drill;
use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_common::time::Timestamp;
use evenkeel_proto::v1;
use evenkeel_runtime::seal::derive;
use tokio::sync::watch;

use crate::store::records::NodeKey;

/// Most peers a node asks, whatever it offers.
const MOST_PEERS: usize = 16;
/// Most drills at once on one node.
const MOST_DRILLS: usize = 8;
/// Drills that are over are remembered this long, for those who ask what became of them.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// What agents are told to do.
pub struct Steering {
    /// From which the clusters' probe keys are made.
    secret: Vec<u8>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    clusters: BTreeMap<ClusterId, BTreeMap<NodeId, Member>>,
    drills: Vec<OrderedDrill>,
    last_id: i64,
}

/// A node that takes part in the mesh.
#[derive(Clone, Copy)]
struct Member {
    address: SocketAddr,
    asks: usize,
    /// The stream that told so.
    session: u64,
}

/// A drill as ordered.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderedDrill {
    /// Where.
    pub node: NodeKey,
    /// What; `ms` is its whole length.
    pub drill: Drill,
    /// Who ordered it.
    pub by: String,
    /// When it was ordered, and when it ends.
    pub at: (Timestamp, Timestamp),
    /// Aggregator's uptime at its end.
    until: Duration,
    /// When it was cleared, if so.
    pub cleared: Option<Timestamp>,
}

/// Why a drill was not ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this node has {MOST_DRILLS} drills already; clear some")]
pub struct TooMany;

impl Steering {
    /// `secret`: known to this aggregator alone, the same after a restart.
    #[must_use]
    pub fn new(secret: Vec<u8>) -> Self {
        Self { secret, state: Mutex::default(), changed: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and tells the streams.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let outcome = change(&mut self.lock());
        self.changed.send_modify(|version| *version += 1);
        outcome
    }

    /// Wakes when any node's settings may have changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A node connected that answers probes at `address` and would ask so many peers.
    pub fn join(&self, node: &NodeKey, address: SocketAddr, asks: u32, session: u64) {
        let member = Member { address, asks: (asks as usize).min(MOST_PEERS), session };
        self.change(|state| {
            state.clusters.entry(node.cluster.clone()).or_default().insert(node.node.clone(), member);
        });
    }

    /// A node takes part no more, if it is still the stream `session` that spoke for it last.
    pub fn leave(&self, node: &NodeKey, session: u64) {
        let gone = |state: &mut State| {
            let members = state.clusters.get_mut(&node.cluster)?;
            let ours = members.get(&node.node).is_some_and(|member| member.session <= session);
            ours.then(|| members.remove(&node.node))
        };
        if gone(&mut self.lock()).is_some() {
            self.change(|_| ());
        }
    }

    /// Orders a drill and returns its id.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn order(
        &self,
        node: NodeKey,
        drill: Drill,
        by: String,
        now: Timestamp,
        uptime: Duration,
    ) -> Result<String, TooMany> {
        let lasts = Duration::from_millis(drill.ms);
        let until = uptime.saturating_add(lasts);
        self.change(|state| {
            state.forget(uptime);
            let active = state.drills.iter().filter(|drill| drill.node == node && drill.is_on(uptime));
            if active.count() >= MOST_DRILLS {
                return Err(TooMany);
            }
            // By time, so that no id comes back after a restart; an agent never begins the same id twice.
            state.last_id = now.as_millis().max(state.last_id + 1);
            let id = format!("d{}", state.last_id);
            let drill = Drill { id: id.clone(), ..drill };
            let at = (now, now.after(lasts));
            state.drills.push(OrderedDrill { node, drill, by, at, until, cleared: None });
            Ok(id)
        })
    }

    /// Ends drills before their time: those of a node, or all of these clusters. Returns their ids.
    pub fn clear(
        &self,
        clusters: &[ClusterId],
        node: Option<&NodeId>,
        now: Timestamp,
        uptime: Duration,
    ) -> Vec<String> {
        self.change(|state| {
            let meant = state.drills.iter_mut().filter(|drill| {
                drill.is_on(uptime)
                    && clusters.contains(&drill.node.cluster)
                    && node.is_none_or(|node| drill.node.node == *node)
            });
            meant
                .map(|drill| {
                    drill.cleared = Some(now);
                    drill.drill.id.clone()
                })
                .collect()
        })
    }

    /// The drills of these clusters, oldest first, those of the last hour that are over included.
    #[must_use]
    pub fn drills(&self, clusters: &[ClusterId], uptime: Duration) -> Vec<OrderedDrill> {
        let mut state = self.lock();
        state.forget(uptime);
        state.drills.iter().filter(|drill| clusters.contains(&drill.node.cluster)).cloned().collect()
    }

    /// What a node is to be told now.
    #[must_use]
    pub fn settings(&self, node: &NodeKey, uptime: Duration) -> v1::Settings {
        let state = self.lock();
        let drills = state.drills.iter().filter(|drill| drill.node == *node && drill.is_on(uptime));
        let left = |until: Duration| until.saturating_sub(uptime).as_millis();
        let drills = drills.map(|ordered| {
            let ms = u64::try_from(left(ordered.until)).unwrap_or(u64::MAX);
            v1::Drill::from(Drill { ms, ..ordered.drill.clone() })
        });
        let probe = state.clusters.get(&node.cluster).filter(|members| members.contains_key(&node.node));
        v1::Settings {
            drills: drills.collect(),
            probe: probe.map(|members| v1::ProbeSettings {
                key: derive(&self.secret, &format!("evenkeel probe 1 {}", node.cluster)).to_vec(),
                peers: neighbours(members, &node.node),
            }),
            ..v1::Settings::default()
        }
    }
}

impl State {
    fn forget(&mut self, uptime: Duration) {
        self.drills.retain(|drill| uptime.saturating_sub(drill.until) < REMEMBERED);
    }
}

impl OrderedDrill {
    /// Whether its agent should be at it.
    #[must_use]
    pub fn is_on(&self, uptime: Duration) -> bool {
        self.cleared.is_none() && uptime < self.until
    }
}

/// Whom a node asks: the next on the ring; and whom it answers: those before it that ask so far. A node that came by
/// the loopback, since it shares a machine with the aggregator, can not be reached by the others at that address.
fn neighbours(members: &BTreeMap<NodeId, Member>, node: &NodeId) -> Vec<v1::ProbePeer> {
    let Some(own) = members.get(node) else { return Vec::new() };
    let here = |member: &Member| member.address.ip().is_loopback();
    let reached = |(_, member): &(&NodeId, &Member)| here(member) == here(own);
    let (behind, ahead) =
        ((Bound::Unbounded, Bound::Excluded(node)), (Bound::Excluded(node), Bound::Unbounded));
    let range = |bounds| members.range::<NodeId, _>(bounds).filter(reached);
    let next = range(ahead).chain(range(behind));
    let mut peers: BTreeMap<&NodeId, (SocketAddr, bool)> =
        next.take(own.asks).map(|(name, member)| (name, (member.address, true))).collect();
    let before = range(behind).rev().chain(range(ahead).rev());
    for (distance, (name, member)) in (1..=MOST_PEERS).zip(before) {
        if member.asks >= distance {
            peers.entry(name).or_insert((member.address, false));
        }
    }
    let peer = |(name, (address, ask)): (&NodeId, (SocketAddr, bool))| v1::ProbePeer {
        node: name.to_string(),
        address: address.to_string(),
        ask,
    };
    peers.into_iter().map(peer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::drill::DrillKind;

    fn key(n: usize) -> NodeKey {
        let node = NodeId::new(format!("pve{n}")).unwrap();
        NodeKey { cluster: ClusterId::new("lab").unwrap(), node }
    }

    fn address(n: usize) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n as u8], 7444))
    }

    fn asked(steering: &Steering, n: usize) -> (Vec<String>, Vec<String>) {
        let probe = steering.settings(&key(n), Duration::ZERO).probe.unwrap();
        let (asks, answers): (Vec<_>, Vec<_>) = probe.peers.into_iter().partition(|peer| peer.ask);
        let names = |peers: Vec<v1::ProbePeer>| peers.into_iter().map(|peer| peer.node).collect();
        (names(asks), names(answers))
    }

    #[test]
    fn everybody_is_asked_by_several_and_answers_exactly_those() {
        let steering = Steering::new(vec![1; 32]);
        (1..=8).for_each(|n| steering.join(&key(n), address(n), 3, 1));
        assert_eq!(
            asked(&steering, 7),
            (
                vec!["pve1".into(), "pve2".into(), "pve8".into()],
                vec!["pve4".into(), "pve5".into(), "pve6".into()]
            )
        );
        for n in 1..=8 {
            let name = format!("pve{n}");
            for m in (1..=8).filter(|m| *m != n) {
                let (asks, _) = asked(&steering, m);
                let (own, answers) = asked(&steering, n);
                let knows = own.contains(&format!("pve{m}")) || answers.contains(&format!("pve{m}"));
                assert!(!asks.contains(&name) || knows, "{n} would not answer {m}");
            }
        }
        steering.leave(&key(8), 1);
        assert_eq!(asked(&steering, 7).0, ["pve1", "pve2", "pve3"]);
        assert_eq!(steering.settings(&key(8), Duration::ZERO).probe, None);
        steering.join(&key(8), address(8), 3, 5);
        steering.leave(&key(8), 4);
        assert!(asked(&steering, 7).0.contains(&"pve8".into()), "a newer stream speaks for it");
    }

    #[test]
    fn one_or_two_nodes_and_other_clusters_are_no_special_case() {
        let steering = Steering::new(vec![1; 32]);
        steering.join(&key(1), address(1), 4, 1);
        assert_eq!(asked(&steering, 1), (vec![], vec![]));
        steering.join(&key(2), address(2), 4, 1);
        assert_eq!(asked(&steering, 1), (vec!["pve2".into()], vec![]));
        steering.join(&key(3), SocketAddr::from(([127, 0, 0, 1], 7444)), 4, 1);
        assert_eq!(asked(&steering, 1), (vec!["pve2".into()], vec![]), "on the aggregator's own machine");
        assert_eq!(asked(&steering, 3), (vec![], vec![]));
        let other = NodeKey { cluster: ClusterId::new("other").unwrap(), node: key(1).node };
        steering.join(&other, address(9), 4, 1);
        let keys = [key(1), other].map(|key| steering.settings(&key, Duration::ZERO).probe.unwrap().key);
        assert!(keys[0] != keys[1] && keys[0].len() == 32, "each cluster has its own key");
        let again = Steering::new(vec![1; 32]);
        again.join(&key(1), address(1), 4, 1);
        assert_eq!(
            again.settings(&key(1), Duration::ZERO).probe.unwrap().key,
            keys[0],
            "after a restart too"
        );
    }

    #[test]
    fn drills_are_told_with_what_is_left_until_they_end_or_are_cleared() {
        let (steering, now) = (Steering::new(vec![]), Timestamp::from_millis(5_000));
        let s = Duration::from_secs;
        let drill = Drill { id: String::new(), kind: DrillKind::Cpu, guest: None, amount: 30.0, ms: 60_000 };
        let order = |n| steering.order(key(n), drill.clone(), "me".into(), now, s(100));
        let (one, two) = (order(1).unwrap(), order(2).unwrap());
        assert_ne!(one, two);
        let told = |n, uptime| {
            let drills = steering.settings(&key(n), uptime).drills;
            drills.into_iter().map(|drill| (drill.id, drill.ms)).collect::<Vec<_>>()
        };
        assert_eq!(told(1, s(110)), [(one.clone(), 50_000)]);
        let lab = [key(1).cluster];
        assert_eq!(steering.clear(&lab, Some(&key(1).node), now, s(120)), [one]);
        assert_eq!((told(1, s(120)), told(2, s(120)).len(), told(2, s(160)).len()), (vec![], 1, 0));
        assert_eq!(steering.clear(&lab, None, now, s(200)), Vec::<String>::new(), "over by itself");
        assert_eq!(steering.drills(&lab, s(200)).len(), 2);
        assert_eq!(steering.drills(&lab, s(4_000)).len(), 0);
        (0..8).for_each(|_| drop(order(1).unwrap()));
        assert_eq!(order(1), Err(TooMany));
    }
}
