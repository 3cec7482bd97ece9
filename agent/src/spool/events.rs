//! The event half of the spool: numbered records in append-only segment files.
//!
//! A record is `length u32 | crc32 u32 | number u64 | payload` (little-endian; the checksum covers length,
//! number and payload). A segment's name is the number of its first record, so an empty one still tells the
//! next number. A record counts only after fsync; the payload is opaque here.
//!
//! Reading a damaged segment looks for the next sound record, which by its number tells how many are gone. Each
//! number that is gone is filled by a record that says so: numbers stay contiguous, and if the original did
//! reach the aggregator before the damage, it takes the stand-in for the duplicate that it is.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::SpoolError;

#[cfg(test)]
mod tests;

const PREFIX: &str = "events-";
const SUFFIX: &str = ".log";
const HEADER: usize = 16;
/// Largest payload; an event is far smaller, so a larger length is damage.
pub(super) const MAX_PAYLOAD: usize = 64 << 10;
/// Payloads read together: with one more event, of a guest that leaves with its history, they still fit into the smallest
/// message an aggregator may be told to take (64 KiB).
const READ_BYTES: usize = 48 << 10;
/// A segment that has reached this share of the cap (256 KiB of the default) is followed by a new one; a wholly
/// acknowledged last segment is replaced from a quarter of that on.
const SEGMENT_SHARE: u64 = 32;
/// How far ahead the next sound record's number may lie. Beyond it, it is no record of this segment.
const MAX_SKIP: u64 = 1 << 16;

/// Why an event was not stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum AppendError {
    /// The cap is reached; only an acknowledgement makes room.
    #[error("the event spool is at its cap")]
    Full,
    /// The disk refused.
    #[error("the event spool can not be written")]
    Write(#[source] io::Error),
}

/// What a stand-in record says, given the payloads before and after the damage.
pub(super) struct Gap<'a> {
    /// Payload of the last sound record before it.
    pub(super) before: Option<&'a [u8]>,
    /// Payload of the next sound record.
    pub(super) after: Option<&'a [u8]>,
    /// Whether it is the end of the last segment: most likely a write that the end of the process cut short.
    pub(super) torn: bool,
}

/// Makes the payload of a stand-in record.
pub(super) type StandIn<'a> = &'a dyn Fn(&Gap<'_>) -> Vec<u8>;

#[derive(Debug)]
struct Segment {
    first: u64,
    count: u64,
    bytes: u64,
}

impl Segment {
    const fn end(&self) -> u64 {
        self.first + self.count
    }
}

/// The log. Never empty of segments: the last one is written to.
#[derive(Debug)]
pub(super) struct EventLog {
    folder: PathBuf,
    cap: u64,
    segments: VecDeque<Segment>,
    active: File,
    /// Whether a failed write left the end of the last segment in doubt; the next write begins a new one.
    in_doubt: bool,
    /// Where the record after the last one read begins: (number, first number of its segment, offset).
    next_read: (u64, u64, u64),
    /// Everything below is acknowledged.
    first: u64,
}

impl EventLog {
    /// Opens the log in `folder`, filling what is damaged with stand-ins.
    pub(super) fn open(folder: &Path, cap: u64, stand_in: StandIn<'_>) -> Result<Self, SpoolError> {
        let failed = |source| SpoolError::Open { path: folder.to_owned(), source };
        let mut firsts: Vec<u64> = fs::read_dir(folder)
            .map_err(failed)?
            .filter_map(|file| {
                file.ok()?.file_name().to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
            })
            .collect();
        firsts.sort_unstable();
        let mut segments = VecDeque::new();
        for (i, &first) in firsts.iter().enumerate() {
            let segment = repair(folder, first, firsts.get(i + 1).copied(), stand_in).map_err(failed)?;
            segments.push_back(segment);
        }
        if segments.is_empty() {
            segments.push_back(Segment { first: 1, count: 0, bytes: 0 });
        }
        let first = segments.front().map_or(1, |segment| segment.first);
        let last = segments.back().map_or(1, |segment| segment.first);
        let active = append_to(&path(folder, last)).map_err(failed)?;
        sync_folder(folder).map_err(failed)?;
        Ok(Self {
            folder: folder.to_owned(),
            cap,
            segments,
            active,
            in_doubt: false,
            next_read: (0, 0, 0),
            first,
        })
    }

    /// Lowest number held that is not known to be acknowledged.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Number the next event will get.
    pub(super) fn next(&self) -> u64 {
        self.segments.back().map_or(1, Segment::end)
    }

    /// Most bytes on disk.
    pub(super) fn cap(&self) -> u64 {
        self.cap
    }

    /// Bytes on disk.
    pub(super) fn used(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Stores events with one fsync, all or none; the first gets the number [`Self::next`].
    pub(super) fn append(&mut self, payloads: &[Vec<u8>]) -> Result<(), AppendError> {
        let mut bytes = Vec::with_capacity(payloads.iter().map(|payload| payload.len() + HEADER).sum());
        for (number, payload) in (self.next()..).zip(payloads) {
            bytes.extend(record(number, payload));
        }
        if self.used() + bytes.len() as u64 > self.cap {
            return Err(AppendError::Full);
        }
        if self.in_doubt
            || self.segments.back().is_some_and(|segment| segment.bytes >= self.cap / SEGMENT_SHARE)
        {
            self.roll().map_err(AppendError::Write)?;
        }
        if let Err(error) = self.active.write_all(&bytes).and_then(|()| self.active.sync_data()) {
            // After a failed fsync nobody knows what is on disk. Cut back to what was promised before; if that
            // fails too, the next opening finds a torn tail there.
            let sound = self.segments.back().map_or(0, |segment| segment.bytes);
            self.in_doubt = true;
            let _ = self.active.set_len(sound).and_then(|()| self.active.sync_data());
            return Err(AppendError::Write(error));
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.count += payloads.len() as u64;
            segment.bytes += bytes.len() as u64;
        }
        Ok(())
    }

    /// The payloads of the events from number `from` on, at most `most` and [`READ_BYTES`] and one of them. A damaged
    /// segment is repaired on the way.
    pub(super) fn read(&mut self, from: u64, most: usize, stand_in: StandIn<'_>) -> io::Result<Vec<Vec<u8>>> {
        let mut payloads = Vec::new();
        let mut bytes = 0;
        let mut number = from;
        while payloads.len() < most && bytes < READ_BYTES && number < self.next() {
            let Some(index) = self.segments.iter().position(|segment| number < segment.end()) else { break };
            let payload = match self.read_one(index, number)? {
                Some(payload) => payload,
                None => {
                    self.repair(index, stand_in)?;
                    let retried = self.read_one(index, number)?;
                    retried.ok_or_else(|| io::Error::other("a repaired segment can not be read"))?
                }
            };
            bytes += payload.len();
            payloads.push(payload);
            number += 1;
        }
        Ok(payloads)
    }

    /// The record `number` of a segment; `None` when it is damaged.
    fn read_one(&mut self, index: usize, number: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(segment) = self.segments.get(index) else { return Ok(None) };
        let file = File::open(path(&self.folder, segment.first))?;
        let (mut at, mut offset) = match self.next_read {
            (at, first, offset) if first == segment.first && at <= number => (at, offset),
            _ => (segment.first, 0),
        };
        loop {
            let mut header = [0; HEADER];
            if let Err(error) = file.read_exact_at(&mut header, offset) {
                return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
            }
            let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
            if length > MAX_PAYLOAD {
                return Ok(None);
            }
            let after = offset + (HEADER + length) as u64;
            if at < number {
                (at, offset) = (at + 1, after);
                continue;
            }
            let mut bytes = header.to_vec();
            bytes.resize(HEADER + length, 0);
            if file.read_exact_at(&mut bytes[HEADER..], offset + HEADER as u64).is_err() {
                return Ok(None);
            }
            let sound = parse(&bytes, 0).filter(|(found, _)| *found == number);
            self.next_read = (number + 1, segment.first, after);
            return Ok(sound.map(|(_, payload)| bytes[payload].to_vec()));
        }
    }

    fn repair(&mut self, index: usize, stand_in: StandIn<'_>) -> io::Result<()> {
        let Some(segment) = self.segments.get(index) else { return Ok(()) };
        let (first, end) = (segment.first, segment.end());
        let repaired = repair(&self.folder, first, Some(end), stand_in)?;
        self.next_read = (0, 0, 0);
        if index + 1 == self.segments.len() {
            self.active = append_to(&path(&self.folder, first))?;
        }
        self.segments[index] = repaired;
        Ok(())
    }

    /// Frees segments whose events are all acknowledged.
    pub(super) fn free_to(&mut self, cursor: u64) -> io::Result<()> {
        self.first = self.first.max(cursor.saturating_add(1)).min(self.next());
        let spent = self
            .segments
            .back()
            .is_some_and(|s| s.end() <= self.first && s.bytes >= self.cap / SEGMENT_SHARE / 4);
        if spent {
            self.roll()?;
        }
        while self.segments.len() > 1
            && let Some(segment) = self.segments.front()
            && segment.end() <= self.first
        {
            fs::remove_file(path(&self.folder, segment.first))?;
            self.segments.pop_front();
        }
        Ok(())
    }

    /// Begins a new segment, or the last one anew when it holds nothing.
    fn roll(&mut self) -> io::Result<()> {
        let first = self.next();
        let active = append_to(&path(&self.folder, first))?;
        active.set_len(0)?;
        sync_folder(&self.folder)?;
        self.active = active;
        if self.segments.back().is_none_or(|segment| segment.count > 0) {
            self.segments.push_back(Segment { first, count: 0, bytes: 0 });
        }
        self.in_doubt = false;
        Ok(())
    }
}

fn path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{PREFIX}{first:020}{SUFFIX}"))
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn record(number: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(number.to_le_bytes());
    bytes.extend(payload);
    let crc = checksum(&bytes);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn checksum(record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&record[..4]);
    hasher.update(&record[8..]);
    hasher.finalize()
}

/// The number and payload of the sound record at `offset`, if there is one.
fn parse(bytes: &[u8], offset: usize) -> Option<(u64, Range<usize>)> {
    let header = bytes.get(offset..offset + HEADER)?;
    let (length, rest) = header.split_first_chunk::<4>()?;
    let (crc, number) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let number = u64::from_le_bytes(number.try_into().ok()?);
    let payload = offset + HEADER..offset + HEADER + length;
    let whole = bytes.get(offset..payload.end)?;
    (length > 0 && length <= MAX_PAYLOAD && checksum(whole) == u32::from_le_bytes(*crc))
        .then_some((number, payload))
}

/// Whether a record at `offset` would bear a number that can come next: cheap, so that looking for the next
/// sound record byte by byte computes hardly any checksum.
fn plausible(bytes: &[u8], offset: usize, expected: u64) -> bool {
    let number =
        bytes.get(offset + 8..offset + HEADER).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
    number.is_some_and(|number| number >= expected && number - expected <= MAX_SKIP)
}

/// Reads a segment whose records should end before number `end` (unknown for the last one), and rewrites it
/// with stand-ins when something is damaged.
fn repair(folder: &Path, first: u64, end: Option<u64>, stand_in: StandIn<'_>) -> io::Result<Segment> {
    let name = path(folder, first);
    let bytes = fs::read(&name)?;
    let mut sound: Vec<(u64, Range<usize>)> = Vec::new();
    let (mut offset, mut expected) = (0, first);
    let mut tail_damaged = false;
    while offset < bytes.len() {
        match parse(&bytes, offset).filter(|_| plausible(&bytes, offset, expected)) {
            Some((number, payload)) => {
                (offset, expected, tail_damaged) = (payload.end, number + 1, false);
                sound.push((number, payload));
            }
            None => (offset, tail_damaged) = (offset + 1, true),
        }
    }
    let end = match end {
        // A record beyond belongs to a write that failed; the next segment has that number.
        Some(end) => end,
        // How many events a damaged tail held can not be known; one write was under way.
        None => expected + u64::from(tail_damaged),
    };
    let torn_from = if tail_damaged { expected } else { u64::MAX };
    tail_damaged |= expected > end;
    sound.retain(|(number, _)| *number < end);
    if sound.len() as u64 == end - first && !tail_damaged {
        return Ok(Segment { first, count: end - first, bytes: bytes.len() as u64 });
    }
    let mut fixed = Vec::with_capacity(bytes.len());
    let mut records = sound.iter().peekable();
    let mut before: Option<&[u8]> = None;
    for number in first..end {
        if let Some((_, payload)) = records.next_if(|(found, _)| *found == number) {
            before = bytes.get(payload.clone());
            fixed.extend(record(number, before.unwrap_or_default()));
        } else {
            let after = records.peek().and_then(|(_, payload)| bytes.get(payload.clone()));
            fixed.extend(record(number, &stand_in(&Gap { before, after, torn: number >= torn_from })));
        }
    }
    let temporary = folder.join("events.tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&fixed)?;
    file.sync_all()?;
    fs::rename(&temporary, &name)?;
    sync_folder(folder)?;
    tracing::warn!(segment = %name.display(), lost = end - first - sound.len() as u64, "events of the spool were damaged");
    Ok(Segment { first, count: end - first, bytes: fixed.len() as u64 })
}
