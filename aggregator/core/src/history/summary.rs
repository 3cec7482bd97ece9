//! All migrations together: how many failed, who fails most, and with what.

use std::collections::BTreeMap;

use evenkeel_common::time::Timestamp;

use super::failures::REPEATED;
use super::record::Record;
use super::score::Scores;

/// Error codes told apart. Failures with further ones count as of other codes.
const CODES: usize = 10_000;

/// Sums up migrations.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    scores: Scores,
    migrations: u64,
    failures: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    retries: u64,
    /// Total and number of the durations that are known.
    took_ms: (u64, u64),
    codes: BTreeMap<String, u64>,
    other_codes: u64,
}

/// What they come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Summed {
    /// All migrations.
    pub migrations: u64,
    /// Those that failed.
    pub failures: u64,
    /// Share of failures, 0 to 1; `None` without migrations.
    pub failure_share: Option<f64>,
    /// When the first one ended.
    pub first: Option<Timestamp>,
    /// When the last one ended.
    pub last: Option<Timestamp>,
    /// Hosts.
    pub hosts: u64,
    /// Hosts with a failure.
    pub failing_hosts: u64,
    /// Hosts that failed repeatedly.
    pub repeating_hosts: u64,
    /// Attempts beyond the first, where that is known.
    pub retries: u64,
    /// Mean duration in milliseconds, where durations are known.
    pub mean_duration_ms: Option<u64>,
    /// Who failed most: host, failures, migrations. Of equal ones by name.
    pub offenders: Vec<(String, u64, u64)>,
    /// What with: error code and failures, the most frequent first, of equal ones by name.
    pub codes: Vec<(String, u64)>,
    /// Failures with codes that are not among `codes`.
    pub other_codes: u64,
    /// Failures without a code.
    pub without_code: u64,
    /// Records left out of what is told by host, because there are too many hosts.
    pub left_out: u64,
}

impl Summary {
    /// Takes in a migration.
    pub fn add(&mut self, record: &Record) {
        self.scores.add(record);
        self.migrations += 1;
        self.first = Some(self.first.map_or(record.at, |first| first.min(record.at)));
        self.last = self.last.max(Some(record.at));
        self.retries = self.retries.saturating_add(record.retries.unwrap_or(0).into());
        if let Some(took) = record.duration_ms {
            self.took_ms = (self.took_ms.0.saturating_add(took), self.took_ms.1 + 1);
        }
        if !record.failed() {
            return;
        }
        self.failures += 1;
        let Some(code) = &record.error_code else { return };
        if let Some(count) = self.codes.get_mut(code) {
            *count += 1;
        } else if self.codes.len() < CODES {
            self.codes.insert(code.clone(), 1);
        } else {
            self.other_codes += 1;
        }
    }

    /// What they come to, with so many offenders and codes.
    #[must_use]
    pub fn summed(self, most: usize) -> Summed {
        let hosts = self.scores.hosts();
        let with = |least: u64| hosts.iter().filter(|(_, counts)| counts.failures >= least).count() as u64;
        let mut offenders: Vec<_> = hosts
            .iter()
            .filter(|(_, counts)| counts.failures > 0)
            .map(|(host, counts)| (host.to_owned(), counts.failures, counts.total()))
            .collect();
        offenders.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        offenders.truncate(most);
        let coded = self.codes.values().sum::<u64>() + self.other_codes;
        let mut codes: Vec<_> = self.codes.into_iter().collect();
        codes.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let cut: u64 = codes.iter().skip(most).map(|(_, count)| count).sum();
        codes.truncate(most);
        Summed {
            migrations: self.migrations,
            failures: self.failures,
            failure_share: (self.migrations > 0).then(|| self.failures as f64 / self.migrations as f64),
            first: self.first,
            last: self.last,
            hosts: hosts.len() as u64,
            failing_hosts: with(1),
            repeating_hosts: with(REPEATED),
            retries: self.retries,
            mean_duration_ms: self.took_ms.0.checked_div(self.took_ms.1),
            offenders,
            codes,
            other_codes: self.other_codes + cut,
            without_code: self.failures.saturating_sub(coded),
            left_out: hosts.left_out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::fixture::{failure, success};

    #[test]
    fn totals_offenders_and_codes_are_told() {
        let mut summary = Summary::default();
        for (host, failures, code) in [("web-07", 3, "panic"), ("db-12", 2, "timeout"), ("app-03", 1, "")] {
            (0..failures).for_each(|n| summary.add(&failure(host, n, code)));
            (0..4).for_each(|n| summary.add(&success(host, 10 + n)));
        }
        let odd = Record { duration_ms: Some(3000), retries: Some(2), ..failure("web-07", 3, "odd") };
        summary.add(&odd);
        summary.add(&Record { duration_ms: Some(2000), ..success("calm", 99) });
        let summed = summary.summed(2);
        assert_eq!((summed.migrations, summed.failures, summed.failure_share), (20, 7, Some(0.35)));
        assert_eq!((summed.hosts, summed.failing_hosts, summed.repeating_hosts), (4, 3, 2));
        assert_eq!(summed.offenders, [("web-07".into(), 4, 8), ("db-12".into(), 2, 6)]);
        assert_eq!(summed.codes, [("panic".into(), 3), ("timeout".into(), 2)]);
        assert_eq!((summed.other_codes, summed.without_code), (1, 1));
        assert_eq!((summed.retries, summed.mean_duration_ms), (2, Some(2500)));
        assert_eq!(summed.last, Some(Timestamp::from_millis(99_000)));
    }

    #[test]
    fn nothing_has_no_share() {
        let summed = Summary::default().summed(5);
        assert_eq!((summed.migrations, summed.failure_share, summed.mean_duration_ms), (0, None, None));
        assert_eq!((summed.first, summed.offenders.len()), (None, 0));
    }
}
