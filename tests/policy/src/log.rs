//! A line for each move that was made: what was known when it was chosen, and what came of it.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use evenkeel_common::decision::Recommendation;
use evenkeel_core::confidence::Grounds;
use evenkeel_core::outcome::{self, Demand, Moment, Outcome};
use serde::{Deserialize, Serialize};

use crate::protocol::{Guest, Moved, Node, Status, Tick};
use crate::simulated::wanted;

/// Hours that a guest has to stay where it came for the move to be judged.
const LEAST_HOURS: f64 = 0.99;

/// A move that was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When it was chosen, in seconds from the start.
    pub t: i64,
    pub guest: u32,
    pub source: u32,
    pub target: u32,
    /// Confidence in percent, as told.
    pub told: f64,
    /// Points.
    pub improvement: f64,
    /// Days of data behind the guest's profile.
    pub profile_days: f64,
    /// What the confidence was made of.
    pub grounds: Grounds,
    /// How it ended.
    pub end: End,
    /// What waited and what would have, until then.
    pub outcome: Outcome,
    /// The same with only what exceeds the cores of a node as waiting.
    pub strict: Outcome,
}

/// How a move, or the time over which it was judged, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It was refused or failed, so there is nothing to judge.
    NotArrived,
    /// The full time was over.
    Judged,
    /// The guest moved on, or one of the nodes went down, before that.
    CutShort,
}

impl Line {
    /// Whether the move helped; `None` where it can not be told. A certain gain comes with the guest.
    pub fn helped(&self) -> Option<bool> {
        let arrived = self.end != End::NotArrived;
        if self.grounds.certain {
            return Some(arrived);
        }
        (arrived && self.outcome.hours >= LEAST_HOURS).then(|| self.outcome.helped())
    }
}

/// The file, and moves that are not over yet.
#[derive(Debug)]
pub struct Log {
    file: BufWriter<File>,
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    line: Line,
    arrived: bool,
}

impl Log {
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("can not write {}", path.display()))?;
        Ok(Self { file: BufWriter::new(file), open: Vec::new() })
    }

    /// A move was chosen.
    pub fn begin(&mut self, t: i64, ids: [u32; 3], chosen: &Recommendation, days: f64, grounds: Grounds) {
        let [guest, source, target] = ids;
        let line = Line {
            t,
            guest,
            source,
            target,
            told: chosen.confidence.get(),
            improvement: chosen.improvement,
            profile_days: days,
            grounds,
            end: End::NotArrived,
            outcome: Outcome::default(),
            strict: Outcome::default(),
        };
        self.open.push(Open { line, arrived: false });
    }

    /// A step is over. The one in which a guest arrives belongs to both of its nodes and is not judged.
    pub fn step(&mut self, tick: &Tick, hours: f64, vcpus: impl Fn(u32) -> f64) -> Result<()> {
        for mut open in std::mem::take(&mut self.open) {
            match open.step(tick, hours, &vcpus) {
                None => self.open.push(open),
                Some(end) => {
                    open.line.end = end;
                    writeln!(self.file, "{}", serde_json::to_string(&open.line)?)?;
                }
            }
        }
        Ok(self.file.flush()?)
    }
}

impl Open {
    fn step(&mut self, tick: &Tick, hours: f64, vcpus: &impl Fn(u32) -> f64) -> Option<End> {
        let line = &mut self.line;
        if !self.arrived {
            let of = |moved: &&Moved| moved.guest == line.guest && moved.target == line.target;
            let moved = tick.results.iter().find(of)?;
            self.arrived = moved.ok;
            return (!moved.ok).then_some(End::NotArrived);
        }
        let up = |id: u32| tick.nodes.iter().find(|node| node.id == id && node.status != Status::Down);
        let guest = tick.guests.iter().find(|guest| guest.id == line.guest && guest.node == line.target);
        let (Some(source), Some(target), Some(guest)) = (up(line.source), up(line.target), guest) else {
            return Some(End::CutShort);
        };
        let moment = Moment {
            hours,
            source_cores: source.cores,
            source: on(source, &tick.guests, vcpus),
            target_cores: target.cores,
            target: on(target, &tick.guests, vcpus),
            guest: of(guest, vcpus),
        };
        line.outcome.add(&moment);
        line.strict.add(&moment.strictly());
        (line.outcome.hours > outcome::HOURS - hours / 2.0).then_some(End::Judged)
    }
}

fn of(guest: &Guest, vcpus: &impl Fn(u32) -> f64) -> Demand {
    let cores = wanted(guest);
    Demand { cores, variance: (cores * (1.0 - cores / vcpus(guest.id))).max(0.0) }
}

fn on(node: &Node, guests: &[Guest], vcpus: &impl Fn(u32) -> f64) -> Demand {
    let here = || guests.iter().filter(|guest| guest.node == node.id);
    let waited: f64 = here().map(|guest| wanted(guest) - guest.cpu).sum();
    let variance = here().map(|guest| of(guest, vcpus).variance).sum();
    Demand { cores: node.cpu * node.cores + waited, variance }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::reliability;

    fn tick(step: i64, source: f64, target: f64, place: u32, results: &str) -> Tick {
        let node = |id: u32, cpu: f64| {
            let rest =
                r#""status":"up","cores":16.0,"mem_total_mb":65536.0,"mem_mb":1024.0,"cpu_pressure":0.0"#;
            format!(r#"{{"id":{id},"cpu":{cpu},{rest}}}"#)
        };
        let guest = |id: u32, place: u32, cpu: f64| {
            format!(r#"{{"id":{id},"node":{place},"cpu":{cpu},"cpu_pressure":0.0,"migrating_to":null}}"#)
        };
        let text = format!(
            r#"{{"t":{},"nodes":[{},{}],"guests":[{},{}],"results":[{results}]}}"#,
            300 * step,
            node(0, source / 16.0),
            node(1, target / 16.0),
            guest(5, place, 4.0),
            guest(6, 0, source),
        );
        serde_json::from_str(&text).unwrap()
    }

    fn begun(path: &Path, told: f64) -> Log {
        let mut log = Log::create(path).unwrap();
        let grounds = Grounds { spared: 1.0, free: 1.0, size: 4.0, certain: false };
        let line = Line {
            t: 0,
            guest: 5,
            source: 0,
            target: 1,
            told,
            improvement: 9.0,
            profile_days: 3.0,
            grounds,
            end: End::NotArrived,
            outcome: Outcome::default(),
            strict: Outcome::default(),
        };
        log.open.push(Open { line, arrived: false });
        log
    }

    /// A move of four cores off a node that wants so much without them, and how it ends.
    fn run(told: f64, source: f64, ok: bool, leaves_at: i64) -> Line {
        let path = std::env::temp_dir().join(format!("evenkeel-log-{}-{told}", std::process::id()));
        let mut log = begun(&path, told);
        let result = format!(r#"{{"guest":5,"source":0,"target":1,"ok":{ok}}}"#);
        for step in 1..60 {
            let place = if step < leaves_at { 1 } else { 2 };
            let results = if step == 1 { result.as_str() } else { "" };
            log.step(&tick(step, source, 6.0, place, results), 1.0 / 12.0, |_| 1e6).unwrap();
        }
        let lines = reliability::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].clone()
    }

    #[test]
    fn a_move_is_judged_over_the_hours_after_it_arrived() {
        let line = run(81.0, 15.0, true, 99);
        assert_eq!((line.end, line.helped()), (End::Judged, Some(true)));
        assert!((line.outcome.hours - 4.0).abs() < 1e-9, "{line:?}");
        // Nineteen cores on sixteen without the move, for four hours.
        assert!((line.strict.spared() - 12.0).abs() < 1e-6, "{line:?}");
        let needless = run(82.0, 2.0, true, 99);
        assert_eq!((needless.end, needless.helped()), (End::Judged, Some(false)));
    }

    #[test]
    fn what_did_not_arrive_or_stayed_too_short_is_not_judged() {
        assert_eq!(run(83.0, 15.0, false, 99).helped(), None);
        let short = run(84.0, 15.0, true, 8);
        assert_eq!((short.end, short.helped()), (End::CutShort, None));
        let long_enough = run(85.0, 15.0, true, 20);
        assert_eq!((long_enough.end, long_enough.helped()), (End::CutShort, Some(true)));
    }
}
