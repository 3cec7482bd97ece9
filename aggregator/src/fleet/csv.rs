//! Training data as a file: the columns of the specification, a row a line, with every mistake told by its line.

use evenkeel_common::time::Timestamp;
use evenkeel_detect::ensemble::TrainingRow;
use evenkeel_detect::seven::{SEVEN, SevenMetrics};

/// The first line, exactly.
pub const HEADER: &str = "timestamp,bandwidth,latency,packet_loss,jitter,cpu_usage,memory_usage,error_rate";
/// Rows of a file at most: a year of half minutes.
const MOST_ROWS: usize = 1_100_000;

/// Why a file is refused: the line, from 1, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct CsvError {
    /// From 1.
    pub line: usize,
    /// In words, with the remedy.
    pub problem: String,
}

/// Reads a file. A timestamp is seconds since 1970 or `2026-11-21T13:00:00Z`; an empty field is no data.
///
/// # Errors
/// The first mistake.
pub fn parse(bytes: &[u8]) -> Result<Vec<TrainingRow>, CsvError> {
    let at = |line: usize, problem: String| CsvError { line, problem };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        at(line, "not UTF-8 text".into())
    })?;
    let mut lines =
        text.trim_start_matches('\u{feff}').lines().enumerate().map(|(n, line)| (n + 1, line.trim()));
    match lines.next() {
        Some((_, head)) if head.replace(' ', "") == HEADER => {}
        _ => return Err(at(1, format!("the first line must be {HEADER}"))),
    }
    let mut rows: Vec<TrainingRow> = Vec::new();
    for (line, content) in lines.filter(|(_, content)| !content.is_empty()) {
        let row = row(content).map_err(|problem| at(line, problem))?;
        if rows.last().is_some_and(|last| last.at >= row.at) {
            return Err(at(
                line,
                "its time is not later than that of the row before; sort the file by time".into(),
            ));
        }
        if rows.len() >= MOST_ROWS {
            return Err(at(line, format!("more than {MOST_ROWS} rows; leave out the oldest")));
        }
        rows.push(row);
    }
    Ok(rows)
}

fn row(content: &str) -> Result<TrainingRow, String> {
    let mut fields = content.split(',').map(str::trim);
    let time = fields.next().unwrap_or_default();
    let at = timestamp(time).ok_or_else(|| {
        format!("{:?} is no time; write seconds since 1970 or 2026-11-21T13:00:00Z", shown(time))
    })?;
    let mut values = [f64::NAN; SEVEN];
    let names = HEADER.split(',').skip(1);
    for ((value, name), n) in values.iter_mut().zip(names).zip(2..) {
        let field = fields.next().ok_or_else(|| format!("{} fields are missing", SEVEN + 2 - n))?;
        if field.is_empty() {
            continue;
        }
        *value = field.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0).ok_or_else(
            || format!("{name}: {:?} is no number from 0 up; leave it empty for no data", shown(field)),
        )?;
    }
    match fields.count() {
        0 => Ok(TrainingRow { at, metrics: SevenMetrics(values), anomalous: false }),
        more => Err(format!("{more} fields too many")),
    }
}

/// As much of a field as a message may hold.
fn shown(field: &str) -> String {
    field.chars().take(40).collect()
}

fn timestamp(text: &str) -> Option<Timestamp> {
    if let Ok(seconds) = text.parse::<f64>() {
        let good = (0.0..253_402_300_800.0).contains(&seconds);
        return good.then(|| Timestamp::from_millis((seconds * 1000.0).round() as i64));
    }
    let text = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00"))?;
    let (date, time) = text.split_once(['T', ' '])?;
    let number = |part: Option<&str>, from: i64, to: i64| {
        let part = part.filter(|part| part.bytes().all(|b| b.is_ascii_digit()))?;
        part.parse().ok().filter(|n| (from..=to).contains(n))
    };
    let mut date = date.split('-');
    let (year, month, day) =
        (number(date.next(), 1970, 9999)?, number(date.next(), 1, 12)?, number(date.next(), 1, 31)?);
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut clock = clock.split(':');
    let (hour, minute, second) =
        (number(clock.next(), 0, 23)?, number(clock.next(), 0, 59)?, number(clock.next(), 0, 59)?);
    let ms: i64 = number(Some(format!("{fraction:0<3}").get(..3)?), 0, 999)?;
    // Days since 1970 by counting years from March, so that the leap day is the last of its year.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    (date.next().is_none() && clock.next().is_none())
        .then(|| Timestamp::from_millis(((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_rows_are_read_and_empty_fields_are_no_data() {
        let text =
            format!("{HEADER}\n1767600000,1.5,,0,0.2,40,50,0\r\n\n2026-01-05T08:00:10.5Z,2,1,0,0,41,50,0\n");
        let rows = parse(text.as_bytes()).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].metrics.0[0], 1.5);
        assert!(rows[0].metrics.0[1].is_nan());
        assert_eq!(rows[1].at.to_string(), "2026-01-05T08:00:10.500Z");
        assert_eq!(parse(HEADER.as_bytes()), Ok(vec![]));
    }

    #[test]
    fn every_mistake_names_its_line() {
        let good = "1767600000,1,1,1,1,1,1,1";
        for (rows, line, words) in [
            ("x,1,1,1,1,1,1,1", 2, "no time"),
            (&format!("{good}\n1767600001,1,1,1,1,1,1")[..], 3, "1 fields are missing"),
            (&format!("{good}\n1767600001,1,1,1,1,1,1,1,1"), 3, "too many"),
            (&format!("{good}\n{good}"), 3, "sort the file"),
            (&format!("{good}\n1767600001,1,-1,1,1,1,1,1"), 3, "latency"),
            (&format!("{good}\n1767600001,1,1,1,1,NaN,1,1"), 3, "cpu_usage"),
            ("2026-13-05T08:00:00Z,1,1,1,1,1,1,1", 2, "no time"),
        ] {
            let error = parse(format!("{HEADER}\n{rows}\n").as_bytes()).unwrap_err();
            assert!(error.line == line && error.problem.contains(words), "{rows}: {error}");
        }
        assert_eq!(parse(b"a,b\n").unwrap_err().line, 1);
        assert_eq!(parse(b"").unwrap_err().line, 1);
        let mut bytes = format!("{HEADER}\n{good}\n").into_bytes();
        bytes.push(0xFF);
        assert_eq!(parse(&bytes).unwrap_err().line, 3);
    }
}
