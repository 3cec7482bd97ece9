//! What every streaming detector of one series has in common.
//!
//! A detector owns its state and is told everything else: the step, the scale, and whether the step may teach.
//! That a value is judged (`observe`) and that it is learned (`learn`) are two calls, because only the caller
//! knows whether an anomaly is open, and an anomaly must not teach the baseline that it is normal.

use crate::scale::Scale;
use crate::step::Step;

/// A streaming detector of one series.
///
/// Steps come in order of time, finite, at one steady interval. Everything is in the domain of the series'
/// metric (see [`crate::scale`]).
pub trait Detector {
    /// Judges a step against what was learned so far; `None` during warm-up, and until a value has been held
    /// after a gap.
    fn observe(&mut self, step: &Step, scale: &Scale) -> Option<Finding>;

    /// Learns from a step that is taken for normal.
    fn learn(&mut self, step: &Step, scale: &Scale);

    /// A gap: the past stays valid as a baseline, but the next step is no neighbour of the last.
    fn rearm(&mut self);

    /// The past is no guide any more: begins again with the warm-up.
    fn restart(&mut self);
}

/// What a detector measured. Always finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// The detector's statistic, signed: above zero = too high.
    pub score: f64,
    /// The held value it judged.
    pub value: f64,
    /// What it expected.
    pub expected: f64,
    /// Its sigma of single steps, not below the metric's floor.
    pub scale: f64,
}

impl Finding {
    /// Signed distance from the expectation in sigma.
    #[must_use]
    pub fn deviation(&self) -> f64 {
        (self.value - self.expected) / self.scale
    }
}

/// Steps before the z-score and the EWMA chart say anything: one minute at 1 s samples.
pub const WARM_UP_STEPS: u16 = 12;

/// Largest distance, in sigma, at which a step teaches; beyond, it teaches as if it were there (winsorising:
/// Tukey 1962, after Winsor).
pub(crate) const TEACH_LIMIT: f64 = 3.0;

/// A standard deviation from few steps, made cautious: autocorrelated steps underestimate it, the more so the
/// fewer they are. 1.8 times at the end of the warm-up, 1.1 times at 100 steps.
pub(crate) fn cautious(deviation: f64, steps: usize) -> f64 {
    deviation * (1.0 + 10.0 / steps.max(1) as f64)
}
