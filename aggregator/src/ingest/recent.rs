//! The last minutes of one series, for means over a window that ends now.

use std::collections::VecDeque;
use std::time::Duration;

use evenkeel_common::time::{Timestamp, Window};

/// How far back values are kept: the minute that decisions and views look at, and room for late ticks and a clock
/// that is a little ahead.
pub const KEPT: Duration = Duration::from_secs(75);
/// Values for which room is made at once. Doubling, as a deque does by itself, would leave a third unused.
const ROOM: usize = 25;

/// Values of the last [`KEPT`], in order of time. Single precision: this feeds scores, not accounts. Small, because
/// there is one for most series of the fleet.
#[derive(Debug, Default)]
pub struct Recent {
    /// Time of the newest value, milliseconds.
    newest: i64,
    /// Lower half of each value's time, which within [`KEPT`] of the newest tells the moment, and the value.
    values: VecDeque<(u32, f32)>,
}

impl Recent {
    /// Adds a value. One that is older than the newest is left out: it was seen, and stored, before.
    #[allow(clippy::cast_possible_truncation)]
    pub fn push(&mut self, at: Timestamp, value: f64) {
        let at = at.as_millis();
        if !self.values.is_empty() && self.newest >= at {
            return;
        }
        let ahead = at.saturating_sub(self.newest);
        if ahead > KEPT.as_millis() as i64 {
            self.values.clear();
        }
        self.newest = at;
        while self.values.front().is_some_and(|&(kept, _)| self.age_ms(kept) >= KEPT.as_millis() as i64) {
            self.values.pop_front();
        }
        if self.values.len() == self.values.capacity() {
            self.values.reserve_exact(ROOM);
        }
        self.values.push_back((lower_half(at), value as f32));
    }

    /// How long before the newest value that with this time was.
    fn age_ms(&self, kept: u32) -> i64 {
        lower_half(self.newest).wrapping_sub(kept).into()
    }

    /// Mean over a window; `None` when it holds no value.
    #[must_use]
    pub fn mean(&self, window: Window) -> Option<f64> {
        let (mut sum, mut count) = (0.0, 0u32);
        for &(at, value) in self.values.iter().rev() {
            let at = Timestamp::from_millis(self.newest.saturating_sub(self.age_ms(at)));
            if at < window.from {
                break;
            }
            if window.contains(at) {
                sum += f64::from(value);
                count += 1;
            }
        }
        (count > 0).then(|| sum / f64::from(count))
    }

    /// The newest value.
    #[must_use]
    pub fn latest(&self) -> Option<f64> {
        self.values.back().map(|&(_, value)| f64::from(value))
    }

    /// When the newest value was sampled, by the node's clock.
    #[must_use]
    pub fn newest(&self) -> Option<Timestamp> {
        (!self.values.is_empty()).then(|| Timestamp::from_millis(self.newest))
    }

    /// Forgets everything: the series began anew.
    pub fn clear(&mut self) {
        self.values.clear();
    }
}

/// Which of the moments 49 days apart does not matter within [`KEPT`].
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
const fn lower_half(ms: i64) -> u32 {
    ms as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(s: i64) -> Timestamp {
        Timestamp::from_millis(s * 1000)
    }

    #[test]
    fn means_cover_exactly_the_window_and_old_values_go() {
        let mut recent = Recent::default();
        for s in 0..400 {
            recent.push(at(s), s as f64);
        }
        recent.push(at(10), 1e9); // Late: not taken.
        assert_eq!(recent.values.len(), 75);
        assert_eq!(recent.mean(Window { from: at(390), to: at(400) }), Some(394.5));
        assert_eq!(recent.mean(Window { from: at(0), to: at(50) }), None);
        assert_eq!(recent.latest(), Some(399.0));
    }

    #[test]
    fn values_keep_their_time_where_its_lower_half_begins_anew() {
        let (mut recent, wrap) = (Recent::default(), (400i64 << 32) / 1000);
        for s in wrap - 30..wrap + 30 {
            recent.push(at(s), (s - wrap) as f64);
        }
        assert_eq!(recent.mean(Window { from: at(wrap - 20), to: at(wrap - 10) }), Some(-15.5));
        assert_eq!(recent.mean(Window { from: at(wrap + 10), to: at(wrap + 20) }), Some(14.5));
        // After so long a silence that the lower half is the same again, nothing of before is left.
        let later = at(wrap + 29).after(Duration::from_millis(1 << 32));
        recent.push(later, 7.0);
        assert_eq!(recent.mean(Window { from: at(0), to: later.after(KEPT) }), Some(7.0));
    }
}
