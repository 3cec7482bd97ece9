//! Values too large for one row.
//!
//! sled keeps up to 17 neighbouring rows in one page, and writes a page of more than 128 KiB as a file of its own
//! (`blobs/`) that it never syncs. So no row may be larger than about 7 KiB; larger values are cut into chunk rows.
//! They are written first, in batches of their own; the head row, in the caller's batch, names them. Until then, and
//! again when the value is replaced or deleted, an orphan row names them too: whatever orphan rows a crash leaves is
//! swept at the next start.

use crate::store::INLINE_MAX;
use crate::store::envelope::{self, Body, Packed};
use crate::store::error::StoreError;
use crate::store::key::after_prefix;
use crate::store::tree::Codec;

use super::engine::Engine;

/// First byte of the rows in here; those of the trees come before.
pub(super) const FIRST: u8 = 0xF0;
/// First byte of chunk rows: then generation and index, big-endian.
const CHUNKS: u8 = 0xFE;
/// First byte of orphan rows: then the generation.
const ORPHANS: u8 = 0xFD;
/// Chunk rows in one batch.
const BATCH_ROWS: usize = 16;

/// What a head row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Number of this set of chunks, given once.
    pub(super) generation: u64,
    count: u32,
    bytes: u32,
    flags: u8,
}

const HEAD_BYTES: usize = 17;

impl Head {
    pub(super) fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        out[..8].copy_from_slice(&self.generation.to_be_bytes());
        out[8..12].copy_from_slice(&self.count.to_be_bytes());
        out[12..16].copy_from_slice(&self.bytes.to_be_bytes());
        out[16] = self.flags;
        out
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (generation, rest) = bytes.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        let (bytes, rest) = rest.split_first_chunk()?;
        let &[flags] = rest else { return None };
        let head = Self {
            generation: u64::from_be_bytes(*generation),
            count: u32::from_be_bytes(*count),
            bytes: u32::from_be_bytes(*bytes),
            flags,
        };
        (head.bytes as usize <= envelope::MAX_VALUE && head.count as usize == chunks_of(head.bytes as usize))
            .then_some(head)
    }
}

fn chunks_of(bytes: usize) -> usize {
    bytes.div_ceil(INLINE_MAX)
}

/// Key of an orphan row.
pub(super) fn orphan_key(generation: u64) -> Vec<u8> {
    [&[ORPHANS][..], &generation.to_be_bytes()].concat()
}

/// Key of a chunk row without its first byte.
fn chunk_key(generation: u64, index: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&generation.to_be_bytes());
    key[8..].copy_from_slice(&index.to_be_bytes());
    key
}

/// Writes the chunks of a value, and the orphan row that the caller's batch removes. Visible to nobody until then.
pub(super) fn write(engine: &Engine, generation: u64, packed: &Packed) -> Result<Head, StoreError> {
    let pieces: Vec<(u32, &[u8])> = (0..).zip(packed.bytes.chunks(INLINE_MAX)).collect();
    for rows in pieces.chunks(BATCH_ROWS) {
        let mut batch = ::sled::Batch::default();
        batch.insert(orphan_key(generation), &[]);
        for &(index, piece) in rows {
            let key = chunk_key(generation, index);
            let row = envelope::seal(CHUNKS, &key, &envelope::unpacked(piece));
            batch.insert([&[CHUNKS][..], &key].concat(), row);
        }
        engine.write(|db| db.apply_batch(batch))?;
    }
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Ok(Head {
        generation,
        count: small(pieces.len()),
        bytes: small(packed.bytes.len()),
        flags: packed.flags(),
    })
}

/// Puts a value together. The inner error says in words what is missing or damaged.
pub(super) fn read(engine: &Engine, codec: Codec, head: Head) -> Result<Result<Vec<u8>, String>, StoreError> {
    let mut joined = Vec::with_capacity(head.bytes as usize);
    for index in 0..head.count {
        let key = chunk_key(head.generation, index);
        let Some(row) = engine.read(|db| db.get([&[CHUNKS][..], &key].concat()))? else {
            return Ok(Err(format!("part {} of {} is missing", index + 1, head.count)));
        };
        match envelope::open(CHUNKS, Codec::Raw, &key, &row) {
            Ok(Body::Plain(piece)) => joined.extend_from_slice(&piece),
            Ok(Body::Head(_)) => return Ok(Err(format!("part {} is not a part", index + 1))),
            Err(problem) => return Ok(Err(format!("part {} of {}: {problem}", index + 1, head.count))),
        }
    }
    if joined.len() != head.bytes as usize {
        return Ok(Err(format!("{} of {} bytes", joined.len(), head.bytes)));
    }
    Ok(envelope::join(head.flags, codec, joined))
}

/// Removes the chunks of one generation, then its orphan row.
pub(super) fn sweep(engine: &Engine, generation: u64) -> Result<(), StoreError> {
    let prefix = [&[CHUNKS][..], &generation.to_be_bytes()].concat();
    let keys = engine.read(|db| db.scan_prefix(&prefix).keys().collect::<::sled::Result<Vec<_>>>())?;
    for part in keys.chunks(1000) {
        let mut batch = ::sled::Batch::default();
        part.iter().for_each(|key| batch.remove(key));
        engine.write(|db| db.apply_batch(batch))?;
    }
    engine.write(|db| db.remove(orphan_key(generation))).map(drop)
}

/// Sweeps what a crash left, and returns the first generation number that was never used.
pub(super) fn recover(engine: &Engine) -> Result<u64, StoreError> {
    let mut next = 0;
    for prefix in [CHUNKS, ORPHANS] {
        let end = after_prefix(&[prefix]).unwrap_or_default();
        if let Some((key, _)) = engine.read(|db| db.range(vec![prefix]..end).next_back().transpose())? {
            next = next.max(generation_of(&key).saturating_add(1));
        }
    }
    let orphans = engine.read(|db| db.scan_prefix([ORPHANS]).keys().collect::<::sled::Result<Vec<_>>>())?;
    for key in &orphans {
        sweep(engine, generation_of(key))?;
    }
    Ok(next)
}

fn generation_of(key: &[u8]) -> u64 {
    key.get(1..9).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}
