//! A sketch of where the values lie: percentiles of all, and the last values against all.
//!
//! 24 buckets of a third of a deviation around the mean of the whole series, counted twice: over the last 3000
//! ticks and over the last 40. Their relative entropy (Wang et al. 2011 use it so on servers) tells changes of
//! spread, of shape, and a level that was rare; the outer percentiles of the long count tell values that were
//! never reached.

use serde::{Deserialize, Serialize};

const BUCKETS: usize = 24;
const PER_DEVIATION: f64 = 3.0;
const LONG: f32 = 3000.0;
const SHORT: f32 = 40.0;
/// Shares of the short count below which a bucket is not looked at.
const LEAST: f32 = 0.004;
/// Ticks before it says anything.
const WARM_UP: u16 = 60;

/// The sketch of one series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Distribution {
    long: [f32; BUCKETS],
    short: [f32; BUCKETS],
    seen: u16,
}

impl Distribution {
    /// Learns a value, given in deviations from the mean of the whole series.
    pub fn learn(&mut self, offset: f64) {
        let at = offset * PER_DEVIATION + (BUCKETS / 2) as f64;
        let bucket = at.clamp(0.0, (BUCKETS - 1) as f64) as usize;
        self.long.iter_mut().for_each(|c| *c *= 1.0 - 1.0 / LONG);
        self.short.iter_mut().for_each(|c| *c *= 1.0 - 1.0 / SHORT);
        self.long[bucket] += 1.0;
        self.short[bucket] += 1.0 / SHORT;
        self.seen = self.seen.saturating_add(1);
    }

    /// Distance of a value, in deviations from the mean of the whole series, beyond the outermost percent of all
    /// that was seen on its side; 0 within.
    pub fn beyond(&self, offset: f64) -> Option<f64> {
        if self.seen <= WARM_UP {
            return None;
        }
        let outermost = 0.01 * self.long.iter().sum::<f32>();
        let last = (BUCKETS - 1) as f64;
        let low = buckets_within(self.long.iter(), outermost);
        let high = last - buckets_within(self.long.iter().rev(), outermost) + 1.0;
        let at = offset * PER_DEVIATION + (BUCKETS / 2) as f64;
        Some((at - high).max(low - at).max(0.0) / PER_DEVIATION)
    }

    /// Relative entropy of the last values against all, in nats.
    pub fn entropy(&self) -> Option<f64> {
        if self.seen <= WARM_UP {
            return None;
        }
        let total = self.long.iter().sum::<f32>() + BUCKETS as f32 * 0.25;
        let mut entropy = 0.0;
        for (&short, &long) in self.short.iter().zip(&self.long) {
            if short > LEAST {
                entropy += short * (short * total / (long + 0.25)).ln();
            }
        }
        Some(f64::from(entropy.max(0.0)))
    }
}

/// Buckets from an end that together hold no more than `share`.
fn buckets_within<'a>(mut counts: impl Iterator<Item = &'a f32>, share: f32) -> f64 {
    let mut seen = 0.0;
    let inner = counts.position(|&count| {
        seen += count;
        seen > share
    });
    inner.unwrap_or(0) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_mix_has_little_entropy_and_a_new_one_much() {
        let mut sketch = Distribution::default();
        for i in 0..3000_u32 {
            sketch.learn(f64::from(i * 7 % 20) / 5.0 - 2.0);
        }
        let usual = sketch.entropy().unwrap();
        (0..40).for_each(|_| sketch.learn(1.9));
        assert!(usual < 0.3 && sketch.entropy().unwrap() > 1.0, "{usual} {:?}", sketch.entropy());
    }

    #[test]
    fn what_was_reached_is_within_and_the_rest_is_measured() {
        let mut sketch = Distribution::default();
        (0..3000_u32).for_each(|i| sketch.learn(f64::from(i * 7 % 20) / 10.0));
        assert_eq!((sketch.beyond(0.0), sketch.beyond(1.9)), (Some(0.0), Some(0.0)));
        let (high, low) = (sketch.beyond(4.0).unwrap(), sketch.beyond(-2.0).unwrap());
        assert!((high - 2.0).abs() < 0.4 && (low - 2.0).abs() < 0.4, "{high} {low}");
    }

    #[test]
    fn says_nothing_before_it_knows_an_hour() {
        let mut sketch = Distribution::default();
        (0..60).for_each(|_| sketch.learn(0.0));
        assert_eq!((sketch.entropy(), sketch.beyond(9.0)), (None, None));
    }
}
