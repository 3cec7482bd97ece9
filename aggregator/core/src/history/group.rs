//! Groups of hosts by name: `prod-web-*`.

use std::fmt;
use std::str::FromStr;

/// Longest pattern, in bytes.
const LONGEST: usize = 128;

/// Names of hosts, where `*` stands for any text. Upper and lower case are the same, as in DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// Not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no group of hosts: write a name of at most 128 bytes, with * for any text, as in prod-web-*"
)]
pub struct InvalidPattern(String);

impl FromStr for Pattern {
    type Err = InvalidPattern;
    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        if text.is_empty() || text.len() > LONGEST || text.chars().any(char::is_control) {
            return Err(InvalidPattern(text.chars().take(40).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Pattern {
    /// Whether a host belongs to the group.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), host.as_bytes());
        let (mut at, mut seen) = (0, 0);
        // Where to go on when what follows the last star does not fit: behind it, one character further.
        let mut star = None;
        while seen < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at + 1, seen));
                    at += 1;
                }
                Some(byte) if byte.eq_ignore_ascii_case(&name[seen]) => {
                    at += 1;
                    seen += 1;
                }
                _ => {
                    let Some((behind, from)) = star else { return false };
                    star = Some((behind, from + 1));
                    (at, seen) = (behind, from + 1);
                }
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, belongs) in [
            ("prod-web-*", "prod-web-07", true),
            ("prod-web-*", "prod-web-", true),
            ("prod-web-*", "prod-db-07", false),
            ("*-07", "prod-web-07", true),
            ("*-07", "prod-web-071", false),
            ("p*w*7", "Prod-Web-07", true),
            ("*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("*", "", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("züri*", "zürich", true),
        ] {
            assert_eq!(pattern.parse::<Pattern>().unwrap().matches(name), belongs, "{pattern} {name}");
        }
        for bad in ["", "a\nb", &"x".repeat(129)] {
            assert!(bad.parse::<Pattern>().unwrap_err().to_string().contains("prod-web-*"), "{bad}");
        }
    }
}
