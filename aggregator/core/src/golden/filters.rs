//! Each filter's answer to a move, as a sentence.

use super::*;

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
        pve1 cpu=16 ram=64 | 101 cpu=8 mem=4 | 102 cpu=4 mem=4
        pve2 cpu=16 ram=64 base=1";
    check(Step::Conflict, fleet, "101 -> pve2", "pass");
    let after = |fleet: &mut Fleet| fleet.apply(1, 1);
    assert_eq!(
        judge_after(Step::Conflict, &Policy::default(), fleet, after, "101 -> pve2"),
        "filtered: with the other moves of this run pve2 would reach 81 % cpu (limit 70 %)"
    );
}

#[test]
fn a_source_that_the_run_has_relieved_makes_no_conflict() {
    let fleet = "
        pve1 cpu=16 ram=64 | 101 cpu=8 mem=4 | 102 cpu=7 mem=4
        pve2 cpu=16 ram=64
        pve3 cpu=16 ram=64 base=5";
    let after = |fleet: &mut Fleet| fleet.apply(0, 1);
    let judged = |step| judge_after(step, &Policy::default(), fleet, after, "102 -> pve3");
    // Nothing of the run went to pve3: it would be too full by this move alone, now that pve1 is not full any more.
    assert_eq!(judged(Step::Conflict), "pass");
    assert_eq!(judged(Step::Improvement), "filtered: pve3 would reach 75 % cpu; its limit is 70 %");
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
        (
            "evenkeel-pim-pve1",
            "filtered: tag evenkeel-pim-pve1 is not understood, so the guest is left alone; correct or remove it",
        ),
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
        "pass: cluster score 10.0 -> 0.0: better by 10.01 points",
    );
    check(step, TWO, "101 -> pve2", "pass: cluster score 10.0 -> 0.0: better by 10.01 points");
    check(
        step,
        "
        pve1 cpu=16 ram=64 | 101 cpu=7 mem=4
        pve2 cpu=16 ram=64",
        "101 -> pve2",
        "filtered: cluster score 0.0 -> 0.0: better by 0.00 points, 0.88 are needed",
    );
    // 64 GiB, 10 % reserve: 57.6 usable, 2 in use by the host.
    check(
        step,
        "
        pve1 cpu=16 ram=64 | 101 cpu=7 mem=55.5 | 102 cpu=8 mem=4
        pve2 cpu=16 ram=64
        pve3 cpu=16 ram=64",
        "101 -> pve2",
        "pass: cluster score 28.6 -> 8.3: better by 20.31 points",
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
        pve2 cpu=16 ram=64 | 103 cpu=6.5 mem=4",
        "101 -> pve2",
        "filtered: pve2 would reach 88 % cpu; its limit is 70 %",
    );
}
