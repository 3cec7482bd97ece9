//! What the aggregator of the tests answers: a lab of a few nodes with everything that is awkward to show.

use evenkeel_proto::v1::*;
use tonic::Status;

/// 2026-11-21 01:18:55 UTC.
pub const NOW_MS: i64 = 1_795_223_935_000;
/// A guest's owner wants to clear the admin's screen, turn the text around and forge a line.
pub const HOSTILE: &str = "db\u{1b}[2J\u{1b}]0;owned\u{7}\u{202e}dorp\n999 fake pve1";

const GIB: u64 = 1 << 30;

fn reason(code: &str, text: &str, fields: &[(&str, &str)]) -> Reason {
    let fields = fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Reason { code: code.into(), text: text.into(), fields }
}

pub fn status() -> GetStatusResponse {
    let actions = [("recommended", 1), ("filtered", 2), ("observing", 1)];
    GetStatusResponse {
        version: "0.1.0".into(),
        started_ms: NOW_MS - 11_520_000,
        now_ms: NOW_MS,
        role: String::new(),
        clusters: vec![
            ClusterStatus {
                cluster: "lab".into(),
                mode: "advise".into(),
                preset: "full".into(),
                nodes: 4,
                nodes_fresh: 3,
                guests: 104,
                open_anomalies: 2,
                last_run_ms: Some(NOW_MS - 12_000),
                last_run: "node pve3 is over its CPU threshold; 4 recommendations were judged".into(),
                actions: actions.into_iter().map(|(action, count)| (action.into(), count)).collect(),
                inventory: "ok".into(),
                gaps: 1,
                held: vec!["nothing is started while the file /var/lib/evenkeel/NO_EXECUTE exists; delete it to go on".into()],
                moves_waiting: 2,
                moves_under_way: 1,
                ..ClusterStatus::default()
            },
            ClusterStatus {
                cluster: "local".into(),
                mode: "advise".into(),
                preset: "full".into(),
                paused: true,
                paused_by: "token alice: switch \u{1b}[31mmaintenance".into(),
                paused_ms: Some(NOW_MS - 7_200_000),
                nodes: 1,
                nodes_fresh: 1,
                inventory: "none".into(),
                inventory_detail:
                    "no Proxmox VE API is configured for this cluster; it is watched, not decided about"
                        .into(),
                ..ClusterStatus::default()
            },
        ],
        store: Some(StoreStatus {
            backend: "sled".into(),
            bytes_on_disk: 12 << 20,
            samples: 12_345_678,
            events: 42,
            duplicates: 7,
            schema: 1,
        }),
        warnings: vec!["the audit token of cluster lab lacks Datastore.Audit: storage is not seen".into()],
    }
}

pub fn nodes() -> Vec<Node> {
    let node = |cluster: &str, name: &str, score: f64, cpu: f64| Node {
        cluster: cluster.into(),
        node: name.into(),
        status: "online".into(),
        data_age_ms: Some(400),
        skew_ms: Some(-12),
        cpu_percent: Some(cpu),
        cpu_now_percent: Some(cpu + 1.25),
        iowait_percent: Some(0.31),
        mem_percent: Some(61.0),
        mem_used_bytes: Some(61 * GIB),
        pressure_percent: Some(cpu / 10.0),
        score: Some(score),
        cpus: 32,
        memory_bytes: 128 * GIB,
        guests: 13,
        agent_version: "0.1.0".into(),
        pve_version: "9.1.1".into(),
        ..Node::default()
    };
    vec![
        node("lab", "pve1", 31.4, 22.0),
        node("lab", "pve2", 28.9, 19.5),
        Node {
            open_anomalies: 2,
            blind_spots: vec!["no pressure stall information: boot with psi=1 to see it".into()],
            pressure_percent: None,
            ..node("lab", "pve3", 82.06, 91.7)
        },
        Node {
            status: "silent".into(),
            data_age_ms: Some(185_000),
            not_decidable: vec![
                "its last sample is 185 s old, decisions want 30 s at most".into(),
                "clock skew of 4100 ms is above 2000 ms".into(),
            ],
            skew_ms: Some(4100),
            cpu_percent: None,
            cpu_now_percent: None,
            iowait_percent: None,
            mem_percent: None,
            mem_used_bytes: None,
            pressure_percent: None,
            score: None,
            ..node("lab", "pve4", 0.0, 0.0)
        },
        Node { pve_version: String::new(), ..node("local", "workstation", 4.0, 3.2) },
    ]
}

pub fn guests() -> Vec<Guest> {
    let guest = |vmid: u32, name: &str, node: &str| Guest {
        cluster: "lab".into(),
        vmid,
        kind: "qemu".into(),
        name: name.into(),
        node: node.into(),
        status: "running".into(),
        vcpus: Some(8.0),
        cpu_cores: Some(3.456),
        mem_bytes: Some(6 * GIB),
        mem_max_bytes: Some(8 * GIB),
        disk_bytes_per_s: Some(1_234_567.0),
        net_bytes_per_s: Some(98_765_432.0),
        profile: "bursty".into(),
        placement: "agreed".into(),
        data_age_ms: Some(900),
        ..Guest::default()
    };
    vec![
        Guest {
            tags: vec!["prod".into(), "plb_pin_pve3".into()],
            ha: "started".into(),
            ..guest(104, "web-4", "pve3")
        },
        Guest { open_anomalies: 1, profile: "cyclical".into(), ..guest(105, HOSTILE, "pve3") },
        guest(106, "ein-sehr-langer-name-einer-virtuellen-maschine-der-buchhaltung-zürich-数据库", "pve1"),
        Guest {
            kind: "lxc".into(),
            status: "stopped".into(),
            vcpus: None,
            cpu_cores: None,
            mem_bytes: None,
            mem_max_bytes: None,
            disk_bytes_per_s: None,
            net_bytes_per_s: None,
            profile: "unknown".into(),
            placement: "pve_only".into(),
            data_age_ms: None,
            ..guest(107, "", "pve2")
        },
    ]
}

pub fn profiles() -> Vec<Profile> {
    let cpu =
        UsageFigures { min: 0.1, mean: 1.234, p95: 5.5, max: 7.9, std_dev: 1.1, slope_per_hour: -0.0004 };
    let memory = UsageFigures {
        min: 2.0e9,
        mean: 3.0e9,
        p95: 3.5e9,
        max: 4.0e9,
        std_dev: 1.0e8,
        slope_per_hour: 1.0e6,
    };
    let by_hour = (0_u32..24)
        .filter(|hour| !(3..6).contains(hour))
        .map(|hour| HourFigure { hour, value: 1.0 + f64::from(hour % 12) / 2.0 })
        .collect();
    vec![
        Profile {
            cluster: "lab".into(),
            vmid: 104,
            name: "web-4".into(),
            node: "pve3".into(),
            class: "cyclical".into(),
            observed_s: 1_209_600,
            cpu_cores: Some(cpu),
            memory_bytes: Some(memory),
            cpu_by_hour: by_hour,
            rrd_s: 1_000_000,
            earlier_s: 0,
            here_s: 209_600,
        },
        Profile {
            cluster: "lab".into(),
            vmid: 105,
            name: HOSTILE.into(),
            node: "pve3".into(),
            class: "unknown".into(),
            observed_s: 95,
            ..Profile::default()
        },
    ]
}

pub fn anomalies() -> Vec<AnomalyView> {
    let vote = |detector: &str, score: f64| VoteView { detector: detector.into(), score, confidence: 0.97 };
    let open = AnomalyView {
        id: "lab/pve3/1-2".into(),
        cluster: "lab".into(),
        node: "pve3".into(),
        metric: "cpu_used".into(),
        severity: "critical".into(),
        state: "open".into(),
        opened_ms: NOW_MS - 150_000,
        value: 96.123,
        expected: 34.5,
        deviation: 8.44,
        confidence: 0.994,
        detectors: vec![vote("z_score", 8.4), vote("ewma", 6.1)],
        unit: "percent".into(),
        ..AnomalyView::default()
    };
    vec![
        open.clone(),
        AnomalyView {
            id: "lab/pve1/1-9".into(),
            node: "pve1".into(),
            vmid: Some(106),
            metric: "guest_net_in".into(),
            severity: "warning".into(),
            state: "closed".into(),
            opened_ms: NOW_MS - 7_300_000,
            closed_ms: Some(NOW_MS - 7_000_000),
            value: 104_857_600.0,
            expected: 1_048_576.0,
            deviation: 4.2,
            confidence: 0.85,
            unit: "bytes_per_second".into(),
            detectors: vec![vote("percentile", 4.2)],
            ..open.clone()
        },
        AnomalyView {
            id: "lab/pve2/1-1".into(),
            node: "pve2".into(),
            metric: "disk_await".into(),
            instance: "sda\u{1b}[8m".into(),
            severity: "info".into(),
            opened_ms: NOW_MS - 30_000,
            value: 12.5,
            expected: 0.8,
            deviation: 2.1,
            confidence: 0.61,
            injected: true,
            unit: "milliseconds".into(),
            ..open
        },
    ]
}

pub fn decisions() -> Vec<Decision> {
    let at_ms = NOW_MS - 12_000;
    let decision = |number: u32, guest: u32, name: &str, action: &str, filter: &str, why: Reason| Decision {
        id: format!("lab-1795223923-{number}"),
        cluster: "lab".into(),
        at_ms,
        guest,
        guest_name: name.into(),
        source: "pve3".into(),
        target: "pve2".into(),
        action: action.into(),
        filter: filter.into(),
        reason: Some(why),
        improvement: 4.21,
        confidence: 84.0,
        risk: "low".into(),
        cost_minutes: 1.44,
        cost_bytes: 6 * GIB,
        ..Decision::default()
    };
    let advise = reason("advise", "advised: mode advise leaves the move to you", &[]);
    let cycle =
        reason("cycle", "filtered: cycle detected pve1->pve3->pve2->pve1 within 48 h", &[("hours", "48")]);
    let observing = reason("observing", "observing: 2/3 periods", &[("seen", "2"), ("wanted", "3")]);
    let silent = Reason { code: "new_code".into(), ..Reason::default() };
    vec![
        Decision {
            trail: trail(None),
            evidence: evidence(),
            ..decision(1, 104, "web-4", "recommended", "", advise)
        },
        Decision {
            trail: trail(Some(3)),
            risk: "high".into(),
            ..decision(2, 105, HOSTILE, "filtered", "cycle", cycle)
        },
        decision(3, 106, "mail", "observing", "", observing),
        Decision {
            conflict: "two recommendations for one guest".into(),
            ..decision(4, 108, "", "filtered", "conflict", silent)
        },
    ]
}

fn evidence() -> Vec<Reason> {
    vec![
        reason("node_over_threshold", "node pve3 uses 91.7 % CPU, the threshold is 70 %", &[("cpu", "91.7")]),
        reason(
            "profile",
            "guest 104 is bursty: its 95th percentile of 5.5 cores counts, not its mean of 1.2",
            &[],
        ),
        reason("target", "node pve2 would go from 19.5 % to 36.7 % CPU, its score from 28.9 to 41.0", &[]),
    ]
}

/// Every filter's verdict; `objects` is the order of the one that objects.
fn trail(objects: Option<u32>) -> Vec<TrailStep> {
    let steps = [
        ("cooldown", "not moved in the last 60 min; the last move is 31 h ago"),
        ("rollback", "pve2 is not where it came from"),
        ("cycle", "no cycle within 48 h"),
        ("confidence", ""),
        ("conflict", "no other recommendation for guest 104, and pve2 keeps 61.2 GiB of memory free"),
        ("risk", ""),
        ("trend", ""),
        ("outcome", ""),
        ("pattern", ""),
        ("affinity", "no tag, pin or HA rule speaks against pve2"),
        ("cost_benefit", ""),
        ("guest_success", ""),
        (
            "improvement",
            "the cluster's imbalance falls from 53.2 to 49.0 points, by 4.2; the target ends at 41.0 of 100",
        ),
    ];
    let mut trail: Vec<TrailStep> = (1..)
        .zip(steps)
        .map(|(order, (filter, text))| {
            let objected = objects == Some(order);
            let why = if objected {
                "pve1->pve3->pve2->pve1 would be a cycle of 3 nodes within 48 h"
            } else {
                text
            };
            let verdict = if objected {
                "filtered"
            } else if text.is_empty() {
                "not_enabled"
            } else {
                "pass"
            };
            TrailStep {
                order,
                filter: filter.into(),
                verdict: verdict.into(),
                reason: (!why.is_empty()).then(|| reason(filter, why, &[])),
            }
        })
        .collect();
    trail.reverse(); // The order is a field, not the place in the message.
    trail
}

pub fn explain(question: &ExplainRequest) -> Result<ExplainResponse, Status> {
    let scores = [("pve1", 31.4), ("pve2", 28.9), ("pve3", 82.06)];
    let scores = scores.into_iter().map(|(node, score)| (node.to_owned(), score)).collect();
    let run_ms = Some(NOW_MS - 12_000);
    let stays = vec![
        reason(
            "below_threshold",
            "nodes pve1 and pve2 are under every threshold (70 % CPU, 80 % memory, 20 % pressure)",
            &[],
        ),
        reason("stale", "", &[("node", "\"pve4\""), ("age_s", "185")]),
    ];
    let all = decisions();
    let ExplainRequest { decision, vmid, node, cluster } = question;
    let answer = |subject: &str, decisions: Vec<Decision>| ExplainResponse {
        decisions,
        stays: stays.clone(),
        subject: subject.into(),
        run_ms,
        suppressed: None,
        scores,
        moves: Vec::new(),
    };
    if !decision.is_empty() {
        let found = all.into_iter().find(|d| d.id == *decision);
        let found = found.ok_or_else(|| {
            Status::not_found(format!("there is no decision {decision}; `evenkeelctl decisions` lists them"))
        })?;
        return Ok(ExplainResponse {
            scores: Default::default(),
            stays: Vec::new(),
            ..answer(decision, vec![found])
        });
    }
    if *vmid != 0 {
        return Ok(answer(&format!("{vmid}"), all.into_iter().filter(|d| d.guest == *vmid).collect()));
    }
    if !node.is_empty() {
        return Ok(answer(node, all.into_iter().skip(1).take(1).collect()));
    }
    match cluster.as_str() {
        "lab" => Ok(answer("lab", all)),
        "local" => Ok(ExplainResponse {
            stays: Vec::new(),
            suppressed: Some(reason(
                "no_inventory",
                "there is no inventory: no Proxmox VE API is configured",
                &[],
            )),
            scores: Default::default(),
            ..answer("local", Vec::new())
        }),
        other => Err(Status::not_found(format!("there is no cluster {other:?}"))),
    }
}

pub fn replay(differs: bool) -> ReplayResponse {
    let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let other = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";
    ReplayResponse {
        identical: !differs,
        run: "lab-1795223923".into(),
        decisions: 4,
        stored_digest: digest.into(),
        replayed_digest: if differs { other } else { digest }.into(),
        differences: if differs {
            vec!["decision 2: stored filtered by cycle, replayed recommended".into()]
        } else {
            Vec::new()
        },
        written_by: "0.1.0".into(),
    }
}

/// A drill under way and one that was refused.
pub fn drills() -> Vec<DrillView> {
    let running = DrillView {
        id: "d1795223900000".into(),
        cluster: "lab".into(),
        node: "pve3".into(),
        kind: "cpu".into(),
        vmid: Some(104),
        amount: 2.0,
        unit: "cores".into(),
        ordered_ms: 1_795_223_900_000,
        ends_ms: 1_795_224_500_000,
        by: "the operator (7f3a)".into(),
        state: "running".into(),
        detail: String::new(),
    };
    let refused = DrillView {
        id: "d1795223901000".into(),
        node: "pve4".into(),
        kind: "delay".into(),
        vmid: None,
        amount: 25.0,
        unit: "ms".into(),
        state: "refused".into(),
        detail: "this agent's configuration does not allow drills: set drills.allowed = true".into(),
        ..running.clone()
    };
    vec![running, refused]
}
