//! From a part's statistic to its surprise: how rarely did this series do the like?
//!
//! Each part's statistic is counted in buckets of half an octave. The surprise of a value is `-log10` of the
//! share of the past that reached it. Beyond what was seen the tail goes on as a power law from the outermost
//! percent (Hill 1975, with the exponent fixed at 3: to underestimate the tail means to wake someone), and a
//! prior of 30 heavy-tailed ticks keeps a young series from being sure.

use serde::{Deserialize, Serialize};

const BUCKETS: usize = 24;
/// Statistics below `2^-2` share a bucket.
const LOWEST: f32 = -2.0;
const PER_OCTAVE: f32 = 2.0;
/// Ticks after which half of the past is forgotten.
const MEMORY: u16 = 40_000;
const PRIOR: f32 = 30.0;

/// What one part's statistic did so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tail {
    counts: [u16; BUCKETS],
    total: u16,
}

/// Bucket of a statistic, with its fraction.
fn position(statistic: f32) -> f32 {
    if statistic > 0.0 {
        ((statistic.log2() - LOWEST) * PER_OCTAVE).clamp(0.0, BUCKETS as f32 - 0.01)
    } else {
        0.0
    }
}

impl Tail {
    /// Counts a statistic.
    pub fn learn(&mut self, statistic: f64) {
        if self.total >= MEMORY {
            self.counts.iter_mut().for_each(|c| *c /= 2);
            self.total = self.counts.iter().sum();
        }
        self.counts[position(statistic as f32) as usize] += 1;
        self.total += 1;
    }

    /// Surprise of a statistic of at least 0: 0 for what always happens, 3 for what happens in one tick of a
    /// thousand.
    pub fn surprise(&self, statistic: f64) -> f32 {
        let at = position(statistic as f32);
        let bucket = at as usize;
        let above: u32 = self.counts.iter().skip(bucket + 1).map(|&c| u32::from(c)).sum();
        let rest = if bucket == BUCKETS - 1 { 1.0 } else { 1.0 - at.fract() };
        let reached = above as f32 + f32::from(self.counts[bucket]) * rest;
        let prior = PRIOR / (1.0 + statistic.min(1e9) as f32 / 3.0).powi(4);
        let total = f32::from(self.total);
        let expected = if reached < 0.02 * total { reached.max(self.beyond(at)) } else { reached };
        -((expected + prior) / (total + PRIOR)).min(1.0).log10()
    }

    /// What the power law from the outermost percent expects beyond a position.
    fn beyond(&self, at: f32) -> f32 {
        let outer = (0.01 * f32::from(self.total)).max(3.0);
        let mut seen = 0.0;
        for (bucket, &count) in self.counts.iter().enumerate().rev() {
            seen += f32::from(count);
            if seen >= outer {
                let octaves = (at - (bucket as f32 + 1.0)) / PER_OCTAVE;
                let tail = (seen - f32::from(count)).max(0.5);
                return if octaves > 0.0 { tail * (-3.0 * octaves).exp2() } else { 0.0 };
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taught(ticks: usize) -> Tail {
        let mut tail = Tail::default();
        // A share of 2^-k reaches 2^k.
        (1..=ticks).for_each(|i| tail.learn(2_f64.powi(i.trailing_zeros() as i32)));
        tail
    }

    #[test]
    fn surprise_counts_the_tail_in_powers_of_ten() {
        let tail = taught(8192);
        for (octave, expected) in [(1, 2_f32.powi(-1)), (4, 2_f32.powi(-4)), (6, 2_f32.powi(-6))] {
            let told = tail.surprise(2_f64.powi(octave));
            assert!((told + expected.log10()).abs() < 0.2, "{octave}: {told}");
        }
    }

    #[test]
    fn surprise_grows_with_the_statistic_and_a_young_series_is_not_sure() {
        let old = taught(8192);
        let told: Vec<f32> = (0..200).map(|i| old.surprise(f64::from(i) * 0.5)).collect();
        assert!(told.windows(2).all(|w| w[0] <= w[1] + 1e-6) && told[0] < 0.1);
        let (mut young, mut known) = (Tail::default(), Tail::default());
        (0..20).for_each(|_| young.learn(1.0));
        (0..5000).for_each(|_| known.learn(1.0));
        assert!(young.surprise(30.0) < known.surprise(30.0) - 1.0);
    }

    #[test]
    fn forgets_by_halves_and_never_overflows() {
        let mut tail = Tail::default();
        (0..200_000).for_each(|i| tail.learn(f64::from(i % 9) * 1e30));
        assert!(tail.total <= MEMORY && tail.surprise(f64::MAX).is_finite());
    }
}
