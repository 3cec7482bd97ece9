//! Health and forecasts.

use evenkeel_common::units::Score;
use evenkeel_proto::v1;

use super::anomalies::unit;
use crate::fleet::HealthNow;
use crate::fleet::forecasts::Found;
use crate::store::records::NodeKey;

/// Health of a node or guest, without its history.
#[must_use]
pub fn score(now: &HealthNow) -> v1::HealthScore {
    let part = |part: &evenkeel_core::score::health::Contribution| v1::HealthPart {
        points: part.points,
        code: part.cause.code().into(),
        text: part.cause.to_string(),
    };
    v1::HealthScore {
        cluster: now.node.cluster.to_string(),
        node: now.node.node.to_string(),
        vmid: now.guest.as_ref().map(|(vmid, _)| vmid.get()),
        name: now.guest.as_ref().map(|(_, name)| name.clone()).unwrap_or_default(),
        score: now.health.score.map(Score::get),
        status: now.health.status.name().into(),
        parts: now.health.parts.iter().map(part).collect(),
        history: Vec::new(),
    }
}

/// A forecast. `warn_hours`: nearer than this it is a warning.
#[must_use]
pub fn forecast(node: &NodeKey, found: &Found, warn_hours: f64) -> v1::ForecastView {
    let forecast = &found.forecast;
    v1::ForecastView {
        cluster: node.cluster.to_string(),
        node: node.node.to_string(),
        metric: found.series.metric.to_string(),
        instance: found.series.instance.clone(),
        unit: unit(found.series.metric.unit()).into(),
        now: forecast.now,
        limit: found.limit,
        per_hour: forecast.per_hour,
        hours: forecast.hours,
        hours_earliest: forecast.earliest,
        hours_latest: forecast.latest,
        points: super::count(forecast.points),
        span_hours: forecast.span_h,
        warning: forecast.hours <= warn_hours,
    }
}
