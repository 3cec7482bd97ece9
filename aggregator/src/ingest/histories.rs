//! The past of guests: what agents and Proxmox's RRD know of how a guest behaves, kept while the guest is nowhere and
//! handed to the agent of the node where it appears.
//!
//! An agent tells with each profile what it was made of, its *pieces*. That is also its question: where a piece that is
//! stored is not among them the agent lacks the guest's past, and gets it in answer. It adds it once, whatever is said
//! how often, since what has a piece in common is not merged; after that its own profile is the whole one. Until then
//! the stored profile stands: a young one does not take its place.
//!
//! A vmid may be given to another guest, who must not inherit. Where a cluster's Proxmox is asked, guests go by the
//! identity in their configuration (`pve::guest_config`), read in this life of the guest; without one nothing is
//! handed on. Where it is not, a guest is the same when it appears on another node within minutes: it has moved.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_common::guest::{GuestKind, PieceOrigin, ProfilePiece, overlap};
use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_common::time::Timestamp;
use evenkeel_detect::profile::{GuestProfiler, HistoryError};

use crate::store::records::{GuestKey, HistoryRecord};
use crate::store::{Batch, Direction, KeyRange, OnDamage, Store, StoreError, trees};

/// What is older tells nothing any more: profiles are of the last two weeks.
const FADED: Duration = Duration::from_hours(15 * 24);
/// Without an identity: longest time between the two nodes of a move. A live migration overlaps, a container restarts.
const MOVED_WITHIN: Duration = Duration::from_mins(15);
/// Time after which the profile of a guest whose identity can not be had counts, though another's may be stored.
const UNSURE_FOR_MS: u64 = 300_000;
/// RRD histories that wait for their agents.
const MAX_OFFERS: usize = 64;
/// Most guests of which anything is remembered; no cluster has as many, but an agent may claim so.
const MAX_GUESTS: usize = 100_000;
/// Lives of a guest whose identity is remembered, so that late events of them find it.
const MAX_LIVES: usize = 4;

/// A guest as an agent tells of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Which.
    pub guest: GuestKey,
    /// Where.
    pub node: NodeId,
    /// Kind, where it is known.
    pub kind: Option<GuestKind>,
    /// Its identity, where Proxmox said it in this life of the guest.
    pub identity: Option<String>,
    /// What its profile was made of.
    pub pieces: Vec<ProfilePiece>,
}

/// A history as an agent sent it.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Of which guest; `pieces` are those of `bytes`, once they were read.
    pub seen: Seen,
    /// The history.
    pub bytes: Vec<u8>,
    /// Whether that life of the guest is over, so that nothing more will come of it.
    pub last: bool,
}

/// What is stored, beside what an agent tells of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    /// Nothing.
    Nothing,
    /// A part of it is in the agent's.
    Known,
    /// It is of this guest, and the agent has none of it.
    Lacking,
    /// It is of another guest.
    Stranger,
    /// Nobody can tell yet.
    Unsure,
}

/// Histories of all clusters. Rows are in the store; what they are of, and RRD histories under way, in memory.
pub struct Histories {
    store: Arc<dyn Store>,
    /// Clusters in which identities are to be had.
    identified: BTreeSet<ClusterId>,
    state: Mutex<State>,
    refused: AtomicU64,
}

#[derive(Default)]
struct State {
    heads: BTreeMap<GuestKey, HistoryRecord>,
    /// From the RRD, by the life of the guest they were read for.
    offers: BTreeMap<GuestKey, (Timestamp, Arc<[u8]>)>,
    /// Identities by the pieces in which they were told.
    lives: BTreeMap<GuestKey, VecDeque<(ProfilePiece, String)>>,
}

impl Histories {
    /// Of this store, where what has faded is deleted. `identified`: clusters whose Proxmox is asked.
    ///
    /// # Errors
    /// Of the store.
    pub fn open(
        store: Arc<dyn Store>,
        identified: BTreeSet<ClusterId>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let mut state = State::default();
        let mut faded = Batch::new();
        let all = KeyRange::all();
        trees::HISTORY_HEADS.scan(
            store.as_ref(),
            &all,
            Direction::Forward,
            OnDamage::Skip,
            |key, head| {
                let old = until(&head.pieces).is_none_or(|until| now.since(until) >= FADED);
                if !old {
                    state.heads.insert(key, head);
                } else if !faded.is_full() {
                    faded.delete(&trees::HISTORIES, &key);
                    faded.delete(&trees::HISTORY_HEADS, &key);
                } // The rest of the old ones goes at the next start.
                ControlFlow::Continue(())
            },
        )?;
        if !faded.is_empty() {
            store.apply(faded)?;
        }
        Ok(Self { store, identified, state: Mutex::new(state), refused: AtomicU64::new(0) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Histories that were none, since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Notes an identity, so that it is known when the guest's last words come late.
    pub fn note(&self, seen: &Seen) {
        let (Some(identity), Some(piece)) = (&seen.identity, seen.pieces.last()) else { return };
        let mut state = self.lock();
        if state.lives.len() > MAX_GUESTS {
            state.lives.pop_first();
        }
        let lives = state.lives.entry(seen.guest.clone()).or_default();
        if !lives.iter().any(|(known, whose)| known.is_of(piece) && whose == identity) {
            lives.push_back((*piece, identity.clone()));
            if lives.len() > MAX_LIVES {
                lives.pop_front();
            }
        }
    }

    /// Whether the stored profile tells more of this guest than what its agent has so far.
    #[must_use]
    pub fn tells_more(&self, seen: &Seen) -> bool {
        let state = self.lock();
        let Some(head) = state.heads.get(&seen.guest) else { return false };
        let here = observed_ms(&seen.pieces);
        match self.relation(&state, seen) {
            Relation::Lacking | Relation::Known => !is_as_rich(&seen.pieces, &head.pieces),
            Relation::Unsure => here < UNSURE_FOR_MS,
            Relation::Nothing | Relation::Stranger => false,
        }
    }

    /// Whether there is something that the agent lacks. `started_at`: of the life of the guest there.
    #[must_use]
    pub fn has_news(&self, seen: &Seen, started_at: Timestamp) -> bool {
        let state = self.lock();
        self.relation(&state, seen) == Relation::Lacking || state.offer(seen, started_at).is_some()
    }

    /// What the agent lacks: the stored history, or what the RRD told. Reads the store.
    ///
    /// # Errors
    /// Of the store.
    pub fn news(&self, seen: &Seen, started_at: Timestamp) -> Result<Option<Vec<u8>>, StoreError> {
        let offered = {
            let state = self.lock();
            if self.relation(&state, seen) != Relation::Lacking {
                return Ok(state.offer(seen, started_at).map(|bytes| bytes.to_vec()));
            }
            state.offer(seen, started_at)
        };
        let stored = trees::HISTORIES.get(self.store.as_ref(), &seen.guest)?;
        Ok(stored.or_else(|| offered.map(|bytes| bytes.to_vec())))
    }

    /// Whether the RRD should be asked for what was before a guest's first piece.
    #[must_use]
    pub fn wants_rrd(&self, seen: &Seen, started_at: Timestamp) -> bool {
        let state = self.lock();
        let known = |pieces: &[ProfilePiece]| pieces.iter().any(|piece| piece.origin == PieceOrigin::Rrd);
        let waits = matches!(self.relation(&state, seen), Relation::Lacking | Relation::Unsure);
        !waits
            && !known(&seen.pieces)
            && state.offer(seen, started_at).is_none()
            && state.offers.len() < MAX_OFFERS
    }

    /// End of what is stored under this vmid of another guest: what was before is not of this one.
    #[must_use]
    pub fn stranger_until(&self, seen: &Seen) -> Option<Timestamp> {
        let state = self.lock();
        let stranger = self.relation(&state, seen) == Relation::Stranger;
        state.heads.get(&seen.guest).filter(|_| stranger).and_then(|head| until(&head.pieces))
    }

    /// Keeps what the RRD told until the agent has it.
    pub fn offer(&self, guest: GuestKey, started_at: Timestamp, bytes: Arc<[u8]>) {
        self.lock().offers.insert(guest, (started_at, bytes));
    }

    /// Drops the offers of a cluster for which nobody waits any more.
    pub fn keep_offers(&self, cluster: &ClusterId, waits: impl Fn(&GuestKey, Timestamp) -> bool) {
        let mut state = self.lock();
        state.offers.retain(|guest, (started_at, _)| guest.cluster != *cluster || waits(guest, *started_at));
    }

    /// Takes a history in; what comes of it goes into `batch`. What was put into earlier batches must be applied.
    ///
    /// # Errors
    /// Of the store. A history that is none is counted and left out.
    pub fn take(&self, told: Told, batch: &mut Batch, now: Timestamp) -> Result<(), StoreError> {
        let Told { mut seen, mut bytes, last } = told;
        let mut history = match GuestProfiler::from_bytes(&bytes, now) {
            Ok(history) => history,
            Err(error) => {
                self.refuse(&seen, error);
                return Ok(());
            }
        };
        let mut state = self.lock();
        seen.pieces = history.pieces().to_vec();
        seen.identity = seen.identity.take().or_else(|| state.identity(&seen));
        let relation = self.relation(&state, &seen);
        let head = state.heads.get(&seen.guest);
        let stored = head.and_then(|head| until(&head.pieces));
        let newer = history.until() > stored;
        let rich = head.is_none_or(|head| is_as_rich(&seen.pieces, &head.pieces));
        let keep = match relation {
            Relation::Nothing => state.heads.len() < MAX_GUESTS,
            // An agent that has forgotten what it was handed knows less than what it told before.
            Relation::Known => newer && rich,
            Relation::Stranger => newer,
            // As long as the guest runs there, its agent will be handed the rest.
            Relation::Lacking => last,
            Relation::Unsure => stored.is_some_and(|stored| now.since(stored) >= FADED),
        };
        if !keep {
            return Ok(());
        }
        if relation == Relation::Lacking
            && let Some(stored) = trees::HISTORIES.get(self.store.as_ref(), &seen.guest)?
        {
            match GuestProfiler::from_bytes(&stored, now).map(|stored| history.merge(&stored)) {
                Ok(_) => bytes = history.to_bytes().unwrap_or(bytes),
                Err(error) => self.refuse(&seen, error),
            }
        }
        let known = head.filter(|_| relation == Relation::Known).and_then(|head| head.identity.clone());
        let Seen { guest, node, kind, identity, .. } = seen;
        let pieces = history.pieces().to_vec();
        let head = HistoryRecord { node, kind, identity: identity.or(known), pieces, at: now };
        batch.put(&trees::HISTORIES, &guest, &bytes)?;
        batch.put(&trees::HISTORY_HEADS, &guest, &head)?;
        state.heads.insert(guest, head);
        Ok(())
    }

    fn refuse(&self, seen: &Seen, error: HistoryError) {
        let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        let GuestKey { cluster, vmid } = &seen.guest;
        tracing::warn!(%cluster, node = %seen.node, %vmid, refused, %error, "a guest's history is not used");
    }

    fn relation(&self, state: &State, seen: &Seen) -> Relation {
        let Some(head) = state.heads.get(&seen.guest) else { return Relation::Nothing };
        if overlap(&head.pieces, &seen.pieces) {
            return Relation::Known;
        }
        let same = match (&head.identity, &seen.identity) {
            (Some(one), Some(other)) => one == other,
            _ if self.identified.contains(&seen.guest.cluster) => return Relation::Unsure,
            _ => has_moved(head, seen),
        };
        if same { Relation::Lacking } else { Relation::Stranger }
    }
}

impl std::fmt::Debug for Histories {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Histories").finish_non_exhaustive()
    }
}

impl State {
    fn offer(&self, seen: &Seen, started_at: Timestamp) -> Option<Arc<[u8]>> {
        let (life, bytes) = self.offers.get(&seen.guest)?;
        let lacks = !seen.pieces.iter().any(|piece| piece.origin == PieceOrigin::Rrd);
        (*life == started_at && lacks).then(|| Arc::clone(bytes))
    }

    fn identity(&self, seen: &Seen) -> Option<String> {
        let lives = self.lives.get(&seen.guest)?;
        let of = |piece: &ProfilePiece| seen.pieces.iter().any(|own| own.is_of(piece));
        lives.iter().rev().find(|(piece, _)| of(piece)).map(|(_, identity)| identity.clone())
    }
}

/// Whether a guest appeared on another node when it left the one it was stored from.
fn has_moved(head: &HistoryRecord, seen: &Seen) -> bool {
    let kinds = head.kind.zip(seen.kind).is_none_or(|(one, other)| one == other);
    let (Some(left), Some(came)) = (until(&head.pieces), seen.pieces.last().map(|piece| piece.began)) else {
        return false;
    };
    kinds && head.node != seen.node && left.since(came).max(came.since(left)) <= MOVED_WITHIN
}

/// Whether what an agent tells has all that is stored, but for what has faded, or at least as much.
fn is_as_rich(told: &[ProfilePiece], stored: &[ProfilePiece]) -> bool {
    let newest = until(told).unwrap_or_default();
    let has = |piece: &ProfilePiece| {
        newest.since(piece.until) >= FADED || told.iter().any(|known| known.is_of(piece))
    };
    stored.iter().all(has) || observed_ms(told) >= observed_ms(stored)
}

fn until(pieces: &[ProfilePiece]) -> Option<Timestamp> {
    pieces.iter().map(|piece| piece.until).max()
}

fn observed_ms(pieces: &[ProfilePiece]) -> u64 {
    pieces.iter().fold(0, |sum, piece| sum.saturating_add(piece.observed_ms))
}

#[cfg(test)]
mod tests;
