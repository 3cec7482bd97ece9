//! A series that moved all the time and stands still: a stuck sensor, a hung exporter.
//!
//! The statistic is the number of ticks without any change, in fours, times the share of the last 1000 ticks that
//! did change: a series that never moves does not freeze. Its own tail tells whether that is news: on a counter
//! that rests for hours it is none.

use serde::{Deserialize, Serialize};

/// How long the series has not moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Frozen {
    last: f64,
    ticks: u16,
    seen: u16,
    moving: f32,
}

const MEMORY: u16 = 1000;

impl Frozen {
    /// Ticks without change, times a quarter, times the share of ticks that used to bring one.
    pub fn observe(&mut self, value: f64) -> f64 {
        self.seen = (self.seen + 1).min(MEMORY);
        let moved = f32::from(u8::from(value != self.last));
        self.moving += (moved - self.moving) / f32::from(self.seen);
        self.ticks = if value == self.last { self.ticks.saturating_add(1) } else { 0 };
        self.last = value;
        f64::from(self.ticks) * 0.25 * f64::from(self.moving)
    }

    /// A gap is no standstill.
    pub fn rearm(&mut self) {
        self.ticks = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_moved_can_freeze() {
        let (mut lively, mut flat) = (Frozen::default(), Frozen::default());
        for i in 0..500 {
            lively.observe(f64::from(i));
            assert!(flat.observe(3.0) < 0.3);
        }
        let stuck = (0..20).map(|_| lively.observe(499.0)).last().unwrap();
        lively.rearm();
        assert!(stuck > 4.0 && lively.observe(499.0) < 0.3, "{stuck}");
    }
}
