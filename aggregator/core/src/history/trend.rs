//! Where a host's score is going, from the scores that were archived once a day.

use std::time::Duration;

use evenkeel_common::time::Timestamp;

/// What is compared with now.
const WEEK: Duration = Duration::from_hours(7 * 24);
/// A change of fewer points is none: one more success moves a score that much.
pub const LEAST_CHANGE: i64 = 5;

/// A score as it was archived. Rows are written when a score changes, so each holds until the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Archived {
    /// Of which day, its start.
    pub day: Timestamp,
    /// 0 to 100.
    pub score: u32,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Worse than a week ago.
    Rising,
    /// Better than a week ago.
    Falling,
    /// About the same.
    Steady,
    /// Nothing is archived that is a week old.
    Unknown,
}

impl Direction {
    /// Stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rising => "rising",
            Self::Falling => "falling",
            Self::Steady => "steady",
            Self::Unknown => "unknown",
        }
    }
}

/// Where a score is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trend {
    /// Which way.
    pub direction: Direction,
    /// The score of a week ago; `None` where none was archived by then.
    pub week_ago: Option<u32>,
    /// Points since then.
    pub change: Option<i64>,
}

/// Compares the score of now with what was archived by a week ago. `archived` may be in any order.
#[must_use]
pub fn trend(now: u32, at: Timestamp, archived: &[Archived]) -> Trend {
    let then = at.before(WEEK);
    let week_ago =
        archived.iter().filter(|row| row.day <= then).max_by_key(|row| row.day).map(|row| row.score);
    let change = week_ago.map(|before| i64::from(now) - i64::from(before));
    let direction = match change {
        None => Direction::Unknown,
        Some(LEAST_CHANGE..) => Direction::Rising,
        Some(change) if change <= -LEAST_CHANGE => Direction::Falling,
        Some(_) => Direction::Steady,
    };
    Trend { direction, week_ago, change }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::fixture::DAY;

    #[test]
    fn a_score_is_compared_with_that_of_a_week_ago() {
        let row = |day: i64, score| Archived { day: Timestamp::from_millis(day * DAY * 1000), score };
        let at = Timestamp::from_millis((20 * DAY + 7) * 1000);
        let rows = [row(18, 90), row(2, 10), row(10, 40)];
        let told = |now, rows: &[Archived]| {
            let Trend { direction, week_ago, change } = trend(now, at, rows);
            (direction.name(), week_ago, change)
        };
        assert_eq!(
            told(45, &rows),
            ("rising", Some(40), Some(5)),
            "what was archived on day 10 held on day 13"
        );
        assert_eq!(told(35, &rows), ("falling", Some(40), Some(-5)));
        assert_eq!(told(36, &rows), ("steady", Some(40), Some(-4)));
        assert_eq!(told(36, &[row(13, 80)]), ("falling", Some(80), Some(-44)));
        assert_eq!(told(36, &[row(14, 80)]), ("unknown", None, None));
    }
}
