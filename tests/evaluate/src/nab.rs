//! The Numenta Anomaly Benchmark: its files, its windows and its scoring rule (Lavin and Ahmad 2015).
//!
//! The first 15 % of a file (at most 750 rows) do not count. A labelled window earns the best detection inside
//! it, the first row most; every detected row outside costs a share that grows with its distance from the last
//! window's end. The score is 100 for every window detected on its first row without a false row, and 0 for
//! silence. One threshold holds for all files.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::data::{Table, seconds};

/// What a hit, a miss and a false row are worth.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// As the benchmark calls it.
    pub name: &'static str,
    hit: f64,
    miss: f64,
    false_row: f64,
}

/// The benchmark's three profiles: standard, low false positives, low false negatives.
pub const PROFILES: [Profile; 3] = [
    Profile { name: "standard", hit: 1.0, miss: 1.0, false_row: 0.11 },
    Profile { name: "low-FP", hit: 1.0, miss: 1.0, false_row: 0.22 },
    Profile { name: "low-FN", hit: 1.0, miss: 2.0, false_row: 0.11 },
];

/// One file: its rows, and what a detection on each of them is worth.
#[derive(Clone, Debug)]
pub struct File {
    /// Path below `data/`.
    pub name: String,
    /// Seconds of each row from an arbitrary zero.
    pub seconds: Vec<f64>,
    /// Value of each row.
    pub values: Vec<f64>,
    /// Rows that do not count.
    pub skip: usize,
    /// First and last row of each window.
    pub windows: Vec<(usize, usize)>,
    /// Window of each row.
    inside: Vec<Option<usize>>,
    /// Share of a hit inside a window, of a false row (negative) outside.
    worth: Vec<f64>,
}

/// The sigmoid of the rule: 1 far before, 0 at the end of a window, -1 from three widths after it.
fn sigmoid(position: f64) -> f64 {
    if position > 3.0 { -1.0 } else { 2.0 / (1.0 + (5.0 * position).exp()) - 1.0 }
}

impl File {
    /// A file from its rows and its windows (first and last row).
    pub fn new(name: &str, seconds: Vec<f64>, values: Vec<f64>, windows: Vec<(usize, usize)>) -> Self {
        let rows = values.len();
        let (mut inside, mut worth) = (vec![None; rows], vec![-1.0; rows]);
        for (i, &(first, last)) in windows.iter().enumerate() {
            let width = (last - first + 1) as f64;
            for row in first..=last.min(rows - 1) {
                inside[row] = Some(i);
                worth[row] = sigmoid(-((last - row + 1) as f64) / width) / sigmoid(-1.0);
            }
            let next = windows.get(i + 1).map_or(rows, |w| w.0);
            for (past, worth) in worth.iter_mut().take(next).skip(last + 1).enumerate() {
                *worth = sigmoid((past + 1) as f64 / (width - 1.0));
            }
        }
        let skip = (0.15 * rows as f64).floor().min(750.0) as usize;
        Self { name: name.to_owned(), seconds, values, skip, windows, inside, worth }
    }

    /// Median difference of two rows, in seconds.
    pub fn step(&self) -> f64 {
        let mut steps: Vec<f64> = self.seconds.windows(2).map(|w| w[1] - w[0]).collect();
        steps.sort_by(f64::total_cmp);
        steps.get(steps.len() / 2).copied().unwrap_or(300.0).max(1.0)
    }

    /// Length of the part that counts, in days.
    pub fn days(&self) -> f64 {
        let rows = self.values.len();
        let span = self.seconds.last().unwrap_or(&0.0) - self.seconds.first().unwrap_or(&0.0);
        span / rows.saturating_sub(1).max(1) as f64 * (rows - self.skip) as f64 / 86_400.0
    }
}

/// Reads all files of the benchmark, in the order of their names.
pub fn load(root: &Path) -> Result<Vec<File>> {
    let labels = root.join("labels/combined_windows.json");
    let text = fs::read_to_string(&labels).with_context(|| format!("{}", labels.display()))?;
    let windows: BTreeMap<String, Vec<(String, String)>> = serde_json::from_str(&text)?;
    windows.iter().map(|(name, windows)| read(root, name, windows)).collect()
}

fn read(root: &Path, name: &str, windows: &[(String, String)]) -> Result<File> {
    let table = Table::read(&root.join("data").join(name))?;
    let values = table.rows.iter().map(|row| row.first().copied().unwrap_or(f64::NAN)).collect();
    let row_of = |stamp: &str| {
        let at = seconds(stamp)?;
        table.seconds.iter().position(|&s| (s - at).abs() < 1e-3)
    };
    let windows = windows
        .iter()
        .map(|(from, to)| Some((row_of(from)?, row_of(to)?)))
        .collect::<Option<_>>()
        .with_context(|| format!("{name}: a window begins or ends between two rows"))?;
    Ok(File::new(name, table.seconds, values, windows))
}

/// A score, and the threshold it was reached at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// 0 for silence, 100 for perfection.
    pub score: f64,
    /// Rows with at least this score count as detected.
    pub threshold: f64,
}

/// The score at `threshold`, or at the best one for `profile`.
pub fn score(files: &[&File], scores: &[&[f64]], profile: &Profile, threshold: Option<f64>) -> Scored {
    let windows: usize = files.iter().map(|f| f.windows.len()).sum();
    let mut rows: Vec<(f64, usize, usize)> = Vec::new();
    for (i, (file, scores)) in files.iter().zip(scores).enumerate() {
        rows.extend((file.skip..file.values.len()).map(|row| (scores[row], i, row)));
    }
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let null = -profile.miss * windows as f64;
    let (mut total, mut best) = (null, (null, f64::INFINITY));
    let mut earned: HashMap<(usize, usize), f64> = HashMap::new();
    for (at, &(value, i, row)) in rows.iter().enumerate() {
        if threshold.is_some_and(|t| value < t) {
            break;
        }
        let worth = files[i].worth[row];
        if let Some(window) = files[i].inside[row] {
            let earned = earned.entry((i, window)).or_insert(-profile.miss);
            let gain = (worth * profile.hit - *earned).max(0.0);
            *earned += gain;
            total += gain;
        } else {
            total += worth * profile.false_row;
        }
        // Rows of equal score are detected together.
        let last_of_its_score = rows.get(at + 1).is_none_or(|next| next.0 < value);
        if last_of_its_score && (threshold.is_some() || total > best.0) {
            best = (total, value);
        }
    }
    let (raw, at) = (best.0, threshold.unwrap_or(best.1));
    Scored { score: 100.0 * (raw - null) / (profile.hit * windows as f64 - null), threshold: at }
}

/// What an operator would have seen at a threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Facts {
    /// Labelled windows.
    pub windows: usize,
    /// Windows with a detection inside.
    pub detected: usize,
    /// Detected rows outside of windows.
    pub false_rows: usize,
    /// Unbroken runs of them.
    pub false_episodes: usize,
    /// Days that count.
    pub days: f64,
}

impl Facts {
    /// Of one file.
    pub fn of(file: &File, scores: &[f64], threshold: f64) -> Self {
        let on = |row: usize| row >= file.skip && scores[row] >= threshold;
        let wrong = |row: usize| on(row) && file.inside[row].is_none();
        let rows = 0..file.values.len();
        Self {
            windows: file.windows.len(),
            detected: file.windows.iter().filter(|&&(first, last)| (first..=last).any(on)).count(),
            false_rows: rows.clone().filter(|&row| wrong(row)).count(),
            false_episodes: rows.filter(|&row| wrong(row) && (row == 0 || !wrong(row - 1))).count(),
            days: file.days(),
        }
    }

    /// Of several files.
    pub fn sum(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().fold(Self::default(), |a, b| Self {
            windows: a.windows + b.windows,
            detected: a.detected + b.detected,
            false_rows: a.false_rows + b.false_rows,
            false_episodes: a.false_episodes + b.false_episodes,
            days: a.days + b.days,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two files with scores from a formula; the figures are the reference scorer's for the same rows.
    fn example() -> (Vec<File>, Vec<Vec<f64>>) {
        let file = |name: &str, rows: usize, windows: Vec<(usize, usize)>| {
            let seconds = (0..rows).map(|i| i as f64 * 300.0).collect();
            File::new(name, seconds, vec![0.0; rows], windows)
        };
        let files = vec![
            file("a/one.csv", 1000, vec![(300, 399), (700, 759)]),
            file("a/two.csv", 600, vec![(200, 239)]),
        ];
        let scores = files
            .iter()
            .enumerate()
            .map(|(f, file)| {
                (0..file.values.len()).map(|i| ((i * 7919 + f * 31) % 997) as f64 / 996.0).collect()
            })
            .collect();
        (files, scores)
    }

    #[test]
    fn agrees_with_the_reference_scorer() {
        let (files, scores) = example();
        let files: Vec<&File> = files.iter().collect();
        let scores: Vec<&[f64]> = scores.iter().map(Vec::as_slice).collect();
        for (profile, expected) in PROFILES.iter().zip(REFERENCE_BEST) {
            let told = score(&files, &scores, profile, None);
            assert!((told.score - expected).abs() < 1e-6, "{} {told:?}", profile.name);
        }
        for (profile, expected) in PROFILES.iter().zip(REFERENCE_AT) {
            let told = score(&files, &scores, profile, Some(0.99));
            assert!((told.score - expected).abs() < 1e-6, "{} {told:?}", profile.name);
        }
    }

    #[test]
    fn silence_is_zero_and_perfection_a_hundred() {
        let (files, _) = example();
        let perfect: Vec<Vec<f64>> = files
            .iter()
            .map(|f| {
                (0..f.values.len()).map(|i| f64::from(u8::from(f.windows.iter().any(|w| w.0 == i)))).collect()
            })
            .collect();
        let files: Vec<&File> = files.iter().collect();
        let perfect: Vec<&[f64]> = perfect.iter().map(Vec::as_slice).collect();
        for profile in &PROFILES {
            assert!((score(&files, &perfect, profile, Some(1.0)).score - 100.0).abs() < 1e-9);
            assert_eq!(score(&files, &perfect, profile, Some(2.0)).score, 0.0);
        }
    }

    const REFERENCE_BEST: [f64; 3] = [49.335_861_113_285_5, 16.807_430_480_307, 66.223_907_408_857];
    const REFERENCE_AT: [f64; 3] = [36.810_587_403_130_4, 13.140_763_813_640_3, 46.762_613_824_309_1];
}
