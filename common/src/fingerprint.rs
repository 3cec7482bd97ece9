//! Fingerprints: to compare and to name, not against forgery.

/// FNV-1a with 128 bits.
///
/// # Source
/// draft-eastlake-fnv, 128-bit prime and offset basis.
#[must_use]
pub fn fnv128(bytes: &[u8]) -> u128 {
    const PRIME: u128 = (1 << 88) + 0x13b;
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    bytes.iter().fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_published_function() {
        // Of the draft's test vectors: the empty text, "a" and "foobar".
        assert_eq!(format!("{:032x}", fnv128(b"")), "6c62272e07bb014262b821756295c58d");
        assert_eq!(format!("{:032x}", fnv128(b"a")), "d228cb696f1a8caf78912b704e4a8964");
        assert_eq!(format!("{:032x}", fnv128(b"foobar")), "343e1662793c64bf6f0d3597ba446f18");
    }
}
