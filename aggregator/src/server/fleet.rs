//! The fleet service: health, forecasts, what people think of anomalies, and models.

use std::ops::ControlFlow;
use std::time::Duration;

use evenkeel_common::id::NodeId;
use evenkeel_common::time::Timestamp;
use evenkeel_proto::v1;
use evenkeel_proto::v1::fleet_server::Fleet as Service;
use tonic::{Request, Response, Status};

use super::control::ControlService;
use super::judged::{self, ShownId};
use super::request::{name_of, optional, vmid, who};
use super::views::fleet as views;
use super::watch::Watch;
use crate::identity::audit::Outcome;
use crate::store::records::{FeedbackRecord, ScoreKey};
use crate::store::{Direction, KeyRange, OnDamage, Store, StoreError, trees};

/// Subjects in one answer.
const MOST_SCORES: usize = 10_000;
/// Subjects whose history is read for one answer.
const MOST_HISTORIES: usize = 500;
/// Points of one history; older ones are left out.
const MOST_POINTS: usize = 2_000;
/// Longest note, in characters.
const MAX_NOTE: usize = 500;

type Answer<T> = Result<Response<T>, Status>;

/// Serves what fleet detection knows. Clusters, store and audit log are those of the control service.
pub struct FleetService {
    control: ControlService,
}

impl FleetService {
    /// A service beside a control service.
    #[must_use]
    pub fn new(control: ControlService) -> Self {
        Self { control }
    }
}

#[tonic::async_trait]
impl Service for FleetService {
    type TrainModelStream = Watch<v1::TrainProgress>;

    async fn list_scores(&self, request: Request<v1::ListScoresRequest>) -> Answer<v1::ListScoresResponse> {
        let request = request.into_inner();
        let (node, guest) = (optional::<NodeId>(&request.node)?, vmid(request.vmid)?);
        let mut scores = Vec::new();
        for cluster in self.control.cluster_ids(&request.cluster)? {
            let all = self.control.fleet.health(&cluster).into_iter();
            let wanted = all.filter(|now| {
                node.as_ref().is_none_or(|node| now.node.node == *node)
                    && guest.is_none_or(|vmid| now.guest.as_ref().is_some_and(|(own, _)| *own == vmid))
            });
            scores.extend(wanted.map(|now| views::score(&now)));
        }
        if scores.is_empty() && (node.is_some() || guest.is_some()) {
            return Err(Status::not_found(
                "no such node or guest is being looked at: see `evenkeelctl scores`",
            ));
        }
        let mut truncated = scores.len() > MOST_SCORES;
        scores.truncate(MOST_SCORES);
        if let Some(back) = request.history_ms {
            truncated |= scores.len() > MOST_HISTORIES;
            let back = Duration::from_millis(u64::try_from(back).unwrap_or_default());
            let since = self.control.clock.now().before(back);
            scores = self.control.off(move |this| with_history(this.store.as_ref(), scores, since)).await?;
        }
        Ok(Response::new(v1::ListScoresResponse { scores, truncated }))
    }

    async fn list_forecasts(
        &self,
        request: Request<v1::ListForecastsRequest>,
    ) -> Answer<v1::ListForecastsResponse> {
        let request = request.into_inner();
        let node = optional::<NodeId>(&request.node)?;
        let warn_hours = f64::from(self.control.fleet.config().forecast_warn_hours);
        let mut forecasts = Vec::new();
        for cluster in self.control.cluster_ids(&request.cluster)? {
            let found = self.control.fleet.forecasts(&cluster);
            let wanted = found.iter().filter(|(of, _)| node.as_ref().is_none_or(|node| of.node == *node));
            forecasts.extend(wanted.map(|(of, found)| views::forecast(of, found, warn_hours)));
        }
        forecasts.sort_by(|a, b| a.hours.total_cmp(&b.hours));
        Ok(Response::new(v1::ListForecastsResponse { forecasts, warn_hours }))
    }

    async fn list_detectors(
        &self,
        request: Request<v1::ListDetectorsRequest>,
    ) -> Answer<v1::ListDetectorsResponse> {
        let request = request.into_inner();
        let clusters = self.control.cluster_ids(&request.cluster)?;
        let since = Timestamp::from_millis(request.since_ms.unwrap_or(i64::MIN));
        let counted = self.control.off(move |this| judged::detectors(this.store.as_ref(), &clusters, since));
        counted.await.map(Response::new)
    }

    async fn give_feedback(
        &self,
        request: Request<v1::GiveFeedbackRequest>,
    ) -> Answer<v1::GiveFeedbackResponse> {
        let who = who(&request);
        let v1::GiveFeedbackRequest { anomaly, good, note } = request.into_inner();
        if note.chars().count() > MAX_NOTE {
            return Err(Status::invalid_argument(format!("the note is longer than {MAX_NOTE} characters")));
        }
        let id = ShownId::parse(&anomaly).ok_or_else(|| {
            Status::invalid_argument(
                "this is no id of an anomaly; expected CLUSTER/NODE/EPOCH-NUMBER as in `evenkeelctl anomalies`",
            )
        })?;
        let found = self.control.off(move |this| judged::find(this.store.as_ref(), &id)).await?;
        let (key, _) = found.ok_or_else(|| {
            Status::not_found(format!("no anomaly {anomaly} is kept: see `evenkeelctl anomalies --since 7d`"))
        })?;
        let said = FeedbackRecord {
            good,
            note: note.clone(),
            by: name_of(who.as_ref()),
            at: self.control.clock.now(),
        };
        let kept = self.control.off(move |this| judged::keep(this.store.as_ref(), &key, &said)).await;
        let verdict = judged::verdict(good);
        let outcome = if kept.is_ok() { Outcome::Done } else { Outcome::Failed };
        let detail = format!("{anomaly} {verdict} {note}");
        self.control.record(who, "/evenkeel.v1.Fleet/GiveFeedback", detail, outcome).await?;
        kept?;
        self.control.off(|this| this.fleet.adapt()).await?;
        Ok(Response::new(v1::GiveFeedbackResponse { anomaly, verdict: verdict.into(), note }))
    }

    async fn train_model(
        &self,
        request: Request<tonic::Streaming<v1::TrainModelRequest>>,
    ) -> Answer<Self::TrainModelStream> {
        super::models::train(&self.control, request).await
    }

    async fn list_models(&self, request: Request<v1::ListModelsRequest>) -> Answer<v1::ListModelsResponse> {
        let request = request.into_inner();
        let clusters = self.control.cluster_ids(&request.cluster)?;
        let models = self.control.off(move |this| super::models::list(&this.fleet, &clusters, request.drift));
        Ok(Response::new(v1::ListModelsResponse { models: models.await? }))
    }

    async fn activate_model(
        &self,
        request: Request<v1::ActivateModelRequest>,
    ) -> Answer<v1::ActivateModelResponse> {
        super::models::activate(&self.control, request).await
    }
}

/// Adds the course of the score to each subject, as far as the bounds allow.
fn with_history(
    store: &dyn Store,
    mut scores: Vec<v1::HealthScore>,
    since: Timestamp,
) -> Result<Vec<v1::HealthScore>, StoreError> {
    for score in scores.iter_mut().take(MOST_HISTORIES) {
        let subject =
            score.vmid.map_or_else(|| format!("node/{}", score.node), |vmid| format!("guest/{vmid}"));
        let Ok(cluster) = score.cluster.parse::<evenkeel_common::id::ClusterId>() else { continue };
        let end = (cluster.clone(), subject.clone(), Timestamp::from_millis(i64::MAX));
        let range = KeyRange::between(&(cluster, subject, since), &end);
        let points = &mut score.history;
        trees::SCORES.scan(store, &range, Direction::Backward, OnDamage::Skip, |key: ScoreKey, row| {
            points.push(v1::ScorePoint { at_ms: key.at.as_millis(), score: row.score, status: row.status });
            if points.len() < MOST_POINTS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        points.reverse();
    }
    Ok(scores)
}
