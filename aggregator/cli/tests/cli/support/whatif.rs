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

fn drained(node: &str) -> DrainResponse {
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
    };
    let restart = DrainMove {
        guest: 105,
        guest_name: HOSTILE.into(),
        bytes: 0,
        minutes: 0.1,
        risk: "medium".into(),
        restart: true,
        allowed: false,
        ..live.clone()
    };
    let after = |node: &str, score_after: f64| DrainNode {
        node: node.into(),
        score_before: 31.2,
        score_after,
        cpu_before_percent: 22.0,
        cpu_after_percent: 28.4,
        mem_before_percent: 41.0,
        mem_after_percent: 55.5,
    };
    DrainResponse {
        cluster: "lab".into(),
        node: node.into(),
        feasible: true,
        at_ms: NOW_MS - 20_000,
        cautions: vec![reason("paused", "paused by an operator: new disks")],
        moves: vec![live, restart],
        resting: vec![107],
        minutes: 1.63,
        after: vec![after("pve1", 31.2), after("pve2", 44.0)],
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

fn no_plan(node: &str) -> DrainResponse {
    let stale = reason("agent_stale", "the data of pve4 is 412 s old; at most 30 s is trusted");
    DrainResponse {
        cluster: "lab".into(),
        node: node.into(),
        at_ms: NOW_MS,
        problems: vec![stale],
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
