//! The execution service: operators' words on migrations, and what became of these.

use std::ops::ControlFlow;
use std::sync::Arc;

use evenkeel_common::id::{DecisionId, NodeId};
use evenkeel_core::Mode;
use evenkeel_core::preflight::Purpose;
use evenkeel_core::whatif::drain::drain;
use evenkeel_proto::v1;
use evenkeel_proto::v1::execution_server::Execution;
use tonic::{Request, Response, Status};

use super::control::ControlService;
use super::request::{name_of, optional, parse, vmid, who};
use super::views::moves::view;
use crate::cycle::{ClusterHandle, Rearmed};
use crate::execute::Intent;
use crate::execute::approval::ApprovalError;
use crate::execute::holds::holds;
use crate::identity::audit::Outcome;
use crate::store::records::DecisionKey;
use crate::store::{Direction, KeyRange, OnDamage, Store, StoreError, trees};

/// Migrations of an answer unless the client asks for fewer.
const LIMIT: usize = 1_000;
/// Longest reason an operator may give, in characters.
const LONGEST_WHY: usize = 500;
/// Number of the first move of an evacuation, beyond those that decisions of a run have.
const FIRST_NUMBER: u32 = 100_001;

type Answer<T> = Result<Response<T>, Status>;

/// Serves the execution service. Clusters and store are those of the control service.
pub struct ExecutionService {
    control: ControlService,
}

impl ExecutionService {
    /// A service beside a control service.
    #[must_use]
    pub fn new(control: ControlService) -> Self {
        Self { control }
    }

    /// The cluster of a decision.
    fn handle_of(&self, id: &DecisionId) -> Result<Arc<ClusterHandle>, Status> {
        self.control.handle(id.cluster.as_str())
    }

    /// The migration that a decision means: its own, or that of the same move wanted by an earlier run.
    async fn meant(&self, handle: &ClusterHandle, id: DecisionId) -> Result<DecisionId, Status> {
        if handle.book.get(&id).is_some() {
            return Ok(id);
        }
        let (cluster, run_s, number) = (id.cluster.clone(), id.run_s, id.number);
        let key = DecisionKey { cluster, run_s, number };
        let decision = self.control.off(move |this| trees::DECISIONS.get(this.store.as_ref(), &key)).await?;
        let intents = handle.book.all();
        let same = |decision| intents.iter().rev().find(|intent| intent.answers(&decision));
        Ok(decision.and_then(same).map_or(id, |intent| intent.id.clone()))
    }

    /// Writes down what an operator said, whatever came of it.
    async fn told<T>(
        &self,
        who: Option<crate::identity::tokens::Principal>,
        call: &'static str,
        detail: String,
        said: Result<T, Status>,
    ) -> Result<T, Status> {
        let outcome = if said.is_ok() { Outcome::Done } else { Outcome::Failed };
        self.control.record(who, call, detail, outcome).await?;
        said
    }

    /// Makes a proposal of each move that empties a node.
    async fn propose(&self, handle: &Arc<ClusterHandle>, node: &NodeId) -> Result<Vec<Intent>, Status> {
        let record = self.control.last_run(handle.id.as_str())?;
        let now = self.control.clock.now();
        let (snapshot, policy) = (record.snapshot.clone(), handle.policy.clone());
        let (from, of) = (node.clone(), record.snapshot.at);
        let plan = tokio::task::spawn_blocking(move || drain(&snapshot, &policy, &from)).await;
        let plan = plan.map_err(|_| Status::internal("the plan broke off; see the aggregator's log"))?;
        let plan = plan.map_err(|error| Status::not_found(error.to_string()))?;
        if let Some(problem) = plan.problems.first() {
            return Err(Status::failed_precondition(format!("no plan for {node}: {problem}")));
        }
        let mut proposed = Vec::new();
        for (outgoing, number) in plan.moves.iter().zip(FIRST_NUMBER..) {
            let wanted = &outgoing.recommendation;
            let guest = record.snapshot.guests.iter().find(|guest| guest.vmid == wanted.guest);
            let Some(guest) = guest else { continue };
            let free = handle.book.make_room(guest.vmid, &wanted.target, now).await;
            if !free.map_err(|error| Status::internal(error.to_string()))? {
                continue;
            }
            let id = DecisionId { cluster: handle.id.clone(), run_s: now.as_secs(), number };
            let detail = format!("{node} is to be emptied; planned on the data of {of}");
            let intent = Intent::new(id, wanted, guest.kind, Purpose::Evacuation, now, &detail)
                .at_pace(record.snapshot.experience.pace());
            handle.book.add(intent.clone()).await.map_err(|error| Status::internal(error.to_string()))?;
            proposed.push(intent);
        }
        Ok(proposed)
    }
}

#[tonic::async_trait]
impl Execution for ExecutionService {
    async fn approve(&self, request: Request<v1::ApproveRequest>) -> Answer<v1::ApproveResponse> {
        let who = who(&request);
        let asked: DecisionId = parse(&request.into_inner().decision)?;
        let handle = self.handle_of(&asked)?;
        let id = self.meant(&handle, asked.clone()).await?;
        let (by, now, patience) =
            (name_of(who.as_ref()), self.control.clock.now(), handle.execute.patience());
        let said = match handle.policy.mode {
            Mode::Advise => Err(advises(&handle)),
            Mode::Approve | Mode::Auto => handle.book.approve(&id, &by, now, patience).await.map_err(refused),
        };
        let intent = self.told(who, "/evenkeel.v1.Execution/Approve", asked.to_string(), said).await?;
        Ok(Response::new(v1::ApproveResponse { r#move: Some(view(&intent)) }))
    }

    async fn reject(&self, request: Request<v1::RejectRequest>) -> Answer<v1::RejectResponse> {
        let who = who(&request);
        let v1::RejectRequest { decision, why } = request.into_inner();
        let asked: DecisionId = parse(&decision)?;
        bounded(&why)?;
        let handle = self.handle_of(&asked)?;
        let id = self.meant(&handle, asked.clone()).await?;
        let (by, now) = (name_of(who.as_ref()), self.control.clock.now());
        let said = handle.book.reject(&id, &by, &why, now).await.map_err(refused);
        let intent = self.told(who, "/evenkeel.v1.Execution/Reject", format!("{asked} {why}"), said).await?;
        Ok(Response::new(v1::RejectResponse { r#move: Some(view(&intent)) }))
    }

    async fn rearm(&self, request: Request<v1::RearmRequest>) -> Answer<v1::RearmResponse> {
        let who = who(&request);
        let v1::RearmRequest { cluster, why } = request.into_inner();
        bounded(&why)?;
        let now = self.control.clock.now();
        let stopped = |handle: &Arc<ClusterHandle>| {
            let holds = holds(&handle.book, handle.execute.rest(), now);
            let of_nodes = holds.into_iter().filter(|off| off.guest.is_none());
            of_nodes.map(|off| format!("{}: {}", handle.id, off.why)).collect::<Vec<_>>()
        };
        let handles = self.control.clusters.values();
        let named = handles.filter(|handle| cluster.is_empty() || handle.id.as_str() == cluster);
        let named: Vec<_> = named.cloned().collect();
        let was_stopped_by = named.iter().flat_map(stopped).collect();
        let by = name_of(who.as_ref());
        let rearmed = Rearmed { by: name_of(who.as_ref()), why: why.clone(), at: now };
        let change = move |handle: &ClusterHandle, store: &dyn Store| handle.rearm(&rearmed, store);
        let call = "/evenkeel.v1.Execution/Rearm";
        let clusters = self.control.change(&cluster, call, why, who, change).await?;
        for handle in named {
            let given_up = handle.book.give_up_unknown(&by, now).await;
            given_up.map_err(|error| Status::internal(error.to_string()))?;
        }
        Ok(Response::new(v1::RearmResponse { clusters, was_stopped_by }))
    }

    async fn evacuate(&self, request: Request<v1::EvacuateRequest>) -> Answer<v1::EvacuateResponse> {
        let who = who(&request);
        let v1::EvacuateRequest { cluster, node } = request.into_inner();
        let node: NodeId = parse(&node)?;
        let handle = self.control.handle(&cluster)?;
        let said = match handle.policy.mode {
            Mode::Advise => Err(advises(&handle)),
            Mode::Approve | Mode::Auto => self.propose(&handle, &node).await,
        };
        let detail = format!("{}/{node}", handle.id);
        let proposed = self.told(who, "/evenkeel.v1.Execution/Evacuate", detail, said).await?;
        Ok(Response::new(v1::EvacuateResponse { moves: proposed.iter().map(view).collect() }))
    }

    async fn list_moves(&self, request: Request<v1::ListMovesRequest>) -> Answer<v1::ListMovesResponse> {
        let request = request.into_inner();
        if !request.decision.is_empty() {
            let asked: DecisionId = parse(&request.decision)?;
            let handle = self.handle_of(&asked)?;
            let id = self.meant(&handle, asked.clone()).await?;
            let found = self.control.off(move |this| stored(this.store.as_ref(), &id)).await?;
            let found = found.ok_or_else(|| {
                Status::not_found(format!(
                    "evenkeel was not to act on {asked}: `evenkeelctl explain {asked}` says why"
                ))
            })?;
            return Ok(Response::new(v1::ListMovesResponse { moves: vec![view(&found)], truncated: false }));
        }
        let (guest, node) = (vmid(request.vmid)?, optional::<NodeId>(&request.node)?);
        let clusters = self.control.cluster_ids(&request.cluster)?;
        let wanted = move |intent: &Intent| {
            guest.is_none_or(|guest| intent.guest == guest || intent.along.contains(&guest))
                && node.as_ref().is_none_or(|node| intent.source == *node || intent.target == *node)
                && (request.state.is_empty() || intent.state.name() == request.state)
                && !(request.open_only && intent.state.is_over())
        };
        let since_s = request.since_ms.map_or(i64::MIN, |ms| ms.div_euclid(1000));
        let limit = match usize::try_from(request.limit).unwrap_or(LIMIT) {
            0 => LIMIT,
            limit => limit.min(LIMIT),
        };
        let listed = move |this: ControlService| {
            let mut found = Vec::new();
            for cluster in &clusters {
                let range = KeyRange::between(&(cluster.clone(), since_s), &(cluster.clone(), i64::MAX));
                newest(this.store.as_ref(), &range, limit + 1, &wanted, &mut found)?;
            }
            Ok(found)
        };
        let mut found = self.control.off(listed).await?;
        found.sort_by(|a, b| b.id.run_s.cmp(&a.id.run_s).then(b.id.cmp(&a.id)));
        let truncated = found.len() > limit;
        found.truncate(limit);
        let moves = found.iter().rev().map(view).collect();
        Ok(Response::new(v1::ListMovesResponse { moves, truncated }))
    }
}

/// The intent of a decision, if there is one.
pub(super) fn stored(store: &dyn Store, id: &DecisionId) -> Result<Option<Intent>, StoreError> {
    let (cluster, run_s, number) = (id.cluster.clone(), id.run_s, id.number);
    let value = trees::INTENTS.get(store, &DecisionKey { cluster, run_s, number })?;
    Ok(value.and_then(|value| serde_json::from_value(value).ok()))
}

/// The newest intents of a range that are wanted.
fn newest(
    store: &dyn Store,
    range: &KeyRange,
    limit: usize,
    wanted: &impl Fn(&Intent) -> bool,
    found: &mut Vec<Intent>,
) -> Result<(), StoreError> {
    let most = found.len() + limit;
    trees::INTENTS.scan(store, range, Direction::Backward, OnDamage::Skip, |_, value| {
        found.extend(serde_json::from_value::<Intent>(value).ok().filter(wanted));
        if found.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(())
}

fn bounded(why: &str) -> Result<(), Status> {
    if why.chars().count() > LONGEST_WHY {
        return Err(Status::invalid_argument(format!("the reason is longer than {LONGEST_WHY} characters")));
    }
    Ok(())
}

fn advises(handle: &ClusterHandle) -> Status {
    Status::failed_precondition(format!(
        "cluster {} is in mode advise, in which evenkeel starts nothing: set policy.mode to approve and \
         execute.token_file in aggregator.toml",
        handle.id
    ))
}

fn refused(error: ApprovalError) -> Status {
    match &error {
        ApprovalError::NotProposed(_) => Status::not_found(error.to_string()),
        ApprovalError::Past { .. } | ApprovalError::Stale { .. } => {
            Status::failed_precondition(error.to_string())
        }
        ApprovalError::Log(_) => Status::internal(error.to_string()),
    }
}
