//! What each command prints, held in `tests/golden/*.txt`. `EVENKEEL_BLESS=1` rewrites them; review the difference.

use std::path::PathBuf;

use super::support::{Aggregator, Ran, canned};

/// Compares with the golden file of that name, or rewrites it.
#[track_caller]
pub fn check(name: &str, actual: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    if std::env::var_os("EVENKEEL_BLESS").is_some() {
        return std::fs::write(path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = expected.lines().zip(actual.lines()).position(|(e, a)| e != a);
    let line = differs.unwrap_or(expected.lines().count().min(actual.lines().count()));
    assert!(
        expected == actual,
        "{} differs from line {} on; EVENKEEL_BLESS=1 rewrites it\nexpected: {:?}\nactual:   {:?}",
        path.display(),
        line + 1,
        expected.lines().nth(line),
        actual.lines().nth(line)
    );
}

/// Runs a command at several widths, into a pipe, and as JSON.
#[track_caller]
pub fn shown(name: &str, words: &[&str]) {
    let aggregator = Aggregator::start();
    let mut text = String::new();
    for columns in ["60", "80", "120", ""] {
        let mut command = aggregator.command(words);
        command.env("COLUMNS", columns);
        let out = Ran::of(command).succeeds().out;
        let title = if columns.is_empty() { "a pipe".to_owned() } else { format!("{columns} columns") };
        text.push_str(&format!("==== {title}: evenkeelctl {}\n{out}", words.join(" ")));
        harmless(&out);
        if let Ok(columns) = columns.parse::<usize>() {
            let longest = out.lines().max_by_key(|line| line.chars().count()).unwrap_or_default();
            assert!(longest.chars().count() <= columns, "wider than {columns}: {longest:?}");
        }
    }
    check(name, &text.replace(&format!(":{}", aggregator.port), ":PORT"));
    let json = aggregator.run(&[words, &["--output", "json"]].concat()).succeeds().out;
    harmless(&json);
    assert!(serde_json::from_str::<serde_json::Value>(&json).unwrap().is_object());
    check(&format!("{name}.json"), &json);
}

/// Nothing that steers a terminal, whatever guests are called.
#[track_caller]
fn harmless(text: &str) {
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}

#[test]
fn status() {
    shown("status", &["status"]);
}

#[test]
fn nodes() {
    shown("nodes", &["nodes"]);
    shown("nodes_lab", &["nodes", "--cluster", "lab"]);
    shown("node", &["nodes", "pve3"]);
    shown("node_silent", &["nodes", "pve4"]);
}

#[test]
fn guests() {
    shown("guests", &["guests"]);
    shown("guest", &["guests", "104"]);
    shown("guest_hostile", &["guests", "105"]);
    shown("guest_stopped", &["guests", "107"]);
}

#[test]
fn profiles() {
    shown("profiles", &["profiles"]);
    shown("profile", &["profiles", "104"]);
}

#[test]
fn anomalies() {
    shown("anomalies", &["anomalies"]);
    shown("anomalies_none", &["anomalies", "--guest", "999", "--since", "7d"]);
    shown("anomalies_open", &["anomalies", "--open", "--since", "1h"]);
}

#[test]
fn decisions() {
    shown("decisions", &["decisions"]);
    shown("decisions_none", &["decisions", "--action", "failed"]);
}

#[test]
fn explain() {
    shown("explain_decision", &["explain", "lab-1795223923-1"]);
    shown("explain_filtered", &["explain", "lab-1795223923-2"]);
    shown("explain_guest", &["explain", "--guest", "104"]);
    shown("explain_node", &["explain", "--node", "pve3"]);
    shown("explain_run", &["explain", "--cluster", "lab"]);
    shown("explain_suppressed", &["explain", "--cluster", "local"]);
}

#[test]
fn replay_and_steering() {
    shown("replay", &["replay", "lab-1795223923-1"]);
    shown("pause", &["pause", "--why", "switch maintenance"]);
    shown("resume", &["resume"]);
}

#[test]
fn drills() {
    shown(
        "simulate",
        &["simulate", "cpu", "--node", "pve3", "--guest", "104", "--amount", "2", "--for", "10m"],
    );
    shown("simulate_status", &["simulate", "status"]);
    shown("simulate_clear", &["simulate", "clear", "--node", "pve3"]);
}

#[test]
fn what_if() {
    shown("whatif_balance", &["whatif", "balance"]);
    shown("whatif_balance_restarts", &["whatif", "balance", "--restarts"]);
    shown("whatif_balance_calm", &["whatif", "balance", "--cluster", "calm"]);
    shown("whatif_balance_stuck", &["whatif", "balance", "--cluster", "stuck"]);
    shown("whatif_balance_large", &["whatif", "balance", "--cluster", "large"]);
    shown("whatif_drain", &["whatif", "drain", "pve3"]);
    shown("whatif_place", &["whatif", "place", "--vcpus", "4", "--memory", "16"]);
    shown("whatif_replay", &["whatif", "replay", "--since", "7d", "--preset", "standard"]);
    let aggregator = Aggregator::start();
    for (words, name, expected) in [
        (
            &["balance", "--cluster", "stale"][..],
            "whatif_balance_stale",
            "no plan for cluster stale: the data of pve4 is 412 s old",
        ),
        (&["drain", "pve5"], "whatif_drain_no", "2 guests can not leave"),
        (&["drain", "pve4"], "whatif_drain_stale", "no plan for pve4: the data of pve4 is 412 s old"),
        (&["place", "--vcpus", "4", "--memory", "200"], "whatif_place_no", "fits on no node"),
        (&["replay", "--preset", "off"], "whatif_replay_none", "no run of cluster lab is stored since"),
    ] {
        let ran = aggregator.run(&[&["whatif"], words].concat());
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.err.contains(expected), "{ran:?}");
        check(name, &ran.out);
    }
}

#[test]
fn health_and_what_will_be_full() {
    shown("scores", &["scores"]);
    shown("scores_history", &["scores", "--node", "pve3", "--history", "24h"]);
    shown("forecast", &["forecast"]);
    shown("forecast_none", &["forecast", "--node", "pve9"]);
}

#[test]
fn detectors_and_what_people_say_of_them() {
    shown("detectors", &["detectors"]);
    shown("feedback", &["feedback", "lab/pve3/65766565-1", "bad", "--note", "the nightly backup"]);
}

#[test]
fn models() {
    shown("model_list", &["model", "list"]);
    shown("model_drift", &["model", "drift"]);
    shown("model_train", &["--cluster", "lab", "model", "train", "--node", "pve1", "--since", "30d"]);
    shown("model_activate", &["model", "activate", "lab-m3"]);
    shown("model_rollback", &["--cluster", "lab", "model", "rollback", "--node", "pve1"]);
}

#[test]
fn the_last_run_of_every_cluster_but_one_object_as_json() {
    let aggregator = Aggregator::start();
    let out = aggregator.run(&["explain"]).succeeds().out;
    let place = |text: &str| out.find(text).unwrap_or_else(|| panic!("{text} is not in {out}"));
    assert!(place("Cluster lab\n") < place("Cluster local\n"));
    aggregator.run(&["explain", "--output", "json"]).fails(2, &["--cluster NAME", "lab, local"]);
}

#[test]
fn a_screen_without_utf8_gets_ascii() {
    let aggregator = Aggregator::start();
    for words in [&["explain", "--cluster", "lab"][..], &["guests"], &["status"]] {
        let mut command = aggregator.command(words);
        command.env("LANG", "C");
        let out = Ran::of(command).succeeds().out;
        assert!(out.is_ascii(), "{out}");
    }
}

#[test]
fn times_follow_the_zone_or_utc() {
    let aggregator = Aggregator::start();
    let local = aggregator.run(&["status"]).succeeds().out;
    assert!(local.contains("2026-11-21 02:18:55 XYZ"), "{local}");
    let utc = aggregator.run(&["status", "--utc"]).succeeds().out;
    assert!(utc.contains("2026-11-21 01:18:55 UTC"), "{utc}");
}

#[test]
fn json_keeps_every_field_and_null_means_no_data() {
    let aggregator = Aggregator::start();
    let json = aggregator.run(&["guests", "107", "--output", "json"]).succeeds().out;
    let guest = &serde_json::from_str::<serde_json::Value>(&json).unwrap()["guests"][0];
    assert!(guest.as_object().unwrap()["cpu_cores"].is_null());
    assert_eq!(guest["open_anomalies"], 0);
    let json = aggregator.run(&["guests", "105", "--output", "json"]).succeeds().out;
    let guest = &serde_json::from_str::<serde_json::Value>(&json).unwrap()["guests"][0];
    assert_eq!(guest["name"], canned::HOSTILE, "programs get the name as it is");
}
