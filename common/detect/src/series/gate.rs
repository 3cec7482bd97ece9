//! One event, one peak: hysteresis, hold-off, and a bar that rises with the alarms of the past.

use serde::{Deserialize, Serialize};

use crate::series::config::SeriesConfig;

/// Bounds of the hold-off in ticks.
const HOLD_OFF: (f32, f32) = (30.0, 400.0);
/// Ticks of which no alarm counts against the series: its baselines are young.
const YOUNG: u32 = 500;

/// What the gate made of a tick.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Passed {
    /// Surprise less what is asked for age and past alarms.
    pub surprise: f32,
    /// A new event, or a much stronger one; otherwise the tick belongs to what was told already.
    pub fresh: bool,
}

/// The memory of what was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Gate {
    last: [f32; 4],
    peak: f32,
    since: f32,
    hold: f32,
    alarms: f32,
}

impl Gate {
    /// Lets a tick's surprise pass. `ticks`, `days`: known so far.
    pub fn pass(&mut self, surprise: f32, ticks: u32, days: f32, config: &SeriesConfig) -> Passed {
        self.last.rotate_right(1);
        self.last[0] = surprise;
        let held = self.held(config);
        let age = config.age_penalty * ((ticks as f32 + 100.0) / 4000.0).log10();
        let young = config.young_penalty * (1.0 - days / config.young_days.max(0.1)).max(0.0);
        let surprise = (held - age).max(0.0) - config.alarm_penalty * self.alarms - young;
        self.alarms *= 1.0 - 1.0 / config.alarm_memory.max(1.0);
        self.since += 1.0;
        let bar = if self.since < self.hold { self.peak + config.hold_off_margin } else { 0.0 };
        let fresh = surprise > bar;
        if fresh {
            (self.peak, self.since) = (surprise, 0.0);
            self.hold = (ticks as f32 * config.hold_off).max(HOLD_OFF.0).min(HOLD_OFF.1);
            if ticks > YOUNG {
                self.alarms += 1.0 / (1.0 + ((config.surprise - surprise) * 4.0).exp());
            }
        }
        Passed { surprise, fresh }
    }

    /// The m-th largest of the last n.
    fn held(&self, config: &SeriesConfig) -> f32 {
        let n = usize::from(config.hysteresis_of).clamp(1, self.last.len());
        let m = usize::from(config.hysteresis).clamp(1, n);
        if n == 1 {
            return self.last[0];
        }
        let mut last = self.last;
        let last = &mut last[..n];
        last.sort_unstable_by(|a, b| b.total_cmp(a));
        last[m - 1]
    }

    /// Ticks since an event of at least `surprise`, while its hold-off lasts.
    pub fn open_for(&self, surprise: f32) -> Option<f32> {
        (self.peak >= surprise && self.since < self.hold).then_some(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_is_told_once_and_a_much_stronger_one_again() {
        let config = SeriesConfig { age_penalty: 0.0, ..SeriesConfig::default() };
        let mut gate = Gate::default();
        let told: Vec<bool> =
            [1.0, 4.0, 4.2, 3.0, 5.5, 4.0].map(|s| gate.pass(s, 1000, 9.0, &config).fresh).into();
        assert_eq!(told, [true, true, false, false, true, false]);
    }

    #[test]
    fn every_alarm_asks_more_of_the_next() {
        let config = SeriesConfig { age_penalty: 0.0, hold_off: 0.0, ..SeriesConfig::default() };
        let mut gate = Gate::default();
        let told: Vec<f32> = (0..200)
            .map(|i| gate.pass(if i % 40 == 0 { 4.0 } else { 0.0 }, 1000, 9.0, &config).surprise)
            .filter(|&s| s > 1.0)
            .collect();
        assert!(told.windows(2).all(|w| w[1] < w[0]), "{told:?}");
    }

    #[test]
    fn two_of_three_leaves_out_a_single_tick() {
        let config = SeriesConfig { hysteresis: 2, hysteresis_of: 3, ..SeriesConfig::default() };
        let mut gate = Gate::default();
        let told = [0.0, 5.0, 0.0, 0.0, 5.0, 5.0].map(|s| gate.pass(s, 3900, 9.0, &config).surprise > 4.0);
        assert_eq!(told, [false, false, false, false, false, true]);
    }
}
