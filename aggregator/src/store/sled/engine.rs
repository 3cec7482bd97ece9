//! The engine behind a wall: every call into sled goes through here, where a panic becomes an error and the first
//! failed write is the last one tried.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use super::ballast::{self, Ballast};
use super::ledger::Mark;
use crate::store::config::StoreConfig;
use crate::store::error::StoreError;

/// sled, its directory, and whether it may still be trusted.
pub(super) struct Engine {
    pub(super) db: ::sled::Db,
    pub(super) dir: PathBuf,
    /// Batches applied since the store was created.
    pub(super) batches: AtomicU64,
    poison: OnceLock<String>,
}

impl Engine {
    pub(super) fn new(db: ::sled::Db, dir: PathBuf) -> Self {
        Self { db, dir, batches: AtomicU64::new(0), poison: OnceLock::new() }
    }

    /// Refuses once a write has failed.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self.poison.get() {
            Some(cause) => Err(StoreError::Poisoned { dir: self.dir.clone(), cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Remembers the first failed write: after it nobody knows what the disk holds, and a second fsync may claim
    /// success for data the kernel has dropped.
    pub(super) fn poison(&self, cause: String) -> StoreError {
        let cause = self.poison.get_or_init(|| {
            tracing::error!(dir = %self.dir.display(), %cause, "A write failed; the store takes nothing more.");
            cause
        });
        StoreError::Poisoned { dir: self.dir.clone(), cause: cause.clone() }
    }

    pub(super) fn read<T>(&self, f: impl FnOnce(&::sled::Db) -> ::sled::Result<T>) -> Result<T, StoreError> {
        self.check()?;
        contain(|| f(&self.db)).map_err(|problem| match self.db.context.global_error() {
            // A read waits for the writes before it, and fails with them.
            Err(cause) => self.poison(cause.to_string()),
            Ok(()) => self.damaged(&problem),
        })
    }

    pub(super) fn damaged(&self, problem: &str) -> StoreError {
        StoreError::DamagedFiles { dir: self.dir.clone(), problem: problem.into() }
    }

    pub(super) fn write<T>(&self, f: impl FnOnce(&::sled::Db) -> ::sled::Result<T>) -> Result<T, StoreError> {
        self.check()?;
        contain(|| f(&self.db)).map_err(|cause| self.poison(cause))
    }
}

/// Opens sled. It may find its own lock taken for a moment after a store in this process was closed, because its
/// background threads still hold the file; our lock says that nobody else does.
pub(super) fn open_engine(
    dir: &Path,
    config: &StoreConfig,
    ballast: &Ballast,
) -> Result<::sled::Db, StoreError> {
    let options = || {
        ::sled::Config::new()
            .path(dir)
            .cache_capacity(u64::from(config.cache_mib) << 20)
            .mode(::sled::Mode::LowSpace)
            // We say when: its own flush thread would only add writes between our batches and our fsync.
            .flush_every_ms(None)
    };
    let mut released = false;
    for attempt in 0..200 {
        let mut full = false;
        let opened = contain(|| {
            options().open().inspect_err(|error| {
                full = matches!(error, ::sled::Error::Io(error) if ballast::is_full(error));
            })
        });
        match opened {
            Ok(db) => return Ok(db),
            Err(_) if full && !released => {
                ballast.release()?;
                released = true;
            }
            Err(_) if full => {
                return Err(StoreError::DiskFull { dir: dir.to_path_buf(), need_mib: ballast.wanted_mib() });
            }
            Err(problem) if problem.contains("could not acquire lock") && attempt < 199 => {
                std::thread::sleep(Duration::from_millis(25));
            }
            Err(problem) => return Err(StoreError::DamagedFiles { dir: dir.to_path_buf(), problem }),
        }
    }
    let problem = "it could not be opened in 200 attempts".into();
    Err(StoreError::DamagedFiles { dir: dir.to_path_buf(), problem })
}

/// Runs a call into sled. It panics on some damage and on failed writes: here that is one more error.
pub(super) fn contain<T>(f: impl FnOnce() -> ::sled::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => Err(panic_text(panic.as_ref())),
    }
}

pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("the engine gave up: {}", text.unwrap_or("unknown cause"))
}

/// How the database file is synced: [`File::sync_data`], or a failure made by a test.
pub(super) type Sync = fn(&File) -> io::Result<()>;

type Reply = Sender<Result<(), String>>;

/// Flushes on a thread of its own, for two reasons. Callers that wait at the same time share one fsync. And when a
/// write of sled's background threads fails, its `flush` may wait for ever for a wake-up that is never sent; from
/// outside, the failure can be seen.
pub(super) struct Flusher {
    requests: Option<SyncSender<Reply>>,
    thread: Option<JoinHandle<()>>,
}

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// One minute: beyond it systemd's watchdog would end the process anyway.
const LOOKS: u32 = 600;

impl Flusher {
    /// `file` is the database file.
    pub(super) fn start(engine: Arc<Engine>, file: File, sync: Sync, mark: Mark) -> Result<Self, StoreError> {
        let (requests, inbox) = sync_channel::<Reply>(64);
        let dir = engine.dir.clone();
        let thread = std::thread::Builder::new()
            .name("store-flush".into())
            .spawn(move || serve(&inbox, &engine, &file, sync, &mark))
            .map_err(|source| StoreError::File { action: "start the flush thread for", path: dir, source })?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Returns when everything applied before is on the medium.
    pub(super) fn flush(&self, engine: &Engine) -> Result<(), StoreError> {
        engine.check()?;
        let (reply, answer) = channel();
        let sent = self.requests.as_ref().is_some_and(|requests| requests.send(reply).is_ok());
        if !sent {
            return Err(engine.poison("the flush thread has ended".into()));
        }
        for _ in 0..LOOKS {
            match answer.recv_timeout(LOOK_EVERY) {
                Ok(result) => return result.map_err(|cause| engine.poison(cause)),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(engine.poison("the flush thread has ended".into()));
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = engine.db.context.global_error() {
                        return Err(engine.poison(error.to_string()));
                    }
                }
            }
        }
        Err(engine.poison("a flush did not end within a minute".into()))
    }

    /// Ends the thread; one that hangs in a failed engine is left alone.
    pub(super) fn stop(&mut self, engine: &Engine) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && engine.check().is_ok()
        {
            let _ = thread.join();
        }
    }
}

fn serve(inbox: &Receiver<Reply>, engine: &Engine, file: &File, sync: Sync, mark: &Mark) {
    while let Ok(first) = inbox.recv() {
        let waiting: Vec<Reply> = std::iter::once(first).chain(inbox.try_iter()).collect();
        let batches = engine.batches.load(Ordering::Acquire);
        // sled's flush hands its buffers to the kernel and waits with `sync_file_range` until the pages are written,
        // which leaves out the file's metadata (its length!) and the disk's own cache. Only fsync covers them.
        let result =
            contain(|| engine.db.flush()).and_then(|_| sync(file).map_err(|error| format!("fsync: {error}")));
        if result.is_ok() {
            mark.set(batches);
        }
        for reply in waiting {
            let _ = reply.send(result.clone());
        }
    }
}
