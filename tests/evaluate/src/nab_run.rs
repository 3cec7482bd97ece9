//! `evaluate nab`: the shipped detector of one series over the Numenta Anomaly Benchmark.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use evenkeel_common::time::Timestamp;
use evenkeel_detect::series::{SeriesConfig, SeriesDetector, THRESHOLD};

use crate::nab::{Facts, File, PROFILES, load, score};

/// Options of `evaluate nab`.
#[derive(Clone, Debug, Args)]
pub struct NabArguments {
    /// Writes the scores of each row below this folder, in the benchmark's format.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Prints a line for each file.
    #[arg(long)]
    per_file: bool,
    /// Scores at this threshold instead of the shipped one.
    #[arg(long, default_value_t = THRESHOLD)]
    threshold: f64,
    /// Detector options as JSON instead of the shipped ones.
    #[arg(long)]
    config: Option<String>,
    /// Looks at one half only: files at even or at odd positions.
    #[arg(long)]
    half: Option<Half>,
}

/// Half of the files, in the order of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Half {
    /// The half on which options were chosen.
    Even,
    /// The other.
    Odd,
}

/// Runs it over all files and prints the figures.
pub fn run(root: &Path, arguments: &NabArguments) -> Result<()> {
    let files = load(root)?;
    let config = match &arguments.config {
        Some(text) => serde_json::from_str(text)?,
        None => SeriesConfig::default(),
    };
    let scores = judge_all(&files, config);
    let of = |half: usize| (0..files.len()).filter(|i| i % 2 == half).collect::<Vec<_>>();
    let all: Vec<usize> = (0..files.len()).collect();
    for (name, chosen) in [("tuned half (even)", of(0)), ("other half (odd)", of(1)), ("all files", all)] {
        let wanted = match arguments.half {
            Some(Half::Even) => name.contains("even"),
            Some(Half::Odd) => name.contains("odd"),
            None => true,
        };
        if wanted {
            print(name, &files, &scores, &chosen, arguments);
        }
    }
    arguments.out.as_deref().map_or(Ok(()), |out| write(out, &files, &scores))
}

/// Every file's scores, on as many threads as there are cores.
fn judge_all(files: &[File], config: SeriesConfig) -> Vec<Vec<f64>> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        let share = files.len().div_ceil(cores).max(1);
        let workers: Vec<_> = files
            .chunks(share)
            .map(|files| scope.spawn(move || files.iter().map(|f| judge(f, config)).collect::<Vec<_>>()))
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    })
}

/// The score of each row, made from the rows up to it.
fn judge(file: &File, config: SeriesConfig) -> Vec<f64> {
    let mut detector = SeriesDetector::new(Duration::from_secs_f64(file.step()), config);
    let rows = file.seconds.iter().zip(&file.values);
    rows.map(|(&seconds, &value)| {
        let at = Timestamp::from_millis((seconds * 1000.0) as i64);
        detector.observe(at, value).map_or(0.0, |s| s.score)
    })
    .collect()
}

fn print(name: &str, files: &[File], scores: &[Vec<f64>], chosen: &[usize], arguments: &NabArguments) {
    let files: Vec<&File> = chosen.iter().map(|&i| &files[i]).collect();
    let scores: Vec<&[f64]> = chosen.iter().map(|&i| scores[i].as_slice()).collect();
    println!("{name}: {} files", files.len());
    for profile in &PROFILES {
        let best = score(&files, &scores, profile, None);
        let shipped = score(&files, &scores, profile, Some(arguments.threshold));
        println!(
            "  {:9} {:6.2} at its best threshold {:.3}, {:6.2} at {}",
            profile.name, best.score, best.threshold, shipped.score, arguments.threshold
        );
    }
    let per_file: Vec<Facts> =
        files.iter().zip(&scores).map(|(f, s)| Facts::of(f, s, arguments.threshold)).collect();
    let facts = Facts::sum(per_file.iter().copied());
    println!(
        "  windows {}/{}, false rows {}, false-alarm episodes {} = {:.3} a series and day",
        facts.detected,
        facts.windows,
        facts.false_rows,
        facts.false_episodes,
        facts.false_episodes as f64 / facts.days
    );
    for (file, facts) in files.iter().zip(per_file).filter(|_| arguments.per_file) {
        println!(
            "    {:62} windows {}/{}  false rows {}  episodes {}",
            file.name, facts.detected, facts.windows, facts.false_rows, facts.false_episodes
        );
    }
}

fn write(out: &Path, files: &[File], scores: &[Vec<f64>]) -> Result<()> {
    for (file, scores) in files.iter().zip(scores) {
        let path = out.join(&file.name);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let mut text = String::from("value,anomaly_score\n");
        for (value, score) in file.values.iter().zip(scores) {
            writeln!(text, "{value},{score}")?;
        }
        fs::write(path, text)?;
    }
    Ok(())
}
