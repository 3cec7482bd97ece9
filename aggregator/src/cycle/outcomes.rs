//! Migrations that have ended, as records of the history: from Proxmox' task list, anybody's.
//!
//! The host of a record is the node the guest was to leave. A task is noted once its result has settled: where a guest is
//! now is the better witness of what became of it, and the inventory may be a moment behind the task list. All of it follows
//! from the task, so noting one again after a restart makes no second record.

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_common::id::ClusterId;
use evenkeel_core::history::record::{Outcome, Record, as_code};

use crate::history;
use crate::pve::Inventory;
use crate::pve::tasks::{MigrationKind, MigrationTask, TaskOutcome, Upid};
use crate::store::{Batch, StoreError, trees};

/// Time after its end from which on it is known what a task came to.
const SETTLED: Duration = Duration::from_mins(1);

/// What has been noted of one cluster.
#[derive(Debug, Default)]
pub struct Outcomes {
    noted: BTreeSet<Upid>,
}

impl Outcomes {
    /// Puts what is new in an inventory into `batch`.
    ///
    /// # Errors
    /// Only when a record can not be encoded.
    pub fn observe(
        &mut self,
        inventory: &Inventory,
        cluster: &ClusterId,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        for task in &inventory.history {
            let settled = task.ended_at.is_some_and(|ended| inventory.taken_at.since(ended) >= SETTLED);
            // What does not fit any more comes with the next look.
            if batch.is_full() {
                break;
            }
            if !settled || self.noted.contains(&task.upid) {
                continue;
            }
            if let Some(record) = record(task) {
                batch.put(&trees::MIGRATIONS, &history::key(cluster, &record), &())?;
            }
            self.noted.insert(task.upid.clone());
        }
        let known: BTreeSet<&Upid> = inventory.history.iter().map(|task| &task.upid).collect();
        self.noted.retain(|upid| known.contains(upid));
        Ok(())
    }
}

/// What a task came to; `None` for one that only asks HA to move a guest.
fn record(task: &MigrationTask) -> Option<Record> {
    let at = task.ended_at.filter(|_| task.kind != MigrationKind::HaRequest)?;
    let (outcome, error_code) = match &task.outcome {
        TaskOutcome::Failed(words) if task.moved_to.is_none() => (Outcome::Failure, as_code(words)),
        _ => (Outcome::Success, None),
    };
    Some(Record {
        at,
        host: task.source().to_string(),
        outcome,
        error_code,
        duration_ms: u64::try_from(at.since(task.upid.started_at).as_millis()).ok(),
        retries: None,
        guest: Some(task.vmid),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::id::{NodeId, Vmid};
    use evenkeel_common::time::Timestamp;

    fn task(outcome: TaskOutcome, moved_to: Option<&str>) -> MigrationTask {
        MigrationTask {
            upid: "UPID:n1:0000A1B2:123456789:6553F100:qmigrate:110:root@pam:".parse().unwrap(),
            kind: MigrationKind::Qemu,
            vmid: Vmid::new(110).unwrap(),
            ended_at: Some(Timestamp::from_millis(1_700_000_030_000)),
            outcome,
            moved_to: moved_to.map(|node| NodeId::new(node).unwrap()),
        }
    }

    #[test]
    fn where_the_guest_is_decides_what_a_task_came_to() {
        let failed = || TaskOutcome::Failed("migration aborted\n".into());
        for (task, outcome, code) in [
            (task(TaskOutcome::Ok, Some("n2")), Outcome::Success, None),
            (task(TaskOutcome::Warnings(2), Some("n2")), Outcome::Success, None),
            (task(failed(), Some("n2")), Outcome::Success, None),
            (task(failed(), None), Outcome::Failure, Some("migration aborted")),
        ] {
            let record = record(&task).unwrap();
            assert_eq!((record.outcome, record.error_code.as_deref()), (outcome, code), "{task:?}");
            assert_eq!((record.host.as_str(), record.duration_ms), ("n1", Some(30_000)));
            assert_eq!(record.guest, Some(task.vmid));
        }
        let asked = MigrationTask { kind: MigrationKind::HaRequest, ..task(TaskOutcome::Ok, None) };
        assert_eq!(record(&asked), None, "the move itself is another task");
    }
}
