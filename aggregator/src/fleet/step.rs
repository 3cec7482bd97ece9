//! One look at the whole fleet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use evenkeel_core::Policy;
use evenkeel_core::score::health::Limits;
use evenkeel_detect::peers::{Likeness, Peers};

use super::book::{self, Change};
use super::forecasts::{self, Thresholds};
use super::health::{self, Shown};
use super::observe::{Observation, observe};
use super::peers;
use super::rules::{self, Signed};
use super::tasks::TaskBook;
use super::{Fleet, GuestState, NodeState, State};
use crate::ingest::AnomalyNews;
use crate::ingest::live::{NodeCell, NodeLive};
use crate::pve::Inventory;
use crate::pve::resources::GuestStatus;
use crate::store::records::{BlockKey, NodeKey, ScoreKey};
use crate::store::{Batch, StoreError, trees};

/// A node that has been silent for so long was taken away; where nobody asks Proxmox there is no better sign.
const FORGOTTEN: Duration = Duration::from_hours(24 * 7);

/// What is the same for all nodes of a cluster at one look.
struct Scene<'a> {
    cluster: &'a ClusterId,
    at: Timestamp,
    uptime: Duration,
    inventory: Option<Arc<Inventory>>,
    policy: Policy,
    /// Nodes that say nothing now.
    silent: Vec<NodeId>,
    /// Nodes whose agent reports.
    speaking: Vec<NodeId>,
    /// Nodes among them of whose probes hardly any is answered: their links are told there.
    cut_off: Vec<NodeId>,
}

/// What a look at one node came to.
struct Seen {
    /// The look, where its data is fresh.
    observation: Option<Observation>,
    /// Whether it has spoken since this process started.
    heard: bool,
    /// How long it has said nothing; counts beyond the limit only.
    silent_for: Duration,
}

impl Fleet {
    /// Looks at every node once.
    ///
    /// # Errors
    /// Of the store.
    pub(super) fn look(&self) -> Result<(), StoreError> {
        let mut news = Vec::new();
        let mut batch = Batch::new();
        for cluster in self.parts.live.clusters() {
            self.look_at(&cluster, &mut batch, &mut news)?;
        }
        let durable = !news.is_empty();
        self.write(batch)?;
        if durable {
            // What is told must not be gone after a crash. The rest may wait for the next flush.
            self.parts.store.flush()?;
        }
        for item in news {
            // Nobody watches: nobody to tell.
            let _ = self.parts.news.send(item);
        }
        Ok(())
    }

    fn look_at(
        &self,
        cluster: &ClusterId,
        batch: &mut Batch,
        news: &mut Vec<AnomalyNews>,
    ) -> Result<(), StoreError> {
        let handle = self.parts.clusters.get(cluster);
        let inventory = handle.and_then(|handle| handle.lock().inventory.clone());
        let cells = self.parts.live.cluster(cluster);
        let mut scene = Scene {
            cluster,
            at: self.parts.clock.now(),
            uptime: self.parts.clock.uptime(),
            inventory,
            policy: handle.map(|handle| handle.policy.clone()).unwrap_or_default(),
            silent: Vec::new(),
            speaking: Vec::new(),
            cut_off: Vec::new(),
        };
        let mut state = self.lock();
        let state = &mut *state;
        let seen = self.observe_all(&mut scene, &cells, state)?;
        let cut_off =
            seen.iter().filter(|(_, seen)| seen.observation.as_ref().is_some_and(Observation::is_cut_off));
        scene.cut_off = cut_off.map(|(name, _)| name.clone()).collect();
        if let Some(inventory) = &scene.inventory {
            state.tasks.entry(cluster.clone()).or_default().note(&inventory.tasks, scene.at);
        }
        let peers = state.peers.entry(cluster.clone()).or_insert_with(|| Peers::new(self.parts.config.peers));
        let rows = seen
            .iter()
            .filter_map(|(name, seen)| Some((name.clone(), peers::row(seen.observation.as_ref()?)?)));
        let likeness = peers.look(scene.at, &rows.collect());
        let mut guests = BTreeMap::new();
        for (name, seen) in &seen {
            let node = NodeKey { cluster: cluster.clone(), node: name.clone() };
            let tasks = state.tasks.get(cluster);
            let Some(known) = state.nodes.get_mut(&node) else { continue };
            let changes = self.judge(&scene, &node, seen, known, tasks, (&mut *peers, likeness.get(name)));
            self.tell(&node, cells.get(name), changes, batch, news)?;
            self.remember(&scene, &node, seen, known, batch)?;
            self.guests(&scene, &node, seen, &mut state.guests, &mut guests, batch)?;
            if batch.is_full() {
                self.write(std::mem::take(batch))?;
            }
        }
        // A guest that no node lists any more has no health; one of a silent node keeps its row as unknown.
        state.guests.retain(|(of, vmid), guest| {
            of != cluster || guests.contains_key(vmid) || scene.silent.contains(&guest.node.node)
        });
        Ok(())
    }

    /// Copies out what every node says, so that a cluster is judged on one moment.
    fn observe_all(
        &self,
        scene: &mut Scene<'_>,
        cells: &BTreeMap<NodeId, Arc<NodeCell>>,
        state: &mut State,
    ) -> Result<BTreeMap<NodeId, Seen>, StoreError> {
        let config = &self.parts.config;
        let mut all = BTreeMap::new();
        for (name, cell) in cells {
            let node = NodeKey { cluster: scene.cluster.clone(), node: name.clone() };
            let (received, said) = {
                let live = cell.lock();
                (live.received, said_at(&live))
            };
            if !state.nodes.contains_key(&node) {
                // Known from the store only, and not expected: it speaks or it does not.
                if received.is_none() {
                    continue;
                }
                let from = (self.parts.store.as_ref(), &self.shelf());
                let mut loaded = NodeState::load(config, from, &node, scene.at, scene.uptime)?;
                loaded.ensemble.adapt(&super::ensemble::feedback(self.parts.store.as_ref())?);
                state.nodes.insert(node.clone(), loaded);
            }
            let since = state.nodes.get(&node).map(|known| known.since).unwrap_or_default();
            let silent_for = scene.uptime.saturating_sub(received.unwrap_or(since));
            // What arrives now may be of long ago: an agent that hands over its past before it falls silent again.
            let age = said.map(|at| scene.at.since(at)).filter(|age| *age > 3 * config.silence_after());
            let silent_for = silent_for.max(age.unwrap_or_default());
            let fresh = received.is_some() && silent_for <= config.silence_after();
            let observation = fresh.then(|| observe(&cell.lock(), config.interval()));
            if observation.is_none() && silent_for > config.silence_after() {
                scene.silent.push(name.clone());
            }
            if observation.is_some() {
                scene.speaking.push(name.clone());
            }
            all.insert(name.clone(), Seen { observation, heard: received.is_some(), silent_for });
        }
        Ok(all)
    }

    /// Applies the rules to one node.
    fn judge(
        &self,
        scene: &Scene<'_>,
        node: &NodeKey,
        seen: &Seen,
        known: &mut NodeState,
        tasks: Option<&TaskBook>,
        (peers, likeness): (&mut Peers<NodeId>, Option<&Likeness>),
    ) -> Vec<Change> {
        let after = self.parts.config.silence_after();
        let unlisted = scene.inventory.as_ref().is_some_and(|i| !i.nodes.contains_key(&node.node));
        let gone = unlisted || seen.silent_for > FORGOTTEN;
        let mut signs: Vec<Signed> = vec![rules::node_silence(seen.silent_for, after, gone)];
        if !seen.heard && !gone && seen.silent_for <= after {
            // Within the grace after a start nothing is known: what was open stays open.
            signs[0].1 = rules::Sign::Abstain;
        }
        let share = tasks.and_then(|tasks| tasks.share(&node.node, scene.at));
        signs.push(rules::task_errors(share.as_ref()));
        let Some(observation) = &seen.observation else {
            return known.book.look(node, scene.at, signs, gone);
        };
        for guest in &observation.guests {
            signs.push(rules::guest_silence(guest, after, runs(scene, &node.node, guest.vmid)));
        }
        for (peer, loss) in &observation.probes {
            // After a start, nothing is known of a peer that has not spoken yet.
            let is_in = |nodes: &[NodeId]| nodes.iter().any(|node| node.as_str() == peer);
            let peer_speaks = is_in(&scene.speaking) && (!is_in(&scene.cut_off) || observation.is_cut_off());
            signs.push(rules::probe_silence(peer, *loss, peer_speaks));
        }
        signs.extend(peers::signs(likeness, &known.book));
        if !observation.injected {
            signs.push(rules::packet_errors(observation, known.history.usual_errors()));
            let (usual, by_hour) = known.history.usual_latency(scene.at);
            signs.push(rules::slow_answers(observation, usual, by_hour));
            let is_habit = |place| peers.is_habit(&node.node, scene.at, place);
            let (seen, book, history) = (observation, &known.book, &known.history);
            signs.push(known.ensemble.look(scene.at, seen, book, history, is_habit));
        }
        known.book.look(node, scene.at, signs, true)
    }

    /// Writes what opened and closed, shows it in the live state, and notes it for those who watch.
    fn tell(
        &self,
        node: &NodeKey,
        cell: Option<&Arc<NodeCell>>,
        changes: Vec<Change>,
        batch: &mut Batch,
        news: &mut Vec<AnomalyNews>,
    ) -> Result<(), StoreError> {
        for Change { record, is_news } in changes {
            book::write(batch, node, &record)?;
            if let Some(cell) = cell {
                let id = (record.epoch, record.anomaly.number);
                let mut live = cell.lock();
                if record.anomaly.closed_at.is_some() {
                    live.open.remove(&id);
                } else {
                    live.open.insert(id, record.anomaly.clone());
                }
            }
            if is_news {
                let what = record.fleet.as_ref().map(|fleet| fleet.text.as_str()).unwrap_or_default();
                let open = record.anomaly.closed_at.is_none();
                tracing::info!(cluster = %node.cluster, node = %node.node, open, what, "fleet anomaly");
                news.push(AnomalyNews { cluster: node.cluster.clone(), record: Arc::new(record) });
            }
        }
        Ok(())
    }

    /// Keeps the look: history, forecasts, health and its history.
    fn remember(
        &self,
        scene: &Scene<'_>,
        node: &NodeKey,
        seen: &Seen,
        known: &mut NodeState,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let config = &self.parts.config;
        // What a drill made up is no past: a mean that holds any of it would outlive the drill.
        if let Some(observation) = seen.observation.as_ref().filter(|observation| !observation.injected) {
            let most = usize::from(config.ensemble.buffer_size);
            let mean = known.history.push(scene.at, observation, most, config.rollup());
            if let Some((start, record)) = mean {
                let key = BlockKey { cluster: node.cluster.clone(), node: node.node.clone(), start };
                batch.put(&trees::ROLLUPS, &key, &record)?;
                self.write(std::mem::take(batch))?;
                let thresholds =
                    Thresholds { cpu: scene.policy.cpu_threshold, memory: scene.policy.mem_threshold };
                known.forecasts = forecasts::of_node(self.parts.store.as_ref(), node, scene.at, thresholds)?;
            }
        }
        let silent = seen.silent_for > config.silence_after();
        let silent_s = silent.then_some(seen.silent_for.as_secs());
        let warn = f64::from(config.forecast_warn_hours);
        let limits = limits(&scene.policy);
        known.health = health::of_node(seen.observation.as_ref(), silent_s, &known.forecasts, warn, limits);
        if let Some(row) = known.shown.row(scene.at, &known.health) {
            let subject = format!("node/{}", node.node);
            let key = ScoreKey { cluster: node.cluster.clone(), subject, at: scene.at };
            batch.put(&trees::SCORES, &key, &row)?;
        }
        Ok(())
    }

    /// Health of the guests of one node.
    fn guests(
        &self,
        scene: &Scene<'_>,
        node: &NodeKey,
        seen: &Seen,
        known: &mut BTreeMap<(ClusterId, Vmid), GuestState>,
        found: &mut BTreeMap<Vmid, ()>,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let Some(observation) = &seen.observation else {
            for guest in known.values_mut().filter(|guest| guest.node == *node) {
                guest.health = health::unknown();
            }
            return Ok(());
        };
        let after = self.parts.config.silence_after();
        for guest in &observation.guests {
            found.insert(guest.vmid, ());
            let counts = runs(scene, &node.node, guest.vmid);
            let silent_s = guest.silent_for.filter(|span| counts && *span > after).map(|span| span.as_secs());
            let health = health::of_guest(observation, guest, silent_s, limits(&scene.policy));
            let key = (node.cluster.clone(), guest.vmid);
            let shown = known.get(&key).map_or_else(Shown::default, |before| before.shown);
            let mut state = GuestState { node: node.clone(), name: guest.name.clone(), health, shown };
            if let Some(row) = state.shown.row(scene.at, &state.health) {
                let subject = format!("guest/{}", guest.vmid);
                let key = ScoreKey { cluster: node.cluster.clone(), subject, at: scene.at };
                batch.put(&trees::SCORES, &key, &row)?;
                if batch.is_full() {
                    self.write(std::mem::take(batch))?;
                }
            }
            known.insert(key, state);
        }
        Ok(())
    }
}

/// When the newest sample was taken, by our clock.
fn said_at(live: &NodeLive) -> Option<Timestamp> {
    let at = live.tick_at?.as_millis();
    Some(Timestamp::from_millis(at.saturating_sub(live.skew_ms.unwrap_or_default())))
}

/// Whether a guest should be speaking: Proxmox says it runs here, or nobody asks Proxmox.
fn runs(scene: &Scene<'_>, node: &NodeId, vmid: Vmid) -> bool {
    scene.inventory.as_ref().is_none_or(|inventory| {
        let listed = inventory.guests.get(&vmid);
        listed.is_some_and(|guest| guest.status == GuestStatus::Running && guest.node == *node)
    })
}

fn limits(policy: &Policy) -> Limits {
    Limits { memory: policy.mem_threshold, pressure: policy.pressure_threshold }
}
