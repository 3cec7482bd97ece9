//! Leaks: where a steady slope leads to.
//!
//! An exponentially weighted least-squares line over half a day of ticks (at least 60), kept as sums relative to
//! the newest tick. It is believed when the rise over its own memory exceeds the scatter around it three times.
//! No say in the score: a leak is not yet an anomaly, it is a date.

use serde::{Deserialize, Serialize};

/// Scatters that a rise must exceed to be believed.
const BELIEVED: f64 = 3.0;

/// The line through the last half day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Slope {
    origin: f64,
    /// Weighted sums of 1, t, t², x, tx and x², with t in ticks, 0 for the newest and negative before.
    sums: [f64; 6],
    /// What a tick keeps of the past.
    keep: f64,
}

/// A line: the value now, and its change per tick.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Line {
    pub now: f64,
    pub per_tick: f64,
}

impl Slope {
    pub fn new(tick_s: f64) -> Self {
        let ticks = (43_200.0 / tick_s.max(1.0)).max(60.0);
        Self { origin: 0.0, sums: [0.0; 6], keep: 1.0 - 1.0 / ticks }
    }

    /// Adds a value.
    pub fn learn(&mut self, value: f64) {
        if self.sums[0] == 0.0 {
            self.origin = value;
        }
        let x = value - self.origin;
        let [n, t, tt, sx, tx, xx] = self.sums;
        // One tick on, every t is one less.
        let moved = [n, t - n, tt - 2.0 * t + n, sx, tx - sx, xx];
        self.sums = moved.map(|s| s * self.keep);
        for (sum, add) in self.sums.iter_mut().zip([1.0, 0.0, 0.0, x, 0.0, x * x]) {
            *sum += add;
        }
    }

    /// The line, when it is believed.
    pub fn line(&self) -> Option<Line> {
        let [n, t, tt, sx, tx, xx] = self.sums;
        let width = tt - t * t / n;
        if n < 30.0 || width <= 0.0 {
            return None;
        }
        let per_tick = (tx - t * sx / n) / width;
        let scatter = ((xx - sx * sx / n - per_tick * per_tick * width).max(0.0) / n).sqrt();
        let rise = per_tick.abs() * (12.0 * width / n).sqrt();
        let now = self.origin + sx / n - per_tick * t / n;
        (rise > BELIEVED * scatter && rise > 0.0).then_some(Line { now, per_tick })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_and_noise_is_none() {
        let (mut leak, mut noise) = (Slope::new(300.0), Slope::new(300.0));
        for i in 0..2000_u32 {
            let scatter = f64::from(i * 7919 % 11) - 5.0;
            leak.learn(100.0 + 0.5 * f64::from(i) + scatter);
            noise.learn(100.0 + scatter);
        }
        let line = leak.line().unwrap();
        assert!((line.per_tick - 0.5).abs() < 0.02 && (line.now - 1100.0).abs() < 10.0, "{line:?}");
        assert_eq!(noise.line(), None);
    }
}
