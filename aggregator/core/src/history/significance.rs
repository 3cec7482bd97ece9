//! How much chance there is in a coincidence: Fisher's exact test of a two-by-two table, one-sided.

/// Logarithms of factorials, so that large tables neither overflow nor cost much.
#[derive(Clone, Debug)]
pub struct Factorials(Vec<f64>);

impl Factorials {
    /// Of 0 to `most`.
    #[must_use]
    pub fn up_to(most: usize) -> Self {
        let mut logs = Vec::with_capacity(most + 1);
        let mut sum = 0.0;
        logs.push(sum);
        for n in 1..=most {
            sum += (n as f64).ln();
            logs.push(sum);
        }
        Self(logs)
    }

    /// Logarithm of the number of ways to choose `k` of `n`; minus infinity where there is none.
    fn choose(&self, n: usize, k: usize) -> f64 {
        match (self.0.get(n), self.0.get(k), n.checked_sub(k).and_then(|rest| self.0.get(rest))) {
            (Some(all), Some(taken), Some(rest)) => all - taken - rest,
            _ => f64::NEG_INFINITY,
        }
    }

    /// The probability that two things, which happen in `a` and `b` of `n` windows and have nothing to do with each
    /// other, happen together in `both` or more.
    #[must_use]
    pub fn chance(&self, n: usize, a: usize, b: usize, both: usize) -> f64 {
        let all = self.choose(n, b);
        let one = |k: usize| {
            let rest =
                b.checked_sub(k).map_or(f64::NEG_INFINITY, |left| self.choose(n.saturating_sub(a), left));
            (self.choose(a, k) + rest - all).exp()
        };
        (both..=a.min(b)).map(one).sum::<f64>().min(1.0)
    }
}

/// The phi coefficient of two things that happen in `a` and `b` of `n` windows, together in `both`: Pearson's
/// coefficient of yes and no. `None` where one of them happens always or never, and so can not vary with the other.
#[must_use]
pub fn phi(n: usize, a: usize, b: usize, both: usize) -> Option<f64> {
    let (n, a, b, both) = (n as f64, a as f64, b as f64, both as f64);
    let spread = (a * (n - a) * b * (n - b)).sqrt();
    (spread > 0.0).then(|| ((n * both - a * b) / spread).clamp(-1.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_as_by_hand() {
        let factorials = Factorials::up_to(10_000);
        let close = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 1e-9 * expected.max(1e-3), "{found} {expected}")
        };
        close(factorials.chance(10, 3, 3, 3), 1.0 / 120.0);
        close(factorials.chance(10, 3, 3, 2), 22.0 / 120.0);
        close(factorials.chance(10, 3, 3, 0), 1.0);
        // The tea that was tasted: all four cups of eight.
        close(factorials.chance(8, 4, 4, 4), 1.0 / 70.0);
        assert_eq!(factorials.chance(10, 3, 3, 4), 0.0, "more than there are");
        assert!(factorials.chance(10_000, 5000, 5000, 3000) < 1e-80, "no overflow");
    }

    #[test]
    fn coefficients_as_by_hand() {
        assert_eq!(phi(10, 3, 3, 3), Some(1.0));
        assert_eq!(phi(10, 5, 5, 0), Some(-1.0));
        assert_eq!(phi(16, 4, 4, 1), Some(0.0));
        for (a, b) in [(0, 5), (10, 5), (5, 0), (5, 10)] {
            assert_eq!(phi(10, a, b, a.min(b)), None, "what does not vary says nothing");
        }
    }
}
