//! What evenkeel's own migrations taught about the next ones: whether they arrive, and how long they take.
//!
//! How likely a move is to help takes its arrival for granted; where migrations failed lately it is as much less likely.
//! Twenty arrivals are assumed beforehand, so that one failure is no verdict: three of three leave 87 %. Failures count
//! for a week, and until an operator arms the executor anew: nothing would ever arrive again if they counted for good.
//!
//! How long a move takes follows from the speed of the network as configured; the median of what the last ones took
//! against that corrects it, from three on. The downtime at the end of a live migration stands in its task's log only,
//! which nobody reads yet, and has no part.

use std::time::Duration;

use evenkeel_common::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Arrivals assumed beforehand.
const ASSUMED: f64 = 20.0;
/// How long it counts whether a migration arrived.
const ARRIVALS: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long its duration counts.
const DURATIONS: Duration = Duration::from_secs(30 * 24 * 3600);
/// Migrations below which nothing is said of their pace.
const ENOUGH: usize = 3;
/// How far a pace may be from what the configuration says: beyond that something else is wrong.
const PACE: (f64, f64) = (0.25, 4.0);

/// One migration that ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// Minutes it was to take by the configured speed alone.
    pub told_minutes: f64,
    /// Minutes it took; `None` when it did not arrive.
    pub took_minutes: Option<f64>,
}

/// What is known of evenkeel's own migrations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Experience {
    /// Those of the last week that arrived.
    pub arrived: u32,
    /// Those of the last week that failed.
    pub failed: u32,
    /// Times the configured speed's duration that those of thirty days took, the median; `None` while too few arrived.
    pub pace: Option<f64>,
}

impl Experience {
    /// Of migrations that ended by now. Failures before `rearmed` do not count.
    #[must_use]
    pub fn of(ended: impl IntoIterator<Item = Ended>, rearmed: Option<Timestamp>, now: Timestamp) -> Self {
        let mut experience = Self::default();
        let mut paces = Vec::new();
        for Ended { at, told_minutes, took_minutes } in ended {
            if now.since(at) < ARRIVALS && rearmed.is_none_or(|rearmed| at > rearmed) {
                experience.arrived += u32::from(took_minutes.is_some());
                experience.failed += u32::from(took_minutes.is_none());
            }
            if let Some(took) = took_minutes.filter(|_| now.since(at) < DURATIONS) {
                let pace = took / told_minutes;
                paces.extend((told_minutes > 0.0 && pace.is_finite()).then_some(pace));
            }
        }
        paces.sort_by(f64::total_cmp);
        experience.pace = (paces.len() >= ENOUGH).then(|| paces[paces.len() / 2].clamp(PACE.0, PACE.1));
        experience
    }

    /// How likely a migration is to arrive; 1 while none failed.
    pub(crate) fn arrives(&self) -> f64 {
        let arrived = f64::from(self.arrived) + ASSUMED;
        arrived / (arrived + f64::from(self.failed))
    }

    /// Times the configured speed's duration that a migration takes; what is no pace is the configured one.
    #[must_use]
    pub fn pace(&self) -> f64 {
        self.pace.filter(|pace| pace.is_finite()).map_or(1.0, |pace| pace.clamp(PACE.0, PACE.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Memory, Policy, Snapshot, decide, fixture};

    const NOW: Timestamp = fixture::NOW;

    fn arrived(told_minutes: f64, took: f64) -> Ended {
        Ended { at: NOW.before(Duration::from_secs(60)), told_minutes, took_minutes: Some(took) }
    }

    fn failed(days_ago: u64) -> Ended {
        Ended {
            at: NOW.before(Duration::from_secs(86_400 * days_ago)),
            told_minutes: 1.0,
            took_minutes: None,
        }
    }

    fn of(ended: &[Ended]) -> Experience {
        Experience::of(ended.iter().copied(), None, NOW)
    }

    #[test]
    fn a_pace_needs_three_and_is_their_median_within_reason() {
        let pace = |took: &[f64]| of(&took.iter().map(|took| arrived(2.0, *took)).collect::<Vec<_>>()).pace;
        assert_eq!(pace(&[1.0, 2.0]), None);
        assert_eq!(pace(&[40.0, 3.0, 2.0]), Some(1.5));
        assert_eq!(pace(&[400.0, 300.0, 200.0]), Some(4.0));
        assert_eq!(of(&[arrived(0.0, 1.0), arrived(1.0, 1.0), arrived(1.0, 1.0)]).pace, None);
        assert!((Experience::default().pace() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn failures_count_for_a_week_and_until_somebody_has_looked() {
        let two = [failed(1), failed(6), failed(7), failed(20)];
        assert_eq!(of(&two).failed, 2);
        let rearmed = Some(NOW.before(Duration::from_secs(86_400 * 3)));
        assert_eq!(Experience::of(two, rearmed, NOW).failed, 1);
        assert!((of(&[failed(1); 3]).arrives() - 20.0 / 23.0).abs() < 1e-12);
    }

    #[test]
    fn failures_lower_confidence_and_a_slow_network_raises_the_price() {
        const HOT: &str = "
            pve1 cpu=16 ram=64 | 101 cpu=9 mem=4 | 102 cpu=9 mem=4
            pve2 cpu=16 ram=64
            pve3 cpu=16 ram=64";
        let best = |experience: Experience| {
            let snapshot = Snapshot { experience, ..fixture::snapshot(HOT) };
            let run = decide(&snapshot, &Policy::default(), &Memory::default());
            run.decisions[0].recommendation.clone()
        };
        let (plain, one) = (best(Experience::default()), best(of(&[failed(0)])));
        assert!((one.confidence.get() - plain.confidence.get() * 20.0 / 21.0).abs() < 1e-9);
        let arrivals = best(of(&[arrived(1.0, 1.0); 3]));
        assert_eq!((arrivals.confidence, arrivals.cost), (plain.confidence, plain.cost));
        let slow = best(of(&[arrived(1.0, 3.0); 3]));
        assert!((slow.cost.minutes - 3.0 * plain.cost.minutes).abs() < 1e-9);
        assert_eq!((slow.cost.bytes, slow.certain), (plain.cost.bytes, plain.certain));
    }
}
