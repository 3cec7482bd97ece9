//! Files that are either whole or not there: written under a working name, renamed when done.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::CliError;

/// A file under a working name; its name goes with it, whether the content became whole or not.
pub struct WholeFile {
    working: PathBuf,
    wanted: PathBuf,
    force: bool,
    /// Where to write.
    pub file: File,
}

impl WholeFile {
    /// Begins a file, readable to its owner alone. Only with `force` it replaces one that exists.
    ///
    /// # Errors
    /// When the name is taken or its folder can not be written.
    pub fn begin(wanted: &Path, force: bool) -> Result<Self, CliError> {
        if !force && wanted.symlink_metadata().is_ok() {
            return Err(taken(wanted));
        }
        let failed = |error: io::Error| failed(wanted, &error);
        let name = wanted.file_name().ok_or_else(|| failed(io::ErrorKind::IsADirectory.into()))?;
        let name = format!(".{}.partial-{}", name.to_string_lossy(), std::process::id());
        let working = folder(wanted).join(name);
        let file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&working).map_err(failed)?;
        Ok(Self { working, wanted: wanted.to_owned(), force, file })
    }

    /// Makes it durable under its name.
    ///
    /// # Errors
    /// When that fails, or the name was taken meanwhile.
    pub fn keep(self) -> Result<(), CliError> {
        let failed = |error: io::Error| failed(&self.wanted, &error);
        self.file.sync_all().map_err(failed)?;
        if self.force {
            fs::rename(&self.working, &self.wanted).map_err(failed)?;
        } else {
            // A link, unlike a rename, never replaces what appeared meanwhile.
            fs::hard_link(&self.working, &self.wanted).map_err(|error| {
                if error.kind() == io::ErrorKind::AlreadyExists { taken(&self.wanted) } else { failed(error) }
            })?;
        }
        File::open(folder(&self.wanted)).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        // After a rename it is gone already.
        _ = fs::remove_file(&self.working);
    }
}

/// What a failed write to `file` means.
#[must_use]
pub fn failed(file: &Path, error: &io::Error) -> CliError {
    CliError::Failed(format!("can not write {}: {error}", file.display()))
}

fn taken(file: &Path) -> CliError {
    CliError::Failed(format!("{} exists; take another name, or replace it with --force", file.display()))
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
