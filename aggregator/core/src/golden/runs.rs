//! Whole runs: what is decided, what stays, and why nothing is done.

use super::*;

#[test]
fn a_hot_node_is_relieved_and_all_is_told() {
    let run = run("
        pve1 cpu=16 ram=64 wait=1 | 101 name=db cpu=6 mem=8 profile=bursty mean=4 p95=7 | 102 cpu=5 mem=4 | 103 cpu=3 mem=4
        pve2 cpu=16 ram=64 | 104 cpu=2 mem=4
        pve3 cpu=16 ram=64 | 105 cpu=3 mem=4").run;
    let decision = &run.decisions[0];
    let mut text = told(&run);
    text.push_str("\n--\n");
    text.push_str(&decision.trail.to_string());
    text.push_str(&decision.recommendation.evidence.iter().map(|r| format!("{r}\n")).collect::<String>());
    assert_eq!(decision.action, Action::Recommended);
    assert_eq!(text, include_str!("../../tests/golden/hot_node.txt"), "\n{text}");
}

#[test]
fn nothing_is_decided_on_bad_data() {
    for (more, expected) in [
        ("paused disk exchange", "paused by an operator: disk exchange"),
        ("pve4 age=31", "the data of pve4 is 31 s old; at most 30 s is trusted"),
        (
            "pve4 no-agent",
            "pve4 has no agent that reports; enrol one with `evenkeelctl join-token create --node pve4`",
        ),
        ("pve4 | 109 pve=pve2", "agents see guest 109 on pve4, Proxmox VE on pve2"),
        ("pve4 wait=-1", "the data of pve4 can not be right: a load is negative or not a number"),
        ("pve3 cpu=16", "the data of pve3 can not be right: it is listed twice"),
        ("pve4 | 101 cpu=1", "the data of pve1 can not be right: guest 101 is listed twice"),
        (
            "flying 101 pve1->pve3 foreign",
            "a migration that evenkeel did not start is under way: guest 101 from pve1 to pve3",
        ),
    ] {
        let run = run(&two(more)).run;
        assert_eq!(run.suppressed.as_ref().map(ToString::to_string).as_deref(), Some(expected));
        assert!(run.decisions.is_empty(), "{more}");
    }
    // A node that is down, or barred for its clock, does not stop the others.
    for more in ["pve4 offline age=900", "pve4 skew=2500 age=900"] {
        let run = run(&two(more)).run;
        assert_eq!((run.suppressed.as_ref(), run.decisions.is_empty()), (None, false), "{more}");
    }
    let mut daemon = fixture::snapshot(TWO);
    daemon.problems.push(evenkeel_common::reason::Reason::NoQuorum {});
    let run = crate::decide(&daemon, &Policy::default(), &Memory::default());
    assert_eq!(told(&run).lines().next(), Some("suppressed: the cluster has no quorum"));
}

#[test]
fn a_lone_node_has_nowhere_to_move_to() {
    let run = run("pve1 cpu=4 ram=64 | 101 cpu=4").run;
    assert_eq!(
        run.suppressed.map(|reason| reason.to_string()).as_deref(),
        Some("1 node(s) of this cluster can take part; a move needs two")
    );
}

#[test]
fn a_balanced_cluster_is_left_alone_and_says_so() {
    let run = run("
        pve1 cpu=16 ram=64 | 101 cpu=5 mem=8
        pve2 cpu=16 ram=64 | 102 cpu=5 mem=8")
    .run;
    assert_eq!(
        told(&run).lines().next(),
        Some(
            "suppressed: the cluster is balanced: node scores within 0.0 points (threshold 8.0), no node over a limit"
        )
    );
}

#[test]
fn two_empty_nodes_and_a_lone_guest_stay_as_they_are() {
    let explained = run("
        pve1 cpu=4 ram=64 | 101 cpu=4 mem=8
        pve2 cpu=4 ram=64
        pve3 cpu=4 ram=64");
    assert_eq!(
        told(&explained.run),
        "\
pve1: best candidate is guest 101 to pve2: it improves the cluster by only 0.00 points, 1.00 are needed
pve2: pve2 runs no guest
pve3: pve3 runs no guest"
    );
}

#[test]
fn an_emptied_node_takes_only_what_helps() {
    // The others are at ease: an empty node draws no guests.
    let run = run("
        pve1 cpu=16 ram=64 | 101 cpu=3 mem=8 | 102 cpu=3 mem=8
        pve2 cpu=16 ram=64 | 103 cpu=3 mem=8 | 104 cpu=3 mem=8
        pve3 cpu=16 ram=64")
    .run;
    assert_eq!(run.decisions.len(), 0, "{}", told(&run));
}

#[test]
fn a_node_in_maintenance_is_emptied_within_the_limits() {
    let run = run("
        pve1 cpu=16 ram=64 maintenance | 101 cpu=1 mem=4 | 102 cpu=1 mem=4
        pve2 cpu=16 ram=64
        pve3 cpu=16 ram=64")
    .run;
    assert_eq!(told(&run), "\
101 pve1->pve2 recommended: passed all filters: cluster score 40.0 -> 20.0; mode advise leaves the move to you
102 pve1->pve3 skipped: another guest already moves out of pve1; one at a time
pve1: pve1: 1 move(s) out of it and 0 into it are decided in this run; best move is guest 102 to pve3; it waits: another guest already moves out of pve1; one at a time
pve2: pve2: 0 move(s) out of it and 1 into it are decided in this run
pve3: pve3 runs no guest");
}

#[test]
fn names_may_repeat_because_vmids_decide() {
    let run = run("
        pve1 cpu=16 ram=64 | 101 name=web cpu=7 mem=4 | 102 name=web cpu=8 mem=4
        pve2 cpu=16 ram=64 | 103 name=web cpu=1 mem=4")
    .run;
    let moved: Vec<_> = run.decisions.iter().map(|d| (d.recommendation.guest.get(), d.action)).collect();
    assert_eq!(moved[0], (101, Action::Recommended), "{}", told(&run));
}

#[test]
fn a_cpu_figure_that_is_missing_is_not_zero() {
    let explained = run("
        pve1 cpu=16 ram=64 base=14 | 101 cpu=3 mem=4 unknown
        pve2 cpu=16 ram=64 | 102 cpu=1");
    assert_eq!(explained.run.decisions.len(), 0);
    assert!(explained.run.scores[0].score.get() > 80.0, "the load itself still counts");
    assert_eq!(explained.guests[0].reason.to_string(), "its load is not known yet");
}

#[test]
fn every_guest_that_stays_has_its_reason() {
    let explained = run("
        pve1 cpu=16 ram=64 | 101 cpu=7 mem=4 tags=ignore | 102 cpu=8 mem=50 | 103 stopped | 104 template stopped | 105 lock=backup | 106 cpu=0.01 mem=0.05
        pve2 cpu=16 ram=32 | 107 cpu=1");
    let told: Vec<_> =
        explained.guests.iter().map(|stay| format!("{}: {}", stay.guest, stay.reason)).collect();
    assert_eq!(
        told.join("\n"),
        "\
102: no other node has room for its 50.0 GiB and the memory reserve
103: is not running, so moving it relieves nobody
104: is a template
105: is locked (backup); wait for that task, or run `qm unlock` or `pct unlock` if it is left over
106: best candidate is guest 106 to pve2: it improves the cluster by only 0.36 points, 0.87 are needed
107: pve2 is at score 10: nothing to relieve"
    );
}

#[test]
fn persistence_counts_consecutive_runs() {
    let mut policy = Policy::default();
    policy.intelligent_migrations.enabled = Some(true);
    let mut snapshot = fixture::snapshot(TWO);
    let calm = fixture::snapshot("pve1 | 101 cpu=1\npve2 | 102 cpu=1\npve3 | 103 cpu=1");
    let mut memory = Memory::default();
    let mut told = Vec::new();
    let mut step = |snapshot: &mut crate::Snapshot, minutes: u64| {
        snapshot.at = snapshot.at.after(std::time::Duration::from_secs(60 * minutes));
        let run = crate::decide(snapshot, &policy, &memory);
        memory = run.memory_out.clone();
        told.push(run.decisions.first().map_or_else(
            || "nothing".into(),
            |d| match d.action {
                Action::Observing => d.reason.to_string(),
                action => action.to_string(),
            },
        ));
    };
    for _ in 0..4 {
        step(&mut snapshot, 1);
    }
    let mut paused = snapshot.clone();
    paused.paused = Some(String::new());
    step(&mut paused, 1); // Not looked: not forgotten.
    step(&mut snapshot, 2);
    let mut calm = crate::Snapshot { at: snapshot.at, ..calm };
    step(&mut calm, 1); // Gone: forgotten.
    step(&mut snapshot, 2);
    step(&mut snapshot, 1);
    step(&mut snapshot, 61); // Out of the window: starts again.
    assert_eq!(
        told,
        [
            "observing: 1/3 periods",
            "observing: 2/3 periods",
            "recommended",
            "recommended",
            "nothing",
            "recommended",
            "nothing",
            "observing: 1/3 periods",
            "observing: 2/3 periods",
            "observing: 1/3 periods",
        ]
    );
}

#[test]
fn the_mode_names_the_action() {
    for (mode, action) in [
        (Mode::Advise, Action::Recommended),
        (Mode::Approve, Action::AwaitingApproval),
        (Mode::Auto, Action::Pending),
    ] {
        let run = run_with(TWO, &Policy { mode, ..Policy::default() }).run;
        assert_eq!(run.decisions[0].action, action);
    }
}

#[test]
fn limits_skip_what_is_too_much() {
    let hot = |n: u32| format!("pve{n} cpu=16 ram=64 | {n}01 cpu=7 mem=4 | {n}02 cpu=8 mem=4\n");
    let fleet = format!(
        "{}{}{}{}pve5 cpu=16 ram=64\npve6 cpu=16 ram=64\npve7 cpu=16 ram=64\npve8 cpu=16 ram=64",
        hot(1),
        hot(2),
        hot(3),
        hot(4)
    );
    let reasons = |policy: &Policy, more: &str| {
        let run = run_with(&format!("{fleet}\n{more}"), policy).run;
        run.decisions
            .iter()
            .map(|d| format!("{} {}", d.action, d.reason.code()))
            .collect::<Vec<_>>()
            .join(", ")
    };
    assert_eq!(
        reasons(&Policy::default(), ""),
        "recommended advised, recommended advised, skipped limit_concurrent, skipped limit_concurrent"
    );
    let policy = Policy { max_concurrent_migrations: 9, ..Policy::default() };
    assert_eq!(
        reasons(&policy, ""),
        "recommended advised, recommended advised, recommended advised, skipped limit_run"
    );
    let moved: String = (0..8).map(|n| format!("moved 900 pve1->pve2 {}m\n", 100 + n)).collect();
    let policy = Policy { max_migrations_per_day: 1, ..policy };
    assert_eq!(
        reasons(&policy, &moved),
        "skipped limit_day, skipped limit_day, skipped limit_day, skipped limit_day"
    );
}
