//! Proof that a message comes from someone who has the key: HMAC-SHA256 (RFC 2104), cut to 128 bits as section 5 there
//! allows. And keys made from keys, so that what is handed out tells nothing about what it was made from.

use ring::hmac;

/// Length of a seal, in bytes.
pub const SEAL: usize = 16;

/// A key. Debug output hides it.
#[derive(Clone)]
pub struct SealKey(hmac::Key);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey")
    }
}

impl SealKey {
    /// A key of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The seal of a message.
    #[must_use]
    pub fn seal(&self, message: &[u8]) -> [u8; SEAL] {
        let mut seal = [0; SEAL];
        let tag = hmac::sign(&self.0, message);
        seal.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        seal
    }

    /// Whether the seal is that of the message. Takes the same time wherever they differ.
    #[must_use]
    pub fn is_sealed(&self, message: &[u8], seal: &[u8; SEAL]) -> bool {
        let differing = self.seal(message).iter().zip(seal).fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

/// A key for one purpose, made from a secret with at least 128 bits of randomness in it: always the same for the
/// same two, and none tells of another.
///
/// # Source
/// HMAC as a pseudorandom function: the expansion step of HKDF, RFC 5869 section 2.3.
#[must_use]
pub fn derive(secret: &[u8], purpose: &str) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), purpose.as_bytes());
    let mut key = [0; 32];
    key.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_message_fit() {
        let (key, other) = (SealKey::new(&derive(b"secret", "a")), SealKey::new(&derive(b"secret", "b")));
        let seal = key.seal(b"message");
        assert!(key.is_sealed(b"message", &seal));
        assert!(!key.is_sealed(b"massage", &seal) && !other.is_sealed(b"message", &seal));
        for n in 0..SEAL {
            let mut bad = seal;
            bad[n] ^= 1;
            assert!(!key.is_sealed(b"message", &bad), "byte {n}");
        }
    }

    #[test]
    fn the_tag_is_that_of_the_standard() {
        // RFC 4231, test case 2, whose key is shorter: through `derive`, which is plain HMAC.
        let tag = derive(b"Jefe", "what do ya want for nothing?");
        assert_eq!(tag[..8], [0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e]);
    }
}
