//! Clusters as text, for tests: one node a line, its guests behind `|`.
//!
//! ```text
//! pve1 cpu=32 ram=256 | 101 cpu=4 mem=8 profile=bursty p95=9 tags=a,b | 102 cpu=1 mem=4 lxc
//! pve2 cpu=32 ram=256 maintenance
//! moved 101 pve2->pve1 90m                 (a migration that ended 90 min ago; `foreign`, `failed`, `helped`,
//!                                           `useless` may follow)
//! flying 102 pve1->pve2                    (one under way; `foreign` may follow)
//! rule r1 only 101 = pve1:2,pve2           (HA node affinity, strict; `prefer`: not strict; `no-failback` may follow)
//! rule r2 apart 101,102                    (HA resource affinity; or `together`)
//! paused disk exchange
//! pve-rebalances
//! utc+7200                                 (local time is two hours ahead of UTC)
//! ```
//! Node: `cpu` cores, `ram` GiB, `base` cores and `basemem` GiB of the host itself (0.5, 2), `psi` %, `wait` cores,
//! `age` s or `no-agent`, `offline`, `maintenance`, `model`, `storages`, `net` and `link` MB/s, `trail` percents
//! every 5 min up to now.
//! Guest: `cpu` and `wait` cores, `mem` and `max` GiB, `vcpus`, `name`, `profile` with `mean`, `p95`, `slope` (cores
//! per hour), `hours` of data, `dev-cpu` cores, `peak` cores at 9:00 or `day=7-11:8` (8 cores from 7:00 to 11:00 UTC),
//! `tags`, `ha` or `ha=state`, `lock`, `disks`, `localgib` and `diskcount`, `dirty` and `net` MB/s, `dev`, `storages`, `host`,
//! `lxc`, `stopped`, `template`, `unknown`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A bad fixture has to stop its test.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_common::decision::Mover;
use evenkeel_common::guest::{GuestKind, GuestProfile, ProfileClass, UsageSummary};
use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::reason::Reason;
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Bytes;

use crate::snapshot::{
    Candidate, GuestState, HaRule, InFlight, NodeState, PastMove, Pressure, Snapshot, TrailPoint,
};

/// The time of every fixture.
pub const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// The cluster that a text describes.
///
/// # Panics
/// When the text is no fixture.
#[must_use]
pub fn snapshot(text: &str) -> Snapshot {
    let mut snapshot = Snapshot {
        cluster: ClusterId::new("lab").unwrap(),
        at: NOW,
        nodes: vec![],
        guests: vec![],
        rules: vec![],
        history: vec![],
        in_flight: vec![],
        problems: vec![],
        paused: None,
        pve_rebalances: false,
        utc_offset_s: 0,
        others: vec![],
        hands_off: vec![],
        experience: Default::default(),
    };
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        match first {
            "moved" => snapshot.history.push(past_move(rest)),
            "flying" => snapshot.in_flight.push(in_flight(rest)),
            "rule" => snapshot.rules.push(rule(rest)),
            "paused" => snapshot.paused = Some(rest.into()),
            "pve-rebalances" => snapshot.pve_rebalances = true,
            offset if offset.starts_with("utc") => snapshot.utc_offset_s = offset[3..].parse().expect(offset),
            _ => node(line, &mut snapshot),
        }
    }
    snapshot
}

/// A move written as `101 -> pve2`.
///
/// # Panics
/// When it is written otherwise.
#[must_use]
pub fn candidate(text: &str) -> Candidate {
    let (guest, target) = text.split_once("->").expect("101 -> pve2");
    Candidate { guest: vmid(guest.trim()), target: node_id(target.trim()) }
}

fn node_id(name: &str) -> NodeId {
    NodeId::new(name).expect(name)
}

fn vmid(text: &str) -> Vmid {
    text.parse().expect(text)
}

/// Options of one node or guest; asking takes them, so that what is left is a mistake.
struct Options<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Options<'a> {
    fn read(words: impl Iterator<Item = &'a str>) -> Self {
        Self(words.map(|word| word.split_once('=').unwrap_or((word, ""))).collect())
    }

    fn flag(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    fn text(&mut self, name: &str) -> Option<&'a str> {
        self.0.remove(name)
    }

    fn number(&mut self, name: &str) -> Option<f64> {
        self.text(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
    }

    fn list(&mut self, name: &str) -> Vec<String> {
        self.text(name).map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or_default()
    }

    fn end(self, what: &str) {
        assert!(self.0.is_empty(), "fixture: {what} has unknown options {:?}", self.0);
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn gib(amount: f64) -> Bytes {
    Bytes((amount * 1_073_741_824.0) as u64)
}

fn node(line: &str, snapshot: &mut Snapshot) {
    let mut parts = line.split('|');
    let mut words = parts.next().unwrap().split_whitespace();
    let id = node_id(words.next().unwrap());
    let mut options = Options::read(words);
    let guests: Vec<_> = parts.map(|part| guest(part, &id)).collect();
    let running = || guests.iter().filter(|guest| guest.running);
    let base = options.number("base").unwrap_or(0.5);
    let used = gib(options.number("basemem").unwrap_or(2.0));
    let waits: f64 = running().map(|guest| guest.cpu_waited).sum();
    let psi = options.number("psi");
    snapshot.nodes.push(NodeState {
        online: !options.flag("offline"),
        maintenance: options.flag("maintenance"),
        barred: options.number("skew").map(|ms| Reason::ClockSkew {
            node: id.clone(),
            skew_ms: ms as i64,
            limit_ms: 2000,
        }),
        agent_age_s: if options.flag("no-agent") {
            None
        } else {
            Some(options.number("age").unwrap_or(1.0) as u64)
        },
        cores: options.number("cpu").unwrap_or(16.0),
        memory: gib(options.number("ram").unwrap_or(64.0)),
        memory_used: running().map(|guest| guest.memory_used).sum::<Bytes>().saturating_add(used),
        cpu_used: base + running().filter_map(|guest| guest.cpu_used).sum::<f64>(),
        cpu_waited: options.number("wait").unwrap_or(0.0) + waits,
        pressure: Pressure { cpu: psi, memory: psi.map(|_| 0.0), io: psi.map(|_| 0.0) },
        iowait_percent: options.number("iowait").unwrap_or(0.0),
        cpu_model: options.text("model").map(str::to_owned),
        storages: options.list("storages").into_iter().collect(),
        net_mb_s: options.number("net"),
        link_mb_s: options.number("link"),
        demand_trail: trail(&options.list("trail")),
        id,
    });
    options.end(line);
    snapshot.guests.extend(guests);
}

fn trail(percents: &[String]) -> Vec<TrailPoint> {
    let ages = (0..percents.len() as u32).rev().map(|step| 300 * step);
    let point =
        |(percent, age_s): (&String, u32)| TrailPoint { age_s, percent: percent.parse().expect(percent) };
    percents.iter().zip(ages).map(point).collect()
}

fn guest(part: &str, node: &NodeId) -> GuestState {
    let mut words = part.split_whitespace();
    let vmid = vmid(words.next().unwrap());
    let mut options = Options::read(words);
    let cpu = options.number("cpu").unwrap_or(1.0);
    let memory = options.number("mem").unwrap_or(4.0);
    let guest = GuestState {
        vmid,
        name: options.text("name").map_or_else(|| format!("g{vmid}"), str::to_owned),
        kind: if options.flag("lxc") { GuestKind::Lxc } else { GuestKind::Qemu },
        node: node.clone(),
        running: !options.flag("stopped"),
        template: options.flag("template"),
        lock: options.text("lock").map(str::to_owned),
        disputed: options.text("pve").map(|pve| Reason::PlacementDisputed {
            guest: vmid,
            agents: vec![node.clone()],
            pve: Some(node_id(pve)),
        }),
        vcpus: options.number("vcpus").unwrap_or_else(|| cpu.ceil().max(1.0)),
        memory_max: gib(options.number("max").unwrap_or(memory)),
        memory_used: gib(memory),
        cpu_used: if options.flag("unknown") { None } else { Some(cpu) },
        cpu_waited: options.number("wait").unwrap_or(0.0),
        profile: options.text("profile").map(|class| profile(vmid, class, cpu, memory, &mut options)),
        tags: options.list("tags"),
        ha_state: options.text("ha").map(|state| if state.is_empty() { "started" } else { state }.to_owned()),
        local_disks: options.list("disks"),
        local_disk_bytes: gib(options.number("localgib").unwrap_or(0.0)),
        disks: options.number("diskcount").unwrap_or(0.0) as u32,
        dirty_mb_s: options.number("dirty"),
        net_mb_s: options.number("net"),
        devices: options.list("dev"),
        storages: options.list("storages").into_iter().collect(),
        cpu_host: options.flag("host"),
    };
    options.end(part);
    guest
}

fn profile(vmid: Vmid, class: &str, cpu: f64, memory: f64, options: &mut Options<'_>) -> GuestProfile {
    let class = *[
        ProfileClass::Steady,
        ProfileClass::Bursty,
        ProfileClass::Growing,
        ProfileClass::Cyclical,
        ProfileClass::Unknown,
    ]
    .iter()
    .find(|known| known.name() == class)
    .expect(class);
    let mean = options.number("mean").unwrap_or(cpu);
    let p95 = options.number("p95").unwrap_or(mean);
    let peak = options.number("peak");
    let day = options.text("day").map(|text| {
        let (hours, cores) = text.split_once(':').expect(text);
        let (from, to) = hours.split_once('-').expect(text);
        let number = |text: &str| text.parse::<f64>().expect(text);
        (number(from) as usize..number(to) as usize, number(cores))
    });
    let at_hour = |hour: usize| match &day {
        Some((hours, cores)) if hours.contains(&hour) => Some(*cores),
        None if hour == 9 => peak,
        _ => Some(mean),
    };
    let hours = options.number("hours").unwrap_or(168.0);
    let bytes = gib(memory).as_f64();
    GuestProfile {
        vmid,
        class,
        observed_s: (hours * 3600.0) as u64,
        cpu: UsageSummary {
            min: 0.0,
            max: p95,
            mean,
            std_dev: options.number("dev-cpu").unwrap_or(0.1 * mean),
            p95,
            slope_per_hour: options.number("slope").unwrap_or(0.0),
        },
        memory: UsageSummary {
            min: bytes,
            max: bytes,
            mean: bytes,
            std_dev: 0.0,
            p95: bytes,
            slope_per_hour: 0.0,
        },
        cpu_by_hour: (0..24).map(at_hour).collect(),
        outlook: None,
        pieces: Vec::new(),
    }
}

/// `101 pve1->pve2` with words after it.
fn arrow(text: &str) -> (Vmid, NodeId, NodeId, BTreeSet<&str>) {
    let mut words = text.split_whitespace();
    let guest = vmid(words.next().unwrap());
    let (from, to) = words.next().unwrap().split_once("->").expect("pve1->pve2");
    (guest, node_id(from), node_id(to), words.collect())
}

const fn mover(foreign: bool) -> Mover {
    if foreign { Mover::Foreign } else { Mover::Evenkeel }
}

fn past_move(text: &str) -> PastMove {
    let (guest, from, to, words) = arrow(text);
    let minutes: u64 = words.iter().find_map(|word| word.strip_suffix('m')?.parse().ok()).expect("90m");
    PastMove {
        guest,
        from,
        to,
        at: NOW.before(Duration::from_secs(60 * minutes)),
        by: mover(words.contains("foreign")),
        ok: !words.contains("failed"),
        helped: [("helped", true), ("useless", false)]
            .iter()
            .find(|(word, _)| words.contains(word))
            .map(|w| w.1),
    }
}

fn in_flight(text: &str) -> InFlight {
    let (guest, from, to, words) = arrow(text);
    InFlight { guest, from, to: Some(to), by: mover(words.contains("foreign")) }
}

fn rule(text: &str) -> HaRule {
    let words: Vec<_> = text.split_whitespace().collect();
    let rule = words[0].to_owned();
    let guests: BTreeSet<_> = words[2].split(',').map(vmid).collect();
    match words[1] {
        kind @ ("together" | "apart") => {
            HaRule::ResourceAffinity { rule, guests, together: kind == "together" }
        }
        kind @ ("only" | "prefer") => {
            let read = |node: &str| match node.split_once(':') {
                Some((name, priority)) => (node_id(name), priority.parse().expect(node)),
                None => (node_id(node), 0),
            };
            let nodes = words[4].split(',').map(read).collect();
            let no_failback = if words.contains(&"no-failback") { guests.clone() } else { BTreeSet::new() };
            HaRule::NodeAffinity { rule, guests, nodes, strict: kind == "only", no_failback }
        }
        other => panic!("rule kind {other}"),
    }
}
