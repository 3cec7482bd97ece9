//! Small files that must be whole and private: keys, tokens, certificates.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Why a file can not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It can not be read.
    #[error("can not read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It can not be written.
    #[error("can not write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is larger than such a file can sensibly be.
    #[error("{} is larger than {limit} bytes; is this the right file?", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// The largest size read, in bytes.
        limit: u64,
    },
    /// It is text, but not UTF-8.
    #[error("{} is not UTF-8 text; is this the right file?", path.display())]
    NotText {
        /// Which.
        path: PathBuf,
    },
    /// It holds a secret and others may read it.
    #[error("{} holds a secret, but others may read it (mode {mode:04o}); run: chmod 0600 {}", path.display(), path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// Reads a text of at most `limit` bytes.
///
/// # Errors
/// [`FileError`] when it can not be read, is larger, or is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String, FileError> {
    let failed = |source| FileError::Read { path: path.into(), source };
    let mut bytes = Vec::new();
    // Bounded while reading: a size asked for beforehand says nothing about a pipe or a growing file.
    File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLarge { path: path.into(), limit });
    }
    String::from_utf8(bytes).map_err(|_| FileError::NotText { path: path.into() })
}

/// Refuses a secret that everybody may read or its group may write. A group that may read is fine: that is how a
/// key is shared with a service user.
///
/// # Errors
/// [`FileError::Exposed`], or [`FileError::Read`] when the file can not be looked at.
pub fn check_private(path: &Path) -> Result<(), FileError> {
    let metadata = fs::metadata(path).map_err(|source| FileError::Read { path: path.into(), source })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o037 != 0 { Err(FileError::Exposed { path: path.into(), mode }) } else { Ok(()) }
}

/// Makes a directory, and those above it, that only its owner may enter. One that exists is left as it is.
///
/// # Errors
/// [`FileError::Write`].
pub fn private_dir(path: &Path) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| FileError::Write { path: path.into(), source })
}

/// Replaces a file as a whole, durably: after a crash it holds the old content or the new, never a part. Its mode
/// is `mode` from the first byte on. Writers of the same file must take turns.
///
/// # Errors
/// [`FileError::Write`]; the old content then stands.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let mut replacement = Replacement::begin(path, mode)?;
    replacement.write(content)?;
    replacement.commit()
}

/// The new content of a file, written piece by piece, which takes the place of the old as [`write_atomic`] does.
#[derive(Debug)]
pub struct Replacement {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    mode: u32,
}

impl Replacement {
    /// Begins beside the file, which stays as it is until [`Self::commit`].
    ///
    /// # Errors
    /// [`FileError::Write`].
    pub fn begin(path: &Path, mode: u32) -> Result<Self, FileError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let temporary = path.with_file_name(name);
        // A left-over of a killed writer may have any mode; a fresh file has ours.
        let fresh = match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary),
        };
        let file = fresh.map_err(|source| FileError::Write { path: path.into(), source })?;
        Ok(Self { path: path.into(), temporary, file, mode })
    }

    /// Adds to the new content. What fails here leaves the old content in place.
    ///
    /// # Errors
    /// [`FileError::Write`].
    pub fn write(&mut self, content: &[u8]) -> Result<(), FileError> {
        self.file.write_all(content).map_err(|source| FileError::Write { path: self.path.clone(), source })
    }

    /// Makes the new content durable and puts it in place. Waits for the disk.
    ///
    /// # Errors
    /// [`FileError::Write`]; the old content then stands.
    pub fn commit(self) -> Result<(), FileError> {
        let Self { path, temporary, file, mode } = self;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let replace = || {
            // The umask may have taken bits away that others need, as of a certificate.
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(dir)?.sync_all()
        };
        replace().map_err(|source| FileError::Write { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn atomic_writes_replace_the_whole_and_set_the_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "old and longer").unwrap();
        fs::write(dir.path().join("secret.new"), "left over by a killed writer").unwrap();
        write_atomic(&path, b"new", 0o600).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("new", 0o600));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "no temporary file is left");
        let nowhere = dir.path().join("missing/secret");
        assert!(matches!(write_atomic(&nowhere, b"", 0o600), Err(FileError::Write { .. })));
    }

    #[test]
    fn exposed_secrets_are_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        for (bits, good) in
            [(0o600, true), (0o400, true), (0o640, true), (0o644, false), (0o660, false), (0o604, false)]
        {
            write_atomic(&path, b"x", bits).unwrap();
            let checked = check_private(&path);
            assert_eq!(checked.is_ok(), good, "{bits:o}");
            if let Err(error) = checked {
                assert!(
                    error.to_string().ends_with(&format!("run: chmod 0600 {}", path.display())),
                    "{error}"
                );
            }
        }
        let private = dir.path().join("a/b");
        private_dir(&private).unwrap();
        private_dir(&private).unwrap();
        assert_eq!((mode(&private), mode(&dir.path().join("a"))), (0o700, 0o700));
    }

    #[test]
    fn reading_is_bounded_and_wants_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "12345");
        assert!(matches!(read_text(&path, 4), Err(FileError::TooLarge { limit: 4, .. })));
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(matches!(read_text(&path, 5), Err(FileError::NotText { .. })));
        assert!(matches!(read_text(Path::new("/dev/zero"), 5), Err(FileError::TooLarge { .. })));
        assert!(matches!(read_text(dir.path(), 5), Err(FileError::Read { .. })));
    }
}
