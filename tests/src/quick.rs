//! Time that runs faster than the world's, and a store that ends its process at a chosen write: what a test needs that
//! kills the executor again and again.

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evenkeel_aggregator::store::tree::TreeId;
use evenkeel_aggregator::store::{
    Batch, Direction, KeyRange, Scrubbed, SledStore, Store, StoreError, Visit, VisitKey,
};
use evenkeel_common::time::Timestamp;
use evenkeel_runtime::clock::{Clock, SystemClock};
use futures_util::future::BoxFuture;

/// Seconds of this time to one of the world's.
pub const SPEED: i64 = 20;

/// A clock that runs [`SPEED`] times as fast as the world's since a moment that several processes agree on.
#[derive(Debug)]
pub struct QuickClock {
    world: SystemClock,
    epoch_ms: i64,
}

impl QuickClock {
    /// Both times are equal at `epoch_ms`, milliseconds since 1970.
    #[must_use]
    pub fn since(epoch_ms: i64) -> Self {
        Self { world: SystemClock::new(), epoch_ms }
    }
}

impl Clock for QuickClock {
    fn now(&self) -> Timestamp {
        let passed = self.world.now().as_millis() - self.epoch_ms;
        Timestamp::from_millis(self.epoch_ms + SPEED * passed)
    }

    fn uptime(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.now().as_millis() - self.epoch_ms).unwrap_or(0))
    }

    fn sleep_until(&self, uptime: Duration) -> BoxFuture<'static, ()> {
        let left = uptime.saturating_sub(self.uptime()) / u32::try_from(SPEED).unwrap_or(1);
        self.world.sleep_until(self.world.uptime() + left)
    }
}

/// Where a process ends itself, as if it had been killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fatal {
    /// Before this batch is applied.
    Before(u64),
    /// Once it is applied and not yet flushed.
    Applied(u64),
    /// Once it is flushed.
    After(u64),
}

impl FromStr for Fatal {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is none of before:N, applied:N, after:N");
        let (place, number) = text.split_once(':').ok_or_else(bad)?;
        let number = number.parse().map_err(|_| bad())?;
        match place {
            "before" => Ok(Self::Before(number)),
            "applied" => Ok(Self::Applied(number)),
            "after" => Ok(Self::After(number)),
            _ => Err(bad()),
        }
    }
}

/// A sled store whose process ends at a chosen batch.
pub struct FatalStore {
    inner: SledStore,
    fatal: Option<Fatal>,
    batches: AtomicU64,
}

impl FatalStore {
    /// Batches count from 1, from now on.
    #[must_use]
    pub fn new(inner: SledStore, fatal: Option<Fatal>) -> Self {
        Self { inner, fatal, batches: AtomicU64::new(0) }
    }

    /// Ends the process without a chance to tidy up, where it is told to.
    fn pass(&self, place: Fatal) {
        if self.fatal == Some(place) {
            std::process::abort();
        }
    }
}

impl Store for FatalStore {
    fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(tree, key)
    }

    fn scan(
        &self,
        tree: TreeId,
        range: &KeyRange,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.inner.scan(tree, range, direction, visit)
    }

    fn scan_keys(
        &self,
        tree: TreeId,
        range: &KeyRange,
        direction: Direction,
        visit: &mut VisitKey<'_>,
    ) -> Result<(), StoreError> {
        self.inner.scan_keys(tree, range, direction, visit)
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let number = self.batches.fetch_add(1, Ordering::Relaxed) + 1;
        self.pass(Fatal::Before(number));
        self.inner.apply(batch)?;
        self.pass(Fatal::Applied(number));
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush()?;
        self.pass(Fatal::After(self.batches.load(Ordering::Relaxed)));
        Ok(())
    }

    fn size_on_disk(&self) -> Result<u64, StoreError> {
        self.inner.size_on_disk()
    }

    fn scrub(&self, rows: usize) -> Result<Scrubbed, StoreError> {
        self.inner.scrub(rows)
    }

    fn maintain(&self) -> Result<(), StoreError> {
        self.inner.maintain()
    }
}
