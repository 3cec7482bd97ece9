//! Pseudo-random numbers from a seed: the same seed, the same model, on every machine.
//!
//! SplitMix64 (Steele, Lea, Flood 2014). For sampling and initial weights only; nothing here is secret.

/// A stream of numbers that its seed determines.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// At least 0, below 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Below `n`; 0 when `n` is 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// `count` different numbers below `n` (all of them when there are fewer), in random order.
    pub(crate) fn sample(&mut self, n: usize, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..n).collect();
        let count = count.min(n);
        for i in 0..count {
            let j = i + self.below(n - i);
            all.swap(i, j);
        }
        all.truncate(count);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_different_and_repeatable() {
        let mut sample = Chance::new(1).sample(100, 40);
        assert_eq!(sample, Chance::new(1).sample(100, 40));
        assert_ne!(sample, Chance::new(2).sample(100, 40));
        sample.sort_unstable();
        sample.dedup();
        assert!(sample.len() == 40 && sample[39] < 100);
        assert_eq!(Chance::new(1).sample(3, 9).len(), 3);
    }

    #[test]
    fn units_fill_their_range() {
        let mut chance = Chance::new(3);
        let mean = (0..10_000).map(|_| chance.unit()).sum::<f64>() / 1e4;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
    }
}
