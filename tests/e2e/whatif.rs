//! What-if questions on the whole path, as a person or a script asks them; and another balancer, which stops evenkeel
//! from moving anything itself.

use std::path::Path;
use std::time::Duration;

use evenkeel_aggregator::config::AggregatorConfig;
use evenkeel_aggregator::identity::roles::Role;
use evenkeel_aggregator::store::records::RunKey;
use evenkeel_aggregator::store::{Batch, trees};
use evenkeel_common::decision::Action;
use evenkeel_common::id::{ClusterId, NodeId, Vmid};
use evenkeel_common::time::Window;
use evenkeel_core::{Mode, Preset};
use evenkeel_proto::v1;
use evenkeel_proto::v1::whatif_client::WhatifClient;
use evenkeel_tests::fake_pve;
use evenkeel_tests::lab::{Options, VIRTUAL_START, VirtualLab};
use evenkeel_tests::sim::Fault;
use serde_json::Value;
use tonic::Code;

use crate::support::{bearer, channel, ctl, options, pass, said};

/// Seconds between samples, and between runs.
const STEP: u32 = 10;
const EVERY: u32 = 3 * STEP;

async fn lab(dir: &Path, change: impl FnOnce(&mut AggregatorConfig)) -> VirtualLab {
    let options = Options { interval_s: STEP, ..options(dir) };
    let change = |config: &mut AggregatorConfig| {
        config.clusters[0].policy.decision_interval = EVERY;
        change(config);
    };
    let lab = VirtualLab::start_with(&options, change).await.unwrap();
    pass(&lab, 10).await;
    lab
}

/// Runs `evenkeelctl whatif` with these words: exit code and all it said.
async fn asked(lab: &VirtualLab, words: &str) -> (i32, String) {
    let words: Vec<&str> = ["whatif"].into_iter().chain(words.split_whitespace()).collect();
    let output = ctl(lab.site.dir.join("ctl.toml"), &words).await;
    (output.status.code().unwrap(), said(&output))
}

/// The same as JSON.
async fn object(lab: &VirtualLab, words: &str) -> (i32, Value) {
    let words: Vec<&str> =
        ["whatif", "--output", "json"].into_iter().chain(words.split_whitespace()).collect();
    let output = ctl(lab.site.dir.join("ctl.toml"), &words).await;
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    (output.status.code().unwrap(), json)
}

fn vmid(number: u32) -> Vmid {
    Vmid::new(number).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_drained_on_paper_until_something_keeps_a_guest_or_data_are_stale() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path(), |_| {}).await;
    let (code, text) = asked(&lab, "drain pve1").await;
    assert!(code == 0 && text.contains("pve1 can be emptied: 10 guests to move"), "{text}");
    assert!(text.contains("One more node may fail meanwhile"), "{text}");
    let (_, plan) = object(&lab, "drain pve1").await;
    let moves = plan["moves"].as_array().unwrap();
    assert_eq!((plan["feasible"].as_bool(), moves.len()), (Some(true), 10));
    assert!(moves.iter().all(|one| one["target"] != "pve1" && one["minutes"].as_f64().unwrap() > 0.0));
    assert!(
        moves.iter().filter(|one| one["target"] == "pve3").count() < 2,
        "not onto the hot node: {moves:#?}"
    );
    let sum: f64 = moves.iter().map(|one| one["minutes"].as_f64().unwrap()).sum();
    assert!((plan["minutes"].as_f64().unwrap() - sum).abs() < 1e-6);
    assert_eq!(plan["after"].as_array().unwrap().len(), 7);

    {
        let mut fake = fake_pve::lock(&lab.cluster.fake);
        fake.guests.get_mut(&vmid(100)).unwrap().tags = vec!["evenkeel-pin".into()];
        fake.guests.get_mut(&vmid(110)).unwrap().lock = Some("backup".into());
    }
    pass(&lab, 4).await;
    let (code, text) = asked(&lab, "drain pve1").await;
    assert!(code == 1 && text.contains("pve1 can not be emptied: 2 guests can not leave"), "{text}");
    assert!(
        text.contains("pinned to pve1 by tag evenkeel-pin") && text.contains("is locked (backup)"),
        "{text}"
    );
    let (code, plan) = object(&lab, "drain pve1 --cluster lab").await;
    let blocked: Vec<_> =
        plan["blocked"].as_array().unwrap().iter().map(|b| b["reason"]["code"].as_str()).collect();
    assert_eq!((code, blocked), (1, vec![Some("tag_pin"), Some("guest_locked")]));

    let node = NodeId::new("pve5").unwrap();
    let during = Window { from: VIRTUAL_START, to: VIRTUAL_START.after(Duration::from_hours(24)) };
    lab.cluster.fleet.lock().unwrap().faults.push(Fault::Silent { node: node.clone(), during });
    lab.agents[&node].cancel();
    pass(&lab, 6).await;
    for question in ["drain pve1", "place --vcpus 2 --memory 4", "balance"] {
        let (code, text) = asked(&lab, question).await;
        assert!(code == 1 && text.contains("the data of pve5 is"), "{question}: {text}");
        let (_, answer) = object(&lab, question).await;
        assert_eq!(answer["problems"][0]["code"], "agent_stale", "{answer:#}");
    }
    lab.site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_cluster_gets_its_whole_plan_and_once_that_is_made_there_is_nothing_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path(), |_| {}).await;
    let (code, text) = asked(&lab, "balance").await;
    assert!(code == 0 && text.contains("Cluster lab: ") && text.contains("one after the other"), "{text}");
    let (_, plan) = object(&lab, "balance --cluster lab").await;
    let moves = plan["moves"].as_array().unwrap();
    assert!(moves.iter().any(|one| one["source"] == "pve3"), "the hot node is relieved: {plan:#}");
    assert!(moves.iter().all(|one| one["allowed"] == true && one["minutes"].as_f64() > Some(0.0)));
    assert_eq!((plan["nodes"].as_array().unwrap().len(), plan["stays"].as_array().unwrap().len()), (8, 8));
    assert!(plan["imbalance_after"].as_f64() < plan["imbalance_before"].as_f64(), "{plan:#}");

    // A pause keeps evenkeel from moving, and nobody from asking.
    let paused = ctl(lab.site.dir.join("ctl.toml"), &["pause", "--why", "new disks"]).await;
    assert!(paused.status.success(), "{}", said(&paused));
    pass(&lab, 4).await;
    let (code, during) = object(&lab, "balance --restarts").await;
    assert_eq!((code, during["cautions"][0]["code"].as_str()), (0, Some("paused")), "{during:#}");
    assert!(!during["moves"].as_array().unwrap().is_empty(), "{during:#}");

    // A person makes the moves as they stand.
    for one in moves {
        let number = vmid(one["guest"].as_u64().unwrap().try_into().unwrap());
        let target = NodeId::new(one["target"].as_str().unwrap()).unwrap();
        lab.cluster.fleet.lock().unwrap().guests.get_mut(&number).unwrap().node = target.clone();
        let mut fake = fake_pve::lock(&lab.cluster.fake);
        let upid = fake.start_migration(number, "ann@pam").unwrap();
        fake.end_task(&upid, "OK", Some(&target));
    }
    pass(&lab, 10).await;
    let (code, again) = object(&lab, "balance").await;
    assert_eq!((code, again["moves"].as_array().unwrap().len()), (0, 0), "{again:#}");
    let (code, text) = asked(&lab, "balance").await;
    assert!(code == 0 && text.contains("Cluster lab: nothing to do: "), "{text}");
    lab.site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_guest_gets_its_best_node_and_every_other_says_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path(), |_| {}).await;
    let (code, answer) = object(&lab, "place --vcpus 4 --memory 16").await;
    let nodes = answer["nodes"].as_array().unwrap();
    assert_eq!((code, nodes.len(), answer["best"] == nodes[0]["node"]), (0, 8, true), "{answer:#}");
    assert_eq!(nodes[7]["node"], "pve3", "the hot node is last: {answer:#}");
    for node in nodes {
        assert!(node["score_after"].as_f64() >= node["score_before"].as_f64(), "{node}");
    }
    assert_eq!((answer["cpu_load"].as_f64(), answer["cpu_load_assumed"].as_bool()), (Some(2.0), Some(true)));
    let (code, text) = asked(&lab, "place --vcpus 4 --memory 16G --cpu-load 1 --tags plb_pin_pve2,web").await;
    assert!(code == 0 && text.contains("Best node: pve2") && text.contains("1.0 cores (as told)"), "{text}");
    assert!(text.contains("pinned to pve2 by tag plb_pin_pve2"), "{text}");
    let (code, text) = asked(&lab, "place --vcpus 4 --memory 16 --disk-storage shared1").await;
    assert_eq!(code, 0, "{text}");
    let (code, text) = asked(&lab, "place --vcpus 4 --memory 16 --disk-storage nowhere").await;
    assert!(code == 1 && text.contains("storage nowhere is not available on pve1"), "{text}");
    let (code, answer) = object(&lab, "place --vcpus 96 --memory 16").await;
    assert_eq!((code, &answer["best"]), (1, &Value::Null));
    assert_eq!(answer["nodes"][0]["reason"]["code"], "too_few_cores", "{answer:#}");
    lab.site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_replayed_over_the_stored_runs() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path(), |_| {}).await;
    pass(&lab, 110).await;
    let (code, off) = object(&lab, "replay --since 1h --preset off").await;
    assert_eq!((code, off["preset"].as_str()), (0, Some("off")), "{off:#}");
    let moves = off["moves"].as_array().unwrap();
    assert!(moves.iter().any(|one| one["source"] == "pve3"), "the hot node is relieved: {off:#}");
    let score = |answer: &Value, course: &str| answer[course]["mean_score"].as_f64().unwrap();
    assert!(score(&off, "would") < score(&off, "was"), "{off:#}");
    assert!(off["would"]["node_hours_over"].as_f64() < off["was"]["node_hours_over"].as_f64(), "{off:#}");
    assert_eq!(off["returns"], 0);

    // A run of another version counts for what it saw; one without anything to see is counted as such.
    let last = lab.site.aggregator.clusters.values().next().unwrap().lock().last_run.clone().unwrap();
    let mut foreign = serde_json::to_value(&*last).unwrap();
    foreign["version"] = 99.into();
    foreign["run"] = Value::Null;
    foreign["snapshot"]["at"] = (last.snapshot.at.as_millis() + 1000 * i64::from(EVERY)).into();
    let mut batch = Batch::new();
    let cluster = ClusterId::new("lab").unwrap();
    let key =
        |later: u32| RunKey { cluster: cluster.clone(), run_s: last.run.at.as_secs() + i64::from(later) };
    batch.put(&trees::RUNS, &key(EVERY), &foreign).unwrap();
    batch.put(&trees::RUNS, &key(2 * EVERY), &serde_json::json!({ "version": 99 })).unwrap();
    lab.site.aggregator.store.apply(batch).unwrap();
    let (_, more) = object(&lab, "replay --preset off").await;
    let runs = |answer: &Value| answer["runs"].as_u64().unwrap();
    assert_eq!((runs(&more), more["unreadable"].as_u64()), (runs(&off) + 1, Some(1)), "{more:#}");

    // The cluster's own policy waits for persistence, so it moves later.
    let (_, full) = object(&lab, "replay").await;
    assert_eq!(full["preset"], "full");
    assert!(full["actions"]["observing"].as_u64() >= Some(2), "{full:#}");
    let policy = dir.path().join("policy.toml");
    std::fs::write(&policy, "preset = 'off'\ndecision_interval = 600\n").unwrap();
    let (code, text) = asked(&lab, &format!("replay --policy {}", policy.display())).await;
    assert!(code == 0 && text.contains("Preset off on cluster lab: 3 runs over 0.3 h of history"), "{text}");
    assert!(text.contains("Assumes that what guests demand does not depend on where they run"), "{text}");
    lab.site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_questions_are_refused_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path(), |_| {}).await;
    let policy = dir.path().join("policy.toml");
    std::fs::write(&policy, "cpu_treshold = 75\n").unwrap();
    let (policy, missing) =
        (policy.display().to_string(), dir.path().join("nowhere.toml").display().to_string());
    for (words, code, expected) in [
        ("drain pve99", 1, &["cluster lab has no node pve99", "it has pve1, pve2"][..]),
        ("drain ../etc", 2, &["node name"]),
        (
            "drain pve1 --cluster nope",
            1,
            &["no decisions are made for a cluster \"nope\"", "evenkeelctl status"],
        ),
        ("place --vcpus 4 --memory 16 --cluster nope", 1, &["\"nope\""]),
        (
            "balance --cluster nope",
            1,
            &["no decisions are made for a cluster \"nope\"", "evenkeelctl status"],
        ),
        ("balance pve1", 2, &["unexpected argument 'pve1'", "--help"]),
        ("place --vcpus 0 --memory 16", 2, &["1..=8192"]),
        ("place --vcpus 4 --memory lots", 2, &["512M"]),
        ("place --vcpus 4 --memory 16 --cpu-load 5", 2, &["cpu-load 5 can not be: 0 to its 4 vCPUs"]),
        ("place --vcpus 4 --memory 16 --cpu-load NaN", 2, &["cpu-load NaN can not be"]),
        ("replay --preset best", 2, &["full, standard, basic, off"]),
        (&format!("replay --policy {policy}"), 2, &["cpu_treshold", "[clusters.policy]"]),
        (&format!("replay --policy {missing}"), 2, &["nowhere.toml"]),
        (&format!("replay --policy {policy} --preset off"), 2, &["cannot be used with"]),
    ] {
        let (found, text) = asked(&lab, words).await;
        assert!(found == code && expected.iter().all(|word| text.contains(word)), "{words}: {found} {text}");
    }
    // What evenkeelctl would not let through.
    let token = lab.site.token(Role::Viewer, "a viewer").unwrap();
    let mut whatif = WhatifClient::with_interceptor(channel(&lab.site, None).await.unwrap(), bearer(&token));
    let preset = v1::ReplayPolicyRequest { preset: "best".into(), ..Default::default() };
    let refused = whatif.replay_policy(preset).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("expected off, basic, standard or full"), "{refused}");
    let huge = v1::ReplayPolicyRequest { policy_toml: "#".repeat(100_000), ..Default::default() };
    assert_eq!(whatif.replay_policy(huge).await.unwrap_err().code(), Code::InvalidArgument);
    let odd = v1::PlaceRequest { vcpus: f64::INFINITY, memory_bytes: 1 << 30, ..Default::default() };
    assert_eq!(whatif.place(odd).await.unwrap_err().code(), Code::InvalidArgument);
    let none = v1::DrainRequest { node: String::new(), cluster: String::new() };
    assert_eq!(whatif.drain(none).await.unwrap_err().code(), Code::InvalidArgument);
    lab.site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_balancer_turns_moves_into_advice() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path(), |config| {
        config.clusters[0].policy.preset = Preset::Off;
        config.clusters[0].policy.mode = Mode::Approve;
        config.clusters[0].execute.quiet_start_secs = 0;
    })
    .await;
    let last = |lab: &VirtualLab| {
        let handle = lab.site.aggregator.clusters.values().next().unwrap();
        handle.lock().last_run.clone().expect("a run")
    };
    let actions = |lab: &VirtualLab| {
        let run = last(lab);
        run.run.decisions.iter().map(|decision| decision.action).collect::<Vec<_>>()
    };
    assert!(actions(&lab).contains(&Action::AwaitingApproval), "{:?}", actions(&lab));
    // A person moves one guest: nothing changes. A tool moves one more.
    for (number, target, user) in [(100, "pve8", "ann@pam"), (101, "pve8", "root@pam!proxlb")] {
        let target = NodeId::new(target).unwrap();
        lab.sample().await.unwrap();
        lab.cluster.fleet.lock().unwrap().guests.get_mut(&vmid(number)).unwrap().node = target.clone();
        {
            let mut fake = fake_pve::lock(&lab.cluster.fake);
            let upid = fake.start_migration(vmid(number), user).unwrap();
            fake.end_task(&upid, "OK", Some(&target));
        }
        lab.decide().await.unwrap();
        pass(&lab, 10).await;
        let run = last(&lab);
        assert_eq!(run.run.suppressed, None, "{number}");
        let warned: Vec<_> = run.run.warnings.iter().map(ToString::to_string).collect();
        if user == "ann@pam" {
            assert!(actions(&lab).contains(&Action::AwaitingApproval) && warned.is_empty(), "{warned:?}");
        } else {
            assert!(
                warned[0].starts_with("another balancer, root@pam!proxlb, moved 1 guest(s)"),
                "{warned:?}"
            );
            assert!(actions(&lab).contains(&Action::Recommended), "{:?}", actions(&lab));
            assert!(!actions(&lab).contains(&Action::AwaitingApproval), "{:?}", actions(&lab));
        }
    }
    let shown = ctl(lab.site.dir.join("ctl.toml"), &["decisions", "--action", "recommended"]).await;
    assert!(said(&shown).contains("only advises until it has been quiet for 24 h"), "{}", said(&shown));
    let status = ctl(lab.site.dir.join("ctl.toml"), &["status"]).await;
    assert!(said(&status).contains("cluster lab: another balancer, root@pam!proxlb"), "{}", said(&status));
    // It is remembered over a restart.
    let lab = lab.restart().await.unwrap();
    pass(&lab, 10).await;
    assert_eq!(last(&lab).snapshot.others.len(), 1);
    lab.site.shut_down().await;
}
