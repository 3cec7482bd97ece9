//! The week: what failed in the last seven days against the seven before, and which hosts that concerns.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_common::time::Timestamp;

use super::failures::REPEATED;
use super::hosts::Hosts;
use super::record::Record;

/// A week.
pub const WEEK: Duration = Duration::from_hours(7 * 24);
/// How far back clusters look: of seven days, three are too easily the same.
pub const CLUSTERS: Duration = Duration::from_hours(28 * 24);
/// Error codes told apart.
const CODES: usize = 10_000;

/// What became of a host that failed repeatedly in one of the two weeks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It fails repeatedly and did not in the week before.
    New,
    /// As in the week before.
    Still,
    /// It failed once; in the week before repeatedly.
    Easing,
    /// It was migrated without a failure; in the week before it failed repeatedly.
    Recovered,
    /// It was not migrated, so nothing is known; in the week before it failed repeatedly.
    Quiet,
}

impl Standing {
    /// Stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Still => "still",
            Self::Easing => "easing",
            Self::Recovered => "recovered",
            Self::Quiet => "quiet",
        }
    }
}

/// Migrations of a week.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Week {
    /// All.
    pub migrations: u64,
    /// Those that failed.
    pub failures: u64,
}

impl Week {
    /// Share of failures, 0 to 1; `None` without migrations.
    #[must_use]
    pub fn failure_share(&self) -> Option<f64> {
        (self.migrations > 0).then(|| self.failures as f64 / self.migrations as f64)
    }

    fn add(&mut self, record: &Record) {
        self.migrations += 1;
        self.failures += u64::from(record.failed());
    }
}

/// A host that failed repeatedly in one of the two weeks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offender {
    /// Which host.
    pub host: String,
    /// What became of it.
    pub standing: Standing,
    /// The last seven days.
    pub this: Week,
    /// The seven before.
    pub before: Week,
}

/// The two weeks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The last seven days.
    pub this: Week,
    /// The seven before.
    pub before: Week,
    /// Hosts that failed repeatedly in one of them: by standing, then the most failures, then by name.
    pub offenders: Vec<Offender>,
    /// Error codes of the last seven days that the seven before did not have, the most frequent first.
    pub new_codes: Vec<(String, u64)>,
    /// Records left out because there are too many hosts.
    pub left_out: u64,
}

/// Compares two weeks.
#[derive(Clone, Debug)]
pub struct Weekly {
    now: Timestamp,
    weeks: [Week; 2],
    hosts: Hosts<[Week; 2]>,
    codes: BTreeMap<String, [u64; 2]>,
}

impl Weekly {
    /// The week that ends now, and the one before.
    #[must_use]
    pub fn ending(now: Timestamp) -> Self {
        Self { now, weeks: [Week::default(); 2], hosts: Hosts::default(), codes: BTreeMap::new() }
    }

    /// Takes in a migration; what is older than two weeks is passed over.
    pub fn add(&mut self, record: &Record) {
        let week = match record.at {
            at if at > self.now.before(WEEK) => 0,
            at if at > self.now.before(2 * WEEK) => 1,
            _ => return,
        };
        self.weeks[week].add(record);
        if let Some(weeks) = self.hosts.of(&record.host) {
            weeks[week].add(record);
        }
        let Some(code) = record.error_code.as_ref().filter(|_| record.failed()) else { return };
        if let Some(counts) = self.codes.get_mut(code) {
            counts[week] += 1;
        } else if self.codes.len() < CODES {
            let mut counts = [0; 2];
            counts[week] = 1;
            self.codes.insert(code.clone(), counts);
        }
    }

    /// What they come to.
    #[must_use]
    pub fn report(self) -> Report {
        let offender = |(host, weeks): (&str, &[Week; 2])| {
            let [this, before] = *weeks;
            let standing = match (this.failures, before.failures >= REPEATED) {
                (REPEATED.., false) => Standing::New,
                (REPEATED.., true) => Standing::Still,
                (_, false) => return None,
                (1, true) => Standing::Easing,
                (_, true) if this.migrations > 0 => Standing::Recovered,
                (_, true) => Standing::Quiet,
            };
            Some(Offender { host: host.to_owned(), standing, this, before })
        };
        let mut offenders: Vec<_> = self.hosts.iter().filter_map(offender).collect();
        offenders.sort_by(|a, b| {
            let failures = |of: &Offender| (of.this.failures, of.before.failures);
            let order = a.standing.cmp(&b.standing).then(failures(b).cmp(&failures(a)));
            order.then_with(|| a.host.cmp(&b.host))
        });
        let new =
            |(code, [this, before]): (String, [u64; 2])| (before == 0 && this > 0).then_some((code, this));
        let mut new_codes: Vec<_> = self.codes.into_iter().filter_map(new).collect();
        new_codes.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let [this, before] = self.weeks;
        Report { this, before, offenders, new_codes, left_out: self.hosts.left_out }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::fixture::{DAY, failure, success};

    #[test]
    fn offenders_come_go_and_stay() {
        let now = 100 * DAY;
        let (this, before) = (now - DAY, now - 10 * DAY);
        let mut weekly = Weekly::ending(Timestamp::from_millis(now * 1000));
        for (host, failed_now, worked_now, failed_before) in [
            ("new", 3, 1, 1),
            ("still", 2, 0, 4),
            ("easing", 1, 3, 2),
            ("well", 0, 2, 2),
            ("quiet", 0, 0, 3),
            ("once", 1, 0, 0),
        ] {
            (0..failed_now).for_each(|n| weekly.add(&failure(host, this + n, "panic")));
            (0..worked_now).for_each(|n| weekly.add(&success(host, this + n)));
            (0..failed_before).for_each(|n| weekly.add(&failure(host, before + n, "timeout")));
        }
        weekly.add(&failure("old", now - 14 * DAY, "panic"));
        let report = weekly.report();
        let told: Vec<_> = report.offenders.iter().map(|o| (o.host.as_str(), o.standing.name())).collect();
        let expected = [
            ("new", "new"),
            ("still", "still"),
            ("easing", "easing"),
            ("well", "recovered"),
            ("quiet", "quiet"),
        ];
        assert_eq!(told, expected);
        assert_eq!(
            (report.this, report.before),
            (Week { migrations: 13, failures: 7 }, Week { migrations: 12, failures: 12 })
        );
        assert_eq!(report.new_codes, [("panic".to_owned(), 7)]);
        assert_eq!((Week::default().failure_share(), report.before.failure_share()), (None, Some(1.0)));
    }
}
