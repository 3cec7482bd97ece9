//! A simulated cluster, told step by step: keeps what the daemons would keep (profiles, migrations, what the last run
//! saw) and lets the core decide.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anyhow::{Context as _, Result};
use evenkeel_common::decision::{Action, Decision, Mover};
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Bytes;
use evenkeel_core::confidence::Grounds;
use evenkeel_core::{Candidate, InFlight, Memory, PastMove, Policy, Pressure, Snapshot, TrailPoint, decide};
use evenkeel_detect::profile::{GuestProfiler, RrdMean};

use crate::log::Log;
use crate::node;
use crate::protocol::{Answer, Guest, Init, InitGuest, Limits, Migration, Moved, Node, Status, Tick};

/// When a simulation starts: a Monday, midnight UTC.
const START: Timestamp = Timestamp::from_millis(1_767_571_200_000);
/// Proxmox's lowest vmid; the simulator counts guests from 0.
const FIRST_VMID: u32 = 100;
/// How long migrations are remembered: records of pairs and guests look back thirty days.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a node's demand is remembered.
const TRAIL_S: i64 = 3600;
const MIB: f64 = 1_048_576.0;

/// The cluster, and what was learned of it.
#[derive(Debug)]
pub struct Simulated {
    policy: Policy,
    memory: Memory,
    step_s: u32,
    limits: Limits,
    guests: Vec<(InitGuest, GuestProfiler)>,
    history: Vec<PastMove>,
    /// Demand of each node in percent, by the time of its step.
    trails: BTreeMap<NodeId, VecDeque<(Timestamp, f64)>>,
    /// Where moves and what came of them are written, if asked for.
    log: Option<Log>,
}

impl Simulated {
    /// Learns the guests' past as the daemons learn Proxmox's RRD.
    pub fn new(mut init: Init, mut policy: Policy, log: Option<Log>) -> Result<Self> {
        let slowest = init.nodes.iter().map(|node| node.link_mbps).fold(f64::INFINITY, f64::min);
        if slowest.is_finite() {
            policy.migration_link_mbps = (8.0 * slowest) as u32;
        }
        init.guests.sort_by_key(|guest| guest.id);
        let step = Duration::from_secs(init.step_s.into());
        let guests = init.guests.into_iter().map(|guest| {
            let steps = u32::try_from(guest.cpu_history.len()).context("history is too long")?;
            let first = START.before(step * steps);
            let mean = |(i, &cpu_cores): (usize, &f64)| RrdMean {
                at: first.after(step * i as u32),
                seconds: init.step_s,
                cpu_cores,
                memory_bytes: guest.mem_mb * MIB,
            };
            let profiler = GuestProfiler::of_rrd(guest.cpu_history.iter().enumerate().map(mean));
            Ok((guest, profiler.unwrap_or_default()))
        });
        let guests = guests.collect::<Result<_>>()?;
        Ok(Self {
            policy,
            memory: Memory::default(),
            step_s: init.step_s,
            limits: init.limits,
            guests,
            history: Vec::new(),
            trails: BTreeMap::new(),
            log,
        })
    }

    /// A step: as many decision runs as fit into it, all on its figures. Each sees what the ones before it began, and what
    /// of that has arrived meanwhile.
    pub fn tick(&mut self, tick: &Tick) -> Result<Answer<u32>> {
        let now = START.after(Duration::from_secs(u64::try_from(tick.t).context("time runs backwards")?));
        for moved in &tick.results {
            self.history.extend(past(moved, now)?);
        }
        self.history.retain(|past| past.at > now.before(REMEMBERED));
        let interval = self.policy.decision_interval.clamp(1, self.step_s.max(1));
        let runs = self.step_s / interval;
        self.learn(tick, now, interval, runs);
        if let Some(log) = &mut self.log {
            let vcpus = |id: u32| self.guests.get(id as usize).map_or(1.0, |(guest, _)| guest.vcpus);
            log.step(tick, f64::from(self.step_s) / 3600.0, vcpus)?;
        }
        let mut snapshot = self.snapshot(tick, now)?;
        self.follow(&mut snapshot);
        let mut starts = Starts::of(self.limits, &snapshot.in_flight);
        let (mut migrations, mut flying) = (Vec::new(), Vec::new());
        for run in 0..runs {
            snapshot.at = now.after(Duration::from_secs((run * interval).into()));
            land(&mut snapshot, &mut flying);
            let run = decide(&snapshot, &self.policy, &self.memory);
            self.memory = run.memory_out;
            let grounds = self.grounds(&snapshot, &run.decisions);
            for decision in run.decisions.iter().filter(|decision| decision.action == Action::Pending) {
                let chosen = &decision.recommendation;
                if !starts.take(&chosen.source, &chosen.target) {
                    continue; // The simulator would refuse it; the next step may have room.
                }
                if let (Some(log), Some(grounds)) = (&mut self.log, grounds.get(&chosen.guest)) {
                    let guest = chosen.guest.get() - FIRST_VMID;
                    let ids = [guest, number(&chosen.source)?, number(&chosen.target)?];
                    let days = profile_days(&snapshot, chosen.guest);
                    log.begin(tick.t, ids, chosen, days, *grounds);
                }
                migrations.push(Migration {
                    guest: chosen.guest.get() - FIRST_VMID,
                    target: number(&chosen.target)?,
                });
                let takes = Duration::from_secs_f64(60.0 * chosen.cost.minutes.max(0.0));
                flying.push((chosen.guest, snapshot.at.after(takes)));
                snapshot.in_flight.push(InFlight {
                    guest: chosen.guest,
                    from: chosen.source.clone(),
                    to: Some(chosen.target.clone()),
                    by: Mover::Evenkeel,
                });
            }
        }
        Ok(Answer { migrations })
    }

    /// What the confidence in each accepted move is made of, on the cluster as the run saw it; for the log.
    fn grounds(&self, snapshot: &Snapshot, decisions: &[Decision]) -> BTreeMap<Vmid, Grounds> {
        let mut grounds = BTreeMap::new();
        if self.log.is_none() {
            return grounds;
        }
        let mut seen = snapshot.sorted();
        for flight in &snapshot.in_flight {
            if let Some(target) = flight.to.clone() {
                seen.apply(&Candidate { guest: flight.guest, target });
            }
        }
        for decision in decisions.iter().filter(|decision| decision.filter.is_none()) {
            let chosen = &decision.recommendation;
            let candidate = Candidate { guest: chosen.guest, target: chosen.target.clone() };
            let of = Grounds::of(&candidate, &seen, &self.policy);
            grounds.extend(of.map(|of| (chosen.guest, of)));
            seen.apply(&candidate);
        }
        grounds
    }

    /// What an agent would have told once a minute, up to now.
    fn learn(&mut self, tick: &Tick, now: Timestamp, interval: u32, samples: u32) {
        for told in &tick.guests {
            let Some((guest, profiler)) = self.guests.get_mut(told.id as usize) else { continue };
            for sample in (0..samples).rev() {
                let at = now.before(Duration::from_secs((sample * interval).into()));
                profiler.observe(at, told.cpu, guest.mem_mb * MIB);
            }
        }
    }

    /// What the aggregator would know of each node's last hour.
    fn follow(&mut self, snapshot: &mut Snapshot) {
        let now = snapshot.at;
        for node in &mut snapshot.nodes {
            let trail = self.trails.entry(node.id.clone()).or_default();
            if node.online && node.cores > 0.0 {
                trail.push_back((now, 100.0 * (node.cpu_used + node.cpu_waited) / node.cores));
            }
            let age_s = |at: Timestamp| now.as_secs() - at.as_secs();
            trail.retain(|&(at, _)| age_s(at) < TRAIL_S);
            let point = |&(at, percent)| TrailPoint { age_s: u32::try_from(age_s(at)).unwrap_or(0), percent };
            node.demand_trail = trail.iter().map(point).collect();
        }
    }

    fn snapshot(&self, tick: &Tick, now: Timestamp) -> Result<Snapshot> {
        let mut snapshot = node::cluster(now)?;
        for told in &tick.nodes {
            let mut node = node::node(name(told.id)?, told.cores, mebibytes(told.mem_total_mb));
            figures(&mut node, told, &tick.guests);
            snapshot.nodes.push(node);
        }
        for told in &tick.guests {
            let Some((known, profiler)) = self.guests.get(told.id as usize) else { continue };
            let vmid = vmid(told.id)?;
            let mut guest = node::guest(vmid, name(told.node)?, known.vcpus, mebibytes(known.mem_mb));
            guest.cpu_used = Some(told.cpu);
            guest.cpu_waited = waited(told);
            guest.profile = Some(profiler.profile(vmid));
            guest.local_disk_bytes = Bytes((known.local_disk_gb * 1e9) as u64);
            if let Some(target) = told.migrating_to {
                let (from, to) = (guest.node.clone(), Some(name(target)?));
                snapshot.in_flight.push(InFlight { guest: vmid, from, to, by: Mover::Evenkeel });
            }
            snapshot.guests.push(guest);
        }
        snapshot.history = self.history.clone();
        Ok(snapshot)
    }
}

fn figures(node: &mut evenkeel_core::NodeState, told: &Node, guests: &[Guest]) {
    node.online = told.status != Status::Down;
    node.maintenance = told.status == Status::Draining;
    node.memory_used = mebibytes(told.mem_mb);
    node.cpu_used = told.cpu * told.cores;
    node.cpu_waited = guests.iter().filter(|guest| guest.node == told.id).map(waited).sum();
    node.pressure = Pressure { cpu: Some(100.0 * told.cpu_pressure), memory: Some(0.0), io: Some(0.0) };
}

/// Cores that a guest waited for.
fn waited(guest: &Guest) -> f64 {
    wanted(guest) - guest.cpu
}

/// Cores that a guest wanted: it waited for a share of them, the rest is what it got.
pub fn wanted(guest: &Guest) -> f64 {
    guest.cpu / (1.0 - guest.cpu_pressure.clamp(0.0, 0.99))
}

fn profile_days(snapshot: &Snapshot, guest: Vmid) -> f64 {
    let known = snapshot.guests.iter().find(|known| known.vmid == guest);
    known.and_then(|known| known.profile.as_ref()).map_or(0.0, |p| p.observed_s as f64 / 86_400.0)
}

/// What of a step's moves has arrived by the snapshot's time is where it went to, and on record.
fn land(snapshot: &mut Snapshot, flying: &mut Vec<(Vmid, Timestamp)>) {
    let at = snapshot.at;
    let (landed, still): (Vec<_>, Vec<_>) = flying.drain(..).partition(|(_, arrives)| *arrives <= at);
    *flying = still;
    for (guest, _) in landed {
        let Some(index) = snapshot.in_flight.iter().position(|flight| flight.guest == guest) else {
            continue;
        };
        let InFlight { from, to, by, .. } = snapshot.in_flight.remove(index);
        let Some(to) = to else { continue };
        let sorted = snapshot.sorted();
        *snapshot = sorted;
        snapshot.apply(&Candidate { guest, target: to.clone() });
        snapshot.history.push(PastMove { guest, from, to, at, by, ok: true, helped: None });
    }
}

/// How many migrations the simulator lets begin in one step: it begins all of them at once.
struct Starts {
    limits: Limits,
    all: u32,
    by_node: BTreeMap<NodeId, u32>,
}

impl Starts {
    fn of(limits: Limits, in_flight: &[InFlight]) -> Self {
        let mut starts = Self { limits, all: 0, by_node: BTreeMap::new() };
        for flight in in_flight {
            starts.all += 1;
            for node in [Some(&flight.from), flight.to.as_ref()].into_iter().flatten() {
                *starts.by_node.entry(node.clone()).or_default() += 1;
            }
        }
        starts
    }

    /// Whether one more may begin; it is counted then.
    fn take(&mut self, source: &NodeId, target: &NodeId) -> bool {
        let busy = |node| self.by_node.get(node).is_some_and(|count| *count >= self.limits.max_per_node);
        if self.all >= self.limits.max_cluster || busy(source) || busy(target) {
            return false;
        }
        self.all += 1;
        for node in [source, target] {
            *self.by_node.entry(node.clone()).or_default() += 1;
        }
        true
    }
}

/// A migration that is over; `None` for one that was refused and never began.
fn past(moved: &Moved, at: Timestamp) -> Result<Option<PastMove>> {
    let Some(source) = moved.source else { return Ok(None) };
    Ok(Some(PastMove {
        guest: vmid(moved.guest)?,
        from: name(source)?,
        to: name(moved.target)?,
        at,
        by: Mover::Evenkeel,
        ok: moved.ok,
        helped: None,
    }))
}

fn vmid(guest: u32) -> Result<Vmid> {
    Vmid::new(guest.saturating_add(FIRST_VMID)).with_context(|| format!("guest {guest} is no vmid"))
}

fn name(node: u32) -> Result<NodeId> {
    NodeId::new(format!("n{node}")).with_context(|| format!("node {node}"))
}

fn number(node: &NodeId) -> Result<u32> {
    let digits = node.as_str().strip_prefix('n').context("a node of no simulation")?;
    digits.parse().context("a node of no simulation")
}

fn mebibytes(mib: f64) -> Bytes {
    Bytes((mib * MIB) as u64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::config::effective;
    use crate::protocol::ToPolicy;

    const GUESTS: u32 = 8;

    /// Guests that used so many cores for three days.
    fn start(usual: &str) -> Simulated {
        let history = vec![usual; 864].join(",");
        let guest = |id| {
            format!(
                r#"{{"id":{id},"node":0,"vcpus":4,"mem_mb":4096,"local_disk_gb":0.0,"cpu_history":[{history}]}}"#
            )
        };
        let guests: Vec<String> = (0..GUESTS).map(guest).collect();
        let node = r#""cores":16.0,"mem_mb":65536.0,"link_mbps":1000.0"#;
        let text = format!(
            r#"{{"type":"init","protocol":1,"scenario":"test","step_s":300,"limits":{{"max_per_node":2,"max_cluster":4}},
            "nodes":[{{"id":0,{node}}},{{"id":1,{node}}}],"guests":[{}]}}"#,
            guests.join(",")
        );
        match serde_json::from_str(&text).unwrap() {
            ToPolicy::Init(init) => Simulated::new(init, effective(&[]).unwrap(), None).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// A step in which the first node's guests get and wait for so much, with what ended before it.
    fn step(cluster: &mut Simulated, step: i64, (got, waited): (f64, f64), results: &str) -> Answer<u32> {
        let guest =
            |id| format!(r#"{{"id":{id},"node":0,"cpu":{got},"cpu_pressure":{waited},"migrating_to":null}}"#);
        let guests: Vec<String> = (0..GUESTS).map(guest).collect();
        let cpu = f64::from(GUESTS) * got / 16.0;
        let of = r#""status":"up","cores":16.0,"mem_total_mb":65536.0"#;
        let text = format!(
            r#"{{"type":"tick","t":{},"step":{step},"nodes":[{{"id":0,{of},"cpu":{cpu},"mem_mb":32768,"cpu_pressure":{waited}}},
            {{"id":1,{of},"cpu":0.02,"mem_mb":1024,"cpu_pressure":0.0}}],"guests":[{}],"results":[{results}]}}"#,
            300 * step,
            guests.join(",")
        );
        match serde_json::from_str(&text).unwrap() {
            ToPolicy::Tick(tick) => cluster.tick(&tick).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_full_node_gives_to_an_idle_one_within_a_step_and_a_calm_one_keeps_what_it_has() {
        let mut full = start("2.0");
        let moves = step(&mut full, 0, (2.0, 0.3), "").migrations;
        assert!(!moves.is_empty() && moves.iter().all(|m| m.target == 1 && m.guest < GUESTS), "{moves:?}");
        let mut calm = start("0.5");
        assert_eq!(step(&mut calm, 0, (0.5, 0.0), "").migrations, []);
    }

    #[test]
    fn what_moved_is_remembered_for_the_rules() {
        let mut cluster = start("2.0");
        let moved = r#"{"guest":3,"source":1,"target":0,"ok":true,"seconds":9.1,"why":""}"#;
        // It has just come from the only other node, so it must not go back there.
        let moves = step(&mut cluster, 0, (2.0, 0.3), moved).migrations;
        assert_eq!(cluster.history.len(), 1);
        assert!(!moves.is_empty() && moves.iter().all(|m| m.guest != 3), "{moves:?}");
    }
}
