//! The few facts that must outlive the process, in two slots of one file of fixed size that are overwritten in
//! turn: no allocation, so it works on a full disk, and one slot is always whole.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use evenkeel_common::event::Loss;
use serde::{Deserialize, Serialize};

const SLOT: usize = 4096;
const MAGIC: [u8; 4] = *b"EKM1";

/// What is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// New with every new spool.
    pub(super) epoch: [u8; 16],
    /// Grows with every writing; the slot with the higher one counts.
    generation: u64,
    /// Whether the last run ended in order. If so, `samples_reserved` is exact.
    pub(super) clean: bool,
    /// Sample numbers below this one may have been used.
    pub(super) samples_reserved: u64,
    /// Anomaly numbers below this one may have been used; exact after an orderly end.
    pub(super) anomalies_reserved: u64,
    /// Events that could not be stored and are not told yet.
    pub(super) events_lost: Option<Loss>,
}

/// The open file.
#[derive(Debug)]
pub(super) struct MetaFile {
    file: File,
    pub(super) meta: Meta,
}

impl MetaFile {
    /// Opens the file, or makes one with the given epoch where there is none or neither slot is whole. Says
    /// whether it is new.
    pub(super) fn open(path: &Path, epoch: [u8; 16]) -> io::Result<(Self, bool)> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let found =
            [0, 1].into_iter().filter_map(|slot| read(&file, slot)).max_by_key(|meta| meta.generation);
        let new = found.is_none();
        let meta = found.unwrap_or(Meta {
            epoch,
            generation: 0,
            clean: true,
            samples_reserved: 1,
            anomalies_reserved: 1,
            events_lost: None,
        });
        if new {
            file.write_all_at(&[0; 2 * SLOT], 0)?; // Both slots exist from now on, whatever the disk does later.
        }
        let mut this = Self { file, meta };
        this.write()?;
        Ok((this, new))
    }

    /// Makes the present state durable.
    pub(super) fn write(&mut self) -> io::Result<()> {
        self.meta.generation += 1;
        let body = postcard::to_allocvec(&self.meta).map_err(io::Error::other)?;
        let mut slot = [0; SLOT];
        slot[..4].copy_from_slice(&MAGIC);
        slot[4..8].copy_from_slice(&crc32fast::hash(&body).to_le_bytes());
        slot[8..10].copy_from_slice(&u16::try_from(body.len()).map_err(io::Error::other)?.to_le_bytes());
        slot.get_mut(10..10 + body.len()).ok_or(io::ErrorKind::InvalidData)?.copy_from_slice(&body);
        self.file.write_all_at(&slot, (self.meta.generation % 2) * SLOT as u64)?;
        self.file.sync_data()
    }
}

fn read(file: &File, slot: u64) -> Option<Meta> {
    let mut bytes = [0; SLOT];
    file.read_exact_at(&mut bytes, slot * SLOT as u64).ok()?;
    let (magic, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let body = rest.get(..u16::from_le_bytes(*length) as usize)?;
    let sound = *magic == MAGIC && crc32fast::hash(body) == u32::from_le_bytes(*crc);
    if sound { postcard::from_bytes(body).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_last_whole_state_counts_whatever_happens_to_the_other_slot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meta");
        let (mut file, new) = MetaFile::open(&path, [7; 16]).unwrap();
        assert!(new);
        file.meta.samples_reserved = 100;
        file.write().unwrap();
        let before = fs::read(&path).unwrap();
        file.meta.samples_reserved = 200;
        file.write().unwrap();
        let after = fs::read(&path).unwrap();
        let torn = (0..before.len()).find(|&i| before[i] != after[i]).unwrap();
        for cut in torn..torn + 64 {
            let mut mixed = before.clone();
            mixed[..cut].copy_from_slice(&after[..cut]);
            fs::write(&path, &mixed).unwrap();
            let (file, new) = MetaFile::open(&path, [8; 16]).unwrap();
            assert!(!new && file.meta.epoch == [7; 16]);
            assert!([100, 200].contains(&file.meta.samples_reserved));
        }
        fs::write(&path, vec![0xff; 2 * SLOT]).unwrap();
        let (file, new) = MetaFile::open(&path, [9; 16]).unwrap();
        assert!(new && file.meta.epoch == [9; 16], "nothing whole: a new spool");
    }
}
