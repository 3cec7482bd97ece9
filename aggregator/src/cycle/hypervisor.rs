//! Proxmox VE as the executor wants it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel_common::reason::Reason;
use evenkeel_core::Mode;
use evenkeel_runtime::clock::Clock;

use super::handle::ClusterHandle;
use crate::execute::{Answer, Hypervisor, Intent, Order, Switches};
use crate::pve::PveError;
use crate::pve::migrate::{Migrator, Move, Started};

/// How long it is believed that the token may do no more than it should.
const CHECKED: Duration = Duration::from_mins(5);

/// The cluster's API.
pub struct Proxmox {
    migrator: Migrator,
    clock: Arc<dyn Clock>,
    /// The token whose rights were looked at.
    checked: Mutex<Option<Checked>>,
}

/// What was said of a token, and when by the aggregator's uptime.
#[derive(Clone)]
struct Checked {
    token: String,
    at: Duration,
    said: Result<(), Reason>,
}

impl Proxmox {
    /// Asks nothing yet.
    #[must_use]
    pub fn new(migrator: Migrator, clock: Arc<dyn Clock>) -> Self {
        Self { migrator, clock, checked: Mutex::default() }
    }

    /// Whether the token may do what it needs and nothing that it should not.
    async fn rights(&self) -> Result<(), Reason> {
        let refuse = |detail: String| Err(Reason::NoExecToken { detail });
        match self.migrator.excess().await {
            Ok(excess) if excess.is_empty() => Ok(()),
            Ok(excess) => refuse(format!(
                "its token may do more than migrate ({}): give it VM.Migrate and the audit privileges only",
                excess.iter().take(5).cloned().collect::<Vec<_>>().join(", ")
            )),
            Err(error) => refuse(error.to_string()),
        }
    }
}

impl Hypervisor for Proxmox {
    async fn caller(&self) -> Result<String, Reason> {
        let refused = |error: PveError| Reason::NoExecToken { detail: error.to_string() };
        let token = self.migrator.token_id().map_err(refused)?;
        let now = self.clock.uptime();
        let known = self.checked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let known =
            known.filter(|known| known.token == token && now < known.at + CHECKED && known.said.is_ok());
        if known.is_none() {
            let said = self.rights().await;
            let checked = Some(Checked { token: token.clone(), at: now, said: said.clone() });
            *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = checked;
            said?;
        }
        Ok(token)
    }

    async fn objection(&self, intent: &Intent) -> Option<Reason> {
        let Intent { source, kind, guest, target, .. } = intent;
        let wanted = Move { source, kind: *kind, guest: *guest, target };
        match self.migrator.objection(&wanted).await {
            Ok(objection) => objection.map(|detail| Reason::PveObjects { detail }),
            // What may pass says nothing of this move.
            Err(PveError::Locked { lock, .. }) => Some(Reason::GuestLocked { lock }),
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
            return Some(Reason::NoExecToken { detail: "mode advise leaves every move to people".into() });
        }
        if let Some(pause) = &self.handle.lock().pause {
            return Some(Reason::Paused { why: pause.why.clone() });
        }
        // Where it can not be told whether it is there, it is.
        let there = self.no_execute.try_exists().unwrap_or(true);
        there.then(|| Reason::NoExecute { path: self.no_execute.display().to_string() })
    }
}
