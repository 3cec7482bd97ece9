//! One-shot plans on cluster snapshots kept beside the repository; skips, and says so, where they are absent.

#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::cast_precision_loss, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Bytes;
use evenkeel_core::{GuestState, NodeState, Policy, Pressure, Run, Snapshot, plan_at_once};
use serde_json::Value;

fn folder() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/eval/cluster-snapshots");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: {} is not there", folder.display());
    None
}

fn read(folder: &Path, name: &str) -> Snapshot {
    let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let bytes = |value: &Value| Bytes(value.as_u64().unwrap_or(0));
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let guests: Vec<_> = json["guests"].as_array().unwrap().iter().collect();
    let guest = |g: &&Value| {
        let groups = &g["groups"];
        let mut tags: Vec<_> =
            texts(&groups["affinity"]).iter().map(|n| format!("evenkeel-with-{n}")).collect();
        tags.extend(texts(&groups["anti"]).iter().map(|n| format!("evenkeel-anti-{n}")));
        tags.extend(texts(&groups["pin"]).iter().map(|n| format!("evenkeel-pin-{n}")));
        tags.extend(groups["ignore"].as_bool().unwrap_or(false).then(|| "evenkeel-ignore".to_owned()));
        let lxc = g["type"] == "lxc";
        tags.extend(lxc.then(|| "evenkeel-restart-ok".to_owned()));
        GuestState {
            vmid: Vmid::new(u32::try_from(g["vmid"].as_u64().unwrap()).unwrap()).unwrap(),
            name: g["name"].as_str().unwrap_or_default().into(),
            kind: if lxc { GuestKind::Lxc } else { GuestKind::Qemu },
            node: NodeId::new(g["node"].as_str().unwrap()).unwrap(),
            running: g["status"] == "running",
            template: false,
            lock: None,
            disputed: None,
            vcpus: number(&g["vcpus"]),
            memory_max: bytes(&g["mem_max"]),
            memory_used: bytes(&g["mem"]),
            cpu_used: Some(number(&g["cpu"])),
            cpu_waited: 0.0,
            profile: None,
            tags,
            ha_state: None,
            local_disks: vec![],
            local_disk_bytes: Bytes(0),
            disks: 0,
            dirty_mb_s: None,
            net_mb_s: None,
            devices: vec![],
            storages: BTreeSet::new(),
            cpu_host: false,
        }
    };
    let guests: Vec<_> = guests.iter().map(guest).collect();
    let node = |n: &Value| {
        let id = NodeId::new(n["name"].as_str().unwrap()).unwrap();
        let own = || guests.iter().filter(|g| g.running && g.node == id);
        NodeState {
            online: true,
            maintenance: n["maintenance"].as_bool().unwrap_or(false),
            barred: None,
            agent_age_s: Some(1),
            cores: number(&n["cpus"]),
            memory: bytes(&n["mem"]),
            memory_used: own().map(|g| g.memory_used).sum::<Bytes>().saturating_add(bytes(&n["base_mem"])),
            cpu_used: number(&n["base_cpu"]) + own().filter_map(|g| g.cpu_used).sum::<f64>(),
            cpu_waited: 0.0,
            pressure: Pressure::default(),
            iowait_percent: number(&n["iowait"]),
            cpu_model: None,
            storages: BTreeSet::new(),
            net_mb_s: None,
            link_mb_s: None,
            demand_trail: vec![],
            id,
        }
    };
    Snapshot {
        cluster: ClusterId::new("snapshot").unwrap(),
        at: Timestamp::from_millis(1_800_000_000_000),
        nodes: json["nodes"].as_array().unwrap().iter().map(node).collect(),
        guests: guests.clone(),
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
    }
}

/// Imbalance as the snapshots' scorer defines it, highest CPU and memory use in percent.
fn figures(snapshot: &Snapshot) -> (f64, f64, f64) {
    let cpu: Vec<_> = snapshot.nodes.iter().map(|n| 100.0 * n.cpu_used / n.cores).collect();
    let memory: Vec<_> =
        snapshot.nodes.iter().map(|n| 100.0 * n.memory_used.as_f64() / n.memory.as_f64()).collect();
    let load: Vec<_> = cpu.iter().zip(&memory).map(|(a, b)| (a + b) / 2.0).collect();
    let n = load.len() as f64;
    let mean = load.iter().sum::<f64>() / n;
    let deviation = (load.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    let top = |all: &[f64]| all.iter().copied().fold(0.0, f64::max);
    (deviation / mean / (n - 1.0).sqrt(), top(&cpu), top(&memory))
}

fn follow(mut snapshot: Snapshot, run: &Run) -> (Snapshot, usize) {
    snapshot = snapshot.sorted();
    let mut moves = BTreeMap::new();
    for decision in run.decisions.iter().filter(|d| d.action.is_accepted()) {
        moves.insert(decision.recommendation.guest, ());
        let target = decision.recommendation.target.clone();
        assert!(snapshot.apply(&evenkeel_core::Candidate { guest: decision.recommendation.guest, target }));
    }
    (snapshot, moves.len())
}

#[test]
fn balanced_clusters_are_left_alone() {
    let Some(folder) = folder() else { return };
    for name in ["balanced-8x100", "balanced-32x1000"] {
        let run = plan_at_once(&read(&folder, name), &Policy::default());
        assert_eq!(run.summary.0.len(), 0, "{name}: {:?}", run.summary);
    }
}

#[test]
fn hot_clusters_are_relieved_and_then_left_alone() {
    let Some(folder) = folder() else { return };
    for (name, fullest) in [("hot-8x100", 80.0), ("hot-32x1000", 80.0)] {
        let snapshot = read(&folder, name);
        let before = figures(&snapshot);
        let run = plan_at_once(&snapshot, &Policy::default());
        let (after, moves) = follow(snapshot, &run);
        let then = figures(&after);
        eprintln!(
            "{name}: {moves} moves, (imbalance, cpu, memory) {before:.3?} -> {then:.3?}, {}",
            run.summary
        );
        assert!(then.2 <= fullest && then.0 < before.0, "{name}: {then:?}");
        let again = plan_at_once(&after, &Policy::default());
        let (_, more) = follow(after, &again);
        assert_eq!(more, 0, "{name} does not settle");
    }
}
