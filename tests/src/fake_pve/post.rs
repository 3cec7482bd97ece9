//! What the fake remembers of orders to migrate, whatever became of their answers.

use std::collections::BTreeMap;

use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use http::Method;

use super::api::{Answer, Asked};
use super::cluster::FakeCluster;
use super::fault::Fault;

/// A `POST .../migrate` that reached a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakePost {
    /// When, in the cluster's time.
    pub at: Timestamp,
    /// Node in the path: where the sender believes the guest to be.
    pub node: NodeId,
    /// Kind in the path.
    pub kind: GuestKind,
    /// Guest.
    pub vmid: Vmid,
    /// Parameters from query and body.
    pub parameters: BTreeMap<String, String>,
    /// `user@realm!tokenid` as it was claimed; empty without one. Never the secret.
    pub token: String,
    /// What the cluster made of it.
    pub outcome: PostOutcome,
    /// Whether the sender was told, in one piece and truthfully.
    pub answered: bool,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostOutcome {
    /// A task was started: its UPID.
    Accepted(String),
    /// It was refused.
    Refused {
        /// HTTP status.
        status: u16,
        /// Proxmox' text, with the parameters it complains of.
        text: String,
    },
    /// A fault struck before anything was done.
    Unprocessed,
}

impl FakeCluster {
    /// The UPIDs of all tasks that orders have started, oldest first.
    #[must_use]
    pub fn accepted<'a>(&'a self) -> Vec<&'a str> {
        let upid = |post: &'a FakePost| match &post.outcome {
            PostOutcome::Accepted(upid) => Some(upid.as_str()),
            PostOutcome::Refused { .. } | PostOutcome::Unprocessed => None,
        };
        self.posts.iter().filter_map(upid).collect()
    }

    /// Remembers an order. A path that names no possible guest can not start anything and is left out.
    pub(super) fn remember(&mut self, path: &str, asked: &Asked, answer: &Answer, fault: Option<&Fault>) {
        let segments: Vec<&str> = path.split('/').collect();
        let (&Method::POST, ["", "nodes", node, kind, vmid, "migrate"]) = (&asked.method, &segments[..])
        else {
            return;
        };
        let kind = match *kind {
            "qemu" => GuestKind::Qemu,
            "lxc" => GuestKind::Lxc,
            _ => return,
        };
        let (Ok(node), Ok(vmid)) = (NodeId::new(*node), vmid.parse()) else { return };
        let outcome = match fault {
            Some(Fault::Unauthorized) => refused(401, "Authentication failed!"),
            Some(Fault::Forbidden(text)) => refused(403, text),
            Some(Fault::Internal(text)) => refused(500, text),
            Some(Fault::NodeUnreachable) => refused(595, "No route to host"),
            Some(fault) if !fault.strikes_after() => PostOutcome::Unprocessed,
            Some(_) | None => match answer.data().and_then(|data| data.as_str()) {
                Some(upid) if answer.status == 200 => PostOutcome::Accepted(upid.to_owned()),
                Some(_) | None => refused(answer.status, &answer.complaint()),
            },
        };
        let told = matches!(
            fault,
            None | Some(
                Fault::Unauthorized | Fault::Forbidden(_) | Fault::Internal(_) | Fault::NodeUnreachable
            )
        );
        let claimed = asked.authorization.as_deref().and_then(|text| text.strip_prefix("PVEAPIToken="));
        let token = claimed.and_then(|text| text.split('=').next()).unwrap_or_default().to_owned();
        self.posts.push(FakePost {
            at: self.now,
            node,
            kind,
            vmid,
            parameters: asked.parameters.iter().cloned().collect(),
            token,
            outcome,
            answered: told,
        });
    }
}

fn refused(status: u16, text: &str) -> PostOutcome {
    PostOutcome::Refused { status, text: text.to_owned() }
}
