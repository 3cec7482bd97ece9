//! The history of migrations as it is kept: records that were imported or seen, and each host's score day by day. What
//! they mean is `evenkeel_core::history`'s to say.

mod archive;
pub mod config;
mod intake;

use std::ops::ControlFlow;
use std::sync::Arc;

use evenkeel_common::id::{ClusterId, Vmid};
use evenkeel_common::time::Timestamp;
use evenkeel_core::history::record::{Outcome, Record};
use evenkeel_core::history::tier::Environments;
use tokio::sync::{Notify, Semaphore};

pub use config::HistoryConfig;
pub use intake::{Intake, Taken};

use crate::store::key::after_prefix;
use crate::store::records::MigrationKey;
use crate::store::{Direction, Key as _, KeyRange, Store, StoreConfig, StoreError, trees};

/// The history of all clusters.
pub struct History {
    store: Arc<dyn Store>,
    limits: StoreConfig,
    /// From which score on hosts alert.
    pub environments: Environments,
    /// One import at a time: the bound on records is kept by whoever imports.
    pub importing: Arc<Semaphore>,
    /// Told when records have come, so that scores are archived anew.
    changed: Notify,
}

impl History {
    /// A history in this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, limits: StoreConfig, config: &HistoryConfig) -> Self {
        Self {
            store,
            limits,
            environments: config.environments(),
            importing: Arc::new(Semaphore::new(1)),
            changed: Notify::new(),
        }
    }

    /// The clusters that have a history.
    ///
    /// # Errors
    /// Of the store.
    pub fn clusters(&self) -> Result<Vec<ClusterId>, StoreError> {
        let (mut found, mut range) = (Vec::new(), KeyRange::all());
        loop {
            let mut first = None;
            self.store.scan_keys(trees::MIGRATIONS.id(), &range, Direction::Forward, &mut |key| {
                first = MigrationKey::from_bytes(key);
                if first.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            let Some(MigrationKey { cluster, .. }) = first else { return Ok(found) };
            let next = after_prefix(&cluster.to_bytes());
            found.push(cluster);
            match next {
                Some(start) => range = KeyRange { start, end: None },
                None => return Ok(found),
            }
        }
    }

    /// Hands the records of a cluster since then to `visit`, oldest first. What is no key of a record is left to the
    /// scrub.
    ///
    /// # Errors
    /// Of the store.
    pub fn each(
        &self,
        cluster: &ClusterId,
        since: Timestamp,
        mut visit: impl FnMut(&Record),
    ) -> Result<(), StoreError> {
        let end = (cluster.clone(), Timestamp::from_millis(i64::MAX));
        let range = KeyRange::between(&(cluster.clone(), since), &end);
        self.store.scan_keys(trees::MIGRATIONS.id(), &range, Direction::Forward, &mut |key| {
            if let Some(record) = MigrationKey::from_bytes(key).and_then(record) {
                visit(&record);
            }
            ControlFlow::Continue(())
        })
    }
}

/// The key under which a record is kept.
#[must_use]
pub fn key(cluster: &ClusterId, record: &Record) -> MigrationKey {
    MigrationKey {
        cluster: cluster.clone(),
        at: record.at,
        host: record.host.clone(),
        failed: record.failed().into(),
        error_code: record.error_code.clone().unwrap_or_default(),
        duration_ms: record.duration_ms.unwrap_or(u64::MAX),
        retries: record.retries.unwrap_or(u32::MAX),
        guest: record.guest.map_or(0, Vmid::get),
    }
}

/// The record behind a key; `None` for one that never was a record's.
fn record(key: MigrationKey) -> Option<Record> {
    let outcome = match key.failed {
        0 => Outcome::Success,
        1 => Outcome::Failure,
        _ => return None,
    };
    Some(Record {
        at: key.at,
        host: key.host,
        outcome,
        error_code: Some(key.error_code).filter(|code| !code.is_empty()),
        duration_ms: Some(key.duration_ms).filter(|ms| *ms < u64::MAX),
        retries: Some(key.retries).filter(|retries| *retries < u32::MAX),
        guest: Vmid::new(key.guest).ok(),
    })
}

#[cfg(test)]
mod tests;
