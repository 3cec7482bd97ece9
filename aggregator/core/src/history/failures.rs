//! Hosts that failed again: how often, how soon, and with what.

use std::collections::BTreeMap;

use evenkeel_common::time::Timestamp;

use super::hosts::Hosts;
use super::record::Record;

/// Failures from which on a host failed repeatedly.
pub const REPEATED: u64 = 2;
/// Latest failures of a host whose times are kept: the median is of the gaps between these.
pub const KEPT: usize = 256;
/// Error codes told apart for one host; rarer ones hardly become the most frequent.
const CODES: usize = 32;

/// A host that failed repeatedly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// Which host.
    pub host: String,
    /// Migrations that failed.
    pub failures: u64,
    /// Migrations that did not.
    pub successes: u64,
    /// When the first one failed.
    pub first_failure: Timestamp,
    /// When the last one failed.
    pub last_failure: Timestamp,
    /// Median time from one failure to the next, in milliseconds, over the last [`KEPT`] failures.
    pub median_gap_ms: u64,
    /// Time between the last two failures, in milliseconds.
    pub last_gap_ms: u64,
    /// The most frequent error code; `None` when no failure had one.
    pub error_code: Option<String>,
    /// Whether a migration has worked since the last failure.
    pub worked_since: bool,
}

/// Looks for hosts that failed repeatedly.
#[derive(Clone, Debug, Default)]
pub struct RepeatedFailures {
    hosts: Hosts<Course>,
}

/// What became of the migrations of one host.
#[derive(Clone, Debug, Default)]
struct Course {
    failures: u64,
    successes: u64,
    first: Option<Timestamp>,
    last_success: Option<Timestamp>,
    /// At least the latest [`KEPT`] failures, in any order.
    times: Vec<Timestamp>,
    codes: BTreeMap<String, u64>,
}

impl RepeatedFailures {
    /// Takes in a migration.
    pub fn add(&mut self, record: &Record) {
        let Some(course) = self.hosts.of(&record.host) else { return };
        if !record.failed() {
            course.successes += 1;
            course.last_success = course.last_success.max(Some(record.at));
            return;
        }
        course.failures += 1;
        course.first = Some(course.first.map_or(record.at, |first| first.min(record.at)));
        course.times.push(record.at);
        if course.times.len() >= 2 * KEPT {
            course.trim();
        }
        if let Some(code) = &record.error_code {
            if let Some(count) = course.codes.get_mut(code) {
                *count += 1;
            } else if course.codes.len() < CODES {
                course.codes.insert(code.clone(), 1);
            }
        }
    }

    /// Records left out because there are too many hosts.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.hosts.left_out
    }

    /// The hosts that failed repeatedly: the most frequent first, of equal ones by name.
    #[must_use]
    pub fn ranked(self) -> Vec<Repeat> {
        let mut found: Vec<_> =
            self.hosts.iter().filter_map(|(host, course)| course.clone().repeat(host)).collect();
        found.sort_by(|a, b| b.failures.cmp(&a.failures).then_with(|| a.host.cmp(&b.host)));
        found
    }
}

impl Course {
    /// Keeps the latest [`KEPT`] failures, in order.
    fn trim(&mut self) {
        self.times.sort_unstable();
        self.times.drain(..self.times.len().saturating_sub(KEPT));
    }

    fn repeat(mut self, host: &str) -> Option<Repeat> {
        if self.failures < REPEATED {
            return None;
        }
        self.trim();
        let gap = |pair: &[Timestamp]| match pair {
            [before, after] => u64::try_from(after.since(*before).as_millis()).unwrap_or(u64::MAX),
            _ => 0,
        };
        let mut gaps: Vec<u64> = self.times.windows(2).map(gap).collect();
        let last_gap_ms = gaps.last().copied()?;
        gaps.sort_unstable();
        // Of two in the middle the mean.
        let (low, high) = (gaps[(gaps.len() - 1) / 2], gaps[gaps.len() / 2]);
        let last_failure = self.times.last().copied()?;
        // Of equally frequent codes the first by name.
        let code = self.codes.into_iter().max_by(|(a, n), (b, m)| n.cmp(m).then_with(|| b.cmp(a)));
        Some(Repeat {
            host: host.to_owned(),
            failures: self.failures,
            successes: self.successes,
            first_failure: self.first?,
            last_failure,
            median_gap_ms: low + (high - low) / 2,
            last_gap_ms,
            error_code: code.map(|(code, _)| code),
            worked_since: self.last_success > Some(last_failure),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::fixture::{DAY, failure, success};

    fn of(records: &[Record]) -> Vec<Repeat> {
        let mut found = RepeatedFailures::default();
        records.iter().for_each(|record| found.add(record));
        found.ranked()
    }

    #[test]
    fn a_host_that_failed_again_is_told_with_its_gaps() {
        let records = [
            failure("web", 10 * DAY, "panic"),
            failure("web", 0, "timeout"),
            success("web", 5 * DAY),
            failure("web", DAY, "panic"),
            failure("once", DAY, "panic"),
            success("calm", DAY),
        ];
        let found = of(&records);
        let millis = |days: i64| u64::try_from(days * DAY * 1000).unwrap();
        let expected = Repeat {
            host: "web".into(),
            failures: 3,
            successes: 1,
            first_failure: Timestamp::from_millis(0),
            last_failure: Timestamp::from_millis(10 * DAY * 1000),
            median_gap_ms: millis(5),
            last_gap_ms: millis(9),
            error_code: Some("panic".into()),
            worked_since: false,
        };
        assert_eq!(found, [expected]);
        let worked = of(&[failure("a", 0, ""), failure("a", 0, ""), success("a", 1)]);
        assert!(worked[0].worked_since && worked[0].median_gap_ms == 0 && worked[0].error_code.is_none());
    }

    #[test]
    fn the_most_frequent_come_first_and_ties_stay_in_order() {
        let mut records = Vec::new();
        for (host, failures) in [("c", 2), ("a", 2), ("b", 5), ("d", 2)] {
            records.extend((0..failures).map(|n| failure(host, n, "x")));
        }
        let order = |records: &[Record]| of(records).into_iter().map(|r| r.host).collect::<Vec<_>>();
        assert_eq!(order(&records), ["b", "a", "c", "d"]);
        records.reverse();
        assert_eq!(order(&records), ["b", "a", "c", "d"]);
    }

    #[test]
    fn of_many_failures_the_latest_make_the_median() {
        // One a day for long, and then one an hour.
        let mut records: Vec<_> = (0..3000).map(|n| failure("a", n * DAY, "x")).collect();
        records.extend((0..KEPT as i64).map(|n| failure("a", 3000 * DAY + n * 3600, "x")));
        for _ in 0..2 {
            let found = of(&records);
            assert_eq!((found[0].failures, found[0].median_gap_ms), (3256, 3_600_000));
            records.reverse();
        }
    }
}
