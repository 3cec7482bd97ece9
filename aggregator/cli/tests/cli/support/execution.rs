//! The execution service of the tests' aggregator, with canned migrations in every sort of state.

use evenkeel_proto::v1::execution_server::Execution;
use evenkeel_proto::v1::*;
use tonic::{Request, Response, Status};

use super::canned::{HOSTILE, NOW_MS};
use super::{answer, operator};

/// Answers about migrations.
pub struct FakeExecution;

const RUN_S: i64 = NOW_MS / 1000 - 7_300;

fn step(seconds: i64, state: &str, detail: &str) -> MoveStep {
    MoveStep { at_ms: (RUN_S + seconds) * 1000, state: state.into(), detail: detail.into() }
}

/// One that was done and looked at afterwards.
pub fn done() -> MoveView {
    let upid = "UPID:pve3:0000A1B2:00061A2B:6B0F1C00:qmigrate:104:evenkeel@pve!rw:";
    let check = |after_s, source, others| MoveCheck {
        after_s,
        at_ms: 0,
        source_before: 91.4,
        source,
        target_before: 22.0,
        target: 41.5,
        others_before: 30.2,
        others,
        relief: (91.4 - source) - (30.2 - others),
    };
    MoveView {
        id: format!("lab-{RUN_S}-1"),
        trace: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
        cluster: "lab".into(),
        guest: 104,
        guest_name: "web-104".into(),
        kind: "qemu".into(),
        source: "pve3".into(),
        target: "pve2".into(),
        purpose: "balance".into(),
        state: "done".into(),
        code: "arrived".into(),
        text: "moved: it was seen on pve2 86 s after the start".into(),
        approved_by: "alice (3f2a)".into(),
        approved_ms: Some((RUN_S + 40) * 1000),
        submitted_ms: Some((RUN_S + 45) * 1000),
        ended_ms: Some((RUN_S + 135) * 1000),
        upid: upid.into(),
        predicted_minutes: 1.53,
        took_minutes: Some(86.0 / 60.0),
        predicted_improvement: 12.44,
        confidence: 91.0,
        timeline: vec![
            step(
                0,
                "proposed",
                "passed all filters: cluster score 41.2 -> 28.8; waits for an operator's approval",
            ),
            step(40, "approved", "approved by alice (3f2a); it is started after a last look at fresh data"),
            step(45, "prepared", "the last look found nothing against it"),
            step(45, "submitting", "Proxmox VE is asked to start it"),
            step(46, "submitted", &format!("Proxmox VE has taken it: {upid}")),
            step(60, "running", &format!("task {upid} runs")),
            step(135, "verifying", "the guest was seen on its target"),
            step(135, "done", "moved: it was seen on pve2 86 s after the start"),
        ],
        along: vec![],
        predicted_relief: Some(38.0),
        checks: vec![check(300, 54.0, 29.0), check(3600, 47.1, 22.4)],
    }
}

fn moves() -> Vec<MoveView> {
    let proposed = MoveView {
        id: format!("lab-{}-1", RUN_S + 7_200),
        guest: 105,
        guest_name: HOSTILE.into(),
        kind: "lxc".into(),
        target: "pve1".into(),
        state: "proposed".into(),
        code: String::new(),
        text: "passed all filters: cluster score 41.2 -> 28.8; waits for an operator's approval".into(),
        approved_by: String::new(),
        approved_ms: None,
        submitted_ms: None,
        ended_ms: None,
        upid: String::new(),
        took_minutes: None,
        timeline: vec![step(7_200, "proposed", "passed all filters")],
        checks: vec![],
        ..done()
    };
    let unknown = MoveView {
        id: format!("lab-{}-2", RUN_S + 3_600),
        guest: 108,
        guest_name: String::new(),
        state: "unknown".into(),
        code: "migration_unknown".into(),
        text:
            "what became of the migration is not known: its node is away, and no task is listed that moves it"
                .into(),
        ended_ms: None,
        took_minutes: None,
        timeline: vec![step(3_600, "submitting", "asked"), step(4_300, "unknown", "its node is away")],
        checks: vec![],
        ..done()
    };
    vec![done(), unknown, proposed]
}

fn of_decision(id: &str) -> Result<MoveView, Status> {
    let found = moves().into_iter().find(|moved| moved.id == id);
    found.ok_or_else(|| Status::not_found(format!("{id} waits for nobody's approval")))
}

#[tonic::async_trait]
impl Execution for FakeExecution {
    async fn approve(&self, r: Request<ApproveRequest>) -> Result<Response<ApproveResponse>, Status> {
        operator(&r)?;
        let moved = of_decision(&r.get_ref().decision)?;
        if moved.state != "proposed" {
            return Err(Status::failed_precondition(format!("{} is {} already", moved.id, moved.state)));
        }
        let moved = MoveView { state: "approved".into(), ..moved };
        answer(&r, ApproveResponse { r#move: Some(moved) })
    }

    async fn reject(&self, r: Request<RejectRequest>) -> Result<Response<RejectResponse>, Status> {
        operator(&r)?;
        let moved = MoveView { state: "aborted".into(), ..of_decision(&r.get_ref().decision)? };
        answer(&r, RejectResponse { r#move: Some(moved) })
    }

    async fn rearm(&self, r: Request<RearmRequest>) -> Result<Response<RearmResponse>, Status> {
        operator(&r)?;
        let was_stopped_by = vec![
            "lab: 3 of the last 4 migrations from or to pve2 failed; the next one is tried in 41 min, or after \
             `evenkeelctl rearm`"
                .into(),
        ];
        answer(&r, RearmResponse { clusters: vec!["lab".into(), "local".into()], was_stopped_by })
    }

    async fn evacuate(&self, r: Request<EvacuateRequest>) -> Result<Response<EvacuateResponse>, Status> {
        operator(&r)?;
        if r.get_ref().node == "pve1" {
            return Err(Status::failed_precondition("no plan for pve1: the cluster has no quorum"));
        }
        let moves = moves().into_iter().filter(|moved| moved.state == "proposed").collect();
        answer(&r, EvacuateResponse { moves })
    }

    async fn list_moves(&self, r: Request<ListMovesRequest>) -> Result<Response<ListMovesResponse>, Status> {
        let q = r.get_ref();
        let mut moves = if q.decision.is_empty() { moves() } else { vec![of_decision(&q.decision)?] };
        moves.retain(|moved| {
            (q.vmid == 0 || moved.guest == q.vmid)
                && (q.state.is_empty() || moved.state == q.state)
                && (q.node.is_empty() || moved.source == q.node || moved.target == q.node)
        });
        answer(&r, ListMovesResponse { moves, truncated: false })
    }
}
