//! False alarms of the node detector where nothing is wrong, and how many of them an agent tells: not those of habit.

use std::time::Duration;

use anyhow::Result;
use evenkeel_common::time::Timestamp;
use evenkeel_detect::habit::Habits;
use evenkeel_detect::node::{NodeConfig, NodeDetector};

use crate::data::{Sets, Table};
use crate::servers::{SETS, entities};
use crate::synthetic::{Node, STEP_S};

/// Made-up nodes.
const NODES: u64 = 20;
/// Steps of a week.
const WEEK: usize = 7 * 86_400 / STEP_S as usize;

/// Seconds that part two alarms: less, and an admin takes them for one.
const GAP_S: u64 = 600;

/// Alarms, those told, and the days they came in.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    alarms: usize,
    told: usize,
    days: f64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.alarms += other.alarms;
        self.told += other.told;
        self.days += other.days;
    }

    fn print(&self, name: &str) {
        let Self { alarms, told, days } = *self;
        let a_day = |count: usize| count as f64 / days;
        println!(
            "{name:18} {alarms:4} alarms in {days:6.0} node days = {:.3} a day; told {told:4} = {:.3}",
            a_day(alarms),
            a_day(told)
        );
    }
}

/// Prints the alarms per node and day: on the second half of each entity's training rows after the first half,
/// and on a made-up fleet, in the week after a week of training and in a first week without any.
pub fn clean(sets: &Sets) -> Result<()> {
    let mut all = Count::default();
    for (set, folder, step) in SETS {
        for half in [0, 1] {
            let mut count = Count::default();
            for entity in entities(sets, folder)?.iter().skip(half).step_by(2) {
                let table = Table::read(&entity.join("train.csv"))?;
                let (train, test) = table.rows.split_at(table.rows.len() / 2);
                count.add(alarms_in(train, test, step));
            }
            count.print(&format!("{set} {}", ["even", "odd"][half]));
            all.add(count);
        }
    }
    all.print("all servers");
    for (name, trained) in [("made up, trained", WEEK), ("made up, cold", 0)] {
        let mut count = Count::default();
        for seed in 1..=NODES {
            let mut node = Node::new(seed);
            let rows: Vec<Vec<f64>> = (0..trained + WEEK).map(|_| node.next()).collect();
            let (train, test) = rows.split_at(trained);
            count.add(alarms_in(train, test, STEP_S));
        }
        count.print(name);
    }
    Ok(())
}

/// Alarms in the rows after training.
fn alarms_in(train: &[Vec<f64>], test: &[Vec<f64>], step: u64) -> Count {
    let channels = test.first().map_or(0, Vec::len);
    let mut detector = NodeDetector::new(channels, Duration::from_secs(step), NodeConfig::default());
    let mut clock = (0..).map(|row: i64| Timestamp::from_millis(row * step as i64 * 1000));
    for (row, at) in train.iter().zip(&mut clock) {
        detector.train(at, row);
    }
    let mut habits = Habits::default();
    let mut count = Count { days: test.len() as f64 * step as f64 / 86_400.0, ..Count::default() };
    let (gap, mut quiet) = (GAP_S.div_ceil(step), u64::MAX);
    for (row, at) in test.iter().zip(&mut clock) {
        quiet = quiet.saturating_add(1);
        let Some(verdict) = detector.observe(at, row).filter(|verdict| verdict.is_anomaly) else { continue };
        if quiet > gap {
            count.alarms += 1;
            let causes = verdict.causes.iter().map(|&(channel, _)| channel);
            count.told += usize::from(!habits.is_habit(at, causes));
        }
        quiet = 0;
    }
    count
}
