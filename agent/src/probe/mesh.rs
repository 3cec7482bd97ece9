//! Whom to ask and whom to answer, and what came of it: shared between the socket's task and the agent's ticks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_runtime::random::{self, Entropy};
use evenkeel_runtime::seal::SealKey;

use super::packet::{Kind, LENGTH, Packet};
use super::peer::{Bucket, Figures, Way};

/// Questions of one peer that are answered: a second's worth of the fastest probing, and some.
const ANSWERS_PER_SECOND: f64 = 5.0;
const ANSWERS_AT_ONCE: f64 = 10.0;
/// Most peers taken, whatever the aggregator says.
pub const MAX_PEERS: usize = 64;

/// A peer as the aggregator names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub node: String,
    /// Where it probes from and answers.
    pub address: SocketAddr,
    /// Whether to ask it; otherwise it is only answered.
    pub ask: bool,
}

/// The mesh as this node takes part in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The cluster's key.
    pub key: [u8; 32],
    /// The peers.
    pub peers: Vec<Peer>,
}

/// What became of packets that arrived.
#[derive(Debug, Default)]
pub struct Counts {
    /// Questions answered.
    pub answered: AtomicU64,
    /// From an address that is no peer's.
    pub strangers: AtomicU64,
    /// Of another form or not sealed with the cluster's key.
    pub forged: AtomicU64,
    /// Questions beyond the rate.
    pub limited: AtomicU64,
    /// Answers that were late, double, or to no question.
    pub stray: AtomicU64,
}

/// Shared between the socket's task and the ticks.
#[derive(Clone, Debug)]
pub struct Mesh {
    state: Arc<Mutex<State>>,
    /// What arrived.
    pub counts: Arc<Counts>,
    max_peers: usize,
}

#[derive(Debug, Default)]
struct State {
    key: Option<SealKey>,
    bytes: [u8; 32],
    peers: BTreeMap<SocketAddr, Known>,
    /// Why there is no socket.
    fault: Option<String>,
}

#[derive(Debug)]
struct Known {
    node: String,
    way: Option<Way>,
    bucket: Bucket,
}

impl Mesh {
    /// Asks at most `max_peers`.
    #[must_use]
    pub fn new(max_peers: usize) -> Self {
        Self { state: Arc::default(), counts: Arc::default(), max_peers }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over who belongs to the mesh; `None` ends it. What is known of peers that stay is kept.
    pub fn join(&self, membership: Option<&Membership>, entropy: &dyn Entropy, now: Duration) {
        let mut state = self.lock();
        let Some(Membership { key, peers }) = membership else {
            let fault = state.fault.take();
            *state = State { fault, ..State::default() };
            return;
        };
        if state.key.is_none() || state.bytes != *key {
            state.key = Some(SealKey::new(key));
            state.bytes = *key;
        }
        let mut old = std::mem::take(&mut state.peers);
        let mut asks = 0;
        for peer in peers.iter().take(MAX_PEERS) {
            let known = old.remove(&peer.address).filter(|known| known.node == peer.node);
            let ask = peer.ask && asks < self.max_peers;
            asks += usize::from(ask);
            let bucket = || Bucket::new(ANSWERS_PER_SECOND, ANSWERS_AT_ONCE, now);
            let (way, bucket) = known.map_or_else(|| (None, bucket()), |known| (known.way, known.bucket));
            // Without randomness a nonce would be guessable: such a peer is answered, not asked.
            let fresh = || random::bytes(entropy).ok().map(|bytes| Way::new(u64::from_le_bytes(bytes)));
            let way = if ask { way.or_else(fresh) } else { None };
            state.peers.insert(peer.address, Known { node: peer.node.clone(), way, bucket });
        }
    }

    /// The questions of this moment, with where they go.
    pub(super) fn questions(&self, now: Duration) -> Vec<(SocketAddr, [u8; LENGTH])> {
        let mut state = self.lock();
        let Some(key) = state.key.clone() else { return Vec::new() };
        let asked = state.peers.iter_mut().filter_map(|(address, known)| {
            let way = known.way.as_mut()?;
            let packet = Packet { kind: Kind::Question, nonce: way.nonce, number: way.ask(now) };
            Some((*address, packet.encode(&key)))
        });
        asked.collect()
    }

    /// Takes a packet; what to answer, if anything. Nothing is ever said to strangers.
    pub(super) fn take(&self, from: SocketAddr, bytes: &[u8], now: Duration) -> Option<[u8; LENGTH]> {
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        let Some(key) = state.key.clone() else {
            count(&self.counts.strangers);
            return None;
        };
        let Some(known) = state.peers.get_mut(&from) else {
            count(&self.counts.strangers);
            return None;
        };
        let Some(packet) = Packet::decode(bytes, &key) else {
            count(&self.counts.forged);
            return None;
        };
        match packet.kind {
            Kind::Question if known.bucket.take(now) => {
                count(&self.counts.answered);
                Some(Packet { kind: Kind::Answer, ..packet }.encode(&key))
            }
            Kind::Question => {
                count(&self.counts.limited);
                None
            }
            Kind::Answer => {
                let ours =
                    known.way.as_mut().is_some_and(|way| way.answered(packet.nonce, packet.number, now));
                if !ours {
                    count(&self.counts.stray);
                }
                None
            }
        }
    }

    /// What the ways to those who are asked are like, by name.
    #[must_use]
    pub fn figures(&self, now: Duration) -> Vec<(String, Option<Figures>)> {
        let state = self.lock();
        let asked = state.peers.values().filter_map(|known| {
            let way = known.way.as_ref()?;
            Some((known.node.clone(), way.figures(now)))
        });
        asked.collect()
    }

    /// Why nothing can be asked or answered.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.lock().fault.clone()
    }

    /// Says why nothing can be asked or answered.
    pub fn set_fault(&self, fault: Option<String>) {
        self.lock().fault = fault;
    }
}
