//! Reading what Proxmox writes: numbers as texts, booleans as numbers, absent instead of null, new words.
//!
//! Proxmox' API comes from Perl, where a scalar is what its last use made of it. The same field is a number in
//! one answer and a text in the next, so every scalar is read by what it says, not by its JSON type. What says
//! nothing (a list where a number belongs, "abc" for a size) stays an error: a wrong number is worse than none.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A JSON scalar as it came.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a text or a truth value")
    }
    fn visit_unit<E: de::Error>(self) -> Result<Scalar, E> {
        Ok(Scalar::Null)
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Bool(value))
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar::Unsigned(value))
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar::Signed(value))
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar::Float(value))
    }
    fn visit_str<E: de::Error>(self, value: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(value.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Unsigned(value) => write!(f, "{value}"),
            Self::Signed(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// What a scalar can be read as.
pub(super) trait FromScalar: Sized {
    /// For the message when it can not.
    const WANTED: &'static str;
    fn from_scalar(scalar: &Scalar) -> Option<Self>;
}

impl FromScalar for f64 {
    const WANTED: &'static str = "a finite number";
    #[allow(clippy::cast_precision_loss)]
    fn from_scalar(scalar: &Scalar) -> Option<Self> {
        let value = match scalar {
            Scalar::Unsigned(value) => *value as Self,
            Scalar::Signed(value) => *value as Self,
            Scalar::Float(value) => *value,
            Scalar::Text(text) => text.trim().parse().ok()?,
            Scalar::Null | Scalar::Bool(_) => return None,
        };
        value.is_finite().then_some(value)
    }
}

impl FromScalar for u64 {
    const WANTED: &'static str = "a whole number, zero or more";
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn from_scalar(scalar: &Scalar) -> Option<Self> {
        match scalar {
            Scalar::Unsigned(value) => Some(*value),
            Scalar::Text(text) if text.trim().parse::<Self>().is_ok() => text.trim().parse().ok(),
            _ => {
                // Perl turns a large sum into a float; 2^64 itself is one too many.
                let value = f64::from_scalar(scalar)?;
                (0.0..18_446_744_073_709_551_616.0).contains(&value).then_some(value as Self)
            }
        }
    }
}

impl FromScalar for u32 {
    const WANTED: &'static str = "a whole number from 0 to 4294967295";
    fn from_scalar(scalar: &Scalar) -> Option<Self> {
        u64::from_scalar(scalar)?.try_into().ok()
    }
}

impl FromScalar for bool {
    const WANTED: &'static str = "0 or 1";
    fn from_scalar(scalar: &Scalar) -> Option<Self> {
        match scalar {
            Scalar::Bool(value) => Some(*value),
            Scalar::Unsigned(0) => Some(false),
            Scalar::Unsigned(1) => Some(true),
            // The words Proxmox itself takes for a boolean in its configuration files.
            Scalar::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" | "on" => Some(true),
                "0" | "false" | "no" | "off" => Some(false),
                _ => None,
            },
            Scalar::Unsigned(_) | Scalar::Signed(_) | Scalar::Float(_) | Scalar::Null => None,
        }
    }
}

impl FromScalar for String {
    const WANTED: &'static str = "a text";
    fn from_scalar(scalar: &Scalar) -> Option<Self> {
        match scalar {
            Scalar::Null => None,
            other => Some(other.to_string()),
        }
    }
}

/// For `#[serde(default, deserialize_with = "lenient::opt")]`: absent, null and "" are `None`.
pub(super) fn opt<'de, D: Deserializer<'de>, T: FromScalar>(deserializer: D) -> Result<Option<T>, D::Error> {
    let scalar = Scalar::deserialize(deserializer)?;
    match &scalar {
        Scalar::Null => Ok(None),
        Scalar::Text(text) if text.is_empty() => Ok(None),
        value => T::from_scalar(value).map(Some).ok_or_else(|| {
            let shown: String = value.to_string().chars().take(40).collect();
            de::Error::custom(format_args!("expected {}, got {shown:?}", T::WANTED))
        }),
    }
}

/// For `#[serde(deserialize_with = "lenient::required")]`.
pub(super) fn required<'de, D: Deserializer<'de>, T: FromScalar>(deserializer: D) -> Result<T, D::Error> {
    opt(deserializer)?.ok_or_else(|| de::Error::custom(format_args!("expected {}, got nothing", T::WANTED)))
}

/// For `#[serde(default, deserialize_with = "lenient::flag")]`: absent is false.
pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(opt(deserializer)?.unwrap_or(false))
}

/// A closed list of words that Proxmox may extend: an unknown one is kept, never an error.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// A word this version of evenkeel does not know.
            Other(String),
        }

        impl $name {
            /// Proxmox' word.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self { $(Self::$variant => $word,)* Self::Other(word) => word }
            }
        }

        impl From<&str> for $name {
            fn from(word: &str) -> Self {
                match word { $($word => Self::$variant,)* other => Self::Other(other.chars().take(40).collect()) }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl $crate::pve::lenient::FromScalar for $name {
            const WANTED: &'static str = "a word";
            fn from_scalar(scalar: &$crate::pve::lenient::Scalar) -> Option<Self> {
                Some(Self::from(String::from_scalar(scalar)?.as_str()))
            }
        }
    };
}
pub(super) use words;

/// Parts of a property string such as `shared1:100/disk.raw,size=32G,shared=1`: the text before the first `=`
/// of each part is its key, empty where there is none.
pub(super) fn properties(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or(("", part)))
}

/// A boolean out of a property string, by the same rules as in JSON.
pub(super) fn property_flag(text: &str, key: &str) -> bool {
    properties(text)
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| bool::from_scalar(&Scalar::Text(value.to_owned())))
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    words!(
        /// For the test.
        Mode { Quick = "quick" }
    );

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    struct Row {
        #[serde(default, deserialize_with = "opt")]
        share: Option<f64>,
        #[serde(default, deserialize_with = "opt")]
        size: Option<u64>,
        #[serde(default, deserialize_with = "flag")]
        on: bool,
        #[serde(default, deserialize_with = "opt")]
        name: Option<String>,
    }

    fn row(json: &str) -> Result<Row, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn scalars_are_read_by_what_they_say() {
        let full = Row { share: Some(0.5), size: Some(2048), on: true, name: Some("7".into()) };
        for json in [
            r#"{"share":0.5,"size":2048,"on":1,"name":"7"}"#,
            r#"{"share":"0.5","size":"2048","on":"1","name":7}"#,
            r#"{"share":5e-1,"size":2048.0,"on":true,"name":"7","new-field":{"a":[1]}}"#,
            r#"{"share":"0.50","size":"2.048e3","on":"true","name":"7"}"#,
        ] {
            assert_eq!(row(json).unwrap(), full, "{json}");
        }
        for json in
            ["{}", r#"{"share":null,"size":"","on":null,"name":""}"#, r#"{"on":"0"}"#, r#"{"on":false}"#]
        {
            assert_eq!(row(json).unwrap(), Row::default(), "{json}");
        }
    }

    #[test]
    fn what_says_nothing_is_an_error_that_names_it() {
        for json in [
            r#"{"share":"NaN"}"#,
            r#"{"share":"U"}"#,
            r#"{"size":-1}"#,
            r#"{"size":"1e400"}"#,
            r#"{"size":18446744073709551616}"#,
            r#"{"size":[1]}"#,
            r#"{"on":2}"#,
            r#"{"on":"maybe"}"#,
            r#"{"share":true}"#,
        ] {
            assert!(row(json).unwrap_err().to_string().contains("expected"), "{json}");
        }
        assert_eq!(row(r#"{"size":18446744073709551615}"#).unwrap().size, Some(u64::MAX));
    }

    #[test]
    fn unknown_words_are_kept() {
        assert_eq!(Mode::from("quick"), Mode::Quick);
        assert_eq!(Mode::from("warp").to_string(), "warp");
    }

    #[test]
    fn property_strings_come_apart() {
        let parts: Vec<_> = properties("local:vm-1,size=8G,,shared=1 , mp=/a=b").collect();
        assert_eq!(parts, [("", "local:vm-1"), ("size", "8G"), ("shared", "1"), ("mp", "/a=b")]);
        assert!(property_flag("x,shared=1", "shared") && !property_flag("x,shared=0", "shared"));
        assert!(!property_flag("x", "shared"));
    }
}
