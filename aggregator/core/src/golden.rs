//! Whole runs and trails as text: what an admin reads.

use evenkeel_common::decision::{Action, Step};

use crate::pipeline::{self, Context, Facts};
use crate::score::fleet::Fleet;
use crate::{Explained, Memory, Mode, Policy, Run, explain, fixture};

/// The answer of one filter to one move, on a cluster as it stands.
fn judge(step: Step, policy: &Policy, fleet: &str, migration: &str) -> String {
    let snapshot = fixture::snapshot(fleet).sorted();
    let loads = Fleet::of(&snapshot, policy);
    let facts = Facts::of(&snapshot);
    let context = Context { snapshot: &snapshot, fleet: &loads, before: &loads, facts: &facts, policy };
    let migration = snapshot.resolve(&fixture::candidate(migration)).expect("a possible move");
    let trail = pipeline::explain(&pipeline::standard(policy), &migration, &context);
    let entry = &trail.0[Step::ALL.iter().position(|known| *known == step).unwrap()];
    assert_eq!(entry.filter, step, "the pipeline is not in the order of its names");
    match entry.verdict.reason() {
        Some(reason) => format!("{}: {reason}", entry.verdict.name()),
        None => entry.verdict.name().to_owned(),
    }
}

#[track_caller]
fn check(step: Step, fleet: &str, migration: &str, expected: &str) {
    assert_eq!(judge(step, &Policy::default(), fleet, migration), expected);
}

fn run(fleet: &str) -> Explained {
    run_with(fleet, &Policy::default())
}

fn run_with(fleet: &str, policy: &Policy) -> Explained {
    explain(&fixture::snapshot(fleet), policy, &Memory::default())
}

/// A line per decision and per node that stays.
fn told(run: &Run) -> String {
    let mut lines = Vec::new();
    lines.extend(run.suppressed.iter().map(|reason| format!("suppressed: {reason}")));
    lines.extend(run.warnings.iter().map(|reason| format!("warning: {reason}")));
    for decision in &run.decisions {
        let r = &decision.recommendation;
        lines
            .push(format!("{} {}->{} {}: {}", r.guest, r.source, r.target, decision.action, decision.reason));
    }
    for stay in &run.stays {
        let reasons: Vec<_> = stay.reasons.iter().map(ToString::to_string).collect();
        lines.push(format!("{}: {}", stay.node, reasons.join("; ")));
    }
    lines.join("\n")
}

const TWO: &str = "
    pve1 cpu=16 ram=64 | 101 cpu=4 mem=4 | 102 cpu=4 mem=4 | 103 cpu=4 mem=4
    pve2 cpu=16 ram=64
    pve3 cpu=16 ram=64";

fn two(more: &str) -> String {
    format!("{TWO}\n{more}")
}

#[test]
fn cooldown() {
    let step = Step::Cooldown;
    check(step, TWO, "101 -> pve2", "pass");
    check(
        step,
        &two("moved 101 pve3->pve1 59m foreign"),
        "101 -> pve2",
        "filtered: moved 59 min ago by someone else, rests 60 min (1 move(s) in 24 h)",
    );
    check(
        step,
        &two("moved 101 pve3->pve1 60m"),
        "101 -> pve2",
        "pass: last moved 60 min ago, rest of 60 min is over",
    );
    check(step, &two("moved 101 pve3->pve1 5m failed"), "101 -> pve2", "pass");
    check(step, &two("moved 102 pve3->pve1 5m"), "101 -> pve2", "pass");
    check(
        step,
        &two("moved 101 pve3->pve1 90m\nmoved 101 pve1->pve3 200m\nmoved 101 pve3->pve1 300m foreign"),
        "101 -> pve2",
        "filtered: moved 90 min ago by evenkeel, rests 240 min (3 move(s) in 24 h)",
    );
}

#[test]
fn rollback() {
    let step = Step::Rollback;
    check(
        step,
        &two("moved 101 pve2->pve1 2879m"),
        "101 -> pve2",
        "filtered: would go back to pve2, which it left 48.0 h ago (not within 48 h)",
    );
    check(step, &two("moved 101 pve2->pve1 2880m"), "101 -> pve2", "pass");
    check(step, &two("moved 101 pve2->pve1 120m"), "101 -> pve3", "pass");
    // It just left pve3; pve2 is further back, which is the next filter's matter.
    check(step, &two("moved 101 pve2->pve3 200m\nmoved 101 pve3->pve1 100m"), "101 -> pve2", "pass");
}

#[test]
fn cycle() {
    let step = Step::Cycle;
    let history = "moved 101 pve2->pve3 2000m\nmoved 101 pve3->pve1 1000m";
    check(step, &two(history), "101 -> pve2", "filtered: cycle detected pve2->pve3->pve1->pve2 within 48 h");
    check(step, &two("moved 101 pve2->pve3 2880m\nmoved 101 pve3->pve1 1000m"), "101 -> pve2", "pass");
    check(step, &two(history), "102 -> pve2", "pass");
    let mut off = Policy::default();
    off.intelligent_migrations.cycle_detection_enabled = Some(false);
    assert_eq!(judge(step, &off, &two(history), "101 -> pve2"), "not_enabled");
}

#[test]
fn conflict() {
    let step = Step::Conflict;
    check(step, TWO, "101 -> pve2", "pass");
    check(
        step,
        &two("flying 101 pve1->pve3"),
        "101 -> pve2",
        "filtered: guest 101 is being moved to pve3 by evenkeel",
    );
    check(step, &two("flying 102 pve1->pve3"), "101 -> pve2", "pass");
}

#[test]
fn moves_that_together_overload_the_target_conflict() {
    let fleet = "
        pve1 cpu=16 ram=64 | 101 cpu=8 mem=4 | 102 cpu=4 mem=4 | 103 cpu=4 mem=4 | 104 cpu=4 mem=4 | 105 cpu=4 mem=4
        pve2 cpu=16 ram=64 base=1";
    let run = run(fleet).run;
    let held = run.decisions.iter().find(|d| d.filter == Some(Step::Conflict));
    let objection = held.map(|d| (d.reason.to_string(), d.recommendation.conflict.is_some()));
    assert_eq!(
        objection,
        Some(("with the other moves of this run pve2 would reach 81 % cpu (limit 70 %)".to_owned(), true)),
        "{}",
        told(&run)
    );
}

#[test]
fn affinity_tags() {
    let step = Step::Affinity;
    let tagged = |tags: &str| {
        format!(
            "pve1 cpu=16 ram=64 | 101 tags={tags} | 102 tags=plb_affinity_web,evenkeel-with-x,affinity_y
             pve2 cpu=16 ram=64 | 103 tags=evenkeel-anti-db,plb_anti_affinity_db,exclude_db
             pve3 cpu=16 ram=64"
        )
    };
    for (tags, expected) in [
        ("web,prod", "pass"),
        ("auto-migrate-ok", "pass"),
        ("evenkeel-ignore", "filtered: tag evenkeel-ignore tells balancers to leave it alone"),
        ("plb_ignore_me", "filtered: tag plb_ignore_me tells balancers to leave it alone"),
        ("ignore", "filtered: tag ignore tells balancers to leave it alone"),
        ("no-auto-migrate", "filtered: tag no-auto-migrate tells balancers to leave it alone"),
        ("evenkeel-pin", "filtered: pinned to pve1 by tag evenkeel-pin"),
        ("evenkeel-pin-pve1", "filtered: pinned to pve1 by tag evenkeel-pin-pve1"),
        ("evenkeel-pin-pve1,evenkeel-pin-PVE2", "pass"),
        ("plb_pin_pve3", "filtered: pinned to pve3 by tag plb_pin_pve3"),
        ("plb_pin_gone", "filtered: pinned to no node of this cluster by tag plb_pin_gone"),
        (
            "evenkeel-anti-db",
            "filtered: pve2 runs guest 103 of the same anti-affinity group (tag evenkeel-anti-db)",
        ),
        (
            "plb_anti_affinity_db",
            "filtered: pve2 runs guest 103 of the same anti-affinity group (tag plb_anti_affinity_db)",
        ),
        ("exclude_db", "filtered: pve2 runs guest 103 of the same anti-affinity group (tag exclude_db)"),
        ("exclude_other", "pass"),
        (
            "plb_affinity_web",
            "filtered: its affinity group (tag plb_affinity_web) stays together: guest 102 on pve1",
        ),
        (
            "evenkeel-with-x",
            "filtered: its affinity group (tag evenkeel-with-x) stays together: guest 102 on pve1",
        ),
        ("affinity_y", "filtered: its affinity group (tag affinity_y) stays together: guest 102 on pve1"),
        ("affinity_alone", "pass"),
        ("evenkeel-pim-pve1", "filtered: tag evenkeel-pim-pve1 tells balancers to leave it alone"),
    ] {
        assert_eq!(judge(step, &Policy::default(), &tagged(tags), "101 -> pve2"), expected, "{tags}");
    }
}

#[test]
fn a_split_group_may_gather_but_not_split_further() {
    let fleet = "
        pve1 cpu=16 ram=64 | 101 tags=affinity_web
        pve2 cpu=16 ram=64 | 102 tags=affinity_web | 103 tags=affinity_web
        pve3 cpu=16 ram=64";
    check(Step::Affinity, fleet, "101 -> pve2", "pass");
    check(
        Step::Affinity,
        fleet,
        "102 -> pve1",
        "filtered: its affinity group (tag affinity_web) stays together: guest 103 on pve2",
    );
}

#[test]
fn affinity_rules_of_ha() {
    let step = Step::Affinity;
    let ha = |more: &str| {
        format!(
            "pve1 cpu=16 ram=64 | 101 ha | 102 ha
             pve2 cpu=16 ram=64 | 103 ha | 104 ha=error
             pve3 cpu=16 ram=64
             pve4 offline
             {more}"
        )
    };
    for (more, migration, expected) in [
        ("", "101 -> pve2", "pass"),
        ("rule r only 101 = pve1,pve3", "101 -> pve2", "filtered: HA rule r allows only pve1, pve3"),
        ("rule r only 101 = pve1,pve2", "101 -> pve2", "pass"),
        ("rule r only 102 = pve1,pve3", "101 -> pve2", "pass"),
        // The highest priority that is available wins; HA would move it back.
        ("rule r only 101 = pve1:2,pve2:1", "101 -> pve2", "filtered: HA rule r allows only pve1"),
        (
            "rule r prefer 101 = pve1",
            "101 -> pve2",
            "filtered: HA rule r prefers and would move it back to pve1",
        ),
        ("rule r prefer 101 = pve4:9,pve2:1", "101 -> pve2", "pass"),
        ("rule r prefer 101 = pve4", "101 -> pve2", "pass"),
        ("rule r only 101 = pve4", "101 -> pve2", "filtered: HA rule r allows only pve4"),
        ("rule r apart 101,103", "101 -> pve2", "filtered: HA rule r keeps it apart from guest 103 on pve2"),
        ("rule r apart 101,102", "101 -> pve2", "pass"),
        (
            "rule r together 101,102",
            "101 -> pve2",
            "filtered: HA rule r would move guest 102 along from pve1",
        ),
        ("rule r together 101,103", "101 -> pve2", "pass"),
        ("", "104 -> pve3", "filtered: its HA state is error; only started guests are moved"),
        (
            "pve-rebalances",
            "101 -> pve2",
            "filtered: Proxmox VE's own auto-rebalance is on, so HA guests are left to it",
        ),
        ("", "101 -> pve4", "filtered: pve4 is not online"),
    ] {
        assert_eq!(judge(step, &Policy::default(), &ha(more), migration), expected, "{more} {migration}");
    }
}

#[test]
fn affinity_of_hardware_and_nodes() {
    let step = Step::Affinity;
    let fleet = |guest: &str, target: &str| {
        format!("pve1 cpu=16 ram=64 model=A storages=ceph,nfs | 101 {guest}\npve2 ram=64 {target}")
    };
    for (guest, target, expected) in [
        ("cpu=1", "cpu=16", "pass"),
        ("cpu=1", "maintenance", "filtered: pve2 is in maintenance"),
        (
            "cpu=1",
            "skew=2500",
            "filtered: pve2 takes no part: the clock of pve2 is off by 2500 ms; at most 2000 ms is trusted",
        ),
        ("dev=hostpci0,usb0", "cpu=16", "filtered: uses devices of its node: hostpci0, usb0"),
        ("disks=scsi0", "cpu=16", "filtered: has disks that are not on shared storage: scsi0"),
        ("storages=ceph", "storages=ceph", "pass"),
        ("storages=ceph,nfs", "storages=ceph", "filtered: storage nfs is not available on pve2"),
        ("vcpus=8", "cpu=8", "pass"),
        ("vcpus=9", "cpu=8", "filtered: has 9 vCPUs, pve2 only 8 cores"),
        ("host", "model=A", "pass"),
        ("host", "model=B", "filtered: its CPU type is host: A and B are not the same"),
        ("lxc", "cpu=16", "filtered: a container moves by restart, which tag evenkeel-restart-ok must allow"),
        ("lxc tags=evenkeel-restart-ok", "cpu=16", "pass"),
    ] {
        assert_eq!(
            judge(step, &Policy::default(), &fleet(guest, target), "101 -> pve2"),
            expected,
            "{guest}"
        );
    }
}

#[test]
fn improvement() {
    let step = Step::Improvement;
    check(
        step,
        "
        pve1 cpu=16 ram=64 | 101 cpu=7 mem=4 | 102 cpu=8 mem=4
        pve2 cpu=16 ram=64",
        "101 -> pve2",
        "pass: cluster score 9.7 -> 0.1: better by 9.59 points",
    );
    check(step, TWO, "101 -> pve2", "pass: cluster score 1.7 -> 0.1: better by 1.65 points");
    check(
        step,
        "
        pve1 cpu=16 ram=64 | 101 cpu=7 mem=4
        pve2 cpu=16 ram=64",
        "101 -> pve2",
        "filtered: cluster score 0.0 -> 0.0: better by 0.00 points, 0.28 are needed",
    );
    // 64 GiB, 10 % reserve: 57.6 usable, 2 in use by the host.
    check(
        step,
        "
        pve1 cpu=16 ram=64 | 101 cpu=7 mem=55.5 | 102 cpu=8 mem=4
        pve2 cpu=16 ram=64
        pve3 cpu=16 ram=64",
        "101 -> pve2",
        "pass: cluster score 17.4 -> 3.6: better by 13.88 points",
    );
    check(
        step,
        "
        pve1 cpu=16 ram=64 | 101 cpu=7 mem=55.7 | 102 cpu=8 mem=4
        pve2 cpu=16 ram=64
        pve3 cpu=16 ram=64",
        "101 -> pve2",
        "filtered: pve2 would keep 6.3 GiB of memory free; its reserve is 6.4 GiB",
    );
    check(
        step,
        "
        pve1 cpu=16 ram=64 | 101 cpu=7 mem=4 | 102 cpu=6 mem=4
        pve2 cpu=16 ram=64 | 103 cpu=4 mem=4",
        "101 -> pve2",
        "filtered: pve2 would reach 72 % cpu; its limit is 70 %",
    );
}

#[test]
fn the_seven_others_hold_their_place() {
    for step in [
        Step::Confidence,
        Step::Risk,
        Step::Trend,
        Step::Outcome,
        Step::Pattern,
        Step::CostBenefit,
        Step::GuestSuccess,
    ] {
        check(step, TWO, "101 -> pve2", "not_enabled");
    }
}

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
    assert_eq!(text, include_str!("../tests/golden/hot_node.txt"), "\n{text}");
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
pve1: best candidate is guest 101 to pve2: it improves the cluster by only 0.00 points, 0.36 are needed
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
101 pve1->pve2 recommended: passed all filters: cluster score 10.0 -> 5.0; mode advise leaves the move to you
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
106: best candidate is guest 106 to pve2: it improves the cluster by only 0.15 points, 0.21 are needed
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
