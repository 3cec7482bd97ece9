//! What the store answers: bounded scans, newest first. They block, so the service asks from a thread that may.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use evenkeel_common::decision::Decision;
use evenkeel_common::id::{ClusterId, Vmid};
use evenkeel_common::time::Timestamp;
use evenkeel_proto::v1;

use super::judged;
use super::views::{anomalies as anomaly_views, decisions as decision_views};
use crate::execute::Intent;
use crate::store::records::{AnomalyKey, AnomalyTimeKey, DecisionKey, GapKey, ProfileRecord};
use crate::store::{Direction, KeyRange, OnDamage, Store, StoreError, trees};

/// Rows of an answer unless the client asks for fewer.
const LIMIT: usize = 1_000;
/// How long an anomaly may have been open to be found by its closing; detectors accept a new level far sooner.
const LONGEST_ANOMALY: std::time::Duration = std::time::Duration::from_hours(24 * 7);
/// Rows looked at for one answer at most, so that a narrow filter over a long time can not occupy the store.
const SCANNED: usize = 200_000;

/// Number of gap records by cluster.
pub(super) fn gaps(store: &dyn Store) -> Result<BTreeMap<ClusterId, u64>, StoreError> {
    let mut gaps = BTreeMap::new();
    let count = |key: GapKey, _| {
        *gaps.entry(key.cluster).or_insert(0) += 1;
        ControlFlow::Continue(())
    };
    trees::GAPS.scan(store, &KeyRange::all(), Direction::Forward, OnDamage::Skip, count)?;
    Ok(gaps)
}

/// Profiles of a cluster's guests.
pub(super) fn profiles(
    store: &dyn Store,
    cluster: &ClusterId,
) -> Result<BTreeMap<Vmid, ProfileRecord>, StoreError> {
    let mut profiles = BTreeMap::new();
    let range = KeyRange::under(cluster);
    trees::PROFILES.scan(store, &range, Direction::Forward, OnDamage::Skip, |key, record| {
        profiles.insert(key.vmid, record);
        ControlFlow::Continue(())
    })?;
    Ok(profiles)
}

/// Anomalies that were asked for, newest first.
pub(super) fn anomalies(
    store: &dyn Store,
    clusters: &[ClusterId],
    request: &v1::ListAnomaliesRequest,
) -> Result<v1::ListAnomaliesResponse, StoreError> {
    let limit = limit(request.limit);
    let since = Timestamp::from_millis(request.since_ms.unwrap_or(i64::MIN));
    let (mut found, mut truncated) = (Vec::new(), false);
    for cluster in clusters {
        // What closed since then may have opened long before.
        let from = (cluster.clone(), since.before(LONGEST_ANOMALY));
        let range = KeyRange::between(&from, &(cluster.clone(), Timestamp::from_millis(i64::MAX)));
        let (mut taken, mut scanned) = (0, 0);
        let mut failure = None;
        trees::ANOMALIES_BY_TIME.scan(
            store,
            &range,
            Direction::Backward,
            OnDamage::Skip,
            |key: AnomalyTimeKey, ()| {
                scanned += 1;
                if taken >= limit || scanned > SCANNED {
                    truncated = true;
                    return ControlFlow::Break(());
                }
                let AnomalyTimeKey { cluster: of, node, epoch, number, .. } = key;
                let id = AnomalyKey { cluster: of, node, epoch, number };
                match trees::ANOMALIES.get(store, &id) {
                    Ok(Some(record)) if anomaly_views::wanted(request, since, cluster, &record) => {
                        taken += 1;
                        found.push(judged::shown(store, &id, anomaly_views::view(cluster, &record)));
                    }
                    Ok(_) => {}
                    Err(error) if error.is_damaged_value() => truncated = true,
                    Err(error) => {
                        failure = Some(error);
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            },
        )?;
        failure.map_or(Ok(()), Err)?;
    }
    found.sort_by_key(|anomaly| std::cmp::Reverse(anomaly.opened_ms));
    truncated |= found.len() > limit;
    found.truncate(limit);
    Ok(v1::ListAnomaliesResponse { anomalies: found, truncated })
}

/// A decision with what has become of it since.
pub(super) fn fated(mut decision: Decision, intents: &[Intent]) -> Decision {
    // The newest first: a move may have been wanted, given up and wanted again.
    if let Some(intent) = intents.iter().rev().find(|intent| intent.answers(&decision)) {
        let (action, reason) = intent.fate();
        decision.action = action;
        decision.reason = reason.unwrap_or(decision.reason);
    }
    decision
}

/// Decisions that were asked for, newest first. `intents`: what became of those that evenkeel was to act on.
pub(super) fn decisions(
    store: &dyn Store,
    clusters: &[ClusterId],
    request: &v1::ListDecisionsRequest,
    intents: &[Intent],
) -> Result<v1::ListDecisionsResponse, StoreError> {
    let limit = limit(request.limit);
    let since_s = Timestamp::from_millis(request.since_ms.unwrap_or(0)).as_secs();
    let (mut found, mut truncated) = (Vec::new(), false);
    for cluster in clusters {
        let range = KeyRange::between(&(cluster.clone(), since_s), &(cluster.clone(), i64::MAX));
        let (mut taken, mut scanned) = (0, 0);
        let damaged = trees::DECISIONS.scan(
            store,
            &range,
            Direction::Backward,
            OnDamage::Skip,
            |_: DecisionKey, decision| {
                scanned += 1;
                if taken >= limit || scanned > SCANNED {
                    truncated = true;
                    return ControlFlow::Break(());
                }
                let decision = fated(decision, intents);
                if decision_views::wanted(request, &decision) {
                    taken += 1;
                    found.push(decision_views::view(&decision));
                }
                ControlFlow::Continue(())
            },
        )?;
        truncated |= damaged > 0;
    }
    found.sort_by_key(|decision| std::cmp::Reverse(decision.at_ms));
    truncated |= found.len() > limit;
    found.truncate(limit);
    Ok(v1::ListDecisionsResponse { decisions: found, truncated })
}

fn limit(asked: u32) -> usize {
    if asked == 0 { LIMIT } else { (asked as usize).min(10 * LIMIT) }
}
