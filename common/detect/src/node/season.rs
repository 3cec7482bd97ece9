//! The shape of the day of one channel: what is usual at this hour, learned from the days before.
//!
//! Half-hour slots, each the average of the days it was visited (Holt-Winters' seasonal term without its trend,
//! Winters 1960), read by linear interpolation so that the profile has no stairs. A day is folded in when its
//! slot is over, and no further from what the slot held than a few spreads: one bad day teaches little.

use serde::{Deserialize, Serialize};

/// Slots of a day.
const SLOTS: usize = 48;
const DAY_MS: i64 = 86_400_000;
const SLOT_MS: i64 = DAY_MS / SLOTS as i64;
/// Days that a slot remembers.
const MEMORY_DAYS: f32 = 12.0;
/// How far one day may move a slot, in spreads, once the slot is known.
const TEACH_LIMIT: f32 = 3.0;

/// Where in the day a moment lies, computed once for all channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hour {
    slot: u16,
    /// The slot whose middle was passed last, and how far the next middle is, 0..1.
    left: usize,
    within: f32,
}

impl Hour {
    /// `at_ms`: milliseconds since the epoch.
    pub(super) fn of(at_ms: i64) -> Self {
        let since_midnight = at_ms.rem_euclid(DAY_MS);
        let shifted = (since_midnight + DAY_MS - SLOT_MS / 2) % DAY_MS;
        Self {
            slot: (since_midnight / SLOT_MS) as u16,
            left: (shifted / SLOT_MS) as usize,
            within: (shifted % SLOT_MS) as f32 / SLOT_MS as f32,
        }
    }
}

/// The profile; about 300 bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Season {
    /// Average of each slot, relative to nothing; empty until the first value.
    slots: Vec<f32>,
    /// Days that each slot has seen, at most 255.
    days: Vec<u8>,
    /// The slot under way: its number, the sum of its values and their count.
    slot: u16,
    sum: f32,
    count: u16,
    /// Average over the slots known.
    level: f32,
}

impl Season {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), days: Vec::new(), slot: 0, sum: 0.0, count: 0, level: 0.0 }
    }

    /// How far above the day's average this moment usually is, when both slots around it are known.
    pub(super) fn usual(&self, hour: Hour) -> Option<f32> {
        let right = (hour.left + 1) % SLOTS;
        let value = |slot: usize| self.days.get(slot).filter(|&&days| days > 0).and(self.slots.get(slot));
        let (left, right) = (value(hour.left)?, value(right)?);
        Some(left * (1.0 - hour.within) + right * hour.within - self.level)
    }

    /// Learns a value. `spread`: of the values around the profile, 0 while unknown.
    pub(super) fn learn(&mut self, hour: Hour, value: f32, spread: f32) {
        let slot = hour.slot;
        if slot != self.slot && self.count > 0 {
            self.fold(spread);
        }
        self.slot = slot;
        self.sum += value;
        self.count = self.count.saturating_add(1);
    }

    /// Ends the slot under way.
    fn fold(&mut self, spread: f32) {
        if self.slots.len() != SLOTS || self.days.len() != SLOTS {
            (self.slots, self.days) = (vec![0.0; SLOTS], vec![0; SLOTS]);
        }
        let mean = self.sum / f32::from(self.count.max(1));
        (self.sum, self.count) = (0.0, 0);
        let slot = usize::from(self.slot) % SLOTS;
        let days = f32::from(self.days[slot]);
        let mut offset = mean - self.slots[slot];
        if days >= 3.0 {
            let reach = TEACH_LIMIT * spread;
            offset = offset.max(-reach).min(reach);
        }
        self.slots[slot] += offset / (days + 1.0).min(MEMORY_DAYS);
        self.days[slot] = self.days[slot].saturating_add(1);
        let known = self.days.iter().filter(|&&days| days > 0).count().max(1);
        let sum: f32 = self.slots.iter().zip(&self.days).filter(|(_, days)| **days > 0).map(|(v, _)| v).sum();
        self.level = sum / known as f32;
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<f32>() + self.days.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learns_the_day_and_is_not_taken_in_by_one_bad_one() {
        let mut season = Season::new();
        let value = |minute: i64| if (600..1200).contains(&minute) { 10.0 } else { 0.0 };
        let hour = |day: i64, minute: i64| Hour::of((day * 1440 + minute) * 60_000);
        for day in 0..10 {
            (0..1440).step_by(5).for_each(|minute| season.learn(hour(day, minute), value(minute), 1.0));
        }
        let swing =
            |season: &Season| season.usual(hour(20, 900)).unwrap() - season.usual(hour(20, 300)).unwrap();
        assert!((swing(&season) - 10.0).abs() < 0.5, "{}", swing(&season));
        (0..1440).step_by(5).for_each(|minute| season.learn(hour(10, minute), 1000.0 * value(minute), 1.0));
        assert!((swing(&season) - 10.0).abs() < 1.0, "{}", swing(&season));
        assert_eq!(Season::new().usual(hour(0, 0)), None);
    }
}
