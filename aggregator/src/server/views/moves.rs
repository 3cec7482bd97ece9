//! Migrations of evenkeel, for the wire.

use evenkeel_core::aftermath::{Check, Figures};
use evenkeel_core::preflight::Purpose;
use evenkeel_proto::v1;

use crate::execute::Intent;

pub(in crate::server) fn view(intent: &Intent) -> v1::MoveView {
    let last = intent.log.last().map(|step| step.detail.clone()).unwrap_or_default();
    let ended = intent.ended_at().map(|at| at.as_millis());
    let submitted = intent.submitted_at.map(|at| at.as_millis());
    v1::MoveView {
        id: intent.id.to_string(),
        trace: intent.id.trace_id(),
        cluster: intent.id.cluster.to_string(),
        guest: intent.guest.get(),
        guest_name: intent.name.clone(),
        kind: intent.kind.name().into(),
        source: intent.source.to_string(),
        target: intent.target.to_string(),
        purpose: purpose(intent.purpose).into(),
        state: intent.state.name().into(),
        code: intent.why.as_ref().map(|why| why.code().to_owned()).unwrap_or_default(),
        text: intent.why.as_ref().map_or(last, ToString::to_string),
        approved_by: intent.approved.as_ref().map(|(by, _)| by.clone()).unwrap_or_default(),
        approved_ms: intent.approved.as_ref().map(|(_, at)| at.as_millis()),
        submitted_ms: submitted,
        ended_ms: ended,
        upid: intent.upid.clone().unwrap_or_default(),
        predicted_minutes: intent.predicted.minutes,
        took_minutes: intent.took().map(|took| took.as_secs_f64() / 60.0),
        predicted_improvement: intent.predicted.improvement,
        confidence: intent.predicted.confidence,
        timeline: intent
            .log
            .iter()
            .map(|step| v1::MoveStep {
                at_ms: step.at.as_millis(),
                state: step.state.name().into(),
                detail: step.detail.clone(),
            })
            .collect(),
        along: intent.along.iter().map(|guest| guest.get()).collect(),
        predicted_relief: intent.expected_relief,
        checks: intent.before.iter().flat_map(|before| checks(before, &intent.checks)).collect(),
    }
}

fn checks(before: &Figures, checks: &[Check]) -> Vec<v1::MoveCheck> {
    let check = |check: &Check| {
        let now = &check.figures;
        Some(v1::MoveCheck {
            after_s: check.after_s,
            at_ms: check.at.as_millis(),
            source_before: before.source,
            source: now.source,
            target_before: before.target,
            target: now.target,
            others_before: before.others?,
            others: now.others?,
            relief: now.relief(before)?,
        })
    };
    checks.iter().filter_map(check).collect()
}

const fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Balance => "balance",
        Purpose::Evacuation => "evacuation",
    }
}
