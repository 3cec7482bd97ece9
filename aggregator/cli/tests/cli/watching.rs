//! `--watch`: no repeats, no holes, and a clean end.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use super::support::{Aggregator, canned};
use evenkeel_proto::v1::AnomalyView;

/// A running `--watch` and its lines.
struct Watching {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Watching {
    fn start(aggregator: &Aggregator, words: &[&str]) -> Self {
        let mut child =
            aggregator.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("the stream goes on").unwrap()
    }

    /// Presses Ctrl-C; gives the exit code, what else was printed, and standard error.
    fn interrupt(mut self) -> (Option<i32>, Vec<String>, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let rest = self.lines.map(Result::unwrap).collect();
        let mut err = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code(), rest, err)
    }
}

fn json(line: &str) -> (String, String) {
    let entry: serde_json::Value = serde_json::from_str(line).unwrap();
    (entry["id"].as_str().unwrap().to_owned(), entry["state"].as_str().unwrap().to_owned())
}

#[test]
fn a_lost_stream_is_followed_on_without_repeats_or_holes() {
    let aggregator = Aggregator::start();
    let [open, closed, drill] = <[AnomalyView; 3]>::try_from(canned::anomalies()).unwrap();
    let later = AnomalyView { id: "lab/pve3/1-3".into(), ..open.clone() };
    let ended =
        AnomalyView { state: "closed".into(), closed_ms: Some(canned::NOW_MS + 90_000), ..open.clone() };
    // The first stream ends after one entry. Meanwhile two more happened, which only the list knows; the second
    // stream repeats what was told and goes on.
    aggregator.behaviour.lock().unwrap().streams = vec![vec![open.clone()], vec![open.clone(), later, ended]];
    let mut watching = Watching::start(&aggregator, &["anomalies", "--watch", "--output", "json"]);
    let told: Vec<(String, String)> = (0..4).map(|_| json(&watching.line())).collect();
    let expected =
        [(&open.id, "open"), (&drill.id, "open"), (&"lab/pve3/1-3".to_owned(), "open"), (&open.id, "closed")];
    assert_eq!(told, expected.map(|(id, state)| (id.clone(), state.to_owned())));
    let (code, rest, err) = watching.interrupt();
    assert_eq!((code, rest), (Some(130), Vec::new()));
    assert!(err.contains("the aggregator ended the stream") && err.contains("trying again in 1 s"), "{err}");
    assert!(err.contains("connected again"), "{err}");
    let listed = aggregator.behaviour.lock().unwrap().listed_since.clone();
    assert_eq!(listed, [Some(canned::NOW_MS - 60_000)], "the list is asked once, for what was missed");
    assert!(closed.closed_ms.unwrap() < canned::NOW_MS - 60_000, "so that it must not be told");
}

#[test]
fn since_tells_the_past_first_and_lines_are_for_people() {
    let aggregator = Aggregator::start();
    aggregator.behaviour.lock().unwrap().streams = vec![Vec::new()];
    let mut watching = Watching::start(&aggregator, &["anomalies", "--watch", "--since", "24h"]);
    let lines: Vec<String> = (0..3).map(|_| watching.line()).collect();
    assert_eq!(
        lines,
        [
            "2026-11-21 00:22:15 XYZ  warning   closed  lab/pve1 guest 106: guest_net_in: 100.0 MiB/s instead of 1.0 MiB/s (4.2 sigma)",
            "2026-11-21 02:16:25 XYZ  critical  open    lab/pve3: cpu_used: 96.1 % instead of 34.5 % (8.4 sigma)",
            "2026-11-21 02:18:25 XYZ  info      open    lab/pve2: disk_await sda\u{fffd}[8m (drill): 12.50 ms instead of 0.80 ms (2.1 sigma)",
        ]
    );
    assert_eq!(watching.interrupt(), (Some(130), Vec::new(), String::new()));
}

#[test]
fn decisions_are_followed_and_names_can_not_forge_lines() {
    let aggregator = Aggregator::start();
    let mut watching = Watching::start(&aggregator, &["decisions", "--watch"]);
    let lines: Vec<String> = (0..4).map(|_| watching.line()).collect();
    assert!(lines.iter().all(|line| line.starts_with("2026-11-21 02:18:43 XYZ  ")), "{lines:#?}");
    assert!(lines.iter().all(|line| !line.chars().any(char::is_control)), "{lines:#?}");
    assert!(lines[1].contains("filtered: cycle detected pve1->pve3->pve2->pve1"), "{}", lines[1]);
    assert_eq!(watching.interrupt().0, Some(130));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let aggregator = Aggregator::start();
    let mut child = aggregator
        .command(&["decisions", "--watch"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""));
}
