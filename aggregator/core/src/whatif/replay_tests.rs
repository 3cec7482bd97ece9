//! What stays made, what is counted, and what a replay leaves out.

use super::*;
use crate::{RunRecord, fixture};

const HOT: &str = "
    pve1 cpu=16 ram=64 | 101 cpu=9 mem=4 | 102 cpu=9 mem=4
    pve2 cpu=16 ram=64 | 201 cpu=1 mem=4
    pve3 cpu=16 ram=64 | 301 cpu=1 mem=4";

fn at(minute: u64, fleet: &str) -> Snapshot {
    let mut snapshot = fixture::snapshot(fleet);
    snapshot.at = fixture::NOW.after(Duration::from_secs(60 * minute));
    snapshot
}

fn replayed(policy: &Policy, snapshots: impl IntoIterator<Item = Snapshot>) -> Replayed {
    let mut replay = Replay::new(policy);
    snapshots.into_iter().for_each(|snapshot| replay.step(&snapshot));
    replay.finish()
}

#[test]
fn a_move_stays_made_and_what_it_gains_is_counted() {
    let result = replayed(&Policy::default(), (0..=60).map(|minute| at(minute, HOT)));
    let told: Vec<_> =
        result.moves.iter().map(|m| format!("{} {}->{}", m.guest, m.source, m.target)).collect();
    assert_eq!(told, ["101 pve1->pve2"], "one move settles it, whatever the history goes on to show");
    assert_eq!((result.runs, result.moved, result.returns, result.overtaken, result.gaps), (61, 1, 0, 0, 0));
    assert!((result.hours - 1.0).abs() < 1e-9);
    assert!((result.was.node_hours_over - 1.0).abs() < 1e-9, "{:?}", result.was);
    // The first minute is as it was: the move is decided on the first snapshot.
    assert!((result.would.node_hours_over - 1.0 / 60.0).abs() < 1e-9, "{:?}", result.would);
    assert!(result.would.mean_score < 0.3 * result.was.mean_score, "{:?} {:?}", result.was, result.would);
    assert_eq!(result.would.peak_score, result.was.peak_score, "the peak was before the move");
}

#[test]
fn as_it_was_is_what_the_runs_said() {
    let record = RunRecord::of(at(0, HOT), Policy::default(), Memory::default());
    let result = replayed(&Policy::default(), [record.snapshot]);
    assert_eq!(
        (result.was.mean_score, result.was.peak_score),
        (record.run.cluster_score, record.run.cluster_score)
    );
}

#[test]
fn groups_arrive_whole_by_tag_and_by_ha() {
    let tagged = "
        pve1 cpu=16 ram=64 base=6 | 101 cpu=5 mem=4 tags=affinity_a | 102 cpu=5 mem=4 tags=affinity_a
        pve2 cpu=16 ram=64";
    let ruled = "
        pve1 cpu=16 ram=64 base=6 | 101 cpu=5 mem=4 ha | 102 cpu=5 mem=4 ha
        pve2 cpu=16 ram=64
        rule r together 101,102";
    for (fleet, expected) in [(tagged, 2), (ruled, 1)] {
        let result = replayed(&Policy::default(), (0..=60).map(|minute| at(minute, fleet)));
        assert_eq!((result.moved, result.returns), (expected, 0), "{:?}", result.moves);
        let scores = (result.would.mean_score, result.was.mean_score);
        assert!(scores.0 < 0.2 * scores.1, "both have left pve1, so it is calm from then on: {scores:?}");
    }
}

#[test]
fn nothing_to_do_costs_nothing_and_says_why() {
    let calm = "pve1 | 101 cpu=1\npve2 | 102 cpu=1";
    let result = replayed(&Policy::default(), (0..10).map(|minute| at(minute, calm)));
    assert_eq!((result.moved, result.runs), (0, 10));
    assert_eq!(result.suppressed, BTreeMap::from([("converged".to_owned(), 10)]));
    assert_eq!((result.was, result.would.mean_score), (result.would, result.was.mean_score));
}

#[test]
fn a_guest_that_is_really_moved_or_vanishes_takes_its_real_place_again() {
    let elsewhere = "
        pve1 cpu=16 ram=64 | 102 cpu=9 mem=4
        pve2 cpu=16 ram=64 | 201 cpu=1 mem=4
        pve3 cpu=16 ram=64 | 301 cpu=1 mem=4 | 101 cpu=9 mem=4";
    for later in [elsewhere, &elsewhere.replace("| 101 cpu=9 mem=4", "")] {
        let snapshots = [at(0, HOT), at(1, HOT), at(2, later), at(3, later)];
        let result = replayed(&Policy::default(), snapshots);
        assert_eq!((result.moved, result.overtaken), (1, 1), "{:?}", result.moves);
    }
}

#[test]
fn persistence_and_limits_hold_over_the_replay() {
    let basic = Policy { preset: crate::Preset::Basic, ..Policy::default() };
    let result = replayed(&basic, (0..5).map(|minute| at(minute, HOT)));
    assert_eq!(result.actions.get(&Action::Observing), Some(&2), "{:?}", result.actions);
    assert_eq!((result.moved, result.moves[0].at), (1, at(2, HOT).at));
    // One a run at most: the second waits for the first to arrive and for its turn.
    let crowded = "
        pve1 cpu=16 ram=64 | 101 cpu=5 mem=4 | 102 cpu=5 mem=4 | 103 cpu=5 mem=4 | 104 cpu=5 mem=4 | 105 cpu=5 mem=4
        pve2 cpu=16 ram=64
        pve3 cpu=16 ram=64";
    let result = replayed(&Policy::default(), (0..6).map(|minute| at(minute, crowded)));
    assert!(result.moved >= 2, "{:?}", result.moves);
    assert!(result.moves[1].at > result.moves[0].at, "one leaves a node at a time");
    assert!(result.actions[&Action::Skipped] >= 1);
}

#[test]
fn gaps_and_bad_data_are_told_and_in_neither_course() {
    let stale = HOT.replace("pve3 cpu=16", "pve3 age=900 cpu=16");
    let snapshots = [at(0, HOT), at(1, &stale), at(2, &stale), at(62, HOT), at(63, HOT), at(62, HOT)];
    let result = replayed(&Policy::default(), snapshots);
    assert_eq!((result.runs, result.unreliable, result.gaps), (5, 2, 1));
    assert!((result.gap_hours - 1.0).abs() < 1e-9 && (result.hours - 3.0 / 60.0).abs() < 1e-9);
    assert_eq!(result.suppressed, BTreeMap::from([("agent_stale".to_owned(), 2)]));
    // Only the minutes that begin with good data count: the first and the last.
    assert!((result.was.node_hours_over - 2.0 / 60.0).abs() < 1e-9, "{:?}", result.was);
}

#[test]
fn a_policy_with_a_longer_interval_skips_snapshots() {
    let slow = Policy { decision_interval: 300, ..Policy::default() };
    let result = replayed(&slow, (0..=20).map(|minute| at(minute, HOT)));
    assert_eq!((result.runs, result.gaps), (5, 0));
    assert!((result.hours - 20.0 / 60.0).abs() < 1e-9);
}

#[test]
fn a_move_back_within_two_days_is_a_return() {
    // Rollback looks at the last move only, and cycle detection is off: nothing else keeps the guest from going back.
    let mut policy = Policy::default();
    policy.intelligent_migrations.cycle_detection_enabled = Some(false);
    let two = "pve1 cpu=16 ram=64 | 101 cpu=9 mem=4 | 102 cpu=9 mem=4\npve2 cpu=16 ram=64\npve3 offline";
    for (minutes, returns) in [(3000, 0), (2800, 1)] {
        let moved = format!("{two}\nmoved 101 pve2->pve3 {minutes}m\nmoved 101 pve3->pve1 2000m");
        let result = replayed(&policy, [at(0, &moved)]);
        assert_eq!(
            (result.moved, result.moves[0].guest.get(), result.returns),
            (1, 101, returns),
            "{minutes}"
        );
    }
}

#[test]
fn pressure_leaves_with_those_who_caused_it() {
    let pressed = HOT.replacen("cpu=16", "cpu=16 psi=60", 1);
    let result = replayed(&Policy::default(), (0..=60).map(|minute| at(minute, &pressed)));
    assert_eq!(result.moved, 1, "{:?}", result.moves);
    assert!(result.was.node_hours_over > 0.99 && result.would.node_hours_over < 0.1, "{:?}", result.would);
    // What waits for disks is not the CPU's doing.
    let mut snapshot = at(0, &pressed);
    let real = snapshot.clone();
    snapshot.nodes[0].pressure.io = Some(30.0);
    snapshot.nodes[0].cpu_used /= 2.0;
    press_anew(&mut snapshot, &real);
    let pressure = snapshot.nodes[0].pressure;
    assert!(pressure.cpu.unwrap() < 10.0 && pressure.io == Some(30.0), "{pressure:?}");
    // More demand is no more than twice the pressure, whatever a calm node shows.
    let mut snapshot = real.clone();
    snapshot.nodes[0].cpu_used *= 1.5;
    press_anew(&mut snapshot, &real);
    assert!((snapshot.nodes[0].pressure.cpu.unwrap() - 90.0).abs() < 1e-9);
}
