//! What was learned outlives the process: the watch of every series and the profile of every guest, in one file.
//!
//! A baseline takes minutes to hours to learn, so an agent that is restarted, by an update say, would be blind for that
//! long, and then alarm about what it knew. The file is written every five minutes and at the orderly end, as a
//! whole: after a crash it is at most five minutes old.
//!
//! # Form
//! Frames of length, checksum and body, all little-endian: a [`Header`], a frame per series and per guest, and an
//! [`Entry::End`] that counts them. Frames are read one by one into a buffer of bounded size, so a damaged length can
//! not claim memory. Series go by their key, guests by vmid, kind and start, since the numbers of series are new in
//! every run and a vmid may have been given to another guest.
//!
//! # What does not fit is not used
//! Damaged, of a newer version, of detectors with another memory (by the shape of a watch that was fed a fixed
//! series: whoever adds a detector need not remember to raise a version), or older than a day: the agent says so,
//! learns anew, and replaces the file. Where the interval or an option of the detectors was changed, the profiles are
//! kept and the series learn anew. What was open closes with the run that opened it (the aggregator closes what a
//! crashed run left open, see its `ledger.rs`); the hold-off keeps it from opening again at once.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_common::guest::{GuestFacts, GuestKind};
use evenkeel_common::id::Vmid;
use evenkeel_common::sample::{Metric, SeriesKey, Subject};
use evenkeel_common::time::Timestamp;
use evenkeel_detect::config::WatchConfig;
use evenkeel_detect::node::{NodeConfig, NodeDetector};
use evenkeel_detect::profile::GuestProfiler;
use evenkeel_detect::watch::SeriesWatch;
use evenkeel_runtime::files::{FileError, Replacement};
use serde::{Deserialize, Serialize};

use crate::watch_node::NodeMemory;

pub use keeper::Keeper;

mod keeper;

/// First bytes of the file, with the version of its form.
const MAGIC: [u8; 8] = *b"EKWATCH1";
/// Older than this, it tells of another life of the node.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Largest frame: a watch has 3 KB, a profile 8 KB, the detector of the whole node about 1 KB for each of at most 512
/// series.
const MAX_FRAME: u32 = 2 << 20;
/// Most guests in a file, as many as may be told in a hello.
const MAX_GUESTS: usize = 10_000;
/// The boot time that the kernel tells, and with it the start of a guest, wavers by a second as the clock is slewed.
const SAME_START: Duration = Duration::from_secs(2);

/// Why what is in the file is not used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// It can not be read.
    #[error("it can not be read")]
    Read(#[from] io::Error),
    /// It is damaged, or something else.
    #[error("it is damaged or not of this program ({0})")]
    Damaged(&'static str),
    /// Its detectors remember other things than these.
    #[error("it was written by another version of evenkeel-agent")]
    OtherVersion,
    /// It is too old, or of a clock that was ahead.
    #[error("it was written at {0}, more than a day from now")]
    Old(Timestamp),
}

/// What a file begins with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Header {
    /// By [`shape`].
    shape: u32,
    saved_at: Timestamp,
    interval: Duration,
}

/// What it goes on with.
#[derive(Serialize, Deserialize)]
enum Entry {
    Series(SeriesKey, SeriesWatch),
    Guest(Vmid, Life),
    /// Of the node as a whole; at most one.
    Node(Box<NodeMemory>),
    /// Nothing is missing when so many series and guests came before.
    End(u32, u32),
}

/// The life of a guest and what was learned of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Life {
    kind: GuestKind,
    started_at: Timestamp,
    profiler: GuestProfiler,
}

/// What an earlier run has learned, to be taken piece by piece as series and guests appear.
#[derive(Debug, Default)]
pub struct Memory {
    series: HashMap<SeriesKey, SeriesWatch>,
    guests: BTreeMap<Vmid, Life>,
    node: Option<NodeMemory>,
    unfit: usize,
}

impl Memory {
    /// Reads the file. `limit`: most series. `None` when there is no file; then, and after an error, the agent
    /// learns anew.
    ///
    /// # Errors
    /// [`MemoryError`]: what is there can not be used.
    pub fn load(
        path: &Path,
        config: &WatchConfig,
        interval: Duration,
        now: Timestamp,
        limit: usize,
    ) -> Result<Option<Self>, MemoryError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut input = BufReader::new(file);
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic).map_err(cut_short)?;
        if magic != MAGIC {
            let newer = magic[..7] == MAGIC[..7];
            return Err(if newer { MemoryError::OtherVersion } else { MemoryError::Damaged("other bytes") });
        }
        let mut frame = Vec::new();
        let header: Header = decode(next_frame(&mut input, &mut frame)?)?;
        if header.shape != shape() {
            return Err(MemoryError::OtherVersion);
        }
        if now.since(header.saved_at).max(header.saved_at.since(now)) >= LONGEST {
            return Err(MemoryError::Old(header.saved_at));
        }
        let mut memory = Self::default();
        let (mut series, mut guests) = (0, 0);
        loop {
            match decode(next_frame(&mut input, &mut frame)?)? {
                Entry::Series(key, mut watch) => {
                    series += 1;
                    if header.interval == interval && watch.config() == config {
                        // Whatever it was doing, its anomaly ended with its run.
                        let _ = watch.leave(header.saved_at);
                        memory.series.insert(key, watch);
                    } else {
                        memory.unfit += 1;
                    }
                }
                Entry::Guest(vmid, life) => {
                    guests += 1;
                    memory.guests.insert(vmid, life);
                }
                Entry::Node(node) => memory.node = Some(*node),
                Entry::End(of_series, of_guests) if (of_series, of_guests) == (series, guests) => {
                    return Ok(Some(memory));
                }
                Entry::End(..) => return Err(MemoryError::Damaged("some of it is missing")),
            }
            if series as usize > limit || guests as usize > MAX_GUESTS {
                return Err(MemoryError::Damaged("more series or guests than there can be"));
            }
        }
    }

    /// What was learned of the node as a whole.
    pub(crate) fn take_node(&mut self) -> Option<NodeMemory> {
        self.node.take()
    }

    /// The watch of a series as it was.
    pub(crate) fn take_series(&mut self, key: &SeriesKey) -> Option<SeriesWatch> {
        self.series.remove(key)
    }

    /// The profile of a guest as it was, if it is the same life of the same guest. If not, its series are of
    /// another's past as well and are forgotten.
    pub(crate) fn take_guest(&mut self, facts: &GuestFacts) -> Option<GuestProfiler> {
        let life = self.guests.remove(&facts.vmid);
        let apart = |life: &Life| {
            life.started_at.since(facts.started_at).max(facts.started_at.since(life.started_at))
        };
        let same = life.filter(|life| life.kind == facts.kind && apart(life) <= SAME_START);
        if same.is_none() {
            self.series.retain(|key, _| key.subject != Subject::Guest(facts.vmid));
        }
        same.map(|life| life.profiler)
    }

    /// Ticks come at another interval now: what is known of series does not fit any more.
    pub(crate) fn forget_series(&mut self) {
        self.series.clear();
    }

    /// Series and guests that nobody has asked for yet.
    #[must_use]
    pub fn left(&self) -> (usize, usize) {
        (self.series.len(), self.guests.len())
    }

    /// Series that were left out because the interval or the options of their detectors were changed.
    #[must_use]
    pub fn unfit(&self) -> usize {
        self.unfit
    }
}

/// A file under way. Written in pieces, so that no tick waits for thousands of series.
#[derive(Debug)]
pub struct Save {
    file: Replacement,
    series: u32,
    guests: u32,
    frame: Vec<u8>,
}

impl Save {
    /// Begins the file of a state at `now`.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn begin(path: &Path, interval: Duration, now: Timestamp) -> Result<Self, FileError> {
        let mut file = Replacement::begin(path, 0o600)?;
        file.write(&MAGIC)?;
        let mut this = Self { file, series: 0, guests: 0, frame: Vec::new() };
        this.put(&Header { shape: shape(), saved_at: now, interval })?;
        Ok(this)
    }

    /// Adds series.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn series<'a>(
        &mut self,
        series: impl IntoIterator<Item = (&'a SeriesKey, &'a SeriesWatch)>,
    ) -> Result<(), FileError> {
        for (key, watch) in series {
            self.put(&Entry::Series(key.clone(), watch.clone()))?;
            self.series += 1;
        }
        Ok(())
    }

    /// Adds what was learned of the node as a whole.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn node(&mut self, node: NodeMemory) -> Result<(), FileError> {
        self.put(&Entry::Node(Box::new(node)))
    }

    /// Adds a guest.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn guest(&mut self, facts: &GuestFacts, profiler: &GuestProfiler) -> Result<(), FileError> {
        let life = Life { kind: facts.kind, started_at: facts.started_at, profiler: profiler.clone() };
        self.put(&Entry::Guest(facts.vmid, life))?;
        self.guests += 1;
        Ok(())
    }

    /// Puts the file in the place of the old one. Waits for the disk.
    ///
    /// # Errors
    /// [`FileError`]; the old file then stands.
    pub fn finish(mut self) -> Result<(), FileError> {
        let end = Entry::End(self.series, self.guests);
        self.put(&end)?;
        self.file.commit()
    }

    fn put(&mut self, entry: &impl Serialize) -> Result<(), FileError> {
        self.frame.clear();
        self.frame.resize(8, 0);
        let frame = std::mem::take(&mut self.frame);
        // Nothing in it fails to be written down; if it did, the file would lack its count and not be used.
        self.frame = postcard::to_extend(entry, frame).unwrap_or_default();
        let Some((head, body)) = self.frame.split_at_mut_checked(8) else { return Ok(()) };
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        head[..4].copy_from_slice(&length.to_le_bytes());
        head[4..].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        self.file.write(&self.frame)
    }
}

/// Where the file is.
#[must_use]
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("watch.state")
}

fn next_frame<'a>(input: &mut impl Read, frame: &'a mut Vec<u8>) -> Result<&'a [u8], MemoryError> {
    let mut word = || -> Result<u32, MemoryError> {
        let mut bytes = [0; 4];
        input.read_exact(&mut bytes).map_err(cut_short)?;
        Ok(u32::from_le_bytes(bytes))
    };
    let (length, checksum) = (word()?, word()?);
    if length > MAX_FRAME {
        return Err(MemoryError::Damaged("a length"));
    }
    frame.resize(length as usize, 0);
    input.read_exact(frame).map_err(cut_short)?;
    if crc32fast::hash(frame) == checksum { Ok(frame) } else { Err(MemoryError::Damaged("a checksum")) }
}

fn decode<'a, T: Deserialize<'a>>(frame: &'a [u8]) -> Result<T, MemoryError> {
    postcard::from_bytes(frame).map_err(|_| MemoryError::OtherVersion)
}

fn cut_short(error: io::Error) -> MemoryError {
    let cut = error.kind() == io::ErrorKind::UnexpectedEof;
    if cut { MemoryError::Damaged("it ends too early") } else { MemoryError::Read(error) }
}

/// What watches and profiles are made of, as a checksum: names and kinds of all their fields once they have seen
/// something, and their size. Values do not matter, so that no rounding of another processor does.
fn shape() -> u32 {
    let step = Duration::from_secs(60);
    let mut node = NodeDetector::new(2, step, NodeConfig::default());
    let (mut watch, mut profiler) = (
        SeriesWatch::new(Metric::CpuUsed, Duration::from_secs(1), WatchConfig::default()),
        GuestProfiler::default(),
    );
    for second in 0..900_u32 {
        let at = Timestamp::from_millis(i64::from(second) * 1000);
        let value = f64::from(second * 7 % 11);
        watch.observe(at, value);
        profiler.observe(at, value, value);
        node.observe(Timestamp::from_millis(i64::from(second) * 60_000), &[value, 2.0 * value]);
    }
    let mut text = String::new();
    let mut bytes = 0;
    for value in [serde_json::to_value(&watch), serde_json::to_value(&profiler), serde_json::to_value(&node)]
    {
        describe(&value.unwrap_or_default(), &mut text);
    }
    for encoded in
        [postcard::to_allocvec(&watch), postcard::to_allocvec(&profiler), postcard::to_allocvec(&node)]
    {
        bytes += encoded.map_or(0, |bytes| bytes.len());
    }
    crc32fast::hash(format!("{text}{bytes}").as_bytes())
}

fn describe(value: &serde_json::Value, text: &mut String) {
    use serde_json::Value as V;
    match value {
        V::Object(fields) => {
            for (name, field) in fields {
                text.push_str(name);
                text.push(':');
                describe(field, text);
            }
            text.push(';');
        }
        V::Array(items) => {
            text.push('[');
            items.iter().take(1).for_each(|item| describe(item, text));
        }
        V::Null => text.push('-'),
        V::Bool(_) => text.push('b'),
        V::Number(_) => text.push('n'),
        V::String(_) => text.push('s'),
    }
}

#[cfg(test)]
mod tests;
