//! Fault drills: ordered, cleared and listed. Agents do them; what they say of it is in the live state.

use evenkeel_common::drill::{Drill, DrillKind};
use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_proto::v1;
use tonic::{Request, Status};

use super::control::ControlService;
use super::request::{name_of, optional, parse, vmid, who};
use crate::identity::audit::Outcome;
use crate::ingest::live::DrillTold;
use crate::ingest::steering::OrderedDrill;
use crate::store::records::NodeKey;

/// How long a drill lasts when nobody says.
const DEFAULT_MS: u64 = 600_000;

impl ControlService {
    pub(super) async fn order_drill(
        &self,
        request: Request<v1::SimulateRequest>,
    ) -> Result<v1::SimulateResponse, Status> {
        let who = who(&request);
        let request = request.into_inner();
        let invalid = |error: evenkeel_common::drill::BadDrill| Status::invalid_argument(error.to_string());
        let drill = Drill {
            id: String::new(),
            kind: request.kind.parse::<DrillKind>().map_err(invalid)?,
            guest: vmid(request.vmid)?,
            amount: request.amount,
            ms: if request.lasts_ms == 0 { DEFAULT_MS } else { request.lasts_ms },
        };
        drill.check().map_err(invalid)?;
        let node = self.node_of(&request.cluster, &parse(&request.node)?)?;
        let what = format!(
            "{}/{} {} {} {} for {} s",
            node.cluster,
            node.node,
            drill.kind,
            drill.guest.map_or_else(String::new, |vmid| vmid.to_string()),
            drill.amount,
            drill.ms / 1000
        );
        // Written down first: what is not in the audit log is not done.
        self.record(who.clone(), "/evenkeel.v1.Control/Simulate", what, Outcome::Done).await?;
        let (by, now, uptime) = (name_of(who.as_ref()), self.clock.now(), self.clock.uptime());
        let cluster = [node.cluster.clone()];
        let id = self
            .steering
            .order(node, drill, by, now, uptime)
            .map_err(|error| Status::resource_exhausted(error.to_string()))?;
        let ordered =
            self.steering.drills(&cluster, uptime).into_iter().find(|ordered| ordered.drill.id == id);
        Ok(v1::SimulateResponse { drill: ordered.map(|ordered| self.drill_view(&ordered)) })
    }

    pub(super) async fn end_drills(
        &self,
        request: Request<v1::ClearDrillsRequest>,
    ) -> Result<v1::ClearDrillsResponse, Status> {
        let who = who(&request);
        let v1::ClearDrillsRequest { cluster, node } = request.into_inner();
        let (clusters, node) = (self.cluster_ids(&cluster)?, optional::<NodeId>(&node)?);
        let cleared = self.steering.clear(&clusters, node.as_ref(), self.clock.now(), self.clock.uptime());
        let what = format!("{cluster}/{} {}", node.map_or_else(String::new, String::from), cleared.join(","));
        self.record(who, "/evenkeel.v1.Control/ClearDrills", what, Outcome::Done).await?;
        Ok(v1::ClearDrillsResponse { cleared })
    }

    pub(super) fn told_drills(
        &self,
        request: &v1::ListDrillsRequest,
    ) -> Result<v1::ListDrillsResponse, Status> {
        let drills = self.steering.drills(&self.cluster_ids(&request.cluster)?, self.clock.uptime());
        let drills = drills.iter().map(|ordered| self.drill_view(ordered)).collect();
        Ok(v1::ListDrillsResponse { drills })
    }

    /// The node named, in the cluster named or in the only one that has such a node.
    fn node_of(&self, cluster: &str, node: &NodeId) -> Result<NodeKey, Status> {
        let has = |id: &ClusterId| self.live.get(id, node).is_some();
        let found: Vec<ClusterId> = self.cluster_ids(cluster)?.into_iter().filter(has).collect();
        match <[ClusterId; 1]>::try_from(found) {
            Ok([cluster]) => Ok(NodeKey { cluster, node: node.clone() }),
            Err(found) if found.is_empty() => {
                Err(Status::not_found(format!("no node {node} has reported: see `evenkeelctl nodes`")))
            }
            Err(_) => Err(Status::invalid_argument(format!(
                "several clusters have a node {node}: name one with --cluster"
            ))),
        }
    }

    fn drill_view(&self, ordered: &OrderedDrill) -> v1::DrillView {
        let OrderedDrill { node, drill, by, at, cleared, .. } = ordered;
        let cell = self.live.get(&node.cluster, &node.node);
        let told = cell.as_ref().and_then(|cell| cell.lock().drills.get(&drill.id).cloned());
        let connected = cell.is_some_and(|cell| cell.lock().connected);
        let on = ordered.is_on(self.clock.uptime());
        let (state, detail) = match told {
            Some(DrillTold::Refused(why)) => ("refused", why),
            Some(DrillTold::Ended { .. }) if cleared.is_some() => ("cleared", String::new()),
            Some(DrillTold::Ended { .. }) => ("over", String::new()),
            Some(DrillTold::Started) if on => ("running", String::new()),
            Some(DrillTold::Started) if connected => ("clearing", String::new()),
            Some(DrillTold::Started) => ("clearing", "the agent is not connected".into()),
            None if on && connected => ("ordered", "the agent has not answered yet".into()),
            None if on => ("ordered", "the agent is not connected".into()),
            None if cleared.is_some() => ("cleared", "the agent never began it".into()),
            None => ("over", "the agent never began it".into()),
        };
        v1::DrillView {
            id: drill.id.clone(),
            cluster: node.cluster.to_string(),
            node: node.node.to_string(),
            kind: drill.kind.to_string(),
            vmid: drill.guest.map(|vmid| vmid.get()),
            amount: drill.amount,
            unit: unit(drill).into(),
            ordered_ms: at.0.as_millis(),
            ends_ms: cleared.unwrap_or(at.1).as_millis(),
            by: by.clone(),
            state: state.into(),
            detail,
        }
    }
}

fn unit(drill: &Drill) -> &'static str {
    match (drill.kind, drill.guest) {
        (DrillKind::Delay, _) => "ms",
        (DrillKind::Error, _) => "errors/s",
        (DrillKind::Cpu | DrillKind::Memory, None) => "points",
        (DrillKind::Cpu, Some(_)) => "cores",
        (DrillKind::Memory, Some(_)) => "GiB",
    }
}
