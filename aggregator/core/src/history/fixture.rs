//! Records for the tests of this folder.

use evenkeel_common::time::Timestamp;

use super::record::{Outcome, Record};

/// Seconds of a day.
pub const DAY: i64 = 86_400;

/// A migration that ended at this second.
fn ended(host: &str, at_s: i64, outcome: Outcome) -> Record {
    Record {
        at: Timestamp::from_millis(at_s * 1000),
        host: host.to_owned(),
        outcome,
        error_code: None,
        duration_ms: None,
        retries: None,
        guest: None,
    }
}

/// One that worked.
pub fn success(host: &str, at_s: i64) -> Record {
    ended(host, at_s, Outcome::Success)
}

/// One that failed with this code; without one when it is empty.
pub fn failure(host: &str, at_s: i64, code: &str) -> Record {
    let error_code = (!code.is_empty()).then(|| code.to_owned());
    Record { error_code, ..ended(host, at_s, Outcome::Failure) }
}
