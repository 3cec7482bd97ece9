//! `detect`: scores a CSV file with the shipped detector. Streams: memory does not grow with the rows.

mod input;
mod stamp;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::Path;
use std::time::Duration;

use evenkeel_common::time::Timestamp;
use evenkeel_detect::table::{RowScore, TableDetector};
use serde::Serialize;

use self::input::{Form, Input, Row};
use crate::args::DetectArgs;
use crate::error::CliError;
use crate::render::{counted, note};
use crate::whole_file::{self, WholeFile};

/// Columns added.
const ADDED: [&str; 3] = ["anomaly_score", "is_anomaly", "causes"];
/// Most causes told for a row.
const MOST_CAUSES: usize = 64;
/// Most anomalies listed in the summary; the file has them all.
const MOST_LISTED: usize = 1000;
/// Progress is shown every so many rows.
const PROGRESS_ROWS: u64 = 20_000;
/// Where training data end after the scored data begin, the scored ones move on by whole weeks, so that hours keep
/// their meaning.
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Summary {
    rows: u64,
    columns: u64,
    step_seconds: f64,
    trained_rows: u64,
    /// Times of the first and the last row, where a column tells them.
    first_row: Option<String>,
    last_row: Option<String>,
    anomalous_rows: u64,
    anomalies_total: u64,
    /// The first [`MOST_LISTED`] of them.
    anomalies: Vec<Stretch>,
    out: Option<String>,
}

/// Anomalous rows without a normal one between them.
#[derive(Debug, Serialize)]
struct Stretch {
    /// The row it begins with; the first row of the data is 1.
    row: u64,
    from: Option<String>,
    to: Option<String>,
    rows: u64,
    peak_score: f64,
    /// Of the row with the peak.
    causes: Vec<Cause>,
}

#[derive(Debug, Serialize)]
struct Cause {
    column: String,
    deviation: f64,
}

/// Scores the file.
pub fn run(args: &DetectArgs, json: bool) -> Result<(), CliError> {
    let form = form(args)?;
    let mut data = Input::open(&args.file, &form)?;
    if data.step_guessed {
        note(&format!(
            "evenkeelctl: nothing tells the time between rows, so it is taken for {} s; --step SECONDS sets it",
            data.step.as_secs_f64()
        ));
    }
    let mut detector = TableDetector::new(data.values.len(), data.step);
    let first = data.next()?;
    let start = first.as_ref().map_or(Timestamp::default(), |row| row.at);
    let (trained_rows, shift) = match &args.train {
        Some(file) => train(&mut detector, file, &form, &data, start)?,
        None => (0, Duration::ZERO),
    };
    let mut scoring = Scoring { detector, shift, was: false, summary: Summary::default() };
    scoring.summary = Summary {
        columns: data.values.len() as u64,
        step_seconds: data.step.as_secs_f64(),
        trained_rows,
        ..Summary::default()
    };
    match &args.out {
        None if json => scoring.copy(first, &mut data, io::sink(), CliError::from_output)?,
        None => scoring.copy(first, &mut data, io::stdout().lock(), CliError::from_output)?,
        Some(out) => {
            refuse_the_input(out, args)?;
            let whole = WholeFile::begin(out, true)?;
            scoring.copy(first, &mut data, &whole.file, |error| whole_file::failed(out, &error))?;
            whole.keep()?;
            scoring.summary.out = Some(out.display().to_string());
        }
    }
    if json {
        return super::print_json(&scoring.summary);
    }
    tell(&scoring.summary);
    Ok(())
}

fn form(args: &DetectArgs) -> Result<Form, CliError> {
    let delimiter = u8::try_from(args.delimiter)
        .ok()
        .filter(|byte| byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r'))
        .ok_or_else(|| CliError::Usage("--delimiter takes one plain character, like ;".into()))?;
    Ok(Form {
        time_column: args.time_column.clone(),
        ignore: args.ignore.clone(),
        delimiter,
        step: args.step,
    })
}

/// Writing over what is still being read would lose it.
fn refuse_the_input(out: &Path, args: &DetectArgs) -> Result<(), CliError> {
    let real = |path: &Path| fs::canonicalize(path).ok();
    let Some(written) = real(out) else { return Ok(()) };
    if [Some(&args.file), args.train.as_ref()]
        .into_iter()
        .flatten()
        .any(|read| real(read) == Some(written.clone()))
    {
        return Err(CliError::Usage(format!(
            "--out {} is a file that is read; take another name",
            out.display()
        )));
    }
    Ok(())
}

/// Learns from the training file. Gives its rows, and by how much the scored rows' times move to lie after them.
fn train(
    detector: &mut TableDetector,
    file: &Path,
    form: &Form,
    data: &Input,
    start: Timestamp,
) -> Result<(u64, Duration), CliError> {
    let mut input = Input::open(file, form)?;
    input.align(data)?;
    let (mut rows, mut last) = (0_u64, Timestamp::default());
    let mut progress = Progress::new("learned from");
    while let Some(row) = input.next()? {
        detector.train(row.at, &row.values);
        last = last.max(row.at);
        rows += 1;
        progress.show(rows);
    }
    if !data.is_timed() {
        // Nothing tells otherwise: the one goes on where the other ends.
        return Ok((rows, last.since(start) + data.step));
    }
    let weeks = if start > last { 0 } else { last.since(start).as_secs() / WEEK.as_secs() + 1 };
    Ok((rows, WEEK * u32::try_from(weeks).unwrap_or(u32::MAX)))
}

/// Scores row by row.
struct Scoring {
    detector: TableDetector,
    shift: Duration,
    was: bool,
    summary: Summary,
}

impl Scoring {
    fn copy(
        &mut self,
        first: Option<Row>,
        data: &mut Input,
        out: impl Write,
        failed: impl Fn(io::Error) -> CliError,
    ) -> Result<(), CliError> {
        let kept: Vec<usize> =
            (0..data.header.len()).filter(|&column| !ADDED.contains(&&data.header[column])).collect();
        let names: Vec<String> = data.names().map(str::to_owned).collect();
        let mut out = csv::Writer::from_writer(BufWriter::new(out));
        let failed = |error: csv::Error| match error.into_kind() {
            csv::ErrorKind::Io(error) => failed(error),
            other => failed(io::Error::other(format!("{other:?}"))),
        };
        out.write_record(kept.iter().map(|&column| &data.header[column]).chain(ADDED)).map_err(failed)?;
        let timed = data.is_timed();
        let mut progress = Progress::new("scored");
        let mut row = first;
        while let Some(current) = row {
            let scored = self.detector.score(current.at.after(self.shift), &current.values);
            let score = format!("{:.6}", scored.score);
            let causes = if scored.is_anomaly { causes(&scored, &names) } else { Vec::new() };
            let told: Vec<String> = causes.iter().map(Cause::told).collect();
            let told = told.join(";");
            let added = [score.as_str(), if scored.is_anomaly { "1" } else { "0" }, told.as_str()];
            out.write_record(kept.iter().map(|&column| &current.cells[column]).chain(added))
                .map_err(failed)?;
            self.count(timed.then_some(current.at), &scored, causes);
            progress.show(self.summary.rows);
            row = data.next()?;
        }
        out.flush().map_err(|error| failed(error.into()))
    }

    fn count(&mut self, at: Option<Timestamp>, scored: &RowScore, causes: Vec<Cause>) {
        let summary = &mut self.summary;
        let at = at.map(|at| at.to_string());
        summary.rows += 1;
        if summary.rows == 1 {
            summary.first_row.clone_from(&at);
        }
        if scored.is_anomaly {
            summary.anomalous_rows += 1;
            if !self.was {
                summary.anomalies_total += 1;
            }
            let listed = summary.anomalies_total <= MOST_LISTED as u64;
            if listed && !self.was {
                let (row, from) = (summary.rows, at.clone());
                let begun = Stretch { row, from, to: None, rows: 0, peak_score: 0.0, causes: Vec::new() };
                summary.anomalies.push(begun);
            }
            if let Some(stretch) = summary.anomalies.last_mut().filter(|_| listed) {
                stretch.rows += 1;
                stretch.to.clone_from(&at);
                if scored.score > stretch.peak_score {
                    (stretch.peak_score, stretch.causes) = (scored.score, causes);
                }
            }
        }
        summary.last_row = at;
        self.was = scored.is_anomaly;
    }
}

fn causes(scored: &RowScore, names: &[String]) -> Vec<Cause> {
    let told = scored.causes.iter().take(MOST_CAUSES);
    told.filter_map(|&(column, deviation)| Some(Cause { column: names.get(column)?.clone(), deviation }))
        .collect()
}

impl Cause {
    /// `column:+5.2`; the separators are taken out of the name.
    fn told(&self) -> String {
        format!("{}:{:+.1}", self.column.replace([';', ':'], "_"), self.deviation)
    }
}

fn tell(summary: &Summary) {
    let place = summary.out.as_ref().map(|out| format!(" Wrote {out}.")).unwrap_or_default();
    note(&format!(
        "{} of {}, {} s apart: {} on {}.{place}",
        counted(summary.rows, "row"),
        counted(summary.columns, "column"),
        summary.step_seconds,
        counted(summary.anomalies_total, "anomaly"),
        counted(summary.anomalous_rows, "row"),
    ));
}

/// A line on standard error that says how far it is, where a person can see it.
struct Progress {
    what: &'static str,
    watched: bool,
    shown: bool,
}

impl Progress {
    fn new(what: &'static str) -> Self {
        // Where the rows themselves go to the terminal, they are progress enough.
        let watched = io::stderr().is_terminal() && !io::stdout().is_terminal();
        Self { what, watched, shown: false }
    }

    fn show(&mut self, rows: u64) {
        if self.watched && rows.is_multiple_of(PROGRESS_ROWS) {
            self.shown = true;
            _ = write!(io::stderr().lock(), "\r{} {rows} rows   ", self.what);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            _ = writeln!(io::stderr().lock());
        }
    }
}
