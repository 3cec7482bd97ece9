//! False alarms of the node detector where nothing is wrong.

use std::time::Duration;

use anyhow::Result;
use evenkeel_common::time::Timestamp;
use evenkeel_detect::node::{NodeConfig, NodeDetector};

use crate::data::{Sets, Table};
use crate::ops::episodes;
use crate::servers::{SETS, entities};
use crate::synthetic::{Node, STEP_S};

/// Made-up nodes.
const NODES: u64 = 20;
/// Steps of a week.
const WEEK: usize = 7 * 86_400 / STEP_S as usize;

/// Prints the alarms per node and day: on the second half of each entity's training rows after the first half,
/// and on a made-up fleet, in the week after a week of training and in a first week without any.
pub fn clean(sets: &Sets) -> Result<()> {
    let (mut alarms, mut days) = (0, 0.0);
    for (set, folder, step) in SETS {
        for half in [0, 1] {
            let mut count = (0, 0.0);
            for entity in entities(sets, folder)?.iter().skip(half).step_by(2) {
                let table = Table::read(&entity.join("train.csv"))?;
                let (train, test) = table.rows.split_at(table.rows.len() / 2);
                let here = alarms_in(train, test, step);
                count = (count.0 + here.0, count.1 + here.1);
            }
            print(&format!("{set} {}", ["even", "odd"][half]), count);
            (alarms, days) = (alarms + count.0, days + count.1);
        }
    }
    print("all servers", (alarms, days));
    for (name, trained) in [("made up, trained", WEEK), ("made up, cold", 0)] {
        let (mut alarms, mut days) = (0, 0.0);
        for seed in 1..=NODES {
            let mut node = Node::new(seed);
            let rows: Vec<Vec<f64>> = (0..trained + WEEK).map(|_| node.next()).collect();
            let (train, test) = rows.split_at(trained);
            let here = alarms_in(train, test, STEP_S);
            (alarms, days) = (alarms + here.0, days + here.1);
        }
        print(name, (alarms, days));
    }
    Ok(())
}

fn print(name: &str, (alarms, days): (usize, f64)) {
    println!("{name:18} {alarms:4} false alarms in {days:6.0} node days = {:.3} a day", alarms as f64 / days);
}

/// Alarms in the rows after training, and their days.
fn alarms_in(train: &[Vec<f64>], test: &[Vec<f64>], step: u64) -> (usize, f64) {
    let channels = test.first().map_or(0, Vec::len);
    let mut detector = NodeDetector::new(channels, Duration::from_secs(step), NodeConfig::default());
    let mut clock = (0..).map(|row: i64| Timestamp::from_millis(row * step as i64 * 1000));
    for (row, at) in train.iter().zip(&mut clock) {
        detector.train(at, row);
    }
    let flagged: Vec<usize> = test
        .iter()
        .zip(&mut clock)
        .enumerate()
        .filter(|(_, (row, at))| detector.observe(*at, row).is_some_and(|verdict| verdict.is_anomaly))
        .map(|(row, _)| row)
        .collect();
    (episodes(&flagged, step as f64), test.len() as f64 * step as f64 / 86_400.0)
}
