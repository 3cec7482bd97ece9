//! One migration as a history file tells it, and what makes two of them the same.

use evenkeel_common::id::Vmid;
use evenkeel_common::time::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::fault::Fault;

/// Longest name of a host, in bytes; what DNS calls a name is at most 253, and nobody reads those.
pub const LONGEST_HOST: usize = 128;
/// Longest error code kept, in bytes. Longer ones are cut: some tools put a whole message there.
pub const LONGEST_CODE: usize = 128;
/// Longest migration that is believed, in seconds: a year.
const LONGEST_S: f64 = 365.0 * 86_400.0;
/// Characters of a wrong value that are told.
const SHOWN: usize = 40;

/// How a migration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The guest or host arrived.
    Success,
    /// It did not.
    Failure,
}

/// A migration that has ended.
///
/// Two records are one migration when all of this is the same. Files overlap, and what ships logs delivers some lines
/// twice; a host that really ended two migrations in the same instant with the same error, duration and number of
/// retries could not be told from that, and counts once. Where the number of the guest is known, as in what evenkeel
/// itself saw, it tells them apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// When it ended.
    pub at: Timestamp,
    /// What was migrated, or migrated from.
    pub host: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The error's code, where there is one.
    pub error_code: Option<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: Option<u64>,
    /// How often it was tried again.
    pub retries: Option<u32>,
    /// The guest, where it is known.
    pub guest: Option<Vmid>,
}

impl Record {
    /// Whether it failed.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.outcome == Outcome::Failure
    }

    /// Reads the JSON object of a record. Fields it does not know are passed over.
    ///
    /// # Errors
    /// What keeps it from being one. So does a time after `latest`: it would stay the newest for ever.
    pub fn parse(json: &[u8], latest: Timestamp) -> Result<Self, Fault> {
        let fields: Fields = serde_json::from_slice(json).map_err(|error| {
            let text = error.to_string();
            // Its line and column are those within the record.
            Fault::NotJson { detail: text.split(" at line ").next().unwrap_or_default().to_owned() }
        })?;
        Ok(Self {
            host: host(fields.host)?,
            at: time(fields.timestamp, latest)?,
            outcome: outcome(fields.outcome)?,
            error_code: error_code(fields.error_code)?,
            duration_ms: duration_ms(fields.duration_sec)?,
            retries: whole(fields.retries, "retries")?,
            guest: guest(fields.guest)?,
        })
    }
}

/// Text as an error code: one line of at most [`LONGEST_CODE`] bytes; `None` when nothing is left.
#[must_use]
pub fn as_code(text: &str) -> Option<String> {
    let line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut end = line.len().min(LONGEST_CODE);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    let code = line[..end].trim_end();
    (!code.is_empty()).then(|| code.to_owned())
}

/// The fields as they come, so that each that is wrong can be named.
#[derive(Deserialize)]
struct Fields {
    host: Option<Value>,
    timestamp: Option<Value>,
    outcome: Option<Value>,
    error_code: Option<Value>,
    duration_sec: Option<Value>,
    retries: Option<Value>,
    guest: Option<Value>,
}

fn bad(field: &'static str, value: &Value, expected: &'static str) -> Fault {
    let text = value.to_string();
    let mut found: String = text.chars().take(SHOWN).collect();
    if found.len() < text.len() {
        found.push_str("...");
    }
    Fault::Bad { field, found, expected }
}

fn host(value: Option<Value>) -> Result<String, Fault> {
    const EXPECTED: &str = "a name of 1 to 128 bytes without control characters";
    let value = value.ok_or(Fault::Missing { field: "host" })?;
    let name = value.as_str().map(str::trim).unwrap_or_default();
    if name.is_empty() || name.len() > LONGEST_HOST || name.chars().any(char::is_control) {
        return Err(bad("host", &value, EXPECTED));
    }
    Ok(name.to_owned())
}

fn time(value: Option<Value>, latest: Timestamp) -> Result<Timestamp, Fault> {
    let value = value.ok_or(Fault::Missing { field: "timestamp" })?;
    let at: Option<Timestamp> = value.as_str().and_then(|text| text.trim().parse().ok());
    match at {
        Some(at) if at > latest => Err(bad("timestamp", &value, "a time that is not ahead of now")),
        Some(at) if at.as_millis() >= 0 => Ok(at),
        _ => Err(bad("timestamp", &value, "RFC 3339 from 1970 on, like 2026-11-21T14:00:00Z")),
    }
}

fn outcome(value: Option<Value>) -> Result<Outcome, Fault> {
    let value = value.ok_or(Fault::Missing { field: "outcome" })?;
    match value.as_str() {
        Some(word) if word.eq_ignore_ascii_case("success") => Ok(Outcome::Success),
        Some(word) if word.eq_ignore_ascii_case("failure") => Ok(Outcome::Failure),
        _ => Err(bad("outcome", &value, "success or failure")),
    }
}

fn error_code(value: Option<Value>) -> Result<Option<String>, Fault> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(as_code(&text)),
        // Exit codes are written as numbers.
        Some(Value::Number(number)) => Ok(as_code(&number.to_string())),
        Some(other) => Err(bad("error_code", &other, "a text")),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Within a year.
fn duration_ms(value: Option<Value>) -> Result<Option<u64>, Fault> {
    let Some(value) = value else { return Ok(None) };
    match value.as_f64() {
        Some(seconds) if (0.0..=LONGEST_S).contains(&seconds) => Ok(Some((seconds * 1000.0).round() as u64)),
        _ => Err(bad("duration_sec", &value, "seconds from 0 to a year")),
    }
}

fn whole(value: Option<Value>, field: &'static str) -> Result<Option<u32>, Fault> {
    let Some(value) = value else { return Ok(None) };
    // The largest stands for "not told" in the store.
    let number = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n < u32::MAX);
    number.map(Some).ok_or_else(|| bad(field, &value, "a whole number from 0 on"))
}

fn guest(value: Option<Value>) -> Result<Option<Vmid>, Fault> {
    let Some(value) = value else { return Ok(None) };
    let vmid = value.as_u64().and_then(|n| u32::try_from(n).ok()).and_then(|n| Vmid::new(n).ok());
    vmid.map(Some).ok_or_else(|| bad("guest", &value, "a number of a guest, 100 to 999999999"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATEST: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn parse(json: &str) -> Result<Record, Fault> {
        Record::parse(json.as_bytes(), LATEST)
    }

    #[test]
    fn the_record_of_the_source_is_read() {
        let record = parse(
            r#"{"host":"prod-web-07","timestamp":"2025-01-02T14:23:11Z","outcome":"failure",
                "error_code":"kernel_panic","duration_sec":1847,"retries":3}"#,
        );
        let expected = Record {
            at: Timestamp::from_millis(1_735_827_791_000),
            host: "prod-web-07".into(),
            outcome: Outcome::Failure,
            error_code: Some("kernel_panic".into()),
            duration_ms: Some(1_847_000),
            retries: Some(3),
            guest: None,
        };
        assert_eq!(record, Ok(expected));
    }

    #[test]
    fn what_is_not_needed_may_be_missing_null_or_unknown() {
        let least =
            parse(r#"{"timestamp":"2025-01-02T14:23:11Z","outcome":"SUCCESS","host":" a "}"#).unwrap();
        let nulls = r#"{"timestamp":"2025-01-02T15:23:11+01:00","outcome":"success","host":"a","error_code":"  ",
            "duration_sec":null,"retries":null,"guest":null,"more":{"a":[1,{"b":null}]}}"#;
        assert_eq!(parse(nulls), Ok(least.clone()));
        assert_eq!((least.error_code, least.duration_ms, least.retries), (None, None, None));
        let odd = r#"{"timestamp":"2025-01-02T14:23:11Z","outcome":"failure","host":"a","error_code":-9,
            "duration_sec":0.25,"retries":0,"guest":104}"#;
        let odd = parse(odd).unwrap();
        assert_eq!(
            (odd.error_code.as_deref(), odd.duration_ms, odd.retries),
            (Some("-9"), Some(250), Some(0))
        );
        assert_eq!(odd.guest.map(Vmid::get), Some(104));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, told) in [
            (r#"{"timestamp":"2025-01-02T14:23:11Z","outcome":"success"}"#, "no host"),
            (r#"{"host":"a","outcome":"success"}"#, "no timestamp"),
            (r#"{"host":"a","timestamp":"2025-01-02T14:23:11Z"}"#, "no outcome"),
            (
                r#"{"host":7,"timestamp":"2025-01-02T14:23:11Z","outcome":"success"}"#,
                "host is 7; expected a name",
            ),
            (
                "{\"host\":\"a\\u0007\",\"timestamp\":\"2025-01-02T14:23:11Z\",\"outcome\":\"success\"}",
                "host is",
            ),
            (
                r#"{"host":"a","timestamp":"yesterday","outcome":"success"}"#,
                "timestamp is \"yesterday\"; expected RFC",
            ),
            (r#"{"host":"a","timestamp":"1969-12-31T23:59:59Z","outcome":"success"}"#, "from 1970 on"),
            (r#"{"host":"a","timestamp":"2100-01-02T14:23:11Z","outcome":"success"}"#, "not ahead of now"),
            (
                r#"{"host":"a","timestamp":"2025-01-02T14:23:11Z","outcome":"maybe"}"#,
                "expected success or failure",
            ),
            (
                r#"{"host":"a","timestamp":"2025-01-02T14:23:11Z","outcome":"success","duration_sec":-1}"#,
                "duration_sec is -1",
            ),
            (
                r#"{"host":"a","timestamp":"2025-01-02T14:23:11Z","outcome":"success","retries":1.5}"#,
                "retries is 1.5",
            ),
            (
                r#"{"host":"a","timestamp":"2025-01-02T14:23:11Z","outcome":"success","error_code":[1]}"#,
                "error_code is [1]",
            ),
            (
                r#"{"host":"a","timestamp":"2025-01-02T14:23:11Z","outcome":"success","guest":7}"#,
                "guest is 7",
            ),
            (r#"{"host":"a","host":"b"}"#, "not JSON: duplicate field `host`"),
            (r#"{"host":"a",}"#, "not JSON: trailing comma"),
        ] {
            let fault = parse(json).unwrap_err();
            assert!(fault.to_string().contains(told), "{json}: {fault}");
        }
    }

    #[test]
    fn codes_are_one_short_line() {
        assert_eq!(as_code(" a\tb\n").as_deref(), Some("a b"));
        assert_eq!(as_code(" \n\u{7}"), None);
        let long = "ü".repeat(100);
        assert_eq!(as_code(&long).map(|code| code.len()), Some(128));
        assert_eq!(as_code(&format!("x{long}")).map(|code| code.len()), Some(127), "never half a character");
    }
}
