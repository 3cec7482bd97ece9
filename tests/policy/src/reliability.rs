//! How often what was told came true: moves by their confidence, and how far off it is.

use std::fmt::{self, Display};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::log::{End, Line};

/// Moves whose confidence was in one tenth of the scale.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bin {
    moves: u32,
    told: f64,
    helped: u32,
    strictly: u32,
}

/// What came of the moves of some logs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reliability {
    bins: [Bin; 10],
    all: Bin,
    /// Sum of the squared differences of what was told and what came.
    squares: f64,
    /// Moves whose gain comes with the guest's arrival.
    certain: Bin,
    not_arrived: u32,
    not_judged: u32,
}

/// The moves of a log.
pub fn read(path: &Path) -> Result<Vec<Line>> {
    let file = File::open(path).with_context(|| format!("can not read {}", path.display()))?;
    let mut lines = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let told = || format!("{}, line {}: no move of a log", path.display(), number + 1);
        let line: Line = serde_json::from_str(&line?).with_context(told)?;
        ensure!((0.0..=100.0).contains(&line.told), "{}: {} is no confidence", told(), line.told);
        lines.push(line);
    }
    Ok(lines)
}

/// Of all moves of these logs.
pub fn of(paths: &[PathBuf]) -> Result<Reliability> {
    let mut reliability = Reliability::default();
    for path in paths {
        read(path)?.iter().for_each(|line| reliability.add(line));
    }
    Ok(reliability)
}

impl Bin {
    fn add(&mut self, line: &Line, helped: bool) {
        self.moves += 1;
        self.told += line.told;
        self.helped += u32::from(helped);
        self.strictly += u32::from(line.strict.helped());
    }

    /// A part of the moves, in percent.
    fn percent(&self, part: f64) -> f64 {
        part / f64::from(self.moves.max(1))
    }

    /// Mean confidence, and the share that helped.
    fn told_and_helped(&self) -> (f64, f64) {
        (self.percent(self.told), self.percent(100.0 * f64::from(self.helped)))
    }
}

impl Reliability {
    fn add(&mut self, line: &Line) {
        self.not_arrived += u32::from(line.end == End::NotArrived);
        match line.helped() {
            Some(helped) if line.grounds.certain => self.certain.add(line, helped),
            Some(helped) => {
                self.bins[(line.told / 10.0).min(9.0) as usize].add(line, helped);
                self.all.add(line, helped);
                self.squares += (line.told / 100.0 - f64::from(u8::from(helped))).powi(2);
            }
            None => self.not_judged += 1,
        }
    }

    /// Mean squared difference of what was told and what came (Brier 1950), 0 to 1.
    fn brier(&self) -> f64 {
        self.all.percent(self.squares)
    }

    /// The same if every move had been told the share of all that helped: what has to be beaten.
    fn brier_of_the_mean(&self) -> f64 {
        let share = self.all.percent(f64::from(self.all.helped));
        share * (1.0 - share)
    }

    /// Mean difference of the told and the realised share over the bins, by their moves (Naeini et al. 2015), in percent.
    fn calibration_error(&self) -> f64 {
        let off = |bin: &Bin| {
            let (told, helped) = bin.told_and_helped();
            f64::from(bin.moves) * (told - helped).abs()
        };
        self.all.percent(self.bins.iter().map(off).sum())
    }
}

impl Display for Reliability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| told | moves | mean told | helped | strictly |\n|---|---|---|---|---|")?;
        let row = |name: &str, bin: &Bin, f: &mut fmt::Formatter<'_>| {
            let (told, helped) = bin.told_and_helped();
            let strictly = bin.percent(100.0 * f64::from(bin.strictly));
            writeln!(f, "| {name} | {} | {told:.1} | {helped:.1} % | {strictly:.1} % |", bin.moves)
        };
        for (tenth, bin) in self.bins.iter().enumerate().filter(|(_, bin)| bin.moves > 0) {
            row(&format!("{} to {}", 10 * tenth, 10 * tenth + 10), bin, f)?;
        }
        row("all", &self.all, f)?;
        let (told, arrived) = self.certain.told_and_helped();
        writeln!(
            f,
            "\nBrier score {:.4} ({:.4} with the mean for all), expected calibration error {:.1} points",
            self.brier(),
            self.brier_of_the_mean(),
            self.calibration_error()
        )?;
        writeln!(
            f,
            "Certain on arrival: {} moves, told {told:.1}, arrived {arrived:.1} %",
            self.certain.moves
        )?;
        write!(f, "Did not arrive: {}; not judged: {}", self.not_arrived, self.not_judged)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use evenkeel_core::confidence::Grounds;
    use evenkeel_core::outcome::Outcome;

    fn line(told: f64, certain: bool, end: End, spared: f64) -> Line {
        let outcome = Outcome { hours: 4.0, waited: 1.0, would_have: 1.0 + spared };
        let grounds = Grounds { spared: 1.0, free: 0.0, size: 1.0, certain };
        Line {
            t: 0,
            guest: 0,
            source: 0,
            target: 1,
            told,
            improvement: 1.0,
            profile_days: 0.0,
            grounds,
            end,
            outcome,
            strict: Outcome::default(),
        }
    }

    #[test]
    fn a_tiny_log_as_by_hand() {
        let mut found = Reliability::default();
        for line in [
            line(80.0, false, End::Judged, 1.0),
            line(84.0, false, End::Judged, 1.0),
            line(88.0, false, End::CutShort, 0.0),
            line(40.0, false, End::Judged, -2.0),
            line(99.0, true, End::Judged, 0.0),
            line(90.0, false, End::NotArrived, 0.0),
        ] {
            found.add(&line);
        }
        let told = found.to_string();
        for row in [
            "| 40 to 50 | 1 | 40.0 | 0.0 % | 0.0 % |",
            "| 80 to 90 | 3 | 84.0 | 66.7 % | 0.0 % |",
            "| all | 4 | 73.0 | 50.0 % | 0.0 % |",
            // (.04 + .0256 + .7744 + .16) / 4, and (3 x 17.3 + 40) / 4.
            "Brier score 0.2500 (0.2500 with the mean for all), expected calibration error 23.0 points",
            "Certain on arrival: 1 moves, told 99.0, arrived 100.0 %",
            "Did not arrive: 1; not judged: 1",
        ] {
            assert!(told.contains(row), "{row}\n{told}");
        }
    }

    #[test]
    fn a_file_that_is_no_log_is_told_with_its_line() {
        let path = std::env::temp_dir().join(format!("evenkeel-no-log-{}", std::process::id()));
        let good = serde_json::to_string(&line(50.0, false, End::Judged, 1.0)).unwrap();
        for (second, told) in [("{}", "line 2"), (&*good.replace("50.0", "500.0"), "no confidence")] {
            std::fs::write(&path, format!("{good}\n{second}\n")).unwrap();
            let error = format!("{:#}", read(&path).unwrap_err());
            assert!(error.contains(told), "{second}: {error}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
