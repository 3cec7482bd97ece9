//! How long to wait before the next connection attempt.

use std::time::Duration;

use evenkeel_runtime::random::{self, Entropy};

const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);
/// After a refusal that only a person can lift, the wait starts here.
const REFUSED: Duration = Duration::from_secs(30);

/// Full jitter: each wait is drawn evenly from the shortest to a bound that doubles with every failure, so that a
/// fleet that lost its aggregator does not come back as one.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The connection was good for a while.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait before the next attempt. `refused` waits at least half a minute.
    pub(super) fn next(&mut self, refused: bool, entropy: &dyn Entropy) -> Duration {
        self.failures = (self.failures + 1).min(16);
        let bound = SHORTEST.saturating_mul(1 << self.failures).min(LONGEST);
        let (low, high) = if refused { (REFUSED, LONGEST) } else { (SHORTEST, bound) };
        // Without randomness the middle will do: the wait matters more than the jitter.
        let draw = random::bytes::<2>(entropy).map_or(u16::MAX / 2, u16::from_le_bytes);
        low + (high - low).mul_f64(f64::from(draw) / f64::from(u16::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_runtime::random::SeededEntropy;

    #[test]
    fn waits_stay_within_bounds_grow_and_reset() {
        let entropy = SeededEntropy::new(1);
        let mut backoff = Backoff::default();
        let mut longest = Duration::ZERO;
        for failure in 1..200 {
            let wait = backoff.next(false, &entropy);
            assert!(wait >= SHORTEST && wait <= LONGEST);
            assert!(failure > 1 || wait <= 2 * SHORTEST);
            longest = longest.max(wait);
        }
        assert!(longest > LONGEST / 2);
        assert!(backoff.next(true, &entropy) >= REFUSED);
        backoff.reset();
        assert!(backoff.next(false, &entropy) <= 2 * SHORTEST);
    }
}
