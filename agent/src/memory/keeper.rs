//! When what was learned is written: every five minutes, a few series a tick, and all at once at the end.

use std::path::PathBuf;
use std::time::Duration;

use evenkeel_common::id::Vmid;
use evenkeel_common::sample::SeriesId;
use evenkeel_common::time::Timestamp;
use evenkeel_runtime::files::FileError;
use tokio::task::JoinHandle;

use super::Save;
use crate::watch::Watcher;

/// Between two files: what a crash costs at most.
const EVERY: Duration = Duration::from_secs(300);
/// Series and guests written in one tick: about a millisecond of work (see `agent/examples/memory_cost.rs`).
const SERIES_A_TICK: usize = 128;
const GUESTS_A_TICK: usize = 32;

/// Keeps the file.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    next: Duration,
    under_way: Option<UnderWay>,
    /// The file's way to the disk, which no tick waits for.
    writing: Option<JoinHandle<Result<(), FileError>>>,
    failing: bool,
}

#[derive(Debug)]
struct UnderWay {
    save: Save,
    series: Vec<SeriesId>,
    guests: Vec<Vmid>,
}

impl Keeper {
    /// Of the file `path`, from `uptime` on.
    #[must_use]
    pub fn new(path: PathBuf, uptime: Duration) -> Self {
        Self { path, next: uptime.saturating_add(EVERY), under_way: None, writing: None, failing: false }
    }

    /// Writes a piece when one is due. Needs a tokio runtime.
    pub async fn tick(&mut self, watcher: &Watcher, now: Timestamp, uptime: Duration) {
        if self.writing.as_ref().is_some_and(JoinHandle::is_finished) {
            self.written().await;
        }
        if self.under_way.is_none() && self.writing.is_none() && uptime >= self.next {
            self.next = uptime.saturating_add(EVERY);
            let begun = self.begin(watcher, now);
            self.told(begun);
        }
        let Some(under_way) = &mut self.under_way else { return };
        match under_way.piece(watcher) {
            Ok(false) => {}
            Ok(true) => {
                if let Some(UnderWay { save, .. }) = self.under_way.take() {
                    self.writing = Some(tokio::task::spawn_blocking(|| save.finish()));
                }
            }
            Err(error) => {
                self.under_way = None;
                self.told(Err(error));
            }
        }
    }

    /// Writes everything at once, at the end.
    pub async fn finish(&mut self, watcher: &Watcher, now: Timestamp) {
        // There is one temporary file: its last writer must be done with it.
        self.written().await;
        let written = self.begin(watcher, now).and_then(|()| {
            let Some(mut under_way) = self.under_way.take() else { return Ok(()) };
            while !under_way.piece(watcher)? {}
            under_way.save.finish()
        });
        self.told(written);
    }

    fn begin(&mut self, watcher: &Watcher, now: Timestamp) -> Result<(), FileError> {
        let mut save = Save::begin(&self.path, watcher.interval(), now)?;
        if let Some(node) = watcher.learned_node() {
            save.node(node)?;
        }
        self.under_way =
            Some(UnderWay { save, series: watcher.ids().collect(), guests: watcher.vmids().collect() });
        Ok(())
    }

    async fn written(&mut self) {
        if let Some(Ok(outcome)) = match self.writing.take() {
            Some(writing) => Some(writing.await),
            None => None,
        } {
            self.told(outcome);
        }
    }

    /// Logs the first failure of several.
    fn told(&mut self, outcome: Result<(), FileError>) {
        match outcome {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!(
                    error = %crate::uplink::chain(&error),
                    "what was learned can not be kept for the next start; is the disk full?"
                );
            }
            Err(_) => {}
        }
    }
}

impl UnderWay {
    /// Writes some; true when nothing is left. Series and guests that ended meanwhile are left out.
    fn piece(&mut self, watcher: &Watcher) -> Result<bool, FileError> {
        let rest = self.series.len().saturating_sub(SERIES_A_TICK);
        let some = self.series.drain(rest..).filter_map(|id| watcher.learned(id));
        self.save.series(some)?;
        let rest = self.guests.len().saturating_sub(GUESTS_A_TICK);
        for vmid in self.guests.drain(rest..) {
            if let Some((facts, profiler)) = watcher.learned_guest(vmid) {
                self.save.guest(facts, profiler)?;
            }
        }
        Ok(self.series.is_empty() && self.guests.is_empty())
    }
}
