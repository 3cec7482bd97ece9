//! The what-if service of the tests' aggregator, with canned answers that are awkward to show.

use std::collections::BTreeMap;

use evenkeel_proto::v1::whatif_server::Whatif;
use evenkeel_proto::v1::*;
use tonic::{Request, Response, Status};

use super::canned::{HOSTILE, NOW_MS};
use super::{Stream, answer};

const GIB: u64 = 1 << 30;
const HOUR_MS: i64 = 3_600_000;

/// Answers what-if questions.
pub struct FakeWhatif;

fn reason(code: &str, text: &str) -> Reason {
    Reason { code: code.into(), text: text.into(), ..Reason::default() }
}

/// A guest that moves live, and one with an awkward name that restarts without its tag's consent.
fn moves(source: &str) -> Vec<DrainMove> {
    let load = "expected to need 2.1 cores (bursty: its 95th percentile, now 0.8) and 7.5 GiB";
    let live = DrainMove {
        guest: 104,
        guest_name: "web-104".into(),
        target: "pve2".into(),
        bytes: 10 * GIB,
        minutes: 1.53,
        risk: "low".into(),
        restart: false,
        allowed: true,
        evidence: vec![reason("node_hot", "pve3 CPU 93 %"), reason("predicted_load", load)],
        source: source.into(),
        improvement: 12.44,
        along: vec![],
    };
    let restart = DrainMove {
        guest: 105,
        guest_name: HOSTILE.into(),
        bytes: 0,
        minutes: 0.1,
        risk: "medium".into(),
        restart: true,
        allowed: false,
        improvement: 3.1,
        ..live.clone()
    };
    vec![live, restart]
}

fn nodes(names: &[(&str, f64)]) -> Vec<DrainNode> {
    let node = |(node, score_after): &(&str, f64)| DrainNode {
        node: (*node).into(),
        score_before: 31.2,
        score_after: *score_after,
        cpu_before_percent: 22.0,
        cpu_after_percent: 28.4,
        mem_before_percent: 41.0,
        mem_after_percent: 55.5,
    };
    names.iter().map(node).collect()
}

/// A plan in which a container moves only where restarts are asked for.
fn balanced(restarts: bool) -> BalanceResponse {
    let held = |guest, name: &str, filter: &str, why| BalanceHeld {
        guest,
        guest_name: name.into(),
        source: "pve3".into(),
        target: "pve1".into(),
        improvement: 2.28,
        filter: filter.into(),
        reason: Some(why),
    };
    let stay = |node: &str, reasons| BalanceStay { node: node.into(), reasons };
    let restart = "a container moves by restart, which tag evenkeel-restart-ok must allow";
    let mut moves = moves("pve3");
    moves[0].along = vec![108, 109];
    let mut not_moved =
        vec![held(107, "db", "cost_benefit", reason("cost_too_high", "gains 2.3 points for 41 minutes"))];
    if !restarts {
        moves.truncate(1);
        not_moved.push(held(105, HOSTILE, "affinity", reason("container_restart", restart)));
    }
    BalanceResponse {
        cluster: "lab".into(),
        at_ms: NOW_MS - 20_000,
        cautions: vec![reason("rule_broken", "tag evenkeel-anti-db is not kept on pve1 (guest 101, 102)")],
        moves,
        minutes: 1.63,
        nodes: nodes(&[("pve1", 31.2), ("pve2", 44.0), ("pve3", 12.0)]),
        imbalance_before: Some(13.84),
        imbalance_after: Some(1.62),
        held: not_moved,
        stays: vec![
            stay("pve1", vec![reason("node_calm", "pve1 is at score 31: nothing to relieve")]),
            stay(
                "pve2",
                vec![reason("node_moves", "pve2: 0 move(s) out of it and 2 into it are decided in this run")],
            ),
            stay(
                "pve3",
                vec![
                    reason("node_moves", "pve3: 2 move(s) out of it and 0 into it are decided in this run"),
                    reason(
                        "best_move_too_small",
                        "best candidate is guest 110 to pve1: it improves the cluster by only 0.20 points, 1.10 are needed",
                    ),
                ],
            ),
            stay("pve4", vec![reason("node_offline", "pve4 is not online")]),
        ],
        failures: vec![DrainFailure { node: "pve2".into(), guests: 3, bytes: 44 * GIB }],
        ..BalanceResponse::default()
    }
}

fn calm() -> BalanceResponse {
    let spread =
        "the cluster is balanced: node scores within 4.1 points (threshold 8.0), no node over a limit";
    BalanceResponse {
        calm: Some(reason("converged", spread)),
        moves: vec![],
        minutes: 0.0,
        imbalance_after: Some(13.84),
        cautions: vec![],
        held: vec![],
        failures: vec![],
        ..balanced(false)
    }
}

/// As many moves as a cluster of 32 nodes needs on a bad day.
fn large() -> BalanceResponse {
    let template = moves("pve3").swap_remove(0);
    let one = |n: u32| DrainMove {
        guest: 1000 + 17 * n,
        guest_name: format!("service-with-a-long-name-{n}.example.org"),
        source: format!("pve{}", 1 + n % 5),
        target: format!("pve{}", 10 + n % 23),
        bytes: u64::from(40 - n) * GIB,
        minutes: 6.2 - f64::from(n) / 7.0,
        improvement: 900.0 / f64::from(n * n),
        risk: if n.is_multiple_of(9) { "high" } else { "low" }.into(),
        ..template.clone()
    };
    BalanceResponse { moves: (1..=37).map(one).collect(), minutes: 124.5, held: vec![], ..balanced(false) }
}

fn drained(node: &str) -> DrainResponse {
    DrainResponse {
        cluster: "lab".into(),
        node: node.into(),
        feasible: true,
        at_ms: NOW_MS - 20_000,
        cautions: vec![reason("paused", "paused by an operator: new disks")],
        moves: moves(node),
        resting: vec![107],
        minutes: 1.63,
        after: nodes(&[("pve1", 31.2), ("pve2", 44.0)]),
        ..DrainResponse::default()
    }
}

fn stuck(node: &str) -> DrainResponse {
    let missing = |node: &str| DrainObjection {
        node: node.into(),
        reason: Some(reason("storage_missing", &format!("storage nfs is not available on {node}"))),
    };
    let blocked = DrainBlocked {
        guest: 106,
        guest_name: "backup".into(),
        reason: Some(reason("storage_missing", "storage nfs is not available on pve1")),
        targets: vec![missing("pve1"), missing("pve2")],
    };
    let own = DrainBlocked {
        guest: 105,
        guest_name: HOSTILE.into(),
        reason: Some(reason("passthrough", "uses devices of its node: hostpci0")),
        targets: vec![],
    };
    DrainResponse {
        feasible: false,
        blocked: vec![own, blocked],
        failures: vec![DrainFailure { node: "pve2".into(), guests: 3, bytes: 44 * GIB }],
        moves: vec![],
        minutes: 0.0,
        cautions: vec![],
        resting: vec![],
        ..drained(node)
    }
}

fn stale() -> Reason {
    reason("agent_stale", "the data of pve4 is 412 s old; at most 30 s is trusted")
}

fn no_plan(node: &str) -> DrainResponse {
    DrainResponse {
        cluster: "lab".into(),
        node: node.into(),
        at_ms: NOW_MS,
        problems: vec![stale()],
        ..DrainResponse::default()
    }
}

fn placed(fits: bool) -> PlaceResponse {
    let node = |name: &str, fits: bool, scores: Option<(f64, f64)>, why: Option<(&str, &str)>| PlaceNode {
        node: name.into(),
        fits,
        score_before: scores.map(|(before, _)| before),
        score_after: scores.map(|(_, after)| after),
        free_after_reserve_bytes: scores
            .map(|_| if fits { 40 * GIB.cast_signed() } else { -3 * GIB.cast_signed() }),
        reason: why.map(|(code, text)| reason(code, text)),
    };
    let over = ("target_over_limit", "pve1 would reach 74 % cpu; its limit is 70 %");
    let full = ("target_memory", "pve3 would keep 9.8 GiB of memory free; its reserve is 12.8 GiB");
    let mut nodes = vec![
        node("pve2", true, Some((21.0, 26.4)), None),
        node("pve1", true, Some((61.0, 67.9)), Some(over)),
        node("pve3", false, Some((70.0, 91.0)), Some(full)),
        node("pve4", false, None, Some(("target_offline", "pve4 is not online"))),
    ];
    if !fits {
        nodes.retain(|node| !node.fits);
    }
    PlaceResponse {
        best: fits.then(|| "pve2".to_owned()),
        nodes,
        cluster: "lab".into(),
        at_ms: NOW_MS - 20_000,
        cpu_load: 2.0,
        cpu_load_assumed: true,
        problems: vec![],
        cautions: vec![],
    }
}

fn replayed(preset: &str) -> ReplayPolicyResult {
    let course =
        |mean_score, peak_score, node_hours_over| ReplayCourse { mean_score, peak_score, node_hours_over };
    let moved = |hours: i64, guest, name: &str, target: &str| ReplayMove {
        at_ms: NOW_MS - hours * HOUR_MS,
        guest,
        guest_name: name.into(),
        source: "pve3".into(),
        target: target.into(),
        improvement: 3.42,
        minutes: 1.53,
    };
    ReplayPolicyResult {
        cluster: "lab".into(),
        preset: if preset.is_empty() { "full" } else { preset }.into(),
        from_ms: Some(NOW_MS - 168 * HOUR_MS),
        to_ms: Some(NOW_MS),
        runs: 9_911,
        hours: 165.2,
        gaps: 2,
        gap_hours: 2.8,
        unreliable: 14,
        unreadable: 3,
        truncated: false,
        moved: 2,
        move_minutes: 3.06,
        returns: 0,
        overtaken: 1,
        suppressed: BTreeMap::from([("converged".to_owned(), 8_020), ("agent_stale".to_owned(), 14)]),
        actions: BTreeMap::from([("observing".to_owned(), 4), ("filtered".to_owned(), 120)]),
        was: Some(course(18.41, 41.7, 31.5)),
        would: Some(course(7.02, 41.7, 0.3)),
        moves: vec![moved(167, 104, "web-104", "pve2"), moved(30, 105, HOSTILE, "pve1")],
        assumption: "Assumes that what guests demand does not depend on where they run.".into(),
    }
}

#[tonic::async_trait]
impl Whatif for FakeWhatif {
    type ReplayPolicyStream = Stream<ReplayPolicyProgress>;

    async fn balance(&self, r: Request<BalanceRequest>) -> Result<Response<BalanceResponse>, Status> {
        let plan = match r.get_ref().cluster.as_str() {
            "calm" => calm(),
            "stuck" => BalanceResponse { calm: None, held: balanced(false).held, ..calm() },
            "large" => large(),
            "stale" => BalanceResponse {
                cluster: "stale".into(),
                at_ms: NOW_MS,
                problems: vec![stale()],
                ..BalanceResponse::default()
            },
            _ => balanced(r.get_ref().restarts),
        };
        answer(&r, plan)
    }

    async fn drain(&self, r: Request<DrainRequest>) -> Result<Response<DrainResponse>, Status> {
        let node = r.get_ref().node.clone();
        let plan = match node.as_str() {
            "pve3" => drained(&node),
            "pve4" => no_plan(&node),
            _ => stuck(&node),
        };
        answer(&r, plan)
    }

    async fn place(&self, r: Request<PlaceRequest>) -> Result<Response<PlaceResponse>, Status> {
        let fits = r.get_ref().memory_bytes < 100 * GIB;
        answer(&r, placed(fits))
    }

    async fn replay_policy(
        &self,
        r: Request<ReplayPolicyRequest>,
    ) -> Result<Response<Self::ReplayPolicyStream>, Status> {
        let step = ReplayPolicyProgress { runs: 16, at_ms: Some(NOW_MS), result: None };
        // A day has passed since then: nothing is kept of it.
        let none = ReplayPolicyResult { cluster: "lab".into(), ..ReplayPolicyResult::default() };
        let result = if r.get_ref().preset == "off" { none } else { replayed(&r.get_ref().preset) };
        let last = ReplayPolicyProgress { result: Some(result), ..step.clone() };
        answer(&r, Box::pin(tokio_stream::iter([Ok(step), Ok(last)])) as Self::ReplayPolicyStream)
    }
}
