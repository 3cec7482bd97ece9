//! Seasonal ESD alone, as it runs on roll-ups: once a day over all that is known, on the single series of the
//! Numenta benchmark (Lavin and Ahmad 2015).
//!
//! A run judges the whole past, with at most ten outliers; those within its last day count as alarms of that day.
//! So every alarm is made from values up to the end of its day.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};
use evenkeel_detect::seasonal_esd::{SeasonalEsdConfig, seasonal_hybrid_esd};

use crate::data::{Sets, Table, seconds};

/// What was found in one folder of series.
#[derive(Default)]
struct Found {
    series: usize,
    windows: usize,
    caught: usize,
    false_days: usize,
    days: usize,
}

/// Prints a row per folder of the benchmark.
pub fn run(sets: &Sets) -> Result<()> {
    let root = sets.root().join("nab-data");
    let labels = fs::read_to_string(root.join("labels/combined_windows.json"))?;
    let labels: BTreeMap<String, Vec<[String; 2]>> = serde_json::from_str(&labels)?;
    let mut folders: BTreeMap<&str, Found> = BTreeMap::new();
    for (name, windows) in &labels {
        let table = Table::read(&root.join("data").join(name))?;
        let windows: Option<Vec<(f64, f64)>> =
            windows.iter().map(|[from, to]| Some((seconds(from)?, seconds(to)?))).collect();
        let folder = name.split('/').next().unwrap_or(name);
        judge(&table, &windows.context("a label without a time")?, folders.entry(folder).or_default());
    }
    println!("| series | number | windows caught | days with a false alarm, share |");
    println!("|---|---|---|---|");
    for (name, found) in folders {
        let share = found.false_days as f64 / found.days.max(1) as f64;
        println!("| {name} | {} | {} of {} | {share:.3} |", found.series, found.caught, found.windows);
    }
    Ok(())
}

fn judge(table: &Table, windows: &[(f64, f64)], found: &mut Found) {
    let values: Vec<f64> = table.rows.iter().filter_map(|row| row.first().copied()).collect();
    let mut gaps: Vec<f64> = table.seconds.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_by(f64::total_cmp);
    let step = gaps.get(gaps.len() / 2).copied().unwrap_or(300.0).clamp(60.0, 7200.0);
    let period = (86_400.0 / step).round() as usize;
    let mut sizes: Vec<f64> = values.iter().map(|v| v.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    // As in the fleet, where every metric has its floor: two percent of the usual level.
    let floor = 0.02 * sizes.get(sizes.len() / 2).copied().unwrap_or(0.0);
    let mut caught = vec![false; windows.len()];
    for end in (period..=values.len()).step_by(period) {
        let Some(esd) = seasonal_hybrid_esd(&values[..end], period, &SeasonalEsdConfig::default(), floor)
        else {
            continue;
        };
        let mut wrong = false;
        for at in esd.outliers.iter().filter(|&&at| at + period >= end).map(|&at| table.seconds[at]) {
            match windows.iter().position(|(from, to)| (*from..=*to).contains(&at)) {
                Some(window) => caught[window] = true,
                None => wrong = true,
            }
        }
        found.days += 1;
        found.false_days += usize::from(wrong);
    }
    found.series += 1;
    found.windows += windows.len();
    found.caught += caught.iter().filter(|caught| **caught).count();
}
