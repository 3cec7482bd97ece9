//! How anomalous a host's migrations are, 0 to 100, by the formula of the specification (D3):
//!
//! raw = (10 x failures - 2 x successes + 15 x repeated) / migrations, clipped to 0..25, times 4, rounded half up.
//!
//! Repeated are the failures after the first. A mean can not exceed 25, so no host needs the upper clip.

use evenkeel_common::time::Timestamp;
use serde::Serialize;

use super::hosts::Hosts;
use super::record::Record;

const FAILURE: i128 = 10;
const SUCCESS: i128 = -2;
const REPEATED: i128 = 15;
const CLIP: i128 = 25;

/// How a score is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Band {
    /// 0 to 20.
    Normal,
    /// 21 to 50.
    Elevated,
    /// 51 to 75.
    High,
    /// 76 to 100.
    Critical,
}

impl Band {
    /// The band of a score.
    #[must_use]
    pub const fn of(score: u32) -> Self {
        match score {
            0..=20 => Self::Normal,
            21..=50 => Self::Elevated,
            51..=75 => Self::High,
            _ => Self::Critical,
        }
    }

    /// Stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Elevated => "elevated",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn action(self) -> &'static str {
        match self {
            Self::Normal => "monitor",
            Self::Elevated => "review_logs",
            Self::High => "investigate",
            Self::Critical => "immediate_investigation",
        }
    }
}

/// Migrations of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// That failed.
    pub failures: u64,
    /// That did not.
    pub successes: u64,
    /// When the last one failed.
    pub last_failure: Option<Timestamp>,
}

impl Counts {
    /// Takes in a migration.
    pub fn add(&mut self, record: &Record) {
        if record.failed() {
            self.failures += 1;
            self.last_failure = self.last_failure.max(Some(record.at));
        } else {
            self.successes += 1;
        }
    }

    /// All migrations.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.failures.saturating_add(self.successes)
    }

    /// The score, 0 to 100; `None` without migrations.
    #[must_use]
    pub fn score(&self) -> Option<u32> {
        let total = i128::from(self.failures) + i128::from(self.successes);
        if total == 0 {
            return None;
        }
        let repeated = i128::from(self.failures.saturating_sub(1));
        let sum =
            FAILURE * i128::from(self.failures) + SUCCESS * i128::from(self.successes) + REPEATED * repeated;
        // Whole numbers throughout: half a point is half a point.
        let clipped = sum.clamp(0, CLIP * total);
        u32::try_from((8 * clipped + total) / (2 * total)).ok()
    }
}

/// The score of a host; as JSON the object that other tools know, field by field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostScore {
    /// Which host.
    pub host: String,
    /// 0 to 100, higher = worse.
    pub anomaly_score: u32,
    /// How it is to be taken.
    pub severity: Band,
    /// Migrations that failed.
    pub failure_count: u64,
    /// Migrations that did not.
    pub success_count: u64,
    /// When the last one failed, in RFC 3339.
    pub last_failure: Option<String>,
    /// What to do about it.
    pub recommended_action: &'static str,
}

impl HostScore {
    /// Of these migrations; `None` without any.
    #[must_use]
    pub fn of(host: &str, counts: &Counts) -> Option<Self> {
        let score = counts.score()?;
        let band = Band::of(score);
        Some(Self {
            host: host.to_owned(),
            anomaly_score: score,
            severity: band,
            failure_count: counts.failures,
            success_count: counts.successes,
            last_failure: counts.last_failure.map(shown),
            recommended_action: band.action(),
        })
    }
}

/// A time in RFC 3339, without milliseconds where there are none.
fn shown(at: Timestamp) -> String {
    let text = at.to_string();
    text.strip_suffix(".000Z").map_or_else(|| text.clone(), |whole| format!("{whole}Z"))
}

/// Scores of all hosts.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    hosts: Hosts<Counts>,
}

impl Scores {
    /// Takes in a migration.
    pub fn add(&mut self, record: &Record) {
        if let Some(counts) = self.hosts.of(&record.host) {
            counts.add(record);
        }
    }

    /// What each host's migrations came to.
    #[must_use]
    pub fn hosts(&self) -> &Hosts<Counts> {
        &self.hosts
    }

    /// The worst first; of equal ones the one with more failures, then by name.
    #[must_use]
    pub fn ranked(&self) -> Vec<HostScore> {
        let mut scores: Vec<_> =
            self.hosts.iter().filter_map(|(host, counts)| HostScore::of(host, counts)).collect();
        scores.sort_by(|a, b| {
            let worse = b.anomaly_score.cmp(&a.anomaly_score).then(b.failure_count.cmp(&a.failure_count));
            worse.then_with(|| a.host.cmp(&b.host))
        });
        scores
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::fixture::{failure, success};
    use proptest::prelude::*;

    fn score(failures: u64, successes: u64) -> Option<u32> {
        Counts { failures, successes, last_failure: None }.score()
    }

    #[test]
    fn scores_as_by_hand() {
        for (failures, successes, expected) in [
            (0, 1, 0),
            (1, 0, 40),  // 10 / 1 = 10
            (2, 0, 70),  // (20 + 15) / 2 = 17.5
            (12, 2, 80), // (120 - 4 + 165) / 14 = 20.07
            (1, 1, 16),  // (10 - 2) / 2 = 4
            (1, 5, 0),   // exactly none
            (1, 4, 2),   // 2 / 5 x 4 = 1.6
            (2, 1, 44),  // 33 / 3 = 11
            (3, 21, 3),  // (30 - 42 + 30) / 24 x 4 = 3
            (1, 3, 4),   // 4 / 4 x 4
            (2, 14, 2),  // 7 / 16 x 4 = 1.75
            (2, 15, 1),  // 5 / 17 x 4 = 1.18
            (4, 12, 15), // (40 - 24 + 45) / 16 x 4 = 15.25
            (3, 5, 25),  // 50 / 8 x 4 = 25
            (3, 13, 9),  // 34 / 16 x 4 = 8.5: half a point is rounded up
            (u64::MAX, 1, 100),
            (1, u64::MAX, 0),
        ] {
            assert_eq!(score(failures, successes), Some(expected), "{failures} {successes}");
        }
        assert_eq!(score(0, 0), None, "a host without migrations has no score");
    }

    #[test]
    fn bands_and_actions_are_those_of_the_specification() {
        for (score, name, action) in [
            (0, "normal", "monitor"),
            (20, "normal", "monitor"),
            (21, "elevated", "review_logs"),
            (50, "elevated", "review_logs"),
            (51, "high", "investigate"),
            (75, "high", "investigate"),
            (76, "critical", "immediate_investigation"),
            (100, "critical", "immediate_investigation"),
        ] {
            let band = Band::of(score);
            assert_eq!((band.name(), band.action()), (name, action), "{score}");
        }
    }

    #[test]
    fn the_object_is_that_of_the_source() {
        let mut scores = Scores::default();
        (0..2).for_each(|_| scores.add(&success("prod-web-07", 1_735_800_000)));
        (0..12).for_each(|n| scores.add(&failure("prod-web-07", 1_735_827_791 - n, "kernel_panic")));
        let json = serde_json::to_string(&scores.ranked()[0]).unwrap();
        assert_eq!(
            json,
            r#"{"host":"prod-web-07","anomaly_score":80,"severity":"critical","failure_count":12,"success_count":2,"last_failure":"2025-01-02T14:23:11Z","recommended_action":"immediate_investigation"}"#
        );
        let mut calm = Scores::default();
        calm.add(&success("a", 0));
        assert!(serde_json::to_string(&calm.ranked()[0]).unwrap().contains(r#""last_failure":null"#));
        assert_eq!(shown(Timestamp::from_millis(1)), "1970-01-01T00:00:00.001Z");
    }

    #[test]
    fn the_worst_come_first_and_ties_stay_in_order() {
        let mut scores = Scores::default();
        for host in ["c", "a", "b", "d"] {
            scores.add(&failure(host, 5, "x"));
        }
        scores.add(&failure("d", 6, "x"));
        scores.add(&success("calm", 6));
        let order: Vec<_> = scores.ranked().into_iter().map(|score| score.host).collect();
        assert_eq!(order, ["d", "a", "b", "c", "calm"]);
    }

    proptest! {
        #[test]
        fn a_score_stays_in_bounds_and_rises_with_failures(failures in 0_u64..5000, successes in 0_u64..5000) {
            let now = score(failures, successes);
            prop_assert_eq!(now.is_none(), failures + successes == 0);
            let now = now.unwrap_or(0);
            prop_assert!(now <= 100);
            prop_assert!(score(failures + 1, successes) >= Some(now));
            prop_assert!(failures + successes == 0 || score(failures, successes + 1) <= Some(now));
        }

        #[test]
        fn the_order_of_records_makes_no_difference(records in proptest::collection::vec((0_u8..4, any::<bool>(), 0_i64..1000), 0..60), by in 0_usize..60) {
            let records: Vec<_> = records.into_iter().map(|(host, failed, at)| {
                let host = format!("h{host}");
                if failed { failure(&host, at, "x") } else { success(&host, at) }
            }).collect();
            let of = |records: &mut dyn Iterator<Item = &Record>| {
                let mut scores = Scores::default();
                records.for_each(|record| scores.add(record));
                scores.ranked()
            };
            let by = by.min(records.len());
            let turned = of(&mut records[by..].iter().chain(&records[..by]).rev());
            prop_assert_eq!(of(&mut records.iter()), turned);
        }
    }
}
