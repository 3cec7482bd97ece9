//! What stands around every stored value, whatever the backend: a format, flags and a checksum.
//!
//! A damaged page of the engine shows only when something reads it, and not always then; the checksum here turns
//! damage into an error that names the value. It covers tree and key too, so that a value that turns up under
//! another key is noticed.
//!
//! Layout: format (1 byte), flags (1 byte), CRC-32 (4 bytes, little-endian), payload. A compressed payload is the
//! plain length (4 bytes, little-endian) and a zstd frame.

use super::tree::Codec;

/// Values from this size on are compressed, in bytes.
pub(crate) const COMPRESS_FROM: usize = 4096;
/// Bytes in front of the payload.
pub(crate) const HEADER: usize = 6;
/// Largest value, plain, in bytes: bounds what a damaged length can make a reader allocate.
pub(crate) const MAX_VALUE: usize = 64 << 20;

const FORMAT: u8 = 1;
const ZSTD: u8 = 0b0000_0001;
const CHUNKED: u8 = 0b0000_0010;
const RAW: u8 = 0b0001_0000;

/// What a row holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// The value.
    Plain(Vec<u8>),
    /// Bytes of the backend's own that say where the value lies (see `sled/chunks.rs`).
    Head(Vec<u8>),
}

/// The payload of a value before it is sealed: compressed where that pays.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    flags: u8,
    /// What is to be stored.
    pub(crate) bytes: Vec<u8>,
}

/// Compresses `value` if it is large and gets smaller by it.
pub(crate) fn pack(codec: Codec, value: &[u8]) -> Packed {
    let flags = codec_flag(codec);
    if value.len() >= COMPRESS_FROM
        && let Ok(length) = u32::try_from(value.len())
        && let Ok(frame) = zstd::bulk::compress(value, 1)
        && frame.len() + 4 < value.len()
    {
        return Packed { flags: flags | ZSTD, bytes: [&length.to_le_bytes()[..], &frame].concat() };
    }
    Packed { flags, bytes: value.to_vec() }
}

/// A part of a packed value, which is not packed again.
pub(crate) fn unpacked(bytes: &[u8]) -> Packed {
    Packed { flags: RAW, bytes: bytes.to_vec() }
}

/// The row of a value that fits into one.
pub(crate) fn seal(prefix: u8, key: &[u8], packed: &Packed) -> Vec<u8> {
    sealed(prefix, key, packed.flags, &packed.bytes)
}

/// The row of a value that lies elsewhere.
pub(crate) fn seal_head(prefix: u8, key: &[u8], head: &[u8]) -> Vec<u8> {
    sealed(prefix, key, CHUNKED, head)
}

fn sealed(prefix: u8, key: &[u8], flags: u8, payload: &[u8]) -> Vec<u8> {
    let crc = checksum(prefix, key, flags, payload).to_le_bytes();
    [&[FORMAT, flags][..], &crc, payload].concat()
}

/// Checks a row and takes the value out.
///
/// # Errors
/// What does not fit, in words.
pub(crate) fn open(prefix: u8, codec: Codec, key: &[u8], row: &[u8]) -> Result<Body, String> {
    let (header, payload) =
        row.split_first_chunk::<HEADER>().ok_or_else(|| format!("only {} bytes", row.len()))?;
    let &[format, flags, c0, c1, c2, c3] = header;
    if format != FORMAT {
        return Err(format!("format {format}, expected {FORMAT}"));
    }
    if u32::from_le_bytes([c0, c1, c2, c3]) != checksum(prefix, key, flags, payload) {
        return Err("the checksum does not match".into());
    }
    if flags == CHUNKED {
        return Ok(Body::Head(payload.to_vec()));
    }
    if flags & !ZSTD != codec_flag(codec) {
        return Err(format!("flags {flags:#04x} do not belong in this tree"));
    }
    if flags & ZSTD == 0 { Ok(Body::Plain(payload.to_vec())) } else { unpack(payload).map(Body::Plain) }
}

/// The value whose parts, joined, are `joined`; they were sealed one by one.
pub(crate) fn join(flags: u8, codec: Codec, joined: Vec<u8>) -> Result<Vec<u8>, String> {
    if flags & !ZSTD != codec_flag(codec) {
        return Err(format!("flags {flags:#04x} do not belong in this tree"));
    }
    if flags & ZSTD == 0 { Ok(joined) } else { unpack(&joined) }
}

impl Packed {
    /// What [`join`] needs to know beside the bytes.
    pub(crate) fn flags(&self) -> u8 {
        self.flags
    }
}

fn unpack(payload: &[u8]) -> Result<Vec<u8>, String> {
    let (length, frame) = payload.split_first_chunk().ok_or("no length")?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_VALUE {
        return Err(format!("a length of {length} bytes"));
    }
    let value = zstd::bulk::decompress(frame, length).map_err(|error| format!("zstd: {error}"))?;
    if value.len() == length { Ok(value) } else { Err(format!("{} of {length} bytes", value.len())) }
}

fn codec_flag(codec: Codec) -> u8 {
    match codec {
        Codec::Json => 0,
        Codec::Raw => RAW,
    }
}

fn checksum(prefix: u8, key: &[u8], flags: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[prefix, flags]);
    hasher.update(&key.len().to_le_bytes()); // Where the key ends and the payload begins counts too.
    hasher.update(key);
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(value: &[u8]) -> Vec<u8> {
        seal(7, b"key", &pack(Codec::Raw, value))
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_an_error_never_another_value(
            value in proptest::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0..8u8
        ) {
            let mut row = row(&value);
            prop_assert_eq!(open(7, Codec::Raw, b"key", &row), Ok(Body::Plain(value)));
            let at = at.index(row.len());
            row[at] ^= 1 << bit;
            prop_assert!(open(7, Codec::Raw, b"key", &row).is_err());
        }
    }

    #[test]
    fn large_values_shrink_and_come_back() {
        let value = b"snapshot ".repeat(10_000);
        let packed = row(&value);
        assert!(packed.len() < value.len() / 10, "{}", packed.len());
        assert_eq!(open(7, Codec::Raw, b"key", &packed), Ok(Body::Plain(value)));
    }

    #[test]
    fn a_value_under_another_key_tree_or_codec_is_damage() {
        let row = row(b"value");
        assert!(open(7, Codec::Raw, b"kez", &row).is_err());
        assert!(open(8, Codec::Raw, b"key", &row).is_err());
        assert!(open(7, Codec::Json, b"key", &row).is_err());
        assert!(open(7, Codec::Raw, b"key", &row[..5]).is_err());
    }
}
