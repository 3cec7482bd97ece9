//! Health of a node or guest: 0 to 100, higher = healthier. Not the node score of decisions, which says how close a
//! node is to its limits and runs the other way.
//!
//! Everything that is wrong costs points, and each cost is kept with its cause, so that a person sees why. Points are
//! judgement, not measurement: one critical anomaly makes a subject degraded, several or silence make it critical.

use std::fmt;

use evenkeel_common::anomaly::Severity;
use evenkeel_common::units::Score;
use serde::{Deserialize, Serialize};

/// Below this a subject is degraded.
const HEALTHY_FROM: f64 = 90.0;
/// Below this it is critical.
const DEGRADED_FROM: f64 = 50.0;
/// Most points that all anomalies together cost, so that the rest still shows.
const MOST_FOR_ANOMALIES: f64 = 60.0;
/// Most points that failing collectors cost together.
const MOST_FOR_FAULTS: f64 = 15.0;
/// Most points for going over a limit.
const MOST_FOR_A_LIMIT: f64 = 20.0;

/// How a subject is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// 90 and more.
    Healthy,
    /// 50 to 90.
    Degraded,
    /// Below 50.
    Critical,
    /// Nothing is known of it: no data is not health, and no illness either.
    Unknown,
}

impl Status {
    /// Stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }
}

/// Why points are missing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Cause {
    /// An anomaly is open.
    Anomaly {
        /// How bad.
        severity: Severity,
        /// Of which series.
        series: String,
    },
    /// More memory is in use than the threshold allows.
    Memory {
        /// In use, percent.
        percent: f64,
        /// Threshold, percent.
        limit: f64,
    },
    /// Work waits more than the threshold allows.
    Pressure {
        /// Share of time, percent.
        percent: f64,
        /// Threshold, percent.
        limit: f64,
    },
    /// A file system is nearly full.
    FileSystem {
        /// Where it is mounted.
        mount: String,
        /// In use, percent.
        percent: f64,
    },
    /// It has said nothing for a while.
    Silent {
        /// For how long, seconds.
        seconds: u64,
    },
    /// A source of its samples can not be read.
    Collector {
        /// Which.
        name: String,
    },
    /// Something will soon reach its limit.
    Forecast {
        /// What.
        series: String,
        /// In how many hours.
        hours: f64,
    },
}

impl Cause {
    /// Stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Anomaly { .. } => "anomaly",
            Self::Memory { .. } => "memory",
            Self::Pressure { .. } => "pressure",
            Self::FileSystem { .. } => "file_system",
            Self::Silent { .. } => "silent",
            Self::Collector { .. } => "collector",
            Self::Forecast { .. } => "forecast",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anomaly { severity, series } => write!(f, "{severity} anomaly {series}"),
            Self::Memory { percent, limit } => {
                write!(f, "{percent:.1} % of its memory is in use; the threshold is {limit:.0} %")
            }
            Self::Pressure { percent, limit } => {
                write!(f, "work waits {percent:.1} % of the time; the threshold is {limit:.0} %")
            }
            Self::FileSystem { mount, percent } => write!(f, "{mount} is {percent:.1} % full"),
            Self::Silent { seconds } => write!(f, "silent for {seconds} s"),
            Self::Collector { name } => write!(f, "collector {name} fails"),
            Self::Forecast { series, hours } => write!(f, "{series} reaches its limit in {hours:.1} h"),
        }
    }
}

/// Points with their cause.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contribution {
    /// What it costs, below zero.
    pub points: f64,
    /// Why.
    pub cause: Cause,
}

/// What is known of a subject, as far as it bears on its health. `None` and empty = nothing to hold against it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// Whether anything is known of it at all.
    pub known: bool,
    /// Seconds it has been silent, when it is.
    pub silent_s: Option<u64>,
    /// Severities and series of open anomalies, drills left out. Silence is not among them: it counts once.
    pub anomalies: Vec<(Severity, String)>,
    /// Memory in use, percent.
    pub memory_percent: Option<f64>,
    /// Share of time that work waits, percent.
    pub pressure_percent: Option<f64>,
    /// File systems with the share in use, percent.
    pub file_systems: Vec<(String, f64)>,
    /// Collectors that fail.
    pub faults: Vec<String>,
    /// Series and hours of what will soon reach its limit.
    pub forecasts: Vec<(String, f64)>,
}

/// Thresholds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Memory, percent.
    pub memory: f64,
    /// Pressure, percent.
    pub pressure: f64,
}

/// How a subject is, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// 0 to 100, higher = healthier; `None` while nothing is known.
    pub score: Option<Score>,
    /// The class of the score.
    pub status: Status,
    /// What the missing points are for, the dearest first.
    pub parts: Vec<Contribution>,
}

/// Judges what is known.
#[must_use]
pub fn health(found: &Findings, limits: Limits) -> Health {
    if !found.known {
        return Health { score: None, status: Status::Unknown, parts: Vec::new() };
    }
    let mut parts = Vec::new();
    let mut cost = |points: f64, cause: Cause| {
        if points > 0.0 && points.is_finite() {
            parts.push(Contribution { points: -points, cause });
        }
    };
    if let Some(seconds) = found.silent_s {
        // What it said last proves nothing about now; the loss of sight alone is critical.
        cost(60.0, Cause::Silent { seconds });
    }
    let mut left = MOST_FOR_ANOMALIES;
    let mut anomalies: Vec<_> = found.anomalies.iter().collect();
    anomalies.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    for (severity, series) in anomalies {
        let points = match severity {
            Severity::Critical => 20.0_f64,
            Severity::Warning => 8.0,
            Severity::Info => 2.0,
        };
        let points = points.min(left);
        left -= points;
        cost(points, Cause::Anomaly { severity: *severity, series: series.clone() });
    }
    // `min` would make the most of what is not a number.
    let number = |percent: &f64| percent.is_finite();
    if let Some(percent) = found.memory_percent.filter(number) {
        cost(
            (percent - limits.memory).min(MOST_FOR_A_LIMIT),
            Cause::Memory { percent, limit: limits.memory },
        );
    }
    if let Some(percent) = found.pressure_percent.filter(number) {
        let points = (percent - limits.pressure) / 2.0;
        cost(points.min(MOST_FOR_A_LIMIT), Cause::Pressure { percent, limit: limits.pressure });
    }
    for (mount, percent) in &found.file_systems {
        // 90 % costs nothing, 95 % ten points, 99 % thirty-six: a full file system stops guests.
        let points = if *percent >= 95.0 { 10.0 + 6.5 * (percent - 95.0) } else { 2.0 * (percent - 90.0) };
        cost(points, Cause::FileSystem { mount: mount.clone(), percent: *percent });
    }
    let mut left = MOST_FOR_FAULTS;
    for name in &found.faults {
        let points = 5.0_f64.min(left);
        left -= points;
        cost(points, Cause::Collector { name: name.clone() });
    }
    for (series, hours) in &found.forecasts {
        cost(10.0, Cause::Forecast { series: series.clone(), hours: *hours });
    }
    parts.sort_by(|a, b| a.points.total_cmp(&b.points));
    let score = Score::clamped(100.0 + parts.iter().map(|part| part.points).sum::<f64>());
    let status = match score.get() {
        points if points >= HEALTHY_FROM => Status::Healthy,
        points if points >= DEGRADED_FROM => Status::Degraded,
        _ => Status::Critical,
    };
    Health { score: Some(score), status, parts }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { memory: 80.0, pressure: 20.0 };

    #[track_caller]
    fn check(found: &Findings, score: f64, status: Status, said: &str) {
        let health = health(&Findings { known: true, ..found.clone() }, LIMITS);
        assert_eq!((health.score.unwrap().get(), health.status), (score, status), "{health:?}");
        let text: Vec<String> =
            health.parts.iter().map(|part| format!("{:.0} {}", part.points, part.cause)).collect();
        assert_eq!(text.join("; "), said);
    }

    #[test]
    fn every_missing_point_has_its_cause() {
        let nothing = Findings::default();
        check(&nothing, 100.0, Status::Healthy, "");
        let anomaly = |severity, name: &str| (severity, name.to_owned());
        let anomalies = vec![anomaly(Severity::Info, "load1"), anomaly(Severity::Critical, "cpu_used")];
        check(
            &Findings { anomalies, ..nothing.clone() },
            78.0,
            Status::Degraded,
            "-20 critical anomaly cpu_used; -2 info anomaly load1",
        );
        check(
            &Findings { silent_s: Some(75), ..nothing.clone() },
            40.0,
            Status::Critical,
            "-60 silent for 75 s",
        );
        let full = vec![("/".to_owned(), 97.0), ("/var".to_owned(), 60.0)];
        check(
            &Findings { file_systems: full, ..nothing.clone() },
            77.0,
            Status::Degraded,
            "-23 / is 97.0 % full",
        );
        let loaded = Findings {
            memory_percent: Some(88.0),
            pressure_percent: Some(24.0),
            faults: vec!["zfs".into()],
            forecasts: vec![("fs_used[/]".into(), 6.0)],
            ..nothing
        };
        check(
            &loaded,
            75.0,
            Status::Degraded,
            "-10 fs_used[/] reaches its limit in 6.0 h; -8 88.0 % of its memory is in use; the threshold is 80 %; \
             -5 collector zfs fails; -2 work waits 24.0 % of the time; the threshold is 20 %",
        );
    }

    #[test]
    fn nothing_known_is_no_score_and_a_flood_of_anomalies_leaves_room() {
        let unknown = health(&Findings::default(), LIMITS);
        assert_eq!((unknown.score, unknown.status), (None, Status::Unknown));
        let flood = vec![(Severity::Critical, "net_errors".to_owned()); 500];
        let found =
            Findings { known: true, anomalies: flood, memory_percent: Some(f64::NAN), ..Findings::default() };
        assert_eq!(health(&found, LIMITS).score.unwrap().get(), 40.0);
    }
}
