//! What is known, as messages of the control service: one file per noun. Nothing here decides or changes anything.

pub mod anomalies;
pub mod decisions;
pub mod fleet;
pub mod guests;
pub mod history;
pub mod moves;
pub mod nodes;
pub mod status;
pub mod whatif;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_common::time::{Timestamp, Window};

use crate::cycle::ClusterHandle;
use crate::ingest::live::NodeCell;
use crate::pve::Inventory;

/// People are shown means of the last minute.
const SHOWN: Duration = Duration::from_secs(60);

/// One cluster at the moment of the question.
pub struct ClusterView {
    /// Its name.
    pub id: ClusterId,
    /// Its decision cycle; `None` for a cluster that only agents know.
    pub handle: Option<Arc<ClusterHandle>>,
    /// Its nodes as agents tell them.
    pub agents: BTreeMap<NodeId, Arc<NodeCell>>,
    /// Now, by the wall clock.
    pub now: Timestamp,
    /// Now, by the clock that ages data.
    pub uptime: Duration,
    /// Age of data from which on a node counts as silent.
    pub stale_after: Duration,
    /// Milliseconds a clock may be off.
    pub max_skew_ms: u64,
}

impl ClusterView {
    fn inventory(&self) -> Option<Arc<Inventory>> {
        self.handle.as_ref().and_then(|handle| handle.lock().inventory.clone())
    }

    fn window(&self) -> Window {
        // The tick of this very moment counts as well.
        Window::ending(self.now.after(Duration::from_millis(1)), SHOWN)
    }

    fn age_ms(&self, received: Option<Duration>) -> Option<i64> {
        received.map(|at| i64::try_from(self.uptime.saturating_sub(at).as_millis()).unwrap_or(i64::MAX))
    }

    fn is_fresh(&self, received: Option<Duration>) -> bool {
        received.is_some_and(|at| self.uptime.saturating_sub(at) <= self.stale_after)
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: f64) -> u64 {
    value.max(0.0) as u64
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
