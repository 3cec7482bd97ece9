//! The what-if service: answers from the last run's snapshot, and replays of stored runs. Changes nothing.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::config::parse_valid;
use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_common::reason::Reason;
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Bytes;
use evenkeel_core::whatif::WhatifError;
use evenkeel_core::whatif::balance::balance;
use evenkeel_core::whatif::drain::drain;
use evenkeel_core::whatif::place::{NewGuest, place};
use evenkeel_core::whatif::replay::Replay;
use evenkeel_core::{Policy, Preset, Snapshot};
use evenkeel_proto::v1;
use evenkeel_proto::v1::whatif_server::Whatif;
use serde::Deserialize as _;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::control::ControlService;
use super::request::parse;
use super::views::whatif as views;
use super::watch::Watch;
use crate::cycle::ClusterHandle;
use crate::store::records::RunKey;
use crate::store::{Direction, KeyRange, OnDamage, Store, StoreError, trees};

/// Runs read at once: a run of a large cluster takes a megabyte or two.
const PAGE: usize = 16;
/// Runs that one replay takes: five weeks of one a minute.
const MOST_RUNS: u32 = 50_000;
/// Largest policy text, in bytes.
const MOST_POLICY: usize = 64 << 10;
/// Time without a run, in decision intervals, from which on the last one is too old to answer from.
const STALE_INTERVALS: u32 = 3;

type Answer<T> = Result<Response<T>, Status>;

/// Serves what-if questions. Clusters and store are those of the control service.
pub struct WhatifService {
    control: ControlService,
    /// One replay at a time: it keeps a core busy for as long as it lasts.
    replays: Arc<Semaphore>,
}

impl WhatifService {
    /// A service beside a control service.
    #[must_use]
    pub fn new(control: ControlService) -> Self {
        Self { control, replays: Arc::new(Semaphore::new(1)) }
    }

    /// The cluster named, or the only one whose last run knows the node.
    fn cluster_with(&self, cluster: &str, node: &NodeId) -> Result<String, Status> {
        let knows = |handle: &&Arc<ClusterHandle>| {
            let last = handle.lock().last_run.clone();
            last.is_some_and(|record| record.snapshot.nodes.iter().any(|state| state.id == *node))
        };
        let known: Vec<_> = self.control.clusters.values().filter(knows).collect();
        match known.as_slice() {
            _ if !cluster.is_empty() => Ok(cluster.to_owned()),
            [only] => Ok(only.id.to_string()),
            [] => self.control.handle(cluster).map(|only| only.id.to_string()),
            _ => Err(Status::invalid_argument(format!(
                "several clusters have a node {node}: name one with --cluster"
            ))),
        }
    }

    /// What the last run of a cluster saw. What is too old says so in the snapshot, so that no answer rests on it.
    fn last_snapshot(&self, cluster: &str) -> Result<(Snapshot, Policy), Status> {
        let handle = self.control.handle(cluster)?;
        let record = self.control.last_run(handle.id.as_str())?;
        let mut snapshot = record.snapshot.clone();
        let age = self.control.clock.now().since(snapshot.at);
        let limit = Duration::from_secs(handle.policy.decision_interval.into()) * STALE_INTERVALS;
        if age > limit {
            let (age_s, limit_s) = (age.as_secs(), limit.as_secs());
            snapshot.problems.push(Reason::PveInventoryStale { age_s, limit_s });
        }
        Ok((snapshot, handle.policy.clone()))
    }
}

#[tonic::async_trait]
impl Whatif for WhatifService {
    type ReplayPolicyStream = Watch<v1::ReplayPolicyProgress>;

    async fn balance(&self, request: Request<v1::BalanceRequest>) -> Answer<v1::BalanceResponse> {
        let v1::BalanceRequest { cluster, restarts } = request.into_inner();
        let (snapshot, policy) = self.last_snapshot(&cluster)?;
        let cluster = snapshot.cluster.clone();
        let plan = blocking(move || balance(&snapshot, &policy, restarts)).await?;
        Ok(Response::new(views::balance(&cluster, plan)))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Answer<v1::DrainResponse> {
        let request = request.into_inner();
        let node: NodeId = parse(&request.node)?;
        let cluster = self.cluster_with(&request.cluster, &node)?;
        let (snapshot, policy) = self.last_snapshot(&cluster)?;
        let plan = blocking(move || drain(&snapshot, &policy, &node)).await?.map_err(refused)?;
        Ok(Response::new(views::drain(&cluster, plan)))
    }

    async fn place(&self, request: Request<v1::PlaceRequest>) -> Answer<v1::PlaceResponse> {
        let request = request.into_inner();
        let (snapshot, policy) = self.last_snapshot(&request.cluster)?;
        let cluster = snapshot.cluster.clone();
        let assumed = request.cpu_load.is_none();
        let guest = NewGuest {
            vcpus: request.vcpus,
            memory: Bytes(request.memory_bytes),
            cpu_load: request.cpu_load,
            disk_storage: Some(request.disk_storage).filter(|storage| !storage.is_empty()),
            tags: request.tags,
        };
        let placement = blocking(move || place(&snapshot, &policy, &guest)).await?.map_err(refused)?;
        Ok(Response::new(views::place(&cluster, assumed, placement)))
    }

    async fn replay_policy(
        &self,
        request: Request<v1::ReplayPolicyRequest>,
    ) -> Answer<Self::ReplayPolicyStream> {
        let request = request.into_inner();
        let handle = self.control.handle(&request.cluster)?;
        let policy = policy(&handle, &request)?;
        let since_s = Timestamp::from_millis(request.since_ms).as_secs();
        let permit = Arc::clone(&self.replays).try_acquire_owned().map_err(|_| {
            Status::failed_precondition("another replay is under way; try again when it is done")
        })?;
        let (told, receiver) = mpsc::channel(4);
        let (store, stop) = (Arc::clone(&self.control.store), self.control.stop.clone());
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let work = Work { store: store.as_ref(), cluster: &handle.id, policy: &policy };
            // The client may be gone: then nobody reads the end, and the work is given up.
            let go_on = |progress| !stop.is_cancelled() && told.blocking_send(Ok(progress)).is_ok();
            if let Err(error) = work.replay(since_s, go_on) {
                let _ = told.blocking_send(Err(Status::internal(error.to_string())));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// The policy that is asked about.
fn policy(handle: &ClusterHandle, request: &v1::ReplayPolicyRequest) -> Result<Policy, Status> {
    let refuse = |text: String| Err(Status::invalid_argument(text));
    if request.policy_toml.len() > MOST_POLICY {
        return refuse(format!("the policy is longer than {MOST_POLICY} bytes"));
    }
    match (request.preset.as_str(), request.policy_toml.as_str()) {
        ("", "") => Ok(handle.policy.clone()),
        ("", text) => parse_valid(text, "the policy").or_else(|error| {
            refuse(format!(
                "{error}; its options are those of [clusters.policy] in aggregator.toml, without that line"
            ))
        }),
        (name, "") => match Preset::deserialize(serde_json::Value::from(name)) {
            Ok(preset) => Ok(Policy { preset, ..handle.policy.clone() }),
            Err(_) => refuse(format!("{name:?} is not a preset: expected off, basic, standard or full")),
        },
        _ => refuse("give a preset or a policy, not both".to_owned()),
    }
}

/// A replay of stored runs.
struct Work<'a> {
    store: &'a dyn Store,
    cluster: &'a ClusterId,
    policy: &'a Policy,
}

impl Work<'_> {
    /// Goes through the runs since then, a page at a time; `go_on` is told how far it is and may end it.
    fn replay(
        &self,
        since_s: i64,
        mut go_on: impl FnMut(v1::ReplayPolicyProgress) -> bool,
    ) -> Result<(), StoreError> {
        let mut replay = Replay::new(self.policy);
        let (mut from_s, mut runs, mut unreadable, mut at_ms) = (since_s, 0, 0, None);
        let mut truncated = false;
        loop {
            let (page, damaged) = self.page(from_s)?;
            unreadable += damaged;
            let Some((last_s, _)) = page.last() else { break };
            from_s = last_s.saturating_add(1);
            for (run_s, value) in page {
                // Of other versions too: what was seen is seen, whatever was made of it.
                match value.get("snapshot").map(Snapshot::deserialize) {
                    Some(Ok(snapshot)) => replay.step(&snapshot),
                    _ => unreadable += 1,
                }
                runs += 1;
                at_ms = Some(run_s.saturating_mul(1000));
            }
            truncated = runs >= MOST_RUNS;
            if truncated {
                break;
            }
            if !go_on(v1::ReplayPolicyProgress { runs, at_ms, result: None }) {
                return Ok(());
            }
        }
        let result = views::replay(self.cluster, self.policy, replay.finish());
        let result = Some(v1::ReplayPolicyResult { unreadable, truncated, ..result });
        go_on(v1::ReplayPolicyProgress { runs, at_ms, result });
        Ok(())
    }

    /// The next few runs from a time on, and how many of them are damaged.
    fn page(&self, from_s: i64) -> Result<(Vec<(i64, serde_json::Value)>, u32), StoreError> {
        let range = KeyRange::between(&(self.cluster.clone(), from_s), &(self.cluster.clone(), i64::MAX));
        let mut page = Vec::with_capacity(PAGE);
        let take = |key: RunKey, value| {
            page.push((key.run_s, value));
            if page.len() < PAGE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let damaged = trees::RUNS.scan(self.store, &range, Direction::Forward, OnDamage::Skip, take)?;
        Ok((page, u32::try_from(damaged).unwrap_or(u32::MAX)))
    }
}

fn refused(error: WhatifError) -> Status {
    match &error {
        WhatifError::UnknownNode { .. } => Status::not_found(error.to_string()),
        WhatifError::BadGuest { .. } => Status::invalid_argument(error.to_string()),
    }
}

/// Runs what takes a while where it holds nobody up.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Status::internal("the question broke off; see the aggregator's log"))
}
