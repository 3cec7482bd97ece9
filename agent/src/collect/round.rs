//! One reading in progress: when it takes place, and where its values and faults go.

use std::fmt::Display;
use std::time::Duration;

use evenkeel_common::sample::{Metric, SeriesId, SeriesKey};
use evenkeel_common::time::Timestamp;

use super::file::Files;
use super::source::{Fault, Registry};

/// Rounds between two attempts to get numbers for new series while the registry is full.
const FULL_REGISTRY_PAUSE: u64 = 60;

/// When a reading takes place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Wall clock.
    pub(crate) at: Timestamp,
    /// Time since boot.
    pub(crate) uptime: Duration,
    /// Number of the reading, from 1.
    pub(crate) round: u64,
    /// Seconds since the previous reading, above zero; `None` at the first.
    pub(crate) elapsed_s: Option<f64>,
}

/// What a collector works with.
#[derive(Debug)]
pub(crate) struct Round<'a> {
    pub(crate) now: Now,
    pub(crate) files: &'a mut Files,
    pub(crate) out: Out<'a>,
}

/// A source of host samples.
pub(crate) trait Collector {
    /// Its name in faults.
    const NAME: &'static str;

    /// Reads and hands out what it finds. An error is a fault of this tick; what was handed out stays.
    fn collect(&mut self, round: &mut Round<'_>) -> Result<(), super::file::CollectError>;
}

impl Round<'_> {
    /// Runs a collector; its error becomes a fault.
    pub(crate) fn run<C: Collector>(&mut self, collector: &mut C) {
        if let Err(error) = collector.collect(self) {
            self.out.fault(C::NAME, error);
        }
    }
}

/// A series and, once it had a value, its number.
#[derive(Debug)]
pub(crate) struct Series {
    key: SeriesKey,
    id: Option<SeriesId>,
}

impl From<SeriesKey> for Series {
    fn from(key: SeriesKey) -> Self {
        Self { key, id: None }
    }
}

impl Series {
    /// A series of the node without instance.
    pub(crate) fn node(metric: Metric) -> Self {
        SeriesKey::node(metric).into()
    }
}

/// A counter of the kernel that only grows, except when what it counts starts afresh.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counter {
    last: Option<(u64, u64)>,
}

impl Counter {
    /// Growth since the previous reading; `None` at first, after a gap, and after a step back (a reset).
    pub(crate) fn growth(&mut self, now: &Now, value: u64) -> Option<u64> {
        let (round, before) = self.last.replace((now.round, value))?;
        // A counter that missed a reading has grown for longer than the time since the last one.
        if round + 1 == now.round { value.checked_sub(before) } else { None }
    }

    /// Growth a second.
    pub(crate) fn rate(&mut self, now: &Now, value: u64) -> Option<f64> {
        let growth = self.growth(now, value)?;
        Some(growth as f64 / now.elapsed_s?)
    }

    /// For a counter of time in which something was so: percent of the time that passed.
    /// `units_per_s`: 1e6 for a counter of microseconds. The clock is read a little before the counter, so
    /// a full second can come out a little longer than the second it is a share of; it is cut to 100.
    pub(crate) fn share(&mut self, now: &Now, value: u64, units_per_s: f64) -> Option<f64> {
        Some((self.rate(now, value)? / units_per_s * 100.0).min(100.0))
    }
}

/// Collects the values and faults of a reading.
#[derive(Debug)]
pub(crate) struct Out<'a> {
    registry: &'a mut Registry,
    pub(crate) values: Vec<(SeriesId, f64)>,
    faults: Vec<Fault>,
    more: Vec<usize>,
    round: u64,
    full_until: u64,
}

impl<'a> Out<'a> {
    /// `full_until`: what [`Self::finish`] gave last time, at first 0.
    pub(crate) fn new(registry: &'a mut Registry, capacity: usize, round: u64, full_until: u64) -> Self {
        let values = Vec::with_capacity(capacity);
        Self { registry, values, faults: Vec::new(), more: Vec::new(), round, full_until }
    }

    /// Hands out a value, unless it is no number or the registry is full.
    pub(crate) fn put(&mut self, series: &mut Series, value: f64) {
        if !value.is_finite() {
            return;
        }
        if series.id.is_none() && self.full_until <= self.round {
            series.id = self.registry.intern(&series.key);
            if series.id.is_none() {
                self.full_until = self.round + FULL_REGISTRY_PAUSE;
            }
        }
        if let Some(id) = series.id {
            self.values.push((id, value));
        }
    }

    /// [`Self::put`] if there is a value.
    pub(crate) fn put_some(&mut self, series: &mut Series, value: Option<f64>) {
        if let Some(value) = value {
            self.put(series, value);
        }
    }

    /// Gives up a series whose subject is gone.
    pub(crate) fn retire(&mut self, series: &mut Series) {
        if let Some(id) = series.id.take() {
            self.registry.retire(id);
        }
    }

    /// Reports a source that can not be read. The first of a collector is told, further ones are counted,
    /// so that a hundred guests with one ailment are one fault.
    pub(crate) fn fault(&mut self, collector: &'static str, problem: impl Display) {
        if let Some(place) = self.faults.iter().position(|fault| fault.collector == collector) {
            self.more[place] += 1;
        } else {
            self.faults.push(Fault { collector, message: problem.to_string() });
            self.more.push(0);
        }
    }

    /// Values in order of their series, faults, and until which round the registry counts as full.
    pub(crate) fn finish(mut self) -> (Vec<(SeriesId, f64)>, Vec<Fault>, u64) {
        if self.full_until > self.round {
            self.fault(
                "series",
                "the limit on series is reached: new ones are not sampled; raise the agent's limit",
            );
        }
        for (fault, more) in self.faults.iter_mut().zip(&self.more) {
            if *more > 0 {
                fault.message.push_str(&format!(" (and {more} more of the kind)"));
            }
        }
        self.values.sort_unstable_by_key(|&(id, _)| id);
        self.values.dedup_by_key(|&mut (id, _)| id);
        (self.values, self.faults, self.full_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(round: u64) -> Now {
        let elapsed_s = (round > 1).then_some(2.0);
        Now { at: Timestamp::from_millis(0), uptime: Duration::from_secs(round), round, elapsed_s }
    }

    #[test]
    fn counters_restart_after_gaps_and_resets() {
        let mut counter = Counter::default();
        assert_eq!(counter.rate(&now(1), 100), None);
        assert_eq!(counter.rate(&now(2), 110), Some(5.0));
        assert_eq!(counter.rate(&now(3), 4), None);
        assert_eq!(counter.rate(&now(4), 8), Some(2.0));
        assert_eq!(counter.rate(&now(6), 800), None);
        assert_eq!(counter.share(&now(7), 800 + 5_000_000, 1e6), Some(100.0));
    }

    #[test]
    fn a_full_registry_is_one_fault_while_it_lasts() {
        let mut registry = Registry::new(1);
        let mut series: Vec<_> = [Metric::CpuUsed, Metric::Load1, Metric::MemUsed].map(Series::node).into();
        let mut full_until = 0;
        for round in 1..=FULL_REGISTRY_PAUSE {
            let mut out = Out::new(&mut registry, 0, round, full_until);
            series.iter_mut().for_each(|s| out.put(s, 1.0));
            let (values, faults, until) = out.finish();
            assert_eq!((values.len(), faults.len()), (1, 1));
            full_until = until;
        }
        assert_eq!(registry.refused(), 1);
        let mut out = Out::new(&mut registry, 0, full_until, full_until);
        out.retire(&mut series[0]);
        out.put(&mut series[1], 1.0);
        let (values, faults, _) = out.finish();
        assert_eq!((values.len(), faults), (1, vec![]));
    }

    #[test]
    fn values_are_finite_and_ascending_and_faults_are_merged() {
        let mut registry = Registry::new(9);
        let (mut a, mut b) = (Series::node(Metric::CpuUsed), Series::node(Metric::Load1));
        let mut out = Out::new(&mut registry, 0, 1, 0);
        out.put(&mut a, 1.0);
        out.put(&mut b, 2.0);
        out.finish();
        let mut out = Out::new(&mut registry, 0, 2, 0);
        out.put(&mut b, 2.0);
        out.put(&mut a, f64::NAN);
        out.put(&mut a, 1.0);
        out.fault("x", "first");
        out.fault("x", "second");
        let (values, faults, _) = out.finish();
        assert_eq!(values, [(SeriesId(0), 1.0), (SeriesId(1), 2.0)]);
        assert_eq!(faults, [Fault { collector: "x", message: "first (and 1 more of the kind)".into() }]);
    }
}
