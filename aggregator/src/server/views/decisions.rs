//! Decisions, with their trails.

use evenkeel_common::decision::{Decision, TrailEntry};
use evenkeel_common::reason::Reason;
use evenkeel_proto::v1;

/// A reason as it is shown.
#[must_use]
pub fn reason(reason: &Reason) -> v1::Reason {
    v1::Reason { code: reason.code().into(), text: reason.to_string(), fields: reason.fields() }
}

/// A decision as it is shown.
#[must_use]
pub fn view(decision: &Decision) -> v1::Decision {
    let advice = &decision.recommendation;
    v1::Decision {
        id: decision.id.to_string(),
        cluster: decision.id.cluster.to_string(),
        at_ms: decision.id.run_at().as_millis(),
        guest: advice.guest.get(),
        guest_name: advice.name.clone(),
        source: advice.source.to_string(),
        target: advice.target.to_string(),
        action: decision.action.to_string(),
        filter: decision.filter.map(|step| step.to_string()).unwrap_or_default(),
        reason: Some(reason(&decision.reason)),
        trail: (1..).zip(&decision.trail.0).map(|(order, entry)| step(order, entry)).collect(),
        improvement: advice.improvement,
        confidence: advice.confidence.get(),
        risk: advice.risk.to_string(),
        cost_minutes: advice.cost.minutes,
        cost_bytes: advice.cost.bytes.0,
        conflict: advice.conflict.as_ref().map(ToString::to_string).unwrap_or_default(),
        evidence: advice.evidence.iter().map(reason).collect(),
    }
}

fn step(order: u32, entry: &TrailEntry) -> v1::TrailStep {
    v1::TrailStep {
        order,
        filter: entry.filter.to_string(),
        verdict: entry.verdict.name().into(),
        reason: entry.verdict.reason().map(reason),
    }
}

/// Whether a decision is one that was asked for; an empty word or zero asks for all.
#[must_use]
pub fn wanted(request: &v1::ListDecisionsRequest, decision: &Decision) -> bool {
    (request.vmid == 0 || request.vmid == decision.recommendation.guest.get())
        && (request.action.is_empty() || request.action == decision.action.name())
        && (request.cluster.is_empty() || request.cluster == decision.id.cluster.as_str())
}
