//! The data directory around the engine: who may use it, what a killed process left behind, what is synced.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::store::error::StoreError;

/// A data directory that this process, and no other, may use until it is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

pub(super) fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_path_buf();
    move |source| StoreError::File { action, path, source }
}

impl Directory {
    /// Creates the directory if need be (mode 0700: it holds names and addresses of guests) and takes its lock.
    pub(super) fn take(path: &Path) -> Result<Self, StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(file_error("create the directory", path))?;
        let lock = take_lock(path)?;
        Ok(Self { path: path.to_path_buf(), _lock: lock })
    }

    /// Removes and repairs what a kill or a power cut during start-up leaves and sled can not open. Only under the
    /// lock: a living process may be writing just these files.
    pub(super) fn clear_leftovers(&self) -> Result<(), StoreError> {
        let entries = fs::read_dir(&self.path).map_err(file_error("list", &self.path))?;
        for entry in entries {
            let path = entry.map_err(file_error("list", &self.path))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // sled writes `snap.X.generating` and renames it. It takes whatever sorts last among `snap.*` for the
            // newest snapshot, and a half-written one makes every later start fail.
            if name.starts_with("snap.") && name.ends_with(".generating") {
                tracing::info!(file = %path.display(), "Removing a snapshot that an ended process left half-written.");
                fs::remove_file(&path).map_err(file_error("remove", &path))?;
            }
        }
        self.repair_settings()
    }

    /// sled writes its file `conf` in place and without fsync. A torn one stops every later start, though nothing in
    /// it can differ between our stores: without it, sled writes it anew.
    fn repair_settings(&self) -> Result<(), StoreError> {
        let path = self.path.join("conf");
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            read => read.map_err(file_error("read", &path))?,
        };
        let whole = bytes
            .split_last_chunk::<4>()
            .is_some_and(|(text, crc)| crc32fast::hash(text) == u32::from_le_bytes(*crc));
        if !whole {
            tracing::warn!(file = %path.display(), "Removing a torn settings file; it will be written anew.");
            fs::remove_file(&path).map_err(file_error("remove", &path))?;
        }
        Ok(())
    }

    /// Makes the files themselves last: sled syncs neither its settings nor any directory, so that after a power cut
    /// a new store, or the newest snapshot, could be missing with all that was acknowledged.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let parent = self.path.canonicalize().ok().and_then(|path| path.parent().map(Path::to_path_buf));
        let paths =
            [self.path.join("conf"), self.path.join("db"), self.path.join("blobs"), self.path.clone()];
        for path in paths.into_iter().chain(parent) {
            File::open(&path).and_then(|file| file.sync_all()).map_err(file_error("sync", &path))?;
        }
        Ok(())
    }
}

/// Locks the file `lock` and writes into it who we are, for the error message of the next one.
fn take_lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(file_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StoreError::Locked { dir: dir.to_path_buf(), holder: holder(&mut file) });
        }
        Err(TryLockError::Error(source)) => return Err(file_error("lock", &path)(source)),
    }
    // On a full disk there may be no room for a number; the lock holds all the same.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    let pid = lock.take(20).read_to_string(&mut text).ok().and_then(|_| text.trim().parse::<u32>().ok());
    let Some(pid) = pid else { return "another process".into() };
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("process {pid} ({})", name.trim().escape_debug()),
        Err(_) => format!("process {pid}"),
    }
}
