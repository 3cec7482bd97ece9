//! One scenario: its file, read; its runs, made.
//!
//! Lines of a cluster beyond the fixture's: `problem {"code":"no_quorum"}` (a reason the daemon hands over, as JSON),
//! `other root@pam!proxlb 4 90m` (another balancer, its moves and the last one's age), `name 101 "..."` (a JSON string).

use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_common::config::parse_valid;
use evenkeel_common::decision::Mover;
use evenkeel_core::coexist::Sign;
use evenkeel_core::{Candidate, Memory, OtherBalancer, PastMove, Policy, RunRecord, Snapshot, fixture};

/// What stands between the scenario and what is recorded of it.
pub const MARK: &str = "--- expected\n";

pub struct Scenario {
    pub path: PathBuf,
    /// Everything before the mark, as it stands.
    pub given: String,
    pub expected: String,
    pub policy: Policy,
    stretches: Vec<Stretch>,
    pub moves: Vec<Candidate>,
    pub guests: bool,
    pub drains: Vec<String>,
    pub places: Vec<String>,
}

/// Runs on one cluster.
struct Stretch {
    /// Seconds since the last run of the stretch before.
    after_s: u64,
    text: String,
    runs: u32,
    every_s: u64,
    follow: bool,
}

/// All scenarios, by topic and name.
pub fn scenarios() -> Vec<Scenario> {
    let sorted = |folder: &Path| {
        let mut paths: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    sorted(&root).iter().flat_map(|topic| sorted(topic)).map(|path| Scenario::read(&path)).collect()
}

fn seconds(text: &str) -> u64 {
    let (number, unit) = text.split_at(text.len() - 1);
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => panic!("{text}: 60s, 5m or 1h"),
    };
    unit * number.parse::<u64>().expect(text)
}

impl Scenario {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let (given, expected) = text.split_once(MARK).unwrap_or((&text, ""));
        assert!(given.starts_with("# "), "{} does not say what it shows", path.display());
        let mut scenario = Self {
            path: path.to_owned(),
            given: given.to_owned(),
            expected: expected.to_owned(),
            policy: Policy::default(),
            stretches: Vec::new(),
            moves: Vec::new(),
            guests: false,
            drains: Vec::new(),
            places: Vec::new(),
        };
        let (mut policy, mut in_policy) = (String::new(), false);
        for line in given.lines().filter(|line| !line.starts_with('#')) {
            let (key, rest) = line.split_once(':').unwrap_or((line, ""));
            let (key, rest) = (key.trim(), rest.trim());
            match key.split_whitespace().next().unwrap_or_default() {
                "policy" => (policy, in_policy) = (format!("{rest}\n"), true),
                "cluster" => (in_policy, _) = (false, scenario.begin(0, String::new())),
                "after" => {
                    let first =
                        if rest == "same" { scenario.stretches[0].text.clone() } else { String::new() };
                    scenario.begin(seconds(key.trim_start_matches("after ")), first);
                }
                "runs" => scenario.repeat(rest),
                "move" => scenario.moves.push(fixture::candidate(rest)),
                "guests" => scenario.guests = true,
                "drain" => scenario.drains.push(rest.to_owned()),
                "place" => scenario.places.push(rest.to_owned()),
                _ if in_policy => policy = policy + line.trim() + "\n",
                _ => {
                    let stretch = scenario.stretches.last_mut().expect("cluster: comes first");
                    stretch.text = std::mem::take(&mut stretch.text) + line + "\n";
                }
            }
        }
        scenario.policy = parse_valid(&policy, &path.display().to_string()).unwrap();
        scenario
    }

    fn begin(&mut self, after_s: u64, text: String) {
        self.stretches.push(Stretch { after_s, text, runs: 1, every_s: 60, follow: false });
    }

    /// `3 x 60s`, `3 x 60s follow`.
    fn repeat(&mut self, text: &str) {
        let stretch = self.stretches.last_mut().expect("cluster: comes first");
        let words: Vec<_> = text.split_whitespace().collect();
        (stretch.runs, stretch.every_s) = (words[0].parse().expect(text), seconds(words[2]));
        stretch.follow = words.get(3) == Some(&"follow");
    }

    /// Every run with what it was made of.
    pub fn records(&self) -> Vec<RunRecord> {
        let mut records: Vec<RunRecord> = Vec::new();
        let mut at = fixture::NOW;
        for stretch in &self.stretches {
            let mut snapshot = cluster(&stretch.text);
            at = at.after(Duration::from_secs(stretch.after_s));
            for run in 0..stretch.runs {
                if run > 0 {
                    at = at.after(Duration::from_secs(stretch.every_s));
                }
                snapshot.at = at;
                let memory = records.last().map_or_else(Memory::default, |last| last.run.memory_out.clone());
                let record = RunRecord::of(snapshot.clone(), self.policy.clone(), memory);
                if stretch.follow {
                    make(&mut snapshot, &record);
                }
                records.push(record);
            }
        }
        records
    }
}

/// Makes what a run accepted.
fn make(snapshot: &mut Snapshot, record: &RunRecord) {
    *snapshot = snapshot.sorted();
    for decision in record.run.decisions.iter().filter(|decision| decision.action.is_accepted()) {
        let r = &decision.recommendation;
        assert!(snapshot.apply(&Candidate { guest: r.guest, target: r.target.clone() }));
        for &guest in r.along() {
            assert!(snapshot.apply(&Candidate { guest, target: r.target.clone() }));
        }
        let (from, to, at) = (r.source.clone(), r.target.clone(), snapshot.at);
        let past = PastMove { guest: r.guest, from, to, at, by: Mover::Evenkeel, ok: true, helped: None };
        snapshot.history.push(past);
    }
}

fn cluster(text: &str) -> Snapshot {
    let own = |line: &&str| ["problem ", "other ", "name "].iter().any(|word| line.starts_with(word));
    let (own, plain): (Vec<&str>, Vec<&str>) = text.lines().partition(own);
    let mut snapshot = fixture::snapshot(&plain.join("\n"));
    for line in own {
        let (word, rest) = line.split_once(' ').unwrap();
        let (first, more) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            "problem" => snapshot.problems.push(serde_json::from_str(rest).expect(rest)),
            "name" => {
                let named = snapshot.guests.iter_mut().find(|guest| guest.vmid.to_string() == first);
                named.expect(line).name = serde_json::from_str(more).expect(more);
            }
            _ => {
                let (moves, age) = more.split_once(' ').expect("other name 4 90m");
                let last = snapshot.at.before(Duration::from_secs(seconds(age)));
                let since = last.before(Duration::from_secs(1800));
                let (name, moves) = (first.to_owned(), moves.parse().expect(line));
                snapshot.others.push(OtherBalancer { name, what: Sign::Pattern, since, last, moves });
            }
        }
    }
    snapshot
}
