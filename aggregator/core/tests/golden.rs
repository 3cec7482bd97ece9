//! Golden scenarios: every file in `tests/scenarios/<topic>/` is one cluster, its policy and what must come of it.
//!
//! ```text
//! # What this shows, and why it must come out so.
//! policy: preset = "full"          (TOML of `Policy`; more lines may follow)
//! cluster:                         (the language of `evenkeel_core::fixture`, and the lines of `golden/scenario.rs`)
//! pve1 cpu=16 ram=64 | 101 cpu=8 mem=4
//! runs: 3 x 60s follow             (runs with their memory, and the time between; follow: accepted moves are made)
//! after 60s: same                  (another stretch, on the first text with the lines that follow, or on a new one)
//! paused disk exchange
//! move: 101 -> pve2                (the trail of this move with every filter asked, its figures and evidence)
//! guests:                          (why each guest stays that no decision of the last run is about)
//! drain: pve1                      (what emptying a node would come to)
//! place: vcpus=4 mem=8 tags=a,b    (where a new guest would belong)
//! --- expected
//! ```
//!
//! `EVENKEEL_BLESS=1 cargo test -p evenkeel-core --test golden` writes the expected part anew; read the difference
//! against the first sentences before you keep it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

#[path = "golden/scenario.rs"]
mod scenario;
#[path = "golden/told.rs"]
mod told;

use std::collections::BTreeSet;
use std::path::Path;

use evenkeel_common::decision::Action;
use evenkeel_common::reason::Reason;
use evenkeel_core::{Explained, RunRecord, Snapshot, decide, explain, replay};
use scenario::scenarios;

/// Codes that the core never says by itself and is never handed: the daemon stops before it is asked.
const OF_THE_DAEMON: &[&str] = &[
    "no_pve_inventory",
    "not_configured",
    "no_execute",
    "no_exec_token",
    "mode_advises",
    "starting",
    "unresolved",
    "intents_damaged",
    "breaker_open",
    "breaker_trial",
    "backup_running",
    "refused_lately",
    "guest_elsewhere",
    "another_guest",
    "pve_objects",
    "rejected",
    "superseded",
    "evacuating",
    "expired",
    "approved",
    "under_way",
    "arrived",
    "migration_failed",
    "not_accepted",
    "migration_unknown",
];

/// Codes of filters that the search never lets it come to: it drops what is not worth it by the same figures. The
/// filters say them all the same, as `src/golden/filters.rs` shows.
const BEFORE_THE_FILTERS: &[&str] = &["improvement_too_small"];

#[test]
fn every_scenario_comes_out_as_recorded() {
    let bless = std::env::var_os("EVENKEEL_BLESS").is_some();
    let mut wrong = Vec::new();
    for scenario in scenarios() {
        let told = told::told(&scenario);
        if bless {
            std::fs::write(&scenario.path, format!("{}{}{told}", scenario.given, scenario::MARK)).unwrap();
        } else if told != scenario.expected {
            let name = scenario.path.display();
            wrong.push(format!("{name}\n--- recorded\n{}--- now\n{told}", scenario.expected));
        }
    }
    assert!(wrong.is_empty(), "{} scenario(s) differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_reason_that_the_core_can_give_is_in_a_scenario() {
    let said: BTreeSet<String> = scenarios().iter().flat_map(told::codes).collect();
    let silent: BTreeSet<&str> = OF_THE_DAEMON.iter().chain(BEFORE_THE_FILTERS).copied().collect();
    let missing: Vec<_> =
        Reason::CODES.iter().filter(|code| !said.contains(**code) && !silent.contains(*code)).collect();
    assert!(missing.is_empty(), "no scenario says {missing:?}");
    let spoken: Vec<_> = silent.iter().filter(|code| said.contains(**code)).collect();
    assert!(spoken.is_empty(), "{spoken:?} are said after all; take them off the list");
}

/// Every run of every scenario, with what it was made of.
fn each_run(mut check: impl FnMut(&Path, &RunRecord)) {
    let mut runs = 0;
    for scenario in scenarios() {
        for record in scenario.records() {
            check(&scenario.path, &record);
            runs += 1;
        }
    }
    assert!(runs > 0, "no scenario was found");
}

#[test]
fn the_order_of_the_lists_does_not_matter() {
    each_run(|path, record| {
        for seed in 1..4 {
            let shuffled = shuffled(&record.snapshot, seed);
            let run = decide(&shuffled, &record.policy, &record.memory_in);
            assert_eq!(run, record.run, "{}, seed {seed}", path.display());
        }
    });
}

#[test]
fn every_run_replays_bit_for_bit() {
    each_run(|path, record| {
        let name = path.display();
        let replayed = replay(record).unwrap();
        assert_eq!(replayed.differences, [], "{name}");
        assert_eq!(replayed.stored_digest, replayed.replayed_digest, "{name}");
        match serde_json::from_str::<RunRecord>(&serde_json::to_string(record).unwrap()) {
            Ok(stored) => assert_eq!(replay(&stored).unwrap().differences, [], "{name}, as stored"),
            // JSON has no word for what is not a number; such a run decides nothing.
            Err(error) => assert!(
                matches!(record.run.suppressed, Some(Reason::DataInvalid { .. })),
                "{name} can not be stored: {error}"
            ),
        }
    });
}

#[test]
fn every_decision_has_one_action_and_a_filter_exactly_when_one_objected() {
    each_run(|path, record| {
        let (name, run) = (path.display(), &record.run);
        let mut guests: Vec<_> = run.decisions.iter().map(|decision| decision.recommendation.guest).collect();
        guests.sort_unstable();
        guests.dedup();
        assert_eq!(guests.len(), run.decisions.len(), "{name}: a guest is decided on twice");
        assert!(run.suppressed.is_none() || run.decisions.is_empty(), "{name}: decided though suppressed");
        let Explained { run: explained, guests } =
            explain(&record.snapshot, &record.policy, &record.memory_in);
        assert_eq!(explained.decisions.len(), run.decisions.len(), "{name}");
        for (decision, full) in run.decisions.iter().zip(&explained.decisions) {
            let held = matches!(decision.action, Action::Filtered | Action::Deferred);
            assert_eq!(decision.filter.is_some(), held, "{name}: {decision:?}");
            let stopped = decision.trail.stopped();
            assert_eq!(stopped.map(|(step, ..)| step), decision.filter, "{name}");
            assert!(stopped.is_none_or(|(_, action, _)| action == decision.action), "{name}");
            assert_eq!(full.trail.stopped(), stopped, "{name}: explaining changes the decision");
            assert_eq!((full.action, &full.reason), (decision.action, &decision.reason), "{name}");
        }
        if !run.stays.is_empty() {
            assert_eq!(run.stays.len(), record.snapshot.nodes.len(), "{name}");
            assert!(run.stays.iter().all(|stay| !stay.reasons.is_empty()), "{name}: a node without a reason");
            let told = guests.len() + run.decisions.len();
            assert_eq!(told, record.snapshot.guests.len(), "{name}: a guest without a word");
        }
    });
}

/// The same cluster with every list in another order.
fn shuffled(snapshot: &Snapshot, seed: u64) -> Snapshot {
    let mut state = seed;
    let mut pick = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    fn mix<T>(list: &mut [T], pick: &mut impl FnMut(usize) -> usize) {
        for last in (1..list.len()).rev() {
            list.swap(last, pick(last + 1));
        }
    }
    let mut mixed = snapshot.clone();
    mix(&mut mixed.nodes, &mut pick);
    mix(&mut mixed.guests, &mut pick);
    mix(&mut mixed.rules, &mut pick);
    mix(&mut mixed.history, &mut pick);
    mix(&mut mixed.in_flight, &mut pick);
    mix(&mut mixed.others, &mut pick);
    mixed.guests.iter_mut().for_each(|guest| mix(&mut guest.tags, &mut pick));
    mixed.nodes.iter_mut().for_each(|node| mix(&mut node.demand_trail, &mut pick));
    mixed
}
