//! Anomalies.

use evenkeel_common::id::ClusterId;
use evenkeel_common::sample::{Subject, Unit};
use evenkeel_common::time::Timestamp;
use evenkeel_proto::v1;
use evenkeel_runtime::tls::hex;

use crate::store::records::AnomalyRecord;

/// An anomaly as it is shown.
#[must_use]
pub fn view(cluster: &ClusterId, record: &AnomalyRecord) -> v1::AnomalyView {
    let anomaly = &record.anomaly;
    v1::AnomalyView {
        id: format!("{cluster}/{}/{}-{}", record.node, hex(&record.epoch[..4]), anomaly.number),
        cluster: cluster.to_string(),
        node: record.node.to_string(),
        vmid: match anomaly.series.subject {
            Subject::Node => None,
            Subject::Guest(vmid) => Some(vmid.get()),
        },
        metric: anomaly.series.metric.to_string(),
        instance: anomaly.series.instance.clone(),
        severity: anomaly.severity.to_string(),
        state: if anomaly.closed_at.is_some() { "closed" } else { "open" }.into(),
        opened_ms: anomaly.opened_at.as_millis(),
        closed_ms: anomaly.closed_at.map(Timestamp::as_millis),
        value: anomaly.value,
        expected: anomaly.expected,
        deviation: anomaly.deviation,
        confidence: anomaly.confidence.get(),
        detectors: anomaly
            .votes
            .iter()
            .map(|vote| v1::VoteView {
                detector: vote.detector.to_string(),
                score: vote.score,
                confidence: vote.confidence.get(),
            })
            .collect(),
        injected: anomaly.injected,
        causes: anomaly
            .causes
            .iter()
            .map(|cause| v1::CauseView { series: cause.series.to_string(), deviation: cause.deviation })
            .collect(),
        unit: unit(anomaly.series.metric.unit()).into(),
        text: record.fleet.as_ref().map(|fleet| fleet.text.clone()).unwrap_or_default(),
        samples: record.fleet.as_ref().map(|fleet| fleet.samples.clone()).unwrap_or_default(),
        abstained: record.fleet.as_ref().map(|fleet| fleet.abstained.clone()).unwrap_or_default(),
        ..v1::AnomalyView::default()
    }
}

/// Stable name of a unit.
#[must_use]
pub const fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Percent => "percent",
        Unit::Cores => "cores",
        Unit::Bytes => "bytes",
        Unit::BytesPerSecond => "bytes_per_second",
        Unit::PerSecond => "per_second",
        Unit::Milliseconds => "milliseconds",
        Unit::MegabitsPerSecond => "megabits_per_second",
        Unit::Count => "count",
    }
}

/// Whether an anomaly is one that was asked for, and opened or closed since then; an empty word or zero asks for all.
#[must_use]
pub fn wanted(
    request: &v1::ListAnomaliesRequest,
    since: Timestamp,
    cluster: &ClusterId,
    record: &AnomalyRecord,
) -> bool {
    let changed = record.anomaly.closed_at.unwrap_or(record.anomaly.opened_at);
    let still_open = record.anomaly.closed_at.is_none();
    let of_guest = matches!(record.anomaly.series.subject, Subject::Guest(v) if v.get() == request.vmid);
    (request.cluster.is_empty() || request.cluster == cluster.as_str())
        && (request.node.is_empty() || request.node == record.node.as_str())
        && (request.vmid == 0 || of_guest)
        && (changed >= since || (request.open_only && still_open))
        && (!request.open_only || still_open)
}
