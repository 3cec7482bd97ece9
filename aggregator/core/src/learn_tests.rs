//! What is learned of advice, step by step.

use super::*;
use crate::{Memory, Policy, decide, fixture};

/// 102 waits on pve1, and moving 101 to pve2 relieves it.
const HOT: &str =
    "pve1 cpu=16 ram=64 | 101 cpu=8 mem=4 vcpus=8 | 102 cpu=12 mem=4 vcpus=12\npve2 cpu=16 ram=64";

/// The same with 101 where it was to go, `minutes` later; more of the fixture's lines may follow.
fn moved(load: f64, minutes: u64, more: &str) -> Snapshot {
    let text = format!(
        "pve1 cpu=16 ram=64 | 102 cpu={load} mem=4 vcpus=12\npve2 cpu=16 ram=64 | 101 cpu=8 mem=4 vcpus=8\n{more}"
    );
    later(fixture::snapshot(&text), minutes)
}

fn later(mut snapshot: Snapshot, minutes: u64) -> Snapshot {
    snapshot.at = fixture::NOW.after(Duration::from_secs(60 * minutes));
    snapshot
}

/// Advised a moment ago, arrived five minutes after.
fn arrived(hot: &str) -> Learner {
    let mut learner = Learner::default();
    let run = decide(&fixture::snapshot(hot), &Policy::default(), &Memory::default());
    assert!(run.decisions.iter().any(|d| d.action.is_accepted()), "{:?}", run.decisions);
    learner.note(&run.decisions);
    learner
}

fn past(minutes: u64) -> PastMove {
    PastMove {
        guest: Vmid::new(101).unwrap(),
        from: NodeId::new("pve1").unwrap(),
        to: NodeId::new("pve2").unwrap(),
        at: fixture::NOW.after(Duration::from_secs(60 * minutes)),
        by: evenkeel_common::decision::Mover::Foreign,
        ok: true,
        helped: None,
    }
}

/// Follows minute by minute until a verdict: after how many minutes, and which.
fn until_verdict(learner: &mut Learner, load: f64) -> (u64, Option<bool>) {
    for minutes in 6..600 {
        let mut snapshot = moved(load, minutes, "");
        snapshot.history = vec![past(5)];
        if let Some(verdict) = learner.follow(&snapshot).pop() {
            assert!(learner.watched().is_empty());
            return (minutes, verdict.helped);
        }
    }
    panic!("no verdict in ten hours");
}

#[test]
fn a_move_is_judged_four_hours_after_its_arrival_by_what_would_have_waited() {
    assert_eq!(until_verdict(&mut arrived(HOT), 12.0), (245, Some(true)));
    assert_eq!(until_verdict(&mut arrived(HOT), 1.0), (245, Some(false)), "nothing would have waited");
}

#[test]
fn what_the_arrival_brings_is_known_on_arrival() {
    let mut learner = arrived("pve1 cpu=16 ram=64 maintenance | 101 cpu=8 mem=4 vcpus=8\npve2 cpu=16 ram=64");
    assert_eq!(until_verdict(&mut learner, 1.0), (6, Some(true)));
}

#[test]
fn only_what_was_advised_and_followed_soon_is_judged() {
    let watches = |learner: &mut Learner, past: PastMove, minutes: u64| {
        let mut snapshot = moved(12.0, minutes, "");
        snapshot.history = vec![past];
        learner.follow(&snapshot);
        learner.watched().len()
    };
    assert_eq!(watches(&mut Learner::default(), past(5), 6), 0, "nobody advised it");
    assert_eq!(watches(&mut arrived(HOT), past(5), 6), 1);
    assert_eq!(watches(&mut arrived(HOT), past(125), 126), 0, "too long ago");
    let elsewhere = PastMove { to: NodeId::new("pve3").unwrap(), ..past(5) };
    assert_eq!(watches(&mut arrived(HOT), elsewhere, 6), 0);
    assert_eq!(watches(&mut arrived(HOT), PastMove { ok: false, ..past(5) }, 6), 0, "it did not arrive");
    let before = PastMove { at: fixture::NOW.before(Duration::from_secs(60)), ..past(0) };
    assert_eq!(watches(&mut arrived(HOT), before, 6), 0, "before it was advised");
    assert_eq!(
        watches(&mut arrived(HOT), PastMove { helped: Some(false), ..past(5) }, 6),
        0,
        "judged already"
    );
}

#[test]
fn a_gap_counts_as_five_minutes_and_bad_data_not_at_all() {
    let mut learner = arrived(HOT);
    let mut at = |minutes: u64, bad: bool| {
        let mut snapshot = moved(12.0, minutes, "");
        snapshot.history = vec![past(5)];
        if bad {
            snapshot.problems.push(evenkeel_common::reason::Reason::NoQuorum {});
        }
        learner.follow(&snapshot);
        (learner.watched()[0].outcome.hours * 60.0).round() as u64
    };
    assert_eq!(at(6, false), 1);
    assert_eq!(at(66, false), 6, "an hour without a snapshot");
    assert_eq!(at(67, true), 6);
    assert_eq!(at(68, false), 8, "the two minutes since the last good one");
}

#[test]
fn who_does_not_stay_is_judged_after_an_hour_and_not_before() {
    for (stays, verdict) in [(30, None), (90, Some(true))] {
        let mut learner = arrived(HOT);
        for minutes in 6..5 + stays {
            let mut snapshot = moved(12.0, minutes, "");
            snapshot.history = vec![past(5)];
            assert_eq!(learner.follow(&snapshot), []);
        }
        let back = later(fixture::snapshot(HOT), 5 + stays);
        let verdicts = learner.follow(&back);
        assert_eq!(verdicts.iter().map(|v| v.helped).collect::<Vec<_>>(), [verdict], "{stays} minutes");
    }
}

#[test]
fn too_little_to_see_ends_without_a_verdict() {
    let mut learner = arrived(HOT);
    let mut snapshot = moved(12.0, 6, "");
    snapshot.history = vec![past(5)];
    learner.follow(&snapshot);
    let mut learner = Learner::resume(learner.watched().to_vec());
    let gone = later(fixture::snapshot("pve1 offline\npve2 | 101 cpu=8"), 7);
    assert_eq!(learner.follow(&gone), [], "its source can not be compared with");
    let verdicts = learner.follow(&moved(12.0, 5 + 481, ""));
    assert_eq!(verdicts.iter().map(|v| v.helped).collect::<Vec<_>>(), [None]);
}
