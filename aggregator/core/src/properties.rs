//! What must hold on any cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use evenkeel_common::decision::{Action, Decision, Mover};
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::reason::Reason;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use crate::pipeline::Facts;
use crate::policy::{Policy, Preset};
use crate::repair::Rules;
use crate::score::STRANDED;
use crate::score::fleet::Fleet;
use crate::score::spare::Supposed;
use crate::{
    Candidate, Memory, Mode, PastMove, Run, RunRecord, Snapshot, decide, explain, fixture, plan_at_once,
    recommend, replay,
};

fn guest() -> impl Strategy<Value = String> {
    let profile = prop_oneof![
        Just(String::new()),
        Just("profile=steady".to_owned()),
        (1.0..3.0f64).prop_map(|p| format!("profile=bursty p95={p:.2}")),
        (0.0..0.05f64).prop_map(|s| format!("profile=growing slope={s:.3}")),
        (0.5..4.0f64).prop_map(|p| format!("profile=cyclical peak={p:.2}")),
        (1..9u32, 2.0..9.0f64).prop_map(|(h, p)| format!("profile=cyclical mean=1 day={h}-{}:{p:.1}", h + 4)),
    ];
    let tag = prop_oneof![
        6 => Just(""),
        1 => Just("tags=evenkeel-anti-a"),
        1 => Just("tags=evenkeel-with-b"),
        3 => Just("tags=evenkeel-with-HOME"),
        1 => Just("tags=ignore"),
        1 => Just("tags=plb_pin_n1"),
        1 => Just("lxc"),
        1 => Just("stopped"),
        1 => Just("lock=backup"),
    ];
    (0.05..6.0f64, 0.5..24.0f64, profile, tag)
        .prop_map(|(cpu, memory, profile, tag)| format!("cpu={cpu:.2} mem={memory:.1} {profile} {tag}"))
}

/// GiB of nodes that hardly hold their guests: few clusters with more are near to being unable to lose a node.
const NEARLY_FULL: Range<u32> = 24..64;

const OUTCOMES: &[&str] = &["", "", "failed", "helped", "useless"];

fn cluster() -> impl Strategy<Value = Snapshot> {
    cluster_with(48..257)
}

/// Nodes with so much memory in GiB.
fn cluster_with(memory: Range<u32>) -> impl Strategy<Value = Snapshot> {
    let node = (8..33u32, memory, prop::bool::weighted(0.1), prop::collection::vec(guest(), 0..9));
    (
        prop::collection::vec(node, 2..7),
        prop::collection::vec(
            (0..40u32, 0..7usize, 0..7usize, 1..4000u32, prop::sample::select(OUTCOMES)),
            0..9,
        ),
    )
        .prop_map(|(nodes, moves)| {
            let mut vmid = 100;
            let mut lines = Vec::new();
            for (index, (cores, memory, maintenance, guests)) in nodes.iter().enumerate() {
                let mut line = format!("n{index} cpu={cores} ram={memory}");
                if *maintenance && index > 1 {
                    line.push_str(" maintenance");
                }
                for guest in guests {
                    line.push_str(&format!(" | {vmid} {guest}"));
                    vmid += 1;
                }
                // A group that is complete where it is, on each node another.
                lines.push(line.replace("HOME", &format!("n{index}")));
            }
            for (guest, from, to, minutes, outcome) in moves {
                lines.push(format!("moved {} n{from}->n{to} {minutes}m {outcome}", 100 + guest));
            }
            fixture::snapshot(&lines.join("\n"))
        })
}

/// The cluster after what was accepted, with its history, `minutes` later.
fn follow(snapshot: &Snapshot, run: &Run, minutes: u64) -> Snapshot {
    let mut next = snapshot.sorted();
    for decision in run.decisions.iter().filter(|decision| decision.action.is_accepted()) {
        let r = &decision.recommendation;
        assert!(next.apply(&Candidate { guest: r.guest, target: r.target.clone() }));
        next.history.push(PastMove {
            guest: r.guest,
            from: r.source.clone(),
            to: r.target.clone(),
            at: next.at,
            by: Mover::Evenkeel,
            ok: true,
            helped: None,
        });
    }
    next.at = next.at.after(Duration::from_secs(60 * minutes));
    next
}

fn preset() -> impl Strategy<Value = Policy> {
    let presets = prop_oneof![Just(Preset::Off), Just(Preset::Standard), Just(Preset::Full)];
    presets.prop_map(|preset| Policy { preset, ..Policy::default() })
}

/// All that a decision's improvement counts.
fn group_of(decision: &Decision) -> &[Vmid] {
    let group = decision.recommendation.evidence.iter().find_map(|reason| match reason {
        Reason::GroupMoves { guests, .. } | Reason::GroupFollows { guests, .. } => Some(guests.as_slice()),
        _ => None,
    });
    group.unwrap_or_default()
}

/// Affinity tags whose running guests are all on one node.
fn complete(snapshot: &Snapshot) -> BTreeSet<String> {
    let mut nodes: BTreeMap<&String, BTreeSet<&NodeId>> = BTreeMap::new();
    for guest in snapshot.guests.iter().filter(|guest| guest.running) {
        for tag in guest.tags.iter().filter(|tag| tag.starts_with("evenkeel-with-")) {
            nodes.entry(tag).or_default().insert(&guest.node);
        }
    }
    nodes.into_iter().filter(|(_, nodes)| nodes.len() == 1).map(|(tag, _)| tag.clone()).collect()
}

/// Whether a run takes the rest of a group after those that went ahead, now or as soon as a limit lets it.
fn follows(run: &Run, tag: &String) -> bool {
    let says =
        |reason: &Reason| matches!(reason, Reason::GroupFollows { groups, .. } if groups.contains(tag));
    run.decisions.iter().any(|d| d.filter.is_none() && d.recommendation.evidence.iter().any(says))
}

fn accepted(run: &Run) -> usize {
    run.decisions.iter().filter(|decision| decision.action.is_accepted()).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn never_overfills_and_never_makes_it_worse(snapshot in cluster()) {
        let policy = Policy::default();
        let runs = [decide(&snapshot, &policy, &Memory::default()), plan_at_once(&snapshot, &policy)];
        for (run, whole) in runs.into_iter().zip([false, true]) {
            let sorted = snapshot.sorted();
            let mut fleet = Fleet::of(&sorted, &policy);
            let facts = Facts::of(&sorted, &[]);
            let score_of = |fleet: &Fleet| recommend::objective(&Rules { snapshot: &sorted, facts: &facts, fleet });
            let mut score = score_of(&fleet);
            let mut price = 0.0;
            for decision in run.decisions.iter().filter(|d| d.filter.is_none()) {
                let r = &decision.recommendation;
                let (guest, target) = (sorted.guest_index(r.guest).unwrap(), sorted.node_index(&r.target).unwrap());
                fleet.apply(guest, target);
                let node = &fleet.nodes[target];
                prop_assert!(node.memory_used <= node.memory * 0.9 + 1.0, "{} overfilled", r.target);
                // What has to leave has no price. A plan also evens out, where nothing becomes worse by it.
                let leaves = sorted.nodes[sorted.node_index(&r.source).unwrap()].maintenance;
                price += if leaves || whole { 0.0 } else { policy.min_improvement };
                let there = |vmid: &Vmid| fleet.place[sorted.guest_index(*vmid).unwrap()] == target;
                if !group_of(decision).iter().all(there) {
                    continue; // A group is weighed when all of it is there.
                }
                let after = score_of(&fleet);
                prop_assert!(after <= score - price + 1e-6, "{score} -> {after}, {price} was needed");
                (score, price) = (after, 0.0);
            }
        }
    }

    #[test]
    fn never_makes_a_cluster_unable_to_lose_a_node(snapshot in cluster_with(NEARLY_FULL)) {
        let (policy, sorted) = (Policy::default(), snapshot.sorted());
        let mut fleet = Fleet::of(&sorted, &policy);
        let stranded = |fleet: &Fleet| Supposed::as_is(fleet).stranded().iter().map(|node| node.guests).sum::<u32>();
        let mut before = stranded(&fleet);
        for decision in plan_at_once(&snapshot, &policy).decisions.iter().filter(|d| d.filter.is_none()) {
            let r = &decision.recommendation;
            let (guest, target) = (sorted.guest_index(r.guest).unwrap(), sorted.node_index(&r.target).unwrap());
            fleet.apply(guest, target);
            let there = |vmid: &Vmid| fleet.place[sorted.guest_index(*vmid).unwrap()] == target;
            if !group_of(decision).iter().all(there) {
                continue; // A group is weighed when all of it is there.
            }
            let after = stranded(&fleet);
            let lost = f64::from(after.saturating_sub(before));
            let leaves = sorted.nodes[sorted.node_index(&r.source).unwrap()].maintenance;
            prop_assert!(leaves || r.improvement >= STRANDED * lost, "{} strands {lost} for {}", r.guest, r.improvement);
            before = after;
        }
    }

    #[test]
    fn never_moves_back_within_48_hours(snapshot in cluster()) {
        let run = plan_at_once(&snapshot, &Policy::default());
        for decision in run.decisions.iter().filter(|d| d.action.is_accepted()) {
            let r = &decision.recommendation;
            let since = snapshot.at.before(Duration::from_secs(48 * 3600));
            let left = snapshot.history.iter().any(|m| m.ok && m.guest == r.guest && m.from == r.target && m.at > since);
            let must = snapshot.nodes.iter().any(|node| node.id == r.source && node.maintenance);
            prop_assert!(!left || must, "{} goes back to {}", r.guest, r.target);
        }
    }

    #[test]
    fn the_order_of_the_input_does_not_matter(snapshot in cluster(), policy in preset()) {
        let mut shuffled = snapshot.clone();
        shuffled.nodes.reverse();
        shuffled.guests.reverse();
        shuffled.history.reverse();
        let memory = Memory::default();
        prop_assert_eq!(decide(&snapshot, &policy, &memory), decide(&shuffled, &policy, &memory));
    }

    #[test]
    fn a_stored_run_replays_bit_for_bit(snapshot in cluster(), policy in preset(), periods in 2..4u32) {
        let mut policy = policy;
        policy.intelligent_migrations.observation_periods = periods;
        policy.intelligent_migrations.enabled = Some(periods == 3);
        let record = RunRecord::of(snapshot, policy, Memory::default());
        let stored: RunRecord = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        prop_assert_eq!(&stored, &record);
        let replayed = replay(&stored).unwrap();
        prop_assert_eq!(replayed.differences.as_slice(), &[]);
        prop_assert_eq!(replayed.stored_digest, replayed.replayed_digest);
    }

    #[test]
    fn every_recommendation_has_one_action_and_a_reason(snapshot in cluster(), policy in preset()) {
        let run = decide(&snapshot, &policy, &Memory::default());
        let mut guests: Vec<_> = run.decisions.iter().map(|d| d.recommendation.guest).collect();
        guests.sort_unstable();
        guests.dedup();
        prop_assert_eq!(guests.len(), run.decisions.len(), "a guest is recommended twice");
        let explained = explain(&snapshot, &policy, &Memory::default());
        prop_assert_eq!(explained.run.decisions.len(), run.decisions.len());
        for (full, decision) in explained.run.decisions.iter().zip(&run.decisions) {
            prop_assert_eq!(decision.trail.0.len(), 13);
            let stopped = decision.trail.stopped();
            prop_assert_eq!(stopped.map(|(step, ..)| step), decision.filter);
            prop_assert_eq!(matches!(decision.action, Action::Filtered | Action::Deferred), decision.filter.is_some());
            prop_assert_eq!(full.trail.stopped(), stopped, "explaining changes the decision");
            prop_assert_eq!((&full.action, &full.recommendation), (&decision.action, &decision.recommendation));
        }
        prop_assert_eq!(run.stays.len(), snapshot.nodes.len());
        prop_assert!(run.stays.iter().all(|stay| !stay.reasons.is_empty()));
        prop_assert_eq!(explained.guests.len() + run.decisions.len(), snapshot.guests.len());
    }

    #[test]
    fn a_closed_loop_goes_quiet_within_three_cycles(snapshot in cluster()) {
        let mut now = snapshot;
        let policy = Policy { mode: Mode::Auto, ..Policy::default() };
        for _ in 0..3 {
            let run = plan_at_once(&now, &policy);
            if accepted(&run) == 0 {
                break;
            }
            now = follow(&now, &run, 61);
        }
        let run = plan_at_once(&now, &policy);
        prop_assert_eq!(accepted(&run), 0, "{:?}", run.decisions);
    }

    #[test]
    fn a_group_that_is_complete_stays_complete(snapshot in cluster()) {
        let run = plan_at_once(&snapshot, &Policy::default());
        let after = follow(&snapshot, &run, 1);
        for group in complete(&snapshot) {
            prop_assert!(complete(&after).contains(&group), "{group} is split by {:?}", run.decisions);
        }
    }

    #[test]
    fn a_group_that_sets_out_arrives_or_is_told_of(snapshot in cluster(), policy in preset()) {
        let mut policy = Policy { mode: Mode::Auto, cooldown_minutes: 0, ..policy };
        policy.intelligent_migrations.enabled = Some(false);
        let (mut now, groups) = (snapshot.clone(), complete(&snapshot));
        for _ in 0..30 {
            let run = decide(&now, &policy, &Memory::default());
            let stuck = |reason: &Reason| matches!(reason, Reason::GroupStuck { .. });
            if accepted(&run) == 0 || run.warnings.iter().any(stuck) {
                let told: usize = run.warnings.iter().filter(|reason| stuck(reason)).count();
                // While other moves are made, a group may still be on its way.
                let goes_on = |group: &&String| accepted(&run) > 0 && follows(&run, group);
                let split = groups.iter().filter(|group| !complete(&now).contains(*group) && !goes_on(group)).count();
                prop_assert!(split <= told, "{split} groups are split, {told} told of: {:?}", run.warnings);
                return Ok(());
            }
            now = follow(&now, &run, 2);
        }
    }

    #[test]
    fn broken_numbers_stop_the_run(snapshot in cluster(), bad in prop_oneof![Just(f64::NAN), Just(-1.0), Just(f64::INFINITY)]) {
        let mut snapshot = snapshot;
        snapshot.nodes[0].cpu_used = bad;
        let run = decide(&snapshot, &Policy::default(), &Memory::default());
        let told = matches!(run.suppressed, Some(Reason::DataInvalid { .. }));
        prop_assert!(told && run.decisions.is_empty(), "{:?}", run.suppressed);
    }
}

#[test]
fn a_plan_that_could_cost_the_spare_is_among_those_asked() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let held = (0..300).filter(|_| {
        let run = plan_at_once(
            &cluster_with(NEARLY_FULL).new_tree(&mut runner).unwrap().current(),
            &Policy::default(),
        );
        run.decisions.iter().any(|decision| matches!(decision.reason, Reason::SpareLost { .. }))
    });
    let held = held.count();
    assert!(
        held >= 10,
        "only {held} of 300 random clusters hold a move for the sake of a node that may fail"
    );
}

/// The properties above would hold of nothing if no random cluster ever moved a guest.
#[test]
fn random_clusters_do_move_guests() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let moves = |runner: &mut proptest::test_runner::TestRunner| {
        let snapshot = cluster().new_tree(runner).unwrap().current();
        accepted(&plan_at_once(&snapshot, &Policy::default()))
    };
    let busy = (0..100).filter(|_| moves(&mut runner) > 0).count();
    assert!(busy >= 30, "only {busy} of 100 random clusters move a guest");
    let groups = (0..300).filter(|_| {
        let run = plan_at_once(&cluster().new_tree(&mut runner).unwrap().current(), &Policy::default());
        run.decisions.iter().any(|decision| decision.action.is_accepted() && group_of(decision).len() > 1)
    });
    let groups = groups.count();
    assert!(groups >= 10, "only {groups} of 300 random clusters move a group");
}

#[test]
fn a_changed_record_shows_where_it_differs() {
    let snapshot = fixture::snapshot("pve1 cpu=16 ram=64 | 101 cpu=7 | 102 cpu=8\npve2 cpu=16 ram=64");
    let mut record = RunRecord::of(snapshot, Policy::default(), Memory::default());
    record.run.decisions[0].action = Action::Failed;
    record.run.decisions[0].trail.0.pop();
    let replayed = replay(&record).unwrap();
    let told: Vec<_> = replayed.differences.iter().map(ToString::to_string).collect();
    assert_eq!(told[0], r#"decisions[0].action: stored "failed", replayed "recommended""#);
    assert!(told[1].starts_with("decisions[0].trail[12]: stored nothing, replayed {"), "{told:?}");
    assert_ne!(replayed.stored_digest, replayed.replayed_digest);
    record.version += 1;
    let version = format!("the record has version {},", record.version);
    assert!(replay(&record).unwrap_err().to_string().starts_with(&version));
}
