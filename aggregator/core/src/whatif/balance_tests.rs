//! Whether a plan puts a cluster in order, says what it does not do, and can be carried out.

use std::collections::BTreeMap;

use evenkeel_common::id::{NodeId, Vmid};
use proptest::prelude::*;

use super::*;
use crate::{Candidate, Mode, Preset, decide, fixture};

/// One node too full, one busy, two with room.
const HOT: &str = "
    pve1 cpu=16 ram=64 | 101 cpu=4 mem=16 | 102 cpu=4 mem=16 | 103 cpu=3 mem=16 | 104 cpu=3 mem=10
    pve2 cpu=16 ram=64 | 201 cpu=6 mem=16
    pve3 cpu=16 ram=64 | 301 cpu=1 mem=4
    pve4 cpu=16 ram=64 | 401 cpu=1 mem=4";

/// The same work on every node.
const CALM: &str = "pve1 | 101 cpu=2\npve2 | 201 cpu=2\npve3 | 301 cpu=2";

fn plan(fleet: &str, restarts: bool) -> Balance {
    balance(&fixture::snapshot(fleet), &Policy::default(), restarts)
}

/// Moves and cautions, or why there are none, a line each.
fn told(answer: &Balance) -> String {
    let mut lines = Vec::new();
    lines.extend(answer.problems.iter().map(|reason| format!("no plan: {reason}")));
    lines.extend(answer.calm.iter().map(|reason| format!("calm: {reason}")));
    lines.extend(answer.moves.iter().map(|outgoing| {
        let Recommendation { guest, source, target, .. } = &outgoing.recommendation;
        let how = match (outgoing.restart, outgoing.allowed) {
            (false, _) => "",
            (true, true) => " by restart",
            (true, false) => " by restart, not by evenkeel",
        };
        format!("{guest} {source}->{target}{how}")
    }));
    lines.extend(
        answer.held.iter().map(|held| format!("{} held: {}", held.recommendation.guest, held.reason)),
    );
    lines.extend(answer.cautions.iter().map(|reason| format!("mind: {reason}")));
    lines.join("\n")
}

/// The cluster with all moves made, after each of which `look` sees it.
fn made(fleet: &Snapshot, plan: &Balance, mut look: impl FnMut(&Snapshot, &NodeId)) -> Snapshot {
    let mut now = fleet.sorted();
    for one in &plan.moves {
        let target = &one.recommendation.target;
        for &guest in std::iter::once(&one.recommendation.guest).chain(one.recommendation.along()) {
            assert!(now.apply(&Candidate { guest, target: target.clone() }));
        }
        look(&now, target);
    }
    now
}

fn memory_kept(now: &Snapshot, target: &NodeId) {
    let node = &now.nodes[now.node_index(target).unwrap()];
    assert!(node.memory_used.as_f64() <= 0.9 * node.memory.as_f64() + 2.0, "{target} is overfilled");
}

#[test]
fn a_hot_cluster_is_put_in_order_by_moves_that_can_be_made_one_after_the_other() {
    let fleet = fixture::snapshot(HOT);
    let answer = balance(&fleet, &Policy::default(), false);
    assert_eq!(told(&answer), "101 pve1->pve3\n102 pve1->pve4");
    let minutes: f64 = answer.moves.iter().map(|one| one.recommendation.cost.minutes).sum();
    assert!(answer.minutes > 0.0 && (answer.minutes - minutes).abs() < 1e-9);
    let after = made(&fleet, &answer, memory_kept);

    // What is told of the nodes is what the cluster then looks like.
    let nodes: Vec<_> = answer.nodes.iter().map(|node| node.node.as_str()).collect();
    assert_eq!(nodes, ["pve1", "pve2", "pve3", "pve4"]);
    for (node, state) in answer.nodes.iter().zip(&after.nodes) {
        let memory = 100.0 * state.memory_used.as_f64() / state.memory.as_f64();
        assert!((node.memory_after - memory).abs() < 1e-6, "{node:?}");
    }
    let pve1 = &answer.nodes[0];
    assert!(pve1.score_before > 90.0 && pve1.score_after < 60.0, "{pve1:?}");
    let stays: Vec<_> = answer.stays.iter().map(|stay| stay.reasons[0].code()).collect();
    assert_eq!(stays, ["node_moves", "node_calm", "node_moves", "node_moves"]);
    assert_eq!(answer.failures, []);

    // The same cluster, in order: nothing more is to be done, and what was after is before now.
    let again = balance(&after, &Policy::default(), false);
    assert_eq!(again.moves, [], "{}", told(&again));
    let (before, then) = answer.imbalance.unwrap();
    assert!(then < before / 3.0, "{before} -> {then}");
    assert!((again.imbalance.unwrap().0 - then).abs() < 1e-6);
}

#[test]
fn imbalance_is_the_standard_deviation_of_the_mean_of_cpu_and_memory_over_nodes_that_take_guests() {
    // Expected 25 and 50 % of CPU, as much of memory: 25 and 50 in the mean, 12.5 away from theirs.
    let fleet = "
        pve1 cpu=16 ram=64 base=4 basemem=16
        pve2 cpu=16 ram=64 base=8 basemem=32";
    let imbalance = |fleet: &str| plan(fleet, false).imbalance.unwrap().0;
    assert!((imbalance(fleet) - 12.5).abs() < 1e-9, "{}", imbalance(fleet));
    let emptied = format!("{fleet}\npve3 maintenance\npve4 offline");
    assert!((imbalance(&emptied) - 12.5).abs() < 1e-9, "{}", imbalance(&emptied));
}

#[test]
fn a_calm_cluster_has_nothing_to_be_put_in_order() {
    let answer = plan(CALM, true);
    assert_eq!(
        told(&answer),
        "calm: the cluster is balanced: node scores within 0.0 points (threshold 8.0), no node over a limit"
    );
    assert_eq!((answer.minutes, answer.nodes.len(), answer.imbalance), (0.0, 3, Some((0.0, 0.0))));
    assert!(answer.nodes.iter().all(|node| node.score_before == node.score_after));
}

#[test]
fn stale_or_partial_data_give_no_plan_and_a_pause_only_a_caution() {
    for (more, expected) in [
        ("pve9 age=900", "no plan: the data of pve9 is 900 s old; at most 30 s is trusted"),
        (
            "pve9 no-agent",
            "no plan: pve9 has no agent that reports; enrol one with `evenkeelctl join-token create --node pve9`",
        ),
        ("pve9 | 901 pve=pve2", "no plan: agents see guest 901 on pve9, Proxmox VE on pve2"),
    ] {
        let answer = plan(&format!("{HOT}\n{more}"), false);
        assert_eq!(told(&answer), expected);
        assert_eq!(
            (answer.nodes.len(), answer.imbalance, answer.stays.len()),
            (0, None, 0),
            "all else is empty"
        );
    }
    let mut nonsense = fixture::snapshot(&format!("{HOT}\npaused change of disks"));
    nonsense.nodes[0].cpu_used = f64::NAN;
    let answer = balance(&nonsense, &Policy::default(), false);
    assert_eq!(
        told(&answer),
        "no plan: the data of pve1 can not be right: a load is negative or not a number"
    );
    assert_eq!(
        told(&plan("pve1 | 101", false)),
        "no plan: 1 node(s) of this cluster can take part; a move needs two"
    );

    for (more, expected) in [
        ("paused change of disks", "mind: paused by an operator: change of disks"),
        (
            "flying 301 pve3->pve4 foreign",
            "mind: a migration that evenkeel did not start is under way: guest 301 from pve3 to pve4",
        ),
        ("pve-rebalances", "mind: Proxmox VE's own auto-rebalance is on, so HA guests are left to it"),
    ] {
        let answer = plan(&format!("{HOT}\n{more}"), false);
        assert!(told(&answer).ends_with(expected), "{}", told(&answer));
        assert!(told(&answer).contains("101 pve1->pve3\n102 pve1->pve4"), "{}", told(&answer));
        let flying = answer.moves.iter().any(|one| one.recommendation.guest.get() == 301);
        assert!(!flying, "who is on its way is left alone: {}", told(&answer));
    }
}

#[test]
fn a_container_that_does_not_consent_moves_only_when_restarts_are_asked_for_and_is_marked() {
    let fleet = "
        pve1 cpu=16 ram=64 | 101 cpu=5 mem=28 lxc | 102 cpu=4 mem=28 lxc tags=evenkeel-restart-ok
        pve2 cpu=16 ram=64
        pve3 cpu=16 ram=64";
    let held = |guest: u32| {
        format!("{guest} held: a container moves by restart, which tag evenkeel-restart-ok must allow")
    };
    assert_eq!(told(&plan(fleet, false)), "102 pve1->pve2 by restart");
    assert_eq!(told(&plan(fleet, true)), "101 pve1->pve2 by restart, not by evenkeel");
    let fleet = fleet.replace("evenkeel-restart-ok", "web");
    assert_eq!(told(&plan(&fleet, false)), format!("{}\n{}", held(101), held(102)));
    // What a tag forbids, no restart allows.
    let pinned = told(&plan(&fleet.replace("28 lxc |", "28 lxc tags=ignore |"), true));
    assert!(!pinned.contains("101 pve1->") && pinned.contains("102 pve1->"), "{pinned}");
}

#[test]
fn of_tags_that_are_not_kept_those_are_told_that_no_move_puts_right() {
    let tags = |guest: &str| HOT.replace("101 cpu=4", &format!("101 tags={guest} cpu=4"));
    assert_eq!(told(&plan(&tags("evenkeel-pin-pve3"), false)), "101 pve1->pve3\n102 pve1->pve4");
    let unknown = told(&plan(&tags("evenkeel-pni"), false));
    assert!(
        unknown.contains("mind: guest 101: tag evenkeel-pni is not understood; the guest is left alone"),
        "{unknown}"
    );
    // On one node with each other, and no node without one of them.
    let crowded = HOT
        .replace("101 cpu=4", "101 tags=evenkeel-anti-a cpu=4")
        .replace("102 cpu=4", "102 tags=evenkeel-anti-a cpu=4")
        .replace("201 cpu=6", "201 tags=evenkeel-anti-a cpu=6")
        .replace("301 cpu=1", "301 tags=evenkeel-anti-a cpu=1")
        .replace("401 cpu=1", "401 tags=evenkeel-anti-a cpu=1");
    let crowded = told(&plan(&crowded, false));
    assert!(crowded.contains("mind: tag evenkeel-anti-a is not kept on pve1 (guest 101, 102)"), "{crowded}");
}

#[test]
fn guests_that_ha_moves_along_count_though_they_are_no_moves_of_their_own() {
    let fleet = fixture::snapshot(
        "
        pve1 cpu=16 ram=64 | 101 cpu=4 mem=14 ha | 102 cpu=4 mem=14 ha | 103 cpu=3 mem=14 | 104 cpu=3 mem=14
        pve2 cpu=16 ram=64 | 201 cpu=1 mem=4
        rule r1 together 101,102",
    );
    let answer = balance(&fleet, &Policy::default(), false);
    let along: Vec<_> = answer.moves.iter().flat_map(|one| one.recommendation.along()).collect();
    assert!(!along.is_empty(), "{}", told(&answer));
    let after = made(&fleet, &answer, memory_kept);
    let memory =
        |node: usize| 100.0 * after.nodes[node].memory_used.as_f64() / after.nodes[node].memory.as_f64();
    for (index, node) in answer.nodes.iter().enumerate() {
        assert!((node.memory_after - memory(index)).abs() < 1e-6, "{node:?}");
    }
}

#[test]
fn a_failure_that_the_rest_could_not_take_afterwards_is_told() {
    let fleet = "
        pve1 cpu=16 ram=64 | 101 cpu=2 mem=30 | 102 cpu=2 mem=30
        pve2 cpu=16 ram=64 | 201 cpu=2 mem=20
        pve3 cpu=16 ram=64 | 301 cpu=2 mem=40";
    let answer = plan(fleet, false);
    assert_eq!(told(&answer), "101 pve1->pve2\nmind: pve2 would reach 81 % memory; its limit is 80 %");
    let failures: Vec<_> =
        answer.failures.iter().map(|failure| (failure.node.as_str(), failure.guests)).collect();
    assert_eq!(failures, [("pve1", 1), ("pve3", 1)]);
}

/// Guests of one node: memory in GiB, cores in tenths, and a word on each.
fn guests() -> impl Strategy<Value = Vec<(f64, u32, &'static str)>> {
    let word = prop::sample::select(vec![
        "",
        "",
        "",
        "lxc",
        "lxc tags=evenkeel-restart-ok",
        "stopped",
        "tags=ignore",
        "tags=evenkeel-anti-a",
        "tags=evenkeel-with-b",
        "ha",
    ]);
    prop::collection::vec((0.5..24.0f64, 1..60u32, word), 0..8)
}

fn cluster() -> impl Strategy<Value = Snapshot> {
    prop::collection::vec((40..160u32, guests()), 2..6).prop_map(|nodes| {
        let mut vmid = 99;
        let lines = nodes.iter().enumerate().map(|(index, (ram, guests))| {
            let guests = guests.iter().map(|(memory, cores, word)| {
                vmid += 1;
                format!(" | {vmid} mem={memory:.1} cpu={:.1} {word}", f64::from(*cores) / 10.0)
            });
            format!("n{index} ram={ram}{}\n", guests.collect::<String>())
        });
        fixture::snapshot(&lines.collect::<String>())
    })
}

proptest! {
    #[test]
    fn no_move_of_any_plan_overfills_a_node_and_the_mode_does_not_matter(fleet in cluster(), restarts: bool) {
        let of = |mode, preset| balance(&fleet, &Policy { mode, preset, ..Policy::default() }, restarts);
        for preset in [Preset::Off, Preset::Full] {
            let plan = of(Mode::Advise, preset);
            prop_assert_eq!(&plan, &of(Mode::Approve, preset));
            prop_assert_eq!(&plan, &of(Mode::Auto, preset));
            made(&fleet, &plan, memory_kept);
            let kinds: BTreeMap<Vmid, &crate::GuestState> = fleet.guests.iter().map(|guest| (guest.vmid, guest)).collect();
            for one in &plan.moves {
                let guest = kinds[&one.recommendation.guest];
                prop_assert_eq!(one.restart, guest.kind == GuestKind::Lxc);
                prop_assert_eq!(one.allowed, !one.restart || !guest.tags.is_empty());
                prop_assert!(one.allowed || restarts);
            }
            let reasons = plan.stays.iter().flat_map(|stay| &stay.reasons);
            let codes: Vec<_> = reasons.map(Reason::code).collect();
            prop_assert!(!codes.contains(&"best_move_too_dear"), "a plan has no day whose moves run out: {codes:?}");
            let (before, after) = plan.imbalance.unwrap();
            prop_assert!(plan.moves.is_empty() <= (before == after));
        }
    }

    #[test]
    fn what_a_run_would_do_is_never_called_calm(fleet in cluster()) {
        let run = decide(&fleet, &Policy::default(), &crate::Memory::default());
        let answer = balance(&fleet, &Policy::default(), false);
        prop_assert_eq!(answer.calm, run.suppressed);
    }
}
