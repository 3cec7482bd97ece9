//! What is advised and then done is watched for four hours, over a restart, and what came of it is part of the next
//! decisions.

use std::ops::ControlFlow;

use evenkeel_aggregator::store::{Direction, KeyRange, OnDamage, trees};
use evenkeel_common::decision::{Action, Recommendation};
use evenkeel_core::PastMove;
use evenkeel_core::learn::Watched;
use evenkeel_runtime::clock::Clock as _;
use evenkeel_tests::lab::{Options, VirtualLab};

use crate::support::{options, pass};

/// Seconds between samples; a run is made with every other one.
const STEP: u32 = 30;

/// The best move that the last run leaves to people.
fn advised(lab: &VirtualLab) -> Option<Recommendation> {
    let run = lab.site.aggregator.clusters.values().next().unwrap().lock().last_run.clone()?;
    let mut decisions = run.run.decisions.iter();
    Some(decisions.find(|decision| decision.action == Action::Recommended)?.recommendation.clone())
}

/// Guests that are watched.
fn watched(lab: &VirtualLab) -> Vec<Watched> {
    let mut found = Vec::new();
    let store = lab.site.aggregator.store.as_ref();
    let scanned =
        trees::WATCHED.scan(store, &KeyRange::all(), Direction::Forward, OnDamage::Fail, |_, value| {
            found.push(serde_json::from_value(value).unwrap());
            ControlFlow::Continue(())
        });
    assert_eq!(scanned.unwrap(), 0);
    found
}

/// The moves that decisions know of.
fn history(lab: &VirtualLab) -> Vec<PastMove> {
    let run = lab.site.aggregator.clusters.values().next().unwrap().lock().last_run.clone().unwrap();
    run.snapshot.history.clone()
}

async fn minutes(lab: &VirtualLab, minutes: u32) {
    pass(lab, minutes * 60 / STEP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_of_followed_advice_is_known_after_four_hours_and_a_restart_between() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { interval_s: STEP, ..options(dir.path()) };
    let lab = VirtualLab::start_with(&options, |config| {
        config.clusters[0].policy.decision_interval = 2 * STEP;
        config.fleet.ensemble.check_interval_s = STEP;
        config.fleet.silence_after_secs = 2 * STEP;
    });
    let lab = lab.await.unwrap();
    let mut advice = None;
    for _ in 0..20 {
        minutes(&lab, 1).await;
        advice = advice.or_else(|| advised(&lab));
    }
    let advice = advice.expect("the hot node is to be relieved");
    {
        let mut fleet = lab.cluster.fleet.lock().unwrap();
        let guest = fleet.guests.get_mut(&advice.guest).unwrap();
        (guest.node, guest.started_at) = (advice.target.clone(), lab.clock.now());
    }
    minutes(&lab, 20).await;
    let begun = watched(&lab);
    assert_eq!(begun.len(), 1, "{begun:?}");
    assert_eq!((begun[0].guest, &begun[0].target), (advice.guest, &advice.target));
    assert!((0.2..0.4).contains(&begun[0].outcome.hours), "{begun:?}");

    let lab = lab.restart().await.unwrap();
    minutes(&lab, 20).await;
    let on = watched(&lab);
    assert!(on.len() == 1 && on[0].at == begun[0].at, "{on:?}");
    assert!(on[0].outcome.hours > begun[0].outcome.hours, "the same hours go on: {on:?}");

    minutes(&lab, 215).await;
    assert_eq!(watched(&lab), [], "four hours are over");
    let known = history(&lab);
    let of: Vec<_> = known.iter().filter(|past| past.guest == advice.guest).collect();
    assert_eq!(of.iter().map(|past| past.helped).collect::<Vec<_>>(), [Some(true)], "{known:?}");
    lab.site.shut_down().await;
}
