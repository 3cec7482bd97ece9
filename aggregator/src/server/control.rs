//! The control service: questions are answered from live state and store; pause, resume and drills are the only changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use evenkeel_common::id::{ClusterId, DecisionId, NodeId};
use evenkeel_common::time::Timestamp;
use evenkeel_core::{RunRecord, replay};
use evenkeel_proto::v1;
use evenkeel_proto::v1::control_server::Control;
use evenkeel_runtime::clock::Clock;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::request::{name_of, optional, parse, vmid, who};
use super::stored;
use super::views::{ClusterView, anomalies, decisions, guests, nodes, status};
use super::watch::{Watch, follow};
use crate::cycle::{ClusterHandle, Pause};
use crate::execute::Intent;
use crate::fleet::Fleet;
use crate::history::History;
use crate::identity::audit::{Audit, Entry, Outcome};
use crate::identity::tokens::Principal;
use crate::ingest::{AnomalyNews, Counts, IngestConfig, Live, Steering};
use crate::store::records::RunKey;
use crate::store::{SCHEMA, Store, StoreError, trees};

/// What the control service needs.
#[derive(Clone)]
pub struct ControlService {
    /// What agents say.
    pub live: Arc<Live>,
    /// What is kept.
    pub store: Arc<dyn Store>,
    /// Counts of ingest.
    pub counts: Arc<Counts>,
    /// The clusters that are decided about.
    pub clusters: Arc<BTreeMap<ClusterId, Arc<ClusterHandle>>>,
    /// Anomalies as they open and close.
    pub news: broadcast::Sender<AnomalyNews>,
    /// Who did what.
    pub audit: Arc<Audit>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// When this process started.
    pub started: Timestamp,
    /// Limits of ingest, for what counts as fresh.
    pub ingest: IngestConfig,
    /// What agents are told to do.
    pub steering: Arc<Steering>,
    /// What fleet detection knows.
    pub fleet: Arc<Fleet>,
    /// What became of migrations.
    pub history: Arc<History>,
    /// Ends endless answers.
    pub stop: CancellationToken,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Control for ControlService {
    type WatchAnomaliesStream = Watch<v1::AnomalyView>;
    type WatchDecisionsStream = Watch<v1::Decision>;
    type ExportStream = Watch<v1::ExportChunk>;

    async fn get_status(&self, request: Request<v1::GetStatusRequest>) -> Answer<v1::GetStatusResponse> {
        let role = request.extensions().get::<Principal>().map(|p| p.role.to_string()).unwrap_or_default();
        let views = self.views("")?;
        let (gaps, bytes_on_disk) =
            self.off(|this| Ok((stored::gaps(this.store.as_ref())?, this.store.size_on_disk()?))).await?;
        let clusters: Vec<v1::ClusterStatus> = views
            .iter()
            .map(|view| status::cluster(view, gaps.get(&view.id).copied().unwrap_or_default()))
            .collect();
        let mut warnings =
            warnings(&clusters, self.counts.damaged.load(Ordering::Relaxed), self.fleet.warnings());
        warnings.extend(self.clusters.values().flat_map(|handle| status::others(handle)));
        Ok(Response::new(v1::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            started_ms: self.started.as_millis(),
            now_ms: self.clock.now().as_millis(),
            role,
            warnings,
            clusters,
            store: Some(v1::StoreStatus {
                backend: "sled".into(),
                bytes_on_disk,
                samples: self.counts.samples.load(Ordering::Relaxed),
                events: self.counts.events.load(Ordering::Relaxed),
                duplicates: self.counts.duplicates.load(Ordering::Relaxed),
                schema: SCHEMA,
            }),
        }))
    }

    async fn list_nodes(&self, request: Request<v1::ListNodesRequest>) -> Answer<v1::ListNodesResponse> {
        let request = request.into_inner();
        let only = optional::<NodeId>(&request.node)?;
        let nodes: Vec<v1::Node> =
            self.views(&request.cluster)?.iter().flat_map(|view| nodes::list(view, only.as_ref())).collect();
        if nodes.is_empty() && only.is_some() {
            return Err(Status::not_found(format!("no node {:?}: see `evenkeelctl nodes`", request.node)));
        }
        Ok(Response::new(v1::ListNodesResponse { nodes }))
    }

    async fn list_guests(&self, request: Request<v1::ListGuestsRequest>) -> Answer<v1::ListGuestsResponse> {
        let request = request.into_inner();
        let (only, on) = (vmid(request.vmid)?, optional::<NodeId>(&request.node)?);
        let views = self.views(&request.cluster)?;
        let guests: Vec<_> = views.iter().flat_map(|view| guests::list(view, only, on.as_ref())).collect();
        if guests.is_empty() && only.is_some() {
            return Err(Status::not_found(format!("no guest {}: see `evenkeelctl guests`", request.vmid)));
        }
        Ok(Response::new(v1::ListGuestsResponse { guests }))
    }

    async fn list_profiles(
        &self,
        request: Request<v1::ListProfilesRequest>,
    ) -> Answer<v1::ListProfilesResponse> {
        let request = request.into_inner();
        let only = vmid(request.vmid)?;
        let mut profiles = Vec::new();
        for view in self.views(&request.cluster)? {
            let cluster = view.id.clone();
            let stored = self.off(move |this| stored::profiles(this.store.as_ref(), &cluster)).await?;
            profiles.extend(guests::profiles(&view, stored, only));
        }
        Ok(Response::new(v1::ListProfilesResponse { profiles }))
    }

    async fn list_anomalies(
        &self,
        request: Request<v1::ListAnomaliesRequest>,
    ) -> Answer<v1::ListAnomaliesResponse> {
        let request = request.into_inner();
        let clusters = self.cluster_ids(&request.cluster)?;
        self.off(move |this| stored::anomalies(this.store.as_ref(), &clusters, &request))
            .await
            .map(Response::new)
    }

    async fn watch_anomalies(
        &self,
        request: Request<v1::ListAnomaliesRequest>,
    ) -> Answer<Self::WatchAnomaliesStream> {
        let request = request.into_inner();
        self.cluster_ids(&request.cluster)?;
        let news = self.news.subscribe();
        Ok(Response::new(follow(news, self.stop.clone(), move |AnomalyNews { cluster, record }| {
            let wanted = anomalies::wanted(&request, Timestamp::from_millis(i64::MIN), &cluster, &record);
            wanted.then(|| anomalies::view(&cluster, &record)).into_iter().collect()
        })))
    }

    async fn list_decisions(
        &self,
        request: Request<v1::ListDecisionsRequest>,
    ) -> Answer<v1::ListDecisionsResponse> {
        let request = request.into_inner();
        let clusters = self.cluster_ids(&request.cluster)?;
        let intents = self.intents();
        self.off(move |this| stored::decisions(this.store.as_ref(), &clusters, &request, &intents))
            .await
            .map(Response::new)
    }

    async fn watch_decisions(
        &self,
        request: Request<v1::ListDecisionsRequest>,
    ) -> Answer<Self::WatchDecisionsStream> {
        let request = request.into_inner();
        self.cluster_ids(&request.cluster)?;
        let (merged, receiver) = broadcast::channel::<Arc<RunRecord>>(64);
        for handle in self.clusters.values() {
            let (mut runs, merged, stop) = (handle.runs(), merged.clone(), self.stop.clone());
            tokio::spawn(async move {
                // Ends with the aggregator, or at the first run after the client has left.
                while let Some(Ok(run)) = stop.run_until_cancelled(runs.recv()).await {
                    if merged.send(run).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Response::new(follow(receiver, self.stop.clone(), move |record| {
            let decisions = record.run.decisions.iter().filter(|d| decisions::wanted(&request, d));
            decisions.map(decisions::view).collect()
        })))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Answer<v1::ExplainResponse> {
        self.explained(request.into_inner()).await.map(Response::new)
    }

    async fn replay(&self, request: Request<v1::ReplayRequest>) -> Answer<v1::ReplayResponse> {
        let request = request.into_inner();
        let record = if request.decision.is_empty() {
            Arc::unwrap_or_clone(self.last_run(&request.cluster)?)
        } else {
            self.record_of(&parse(&request.decision)?).await?
        };
        let replayed = replay(&record).map_err(|error| Status::failed_precondition(error.to_string()))?;
        Ok(Response::new(v1::ReplayResponse {
            identical: replayed.differences.is_empty(),
            run: format!("{}-{}", record.run.cluster, record.run.at.as_secs()),
            decisions: u32::try_from(record.run.decisions.len()).unwrap_or(u32::MAX),
            stored_digest: replayed.stored_digest,
            replayed_digest: replayed.replayed_digest,
            differences: replayed.differences.iter().map(ToString::to_string).collect(),
            written_by: format!("record version {}", record.version),
        }))
    }

    async fn pause(&self, request: Request<v1::PauseRequest>) -> Answer<v1::PauseResponse> {
        let who = who(&request);
        let v1::PauseRequest { cluster, why } = request.into_inner();
        if why.chars().count() > 500 {
            return Err(Status::invalid_argument("the reason is longer than 500 characters"));
        }
        let pause = Pause { by: name_of(who.as_ref()), why: why.clone(), at: self.clock.now() };
        let change = move |handle: &ClusterHandle, store: &dyn Store| handle.pause(pause.clone(), store);
        let clusters = self.change(&cluster, "/evenkeel.v1.Control/Pause", why, who, change).await?;
        Ok(Response::new(v1::PauseResponse { clusters }))
    }

    async fn resume(&self, request: Request<v1::ResumeRequest>) -> Answer<v1::ResumeResponse> {
        let who = who(&request);
        let cluster = request.into_inner().cluster;
        let clusters = self
            .change(&cluster, "/evenkeel.v1.Control/Resume", String::new(), who, ClusterHandle::resume)
            .await?;
        Ok(Response::new(v1::ResumeResponse { clusters }))
    }

    async fn export(&self, request: Request<v1::ExportRequest>) -> Answer<Self::ExportStream> {
        self.record(who(&request), "/evenkeel.v1.Control/Export", "started".into(), Outcome::Done).await?;
        Ok(Response::new(super::export::stream(Arc::clone(&self.store))))
    }

    async fn simulate(&self, request: Request<v1::SimulateRequest>) -> Answer<v1::SimulateResponse> {
        self.order_drill(request).await.map(Response::new)
    }

    async fn clear_drills(
        &self,
        request: Request<v1::ClearDrillsRequest>,
    ) -> Answer<v1::ClearDrillsResponse> {
        self.end_drills(request).await.map(Response::new)
    }

    async fn list_drills(&self, request: Request<v1::ListDrillsRequest>) -> Answer<v1::ListDrillsResponse> {
        self.told_drills(&request.into_inner()).map(Response::new)
    }
}

impl ControlService {
    /// All migrations that are remembered, of all clusters.
    pub(super) fn intents(&self) -> Vec<Intent> {
        self.clusters.values().flat_map(|handle| handle.book.all()).collect()
    }

    /// Runs what blocks on the store where it may block.
    pub(super) async fn off<T: Send + 'static>(
        &self,
        work: impl FnOnce(Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Status> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || work(this)).await;
        done.map_err(|_| Status::internal("the question broke off; see the aggregator's log"))?
            .map_err(|error| Status::internal(error.to_string()))
    }

    pub(super) fn cluster_ids(&self, only: &str) -> Result<Vec<ClusterId>, Status> {
        let known: BTreeSet<ClusterId> = self.clusters.keys().cloned().chain(self.live.clusters()).collect();
        if only.is_empty() {
            return Ok(known.into_iter().collect());
        }
        let found = known.iter().find(|id| id.as_str() == only).cloned();
        found.map(|id| vec![id]).ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(ClusterId::as_str).collect();
            Status::not_found(format!("no cluster {only:?}; known: {}", names.join(", ")))
        })
    }

    fn views(&self, only: &str) -> Result<Vec<ClusterView>, Status> {
        let ids = self.cluster_ids(only)?;
        Ok(ids
            .into_iter()
            .map(|id| ClusterView {
                handle: self.clusters.get(&id).cloned(),
                agents: self.live.cluster(&id),
                id,
                now: self.clock.now(),
                uptime: self.clock.uptime(),
                stale_after: self.ingest.stale_after(),
                max_skew_ms: self.ingest.max_skew_ms.into(),
            })
            .collect())
    }

    /// The cluster named, or the only one there is.
    pub(super) fn handle(&self, cluster: &str) -> Result<Arc<ClusterHandle>, Status> {
        let mut candidates =
            self.clusters.values().filter(|h| cluster.is_empty() || h.id.as_str() == cluster);
        let handle = candidates.next().ok_or_else(|| {
            Status::not_found(format!(
                "no decisions are made for a cluster {cluster:?}: see `evenkeelctl status`"
            ))
        })?;
        if candidates.next().is_some() {
            return Err(Status::invalid_argument("there are several clusters: name one with --cluster"));
        }
        Ok(Arc::clone(handle))
    }

    /// The last run of that cluster.
    pub(super) fn last_run(&self, cluster: &str) -> Result<Arc<RunRecord>, Status> {
        let handle = self.handle(cluster)?;
        let last = handle.lock().last_run.clone();
        last.ok_or_else(|| {
            let every = handle.policy.decision_interval;
            Status::unavailable(format!("cluster {} has no run yet: there is one every {every} s", handle.id))
        })
    }

    pub(super) async fn record_of(&self, id: &DecisionId) -> Result<RunRecord, Status> {
        let key = RunKey { cluster: id.cluster.clone(), run_s: id.run_s };
        let value = self.off(move |this| trees::RUNS.get(this.store.as_ref(), &key)).await?;
        let value = value.ok_or_else(|| no_decision(id))?;
        serde_json::from_value(value).map_err(|error| {
            Status::failed_precondition(format!("the run of {id} was stored by another version: {error}"))
        })
    }

    /// Changes one or all clusters, and writes down who did.
    pub(super) async fn change(
        &self,
        only: &str,
        call: &'static str,
        why: String,
        who: Option<Principal>,
        change: impl Fn(&ClusterHandle, &dyn Store) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<Vec<String>, Status> {
        let handles: Vec<_> =
            self.clusters.values().filter(|h| only.is_empty() || h.id.as_str() == only).cloned().collect();
        if handles.is_empty() {
            return Err(Status::not_found(format!(
                "no configured cluster {only:?}: see `evenkeelctl status`"
            )));
        }
        let names: Vec<String> = handles.iter().map(|handle| handle.id.to_string()).collect();
        let outcome =
            self.off(move |this| handles.iter().try_for_each(|h| change(h, this.store.as_ref()))).await;
        let result = if outcome.is_ok() { Outcome::Done } else { Outcome::Failed };
        self.record(who, call, format!("{} {why}", names.join(",")), result).await?;
        outcome.map(|()| names)
    }

    pub(super) async fn record(
        &self,
        who: Option<Principal>,
        call: &'static str,
        detail: String,
        outcome: Outcome,
    ) -> Result<(), Status> {
        let audit = Arc::clone(&self.audit);
        let role = who.as_ref().map(|p| p.role);
        let (at, who) = (self.clock.now(), name_of(who.as_ref()));
        let entry = Entry { at, who, role, call: call.into(), detail, outcome };
        let written = tokio::task::spawn_blocking(move || audit.record(entry)).await;
        written
            .map_err(|_| Status::internal("writing the audit log broke off"))?
            .map_err(|error| Status::internal(error.to_string()))
    }
}

fn warnings(clusters: &[v1::ClusterStatus], damaged: u64, fleet: Vec<String>) -> Vec<String> {
    let mut warnings = Vec::new();
    if damaged > 0 {
        warnings.push(format!(
            "the store has {damaged} damaged or missing row(s), see the log: check the disk, and restore the latest export"
        ));
    }
    for cluster in clusters {
        let name = &cluster.cluster;
        if cluster.inventory == "unreachable" {
            warnings.push(format!("cluster {name}: {}", cluster.inventory_detail));
        }
        if cluster.nodes_fresh < cluster.nodes {
            let silent = cluster.nodes - cluster.nodes_fresh;
            warnings.push(format!(
                "cluster {name}: {silent} node(s) without fresh data; see `evenkeelctl nodes`"
            ));
        }
        if cluster.paused {
            warnings.push(format!(
                "cluster {name} is paused by {}; `evenkeelctl resume` ends it",
                cluster.paused_by
            ));
        }
    }
    warnings.extend(fleet);
    warnings
}

pub(super) fn no_decision(id: &DecisionId) -> Status {
    Status::not_found(format!("no decision {id} is kept: see `evenkeelctl decisions --since 7d`"))
}
