//! Files good and bad, from reading to what is written.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Write as _;
use std::path::PathBuf;

use clap::Parser as _;
use evenkeel_common::time::Timestamp;

use super::input::{Form, Input};
use super::run;
use crate::args::{Cli, Command};

const FORM: Form = Form { time_column: None, ignore: Vec::new(), delimiter: b',', step: None };

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// Rows as seconds since 1970 and values.
type Rows = Vec<(i64, Vec<f64>)>;

fn read(text: &str, form: &Form) -> Result<(Input, Rows), String> {
    let mut input = Input::open(file(text).path(), form).map_err(|error| error.to_string())?;
    let mut rows = Vec::new();
    while let Some(row) = input.next().map_err(|error| error.to_string())? {
        rows.push((row.at.as_secs(), row.values));
    }
    Ok((input, rows))
}

/// Runs `evenkeelctl detect` as typed and gives the scored file.
fn detect(arguments: &[&str]) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.csv");
    let typed = ["evenkeelctl", "detect", "--out"].into_iter().map(PathBuf::from);
    let typed = typed.chain([out.clone()]).chain(arguments.iter().map(PathBuf::from));
    let Command::Detect(args) = Cli::try_parse_from(typed).map_err(|error| error.to_string())?.command else {
        panic!("another command");
    };
    run(&args, false).map_err(|error| error.to_string())?;
    Ok(std::fs::read_to_string(out).unwrap())
}

#[test]
fn columns_find_their_part_and_the_step_follows_from_the_times() {
    let text = "a,Timestamp,label,b\n1,2026-01-01 00:00:00,0,\n2,2026-01-01 00:05:00,1,NaN\n3,2026-01-01 00:10:00,0,6\n";
    let (input, rows) = read(text, &FORM).unwrap();
    assert_eq!(input.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((input.step.as_secs(), input.step_guessed), (300, false));
    assert_eq!(rows[2], (1_767_226_200, vec![3.0, 6.0]));
    assert!(rows[0].1[1].is_nan() && rows[1].1[1].is_nan(), "what is missing is no zero");
}

#[test]
fn without_a_time_column_rows_are_a_step_apart() {
    let (input, rows) = read("a\n1\n2\n", &FORM).unwrap();
    assert!(input.step_guessed);
    assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), [0, 60]);
    let form = Form { step: Some(std::time::Duration::from_secs(5)), ..FORM };
    let (input, rows) = read("a\n1\n2\n", &form).unwrap();
    assert!(!input.step_guessed);
    assert_eq!(rows[1].0, 5);
}

#[test]
fn bad_files_get_an_error_that_says_where_and_what_to_do() {
    for (text, wanted) in [
        ("", "is empty; its first line must name the columns"),
        ("a,b\n", "has a header, but no rows"),
        ("1,2\n3,4\n", "its first line must name the columns"),
        ("a,b\n1,2\n3\n", "line 3: 1 cell, but the header has 2"),
        ("a,b\n1,2\n3,4,5\n", "line 3: 3 cells, but the header has 2"),
        (
            "a,b\n1,two\n",
            "line 2: \"two\" in column \"b\" is no number; leave the column out with --ignore \"b\"",
        ),
        ("a,b\n1,\"1,5\"\n", "\"1,5\" in column \"b\""),
        ("time,b\nnoon,1\n", "\"noon\" in column \"time\" is no time"),
        ("a,a\n1,2\n", "two columns named \"a\""),
        ("label\n1\n", "has no column of values"),
        ("a;b\n1;2\n", "is no number"),
        ("time;b\n1;2\n", "is no number"),
    ] {
        let error = read(text, &FORM).map(|_| ()).unwrap_err();
        assert!(error.contains(wanted), "{text:?}: {error}");
    }
    let form = Form { ignore: vec!["c".into()], ..FORM };
    assert!(read("a\n1\n", &form).map(|_| ()).unwrap_err().contains("no column \"c\"; it has \"a\""));
}

#[test]
fn rows_keep_their_cells_and_gain_three() {
    let data = file("time,host,cpu,mem,label\n0,a,50,1,0\n60,\"b,c\",50,,1\n");
    let path = data.path().to_str().unwrap();
    let error = detect(&[path]).unwrap_err();
    assert!(error.contains("--ignore \"host\""), "{error}");
    let scored = detect(&[path, "--ignore", "host"]).unwrap();
    let lines: Vec<&str> = scored.lines().collect();
    assert_eq!(lines[0], "time,host,cpu,mem,label,anomaly_score,is_anomaly,causes");
    assert!(lines[1].starts_with("0,a,50,1,0,0.") && lines[2].starts_with("60,\"b,c\",50,,1,0."), "{scored}");
    assert_eq!(lines.len(), 3);
}

#[test]
fn training_data_must_have_the_columns_in_whatever_order() {
    let data = file("cpu,mem\n1,2\n");
    let train = file("mem,extra,cpu\n2,7,1\n2,7,1\n");
    let (data, train) = (data.path().to_str().unwrap(), train.path().to_str().unwrap());
    assert!(detect(&[data, "--train", train]).is_ok());
    let error = detect(&[train, "--train", data]).unwrap_err();
    assert!(error.contains("has no column \"extra\""), "{error}");
}

#[test]
fn a_file_that_is_read_is_not_written_and_a_bad_one_leaves_nothing() {
    let data = file("cpu\n1\n2\nx\n");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.csv");
    let run_with = |out: &std::path::Path| {
        let typed =
            [PathBuf::from("evenkeelctl"), "detect".into(), data.path().into(), "--out".into(), out.into()];
        let Command::Detect(args) = Cli::try_parse_from(typed).unwrap().command else {
            panic!("another command")
        };
        run(&args, false).map_err(|error| error.to_string())
    };
    assert!(run_with(data.path()).unwrap_err().contains("is a file that is read"));
    assert!(run_with(&out).unwrap_err().contains("line 4"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// An hour of a sawtooth with one leap, then the same without: only the leap is told.
#[test]
fn a_leap_is_told_with_its_column_first() {
    let row = |i: u64, leap: bool| {
        let at = Timestamp::from_millis(i64::try_from(i * 60_000).unwrap());
        let value = if leap { 95.0 } else { 20.0 + (i * 7 % 5) as f64 };
        format!("{at},{},{value}\n", 40 + i * 3 % 7)
    };
    let train: String = (0..3000).map(|i| row(i, false)).collect();
    let test: String = (3000..4000).map(|i| row(i, (3500..3520).contains(&i))).collect();
    let (train, test) = (file(&format!("time,mem,cpu\n{train}")), file(&format!("time,mem,cpu\n{test}")));
    let scored = detect(&[test.path().to_str().unwrap(), "--train", train.path().to_str().unwrap()]).unwrap();
    let anomalous: Vec<(usize, &str)> =
        scored.lines().skip(1).enumerate().filter(|(_, line)| line.contains(",1,")).collect();
    assert!(!anomalous.is_empty());
    assert!(anomalous.iter().all(|(row, _)| (500..560).contains(row)), "{anomalous:?}");
    assert!(anomalous[0].1.contains(",1,cpu:+"), "{}", anomalous[0].1);
}
