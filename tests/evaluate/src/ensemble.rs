//! How good is the fleet's ensemble, and each of its detectors alone?
//!
//! SMD (Su et al. 2019, server machines, a row a minute) and ASD (Li et al. 2021, application servers, a row in
//! five minutes), each machine a node whose columns stand for the seven metrics as [`seven`] says. A node is
//! trained on `train.csv`, and `test.csv` goes through [`EnsembleDetector::observe`] row by row, right after it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use evenkeel_common::time::Timestamp;
use evenkeel_detect::ensemble::{
    EnsembleConfig, EnsembleDetector, FleetDetector, Fusion, TrainingRow, Verdict, train,
};
use evenkeel_detect::seven::{SEVEN, SevenMetrics};

use crate::data::{Sets, Table};
use crate::operator::{Node, auc_pr, caught_within, shipped};

/// What is judged: how a score is read from the verdicts of both fusions.
const JUDGED: [&str; 6] =
    ["isolation_forest", "lstm_autoencoder", "z_score", "seasonal_esd", "vote", "calibrated"];

/// Runs the comparison and prints its table. `dump`: a folder for the scores of every row.
pub fn run(sets: &Sets, dump: Option<&Path>) -> Result<()> {
    for (set, step_s) in [("smd-dev", 60), ("asd-dev", 300)] {
        let mut scored: Vec<Vec<Node>> = vec![Vec::new(); JUDGED.len()];
        for folder in machines(sets.root(), set)? {
            let (labels, scores) = score(&folder, step_s)?;
            if let Some(dump) = dump {
                write_scores(dump, set, &folder, &labels, &scores)?;
            }
            for (of_one, scores) in scored.iter_mut().zip(scores) {
                of_one.push(Node { step_s, labels: labels.clone(), scores });
            }
        }
        println!("\n{set}, {} nodes, a row in {step_s} s", scored[0].len());
        println!(
            "| detector | AUC-PR | events caught at <= 0.1 | at <= 1 | caught as shipped | false alarms/node/day as shipped |"
        );
        println!("|---|---|---|---|---|---|");
        for (name, nodes) in JUDGED.iter().zip(&scored) {
            let auc = nodes.iter().map(auc_pr).sum::<f64>() / nodes.len().max(1) as f64;
            let [tenth, one] = [0.1, 1.0].map(|budget| caught_within(nodes, budget));
            let ship = shipped(nodes, EnsembleConfig::default().ensemble_threshold);
            println!(
                "| {name} | {auc:.3} | {} of {} | {} of {} | {} of {} | {:.2} |",
                tenth.caught,
                tenth.events,
                one.caught,
                one.events,
                ship.caught,
                ship.events,
                ship.false_per_day
            );
        }
    }
    Ok(())
}

/// Folders with a `train.csv`, in order.
fn machines(root: &Path, set: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder)?.filter_map(Result::ok).filter(|e| e.path().is_dir()) {
            open.push(entry.path());
        }
        if folder.join("train.csv").exists() && folder.parent().is_some_and(|p| p.ends_with(set)) {
            found.push(folder);
        }
    }
    found.sort();
    Ok(found)
}

/// Trains on one machine and scores its test: labels, and per row of [`JUDGED`] the scores.
fn score(folder: &Path, step_s: i64) -> Result<(Vec<bool>, Vec<Vec<f64>>)> {
    let (past, test) = (Table::read(&folder.join("train.csv"))?, Table::read(&folder.join("test.csv"))?);
    let at = |row: usize| Timestamp::from_millis(1_600_000_000_000 + row as i64 * step_s * 1000);
    let rows: Vec<TrainingRow> = (0..past.rows.len())
        .map(|i| TrainingRow { at: at(i), metrics: seven(&past, i), anomalous: false })
        .collect();
    let config = EnsembleConfig { check_interval_s: step_s as u32, ..EnsembleConfig::default() };
    let models = train(&rows, &config, at(rows.len()), &mut |_| true)
        .map_err(|error| anyhow::anyhow!("{}: {error}", folder.display()))?;
    let mut detectors = [Fusion::Vote, Fusion::Calibrated].map(|fusion| {
        let mut detector = EnsembleDetector::new(EnsembleConfig { fusion, ..config });
        models.apply(&mut detector).map(|()| detector)
    });
    let mut scores = vec![Vec::with_capacity(test.rows.len()); JUDGED.len()];
    for i in 0..test.rows.len() {
        let (now, metrics) = (at(rows.len() + i), seven(&test, i));
        let verdicts = detectors.each_mut().map(|d| d.as_mut().map(|d| d.observe(now, &metrics)));
        let [Ok(vote), Ok(calibrated)] = verdicts else { anyhow::bail!("a model was refused") };
        for detector in FleetDetector::ALL {
            scores[detector.index()].push(alone(&vote, detector));
        }
        scores[4].push(vote.score);
        scores[5].push(calibrated.score);
    }
    Ok((test.labels, scores))
}

/// The confidence of a detector on its own, whatever its threshold in the vote.
fn alone(verdict: &Verdict, detector: FleetDetector) -> f64 {
    let real = EnsembleConfig::default().real_per_day;
    verdict.votes.iter().find(|v| v.detector == detector).map_or(0.0, |v| real / (real + v.per_day))
}

/// The seven metrics of a row. SMD's columns are named (all normalised to 0..1, so that only their course means
/// something, and the units are made up); ASD's are not, and seven of its nineteen are taken evenly.
fn seven(table: &Table, row: usize) -> SevenMetrics {
    let values = &table.rows[row];
    let column = |name: &str| {
        let at = table.columns.iter().position(|column| column == name);
        at.and_then(|at| values.get(at)).copied().unwrap_or(f64::NAN)
    };
    if table.columns.iter().any(|name| name == "cpu_r") {
        return SevenMetrics([
            500.0 * (column("eth1_fi") + column("eth1_fo")),
            20.0 * column("disk_svc"),
            100.0 * column("tcp_timeouts"),
            20.0 * column("load_1"),
            100.0 * column("cpu_r"),
            100.0 * column("mem_u"),
            50.0 * (column("retransegs") + column("in_errs")),
        ]);
    }
    let scales = [1000.0, 20.0, 100.0, 20.0, 100.0, 100.0, 100.0];
    let mut seven = [f64::NAN; SEVEN];
    for (i, (value, scale)) in seven.iter_mut().zip(scales).enumerate() {
        *value = values.get(i * 3).map_or(f64::NAN, |v| v * scale);
    }
    SevenMetrics(seven)
}

fn write_scores(dump: &Path, set: &str, folder: &Path, labels: &[bool], scores: &[Vec<f64>]) -> Result<()> {
    fs::create_dir_all(dump)?;
    let name = folder.file_name().and_then(|n| n.to_str()).context("a folder without a name")?;
    let mut file = std::io::BufWriter::new(fs::File::create(dump.join(format!("{set}-{name}.csv")))?);
    writeln!(file, "label,{}", JUDGED.join(","))?;
    for (i, label) in labels.iter().enumerate() {
        let row: Vec<String> = scores.iter().map(|of_one| format!("{:e}", of_one[i])).collect();
        writeln!(file, "{},{}", u8::from(*label), row.join(","))?;
    }
    Ok(())
}
