//! Randomness as a value that is passed in, so that a run of the lab can be repeated.

use std::sync::{Mutex, PoisonError};

use ring::rand::{SecureRandom as _, SystemRandom};

/// Where random bytes come from. Passed around as `Arc<dyn Entropy>`.
pub trait Entropy: Send + Sync + 'static {
    /// Fills the whole buffer.
    ///
    /// # Errors
    /// [`NoEntropy`] when the machine gives none; the buffer is then not to be used.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoEntropy>;
}

/// The machine gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel gives no random numbers (getrandom failed); a sandbox may forbid the call")]
pub struct NoEntropy;

/// An array of random bytes, as for an id or a secret.
///
/// # Errors
/// [`NoEntropy`].
pub fn bytes<const N: usize>(entropy: &dyn Entropy) -> Result<[u8; N], NoEntropy> {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes)?;
    Ok(bytes)
}

/// The machine's own randomness, fit for secrets.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        SystemRandom::new().fill(bytes).map_err(|_| NoEntropy)
    }
}

/// The same bytes for the same seed. For the lab and for tests only: anybody can compute them, so nothing that must
/// stay secret may come from here.
///
/// # Source
/// The SplitMix64 generator: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", 2014.
#[derive(Debug)]
pub struct SeededEntropy(Mutex<u64>);

impl SeededEntropy {
    /// Starts the sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in bytes.chunks_mut(8) {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = *state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 31;
            chunk.copy_from_slice(&mixed.to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_seeds_differ() {
        let draw = |seed| {
            let entropy = SeededEntropy::new(seed);
            (bytes::<16>(&entropy).unwrap(), bytes::<3>(&entropy).unwrap())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        // First outputs of the generator for seed 1234567, as its authors publish them.
        let first = bytes::<16>(&SeededEntropy::new(1_234_567)).unwrap();
        assert_eq!(u64::from_le_bytes(first[..8].try_into().unwrap()), 6_457_827_717_110_365_317);
        assert_eq!(u64::from_le_bytes(first[8..].try_into().unwrap()), 3_203_168_211_198_807_973);
    }

    #[test]
    fn the_machine_never_repeats_itself() {
        let entropy = SystemEntropy;
        assert_ne!(bytes::<16>(&entropy).unwrap(), bytes::<16>(&entropy).unwrap());
    }
}
