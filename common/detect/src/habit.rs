//! What happens every night is no news from the third night on.
//!
//! Told apart from an incident by its hour and by what is behind it, not by its size: a backup is as large as many
//! an accident. Belongs to what is told to people, not to the score: a job that is new tonight is an anomaly, and so
//! is one that a table of labelled events holds.

use std::collections::VecDeque;

use evenkeel_common::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Causes by which two beginnings are recognised as of one kind.
const KIND: usize = 3;
/// Nights in a row after which the next one is a habit.
const NIGHTS: i64 = 2;
/// How far from the hour of the days before a habit may begin.
const PUNCTUAL_MS: i64 = 30 * 60_000;
const DAY_MS: i64 = 86_400_000;
/// Most beginnings kept for the comparison.
const MOST: usize = 256;

/// When something began in the last days, told or not, with what was behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Habits<K> {
    beginnings: VecDeque<(Timestamp, Vec<K>)>,
}

impl<K> Default for Habits<K> {
    fn default() -> Self {
        Self { beginnings: VecDeque::new() }
    }
}

impl<K: PartialEq> Habits<K> {
    /// Whether the like began at this hour of each of the last two days as well: within half an hour, with one of
    /// the three foremost `causes` in common. Keeps the beginning for the days to come.
    pub fn is_habit(&mut self, at: Timestamp, causes: impl IntoIterator<Item = K>) -> bool {
        let kind: Vec<K> = causes.into_iter().take(KIND).collect();
        let ms = at.as_millis();
        let oldest = ms.saturating_sub((NIGHTS + 1) * DAY_MS);
        self.beginnings.retain(|(then, _)| (oldest..=ms).contains(&then.as_millis()));
        let on = |night: i64| {
            self.beginnings.iter().any(|(then, of)| {
                let apart = (ms - night * DAY_MS - then.as_millis()).abs();
                apart <= PUNCTUAL_MS && (kind.is_empty() || of.iter().any(|cause| kind.contains(cause)))
            })
        };
        let habit = (1..=NIGHTS).all(on);
        while self.beginnings.len() >= MOST {
            self.beginnings.pop_front();
        }
        self.beginnings.push_back((at, kind));
        habit
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let kinds: usize = self.beginnings.iter().map(|(_, kind)| kind.capacity() * size_of::<K>()).sum();
        self.beginnings.capacity() * size_of::<(Timestamp, Vec<K>)>() + kinds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: i64, minute: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + day * DAY_MS + minute * 60_000)
    }

    #[test]
    fn the_third_night_is_a_habit_if_it_is_punctual_and_of_the_same_kind() {
        for (minute, cause, habit) in
            [(0, "disk", true), (29, "disk", true), (31, "disk", false), (0, "cpu", false)]
        {
            let mut habits = Habits::default();
            assert!(!habits.is_habit(at(0, 0), ["disk"]) && !habits.is_habit(at(1, 0), ["disk", "net"]));
            assert_eq!(habits.is_habit(at(2, minute), [cause]), habit, "{minute} {cause}");
        }
    }

    #[test]
    fn a_night_off_ends_a_habit_and_memory_is_bounded() {
        let mut habits = Habits::default();
        (0..5).for_each(|day| {
            habits.is_habit(at(day, 0), ["disk"]);
        });
        assert!(!habits.is_habit(at(6, 0), ["disk"]), "the night before was quiet");
        (0..1000).for_each(|minute| {
            habits.is_habit(at(7, minute), ["disk"]);
        });
        assert!(habits.beginnings.len() <= MOST);
    }
}
