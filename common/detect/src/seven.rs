//! The seven metrics of a node on which the fleet's ensemble votes: names, units, and how values are compared.
//!
//! A missing value is NaN and stays one: it is never zero. Detectors compare in a *domain*: percentages as they
//! are, rates and times by ratio (`ln(1 + value / unit)`), because their noise grows with their level; and no
//! detector grants a metric a sigma below [`SevenMetric::floor`], or flat series would score infinity.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many there are.
pub const SEVEN: usize = 7;

/// One of the seven, in the order in which they are stored and in which a CSV of training data has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SevenMetric {
    /// Network throughput in Mbit/s.
    Bandwidth,
    /// Round-trip time between agents in ms.
    Latency,
    /// Lost probes in percent.
    PacketLoss,
    /// Variation of the round-trip time in ms.
    Jitter,
    /// Use of the node's processors in percent.
    CpuUsage,
    /// Use of the node's memory in percent.
    MemoryUsage,
    /// Failed packets and tasks in percent.
    ErrorRate,
}

impl SevenMetric {
    /// All, in order.
    pub const ALL: [Self; SEVEN] = [
        Self::Bandwidth,
        Self::Latency,
        Self::PacketLoss,
        Self::Jitter,
        Self::CpuUsage,
        Self::MemoryUsage,
        Self::ErrorRate,
    ];

    /// Stable name, also the column of a CSV file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bandwidth => "bandwidth",
            Self::Latency => "latency",
            Self::PacketLoss => "packet_loss",
            Self::Jitter => "jitter",
            Self::CpuUsage => "cpu_usage",
            Self::MemoryUsage => "memory_usage",
            Self::ErrorRate => "error_rate",
        }
    }

    /// Unit of its values.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Bandwidth => "Mbps",
            Self::Latency | Self::Jitter => "ms",
            Self::PacketLoss | Self::CpuUsage | Self::MemoryUsage | Self::ErrorRate => "%",
        }
    }

    /// Its place in [`SevenMetrics`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Level below which nobody cares about ratios; `None` where values are compared by difference.
    const fn log_unit(self) -> Option<f64> {
        match self {
            Self::Bandwidth => Some(8.0),
            Self::Latency | Self::Jitter => Some(1.0),
            Self::PacketLoss | Self::CpuUsage | Self::MemoryUsage | Self::ErrorRate => None,
        }
    }

    /// A value in the domain in which detectors compare; NaN for what is missing, infinite or below zero.
    #[must_use]
    pub fn enter(self, value: f64) -> f64 {
        if !value.is_finite() || value < 0.0 {
            return f64::NAN;
        }
        // Nothing real is larger; and sums of squares stay finite.
        let value = value.min(1e9);
        self.log_unit().map_or(value, |unit| (value / unit).ln_1p())
    }

    /// Back from the domain to the unit.
    #[must_use]
    pub fn leave(self, value: f64) -> f64 {
        self.log_unit().map_or(value, |unit| value.exp_m1() * unit)
    }

    /// Smallest sigma it is granted, in the domain: points of percent, or natural logarithms of a ratio.
    #[must_use]
    pub const fn floor(self) -> f64 {
        match self {
            Self::Bandwidth | Self::Latency | Self::Jitter => 0.1,
            Self::PacketLoss | Self::ErrorRate => 0.25,
            Self::CpuUsage | Self::MemoryUsage => 1.0,
        }
    }
}

impl fmt::Display for SevenMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One observation of a node, in the order of [`SevenMetric::ALL`] and in their units; NaN = missing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SevenMetrics(pub [f64; SEVEN]);

impl SevenMetrics {
    /// Nothing is known.
    pub const MISSING: Self = Self([f64::NAN; SEVEN]);

    /// The value of one metric; `None` when it is missing.
    #[must_use]
    pub fn get(&self, metric: SevenMetric) -> Option<f64> {
        Some(self.0[metric.index()]).filter(|value| value.is_finite())
    }

    /// All values in the domain in which detectors compare; see [`SevenMetric::enter`].
    #[must_use]
    pub fn domain(&self) -> [f64; SEVEN] {
        SevenMetric::ALL.map(|metric| metric.enter(self.0[metric.index()]))
    }
}

/// The metric with the largest share; `None` when no share is above zero.
#[must_use]
pub fn leading(shares: &[f64; SEVEN]) -> Option<SevenMetric> {
    let best =
        SevenMetric::ALL.into_iter().rev().max_by(|a, b| shares[a.index()].total_cmp(&shares[b.index()]))?;
    (shares[best.index()] > 0.0).then_some(best)
}

/// Shares that sum to 1, from weights of which only those above zero count; all zero when there are none.
#[must_use]
pub fn shares(weights: [f64; SEVEN]) -> [f64; SEVEN] {
    let weights = weights.map(|w| if w.is_finite() && w > 0.0 { w } else { 0.0 });
    let sum: f64 = weights.iter().sum();
    if sum > 0.0 && sum.is_finite() { weights.map(|w| w / sum) } else { [0.0; SEVEN] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_is_missing_and_not_zero() {
        let metrics = SevenMetrics([f64::INFINITY, -1.0, f64::NAN, 0.0, 50.0, 1e300, 1.0]);
        let domain = metrics.domain();
        assert!(domain[..3].iter().all(|v| v.is_nan()) && domain[3..].iter().all(|v| v.is_finite()));
        assert_eq!(metrics.get(SevenMetric::Bandwidth), None);
        assert_eq!(metrics.get(SevenMetric::Jitter), Some(0.0));
    }

    #[test]
    fn shares_sum_to_one_or_are_none() {
        assert_eq!(shares([f64::NAN; SEVEN]), [0.0; SEVEN]);
        assert_eq!(leading(&[0.0; SEVEN]), None);
        let shared = shares([3.0, f64::NAN, -2.0, 0.0, 1.0, 0.0, 0.0]);
        assert_eq!(shared, [0.75, 0.0, 0.0, 0.0, 0.25, 0.0, 0.0]);
        assert_eq!(leading(&shared), Some(SevenMetric::Bandwidth));
    }

    #[test]
    fn the_order_is_the_files() {
        let names = SevenMetric::ALL.map(SevenMetric::name).join(",");
        assert_eq!(names, "bandwidth,latency,packet_loss,jitter,cpu_usage,memory_usage,error_rate");
        assert!(SevenMetric::ALL.iter().enumerate().all(|(i, m)| m.index() == i && m.floor() > 0.0));
    }
}
