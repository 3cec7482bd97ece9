//! Proxmox VE as the executor wants it.

use std::path::PathBuf;
use std::sync::Arc;

use evenkeel_common::reason::Reason;
use evenkeel_core::Mode;

use super::handle::ClusterHandle;
use crate::execute::{Answer, Hypervisor, Intent, Order, Switches};
use crate::pve::PveError;
use crate::pve::migrate::{Migrator, Move, Started};

/// The cluster's API.
pub struct Proxmox {
    migrator: Migrator,
}

impl Proxmox {
    /// Asks nothing yet.
    #[must_use]
    pub fn new(migrator: Migrator) -> Self {
        Self { migrator }
    }
}

impl Hypervisor for Proxmox {
    async fn caller(&self) -> Result<String, Reason> {
        let refused = |error: PveError| Reason::NoExecToken { detail: error.to_string() };
        let token = self.migrator.token_id().map_err(refused)?;
        let excess = self.migrator.excess().await.map_err(refused)?;
        if excess.is_empty() {
            return Ok(token);
        }
        let named = excess.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        let remedy = "give it VM.Migrate and the audit privileges only";
        Err(Reason::NoExecToken { detail: format!("its token may do more than migrate ({named}): {remedy}") })
    }

    async fn objection(&self, intent: &Intent) -> Option<Reason> {
        let Intent { source, kind, guest, target, .. } = intent;
        let wanted = Move { source, kind: *kind, guest: *guest, target };
        match self.migrator.objection(&wanted).await {
            Ok(objection) => objection.map(|detail| Reason::PveObjects { detail }),
            // What may pass says nothing of this move.
            Err(PveError::Locked { lock, .. }) => Some(Reason::GuestLocked { lock }),
            Err(
                error @ (PveError::Config { .. } | PveError::File { .. } | PveError::Unauthorized { .. }),
            ) => Some(Reason::NoExecToken { detail: error.to_string() }),
            Err(error) if error.is_transient() => Some(Reason::NoPveInventory { detail: error.to_string() }),
            Err(error) => Some(Reason::PveObjects { detail: error.to_string() }),
        }
    }

    async fn migrate(&self, order: &Order) -> Answer {
        let Order { source, kind, guest, target, caller } = order;
        let wanted = Move { source, kind: *kind, guest: *guest, target };
        match self.migrator.start(&wanted, caller).await {
            Started::Task(upid) => Answer::Taken(upid.to_string()),
            Started::Refused(error) => Answer::Refused(error.to_string()),
            Started::Unclear(error) => Answer::Unclear(error.to_string()),
        }
    }
}

/// The switches of one cluster: pause, file and mode. The fourth, the token, is looked for by the call itself.
pub struct ClusterSwitches {
    /// Whose.
    pub handle: Arc<ClusterHandle>,
    /// The file that forbids every start while it is there.
    pub no_execute: PathBuf,
}

impl Switches for ClusterSwitches {
    fn off(&self) -> Option<Reason> {
        if self.handle.policy.mode == Mode::Advise {
            return Some(Reason::ModeAdvises {});
        }
        if let Some(pause) = &self.handle.lock().pause {
            return Some(Reason::Paused { why: pause.why.clone() });
        }
        // Where it can not be told whether it is there, it is.
        let there = self.no_execute.try_exists().unwrap_or(true);
        there.then(|| Reason::NoExecute { path: self.no_execute.display().to_string() })
    }
}
