//! Files of the kernel that are read again and again: opened once, then re-read from the start.
//!
//! Opening costs more than reading, so files stay open as far as the process's limit on open files allows;
//! the rest is opened for each reading. A cgroup or process that ended answers an old handle with an error,
//! never with old contents; the path is then opened again, because a successor may live there.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Largest ordinary file that is read; longer ones are refused.
pub(crate) const RECORD_LIMIT: usize = 64 << 10;
/// Largest table that is read: one line for each NIC, disk, mount or process, or `/proc/stat` of a large host.
pub(crate) const TABLE_LIMIT: usize = 1 << 20;
/// How long a file that is not there is left alone before it is looked for again.
const ABSENCE: Duration = Duration::from_secs(10);
/// `errno` of a pressure file on a kernel that was booted without pressure information.
const EOPNOTSUPP: i32 = 95;
/// `errno` of a handle whose cgroup ended.
const ENODEV: i32 = 19;
/// `errno` of a handle whose process ended.
const ESRCH: i32 = 3;

/// Why a source has no value.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The file is not there.
    #[error(
        "{path} does not exist: check that /proc and /sys are mounted and that the agent's unit does not hide them (ProcSubset=, InaccessiblePaths=)"
    )]
    Absent {
        /// Which.
        path: PathBuf,
    },
    /// The file is there but can not be read.
    #[error("can not read {path} ({kind}): let the agent's user read it")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        kind: ErrorKind,
        /// The same in full.
        #[source]
        source: io::Error,
    },
    /// The file is larger than any honest one.
    #[error(
        "{path} is larger than {limit} bytes and was refused: report it, with its size, if the host really is that large"
    )]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// The most that is read.
        limit: usize,
    },
    /// The contents are damaged, or this kernel writes them in another form.
    #[error("{path} is not {expected}: no values from it; report it, with its contents, if it stays so")]
    Format {
        /// Which.
        path: PathBuf,
        /// What it should have been.
        expected: &'static str,
    },
    /// More of something than the agent is set to watch.
    #[error("more than {limit} {what}: the rest is not watched; raise the agent's limit")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

/// How the kernel hands a file out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// In one piece: a read that does not fill the buffer is the whole file.
    Record,
    /// Line by line, a page at a time: only an empty read ends it.
    Table,
}

/// A file to be read at each tick.
#[derive(Debug)]
pub(crate) struct KeptFile {
    path: PathBuf,
    shape: Shape,
    limit: usize,
    handle: Option<Handle>,
    absent_until: Option<Duration>,
}

impl KeptFile {
    /// A file that the kernel hands out in one piece.
    pub(crate) fn record(path: PathBuf) -> Self {
        Self { path, shape: Shape::Record, limit: RECORD_LIMIT, handle: None, absent_until: None }
    }

    /// A file that the kernel hands out line by line.
    pub(crate) fn table(path: PathBuf) -> Self {
        Self { path, shape: Shape::Table, limit: TABLE_LIMIT, handle: None, absent_until: None }
    }

    /// The same with another size limit.
    pub(crate) fn limited_to(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// The error for contents that do not parse.
    pub(crate) fn malformed(&self, expected: &'static str) -> CollectError {
        CollectError::Format { path: self.path.clone(), expected }
    }
}

/// An open file that counts against the limit while it lives.
#[derive(Debug)]
struct Handle {
    file: File,
    open: Arc<AtomicUsize>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads files into one buffer that is used over and over.
#[derive(Debug)]
pub(crate) struct Files {
    buffer: Vec<u8>,
    open: Arc<AtomicUsize>,
    max_open: usize,
    /// Whether the limit on open files made a reading dearer.
    pub(crate) short_of_handles: bool,
}

impl Files {
    /// Keeps at most `max_open` files open.
    pub(crate) fn new(max_open: usize) -> Self {
        Self { buffer: vec![0; 16 << 10], open: Arc::default(), max_open, short_of_handles: false }
    }

    /// The file's contents now; `None` where there is no such file, which is then left alone for a while.
    ///
    /// # Errors
    /// [`CollectError::Read`] and [`CollectError::TooLarge`].
    pub(crate) fn read(
        &mut self,
        kept: &mut KeptFile,
        uptime: Duration,
    ) -> Result<Option<&[u8]>, CollectError> {
        if kept.absent_until.is_some_and(|until| uptime < until) {
            return Ok(None);
        }
        if let Some(handle) = &kept.handle {
            match fill(&mut self.buffer, &handle.file, kept.shape, kept.limit) {
                Ok(Some(length)) => return Ok(Some(&self.buffer[..length])),
                Ok(None) => return Err(too_large(&kept.path, kept.limit)),
                Err(_) => kept.handle = None,
            }
        }
        let opened = File::open(&kept.path).and_then(|file| {
            fill(&mut self.buffer, &file, kept.shape, kept.limit).map(|length| (file, length))
        });
        match opened {
            Ok((file, length)) => {
                kept.absent_until = None;
                kept.handle = self.keep(file);
                match length {
                    Some(length) => Ok(Some(&self.buffer[..length])),
                    None => Err(too_large(&kept.path, kept.limit)),
                }
            }
            Err(error) if is_absence(&error) => {
                kept.absent_until = Some(uptime + ABSENCE);
                Ok(None)
            }
            Err(source) => Err(CollectError::Read { path: kept.path.clone(), kind: source.kind(), source }),
        }
    }

    /// The contents of a file that must be there.
    ///
    /// # Errors
    /// Those of [`Self::read`], and [`CollectError::Absent`].
    pub(crate) fn need(&mut self, kept: &mut KeptFile, uptime: Duration) -> Result<&[u8], CollectError> {
        match self.read(kept, uptime)? {
            Some(text) => Ok(text),
            None => Err(CollectError::Absent { path: kept.path.clone() }),
        }
    }

    /// The contents of a file that is read rarely; `None` where there is no such file.
    ///
    /// # Errors
    /// [`CollectError::Read`] and [`CollectError::TooLarge`].
    pub(crate) fn read_once(&mut self, path: &Path, limit: usize) -> Result<Option<&[u8]>, CollectError> {
        let opened = File::open(path).and_then(|file| fill(&mut self.buffer, &file, Shape::Table, limit));
        match opened {
            Ok(Some(length)) => Ok(Some(&self.buffer[..length])),
            Ok(None) => Err(too_large(path, limit)),
            Err(error) if is_absence(&error) => Ok(None),
            Err(source) => Err(CollectError::Read { path: path.to_owned(), kind: source.kind(), source }),
        }
    }

    /// Keeps a file open if the limit allows.
    fn keep(&mut self, file: File) -> Option<Handle> {
        if self.open.load(Ordering::Relaxed) >= self.max_open {
            self.short_of_handles = true;
            return None;
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(Handle { file, open: Arc::clone(&self.open) })
    }
}

fn too_large(path: &Path, limit: usize) -> CollectError {
    CollectError::TooLarge { path: path.to_owned(), limit }
}

/// Whether the thing behind the file is simply not there (any more).
fn is_absence(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || matches!(error.raw_os_error(), Some(EOPNOTSUPP | ENODEV | ESRCH))
}

/// Reads from the start; gives the length, or `None` when there is more than `limit`.
fn fill(buffer: &mut Vec<u8>, file: &File, shape: Shape, limit: usize) -> io::Result<Option<usize>> {
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            buffer.resize(buffer.len() * 2, 0);
        }
        let end = buffer.len().min(limit + 1);
        let read = match file.read_at(&mut buffer[filled..end], filled as u64) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        };
        filled += read;
        if filled > limit {
            return Ok(None);
        }
        if read == 0 || (shape == Shape::Record && filled < end) {
            return Ok(Some(filled));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_kept_file_shows_what_it_holds_now() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "first\n").unwrap();
        let mut files = Files::new(8);
        for mut kept in [KeptFile::record(path.clone()), KeptFile::table(path.clone())] {
            fs::write(&path, "first\n").unwrap();
            assert_eq!(files.need(&mut kept, at(1)).unwrap(), b"first\n");
            fs::write(&path, "2\n").unwrap();
            assert_eq!(files.need(&mut kept, at(2)).unwrap(), b"2\n");
            let long = "x".repeat(50_000);
            fs::write(&path, &long).unwrap();
            assert_eq!(files.need(&mut kept, at(3)).unwrap(), long.as_bytes());
        }
    }

    #[test]
    fn too_much_is_refused_and_absence_is_remembered_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let (mut files, mut kept) = (Files::new(8), KeptFile::record(path.clone()));
        assert!(files.read(&mut kept, at(1)).unwrap().is_none());
        assert!(matches!(files.need(&mut kept, at(2)), Err(CollectError::Absent { .. })));
        fs::write(&path, vec![b'x'; RECORD_LIMIT]).unwrap();
        assert!(files.read(&mut kept, at(2)).unwrap().is_none());
        assert_eq!(files.need(&mut kept, at(11)).unwrap().len(), RECORD_LIMIT);
        fs::write(&path, vec![b'x'; RECORD_LIMIT + 1]).unwrap();
        assert!(matches!(files.read(&mut kept, at(12)), Err(CollectError::TooLarge { .. })));
    }

    #[test]
    fn handles_are_bounded_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::new(2);
        let mut kept: Vec<_> = (0..3)
            .map(|n| {
                let path = dir.path().join(n.to_string());
                fs::write(&path, format!("{n}\n")).unwrap();
                KeptFile::record(path)
            })
            .collect();
        for (n, file) in kept.iter_mut().enumerate() {
            assert_eq!(files.need(file, at(1)).unwrap(), format!("{n}\n").as_bytes());
        }
        assert_eq!(kept.iter().filter(|k| k.handle.is_some()).count(), 2);
        assert!(files.short_of_handles);
        kept.remove(0);
        assert!(files.need(&mut kept[1], at(2)).is_ok());
        assert!(kept[1].handle.is_some());
    }

    #[test]
    fn a_process_that_ended_is_absent_not_stale() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut files = Files::new(8);
        let mut kept = KeptFile::record(format!("/proc/{}/stat", child.id()).into());
        assert!(files.read(&mut kept, at(1)).unwrap().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(files.read(&mut kept, at(2)).unwrap().is_none());
    }
}
