//! Options of the streaming detectors. They hold for all series of an agent; what differs per metric is in
//! [`crate::scale`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a series is not itself. A *step* is 5 s of samples, or one sample where the agent samples less often.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WatchConfig {
    /// Confidence from which an anomaly opens. Lower finds more and errs more often; 0.5 = as likely real as not.
    #[schemars(range(min = 0.1, max = 0.999))]
    pub open_confidence: f64,
    /// A step is quiet again when it is nearer to what was expected at the opening than this many sigma.
    #[schemars(range(min = 1.0, max = 10.0))]
    pub close_deviation: f64,
    /// Quiet steps in a row that close an anomaly.
    #[schemars(range(min = 1, max = 720))]
    pub quiet_steps: u16,
    /// Seconds after which an open anomaly is accepted as the new normal level and closed.
    #[schemars(range(min = 60, max = 86400))]
    pub accept_after_s: u32,
    /// Seconds without samples after which an open anomaly is closed.
    #[schemars(range(min = 30, max = 86400))]
    pub silence_after_s: u32,
    /// Seconds after a closing in which the series may not open again. Doubles with every opening, up to 512
    /// times, and halves with every four hours without one.
    #[schemars(range(min = 0, max = 3600))]
    pub hold_off_s: u32,
    /// The z-score detector.
    pub z_score: ZScoreConfig,
    /// The EWMA control chart.
    pub ewma: EwmaConfig,
    /// The rolling percentile.
    pub percentile: PercentileConfig,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self {
            open_confidence: 0.5,
            close_deviation: 3.0,
            quiet_steps: 6,
            accept_after_s: 1800,
            silence_after_s: 300,
            hold_off_s: 60,
            z_score: ZScoreConfig::default(),
            ewma: EwmaConfig::default(),
            percentile: PercentileConfig::default(),
        }
    }
}

/// Distance from a rolling mean in standard deviations: sudden spikes and drops.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ZScoreConfig {
    /// Steps in the rolling window: 100 = 500 s at 1 s samples.
    #[schemars(range(min = 20, max = 1000))]
    pub window: u16,
    /// Standard deviations from which this detector votes.
    #[schemars(range(min = 1.0, max = 20.0))]
    pub threshold: f64,
}

impl Default for ZScoreConfig {
    fn default() -> Self {
        Self { window: 100, threshold: 3.0 }
    }
}

/// Exponentially weighted moving average control chart: sustained and gradual changes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EwmaConfig {
    /// Weight of the newest step in the chart's average.
    #[schemars(range(min = 0.01, max = 1.0))]
    pub lambda: f64,
    /// Control limit L: widths of the chart from which this detector votes.
    #[schemars(range(min = 1.0, max = 20.0))]
    pub limit: f64,
    /// Steps over which the centre line and its spread are learned: 720 = one hour at 1 s samples.
    #[schemars(range(min = 50, max = 20000))]
    pub memory: u16,
}

impl Default for EwmaConfig {
    fn default() -> Self {
        Self { lambda: 0.2, limit: 3.0, memory: 720 }
    }
}

/// Rolling percentile of what the series reached: tail behaviour, for heavy-tailed series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PercentileConfig {
    /// Stretches of ten minutes in the rolling window: 144 = one day.
    #[schemars(range(min = 12, max = 1008))]
    pub window: u16,
    /// Percentile of the stretches' peaks (and, mirrored, of their lows) that bounds the known range.
    #[schemars(range(min = 50.0, max = 99.9))]
    pub percentile: f64,
    /// Tail widths beyond the known range from which this detector votes.
    #[schemars(range(min = 1.0, max = 20.0))]
    pub threshold: f64,
}

impl Default for PercentileConfig {
    fn default() -> Self {
        Self { window: 144, percentile: 97.5, threshold: 3.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_documented() {
        evenkeel_common::config::assert_documented::<WatchConfig>();
    }
}
