//! Whether a plan leaves nobody behind in silence and can be carried out.

use std::collections::BTreeSet;

use evenkeel_common::decision::Recommendation;
use proptest::prelude::*;

use super::*;
use crate::{Candidate, fixture};

fn drain_of(fleet: &str) -> Drain {
    drain(&fixture::snapshot(fleet), &Policy::default(), &NodeId::new("pve1").unwrap()).unwrap()
}

/// Moves, guests that stay, cautions, and nodes that must not fail meanwhile, a line each.
fn told(answer: &Drain) -> String {
    let mut lines = Vec::new();
    lines.extend(answer.problems.iter().map(|reason| format!("no plan: {reason}")));
    lines.extend(answer.moves.iter().map(|outgoing| {
        let Recommendation { guest, target, .. } = &outgoing.recommendation;
        let how = match (outgoing.restart, outgoing.allowed) {
            (false, _) => "",
            (true, true) => " by restart",
            (true, false) => " by restart, not by evenkeel",
        };
        format!("{guest} -> {target}{how}")
    }));
    lines.extend(answer.blocked.iter().map(|blocked| format!("{}: {}", blocked.guest, blocked.reason)));
    lines.extend(answer.cautions.iter().map(|reason| format!("mind: {reason}")));
    lines.extend(
        answer.failures.iter().map(|f| format!("{} may not fail: {} for {}", f.node, f.memory, f.guests)),
    );
    assert_eq!(answer.feasible, answer.blocked.is_empty() && answer.problems.is_empty());
    lines.join("\n")
}

#[test]
fn a_node_is_emptied_onto_the_others_by_their_load_and_the_minutes_add_up() {
    let answer = drain_of(
        "
        pve1 cpu=16 ram=64 | 101 cpu=2 mem=16 | 102 cpu=1 mem=8 | 103 mem=4 stopped | 104 template stopped
        pve2 cpu=16 ram=64 | 201 cpu=6 mem=16
        pve3 cpu=16 ram=64 | 301 cpu=1 mem=4
        pve4 cpu=16 ram=64 | 401 cpu=1 mem=4",
    );
    assert_eq!(told(&answer), "101 -> pve3\n102 -> pve4");
    assert_eq!(answer.resting.iter().map(|vmid| vmid.get()).collect::<Vec<_>>(), [103, 104]);
    let minutes: Vec<f64> = answer.moves.iter().map(|m| m.recommendation.cost.minutes).collect();
    assert!(minutes[0] > minutes[1] && (answer.minutes - minutes.iter().sum::<f64>()).abs() < 1e-9);
    assert!(
        answer.moves[0]
            .recommendation
            .evidence
            .contains(&Reason::SourceMaintenance { node: answer.node.clone() })
    );
    let nodes: Vec<_> = answer.after.iter().map(|node| node.node.as_str()).collect();
    assert_eq!(nodes, ["pve2", "pve3", "pve4"]);
    let pve3 = &answer.after[1];
    assert!((pve3.memory_after - pve3.memory_before - 25.0).abs() < 1e-9, "16 of 64 GiB: {pve3:?}");
    assert!(
        pve3.score_after > pve3.score_before && answer.after[0].score_after == answer.after[0].score_before
    );
}

#[test]
fn whatever_keeps_a_guest_is_told_for_each() {
    let answer = drain_of("
        pve1 ram=256 model=A | 101 dev=hostpci0 | 102 disks=scsi0 | 103 tags=evenkeel-pin | 104 ha | 105 mem=90 | 106 lock=backup | 107 unknown | 108 tags=ignore | 109 storages=nfs | 110 ha=error | 111 host | 112 lxc | 113 lxc tags=evenkeel-restart-ok | 114 tags=evenkeel-anti-a
        pve2 ram=64 storages=nfs maintenance
        pve3 ram=64 model=B | 301 tags=evenkeel-anti-a
        rule r1 only 104 = pve1");
    assert_eq!(
        told(&answer),
        "\
112 -> pve3 by restart, not by evenkeel
113 -> pve3 by restart
101: uses devices of its node: hostpci0
102: has disks that are not on shared storage: scsi0
103: pinned to pve1 by tag evenkeel-pin
104: HA rule r1 allows only pve1
105: no other node has room for its 90.0 GiB and the memory reserve
106: is locked (backup); wait for that task, or run `qm unlock` or `pct unlock` if it is left over
107: its load is not known yet
108: tag ignore tells balancers to leave it alone
109: storage nfs is not available on pve3
110: its HA state is error; only started guests are moved
111: its CPU type is host: A and B are not the same
114: pve3 runs guest 301 of the same anti-affinity group (tag evenkeel-anti-a)
pve3 may not fail: 12.0 GiB for 3"
    );
    let stuck = answer.blocked.iter().find(|blocked| blocked.guest.get() == 109).unwrap();
    let targets: Vec<_> = stuck.targets.iter().map(|(node, reason)| format!("{node}: {reason}")).collect();
    assert_eq!(targets, ["pve2: pve2 is in maintenance", "pve3: storage nfs is not available on pve3"]);
}

#[test]
fn a_group_that_belongs_together_leaves_together_or_not_at_all() {
    let fleet = "
        pve1 ram=64 | 101 mem=10 tags=evenkeel-with-db | 102 mem=10 tags=evenkeel-with-db | 103 mem=4
        pve2 ram=64 | 201 mem=40
        pve3 ram=64 | 301 mem=30";
    let answer = drain_of(fleet);
    assert_eq!(
        told(&answer).lines().filter(|line| line.starts_with("10")).collect::<Vec<_>>(),
        ["101 -> pve3", "102 -> pve3", "103 -> pve2"]
    );
    let answer = drain_of(&fleet.replace("301 mem=30", "301 mem=40"));
    assert_eq!(answer.blocked.iter().map(|blocked| blocked.guest.get()).collect::<Vec<_>>(), [101, 102]);
    // A member that can not leave keeps the others.
    let answer = drain_of(&fleet.replace("102 mem=10", "102 mem=10 lock=backup"));
    assert!(
        told(&answer)
            .contains("101: its affinity group (tag evenkeel-with-db) stays together: guest 102 on pve1")
    );
    // One that does not run keeps nobody.
    let answer = drain_of(&fleet.replace("102 mem=10", "102 mem=10 stopped"));
    assert!(answer.feasible, "{}", told(&answer));
    let ruled = drain_of(
        "
        pve1 ram=64 | 101 mem=10 ha | 102 mem=10 ha
        pve2 ram=64 | 201 mem=44
        pve3 ram=64 | 301 mem=30
        rule r together 101,102",
    );
    assert_eq!(told(&ruled).lines().take(2).collect::<Vec<_>>(), ["101 -> pve3", "102 -> pve3"]);
}

#[test]
fn a_guest_with_few_targets_goes_before_one_that_could_take_its_place() {
    // 101 would be taken first for its size and to the emptier pve2, where 102 has to go.
    let answer = drain_of(
        "
        pve1 ram=128 | 101 mem=30 | 102 mem=20 tags=evenkeel-pin-pve2
        pve2 ram=64 | 201 mem=20
        pve3 ram=64 | 301 mem=24",
    );
    assert_eq!(told(&answer).lines().take(2).collect::<Vec<_>>(), ["102 -> pve2", "101 -> pve3"]);
    assert!(answer.feasible);
}

#[test]
fn on_stale_or_disputed_data_there_is_no_plan_and_a_pause_is_no_obstacle() {
    for (more, expected) in [
        ("pve9 age=900", "no plan: the data of pve9 is 900 s old; at most 30 s is trusted"),
        (
            "pve9 no-agent",
            "no plan: pve9 has no agent that reports; enrol one with `evenkeelctl join-token create --node pve9`",
        ),
        ("pve9 | 901 pve=pve2", "no plan: agents see guest 901 on pve9, Proxmox VE on pve2"),
        (
            "paused change of disks",
            "101 -> pve2\nmind: paused by an operator: change of disks\npve2 may not fail: 4.0 GiB for 1",
        ),
        (
            "pve-rebalances",
            "101 -> pve2\nmind: Proxmox VE's own auto-rebalance is on, so HA guests are left to it\npve2 may not fail: 4.0 GiB for 1",
        ),
    ] {
        let answer = drain_of(&format!("pve1 | 101\npve2\n{more}"));
        assert_eq!(told(&answer), expected);
    }
    let answer = drain_of("pve1 offline\npve2\npve3");
    assert_eq!(told(&answer), "no plan: pve1 is not online");
    let node = NodeId::new("pve7").unwrap();
    let error = drain(&fixture::snapshot("pve1\npve2"), &Policy::default(), &node).unwrap_err();
    assert_eq!(error.to_string(), "cluster lab has no node pve7; it has pve1, pve2");
}

#[test]
fn it_is_told_which_node_could_not_fail_afterwards_and_which_gets_too_full() {
    let fleet = "
        pve1 cpu=16 ram=64 | 101 cpu=6 mem=20
        pve2 cpu=16 ram=64 | 201 cpu=6 mem=20
        pve3 cpu=16 ram=64 | 301 cpu=6 mem=22";
    let answer = drain_of(fleet);
    assert_eq!(
        told(&answer),
        "\
101 -> pve2
mind: pve2 would reach 78 % cpu; its limit is 70 %"
    );
    let answer = drain_of(&fleet.replace("301 cpu=6 mem=22", "301 cpu=6 mem=44"));
    assert_eq!(
        answer.failures.iter().map(|f| (f.node.as_str(), f.guests)).collect::<Vec<_>>(),
        [("pve2", 2), ("pve3", 1)]
    );
}

#[test]
fn the_plan_can_be_carried_out_as_it_stands() {
    let fleet = fixture::snapshot("
        pve1 cpu=32 ram=256 | 101 mem=30 cpu=2 | 102 mem=22 cpu=3 tags=evenkeel-anti-x | 103 mem=9 tags=evenkeel-anti-x | 104 mem=17 tags=evenkeel-with-y | 105 mem=3 tags=evenkeel-with-y
        pve2 cpu=16 ram=64 | 201 mem=10
        pve3 cpu=16 ram=64 | 301 mem=21 tags=evenkeel-anti-x
        pve4 cpu=16 ram=96 | 401 mem=20");
    let answer = drain(&fleet, &Policy::default(), &NodeId::new("pve1").unwrap()).unwrap();
    assert!(answer.feasible, "{}", told(&answer));
    let mut after = fleet.sorted();
    for outgoing in &answer.moves {
        let Recommendation { guest, target, .. } = outgoing.recommendation.clone();
        assert!(after.apply(&Candidate { guest, target }));
        for node in &after.nodes[1..] {
            assert!(node.memory_used.as_f64() <= 0.9 * node.memory.as_f64(), "{}", node.id);
        }
    }
    assert!(after.guests.iter().all(|guest| guest.node.as_str() != "pve1"));
    let place = |vmid: u32| &after.guests.iter().find(|guest| guest.vmid.get() == vmid).unwrap().node;
    assert!(place(102) != place(103) && place(102) != place(301) && place(103) != place(301));
    assert_eq!(place(104), place(105));
}

/// A node's guests: memory in GiB, and a word on each.
fn guests() -> impl Strategy<Value = Vec<(f64, &'static str)>> {
    let word = prop::sample::select(vec![
        "",
        "",
        "",
        "lxc",
        "stopped",
        "lock=backup",
        "tags=ignore",
        "tags=evenkeel-anti-a",
        "tags=evenkeel-with-b",
        "tags=evenkeel-with-b,evenkeel-anti-a",
        "tags=evenkeel-pin-n2",
        "dev=usb0",
        "ha",
    ]);
    prop::collection::vec((0.5..40.0f64, word), 0..8)
}

proptest! {
    #[test]
    fn no_guest_is_forgotten_and_no_plan_overfills_or_breaks_a_group(
        nodes in prop::collection::vec((40..200u32, guests()), 2..6),
    ) {
        let mut vmid = 99;
        let lines: Vec<String> = nodes.iter().enumerate().map(|(index, (ram, guests))| {
            let guests = guests.iter().map(|(memory, word)| {
                vmid += 1;
                format!(" | {vmid} mem={memory:.1} {word}")
            });
            format!("n{index} ram={ram}{}", guests.collect::<String>())
        }).collect();
        let fleet = fixture::snapshot(&lines.join("\n")).sorted();
        let node = NodeId::new("n0").unwrap();
        let plan = drain(&fleet, &Policy::default(), &node).unwrap();
        let mut seen: Vec<Vmid> = plan.moves.iter().map(|one| one.recommendation.guest).collect();
        seen.extend(plan.blocked.iter().map(|blocked| blocked.guest));
        seen.extend(&plan.resting);
        seen.sort_unstable();
        let here = fleet.guests.iter().filter(|guest| guest.node == node).map(|guest| guest.vmid);
        prop_assert_eq!(seen, here.collect::<Vec<_>>());

        let mut after = fleet.clone();
        let mut targets = BTreeSet::new();
        for one in &plan.moves {
            let Recommendation { guest, target, .. } = one.recommendation.clone();
            targets.insert(target.clone());
            let applied = after.apply(&Candidate { guest, target });
            prop_assert!(applied);
        }
        for target in after.nodes.iter().filter(|node| targets.contains(&node.id)) {
            prop_assert!(target.memory_used.as_f64() <= 0.9 * target.memory.as_f64() + 2.0);
            let running = after.guests.iter().filter(|guest| guest.node == target.id);
            let apart: Vec<_> = running.filter(|guest| guest.tags.iter().any(|tag| tag == "evenkeel-anti-a")).collect();
            let came = |guest: &&GuestState| plan.moves.iter().any(|one| one.recommendation.guest == guest.vmid);
            prop_assert!(apart.len() < 2 || !apart.iter().any(came), "{apart:?}");
        }
        // Whoever belongs together left together, or stayed.
        let together = plan.moves.iter().filter(|one| {
            let guest = fleet.guest_index(one.recommendation.guest).map(|index| &fleet.guests[index]);
            guest.is_some_and(|guest| guest.tags.iter().any(|tag| tag == "evenkeel-with-b"))
        });
        let to: BTreeSet<_> = together.map(|one| &one.recommendation.target).collect();
        prop_assert!(to.len() < 2, "{to:?}");
    }
}
