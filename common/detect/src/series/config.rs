//! Options of the detector of one series.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a series whose metric is unknown is not itself. A *tick* is one sample, or as many of them as make up
/// `tick_s` where samples come faster.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SeriesConfig {
    /// Shortest tick in seconds (default 300): faster samples are averaged. Smaller sees shorter events, and brings
    /// as many times more false alarms and shorter memories.
    #[schemars(range(min = 1, max = 3600))]
    pub tick_s: u32,
    /// Surprise, in powers of ten, at which a score is 0.5 and an alarm (default 2.8). One more means about a
    /// tenth of the alarms; much less than 2 alarms daily.
    #[schemars(range(min = 1.0, max = 10.0))]
    pub surprise: f32,
    /// How much more surprise, in powers of ten, is asked for each tenfold age of the series (default 0.5). 0
    /// keeps the alarms per day constant, 1 the alarms per lifetime.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub age_penalty: f32,
    /// How much more surprise is asked of a new series (default 1.3), falling to none within `young_days`: nobody
    /// knows yet what it does. 0 brings several alarms in the first days of each series.
    #[schemars(range(min = 0.0, max = 5.0))]
    pub young_penalty: f32,
    /// Days for which a series is young (default 10).
    #[schemars(range(min = 0.1, max = 60.0))]
    pub young_days: f32,
    /// How much more surprise is asked for each alarm of the recent past (default 0.2): a series that alarms
    /// often has to do more each time. 0 lets a wild series alarm for ever.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub alarm_penalty: f32,
    /// Ticks after which a past alarm counts little (default 4000).
    #[schemars(range(min = 10.0, max = 100_000.0))]
    pub alarm_memory: f32,
    /// Hold-off after an event, as a share of the ticks known (default 0.1, at least 30 and at most 400 ticks).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub hold_off: f32,
    /// By how many powers of ten an event must exceed the one it follows to be told within its hold-off (default
    /// 0.7).
    #[schemars(range(min = 0.0, max = 10.0))]
    pub hold_off_margin: f32,
    /// How many of the last `hysteresis_of` ticks must be surprising (default 1, at most 4). More is calmer and
    /// later.
    #[schemars(range(min = 1, max = 4))]
    pub hysteresis: u8,
    /// See `hysteresis` (default 1, at most 4).
    #[schemars(range(min = 1, max = 4))]
    pub hysteresis_of: u8,
    /// Weight with which a tick teaches during an event (default 0.5): 0 never accepts, 1 learns at once.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub slow_learning: f32,
    /// Ticks after which an event teaches like any other time (default 72).
    #[schemars(range(min = 0, max = 10_000))]
    pub slow_ticks: u16,
    /// Which parts have a say.
    pub parts: PartsConfig,
}

impl Default for SeriesConfig {
    fn default() -> Self {
        Self {
            tick_s: 300,
            surprise: 2.8,
            age_penalty: 0.5,
            young_penalty: 1.3,
            young_days: 10.0,
            alarm_penalty: 0.2,
            alarm_memory: 4000.0,
            hold_off: 0.1,
            hold_off_margin: 0.7,
            hysteresis: 1,
            hysteresis_of: 1,
            slow_learning: 0.5,
            slow_ticks: 72,
            parts: PartsConfig::default(),
        }
    }
}

/// Which parts have a say in the score. Those that did not earn their place on labelled data are off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PartsConfig {
    /// Distance from what is usual at this hour (default on).
    pub season: bool,
    /// The same, smoothed: small deviations that stay (default on).
    pub drift: bool,
    /// The level of hours against the level of a day (default on).
    pub level: bool,
    /// The distribution of the last values against that of all (default on).
    pub distribution: bool,
    /// Values beyond the outer percentiles of all that was seen (default off: alarms on
    /// every spike).
    pub percentile: bool,
    /// How often the series jumps (default on).
    pub jumps: bool,
    /// Shapes of the last values that were never seen (default on).
    pub shape: bool,
    /// A series that moved all the time and stands still (default on).
    pub frozen: bool,
    /// Distance from the mean of the last 100 ticks (default off: alarms on every spike).
    pub zscore: bool,
    /// Cumulated deviations from what is usual at this hour (default off: `drift` is earlier).
    pub cusum: bool,
}

impl Default for PartsConfig {
    fn default() -> Self {
        Self {
            season: true,
            drift: true,
            level: true,
            distribution: true,
            percentile: false,
            jumps: true,
            shape: true,
            frozen: true,
            zscore: false,
            cusum: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_documented() {
        evenkeel_common::config::assert_documented::<SeriesConfig>();
    }
}
