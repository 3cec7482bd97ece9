//! High quantiles of a positive stream: a fading histogram of its logarithm. Unlike a stochastic approximation it
//! comes down within a day when the first values were wild, and climbs to a burst it has seen a few times.

use serde::{Deserialize, Serialize};

/// Counts by the logarithm, each bin 35 % wide for wide ranges or 16 % for narrow ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LogHistogram {
    bins: Vec<f32>,
    /// Natural logarithm where the first bin begins, and the width of a bin in it.
    lowest: f32,
    width: f32,
    /// What a count in `bins` is worth: fading is one multiplication a value instead of one a bin.
    scale: f32,
}

/// Scale below which it is folded into the bins.
const LEAST_SCALE: f32 = 1e-6;

impl LogHistogram {
    /// 6.7 decades from 1e-3 on, in steps of 16 %: for scores, which are of the order of one.
    pub(super) fn narrow() -> Self {
        Self::new(96, -7.0, 0.15)
    }

    /// 19 decades around one, in steps of 41 %: for values whose unit is only about known.
    pub(super) fn wide() -> Self {
        Self::new(128, -22.0, 0.3466)
    }

    fn new(bins: usize, lowest: f32, width: f32) -> Self {
        Self { bins: vec![0.0; bins], lowest, width, scale: 1.0 }
    }

    /// Learns a value as the given share of all that is known; what is beyond either end counts at that end.
    pub(super) fn learn(&mut self, value: f32, share: f32) {
        let keep = (1.0 - share).max(0.0);
        self.scale *= keep;
        if self.scale < LEAST_SCALE {
            self.bins.iter_mut().for_each(|bin| *bin *= self.scale);
            self.scale = 1.0;
        }
        let bin = ((value.max(f32::MIN_POSITIVE).ln() - self.lowest) / self.width).max(0.0) as usize;
        let last = self.bins.len().saturating_sub(1);
        if let Some(bin) = self.bins.get_mut(bin.min(last)) {
            *bin += share / self.scale;
        }
    }

    /// Whether a value is beyond the upper end.
    pub(super) fn too_small_for(&self, value: f32) -> bool {
        !self.bins.is_empty() && value.ln() >= self.lowest + self.width * self.bins.len() as f32
    }

    /// Moves the range up by half; returns the factor by which values are to be divided from now on.
    pub(super) fn raise(&mut self) -> f32 {
        let half = self.bins.len() / 2;
        let below: f32 = self.bins.iter().take(half).sum();
        self.bins.rotate_left(half);
        let rest = self.bins.len() - half;
        self.bins.iter_mut().skip(rest).for_each(|bin| *bin = 0.0);
        if let Some(first) = self.bins.first_mut() {
            *first += below;
        }
        (self.width * half as f32).exp()
    }

    /// The value that a share of `beyond` exceeds; None of nothing.
    pub(super) fn quantile(&self, beyond: f32) -> Option<f32> {
        let mut left = beyond * self.bins.iter().sum::<f32>();
        for (bin, &weight) in self.bins.iter().enumerate().rev() {
            if weight > 0.0 && left <= weight {
                return Some((self.lowest + self.width * (bin as f32 + 1.0 - left / weight)).exp());
            }
            left -= weight;
        }
        None
    }

    /// Bytes of the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.bins.capacity() * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_near_the_exact_one() {
        for mut histogram in [LogHistogram::narrow(), LogHistogram::wide()] {
            assert_eq!(histogram.quantile(0.1), None);
            (0..10_000).for_each(|i| {
                histogram.learn(((i * 7919 % 10_000) as f32 + 1.0) / 100.0, 1.0 / (i + 1) as f32);
            });
            let near = histogram.quantile(0.02).unwrap();
            assert!((near / 98.0 - 1.0).abs() < 0.1, "{near}");
        }
    }

    #[test]
    fn the_past_fades_and_a_long_stream_stays_finite() {
        let mut histogram = LogHistogram::narrow();
        (0..100_000).for_each(|_| histogram.learn(100.0, 0.01));
        (0..1000).for_each(|_| histogram.learn(1.0, 0.01));
        let near = histogram.quantile(0.01).unwrap();
        assert!((0.8..1.3).contains(&near), "{near}");
    }

    #[test]
    fn a_raised_range_tells_the_same_of_what_is_in_it() {
        let mut histogram = LogHistogram::wide();
        (0..1000).for_each(|i| histogram.learn((i % 100 + 1) as f32 * 1e6, 1.0 / (i + 1) as f32));
        let before = histogram.quantile(0.1).unwrap();
        assert!(!histogram.too_small_for(1e9) && histogram.too_small_for(1e10));
        let factor = histogram.raise();
        let after = histogram.quantile(0.1).unwrap() * factor;
        assert!((after / before - 1.0).abs() < 0.01, "{before} {after}");
        assert!(!histogram.too_small_for(1e10 / factor));
    }
}
