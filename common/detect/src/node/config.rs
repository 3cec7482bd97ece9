//! Options of the node detector.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a node as a whole is not itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// False alarms per node and day that are accepted, default 0.1: the threshold follows from it and from
    /// the node's own past. Higher finds more; every doubling about doubles the alarms without a cause.
    #[schemars(range(min = 0.001, max = 100.0))]
    pub false_alarms_per_day: f64,
    /// Days over which levels, spreads and extremes fade, default 30. Shorter forgets an incident sooner and
    /// takes a slow one for normal.
    #[schemars(range(min = 0.5, max = 60.0))]
    pub memory_days: f64,
    /// Hours of an uninterrupted anomaly during which little of it is learned, default 24; afterwards it is
    /// the new normal and is learned at full speed. Too long keeps a reconfigured node red for days.
    #[schemars(range(min = 0.5, max = 336.0))]
    pub accept_after_hours: f64,
    /// Steps before the first verdict, default 120. A channel that is added is not judged for as long.
    #[schemars(range(min = 30, max = 10000))]
    pub warm_up_steps: u32,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self { false_alarms_per_day: 0.1, memory_days: 30.0, accept_after_hours: 24.0, warm_up_steps: 120 }
    }
}

impl NodeConfig {
    /// The nearest configuration that can be worked with: whatever was restored, nothing divides by zero.
    pub(super) fn within_bounds(self) -> Self {
        let clamp = |value: f64, low: f64, high: f64, otherwise: f64| {
            if value.is_finite() { value.clamp(low, high) } else { otherwise }
        };
        Self {
            false_alarms_per_day: clamp(self.false_alarms_per_day, 0.001, 100.0, 0.1),
            memory_days: clamp(self.memory_days, 0.5, 60.0, 30.0),
            accept_after_hours: clamp(self.accept_after_hours, 0.5, 336.0, 24.0),
            warm_up_steps: self.warm_up_steps.clamp(30, 10_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_documented() {
        evenkeel_common::config::assert_documented::<NodeConfig>();
    }
}
