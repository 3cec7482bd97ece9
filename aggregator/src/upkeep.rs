//! Upkeep of the store, in the background: what has expired goes, the reserve of disk space is looked after, and
//! everything is read again and again, because damage shows only to those who look.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evenkeel_runtime::clock::{Clock, sleep};
use tokio_util::sync::CancellationToken;

use crate::ingest::Counts;
use crate::store::{Store, StoreConfig, StoreError, retention};

/// Between two looks for expired data and at the disk space.
const SWEEP: Duration = Duration::from_mins(10);
/// Between two stretches of the scrub.
const SCRUB: Duration = Duration::from_secs(10);
/// Rows of a stretch: writers wait a few milliseconds for them; a million rows are read in about half a day.
const SCRUB_ROWS: usize = 200;

/// Works until `stop`.
pub async fn run(
    store: Arc<dyn Store>,
    limits: StoreConfig,
    clock: Arc<dyn Clock>,
    counts: Arc<Counts>,
    stop: CancellationToken,
) {
    let mut next_sweep = clock.uptime() + SWEEP;
    while stop.run_until_cancelled(sleep(clock.as_ref(), SCRUB)).await.is_some() {
        let scrubbed = Arc::clone(&store);
        let found = off("scrub", move || scrubbed.scrub(SCRUB_ROWS)).await;
        for damage in found.into_iter().flat_map(|scrubbed| scrubbed.damaged) {
            counts.damaged.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%damage, "the store is damaged");
        }
        if clock.uptime() < next_sweep {
            continue;
        }
        next_sweep = clock.uptime() + SWEEP;
        let (swept, limits, now) = (Arc::clone(&store), limits.clone(), clock.now());
        let expired = off("sweep", move || {
            let expired = retention::expire(swept.as_ref(), &limits, now)?;
            swept.maintain().map(|()| expired)
        });
        if let Some(expired) = expired.await {
            tracing::debug!(?expired, "expired data was removed");
        }
    }
}

/// Runs what blocks where it may block; a failure is told and does not end the upkeep.
async fn off<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Some(done),
        Ok(Err(error)) => {
            tracing::error!(what, %error, "upkeep of the store failed");
            None
        }
        Err(error) => {
            tracing::error!(what, %error, "upkeep of the store broke off");
            None
        }
    }
}
