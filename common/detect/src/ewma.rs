//! EWMA control chart: changes that build up, on the scale of an hour.
//!
//! `chart = lambda * median + (1 - lambda) * chart`, compared with the centre line (Roberts 1959):
//! `score = (chart - centre) / width`. For independent values the width is
//! `sigma * sqrt(lambda / (2 - lambda))`; samples of a host are anything but independent, so the width is
//! measured: the deviation of the chart itself while nothing is wrong (the remedy of Wieringa 1999 for
//! autocorrelated data), not below the formula applied to the metric's floor. Centre and deviations are
//! themselves exponentially weighted over an hour, a plain mean until that hour is full.
//!
//! Warm-up: 12 steps. Flat series: the floor is the sigma. Gap: the chart returns to the centre line, so a
//! change across a gap has to be held anew.

use evenkeel_common::anomaly::DetectorKind;
use serde::{Deserialize, Serialize};

use crate::config::EwmaConfig;
use crate::detector::{Detector, Finding, TEACH_LIMIT, WARM_UP_STEPS, cautious};
use crate::scale::Scale;
use crate::step::Step;

/// The EWMA control chart of one series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ewma {
    config: EwmaConfig,
    seen: u16,
    chart: f64,
    centre: f64,
    /// Of the steps around the centre.
    variance: f64,
    /// Of the chart around the centre.
    chart_variance: f64,
}

impl Ewma {
    /// The name under which it votes.
    pub const KIND: DetectorKind = DetectorKind::Ewma;

    /// Knows nothing yet.
    #[must_use]
    pub fn new(config: EwmaConfig) -> Self {
        Self { config, seen: 0, chart: 0.0, centre: 0.0, variance: 0.0, chart_variance: 0.0 }
    }

    pub(crate) fn votes(&self, score: f64) -> bool {
        score.abs() >= self.config.limit
    }

    fn sigma(&self, scale: &Scale) -> f64 {
        cautious(self.variance.sqrt(), self.seen.into()).max(scale.floor_at(self.centre))
    }

    fn width(&self, scale: &Scale) -> f64 {
        let independent = (self.config.lambda / (2.0 - self.config.lambda)).sqrt();
        cautious(self.chart_variance.sqrt(), self.seen.into()).max(independent * scale.floor_at(self.centre))
    }
}

impl Detector for Ewma {
    fn observe(&mut self, step: &Step, scale: &Scale) -> Option<Finding> {
        if self.seen == 0 {
            return None;
        }
        self.chart += self.config.lambda * (step.median - self.chart);
        let value = step.held(self.centre).filter(|_| self.seen >= WARM_UP_STEPS)?;
        let score = (self.chart - self.centre) / self.width(scale);
        Some(Finding { score, value, expected: self.centre, scale: self.sigma(scale) })
    }

    fn learn(&mut self, step: &Step, scale: &Scale) {
        let Some(hold) = step.hold else { return };
        if self.seen == 0 {
            (self.seen, self.chart, self.centre) = (1, hold.middle, hold.middle);
            return;
        }
        let limit = |offset: f64, sigma: f64| {
            let reach = TEACH_LIMIT * sigma;
            if self.seen >= WARM_UP_STEPS { offset.max(-reach).min(reach) } else { offset }
        };
        let offset = limit(hold.middle - self.centre, self.sigma(scale));
        let chart_offset = limit(self.chart - self.centre, self.width(scale));
        self.seen = self.seen.saturating_add(1).min(self.config.memory);
        let alpha = 1.0 / f64::from(self.seen.max(1));
        self.centre += alpha * offset;
        self.variance = (1.0 - alpha) * (self.variance + alpha * offset * offset);
        self.chart_variance = (1.0 - alpha) * (self.chart_variance + alpha * chart_offset * chart_offset);
    }

    fn rearm(&mut self) {
        self.chart = self.centre;
    }

    fn restart(&mut self) {
        *self = Self::new(self.config);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::test::step;
    use evenkeel_common::sample::Metric;

    fn feed(ewma: &mut Ewma, scale: &Scale, value: f64, teach: bool) -> Option<Finding> {
        let finding = ewma.observe(&step(value), scale);
        if teach {
            ewma.learn(&step(value), scale);
        }
        finding
    }

    fn taught(values: impl IntoIterator<Item = f64>) -> (Ewma, Scale) {
        let scale = crate::scale::scale_floor(Metric::CpuUsed);
        let mut ewma = Ewma::new(EwmaConfig::default());
        for value in values {
            feed(&mut ewma, &scale, value, true);
        }
        (ewma, scale)
    }

    #[test]
    fn sees_a_small_change_that_lasts_long_before_single_steps_stand_out() {
        let (mut ewma, scale) = taught((0..1000).map(|i| if i % 2 == 0 { 26.0 } else { 34.0 }));
        let mut last = None;
        for i in 0..30 {
            last = feed(&mut ewma, &scale, if i % 2 == 0 { 35.0 } else { 43.0 }, false);
        }
        let finding = last.unwrap();
        assert!(finding.score > 3.0 && finding.deviation() < 3.5, "{finding:?}");
    }

    #[test]
    fn the_width_grows_with_autocorrelation() {
        // The same two values: alternating, and in stretches of a minute.
        let (quick, scale) = taught((0..2000).map(|i| if i % 2 == 0 { 10.0 } else { 50.0 }));
        let (slow, _) = taught((0..2000).map(|i| if i / 12 % 2 == 0 { 10.0 } else { 50.0 }));
        assert!(slow.width(&scale) > 2.0 * quick.width(&scale));
    }

    #[test]
    fn warm_up_flat_series_and_gap() {
        let (mut ewma, scale) = taught(vec![5.0; 11]);
        assert_eq!(feed(&mut ewma, &scale, 5.0, true), None);
        for _ in 0..50 {
            assert!(feed(&mut ewma, &scale, 6.4, true).unwrap().score < 3.0);
        }
        feed(&mut ewma, &scale, 100.0, false);
        ewma.rearm();
        assert!((ewma.chart - ewma.centre).abs() < 1e-12);
    }
}
