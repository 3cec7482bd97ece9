//! The breaker: when too many migrations fail, the next one is not started.
//!
//! It looks at the last ten migrations that ended, from or to a node and of the whole cluster. When at least three, and
//! at least half of them, failed, it opens and rests. After the rest one migration at a time is tried: one that arrives
//! closes it and begins a new count, one that fails opens it anew. It follows from what is stored, so a restart changes
//! nothing.

use std::collections::VecDeque;
use std::time::Duration;

use evenkeel_common::time::Timestamp;

/// Migrations looked at.
const LAST: usize = 10;
/// Failures below which it stays closed.
const LEAST: usize = 3;

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    /// Nothing against the next one.
    Closed,
    /// None before this time.
    Open {
        /// When one is tried again.
        until: Timestamp,
        /// How many failed.
        failed: u32,
        /// Of how many.
        of: u32,
    },
    /// One at a time.
    Trial,
}

/// What it says at a time, after migrations that ended then and arrived or not, oldest first.
#[must_use]
pub fn breaker(
    ended: impl IntoIterator<Item = (Timestamp, bool)>,
    rest: Duration,
    now: Timestamp,
) -> Breaker {
    let mut last: VecDeque<bool> = VecDeque::with_capacity(LAST + 1);
    let mut open: Option<(Timestamp, u32, u32)> = None;
    for (at, arrived) in ended {
        if arrived && open.is_some_and(|(until, ..)| at >= until) {
            (open, last) = (None, VecDeque::new());
            continue;
        }
        last.push_back(arrived);
        if last.len() > LAST {
            last.pop_front();
        }
        let failed = last.iter().filter(|arrived| !**arrived).count();
        // Only a failure opens: that an arrival pushes an older arrival out does not.
        if !arrived && failed >= LEAST && 2 * failed >= last.len() {
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            open = Some((at.after(rest), count(failed), count(last.len())));
        }
    }
    match open {
        None => Breaker::Closed,
        Some((until, failed, of)) if now < until => Breaker::Open { until, failed, of },
        Some(_) => Breaker::Trial,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_hours(1);

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_millis(60_000 * minute)
    }

    /// One migration a minute, `+` arrived, `-` failed; then so many minutes later.
    fn after(ended: &str, minutes: i64) -> Breaker {
        let last = i64::try_from(ended.len()).unwrap();
        let ended = ended.bytes().zip(1..).map(|(mark, minute)| (at(minute), mark == b'+'));
        breaker(ended, REST, at(last + minutes))
    }

    #[test]
    fn it_opens_at_three_failures_that_are_half_of_the_last_ten() {
        for (ended, open) in [
            ("", false),
            ("--", false),
            ("---", true),
            ("+-+-+-", true),
            ("++++---", false),
            ("+++----", true),
            ("--++++++++++--", false), // The first two are forgotten.
            ("+++++-----", true),
            ("++++++----", false),
        ] {
            assert_eq!(matches!(after(ended, 1), Breaker::Open { .. }), open, "{ended:?}");
        }
        assert_eq!(after("+---", 1), Breaker::Open { until: at(4 + 60), failed: 3, of: 4 });
    }

    #[test]
    fn after_its_rest_one_is_tried_and_what_becomes_of_it_decides() {
        assert!(matches!(after("---", 59), Breaker::Open { .. }));
        assert_eq!(after("---", 60), Breaker::Trial);
        let with = |arrived, later: i64| {
            let three = (1..=3).map(|minute| (at(minute), false));
            breaker(three.chain([(at(70), arrived)]), REST, at(70 + later))
        };
        assert_eq!(with(true, 1), Breaker::Closed);
        assert_eq!(with(false, 1), Breaker::Open { until: at(70 + 60), failed: 4, of: 4 });
        // What was under way when it opened and arrives during the rest closes nothing.
        let straggler = (1..=3).map(|minute| (at(minute), false)).chain([(at(4), true)]);
        assert!(matches!(breaker(straggler, REST, at(5)), Breaker::Open { .. }));
    }
}
