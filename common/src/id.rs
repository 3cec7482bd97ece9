//! Identifiers, a type per kind, so that a node can not stand where a cluster is meant.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fingerprint::fnv128;
use crate::time::Timestamp;

/// Why a text or number is not an identifier of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// A name with characters a host or cluster name can not have.
    #[error(
        "{kind} name {value:?} is not valid: use 1 to 63 letters, digits, '-', '_' or '.', starting with a letter or digit"
    )]
    Name {
        /// "cluster" or "node".
        kind: &'static str,
        /// What was given, cut to 64 characters.
        value: String,
    },
    /// A vmid outside Proxmox's range.
    #[error("vmid {0} is not valid: Proxmox uses 100 to 999999999")]
    Vmid(u64),
    /// Not the text form of a decision's id.
    #[error(
        "{0:?} is not a decision id: expected CLUSTER-SECONDS-NUMBER as printed by `evenkeelctl decisions`"
    )]
    Decision(String),
}

fn check_name(kind: &'static str, value: &str) -> Result<(), InvalidId> {
    let mut chars = value.chars();
    let good = value.len() <= 63
        && chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if good { Ok(()) } else { Err(InvalidId::Name { kind, value: value.chars().take(64).collect() }) }
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and wraps a name.
            ///
            /// # Errors
            /// [`InvalidId::Name`] unless it is 1 to 63 of `[A-Za-z0-9._-]`, starting with a letter or digit.
            pub fn new(value: impl Into<String>) -> Result<Self, InvalidId> {
                let value = value.into();
                check_name($kind, &value)?;
                Ok(Self(value))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(value: String) -> Result<Self, InvalidId> {
                Self::new(value)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(value: &str) -> Result<Self, InvalidId> {
                Self::new(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name_id!(
    /// Name of a cluster, as the admin's configuration gives it; a guest is a vmid in one of these.
    ClusterId,
    "cluster"
);
name_id!(
    /// Name of a node within its cluster, as Proxmox spells it.
    NodeId,
    "node"
);

/// Number of a guest, unique in its cluster: 100 to 999 999 999 as in Proxmox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vmid(u32);

impl Vmid {
    /// Checks and wraps a vmid.
    ///
    /// # Errors
    /// [`InvalidId::Vmid`] outside 100 to 999 999 999.
    pub fn new(value: u32) -> Result<Self, InvalidId> {
        if (100..=999_999_999).contains(&value) {
            Ok(Self(value))
        } else {
            Err(InvalidId::Vmid(value.into()))
        }
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vmid {
    type Error = InvalidId;
    fn try_from(value: u32) -> Result<Self, InvalidId> {
        Self::new(value)
    }
}

impl From<Vmid> for u32 {
    fn from(value: Vmid) -> Self {
        value.0
    }
}

impl FromStr for Vmid {
    type Err = InvalidId;
    fn from_str(value: &str) -> Result<Self, InvalidId> {
        value.parse::<u32>().map_err(|_| InvalidId::Vmid(0)).and_then(Self::new)
    }
}

impl fmt::Display for Vmid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One decision: the run it belongs to and its place in that run. Shown as `CLUSTER-SECONDS-NUMBER`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct DecisionId {
    /// The cluster decided about.
    pub cluster: ClusterId,
    /// Start of the run, whole seconds since 1970; a cluster has at most one run a second.
    pub run_s: i64,
    /// Place in the run, from 1.
    pub number: u32,
}

impl DecisionId {
    /// Start of the run this decision belongs to.
    #[must_use]
    pub fn run_at(&self) -> Timestamp {
        Timestamp::from_millis(self.run_s * 1000)
    }

    /// Identifies everything about this decision, from recommendation to outcome: a W3C trace id, 32 hexadecimal
    /// digits. It follows from the decision, so that whoever knows the one knows the other.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", fnv128(self.to_string().as_bytes()))
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}-{}-{}", self.cluster, self.run_s, self.number))
    }
}

impl FromStr for DecisionId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let bad = || InvalidId::Decision(text.chars().take(80).collect());
        let mut parts = text.rsplitn(3, '-');
        let number = parts.next().and_then(|p| p.parse().ok()).ok_or_else(bad)?;
        let run_s = parts.next().and_then(|p| p.parse().ok()).ok_or_else(bad)?;
        let cluster = parts.next().and_then(|p| ClusterId::new(p).ok()).ok_or_else(bad)?;
        Ok(Self { cluster, run_s, number })
    }
}

impl TryFrom<String> for DecisionId {
    type Error = InvalidId;
    fn try_from(value: String) -> Result<Self, InvalidId> {
        value.parse()
    }
}

impl From<DecisionId> for String {
    fn from(value: DecisionId) -> Self {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_plain() {
        assert!(NodeId::new("pve-1.lan").is_ok());
        for bad in ["", "-a", "a b", "a\nb", "<script>", &"x".repeat(64)] {
            assert!(NodeId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn decision_ids_survive_text_even_with_dashes_in_the_cluster() {
        let id = DecisionId { cluster: ClusterId::new("lab-2").unwrap(), run_s: 1_763_719_500, number: 3 };
        assert_eq!(id.to_string().parse::<DecisionId>().unwrap(), id);
        assert!("lab".parse::<DecisionId>().is_err());
        assert!("lab-x-1".parse::<DecisionId>().is_err());
    }

    #[test]
    fn vmids_follow_proxmox() {
        assert!(Vmid::new(99).is_err() && Vmid::new(100).is_ok() && Vmid::new(1_000_000_000).is_err());
    }
}
