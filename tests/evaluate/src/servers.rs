//! The node detector on labelled servers: SMD, ASD and both Jumpstarter sets.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use evenkeel_common::time::Timestamp;
use evenkeel_detect::node::{ANOMALY_SCORE, NodeConfig, NodeDetector, NodeScore};

use crate::data::{Sets, Table};
use crate::ops::Operation;
use crate::vus::{auc_pr, vus_pr};

/// The sets: name, folder, seconds of a step.
pub const SETS: [(&str, &str, u64); 4] =
    [("smd", "smd-dev", 60), ("asd", "asd-dev", 300), ("js2", "js2-dev", 300), ("js3", "js3-dev", 300)];
/// False alarms per node and day.
const BUDGET: f64 = 0.1;

/// What is measured over some entities.
#[derive(Clone, Debug, Default)]
struct Figures {
    vus: Vec<f64>,
    auc: Vec<f64>,
    shipped: Operation,
    hindsight: Operation,
    hits: Vec<(f64, f64)>,
}

impl Figures {
    fn print(&self, name: &str) {
        let (p50, p90) = self.shipped.delay();
        let hits = |of: fn(&(f64, f64)) -> f64| mean(&self.hits.iter().map(of).collect::<Vec<_>>());
        print!(
            "{name:10} {:2} entities  VUS-PR {:.3}  AUC-PR {:.3}  caught {:3}/{:3} = {:.2} at {:.3} false alarms a day  \
             delay {p50:.0}/{p90:.0} s  hindsight {:.2}",
            self.vus.len(),
            mean(&self.vus),
            mean(&self.auc),
            self.shipped.caught,
            self.shipped.events,
            self.shipped.recall(),
            self.shipped.alarms as f64 / self.shipped.days,
            self.hindsight.recall(),
        );
        if !self.hits.is_empty() {
            print!("  hit rate @100 {:.2} @150 {:.2}", hits(|h| h.0), hits(|h| h.1));
        }
        println!();
    }

    fn add(&mut self, other: Self) {
        self.vus.extend(other.vus);
        self.auc.extend(other.auc);
        self.hits.extend(other.hits);
        self.shipped.add(other.shipped);
        self.hindsight.add(other.hindsight);
    }
}

/// Prints the figures of each set, for all its entities and for either half; then the mean over the sets.
pub fn servers(sets: &Sets, only: Option<&str>, out: Option<&Path>, each: bool) -> Result<()> {
    let (mut overall, mut shipped) = (Vec::new(), Operation::default());
    for (set, folder, step) in SETS.into_iter().filter(|(set, ..)| only.is_none_or(|only| only == *set)) {
        let mut halves = [Figures::default(), Figures::default()];
        for (position, entity) in entities(sets, folder)?.iter().enumerate() {
            let figures = measure(set, entity, step, out)?;
            if each {
                figures.print(&format!("  {}", name(entity)));
            }
            halves[position % 2].add(figures);
        }
        let [even, odd] = halves;
        even.print(&format!("{set} even"));
        odd.print(&format!("{set} odd"));
        let mut all = even;
        all.add(odd);
        all.print(set);
        overall.push(mean(&all.vus));
        shipped.add(all.shipped);
    }
    println!("mean VUS-PR over the sets {:.3}", mean(&overall));
    println!(
        "all sets: caught {}/{}, {:.3} false alarms a day in {:.0} labelled node days",
        shipped.caught,
        shipped.events,
        shipped.alarms as f64 / shipped.days,
        shipped.days
    );
    Ok(())
}

fn measure(set: &str, entity: &Path, step: u64, out: Option<&Path>) -> Result<Figures> {
    let (train, test) = (Table::read(&entity.join("train.csv"))?, Table::read(&entity.join("test.csv"))?);
    let step = Duration::from_secs(step);
    let mut detector = NodeDetector::new(test.columns.len(), step, NodeConfig::default());
    let mut clock = (0..).map(|row: i64| Timestamp::from_millis(row * step.as_millis() as i64));
    for (row, at) in train.rows.iter().zip(&mut clock) {
        detector.train(at, row);
    }
    let verdicts: Vec<Option<NodeScore>> =
        test.rows.iter().zip(&mut clock).map(|(row, at)| detector.observe(at, row)).collect();
    let scores: Vec<f64> = verdicts.iter().map(|v| v.as_ref().map_or(0.0, |v| v.score)).collect();
    if let Some(out) = out {
        let folder = out.join(set);
        fs::create_dir_all(&folder)?;
        let rows = test.labels.iter().zip(&scores).map(|(l, s)| format!("{},{s}\n", u8::from(*l)));
        let text = std::iter::once("label,score\n".to_owned()).chain(rows).collect::<String>();
        fs::write(folder.join(format!("{}.csv", name(entity))), text)?;
    }
    let step_s = step.as_secs_f64();
    let causes = if set == "smd" { causes(&entity.join("cause.txt"))? } else { Vec::new() };
    Ok(Figures {
        vus: vec![vus_pr(&test.labels, &scores)],
        auc: vec![auc_pr(&test.labels, &scores)],
        shipped: Operation::at(&test.labels, &scores, step_s, ANOMALY_SCORE),
        hindsight: Operation::in_hindsight(&test.labels, &scores, step_s, BUDGET),
        hits: causes.iter().filter_map(|cause| hit_rate(cause, &verdicts)).collect(),
    })
}

/// An event's first and last row, and the channels to blame, from 0.
struct Cause {
    first: usize,
    last: usize,
    channels: Vec<usize>,
}

/// Reads `first-last:channels`. Rows count from 0 and the last one is the first after the event (so it is where
/// the labels end); channels count from 1.
fn causes(path: &Path) -> Result<Vec<Cause>> {
    let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    let parse = |line: &str| {
        let (rows, channels) = line.split_once(':')?;
        let (first, last) = rows.split_once('-')?;
        let channels =
            channels.split(',').filter_map(|c| c.trim().parse::<usize>().ok()?.checked_sub(1)).collect();
        Some(Cause {
            first: first.parse().ok()?,
            last: last.parse::<usize>().ok()?.checked_sub(1)?,
            channels,
        })
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| parse(line).with_context(|| line.to_owned())).collect()
}

/// Share of the true channels among the first as many, and among the first one and a half times as many (Su et
/// al., OmniAnomaly, 2019). Channels are ranked by their deviations summed over the event's detected rows.
/// None when the event was not detected.
fn hit_rate(cause: &Cause, verdicts: &[Option<NodeScore>]) -> Option<(f64, f64)> {
    let rows = verdicts.get(cause.first..=cause.last.max(cause.first))?;
    let mut blame: Vec<(usize, f64)> = Vec::new();
    for verdict in rows.iter().flatten().filter(|verdict| verdict.is_anomaly) {
        for &(channel, z) in &verdict.causes {
            if blame.len() <= channel {
                blame.extend((blame.len()..=channel).map(|channel| (channel, 0.0)));
            }
            blame[channel].1 += z.abs();
        }
    }
    if blame.is_empty() || cause.channels.is_empty() {
        return None;
    }
    blame.sort_by(|a, b| b.1.total_cmp(&a.1));
    let truth = cause.channels.len();
    let share = |first: usize| {
        let found = blame.iter().take(first).filter(|(channel, _)| cause.channels.contains(channel)).count();
        found as f64 / truth as f64
    };
    Some((share(truth), share(truth * 3 / 2)))
}

/// The entities' folders, sorted by name. A packed file may hold several sets.
pub fn entities(sets: &Sets, folder: &str) -> Result<Vec<PathBuf>> {
    let root = sets.root();
    let mut places: Vec<PathBuf> = subfolders(root)?.into_iter().map(|place| place.join(folder)).collect();
    places.push(root.join(folder));
    let place = places.into_iter().find(|place| place.is_dir());
    let place = place.with_context(|| format!("no {folder} in {}", root.display()))?;
    let mut entities = subfolders(&place)?;
    entities.retain(|entity| entity.join("test.csv").exists());
    Ok(entities)
}

fn subfolders(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(path).with_context(|| format!("{}", path.display()))?;
    let mut folders: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    Ok(folders)
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Average; NaN of none.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
