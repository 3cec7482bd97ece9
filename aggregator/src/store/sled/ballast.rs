//! Room in reserve. sled can neither open nor delete on a full disk, since both append to its log; so a file of the
//! data directory keeps some room that is given back when there is none left.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::files::file_error;
use crate::store::error::StoreError;

const PIECE: usize = 1 << 20;
/// Room that opening takes at most: a snapshot of the page table and the rest of a log segment.
const PROBE_PIECES: u32 = 8;

/// The ballast file of a data directory.
#[derive(Debug)]
pub(super) struct Ballast {
    dir: PathBuf,
    mib: u32,
}

/// Whether an error means that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

impl Ballast {
    pub(super) fn new(dir: &Path, mib: u32) -> Self {
        Self { dir: dir.to_path_buf(), mib }
    }

    /// Gives the room back if opening the engine would not find enough. Asked before and not only after a failure,
    /// because sled may also wait for ever when a write fails.
    pub(super) fn release_if_full(&self) -> Result<(), StoreError> {
        let probe = self.dir.join("probe");
        let written = fill(&probe, self.mib.min(PROBE_PIECES));
        let _ = fs::remove_file(&probe);
        match written {
            Err(error) if is_full(&error) => self.release(),
            Err(error) => Err(file_error("write", &probe)(error)),
            Ok(_) => Ok(()),
        }
    }

    /// Gives the room back.
    pub(super) fn release(&self) -> Result<(), StoreError> {
        let path = self.path();
        match fs::remove_file(&path) {
            Ok(()) => {
                tracing::error!(
                    dir = %self.dir.display(), mib = self.mib,
                    "The disk is full: gave the ballast back to open the store. Free some room."
                );
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(file_error("remove", &path)(error)),
        }
    }

    /// Creates the file if it is not there whole. `false` = there is no room for it twice: with just enough room
    /// for it the next write would fail again.
    pub(super) fn restore(&self) -> Result<bool, StoreError> {
        let path = self.path();
        let size = u64::from(self.mib) << 20;
        match fs::metadata(&path) {
            Ok(meta) if meta.len() == size && self.mib > 0 => return Ok(true),
            Ok(_) => fs::remove_file(&path).map_err(file_error("remove", &path))?,
            Err(_) => {}
        }
        if self.mib == 0 {
            return Ok(true);
        }
        let new = self.dir.join("ballast.new");
        let made = fill(&new, self.mib.saturating_mul(2))
            .and_then(|file| file.set_len(size).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&new, &path));
        match made {
            Ok(()) => {
                tracing::info!(file = %path.display(), mib = self.mib, "Made the ballast file.");
                Ok(true)
            }
            Err(error) => {
                let _ = fs::remove_file(&new);
                if is_full(&error) { Ok(false) } else { Err(file_error("write", &new)(error)) }
            }
        }
    }

    /// Free room in MiB that [`Ballast::restore`] asks for.
    pub(super) fn wanted_mib(&self) -> u64 {
        u64::from(self.mib.max(1)) * 2
    }

    fn path(&self) -> PathBuf {
        self.dir.join("ballast")
    }
}

/// Writes a file of so many MiB that no file system can store in less.
fn fill(path: &Path, mib: u32) -> io::Result<File> {
    let mut file = File::create(path)?;
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut piece = vec![0; PIECE];
    for _ in 0..mib {
        // Xorshift: zeros would vanish in ZFS' compression.
        for word in piece.as_chunks_mut::<8>().0 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *word = state.to_le_bytes();
        }
        file.write_all(&piece)?;
    }
    Ok(file)
}
