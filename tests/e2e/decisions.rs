//! Decisions of a whole lab in virtual time: they come, they repeat, they can be explained, and they stop as soon as
//! anything they rest on is in doubt.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_aggregator::config::ClusterConfig;
use evenkeel_aggregator::identity::roles::Role;
use evenkeel_aggregator::store::{Direction, KeyRange, OnDamage, SledStore, Store, trees};
use evenkeel_common::decision::Decision;
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::Window;
use evenkeel_core::{GuestState, RunRecord, replay};
use evenkeel_proto::v1;
use evenkeel_tests::fake_pve::{self, Fault};
use evenkeel_tests::lab::{self, Options, VIRTUAL_START, VirtualLab};
use evenkeel_tests::sim;
use tokio_util::sync::CancellationToken;

use crate::support::{config, control_as, pass};

fn options(data: &Path, seed: u64) -> Options {
    Options { seed, time: Some(Duration::from_secs(200)), ..crate::support::options(data) }
}

/// Runs are as often as Proxmox is asked, so that a test needs little time.
fn often(cluster: &mut ClusterConfig) {
    cluster.policy.decision_interval = 15;
    cluster.pve.timeout_secs = 1;
}

fn last(lab: &VirtualLab) -> Arc<RunRecord> {
    let handle = lab.site.aggregator.clusters.values().next().unwrap();
    handle.lock().last_run.clone().expect("a run")
}

/// Code and sentence of why the last run decided nothing; empty when it decided.
fn suppressed(lab: &VirtualLab) -> (String, String) {
    let run = last(lab);
    run.run.suppressed.as_ref().map_or_else(Default::default, |why| (why.code().to_owned(), why.to_string()))
}

#[track_caller]
fn decides(lab: &VirtualLab, when: &str) {
    let run = last(lab);
    assert_eq!(run.run.suppressed, None, "{when}");
    assert!(!run.run.decisions.is_empty(), "{when}: {}", run.run.summary);
}

#[track_caller]
fn decides_nothing(lab: &VirtualLab, code: &str, words: &[&str]) {
    let (found, text) = suppressed(lab);
    assert_eq!(found, code, "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "{text}: expected {words:?}");
    assert_eq!(last(lab).run.decisions, [], "{text}");
}

fn runs(store: &dyn Store) -> Vec<RunRecord> {
    let mut found = Vec::new();
    let range = KeyRange::all();
    let scanned = trees::RUNS.scan(store, &range, Direction::Forward, OnDamage::Fail, |_, value| {
        found.push(serde_json::from_value(value).unwrap());
        ControlFlow::Continue(())
    });
    assert_eq!(scanned.unwrap(), 0);
    found
}

fn decisions(store: &dyn Store) -> Vec<Decision> {
    let mut found = Vec::new();
    let range = KeyRange::all();
    let scanned = trees::DECISIONS.scan(store, &range, Direction::Forward, OnDamage::Fail, |_, decision| {
        found.push(decision);
        ControlFlow::Continue(())
    });
    assert_eq!(scanned.unwrap(), 0);
    found
}

/// What a whole lab leaves in its store.
async fn lab_of(seed: u64) -> (Vec<RunRecord>, Vec<Decision>) {
    let dir = tempfile::tempdir().unwrap();
    lab::run(&options(dir.path(), seed), CancellationToken::new(), &mut |_| {}).await.unwrap();
    let store =
        SledStore::open(&dir.path().join("aggregator/store"), &config().store, VIRTUAL_START).unwrap();
    (runs(&store), decisions(&store))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lab_depends_on_its_seed_alone_and_every_run_replays() {
    let (runs, first) = lab_of(1).await;
    let times: Vec<u64> = runs.iter().map(|run| run.run.at.since(VIRTUAL_START).as_secs()).collect();
    assert_eq!(times, [60, 120, 180]);
    assert!(first.iter().any(|d| d.recommendation.source.as_str() == "pve3"), "the hot node is relieved");
    for run in &runs {
        let replayed = replay(run).unwrap();
        assert_eq!(replayed.differences, [], "{}", run.run.at);
        assert_eq!(replayed.stored_digest, replayed.replayed_digest);
    }
    for node in &runs[2].snapshot.nodes {
        let told = (node.link_mb_s, node.net_mb_s.is_some_and(|net| net > 0.0));
        assert_eq!(told, (Some(1250.0), true), "10 Gbit/s and its traffic, from the agent of {}", node.id);
    }
    let talks = |guest: &&GuestState| guest.net_mb_s.is_some_and(|net| net > 0.0);
    assert!(runs[2].snapshot.guests.iter().filter(|guest| guest.running).all(|guest| talks(&guest)));
    let of_runs: Vec<Decision> = runs.iter().flat_map(|run| run.run.decisions.clone()).collect();
    assert_eq!(of_runs, first, "runs and decisions are kept together");

    let (again, second) = lab_of(1).await;
    let json = |decisions: &[Decision]| serde_json::to_string_pretty(decisions).unwrap();
    assert_eq!(json(&first), json(&second), "one seed, one outcome");
    assert_eq!(runs.len(), again.len());
    for (run, again) in runs.iter().zip(&again) {
        assert_eq!(run.snapshot, again.snapshot, "not even what was seen differs, {}", run.run.at);
    }
    let (_, other) = lab_of(2).await;
    assert_ne!(json(&first), json(&other), "another seed, another lab");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_why_nothing_moves_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let lab = VirtualLab::start(&options(dir.path(), 1), often).await.unwrap();
    pass(&lab, 75).await;
    decides(&lab, "after 75 s");
    let mut viewer = control_as(&lab.site, Role::Viewer).await;
    let ask = |node: &str| v1::ExplainRequest { node: node.into(), ..v1::ExplainRequest::default() };
    let calm = viewer.explain(ask("pve1")).await.unwrap().into_inner();
    assert!(calm.decisions.iter().all(|d| d.source != "pve1"), "{:?}", calm.decisions);
    assert!(calm.stays.iter().any(|why| why.text.contains("nothing to relieve")), "{:?}", calm.stays);
    let hot = viewer.explain(ask("pve3")).await.unwrap().into_inner();
    assert!(hot.decisions.iter().any(|d| d.source == "pve3" && !d.trail.is_empty()), "{:?}", hot.decisions);
    assert!(hot.scores["pve3"] > hot.scores["pve1"], "{:?}", hot.scores);
    let id = hot.decisions[0].id.clone();
    let one =
        viewer.explain(v1::ExplainRequest { decision: id.clone(), ..Default::default() }).await.unwrap();
    assert_eq!(one.into_inner().decisions[0].id, id);
    let replayed =
        viewer.replay(v1::ReplayRequest { decision: id, ..Default::default() }).await.unwrap().into_inner();
    assert!(replayed.identical && replayed.decisions > 0, "{replayed:?}");
    lab.site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_proxmox_fails_nothing_is_decided_and_afterwards_it_is_again() {
    let dir = tempfile::tempdir().unwrap();
    let lab = VirtualLab::start(&options(dir.path(), 1), often).await.unwrap();
    pass(&lab, 75).await;
    decides(&lab, "before any fault");
    let list = "/cluster/resources";
    for (path, fault, words) in [
        ("/", Fault::Unauthorized, &["was refused", "pveum user token list"][..]),
        ("/", Fault::Forbidden("Permission check failed (/, Sys.Audit)".into()), &["Sys.Audit", "pveum"]),
        ("/", Fault::Internal("unable to open file".into()), &["500", "unable to open file"]),
        ("/", Fault::Hang, &["within 1 s"]),
        (list, Fault::EmptyList, &[list]),
        (list, Fault::HalfList, &[list]),
    ] {
        let name = format!("{fault:?}");
        fake_pve::lock(&lab.cluster.fake).fail(path, fault);
        pass(&lab, 15).await;
        decides_nothing(&lab, "no_pve_inventory", words);
        fake_pve::lock(&lab.cluster.fake).heal();
        pass(&lab, 15).await;
        decides(&lab, &format!("after {name}"));
    }
    lab.site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_agent_stops_decisions_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let lab = VirtualLab::start(&options(dir.path(), 1), often).await.unwrap();
    pass(&lab, 75).await;
    decides(&lab, "while all speak");
    let node = NodeId::new("pve5").unwrap();
    let during = Window { from: VIRTUAL_START, to: VIRTUAL_START.after(Duration::from_hours(24)) };
    lab.cluster.fleet.lock().unwrap().faults.push(sim::Fault::Silent { node: node.clone(), during });
    lab.agents[&node].cancel();
    pass(&lab, 45).await;
    decides_nothing(&lab, "agent_stale", &["pve5"]);
    let mut viewer = control_as(&lab.site, Role::Viewer).await;
    let request = v1::ListNodesRequest { node: "pve5".into(), ..Default::default() };
    let shown = viewer.list_nodes(request).await.unwrap().into_inner();
    assert_eq!(shown.nodes[0].status, "silent");
    lab.site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_proxmox_and_agents_see_on_two_nodes_stops_decisions() {
    let dir = tempfile::tempdir().unwrap();
    let lab = VirtualLab::start(&options(dir.path(), 1), often).await.unwrap();
    pass(&lab, 74).await;
    let (guest, elsewhere) = (Vmid::new(102).unwrap(), NodeId::new("pve8").unwrap());
    lab.sample().await.unwrap();
    fake_pve::lock(&lab.cluster.fake).guests.get_mut(&guest).unwrap().node = elsewhere;
    lab.decide().await.unwrap();
    decides_nothing(&lab, "placement_disputed", &["102", "pve3", "pve8"]);
    pass(&lab, 15).await; // The lab lets Proxmox show where guests are, every second.
    decides(&lab, "once both agree");
    lab.site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_outlives_a_restart_and_ends_with_resume() {
    let dir = tempfile::tempdir().unwrap();
    let lab = VirtualLab::start(&options(dir.path(), 1), often).await.unwrap();
    pass(&lab, 75).await;
    decides(&lab, "before the pause");
    let mut operator = control_as(&lab.site, Role::Operator).await;
    let pause = v1::PauseRequest { cluster: "lab".into(), why: "new switch".into() };
    assert_eq!(operator.pause(pause).await.unwrap().into_inner().clusters, ["lab"]);
    pass(&lab, 15).await;
    decides_nothing(&lab, "paused", &["new switch"]);

    let lab = lab.restart().await.unwrap();
    pass(&lab, 60).await;
    decides_nothing(&lab, "paused", &["new switch"]);
    let mut operator = control_as(&lab.site, Role::Operator).await;
    let status = operator.get_status(v1::GetStatusRequest {}).await.unwrap().into_inner();
    assert!(
        status.clusters[0].paused && status.clusters[0].paused_by.starts_with("the operator"),
        "{status:?}"
    );
    operator.resume(v1::ResumeRequest { cluster: "lab".into() }).await.unwrap();
    pass(&lab, 15).await;
    decides(&lab, "after resume");
    for run in runs(lab.site.aggregator.store.as_ref()) {
        assert_eq!(replay(&run).unwrap().differences, [], "{}", run.run.at);
    }
    lab.site.shut_down().await;
}
