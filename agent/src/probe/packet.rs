//! The packets of the mesh: forty bytes, question and answer alike, so that an answer never carries more than what
//! asked for it.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | `EKP1` |
//! | 4 | 1 = question, 2 = answer |
//! | 5..8 | zero |
//! | 8..16 | nonce of the one who asks: random, another for each peer and run |
//! | 16..24 | number of the question |
//! | 24..40 | seal over all before |
//!
//! An answer repeats nonce and number. A replayed question earns the one who sent the original an answer that counts
//! as a duplicate; a replayed answer is one to a question that is no longer open.

use evenkeel_runtime::seal::{SEAL, SealKey};

/// Length of every packet.
pub(super) const LENGTH: usize = 40;
const SEALED: usize = LENGTH - SEAL;
const MAGIC: [u8; 4] = *b"EKP1";

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Question,
    Answer,
}

/// A packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) kind: Kind,
    pub(super) nonce: u64,
    pub(super) number: u64,
}

impl Packet {
    pub(super) fn encode(self, key: &SealKey) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = match self.kind {
            Kind::Question => 1,
            Kind::Answer => 2,
        };
        bytes[8..16].copy_from_slice(&self.nonce.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        let seal = key.seal(&bytes[..SEALED]);
        bytes[SEALED..].copy_from_slice(&seal);
        bytes
    }

    /// `None` for everything that does not have this form or is not sealed with this key.
    pub(super) fn decode(bytes: &[u8], key: &SealKey) -> Option<Self> {
        let bytes: &[u8; LENGTH] = bytes.try_into().ok()?;
        let (sealed, seal) = bytes.split_first_chunk::<SEALED>()?;
        let kind = match (sealed.first_chunk::<4>()?, sealed[4], &sealed[5..8]) {
            (&MAGIC, 1, [0, 0, 0]) => Kind::Question,
            (&MAGIC, 2, [0, 0, 0]) => Kind::Answer,
            _ => return None,
        };
        if !key.is_sealed(sealed, seal.try_into().ok()?) {
            return None;
        }
        let word = |at: usize| Some(u64::from_le_bytes(sealed.get(at..at + 8)?.try_into().ok()?));
        Some(Self { kind, nonce: word(8)?, number: word(16)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(n: u8) -> SealKey {
        SealKey::new(&[n; 32])
    }

    proptest! {
        #[test]
        fn packets_come_back_and_no_other_bytes_pass(
            nonce: u64, number: u64, answer: bool, flip in 0..LENGTH * 8, junk in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let kind = if answer { Kind::Answer } else { Kind::Question };
            let packet = Packet { kind, nonce, number };
            let bytes = packet.encode(&key(1));
            prop_assert_eq!(Packet::decode(&bytes, &key(1)), Some(packet));
            prop_assert_eq!(Packet::decode(&bytes, &key(2)), None);
            let mut flipped = bytes;
            flipped[flip / 8] ^= 1 << (flip % 8);
            prop_assert_eq!(Packet::decode(&flipped, &key(1)), None);
            prop_assert_eq!(Packet::decode(&bytes[..flip / 8], &key(1)), None);
            prop_assert_eq!(Packet::decode(&junk, &key(1)), None);
        }
    }
}
