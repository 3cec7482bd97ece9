//! A run with everything it was made of, so that it can be made again.

use evenkeel_common::fingerprint;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Memory, Policy, Run, Snapshot, decide};

/// Version of the record's form and of the rules behind it. Raise it with every change that can change a decision.
pub const RECORD_VERSION: u32 = 4;

/// Differences listed at most.
const MAX_DIFFERENCES: usize = 50;

/// A run and its whole input. JSON keeps it exactly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`RECORD_VERSION`] of the program that decided.
    pub version: u32,
    /// What it saw.
    pub snapshot: Snapshot,
    /// The options it had.
    pub policy: Policy,
    /// What it remembered.
    pub memory_in: Memory,
    /// What it decided.
    pub run: Run,
}

/// Why a record can not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Written by a program with other rules.
    #[error(
        "the record has version {found}, this program replays version {RECORD_VERSION}; use the evenkeel version that wrote it"
    )]
    Version {
        /// The record's.
        found: u32,
    },
    /// It can not be written as JSON.
    #[error("the run can not be written as JSON; report this as a bug")]
    Json(#[source] serde_json::Error),
}

/// A replay held against what was stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// The run as it comes out now.
    pub run: Run,
    /// [`digest`] of the stored run.
    pub stored_digest: String,
    /// [`digest`] of the run as it comes out now.
    pub replayed_digest: String,
    /// Where the two differ; empty exactly when the digests are equal.
    pub differences: Vec<Difference>,
}

/// One value that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Path within the run: `decisions[0].target`.
    pub path: String,
    /// As stored; `None` when it was not there.
    pub stored: Option<String>,
    /// As it comes out now; `None` when it is not there.
    pub replayed: Option<String>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, stored, replayed } = self;
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(f, "{path}: stored {}, replayed {}", shown(stored), shown(replayed))
    }
}

impl RunRecord {
    /// Decides and keeps everything.
    #[must_use]
    pub fn of(snapshot: Snapshot, policy: Policy, memory_in: Memory) -> Self {
        let run = decide(&snapshot, &policy, &memory_in);
        Self { version: RECORD_VERSION, snapshot, policy, memory_in, run }
    }
}

/// Decides again from a record and compares, bit for bit.
///
/// # Errors
/// [`ReplayError::Version`] when the record was written under other rules.
pub fn replay(record: &RunRecord) -> Result<Replayed, ReplayError> {
    if record.version != RECORD_VERSION {
        return Err(ReplayError::Version { found: record.version });
    }
    let run = decide(&record.snapshot, &record.policy, &record.memory_in);
    let [stored, replayed] =
        [&record.run, &run].map(|run| serde_json::to_value(run).map_err(ReplayError::Json));
    let (stored, replayed) = (stored?, replayed?);
    let mut differences = Vec::new();
    compare("", Some(&stored), Some(&replayed), &mut differences);
    Ok(Replayed {
        run,
        stored_digest: fnv128(canonical(&stored).as_bytes()),
        replayed_digest: fnv128(canonical(&replayed).as_bytes()),
        differences,
    })
}

/// Fingerprint of a run, 32 hexadecimal digits: FNV-1a with 128 bits over its JSON with sorted keys. For comparing
/// runs, not against forgery.
///
/// # Errors
/// [`ReplayError::Json`].
pub fn digest(run: &Run) -> Result<String, ReplayError> {
    Ok(fnv128(canonical(&serde_json::to_value(run).map_err(ReplayError::Json)?).as_bytes()))
}

/// JSON with sorted keys. Whether `serde_json` sorts by itself is a feature that any crate of a build may switch.
fn canonical(value: &Value) -> String {
    let join = |parts: Vec<String>| parts.join(",");
    match value {
        Value::Object(object) => {
            let sorted: std::collections::BTreeMap<_, _> = object.iter().collect();
            let member = |(key, value): (&String, &Value)| {
                format!("{}:{}", Value::from(key.as_str()), canonical(value))
            };
            format!("{{{}}}", join(sorted.into_iter().map(member).collect()))
        }
        Value::Array(items) => format!("[{}]", join(items.iter().map(canonical).collect())),
        scalar => scalar.to_string(),
    }
}

fn fnv128(bytes: &[u8]) -> String {
    format!("{:032x}", fingerprint::fnv128(bytes))
}

fn compare(path: &str, stored: Option<&Value>, replayed: Option<&Value>, out: &mut Vec<Difference>) {
    if stored == replayed || out.len() >= MAX_DIFFERENCES {
        return;
    }
    match (stored, replayed) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&path, a.get(key), b.get(key), out);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for index in 0..a.len().max(b.len()) {
                compare(&format!("{path}[{index}]"), a.get(index), b.get(index), out);
            }
        }
        _ => out.push(Difference {
            path: path.to_owned(),
            stored: stored.map(Value::to_string),
            replayed: replayed.map(Value::to_string),
        }),
    }
}
