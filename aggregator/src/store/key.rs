//! Keys as bytes whose order is the order of the values, so that a scan runs in the order the tree promises:
//! numbers big-endian, signed ones with the sign bit flipped, texts ended by what sorts before every character.

use std::ops::Bound;

use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::time::Timestamp;

/// A key or a part of one.
pub trait Key: Sized {
    /// Appends the bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Takes its bytes off the front of `input`; `None` when they are not a key of this kind.
    fn decode(input: &mut &[u8]) -> Option<Self>;

    /// The bytes.
    #[must_use]
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48);
        self.encode(&mut out);
        out
    }

    /// The key of exactly these bytes.
    #[must_use]
    fn from_bytes(mut input: &[u8]) -> Option<Self> {
        let key = Self::decode(&mut input)?;
        input.is_empty().then_some(key)
    }
}

impl<const N: usize> Key for [u8; N] {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn decode(input: &mut &[u8]) -> Option<Self> {
        let (bytes, rest) = input.split_first_chunk()?;
        *input = rest;
        Some(*bytes)
    }
}

impl Key for u32 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
    fn decode(input: &mut &[u8]) -> Option<Self> {
        Key::decode(input).map(Self::from_be_bytes)
    }
}

impl Key for u64 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
    fn decode(input: &mut &[u8]) -> Option<Self> {
        Key::decode(input).map(Self::from_be_bytes)
    }
}

impl Key for i64 {
    fn encode(&self, out: &mut Vec<u8>) {
        // With the sign bit flipped, negative numbers sort before positive ones.
        (self.cast_unsigned() ^ (1 << 63)).encode(out);
    }
    fn decode(input: &mut &[u8]) -> Option<Self> {
        u64::decode(input).map(|bits| (bits ^ (1 << 63)).cast_signed())
    }
}

impl Key for Timestamp {
    fn encode(&self, out: &mut Vec<u8>) {
        self.as_millis().encode(out);
    }
    fn decode(input: &mut &[u8]) -> Option<Self> {
        i64::decode(input).map(Self::from_millis)
    }
}

impl Key for Vmid {
    fn encode(&self, out: &mut Vec<u8>) {
        self.get().encode(out);
    }
    fn decode(input: &mut &[u8]) -> Option<Self> {
        u32::decode(input).and_then(|n| Self::new(n).ok())
    }
}

impl Key for String {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_text(self, out);
    }
    fn decode(input: &mut &[u8]) -> Option<Self> {
        decode_text(input)
    }
}

impl Key for ClusterId {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_text(self.as_str(), out);
    }
    fn decode(input: &mut &[u8]) -> Option<Self> {
        decode_text(input).and_then(|name| Self::new(name).ok())
    }
}

impl Key for NodeId {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_text(self.as_str(), out);
    }
    fn decode(input: &mut &[u8]) -> Option<Self> {
        decode_text(input).and_then(|name| Self::new(name).ok())
    }
}

/// A zero inside a text becomes 0 255, its end is 0 0: so "a" sorts before "a-b" whatever follows in the key.
fn encode_text(text: &str, out: &mut Vec<u8>) {
    for &byte in text.as_bytes() {
        out.push(byte);
        if byte == 0 {
            out.push(0xFF);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

fn decode_text(input: &mut &[u8]) -> Option<String> {
    let mut text = Vec::new();
    loop {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        if byte == 0 {
            let (&mark, rest) = input.split_first()?;
            *input = rest;
            match mark {
                0 => return String::from_utf8(text).ok(),
                0xFF => {}
                _ => return None,
            }
        }
        text.push(byte);
    }
}

macro_rules! tuple_key {
    ($($part:ident),+) => {
        impl<$($part: Key),+> Key for ($($part,)+) {
            #[allow(non_snake_case)]
            fn encode(&self, out: &mut Vec<u8>) {
                let ($($part,)+) = self;
                $($part.encode(out);)+
            }
            fn decode(input: &mut &[u8]) -> Option<Self> {
                Some(($($part::decode(input)?,)+))
            }
        }
    };
}
tuple_key!(A);
tuple_key!(A, B);
tuple_key!(A, B, C);
tuple_key!(A, B, C, D);

/// Declares a key as a struct whose fields, in their order, are the order of the tree.
macro_rules! key {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $kind,)+
        }

        impl $crate::store::key::Key for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                $($crate::store::key::Key::encode(&self.$field, out);)+
            }
            fn decode(input: &mut &[u8]) -> Option<Self> {
                Some(Self { $($field: $crate::store::key::Key::decode(input)?,)+ })
            }
        }
    };
}
pub(crate) use key;

/// A stretch of keys within one tree: `start` inclusive, `end` exclusive (`None` = to the end of the tree).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// First key inside.
    pub start: Vec<u8>,
    /// First key after.
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// The whole tree.
    #[must_use]
    pub fn all() -> Self {
        Self { start: Vec::new(), end: None }
    }

    /// All keys that begin with these parts, as in `KeyRange::under(&(cluster, node))`.
    #[must_use]
    pub fn under(parts: &impl Key) -> Self {
        let start = parts.to_bytes();
        let end = after_prefix(&start);
        Self { start, end }
    }

    /// From these parts, inclusive, to those, exclusive: `KeyRange::between(&(c, n, from), &(c, n, to))`.
    #[must_use]
    pub fn between(from: &impl Key, to: &impl Key) -> Self {
        Self { start: from.to_bytes(), end: Some(to.to_bytes()) }
    }

    /// What is left of this range after `key` was seen going forward.
    #[must_use]
    pub fn after(&self, key: &[u8]) -> Self {
        let mut start = key.to_vec();
        start.push(0);
        Self { start, end: self.end.clone() }
    }

    /// Whether no key can lie inside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// The bounds below a one-byte tree prefix.
    pub(crate) fn bounds(&self, prefix: u8) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        let with = |key: &[u8]| [&[prefix], key].concat();
        let end = match &self.end {
            Some(end) => Bound::Excluded(with(end)),
            None => after_prefix(&[prefix]).map_or(Bound::Unbounded, Bound::Excluded),
        };
        (Bound::Included(with(&self.start)), end)
    }
}

/// The first bytes that sort after everything with this prefix; `None` when there are none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xFF)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// Bytes as hexadecimal digits.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n & 15)]);
    bytes.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte)]).collect()
}

/// The bytes of hexadecimal digits.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = String> {
        proptest::collection::vec(prop_oneof![Just('\0'), Just('\u{1}'), Just('a'), Just('b')], 0..4)
            .prop_map(|chars| chars.into_iter().collect())
    }

    proptest! {
        #[test]
        fn bytes_sort_like_the_values_and_decode_to_them(
            a in (text(), any::<i64>(), text(), any::<u64>()),
            b in (text(), any::<i64>(), text(), any::<u64>()),
        ) {
            prop_assert_eq!(a.to_bytes().cmp(&b.to_bytes()), a.cmp(&b));
            let (one, other) = ((a.1, a.3), (a.1, b.3));
            prop_assert_eq!(one.to_bytes().cmp(&other.to_bytes()), one.cmp(&other));
            prop_assert_eq!(<(String, i64, String, u64)>::from_bytes(&a.to_bytes()), Some(a));
        }

        #[test]
        fn a_prefix_holds_exactly_the_keys_that_begin_with_it(prefix in text(), key in text(), n in any::<u32>()) {
            let range = KeyRange::under(&(prefix.clone(),));
            let bytes = (key.clone(), n).to_bytes();
            let inside = bytes >= range.start && range.end.is_none_or(|end| bytes < end);
            prop_assert_eq!(inside, key == prefix);
        }

        #[test]
        fn hex_comes_back(bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(from_hex(&to_hex(&bytes)), Some(bytes));
        }
    }

    #[test]
    fn foreign_bytes_are_no_key() {
        assert_eq!(String::from_bytes(b"abc"), None, "no end");
        assert_eq!(String::from_bytes(b"a\0\x07"), None, "bad escape");
        assert_eq!(String::from_bytes(b"a\0\0x"), None, "something left");
        assert_eq!(ClusterId::from_bytes(b"<b>\0\0"), None, "not a name");
        assert_eq!(from_hex("0g"), None);
        assert_eq!(from_hex("abc"), None);
    }

    #[test]
    fn the_last_prefix_has_no_end() {
        assert_eq!(after_prefix(&[1, 0xFF, 0xFF]), Some(vec![2]));
        assert_eq!(after_prefix(&[0xFF]), None);
    }
}
