//! The labelled sets: unpacked once, read as tables.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The packed sets, by file.
const PACKED: [&str; 4] = ["nab-data.tar.zst", "smd-dev.tar.gz", "js-dev.tar.zst", "petshop.tar.zst"];

/// Where the sets lie unpacked.
#[derive(Clone, Debug)]
pub struct Sets {
    root: PathBuf,
}

impl Sets {
    /// Unpacks what is not unpacked yet.
    pub fn unpack(packed: &Path, root: &Path) -> Result<Self> {
        if !packed.is_dir() {
            bail!("no labelled data in {}: name their folder with --data", packed.display());
        }
        for name in PACKED {
            let (archive, mark) = (packed.join(name), root.join(format!("{name}.done")));
            if mark.exists() || !archive.exists() {
                continue;
            }
            let folder = root.join(name.split('.').next().unwrap_or(name));
            fs::create_dir_all(&folder)?;
            let status = Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&folder).status();
            if !status.with_context(|| "tar can not be started: install tar and zstd")?.success() {
                bail!("{} can not be unpacked: tar needs zstd for it", archive.display());
            }
            fs::write(mark, "")?;
        }
        Ok(Self { root: root.to_owned() })
    }

    /// The folder they lie in, one folder for each packed file.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// A table of numbers with a header.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Names of the columns of numbers, in order.
    pub columns: Vec<String>,
    /// Rows of numbers; what can not be read is NaN.
    pub rows: Vec<Vec<f64>>,
    /// The `timestamp` column in seconds from an arbitrary zero, when there is one.
    pub seconds: Vec<f64>,
    /// The `label` column, when there is one.
    pub labels: Vec<bool>,
}

impl Table {
    /// Reads a CSV file without quotes. `timestamp` and `label` are taken out of the columns.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
        let mut lines = text.lines();
        let head: Vec<&str> = lines.next().context("an empty file")?.split(',').collect();
        let columns = head.iter().filter(|&&n| n != "timestamp" && n != "label").map(|&n| n.into()).collect();
        let mut table = Self { columns, ..Self::default() };
        for line in lines.filter(|line| !line.is_empty()) {
            let mut row = Vec::with_capacity(table.columns.len());
            for (name, cell) in head.iter().zip(line.split(',')) {
                match *name {
                    "timestamp" => table.seconds.push(seconds(cell).with_context(|| cell.to_owned())?),
                    "label" => table.labels.push(cell.parse::<f64>().is_ok_and(|label| label > 0.0)),
                    _ => row.push(cell.parse().unwrap_or(f64::NAN)),
                }
            }
            table.rows.push(row);
        }
        Ok(table)
    }
}

/// Seconds from an arbitrary zero of `YYYY-MM-DD HH:MM:SS[.fff]`.
pub fn seconds(stamp: &str) -> Option<f64> {
    let (date, time) = stamp.trim().split_once([' ', 'T'])?;
    let mut date = date.split('-').map_while(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()?, date.next()?, date.next()?);
    let mut time = time.split(':').map_while(|part| part.parse::<f64>().ok());
    let (hours, minutes, seconds) = (time.next()?, time.next()?, time.next()?);
    // Days since a 1 March: leap days come last then.
    let (y, m) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1;
    Some(days as f64 * 86_400.0 + hours * 3600.0 + minutes * 60.0 + seconds)
}
