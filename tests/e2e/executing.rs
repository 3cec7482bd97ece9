//! evenkeel moves guests: by itself, on an operator's word, and for an evacuation; and what came of it is told.

use std::path::PathBuf;

use evenkeel_aggregator::config::AggregatorConfig;
use evenkeel_aggregator::execute::{Intent, State};
use evenkeel_common::decision::{Action, Mover, Step};
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_core::{Mode, RunRecord};
use evenkeel_tests::fake_pve::{self, Behaviour, Course, FakePost, PostOutcome};
use evenkeel_tests::lab::{Options, VirtualLab};

use crate::support::{ctl, options, pass, said};

/// Seconds between samples; a run is made with every other one.
const STEP: u32 = 30;

async fn lab(dir: &std::path::Path, mode: Mode, change: impl FnOnce(&mut AggregatorConfig)) -> VirtualLab {
    let options = Options { interval_s: STEP, mode, ..options(dir) };
    let lab = VirtualLab::start_with(&options, |config| {
        config.clusters[0].policy.decision_interval = 2 * STEP;
        config.fleet.ensemble.check_interval_s = STEP;
        config.fleet.silence_after_secs = 2 * STEP;
        change(config);
    });
    lab.await.unwrap()
}

async fn minutes(lab: &VirtualLab, minutes: u32) {
    pass(lab, minutes * 60 / STEP).await;
}

fn intents(lab: &VirtualLab) -> Vec<Intent> {
    lab.site.aggregator.clusters.values().next().unwrap().book.all()
}

fn last_run(lab: &VirtualLab) -> std::sync::Arc<RunRecord> {
    lab.site.aggregator.clusters.values().next().unwrap().lock().last_run.clone().unwrap()
}

fn posts(lab: &VirtualLab) -> Vec<FakePost> {
    fake_pve::lock(&lab.cluster.fake).posts.clone()
}

/// evenkeelctl with a token of this role.
async fn ask(lab: &VirtualLab, words: &[&str]) -> std::process::Output {
    let config: PathBuf = lab.site.dir.join("ctl.toml");
    ctl(config, words).await
}

async fn json(lab: &VirtualLab, words: &[&str]) -> serde_json::Value {
    let output = ask(lab, &[words, &["--output", "json"]].concat()).await;
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Each intent that was called has one call, with nothing in it but what every version takes.
fn called_once(lab: &VirtualLab) {
    let intents = intents(lab);
    for post in posts(lab) {
        let names: Vec<&str> = post.parameters.keys().map(String::as_str).collect();
        assert!(names == ["online", "target"] || names == ["restart", "target"], "{post:?}");
        assert_eq!(post.token, "evenkeel@pve!rw", "never the token that only reads");
        let PostOutcome::Accepted(upid) = &post.outcome else { continue };
        assert_eq!(intents.iter().filter(|intent| intent.upid.as_ref() == Some(upid)).count(), 1, "{post:?}");
    }
    let called = intents.iter().filter(|intent| intent.submitted_at.is_some()).count();
    assert_eq!(called, posts(lab).len(), "{intents:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_mode_auto_the_hot_node_is_relieved_and_what_came_of_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path(), Mode::Auto, |_| {}).await;
    minutes(&lab, 25).await;
    let done = intents(&lab).into_iter().find(|intent| intent.state == State::Done);
    let done = done.unwrap_or_else(|| panic!("nothing was moved: {:#?}", intents(&lab)));
    called_once(&lab);
    let way: Vec<&str> = done.log.iter().map(|step| step.state.name()).collect();
    assert_eq!(&way[..4], ["proposed", "approved", "prepared", "submitting"], "{done:#?}");
    let run = last_run(&lab);
    let past = run.snapshot.history.iter().find(|past| past.guest == done.guest).unwrap();
    assert_eq!((past.by, past.ok, &past.to), (Mover::Evenkeel, true, &done.target), "it counts as its own");
    assert!(run.snapshot.others.is_empty(), "evenkeel is no other balancer");

    // The first look after five minutes, against the nodes that had nothing to do with it.
    let lab = lab.restart().await.unwrap();
    minutes(&lab, 10).await;
    let moved = json(&lab, &["moves", &done.id.to_string()]).await["moves"][0].clone();
    assert_eq!((moved["state"].as_str(), moved["approved_by"].as_str()), (Some("done"), Some("mode auto")));
    let (told, check) = (moved["predicted_relief"].as_f64().unwrap(), &moved["checks"][0]);
    assert_eq!(check["after_s"], 300, "{moved:#}");
    let relief = check["relief"].as_f64().unwrap();
    assert!(told > 0.0 && relief > 0.0, "told {told}, seen {relief}");
    let decided = json(&lab, &["decisions", "--since", "1h", "--action", "executed"]).await;
    assert!(decided["decisions"].as_array().unwrap().iter().any(|d| d["id"] == moved["id"]), "{decided:#}");
    let explained = ask(&lab, &["explain", moved["id"].as_str().unwrap()]).await;
    let text = said(&explained);
    for words in ["executed", "Its way", "submitting", "What came of it", moved["trace"].as_str().unwrap()] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    called_once(&lab);
    lab.site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_mode_approve_an_operator_says_yes_once_and_no_with_words() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path(), Mode::Approve, |_| {}).await;
    minutes(&lab, 15).await;
    let waiting = json(&lab, &["decisions", "--action", "awaiting_approval"]).await;
    let waiting = waiting["decisions"].as_array().unwrap().clone();
    assert!(!waiting.is_empty() && posts(&lab).is_empty(), "nothing moves without a word: {waiting:?}");
    // Any run's number of the same move will do.
    let id = waiting.last().unwrap()["id"].as_str().unwrap().to_owned();
    let approved = ask(&lab, &["approve", &id]).await;
    assert!(approved.status.success(), "{}", said(&approved));
    let again = ask(&lab, &["approve", &id]).await;
    assert!(again.status.code() == Some(1) && said(&again).contains("already"), "{}", said(&again));
    let late = ask(&lab, &["reject", &id]).await;
    assert!(late.status.code() == Some(1) && said(&late).contains("already"), "{}", said(&late));
    minutes(&lab, 10).await;
    let done: Vec<Intent> = intents(&lab).into_iter().filter(|i| i.state == State::Done).collect();
    assert_eq!(done.len(), 1, "{:#?}", intents(&lab));
    assert!(done[0].approved.as_ref().is_some_and(|(by, _)| by != "mode auto"), "{done:?}");
    // Every run that wanted the move tells what became of it.
    let waiting = json(&lab, &["decisions", "--action", "awaiting_approval"]).await;
    let same =
        |d: &&serde_json::Value| d["guest"] == done[0].guest.get() && d["target"] == done[0].target.as_str();
    let still = waiting["decisions"].as_array().unwrap().iter().filter(same).count();
    assert_eq!(still, 0, "{waiting:#}");
    let repeated = json(&lab, &["explain", &id]).await;
    assert_eq!(repeated["decisions"][0]["action"], "executed", "{repeated:#}");
    called_once(&lab);
    let open = json(&lab, &["moves", "--open"]).await;
    if let Some(next) = open["moves"].as_array().unwrap().iter().find(|moved| moved["state"] == "proposed") {
        let id = next["id"].as_str().unwrap().to_owned();
        let no = ask(&lab, &["reject", &id, "--why", "not tonight"]).await;
        assert!(no.status.success(), "{}", said(&no));
        let row = json(&lab, &["moves", &id]).await["moves"][0].clone();
        assert!(row["text"].as_str().unwrap().contains("not tonight"), "{row:#}");
    }
    lab.site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evacuation_is_proposed_approved_and_empties_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path(), Mode::Approve, |_| {}).await;
    minutes(&lab, 10).await;
    let node = NodeId::new("pve5").unwrap();
    let running = |lab: &VirtualLab| {
        let run = last_run(lab);
        run.snapshot
            .guests
            .iter()
            .filter(|g| g.running && g.node == node)
            .map(|g| g.vmid)
            .collect::<Vec<Vmid>>()
    };
    let before = running(&lab);
    let proposed = ask(&lab, &["whatif", "drain", "pve5", "--propose"]).await;
    assert!(proposed.status.success(), "{}", said(&proposed));
    assert!(posts(&lab).is_empty());
    let approved = ask(&lab, &["approve", "--all-from", "pve5"]).await;
    assert!(approved.status.success(), "{}", said(&approved));
    assert!(running(&lab) == before, "nothing has left yet");
    for _ in 0..24 {
        minutes(&lab, 5).await;
        if running(&lab).is_empty() {
            break;
        }
    }
    assert_eq!(running(&lab), [], "of {before:?}: {:#?}", intents(&lab).last());
    let done = intents(&lab).iter().filter(|i| i.state == State::Done && i.source == node).count();
    assert_eq!(done, before.len());
    called_once(&lab);
    // One leaves at a time, and nothing was moved there meanwhile.
    let called = intents(&lab).into_iter().filter(|intent| intent.submitted_at.is_some());
    assert!(called.into_iter().all(|intent| intent.target != node));
    lab.site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_again_and_again_is_left_alone_and_says_its_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path(), Mode::Auto, |_| {}).await;
    let failing = Behaviour::from(Course::FailsHalfway("migration aborted".into()));
    {
        let mut fake = fake_pve::lock(&lab.cluster.fake);
        let guests: Vec<Vmid> = fake.guests.keys().copied().collect();
        fake.behaviours.extend(guests.into_iter().map(|guest| (guest, failing.clone())));
    }
    let mut poor = None;
    for _ in 0..30 {
        minutes(&lab, 10).await;
        let run = last_run(&lab);
        let found = run.run.decisions.iter().find(|d| d.filter == Some(Step::Outcome)).cloned();
        poor = poor.or(found);
        if poor.is_some() {
            break;
        }
    }
    let failed = intents(&lab).iter().filter(|intent| intent.state == State::Failed).count();
    assert!(failed >= 3, "{:#?}", intents(&lab));
    // After three of three the breaker holds, so an hour brings no more than one trial.
    assert!(failed <= 3 + 6, "{failed} failures");
    let poor =
        poor.unwrap_or_else(|| panic!("no pair has a poor record: {:#?}", last_run(&lab).run.decisions));
    assert_eq!(poor.action, Action::Filtered);
    assert!(poor.reason.to_string().contains("3"), "{}", poor.reason);
    called_once(&lab);
    let status = said(&ask(&lab, &["status"]).await);
    println!("{status}\n{}", poor.reason);
    lab.site.shut_down().await;
}
