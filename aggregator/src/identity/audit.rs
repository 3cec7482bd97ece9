//! What privileged callers did: one JSON line each, written durably before the call is answered, each holding the
//! hash of the line before it, so that a line changed or taken out afterwards shows.
//!
//! The chain shows tampering inside the log, not a cut at its end: whoever wants that too keeps the head that
//! [`verify`] returns somewhere else.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use evenkeel_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::roles::Role;
use super::sha256_hex;

/// Longest line read. One written is far below: its texts are cut to [`MAX_TEXT`].
const MAX_LINE: u64 = 64 << 10;
/// Longest text of an entry, in characters.
const MAX_TEXT: usize = 512;
/// What the first line holds in place of a hash.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Why the log can not be written or believed.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// It can not be read or written.
    #[error("can not use the audit log {}; privileged calls are refused until it can be written again", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An earlier write failed, so what the disk holds is not known.
    #[error("writing the audit log {} failed earlier; make room or replace the disk, then restart", path.display())]
    Broken {
        /// Which file.
        path: PathBuf,
    },
    /// A line is not one of ours or does not follow from the one before.
    #[error("the audit log {} was changed or damaged at line {line}: {detail}; keep it as evidence and move it away to start a new one", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Number of the line, from 1; 0 = the last one, found without counting.
        line: u64,
        /// What is wrong with it.
        detail: &'static str,
    },
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done.
    Done,
    /// Not allowed.
    Denied,
    /// Allowed, and failed.
    Failed,
}

/// One privileged call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, by the aggregator's wall clock.
    pub at: Timestamp,
    /// Who: id and label of the token, or what else is known of the caller. Cut to 512 characters.
    pub who: String,
    /// With which role, if any.
    pub role: Option<Role>,
    /// Which call: its gRPC path, or a command run on the machine. Cut to 512 characters.
    pub call: String,
    /// With what: arguments and, for a failure, the error. Cut to 512 characters.
    pub detail: String,
    /// What became of it.
    pub outcome: Outcome,
}

#[derive(Serialize, Deserialize)]
struct Line {
    /// Counts from 1.
    n: u64,
    #[serde(flatten)]
    entry: Entry,
    /// SHA-256 of the line before, without its line end.
    prev: String,
}

/// Where the next line goes and what it holds on to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tail {
    /// Length of the file up to the last line end.
    length: u64,
    /// Bytes after it: a line that was being written when the machine stopped.
    torn: u64,
    /// Number of the last line.
    n: u64,
    /// Its hash.
    hash: String,
}

/// The log, open for writing. The daemon and an admin's command may both write to it.
pub struct Audit {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    file: File,
    tail: Option<Tail>,
    broken: bool,
}

impl Audit {
    /// Opens the log, or makes an empty one that only its owner can read.
    ///
    /// # Errors
    /// [`AuditError`] when it can not be used, or its last line is not one of ours.
    pub fn open(path: &Path) -> Result<Self, AuditError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).mode(0o600).open(path);
        let mut file = file.map_err(|source| AuditError::Io { path: path.into(), source })?;
        read_tail(&mut file, path)?;
        Ok(Self { path: path.into(), state: Mutex::new(State { file, tail: None, broken: false }) })
    }

    /// Writes one entry; it is on disk when this returns.
    ///
    /// # Errors
    /// [`AuditError`]; the call must then be refused. After a failed write every further one fails, because what of it
    /// reached the disk is not known before the log is opened again.
    pub fn record(&self, entry: Entry) -> Result<(), AuditError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.broken {
            return Err(AuditError::Broken { path: self.path.clone() });
        }
        let State { file, tail, broken } = &mut *state;
        let failed = |source| AuditError::Io { path: self.path.clone(), source };
        file.lock().map_err(failed)?;
        let written = self.append(file, tail, entry);
        *broken = matches!(written, Err(AuditError::Io { .. }));
        let unlocked = file.unlock().map_err(failed);
        written.and(unlocked)
    }

    fn append(&self, file: &mut File, known: &mut Option<Tail>, entry: Entry) -> Result<(), AuditError> {
        let failed = |source| AuditError::Io { path: self.path.clone(), source };
        let length = file.metadata().map_err(failed)?.len();
        let mut tail = match known.take() {
            Some(tail) if tail.length == length => tail,
            _ => read_tail(file, &self.path)?, // The first time, or another process wrote.
        };
        if tail.torn > 0 {
            // Nobody was told that it is written. The cut is itself an entry, so that it does not go unseen.
            file.set_len(tail.length).map_err(failed)?;
            let cut = Entry {
                at: entry.at,
                who: "evenkeel".into(),
                role: None,
                call: "audit.recover".into(),
                detail: format!("cut {} bytes of a line that was never finished", tail.torn),
                outcome: Outcome::Done,
            };
            write_line(file, &mut tail, cut).map_err(failed)?;
        }
        write_line(file, &mut tail, entry).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        *known = Some(tail);
        Ok(())
    }
}

fn write_line(file: &mut File, tail: &mut Tail, mut entry: Entry) -> io::Result<()> {
    for text in [&mut entry.who, &mut entry.call, &mut entry.detail] {
        if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
            text.truncate(end);
        }
    }
    let line = Line { n: tail.n + 1, entry, prev: tail.hash.clone() };
    let mut text = serde_json::to_vec(&line)?;
    let hash = sha256_hex(&text);
    text.push(b'\n');
    file.write_all(&text)?;
    *tail = Tail { length: tail.length + text.len() as u64, torn: 0, n: line.n, hash };
    Ok(())
}

/// Looks at the end of the file; its length does not matter.
fn read_tail(file: &mut File, path: &Path) -> Result<Tail, AuditError> {
    let failed = |source| AuditError::Io { path: path.into(), source };
    let damaged = |detail| AuditError::Damaged { path: path.into(), line: 0, detail };
    let size = file.metadata().map_err(failed)?.len();
    // Room for the last whole line and for a torn one after it.
    let start = size.saturating_sub(2 * MAX_LINE);
    let mut end = Vec::new();
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    file.take(size - start).read_to_end(&mut end).map_err(failed)?;
    let whole = end.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let torn = (end.len() - whole) as u64;
    if whole == 0 {
        let nothing = Tail { length: 0, torn, n: 0, hash: GENESIS.into() };
        return if start == 0 { Ok(nothing) } else { Err(damaged("the last line is too long")) };
    }
    let lines = &end[..whole - 1];
    let last = match lines.iter().rposition(|byte| *byte == b'\n') {
        Some(before) => &lines[before + 1..],
        None if start == 0 => lines,
        None => return Err(damaged("the last line is too long")),
    };
    let line: Line = serde_json::from_slice(last).map_err(|_| damaged("it is not an audit entry"))?;
    Ok(Tail { length: start + whole as u64, torn, n: line.n, hash: sha256_hex(last) })
}

/// What a check of the whole log found to be sound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Entries.
    pub entries: u64,
    /// Hash of the last line; stands for the whole log.
    pub head: String,
    /// Bytes of an unfinished line at the end: a crash leaves them, and the next entry removes them.
    pub unfinished_bytes: u64,
}

/// Reads the whole log and follows its chain.
///
/// # Errors
/// [`AuditError::Damaged`] at the first line that does not follow from the one before; [`AuditError::Io`].
pub fn verify(path: &Path) -> Result<Verified, AuditError> {
    let failed = |source| AuditError::Io { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    file.lock_shared().map_err(failed)?;
    let mut reader = BufReader::new(file);
    let mut found = Verified { entries: 0, head: GENESIS.into(), unfinished_bytes: 0 };
    let mut text = Vec::new();
    loop {
        let damaged = |detail| AuditError::Damaged { path: path.into(), line: found.entries + 1, detail };
        text.clear();
        reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut text).map_err(failed)?;
        if text.pop_if(|byte| *byte == b'\n').is_none() {
            found.unfinished_bytes = text.len() as u64;
            return if (text.len() as u64) < MAX_LINE { Ok(found) } else { Err(damaged("it is too long")) };
        }
        let line: Line = serde_json::from_slice(&text).map_err(|_| damaged("it is not an audit entry"))?;
        if line.prev != found.head {
            return Err(damaged("it does not hold the hash of the line before"));
        }
        if line.n != found.entries + 1 {
            return Err(damaged("its number does not follow"));
        }
        found = Verified { entries: line.n, head: sha256_hex(&text), unfinished_bytes: 0 };
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
