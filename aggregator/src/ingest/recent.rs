//! The last minutes of one series, for means over a window that ends now.

use std::collections::VecDeque;
use std::time::Duration;

use evenkeel_common::time::{Timestamp, Window};

/// How far back values are kept.
pub const KEPT: Duration = Duration::from_secs(300);

/// Values of the last [`KEPT`], in order of time. Single precision: this feeds scores, not accounts.
#[derive(Debug, Default)]
pub struct Recent {
    values: VecDeque<(i64, f32)>,
}

impl Recent {
    /// Adds a value. One that is older than the newest is left out: it was seen, and stored, before.
    #[allow(clippy::cast_possible_truncation)]
    pub fn push(&mut self, at: Timestamp, value: f64) {
        let at = at.as_millis();
        if self.values.back().is_some_and(|&(newest, _)| newest >= at) {
            return;
        }
        let oldest = at - KEPT.as_millis() as i64;
        while self.values.front().is_some_and(|&(kept, _)| kept <= oldest) {
            self.values.pop_front();
        }
        self.values.push_back((at, value as f32));
    }

    /// Mean over a window; `None` when it holds no value.
    #[must_use]
    pub fn mean(&self, window: Window) -> Option<f64> {
        let (mut sum, mut count) = (0.0, 0u32);
        for &(at, value) in self.values.iter().rev() {
            let at = Timestamp::from_millis(at);
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

    /// Forgets everything: the series began anew.
    pub fn clear(&mut self) {
        self.values.clear();
    }
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
        assert_eq!(recent.values.len(), 300);
        assert_eq!(recent.mean(Window { from: at(390), to: at(400) }), Some(394.5));
        assert_eq!(recent.mean(Window { from: at(0), to: at(50) }), None);
        assert_eq!(recent.latest(), Some(399.0));
    }
}
