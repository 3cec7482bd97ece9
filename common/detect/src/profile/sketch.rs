//! Quantiles in bounded memory: a histogram with buckets of equal ratio.
//!
//! Bucket `i` holds values in `(unit * G^(i-1), unit * G^i]` with `G = 1.1`, so a quantile is off by at most
//! `(G - 1) / (G + 1)` = 4.8 % of itself; what is not above `unit` counts as zero. The grid is fixed, which makes a
//! merge the sum of counts, exact in any order (the idea of DDSketch: Masson, Rim and Lee 2019). 256 buckets
//! span ten decades; a larger value counts in the last.

use serde::{Deserialize, Serialize};

const RATIO: f64 = 1.1;
const BUCKETS: usize = 256;

/// A mergeable sketch of the quantiles of values of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sketch {
    /// Bucket of the first count.
    first: u16,
    /// From the lowest bucket in use to the highest.
    counts: Vec<u32>,
}

impl Sketch {
    /// Counts a value. `unit`: the smallest that matters, the same in every call and merge.
    pub fn add(&mut self, value: f64, unit: f64) {
        self.add_many(value, unit, 1);
    }

    /// Counts a value `count` times.
    pub(crate) fn add_many(&mut self, value: f64, unit: f64, count: u32) {
        let bucket = if value > unit { ((value / unit).ln() / RATIO.ln()).ceil() } else { 0.0 };
        self.add_count(bucket.clamp(0.0, (BUCKETS - 1) as f64) as usize, count);
    }

    /// Whether it is one that could have come about by adding and merging.
    pub(crate) fn is_sound(&self) -> bool {
        usize::from(self.first) + self.counts.len() <= BUCKETS
    }

    /// Adds what the other has counted.
    pub fn merge(&mut self, other: &Self) {
        for (i, &count) in other.counts.iter().enumerate() {
            self.add_count(usize::from(other.first) + i, count);
        }
    }

    /// The value below which a share of `quantile` (0 to 1) of the values lies; 0 when there are none.
    #[must_use]
    pub fn quantile(&self, quantile: f64, unit: f64) -> f64 {
        let total: u64 = self.counts.iter().map(|&c| u64::from(c)).sum();
        let wanted = (quantile.clamp(0.0, 1.0) * total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (i, &count) in self.counts.iter().enumerate() {
            seen += u64::from(count);
            if seen >= wanted {
                let bucket = usize::from(self.first) + i;
                // The middle of the bucket in the sense of the smallest largest relative error.
                return if bucket == 0 {
                    0.0
                } else {
                    unit * RATIO.powi(bucket as i32) * 2.0 / (1.0 + RATIO)
                };
            }
        }
        0.0
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.counts.capacity() * size_of::<u32>()
    }

    fn add_count(&mut self, bucket: usize, count: u32) {
        let bucket = bucket.min(BUCKETS - 1);
        if self.counts.is_empty() {
            self.first = bucket as u16;
        }
        let first = usize::from(self.first);
        if bucket < first {
            self.counts.splice(0..0, std::iter::repeat_n(0, first - bucket));
            self.first = bucket as u16;
        }
        let at = bucket - usize::from(self.first);
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] = self.counts[at].saturating_add(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn quantiles_are_within_five_percent(
            mut values in prop::collection::vec(0.01_f64..1e6, 1..300), q in 0.01_f64..1.0,
        ) {
            let mut sketch = Sketch::default();
            values.iter().for_each(|&v| sketch.add(v, 0.001));
            values.sort_by(f64::total_cmp);
            let exact = values[((q * values.len() as f64).ceil() as usize).max(1) - 1];
            let told = sketch.quantile(q, 0.001);
            prop_assert!((told - exact).abs() <= 0.048 * exact, "{told} for {exact}");
        }
    }

    #[test]
    fn zeros_and_giants_are_bounded() {
        let mut sketch = Sketch::default();
        for value in [0.0, -1.0, f64::MAX] {
            sketch.add(value, 1.0);
        }
        assert_eq!(sketch.quantile(0.5, 1.0), 0.0);
        assert!(sketch.heap_bytes() <= 2 * BUCKETS * 4);
        assert_eq!(Sketch::default().quantile(0.95, 1.0), 0.0);
    }
}
