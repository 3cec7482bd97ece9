//! The fleet service of the tests' aggregator, with canned answers that are awkward to show.

use evenkeel_proto::v1::fleet_server::Fleet;
use evenkeel_proto::v1::*;
use tonic::{Request, Response, Status, Streaming};

use super::canned::{HOSTILE, NOW_MS};
use super::{Stream, answer, operator};

const HOUR_MS: i64 = 3_600_000;

/// Answers about health, forecasts, detectors and models.
pub struct FakeFleet;

fn scores(history: bool) -> Vec<HealthScore> {
    let part =
        |points: f64, code: &str, text: &str| HealthPart { points, code: code.into(), text: text.into() };
    let score = |node: &str, score: Option<f64>, status: &str, parts: Vec<HealthPart>| HealthScore {
        cluster: "lab".into(),
        node: node.into(),
        score,
        status: status.into(),
        parts,
        ..HealthScore::default()
    };
    let point = |hours: i64, score: Option<f64>| ScorePoint {
        at_ms: NOW_MS - hours * HOUR_MS,
        score,
        status: if score.is_some() { "healthy" } else { "unknown" }.into(),
    };
    let ill = vec![
        part(-20.0, "anomaly", "critical anomaly cpu_used"),
        part(-9.5, "pressure", "pressure 39 % over its threshold of 20 %"),
    ];
    let guest = HealthScore {
        vmid: Some(105),
        name: HOSTILE.into(),
        ..score("pve3", Some(88.0), "degraded", vec![part(-12.0, "memory", "memory 92 %")])
    };
    let course = if history {
        vec![point(6, Some(100.0)), point(4, None), point(2, Some(98.0)), point(0, Some(70.5))]
    } else {
        Vec::new()
    };
    vec![
        score("pve1", Some(100.0), "healthy", vec![]),
        HealthScore { history: course, ..score("pve3", Some(70.5), "degraded", ill) },
        score("pve4", None, "unknown", vec![]),
        guest,
        HealthScore {
            vmid: Some(104),
            name: "web-104".into(),
            ..score("pve1", Some(100.0), "healthy", vec![])
        },
    ]
}

fn forecasts() -> Vec<ForecastView> {
    let near = ForecastView {
        cluster: "lab".into(),
        node: "pve1".into(),
        metric: "fs_used".into(),
        instance: "/var/lib/vz".into(),
        unit: "percent".into(),
        now: 91.2,
        limit: 100.0,
        per_hour: 0.55,
        hours: 16.0,
        hours_earliest: 13.1,
        hours_latest: Some(22.4),
        points: 288,
        span_hours: 24.0,
        warning: true,
    };
    let far = ForecastView {
        node: "pve3".into(),
        metric: "mem_used".into(),
        instance: String::new(),
        now: 61.0,
        limit: 80.0,
        per_hour: 0.04,
        hours: 475.0,
        hours_earliest: 300.0,
        hours_latest: None,
        warning: false,
        ..near.clone()
    };
    vec![near, far]
}

fn models() -> Vec<ModelView> {
    let active = ModelView {
        id: "lab-m3".into(),
        cluster: "lab".into(),
        node: "pve1".into(),
        trained_ms: NOW_MS - 48 * HOUR_MS,
        from_ms: NOW_MS - 32 * 24 * HOUR_MS,
        to_ms: NOW_MS - 48 * HOUR_MS,
        rows: 8_412,
        left_out: 36,
        source: "monthly".into(),
        by: "evenkeel".into(),
        state: "active".into(),
        bytes: 412_000,
        ..ModelView::default()
    };
    let damaged = ModelView {
        id: "lab-m2".into(),
        node: String::new(),
        source: "csv".into(),
        by: "token alice".into(),
        state: "damaged".into(),
        problem: "the file of the isolation_forest is damaged: its checksum is wrong".into(),
        ..active.clone()
    };
    vec![active, damaged]
}

#[tonic::async_trait]
impl Fleet for FakeFleet {
    type TrainModelStream = Stream<TrainProgress>;

    async fn list_scores(
        &self,
        r: Request<ListScoresRequest>,
    ) -> Result<Response<ListScoresResponse>, Status> {
        let q = r.get_ref();
        let mut scores = scores(q.history_ms.is_some());
        scores.retain(|s| (q.node.is_empty() || s.node == q.node) && (q.vmid == 0 || s.vmid == Some(q.vmid)));
        answer(&r, ListScoresResponse { scores, truncated: false })
    }

    async fn list_forecasts(
        &self,
        r: Request<ListForecastsRequest>,
    ) -> Result<Response<ListForecastsResponse>, Status> {
        let mut forecasts = forecasts();
        forecasts.retain(|f| r.get_ref().node.is_empty() || f.node == r.get_ref().node);
        answer(&r, ListForecastsResponse { forecasts, warn_hours: 24.0 })
    }

    async fn list_detectors(
        &self,
        r: Request<ListDetectorsRequest>,
    ) -> Result<Response<ListDetectorsResponse>, Status> {
        let counted = |detector: &str, anomalies, good, bad, share: Option<[f64; 3]>| DetectorRecord {
            detector: detector.into(),
            anomalies,
            good,
            bad,
            false_alarm_share: share.map(|s| s[0]),
            share_low: share.map(|s| s[1]),
            share_high: share.map(|s| s[2]),
        };
        let detectors = vec![
            counted("z_score", 12, 8, 2, Some([0.2, 0.0567, 0.5098])),
            counted("peers", 3, 0, 1, Some([1.0, 0.2065, 1.0])),
            counted("isolation_forest", 0, 0, 0, None),
        ];
        answer(&r, ListDetectorsResponse { detectors, truncated: true })
    }

    async fn give_feedback(
        &self,
        r: Request<GiveFeedbackRequest>,
    ) -> Result<Response<GiveFeedbackResponse>, Status> {
        operator(&r)?;
        let GiveFeedbackRequest { anomaly, good, note } = r.get_ref().clone();
        if anomaly != "lab/pve3/65766565-1" {
            return Err(Status::not_found(format!(
                "there is no anomaly {anomaly}; its id is the last column of `evenkeelctl anomalies`"
            )));
        }
        let verdict = if good { "good" } else { "bad" }.into();
        answer(&r, GiveFeedbackResponse { anomaly, verdict, note })
    }

    async fn train_model(
        &self,
        r: Request<Streaming<TrainModelRequest>>,
    ) -> Result<Response<Self::TrainModelStream>, Status> {
        operator(&r)?;
        let step = TrainProgress { stage: "training".into(), share: 0.5, rows: 8_412, model: None };
        let done = TrainProgress {
            stage: "done".into(),
            share: 1.0,
            rows: 8_412,
            model: models().into_iter().next(),
        };
        answer(&r, Box::pin(tokio_stream::iter([Ok(step), Ok(done)])) as Self::TrainModelStream)
    }

    async fn list_models(
        &self,
        r: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        let mut models = models();
        if let Some(first) = models.first_mut().filter(|_| r.get_ref().drift) {
            let drift = |metric: &str, drift: f64| MetricDrift {
                metric: metric.into(),
                drift,
                drifted: drift > 0.25,
            };
            first.drift = vec![drift("bandwidth", 0.04), drift("cpu_usage", 0.61)];
        }
        answer(&r, ListModelsResponse { models })
    }

    async fn activate_model(
        &self,
        r: Request<ActivateModelRequest>,
    ) -> Result<Response<ActivateModelResponse>, Status> {
        operator(&r)?;
        let q = r.get_ref();
        let wanted = if q.rollback { "lab-m3" } else { q.id.as_str() };
        let found = models().into_iter().find(|model| model.id == wanted);
        let active = found.ok_or_else(|| {
            Status::not_found(format!("there is no model {wanted}: see `evenkeelctl model list`"))
        })?;
        answer(&r, ActivateModelResponse { active: Some(active), before: "lab-m2".into() })
    }
}
