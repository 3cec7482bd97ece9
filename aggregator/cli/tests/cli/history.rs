//! `history`: its screens, and what becomes of files that are none.

use std::io::Write as _;
use std::process::Stdio;

use super::golden::{check, shown};
use super::support::{Aggregator, Ran, VIEWER, set_mode};

#[test]
fn who_fails_with_what_and_together() {
    shown("history_failures", &["history", "failures"]);
    shown("history_score", &["history", "score"]);
    shown("history_score_course", &["history", "score", "--history", "--top", "3"]);
    shown("history_score_host", &["history", "score", "prod-web-07"]);
    shown("history_summary", &["history", "summary"]);
    shown("history_correlate", &["history", "correlate"]);
    shown("history_correlate_matrix", &["history", "correlate", "--matrix", "--window", "7d"]);
    shown("history_heatmap", &["history", "heatmap"]);
    shown("history_heatmap_hours", &["history", "heatmap", "--by", "hour", "--columns", "96"]);
    shown("history_report", &["history", "report"]);
}

#[test]
fn where_there_is_nothing_it_says_what_to_do() {
    let aggregator = Aggregator::start();
    for verb in ["failures", "score", "summary", "correlate", "heatmap"] {
        let ran = aggregator.run(&["history", verb, "--group", "none-*"]).succeeds();
        assert!(ran.out.contains("evenkeelctl history import FILE"), "{verb}: {}", ran.out);
    }
    let quiet = aggregator.run(&["history", "report", "--group", "none-*"]).succeeds();
    assert!(quiet.out.contains("Nothing was migrated in the last two weeks"), "{}", quiet.out);
    aggregator.run(&["history", "score", "nobody"]).fails(1, &["no migration of a host", "nobody"]);
}

#[test]
fn a_score_object_has_the_fields_other_tools_know_and_no_others() {
    let aggregator = Aggregator::start();
    let json = aggregator.run(&["history", "score", "prod-web-07", "--output", "json"]).succeeds().out;
    let expected = r#"{
  "host": "prod-web-07",
  "anomaly_score": 80,
  "severity": "critical",
  "failure_count": 12,
  "success_count": 2,
  "last_failure": "2026-11-20T14:23:11Z",
  "recommended_action": "immediate_investigation"
}
"#;
    assert_eq!(json, expected);
}

#[test]
fn a_heatmap_in_colour_and_plain_ascii() {
    let aggregator = Aggregator::start();
    let mut command = aggregator.command(&["history", "heatmap"]);
    command.env("LANG", "C");
    let out = Ran::of(command).succeeds().out;
    assert!(out.is_ascii(), "{out}");
    check("history_heatmap_ascii", &out);
}

#[test]
fn an_import_is_told_as_an_account() {
    let aggregator = Aggregator::start();
    let file = aggregator.path("history.ndjson");
    let name = file.display().to_string();
    let import = |aggregator: &Aggregator| aggregator.run(&["history", "import", &name]);
    // The account is no error, and comes first.
    let refused = |ran: Ran, words: &[&str]| {
        assert!(ran.code == Some(1) && words.iter().all(|word| ran.err.contains(word)), "{ran:?}");
    };
    let told = |ran: &Ran| ran.out.replace(&aggregator.dir.path().display().to_string(), "DIR");
    // More than one piece.
    std::fs::write(&file, "good\nbad\n".repeat(60_000)).unwrap();
    let ran = import(&aggregator).succeeds();
    check("history_import", &told(&ran));
    let json = aggregator.run(&["history", "import", &name, "--output", "json"]).succeeds().out;
    assert!(json.contains(r#""bytes": 540000"#) && json.contains(r#""corrupt": 60000"#), "{json}");
    std::fs::write(&file, "bad\n").unwrap();
    let ran = import(&aggregator);
    assert!(ran.out.contains("line 2: not JSON"), "the account comes first: {ran:?}");
    refused(ran, &["nothing in", "is a record", "history import --help"]);
    std::fs::write(&file, "good\ngood").unwrap();
    refused(import(&aggregator), &["ends in the middle", "nothing is doubled"]);
    std::fs::write(&file, "").unwrap();
    refused(import(&aggregator), &["history.ndjson is empty"]);
    let mut command = aggregator.command(&["history", "import", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"good\n").unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(
        out.status.success() && String::from_utf8_lossy(&out.stdout).contains("1 record in standard input")
    );
}

#[test]
fn what_can_not_be_imported_is_told_with_the_remedy() {
    let aggregator = Aggregator::start();
    let missing = aggregator.run(&["history", "import", "/nonexistent/history.json"]);
    assert_eq!(missing.code, Some(0), "{missing:?}");
    assert!(missing.err.contains("warning: /nonexistent/history.json does not exist"), "{missing:?}");
    assert!(missing.err.contains("empty history") && missing.out.contains("0 records"), "{missing:?}");
    aggregator.run(&["history", "import", "/tmp"]).fails(1, &["/tmp is a directory"]);
    aggregator
        .run(&["history", "import", "/dev/zero"])
        .fails(1, &["/dev/zero is a device", "write - for it"]);
    let file = aggregator.path("secret.json");
    std::fs::write(&file, "good\n").unwrap();
    set_mode(&file, 0o000);
    // To root nothing is unreadable.
    if std::fs::read(&file).is_err() {
        let ran = aggregator.run(&["history", "import", &file.display().to_string()]);
        ran.fails(1, &["can not read", "secret.json", "denied"]);
    }
    set_mode(&file, 0o600);
    aggregator.use_token(VIEWER);
    aggregator.run(&["history", "import", &file.display().to_string()]).fails(4, &["operator"]);
}
