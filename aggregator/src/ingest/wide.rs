//! The last minute of the figures that exist once per device or peer: NICs, file systems, probes. Kept beside the
//! figures of [`super::live::NodeLoad`] for fleet detection, which adds them up.

use std::collections::BTreeMap;

use evenkeel_common::sample::{Metric, SeriesKey};
use evenkeel_common::time::{Timestamp, Window};

use super::recent::Recent;

/// Most series kept of one node; a node with 16 NICs, 64 mounts and 100 peers has about 500.
const MOST: usize = 1_024;

/// The figures of one node.
#[derive(Debug, Default)]
pub struct Wide {
    series: BTreeMap<(Metric, String), Recent>,
}

impl Wide {
    /// Whether series of this metric are kept.
    #[must_use]
    pub const fn keeps(metric: Metric) -> bool {
        use Metric as M;
        matches!(
            metric,
            M::NetRx
                | M::NetTx
                | M::NetRxPackets
                | M::NetTxPackets
                | M::NetErrors
                | M::NetDrops
                | M::FsUsed
                | M::SwapUsedBytes
                | M::ProbeLatency
                | M::ProbeJitter
                | M::ProbeLoss
        )
    }

    /// Takes one value. Beyond [`MOST`] series new ones are left out.
    pub fn push(&mut self, key: &SeriesKey, at: Timestamp, value: f64) {
        let full = self.series.len() >= MOST;
        let slot = (key.metric, key.instance.clone());
        if let Some(recent) = self.series.get_mut(&slot) {
            recent.push(at, value);
        } else if !full {
            self.series.entry(slot).or_default().push(at, value);
        }
    }

    /// Means over a window of all series of a metric that have values in it, with the name of the device or peer.
    pub fn means(&self, metric: Metric, window: Window) -> impl Iterator<Item = (&str, f64)> {
        let range = (metric, String::new())..;
        let of_metric = self.series.range(range).take_while(move |((of, _), _)| *of == metric);
        of_metric.filter_map(move |((_, name), recent)| Some((name.as_str(), recent.mean(window)?)))
    }

    /// Sum of those means; `None` when there is none.
    #[must_use]
    pub fn sum(&self, metric: Metric, window: Window) -> Option<f64> {
        self.means(metric, window).map(|(_, mean)| mean).reduce(|a, b| a + b)
    }

    /// Median of the means of those with a name, the lower one of two: what most of them are like, whatever a single one
    /// does. `None` when there is none.
    #[must_use]
    pub fn median(&self, metric: Metric, window: Window) -> Option<f64> {
        let named = self.means(metric, window).filter(|(name, _)| !name.is_empty());
        let mut means: Vec<f64> = named.map(|(_, mean)| mean).collect();
        means.sort_by(f64::total_cmp);
        means.get(means.len().saturating_sub(1) / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_add_up_and_what_is_absent_is_not_zero() {
        let mut wide = Wide::default();
        let at = Timestamp::from_millis(1_000);
        wide.push(&SeriesKey::device(Metric::NetRx, "eno1"), at, 100.0);
        wide.push(&SeriesKey::device(Metric::NetRx, "eno2"), at, 50.0);
        wide.push(&SeriesKey::device(Metric::ProbeLatency, "pve2"), at, 4.0);
        let window = Window { from: Timestamp::from_millis(0), to: Timestamp::from_millis(2_000) };
        assert_eq!(wide.sum(Metric::NetRx, window), Some(150.0));
        assert_eq!(wide.median(Metric::ProbeLatency, window), Some(4.0));
        wide.push(&SeriesKey::device(Metric::ProbeLatency, "pve3"), at, 400.0);
        assert_eq!(
            wide.median(Metric::ProbeLatency, window),
            Some(4.0),
            "one slow peer does not make a slow node"
        );
        assert_eq!(wide.median(Metric::ProbeLoss, window), None);
        assert_eq!(wide.sum(Metric::NetTx, window), None);
        let later = Window { from: Timestamp::from_millis(5_000), to: Timestamp::from_millis(6_000) };
        assert_eq!(wide.sum(Metric::NetRx, later), None, "old values are no values");
        for n in 0..2 * MOST {
            wide.push(&SeriesKey::device(Metric::FsUsed, format!("/m{n}")), at, 1.0);
        }
        assert_eq!(wide.series.len(), MOST);
    }
}
