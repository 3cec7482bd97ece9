//! Explanations: a stored run decided again with every filter asked, and what became of its decisions since.

use std::sync::Arc;

use evenkeel_common::id::{DecisionId, NodeId, Vmid};
use evenkeel_core::{RunRecord, explain};
use evenkeel_proto::v1;
use tonic::Status;

use super::control::{ControlService, no_decision};
use super::execution::stored;
use super::request::{optional, parse, vmid};
use super::stored::fated;
use super::views::{decisions, moves};
use crate::cycle::ClusterHandle;
use crate::store::records::DecisionKey;
use crate::store::trees;

impl ControlService {
    pub(super) async fn explained(&self, request: v1::ExplainRequest) -> Result<v1::ExplainResponse, Status> {
        let answer = if request.decision.is_empty() {
            self.explain_last(&request)?
        } else {
            self.explain_one(parse(&request.decision)?).await?
        };
        let intents = self.intents();
        self.off(move |this| {
            let mut answer = answer;
            for decision in &mut answer.decisions {
                let Ok(id) = decision.id.parse::<DecisionId>() else { continue };
                let key = DecisionKey { cluster: id.cluster.clone(), run_s: id.run_s, number: id.number };
                let Some(row) = trees::DECISIONS.get(this.store.as_ref(), &key)? else { continue };
                let known = intents.iter().rev().find(|intent| intent.answers(&row)).cloned();
                let Some(intent) =
                    known.map_or_else(|| stored(this.store.as_ref(), &id), |known| Ok(Some(known)))?
                else {
                    continue;
                };
                // Decided again it is what it was then; what has become of it is told beside.
                let row = fated(row, std::slice::from_ref(&intent));
                decision.action = row.action.name().into();
                decision.reason = Some(decisions::reason(&row.reason));
                answer.moves.push(moves::view(&intent));
            }
            Ok(answer)
        })
        .await
    }

    async fn explain_one(&self, id: DecisionId) -> Result<v1::ExplainResponse, Status> {
        let record = match self.record_of(&id).await {
            Ok(record) => record,
            Err(missing) => return self.explain_intent(id, missing).await,
        };
        let explained = explain(&record.snapshot, &record.policy, &record.memory_in);
        let found = explained.run.decisions.iter().find(|decision| decision.id == id);
        let found = found.ok_or_else(|| no_decision(&id))?;
        let stays = explained.run.stays.iter().filter(|stay| stay.node == found.recommendation.source);
        Ok(v1::ExplainResponse {
            decisions: vec![decisions::view(found)],
            stays: stays.flat_map(|stay| &stay.reasons).map(decisions::reason).collect(),
            subject: id.to_string(),
            ..answer_about(&record)
        })
    }

    /// A move that no run decided: an evacuation.
    async fn explain_intent(&self, id: DecisionId, missing: Status) -> Result<v1::ExplainResponse, Status> {
        let wanted = id.clone();
        let intent = self.off(move |this| stored(this.store.as_ref(), &wanted)).await?.ok_or(missing)?;
        let moves = vec![moves::view(&intent)];
        Ok(v1::ExplainResponse { subject: id.to_string(), moves, ..v1::ExplainResponse::default() })
    }

    fn explain_last(&self, request: &v1::ExplainRequest) -> Result<v1::ExplainResponse, Status> {
        let (guest, node) = (vmid(request.vmid)?, optional::<NodeId>(&request.node)?);
        let cluster = self.cluster_of(request, guest, node.as_ref())?;
        let record = self.last_run(&cluster)?;
        let explained = explain(&record.snapshot, &record.policy, &record.memory_in);
        let run = &explained.run;
        let about = |decision: &&evenkeel_common::decision::Decision| {
            let advice = &decision.recommendation;
            guest.is_none_or(|vmid| advice.guest == vmid)
                && node.as_ref().is_none_or(|name| advice.source == *name || advice.target == *name)
        };
        let stays: Vec<v1::Reason> = if let Some(vmid) = guest {
            let stays = explained.guests.iter().filter(|stay| stay.guest == vmid);
            stays.map(|stay| decisions::reason(&stay.reason)).collect()
        } else {
            let stays = run.stays.iter().filter(|stay| node.as_ref().is_none_or(|name| stay.node == *name));
            stays.flat_map(|stay| &stay.reasons).map(decisions::reason).collect()
        };
        let subject = match (guest, &node) {
            (Some(vmid), _) => vmid.to_string(),
            (None, Some(name)) => name.to_string(),
            (None, None) => run.cluster.to_string(),
        };
        let decisions = run.decisions.iter().filter(about).map(decisions::view).collect();
        Ok(v1::ExplainResponse { decisions, stays, subject, ..answer_about(&record) })
    }

    /// The cluster a question is about: the one named, or the only one whose last run knows the guest or node.
    fn cluster_of(
        &self,
        request: &v1::ExplainRequest,
        guest: Option<Vmid>,
        node: Option<&NodeId>,
    ) -> Result<String, Status> {
        if !request.cluster.is_empty() {
            return Ok(request.cluster.clone());
        }
        let knows = |handle: &&Arc<ClusterHandle>| {
            handle.lock().last_run.as_ref().is_some_and(|record| {
                let snapshot = &record.snapshot;
                guest.is_none_or(|vmid| snapshot.guests.iter().any(|g| g.vmid == vmid))
                    && node.is_none_or(|name| snapshot.nodes.iter().any(|n| n.id == *name))
                    && !snapshot.nodes.is_empty()
            })
        };
        let known: Vec<_> = self.clusters.values().filter(knows).collect();
        match known.as_slice() {
            [only] => Ok(only.id.to_string()),
            [] if guest.is_none() && node.is_none() => Ok(String::new()),
            [] => {
                Err(Status::not_found("no cluster's last run knows it: see `evenkeelctl guests` and `nodes`"))
            }
            _ => Err(Status::invalid_argument("several clusters have one: name the cluster with --cluster")),
        }
    }
}

/// The part of an explanation that is the same for every subject.
fn answer_about(record: &RunRecord) -> v1::ExplainResponse {
    let run = &record.run;
    v1::ExplainResponse {
        run_ms: Some(run.at.as_millis()),
        suppressed: run.suppressed.as_ref().map(decisions::reason),
        scores: run.scores.iter().map(|score| (score.node.to_string(), score.score.get())).collect(),
        ..v1::ExplainResponse::default()
    }
}
