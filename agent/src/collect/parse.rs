//! Small parsers over bytes, shared by the collectors. They accept what the kernel writes and nothing else:
//! a damaged file gives no value, never a wrong one.

/// The lines of a kernel file; `None` when it is empty or its last line is cut off, since half a number
/// still looks like a number.
pub(crate) fn lines(text: &[u8]) -> Option<impl DoubleEndedIterator<Item = &[u8]>> {
    Some(text.strip_suffix(b"\n")?.split(|&byte| byte == b'\n'))
}

/// The words of a line, separated by blanks or tabs.
pub(crate) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&byte| byte == b' ' || byte == b'\t').filter(|word| !word.is_empty())
}

/// An unsigned decimal number, digits only; `None` when it does not fit.
pub(crate) fn number(word: &[u8]) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0_u64, |sum, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// The numbers behind `keys` in a file of `key number` lines; a key that is not there has none.
/// `None` for the whole when the file is cut off, a wanted key comes twice, or its number is no number.
pub(crate) fn numbers<const N: usize>(text: &[u8], keys: [&[u8]; N]) -> Option<[Option<u64>; N]> {
    let mut found = [None; N];
    for line in lines(text)? {
        let mut words = words(line);
        let Some(first) = words.next() else { continue };
        let Some(place) = keys.iter().position(|&key| key == first) else { continue };
        let value = number(words.next()?)?;
        if found[place].replace(value).is_some() {
            return None;
        }
    }
    Some(found)
}

/// Text from outside, fit to be shown: at most `limit` characters, without control characters and without
/// those that hide or reorder their neighbours.
pub(crate) fn shown(text: &[u8], limit: usize) -> String {
    let hides = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    String::from_utf8_lossy(text)
        .trim()
        .chars()
        .filter(|&c| !c.is_control() && !hides(c))
        .take(limit)
        .collect()
}

/// The name of a device as a series carries it: [`shown`], cut to what a series allows.
pub(crate) fn instance(name: &[u8]) -> String {
    let mut text = shown(name, evenkeel_common::sample::MAX_INSTANCE_LEN);
    while text.len() > evenkeel_common::sample::MAX_INSTANCE_LEN {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_digits_that_fit() {
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for bad in ["", "-1", "+1", "1.5", "0x10", "18446744073709551616", "12\u{b9}"] {
            assert_eq!(number(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn keys_are_found_once_or_not_at_all() {
        let read = |text: &str| numbers(text.as_bytes(), [b"a", b"b:"]);
        assert_eq!(read("a 1\nx y\nb: 2 kB\n"), Some([Some(1), Some(2)]));
        assert_eq!(read("ab 1\n"), Some([None, None]));
        for bad in ["", "a 1", "a 1\na 1\n", "a\n", "a -1\n", "a 99999999999999999999\n"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn shown_text_is_plain_and_bounded() {
        assert_eq!(shown(" we\u{1b}[31mb\u{202e}-a\n".as_bytes(), 128), "we[31mb-a");
        assert_eq!(shown(&[0xff, b'x'], 128), "\u{fffd}x");
        assert_eq!(shown("é".repeat(500).as_bytes(), 128).chars().count(), 128);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(text: Vec<u8>) {
            let _ = numbers(&text, [b"a", b"file", b"total"]);
            prop_assert!(instance(&text).len() <= evenkeel_common::sample::MAX_INSTANCE_LEN);
        }

        #[test]
        fn numbers_agree_with_the_standard_library(text in "[0-9]{1,21}") {
            prop_assert_eq!(number(text.as_bytes()), text.parse().ok());
        }
    }
}
