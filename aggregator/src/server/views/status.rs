//! How a cluster is doing, in a few figures.

use evenkeel_common::reason::Reason;
use evenkeel_proto::v1;

use super::{ClusterView, count};
use crate::cycle::ClusterHandle;
use crate::execute::State;

/// Status of one cluster. `gaps` is the number of gap records kept.
#[must_use]
pub fn cluster(view: &ClusterView, gaps: u64) -> v1::ClusterStatus {
    let mut shown = v1::ClusterStatus { cluster: view.id.to_string(), gaps, ..v1::ClusterStatus::default() };
    shown.nodes = count(view.agents.len());
    for cell in view.agents.values() {
        let live = cell.lock();
        shown.nodes_fresh += u32::from(view.is_fresh(live.received));
        shown.open_anomalies += count(live.open.len());
        shown.guests += count(live.guests.len());
    }
    let Some(handle) = &view.handle else {
        shown.mode = "advise".into();
        shown.preset = "off".into();
        shown.inventory = "none".into();
        shown.inventory_detail =
            "the aggregator's configuration has no [[clusters]] entry of this name".into();
        shown.last_run = "no decisions are made for a cluster that is not configured".into();
        return shown;
    };
    let state = handle.lock();
    shown.mode = word(&handle.policy.mode);
    shown.preset = word(&handle.policy.preset);
    if let Some(pause) = &state.pause {
        shown.paused = true;
        shown.paused_by.clone_from(&pause.by);
        shown.paused_ms = Some(pause.at.as_millis());
    }
    match (&state.inventory, &state.inventory_error) {
        (_, Some(error)) => (shown.inventory, shown.inventory_detail) = ("unreachable".into(), error.clone()),
        (Some(inventory), None) => {
            shown.inventory = "ok".into();
            shown.inventory_detail =
                inventory.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            shown.nodes = shown.nodes.max(count(inventory.nodes.len()));
            shown.guests = count(inventory.guests.len());
        }
        (None, None) => shown.inventory = "none".into(),
    }
    let intents = handle.book.all();
    shown.moves_waiting = count(intents.iter().filter(|intent| intent.state == State::Proposed).count());
    shown.moves_under_way = count(intents.iter().filter(|intent| intent.state.is_under_way()).count());
    if let Some(record) = &state.last_run {
        let run = &record.run;
        let of_all = record.snapshot.hands_off.iter().filter(|off| off.guest.is_none());
        shown.held = of_all.map(|off| off.why.to_string()).collect();
        shown.last_run_ms = Some(run.at.as_millis());
        shown.last_run = run.suppressed.as_ref().map_or_else(|| run.summary.to_string(), ToString::to_string);
        shown.actions = run.summary.0.iter().map(|(action, n)| (action.to_string(), *n)).collect();
    }
    shown
}

/// What the last run of a cluster says about others who move its guests.
#[must_use]
pub fn others(handle: &ClusterHandle) -> Vec<String> {
    let last = handle.lock().last_run.clone();
    let other = |reason: &&Reason| matches!(reason, Reason::OtherBalancer { .. } | Reason::PveRebalances {});
    let told = last.iter().flat_map(|record| &record.run.warnings).filter(other);
    told.map(|reason| format!("cluster {}: {reason}", handle.id)).collect()
}

/// The word of an option, as it stands in the configuration.
pub(super) fn word(option: &impl serde::Serialize) -> String {
    match serde_json::to_value(option) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
