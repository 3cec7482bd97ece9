//! `export`: a file that is whole or not there, and never someone else's.

use std::os::unix::fs::PermissionsExt as _;

use super::support::{Aggregator, Ran};

const LINES: [&str; 3] = ["{\"schema\":1}\n", "{\"tree\":\"decisions\",\"k\":", "1}\n{\"end\":true}\n"];

fn exporting() -> Aggregator {
    let aggregator = Aggregator::start();
    aggregator.behaviour.lock().unwrap().export = LINES.map(|line| Ok(line.as_bytes().to_vec())).to_vec();
    aggregator
}

fn files(aggregator: &Aggregator) -> Vec<String> {
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = std::fs::read_dir(aggregator.dir.path()).unwrap().map(name).collect();
    names.sort();
    names
}

#[test]
fn the_file_is_whole_private_and_not_replaced_by_accident() {
    let aggregator = exporting();
    let file = aggregator.path("out.ndjson");
    let words = ["export", file.to_str().unwrap()];
    let ran = aggregator.run(&words).succeeds();
    assert!(ran.out.contains("53 B, 3 lines"), "{}", ran.out);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), LINES.concat());
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::write(&file, "mine").unwrap();
    aggregator.run(&words).fails(1, &["exists", "--force"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    aggregator.run(&[&words[..], &["--force"]].concat()).succeeds();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), LINES.concat());
    assert_eq!(files(&aggregator), ["ca.pem", "ctl.toml", "out.ndjson", "token"]);
}

#[test]
fn a_broken_export_leaves_nothing() {
    let aggregator = exporting();
    let file = aggregator.path("out.ndjson");
    let file = file.to_str().unwrap();
    aggregator
        .behaviour
        .lock()
        .unwrap()
        .export
        .push(Err(tonic::Status::internal("checksum of tree samples")));
    aggregator.run(&["export", file]).fails(1, &["checksum of tree samples"]);
    aggregator.behaviour.lock().unwrap().export = vec![Ok(b"{\"schema\":1}\n{\"half".to_vec())];
    aggregator.run(&["export", file]).fails(1, &["ended the export in the middle"]);
    aggregator.behaviour.lock().unwrap().export = Vec::new();
    aggregator.run(&["export", file]).fails(1, &["ended the export in the middle"]);
    aggregator.run(&["export", "/nonexistent/out"]).fails(1, &["can not write /nonexistent/out"]);
    assert_eq!(files(&aggregator), ["ca.pem", "ctl.toml", "token"]);
}

#[test]
fn a_dash_is_standard_output() {
    let aggregator = exporting();
    assert_eq!(aggregator.run(&["export", "-"]).succeeds().out, LINES.concat());
    let json = aggregator
        .run(&["export", aggregator.path("x").to_str().unwrap(), "--output", "json"])
        .succeeds()
        .out;
    let told: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((told["bytes"].as_u64(), told["lines"].as_u64()), (Some(53), Some(3)));
}

#[test]
fn a_full_disk_is_an_error() {
    let aggregator = exporting();
    let mut command = aggregator.command(&["export", "-"]);
    command.stdout(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    // Standard output is taken, so only code and message tell.
    let Ran { code, err, .. } = Ran::of(command);
    assert_eq!(code, Some(1));
    assert!(err.contains("can not write to standard output"), "{err}");
}
