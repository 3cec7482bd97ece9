//! Tables as files hold them: which column is what, rows one at a time, and errors that say where.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use csv::{ErrorKind, Reader, ReaderBuilder, StringRecord};
use evenkeel_common::time::Timestamp;

use super::stamp;
use crate::error::CliError;

/// Names under which a column tells the time.
const TIME_NAMES: [&str; 5] = ["timestamp", "time", "datetime", "date", "ts"];
/// Columns that hold an answer; a detector that sees them knows what it should find out.
const ANSWERS: [&str; 4] = ["label", "anomaly_score", "is_anomaly", "causes"];
/// Most columns of a table.
const MOST_COLUMNS: usize = 4096;
/// Rows looked at for the usual time between rows.
const LOOK_AHEAD: usize = 200;
/// Time between rows where nothing tells.
const DEFAULT_STEP: Duration = Duration::from_secs(60);
/// Steps shorter or longer than these come from times that are none.
const STEPS: std::ops::RangeInclusive<i64> = 1..=86_400_000;

/// How to read tables.
#[derive(Clone, Debug)]
pub struct Form {
    /// The column that tells the time, when it is named on the command line.
    pub time_column: Option<String>,
    /// Columns not to judge.
    pub ignore: Vec<String>,
    /// What separates cells.
    pub delimiter: u8,
    /// Time between rows, when it is given on the command line.
    pub step: Option<Duration>,
}

/// A table, open at its next row.
pub struct Input {
    name: String,
    reader: Reader<Box<dyn Read>>,
    /// The first line.
    pub header: StringRecord,
    time: Option<usize>,
    /// Columns judged, by position.
    pub values: Vec<usize>,
    ahead: VecDeque<StringRecord>,
    /// Usual time between rows.
    pub step: Duration,
    /// Whether nothing told the step, so that it is a guess.
    pub step_guessed: bool,
    rows: u64,
}

/// One row.
#[derive(Debug)]
pub struct Row {
    /// The cells as they stand in the file.
    pub cells: StringRecord,
    /// Its time; counted from 1970 in steps where no column tells it.
    pub at: Timestamp,
    /// Values in the order of [`Input::values`]; NaN where missing.
    pub values: Vec<f64>,
}

impl Input {
    /// Opens a table and finds out which column is what.
    pub fn open(path: &Path, form: &Form) -> Result<Self, CliError> {
        let name = if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
        let source: Box<dyn Read> = if path == Path::new("-") {
            Box::new(io::stdin())
        } else {
            let opened = File::open(path).and_then(|file| {
                if file.metadata()?.is_dir() { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(file) }
            });
            Box::new(opened.map_err(|error| CliError::Failed(format!("can not read {name}: {error}")))?)
        };
        Self::read(name, source, form)
    }

    fn read(name: String, source: Box<dyn Read>, form: &Form) -> Result<Self, CliError> {
        let mut reader = ReaderBuilder::new().delimiter(form.delimiter).from_reader(source);
        let header = reader.headers().map_err(|error| told(&name, &error))?.clone();
        let (time, values) = columns(&name, &header, form)?;
        let mut input = Self {
            name,
            reader,
            header,
            time,
            values,
            ahead: VecDeque::new(),
            step: form.step.unwrap_or(DEFAULT_STEP),
            step_guessed: false,
            rows: 0,
        };
        input.look_ahead()?;
        if input.ahead.is_empty() {
            return Err(input.failed("has a header, but no rows"));
        }
        match (input.time, form.step) {
            (_, Some(_)) => {}
            (Some(column), None) => match input.usual_step(column)? {
                Some(step) => input.step = step,
                None => input.step_guessed = input.ahead.len() > 1,
            },
            (None, None) => input.step_guessed = true,
        }
        Ok(input)
    }

    /// Whether a column tells the time.
    pub fn is_timed(&self) -> bool {
        self.time.is_some()
    }

    /// The names of the columns judged.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(|&column| &self.header[column])
    }

    /// Puts the columns judged into the order of another table's, which must have the same.
    pub fn align(&mut self, with: &Self) -> Result<(), CliError> {
        let mut ordered = Vec::with_capacity(with.values.len());
        for name in with.names() {
            let found = self.values.iter().copied().find(|&column| &self.header[column] == name);
            let missing = || {
                let message = format!(
                    "has no column {name:?}, which {} has; leave it out with --ignore {name:?}",
                    with.name
                );
                self.failed(&message)
            };
            ordered.push(found.ok_or_else(missing)?);
        }
        self.values = ordered;
        Ok(())
    }

    /// The next row.
    pub fn next(&mut self) -> Result<Option<Row>, CliError> {
        let cells = match self.ahead.pop_front() {
            Some(cells) => cells,
            None => match self.record()? {
                Some(cells) => cells,
                None => return Ok(None),
            },
        };
        let at = match self.time {
            Some(column) => self.time_of(&cells, column)?,
            None => Timestamp::default().after(self.step * u32::try_from(self.rows).unwrap_or(u32::MAX)),
        };
        self.rows += 1;
        let values = self.values.iter().map(|&column| self.number(&cells, column));
        let values = values.collect::<Result<_, _>>()?;
        Ok(Some(Row { cells, at, values }))
    }

    fn record(&mut self) -> Result<Option<StringRecord>, CliError> {
        let mut cells = StringRecord::new();
        let more = self.reader.read_record(&mut cells).map_err(|error| told(&self.name, &error))?;
        Ok(more.then_some(cells))
    }

    fn look_ahead(&mut self) -> Result<(), CliError> {
        while self.ahead.len() < LOOK_AHEAD {
            let Some(cells) = self.record()? else { break };
            self.ahead.push_back(cells);
        }
        Ok(())
    }

    /// The median time between rows; `None` when there are too few, or their times do not advance.
    fn usual_step(&self, column: usize) -> Result<Option<Duration>, CliError> {
        let times: Vec<i64> = self
            .ahead
            .iter()
            .map(|cells| self.time_of(cells, column).map(Timestamp::as_millis))
            .collect::<Result<_, _>>()?;
        let mut steps: Vec<i64> = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
        steps.retain(|step| STEPS.contains(step));
        let middle = steps.len() / 2;
        if steps.is_empty() {
            return Ok(None);
        }
        let (_, median, _) = steps.select_nth_unstable(middle);
        Ok(u64::try_from(*median).ok().map(Duration::from_millis))
    }

    fn time_of(&self, cells: &StringRecord, column: usize) -> Result<Timestamp, CliError> {
        let cell = &cells[column];
        stamp::parse(cell).ok_or_else(|| {
            self.at_line(cells, &format!(
                "{cell:?} in column {:?} is no time; write 2026-11-21 14:00:00, RFC 3339, or seconds since 1970",
                &self.header[column]
            ))
        })
    }

    fn number(&self, cells: &StringRecord, column: usize) -> Result<f64, CliError> {
        let cell = cells[column].trim();
        if cell.is_empty()
            || ["nan", "null", "none", "na", "n/a"].iter().any(|word| cell.eq_ignore_ascii_case(word))
        {
            return Ok(f64::NAN);
        }
        match cell.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            Ok(_) => Ok(f64::NAN),
            Err(_) => Err(self.at_line(
                cells,
                &format!(
                    "{cell:?} in column {0:?} is no number; leave the column out with --ignore {0:?}",
                    &self.header[column]
                ),
            )),
        }
    }

    fn at_line(&self, cells: &StringRecord, message: &str) -> CliError {
        let line = cells.position().map_or(0, csv::Position::line);
        CliError::Failed(format!("{}, line {line}: {message}", self.name))
    }

    fn failed(&self, message: &str) -> CliError {
        CliError::Failed(format!("{} {message}", self.name))
    }
}

/// Which column tells the time, and which are judged.
fn columns(name: &str, header: &StringRecord, form: &Form) -> Result<(Option<usize>, Vec<usize>), CliError> {
    let failed = |message: String| CliError::Failed(format!("{name} {message}"));
    if header.is_empty() {
        return Err(failed("is empty; its first line must name the columns".into()));
    }
    if header.len() > MOST_COLUMNS {
        return Err(failed(format!("has {} columns; {MOST_COLUMNS} are the most", header.len())));
    }
    if let Some(number) = header.iter().find(|cell| cell.trim().parse::<f64>().is_ok()) {
        return Err(failed(format!("begins with {number:?}; its first line must name the columns")));
    }
    for (position, column) in header.iter().enumerate() {
        if header.iter().take(position).any(|earlier| earlier == column) {
            return Err(failed(format!("has two columns named {column:?}")));
        }
    }
    for wanted in form.ignore.iter().chain(&form.time_column) {
        if !header.iter().any(|column| column == wanted) {
            return Err(failed(format!("has no column {wanted:?}; it has {}", listed(header))));
        }
    }
    let time = match &form.time_column {
        Some(wanted) => header.iter().position(|column| column == wanted),
        None => header.iter().position(|column| {
            let column = column.trim();
            TIME_NAMES.iter().any(|time| column.eq_ignore_ascii_case(time))
                && !form.ignore.iter().any(|ignored| ignored == column)
        }),
    };
    let judged = |&(position, column): &(usize, &str)| {
        Some(position) != time
            && !ANSWERS.contains(&column.trim())
            && !form.ignore.iter().any(|ignored| ignored == column)
    };
    let values: Vec<usize> = header.iter().enumerate().filter(judged).map(|(position, _)| position).collect();
    if values.is_empty() {
        let hint =
            if header.iter().any(|column| column.contains([';', '\t'])) { "; see --delimiter" } else { "" };
        return Err(failed(format!("has no column of values, only {}{hint}", listed(header))));
    }
    Ok((time, values))
}

/// The first column names, for a message.
fn listed(header: &StringRecord) -> String {
    let shown: Vec<String> = header.iter().take(12).map(|name| format!("{name:?}")).collect();
    let more = if header.len() > shown.len() { ", ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// What the reader says, as people would.
fn told(name: &str, error: &csv::Error) -> CliError {
    let line = error.position().map_or(0, csv::Position::line);
    CliError::Failed(match error.kind() {
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            let cells = crate::render::counted(*len, "cell");
            format!("{name}, line {line}: {cells}, but the header has {expected_len}")
        }
        ErrorKind::Utf8 { .. } => format!("{name}, line {line}: this is not UTF-8 text"),
        ErrorKind::Io(error) => format!("can not read {name}: {error}"),
        _ => format!("{name}: {error}"),
    })
}
