//! Keeps each host's score day by day, a row when it changes: records go in time, and what the scores were stays known.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::id::ClusterId;
use evenkeel_common::time::Timestamp;
use evenkeel_core::history::correlate::window_start;
use evenkeel_core::history::score::Scores;
use evenkeel_core::history::trend::Archived;
use evenkeel_runtime::clock::{Clock, sleep};
use tokio_util::sync::CancellationToken;

use super::History;
use crate::store::records::{HostDayKey, HostScoreRecord};
use crate::store::{Batch, Direction, KeyRange, OnDamage, StoreError, trees};

/// Between two looks when nothing was imported.
const LOOK: Duration = Duration::from_hours(1);
/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;
/// Rows of one host in an answer, the latest.
const ROWS: usize = 400;

impl History {
    /// Archives until `stop`: once an hour, and after each import. Looks after the bound on records too, since those that
    /// were seen come without an import.
    pub async fn run(self: Arc<Self>, clock: Arc<dyn Clock>, stop: CancellationToken) {
        loop {
            let (this, now) = (Arc::clone(&self), clock.now());
            match tokio::task::spawn_blocking(move || this.tidied(now)?.archive(now)).await {
                Ok(Ok(rows)) => tracing::debug!(rows, "anomaly scores were archived"),
                Ok(Err(error)) => tracing::error!(%error, "anomaly scores could not be archived"),
                Err(error) => tracing::error!(%error, "archiving anomaly scores broke off"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => {}
                () = sleep(clock.as_ref(), LOOK) => {}
            }
        }
    }

    /// Makes room where there are more records than allowed, unless an import is doing so.
    fn tidied(&self, now: Timestamp) -> Result<&Self, StoreError> {
        if let Ok(_permit) = self.importing.try_acquire() {
            for cluster in self.clusters()? {
                self.intake(&cluster, now)?.finish()?;
            }
        }
        Ok(self)
    }

    /// Writes the scores that are not those of the last row. Gives how many.
    pub(super) fn archive(&self, now: Timestamp) -> Result<u64, StoreError> {
        let day = window_start(now, DAY_MS);
        let mut rows = 0;
        for cluster in self.clusters()? {
            let mut scores = Scores::default();
            self.each(&cluster, Timestamp::from_millis(i64::MIN), |record| scores.add(record))?;
            let mut batch = Batch::new();
            for (host, counts) in scores.hosts().iter() {
                let Some(score) = counts.score() else { continue };
                let range = KeyRange::under(&(cluster.clone(), host.to_owned()));
                let last =
                    trees::HOST_SCORES.page(self.store.as_ref(), &range, Direction::Backward, 1)?.pop();
                if last.is_some_and(|(_, row)| row.score == score) {
                    continue;
                }
                let key = HostDayKey { cluster: cluster.clone(), host: host.to_owned(), day };
                batch.put(&trees::HOST_SCORES, &key, &HostScoreRecord { score })?;
                rows += 1;
                if batch.is_full() {
                    self.store.apply(std::mem::take(&mut batch))?;
                }
            }
            self.store.apply(batch)?;
        }
        if rows > 0 {
            self.store.flush()?;
        }
        Ok(rows)
    }

    /// The archived scores of a host, oldest first.
    ///
    /// # Errors
    /// Of the store.
    pub fn archived(&self, cluster: &ClusterId, host: &str) -> Result<Vec<Archived>, StoreError> {
        let range = KeyRange::under(&(cluster.clone(), host.to_owned()));
        let mut rows = Vec::new();
        let take = |key: HostDayKey, row: HostScoreRecord| {
            rows.push(Archived { day: key.day, score: row.score });
            if rows.len() < ROWS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        trees::HOST_SCORES.scan(self.store.as_ref(), &range, Direction::Backward, OnDamage::Skip, take)?;
        rows.reverse();
        Ok(rows)
    }
}
