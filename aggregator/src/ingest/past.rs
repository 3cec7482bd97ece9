//! One stream's part in the past of guests: which of an agent's profiles stand, what of its histories is kept, and
//! what it lacks. See [`super::histories`] for the rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_common::event::{AgentEvent, EventKind};
use evenkeel_common::guest::{GuestProfile, MAX_HISTORY_BYTES, ProfilePiece};
use evenkeel_common::id::Vmid;
use evenkeel_common::time::Timestamp;
use evenkeel_proto::v1;

use super::histories::{Histories, Seen, Told};
use super::live::{GuestLive, NodeLive};
use crate::store::records::{GuestKey, NodeKey};

/// A guest of whose past an agent lacks something.
#[derive(Clone, Debug, PartialEq)]
pub struct Lacking {
    /// What the agent knows of it.
    pub seen: Seen,
    /// When its life on that node began.
    pub started_at: Timestamp,
}

/// The histories, as one stream uses them.
#[derive(Clone, Debug)]
pub struct Past {
    histories: Arc<Histories>,
    node: NodeKey,
    lacking: BTreeMap<Vmid, Lacking>,
    /// Checksums of what was sent to this agent, newest of each life: what it did not take once it will not take
    /// again.
    sent: BTreeMap<Vmid, (Timestamp, Vec<u32>)>,
}

/// Most guests of which it is remembered what was sent.
const MAX_GUESTS: usize = 10_000;
/// Different histories sent for one life of a guest on one stream.
const MAX_SENT: usize = 8;

impl Past {
    /// Of the stream of a node.
    #[must_use]
    pub fn new(histories: Arc<Histories>, node: NodeKey) -> Self {
        Self { histories, node, lacking: BTreeMap::new(), sent: BTreeMap::new() }
    }

    /// Whether a profile tells more than what is stored of its guest; if not, that stands. Notes what the agent lacks.
    pub(super) fn stands(&mut self, profile: &GuestProfile, live: &mut NodeLive) -> bool {
        let Some(guest) = live.guests.get_mut(&profile.vmid) else { return true };
        guest.pieces = Some(profile.pieces.clone());
        if profile.pieces.is_empty() {
            return true; // Of an older agent, which could not make use of more.
        }
        let (started_at, seen) =
            (guest.facts.started_at, self.seen(profile.vmid, Some(guest), &profile.pieces));
        self.histories.note(&seen);
        if self.histories.has_news(&seen, started_at) {
            self.lacking.insert(profile.vmid, Lacking { seen: seen.clone(), started_at });
        }
        !self.histories.tells_more(&seen)
    }

    /// A history out of a report, if it is of a life of the guest that still goes on.
    pub(super) fn told(&self, wire: v1::GuestHistory, live: &NodeLive) -> Option<Told> {
        let v1::GuestHistory { vmid, history, started_at_ms } = wire;
        let vmid = Vmid::new(vmid).ok()?;
        let guest = live.guests.get(&vmid)?;
        let goes_on = guest.facts.started_at.as_millis() == started_at_ms;
        // One that is too long is cut to where it is refused, and counted, without being kept meanwhile.
        let bytes: Vec<u8> = history.into_iter().take(MAX_HISTORY_BYTES + 1).collect();
        let seen = self.seen(vmid, Some(guest), &[]);
        goes_on.then_some(Told { seen, bytes, last: false })
    }

    /// Takes the history out of the event of a guest that is gone, and its profile when it does not stand.
    pub(super) fn last_words(&self, event: &mut AgentEvent, live: &NodeLive) -> Option<Told> {
        let EventKind::GuestVanished { vmid, profile, history } = &mut event.kind else { return None };
        let (guest, bytes) = (live.guests.get(vmid), history.take());
        if let Some(figures) = profile {
            let seen = self.seen(*vmid, guest, &figures.pieces);
            if !figures.pieces.is_empty() && self.histories.tells_more(&seen) {
                *profile = None;
            }
        }
        Some(Told { seen: self.seen(*vmid, guest, &[]), bytes: bytes?, last: true })
    }

    /// Guests of whose past this agent lacks something, as far as it was told since the last call.
    pub(super) fn take_lacking(&mut self) -> Vec<Lacking> {
        std::mem::take(&mut self.lacking).into_values().collect()
    }

    /// Whether this was not sent on this stream yet; from now on it was.
    pub(super) fn is_new(&mut self, lacking: &Lacking, bytes: &[u8]) -> bool {
        if self.sent.len() >= MAX_GUESTS {
            self.sent.clear(); // Sent again it does no harm.
        }
        let sent = self.sent.entry(lacking.seen.guest.vmid).or_default();
        if sent.0 != lacking.started_at {
            *sent = (lacking.started_at, Vec::new());
        }
        let checksum = crc32fast::hash(bytes);
        let new = sent.1.len() < MAX_SENT && !sent.1.contains(&checksum);
        if new {
            sent.1.push(checksum);
        }
        new
    }

    fn seen(&self, vmid: Vmid, guest: Option<&GuestLive>, pieces: &[ProfilePiece]) -> Seen {
        let NodeKey { cluster, node } = self.node.clone();
        Seen {
            guest: GuestKey { cluster, vmid },
            node,
            kind: guest.map(|guest| guest.facts.kind),
            identity: guest.and_then(|guest| guest.identity.clone()),
            pieces: pieces.to_vec(),
        }
    }
}
