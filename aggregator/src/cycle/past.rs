//! What Proxmox knows of guests: who each is, and, for those of whom nobody knows any past, what its RRD has recorded.
//!
//! The RRD is asked once for each life of a guest, a few guests at a time, after the step's decisions. What it tells
//! is handed to the guest's agent as any history is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::guest::{GuestKind, PieceOrigin};
use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use evenkeel_detect::profile::{GuestProfiler, RrdMean};
use futures_util::StreamExt;
use futures_util::stream;

use crate::ingest::histories::Seen;
use crate::ingest::{Histories, Live};
use crate::pve::rrd::{self, RrdPoint};
use crate::pve::{Inventory, PveClient, PveError};
use crate::store::records::GuestKey;

/// Guests asked for in a step, all at once: two or three answers each, half a megabyte at most.
const GUESTS_A_STEP: usize = 4;
/// How far back the RRD is of use: profiles are of the last two weeks.
const LOOK_BACK: Duration = Duration::from_hours(14 * 24);
/// After an answer, or a refusal that only a person can lift, the RRD is not asked again for this long.
const ASKED: Duration = Duration::from_hours(6);
/// After a failure that may pass.
const RETRY: Duration = Duration::from_mins(10);

/// Reads the past of one cluster's guests.
pub(super) struct PastReader {
    cluster: ClusterId,
    live: Arc<Live>,
    histories: Arc<Histories>,
    /// Life of a guest, and the aggregator's uptime from which on its RRD may be asked again.
    asked: BTreeMap<Vmid, (Timestamp, Duration)>,
    /// The failure told last.
    failure: Option<&'static str>,
}

/// A guest whose past is wanted.
struct Wanted {
    seen: Seen,
    kind: GuestKind,
    started_at: Timestamp,
    /// From when on, and until when.
    from: Timestamp,
    until: Timestamp,
}

impl PastReader {
    pub(super) fn new(cluster: ClusterId, live: Arc<Live>, histories: Arc<Histories>) -> Self {
        Self { cluster, live, histories, asked: BTreeMap::new(), failure: None }
    }

    /// Tells who the guests are, and reads the past of a few.
    pub(super) async fn step(
        &mut self,
        client: &PveClient,
        inventory: &Inventory,
        now: Timestamp,
        uptime: Duration,
    ) {
        self.asked.retain(|vmid, _| inventory.guests.contains_key(vmid));
        let wanted = self.wanted(inventory, now, uptime);
        let mut answers = stream::iter(wanted)
            .map(|wanted| async move {
                let Seen { guest, node, .. } = &wanted.seen;
                let answer = rrd::of_guest(client, node, wanted.kind, guest.vmid).await;
                (wanted, answer)
            })
            .buffer_unordered(GUESTS_A_STEP);
        while let Some((wanted, answer)) = answers.next().await {
            let again = match answer {
                Ok(points) => {
                    self.failure = None;
                    self.offer(&wanted, &points);
                    ASKED
                }
                Err(error) => self.failed(&wanted, &error),
            };
            let vmid = wanted.seen.guest.vmid;
            self.asked.insert(vmid, (wanted.started_at, uptime.saturating_add(again)));
        }
    }

    /// Names the guests by their configurations, and gives the next few that nobody knows any past of.
    fn wanted(&self, inventory: &Inventory, now: Timestamp, uptime: Duration) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        let mut waiting: BTreeMap<Vmid, Timestamp> = BTreeMap::new();
        for (node, cell) in self.live.cluster(&self.cluster) {
            let mut live = cell.lock();
            let catching_up = live.is_catching_up();
            for (&vmid, guest) in &mut live.guests {
                let on_node = inventory.guests.get(&vmid).is_some_and(|listed| listed.node == node);
                let config = inventory.configs.get(&vmid).filter(|_| on_node);
                // Of a configuration read before this life began nobody knows whose it is.
                let Some(config) = config.filter(|config| config.read_at >= guest.facts.started_at) else {
                    continue;
                };
                if config.identity.is_some() {
                    guest.identity.clone_from(&config.identity);
                }
                let Some(first) = guest.pieces.as_ref().and_then(|pieces| pieces.first()) else { continue };
                let seen = seen(&self.cluster, &node, vmid, guest);
                let (started_at, has_rrd) = (guest.facts.started_at, first.origin == PieceOrigin::Rrd);
                let is_due = self.is_due(vmid, started_at, uptime);
                if !has_rrd && !is_due {
                    waiting.insert(vmid, started_at);
                }
                let from =
                    [Some(now.before(LOOK_BACK)), config.created, self.histories.stranger_until(&seen)];
                let from = from.into_iter().flatten().max().unwrap_or(now);
                let until = first.began;
                if !catching_up && is_due && self.histories.wants_rrd(&seen, started_at) {
                    wanted.push(Wanted { seen, kind: guest.facts.kind, started_at, from, until });
                }
            }
        }
        let waits =
            |key: &GuestKey, life| waiting.get(&key.vmid).is_some_and(|started_at| *started_at == life);
        self.histories.keep_offers(&self.cluster, waits);
        wanted.truncate(GUESTS_A_STEP);
        wanted
    }

    fn is_due(&self, vmid: Vmid, started_at: Timestamp, uptime: Duration) -> bool {
        self.asked.get(&vmid).is_none_or(|(life, again)| *life != started_at || uptime >= *again)
    }

    fn offer(&self, wanted: &Wanted, points: &[RrdPoint]) {
        let within = |point: &&RrdPoint| point.at >= wanted.from && point.end() <= wanted.until;
        let mean = |point: &RrdPoint| RrdMean {
            at: point.at,
            seconds: point.step_s,
            cpu_cores: point.cpu_cores.unwrap_or(f64::NAN),
            memory_bytes: point.memory_bytes.unwrap_or(f64::NAN),
        };
        let history = GuestProfiler::of_rrd(points.iter().filter(within).map(mean));
        let bytes = history.and_then(|history| history.to_bytes().ok());
        if let Some(bytes) = bytes {
            self.histories.offer(wanted.seen.guest.clone(), wanted.started_at, bytes.into());
        }
    }

    /// Logs the first of several failures of a kind, and says when to ask again.
    fn failed(&mut self, wanted: &Wanted, error: &PveError) -> Duration {
        let (cause, vmid) = (error.cause(), wanted.seen.guest.vmid);
        if self.failure.replace(cause) != Some(cause) {
            tracing::warn!(
                cluster = %self.cluster, %vmid, cause, %error,
                "what Proxmox has recorded of a guest can not be read; its profile begins with what its agent sees"
            );
        }
        let passes = error.is_transient() || matches!(error, PveError::NotFound { .. });
        if passes { RETRY } else { ASKED }
    }
}

fn seen(cluster: &ClusterId, node: &NodeId, vmid: Vmid, guest: &crate::ingest::live::GuestLive) -> Seen {
    Seen {
        guest: GuestKey { cluster: cluster.clone(), vmid },
        node: node.clone(),
        kind: Some(guest.facts.kind),
        identity: guest.identity.clone(),
        pieces: guest.pieces.clone().unwrap_or_default(),
    }
}
