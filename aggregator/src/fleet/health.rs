//! Health of nodes and guests from what a look saw, and when a row of its history is due. The judgement itself is
//! [`evenkeel_core::score::health`].

use std::time::Duration;

use evenkeel_common::sample::Subject;
use evenkeel_common::time::Timestamp;
use evenkeel_core::score::health::{Findings, Health, Limits, Status, health};

use super::forecasts::Found;
use super::observe::{GuestSeen, Observation};
use crate::store::records::ScoreRecord;

/// A row of history at least this often.
const EVERY: Duration = Duration::from_mins(10);
/// A change of so many points is worth a row of its own.
const CHANGE: f64 = 5.0;

/// What nothing is known of.
#[must_use]
pub fn unknown() -> Health {
    Health { score: None, status: Status::Unknown, parts: Vec::new() }
}

/// Health of a node. `seen`: the look, `None` while it is silent.
#[must_use]
pub fn of_node(
    seen: Option<&Observation>,
    silent_s: Option<u64>,
    near: &[Found],
    warn_hours: f64,
    limits: Limits,
) -> Health {
    let forecasts = near.iter().filter(|found| found.forecast.hours <= warn_hours);
    let forecasts = forecasts.map(|found| (found.series.to_string(), found.forecast.hours)).collect();
    let mut findings =
        Findings { known: seen.is_some() || silent_s.is_some(), silent_s, forecasts, ..Findings::default() };
    if let Some(seen) = seen {
        findings.anomalies = anomalies(seen, Subject::Node);
        findings.memory_percent = seen.memory;
        findings.pressure_percent = seen.pressure;
        findings.file_systems.clone_from(&seen.file_systems);
        findings.faults.clone_from(&seen.faults);
    }
    health(&findings, limits)
}

/// Health of a guest on a node that speaks. `silent_s`: seconds its own figures are missing, where that counts.
#[must_use]
pub fn of_guest(seen: &Observation, guest: &GuestSeen, silent_s: Option<u64>, limits: Limits) -> Health {
    let findings = Findings {
        known: guest.silent_for.is_some(),
        silent_s,
        anomalies: anomalies(seen, Subject::Guest(guest.vmid)),
        // A container at its limit is killed from inside; 95 % of it is where the kernel begins to struggle.
        memory_percent: guest.memory.map(|percent| percent + limits.memory - 95.0),
        pressure_percent: guest.pressure,
        ..Findings::default()
    };
    health(&findings, limits)
}

fn anomalies(seen: &Observation, subject: Subject) -> Vec<(evenkeel_common::anomaly::Severity, String)> {
    let own = seen.anomalies.iter().filter(|a| a.subject == subject && !a.is_silence);
    own.map(|a| (a.severity, a.series.clone())).collect()
}

/// What history last said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown {
    last: Option<(Timestamp, Option<f64>, Status)>,
}

impl Shown {
    /// The row to write now, if one is due.
    pub fn row(&mut self, at: Timestamp, health: &Health) -> Option<ScoreRecord> {
        let score = health.score.map(evenkeel_common::units::Score::get);
        let due = match self.last {
            None => true,
            Some((when, last, status)) => {
                let moved = last
                    .zip(score)
                    .map_or(last.is_some() != score.is_some(), |(a, b)| (a - b).abs() >= CHANGE);
                status != health.status || moved || at.since(when) >= EVERY
            }
        };
        due.then(|| {
            self.last = Some((at, score, health.status));
            ScoreRecord { score, status: health.status.name().into() }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::units::Score;

    #[test]
    fn history_has_a_row_every_ten_minutes_and_on_change() {
        let mut shown = Shown::default();
        let at = |s: i64| Timestamp::from_millis(s * 1000);
        let of = |score: f64, status| Health { score: Score::new(score).ok(), status, parts: vec![] };
        let mut rows = Vec::new();
        for (s, score, status) in [
            (0, 100.0, Status::Healthy),
            (10, 97.0, Status::Healthy),
            (20, 94.0, Status::Healthy),
            (30, 78.0, Status::Degraded),
            (600, 78.0, Status::Degraded),
            (630, 78.0, Status::Degraded),
        ] {
            rows.extend(shown.row(at(s), &of(score, status)).map(|_| s));
        }
        assert_eq!(rows, [0, 20, 30, 630]);
        assert!(shown.row(at(640), &unknown()).is_some(), "and when nothing is known any more");
    }
}
