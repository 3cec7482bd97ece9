//! Fleet detection on the whole path: silence, health, forecasts, what people say, and models.

use std::path::Path;
use std::time::Duration;

use evenkeel_aggregator::identity::roles::Role;
use evenkeel_aggregator::store::records::NodeKey;
use evenkeel_common::anomaly::{Anomaly, DetectorKind, Severity, Vote};
use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_common::sample::{Metric, SeriesKey};
use evenkeel_common::time::Window;
use evenkeel_common::units::Probability;
use evenkeel_detect::ensemble::{AbstainReason, FleetDetector};
use evenkeel_proto::v1;
use evenkeel_proto::v1::from_agent::Message;
use evenkeel_tests::harness::{Site, real_time};
use evenkeel_tests::lab::{VIRTUAL_START, VirtualLab};
use evenkeel_tests::sim::Fault;
use tonic::Code;

use crate::support::{
    Wire, anomalies, certificate, config, control_as, ctl, fleet_as, hello, lab, pass, said, site,
};

async fn silences(site: &Site) -> Vec<v1::AnomalyView> {
    anomalies(site).await.into_iter().filter(|anomaly| anomaly.metric == "silence").collect()
}

async fn score(site: &Site, node: &str) -> v1::HealthScore {
    let request = v1::ListScoresRequest { node: node.into(), ..Default::default() };
    let answer = fleet_as(site, Role::Viewer).await.list_scores(request).await.unwrap().into_inner();
    answer.scores.into_iter().find(|score| score.vmid.is_none()).unwrap()
}

fn key(node: &str) -> NodeKey {
    NodeKey { cluster: ClusterId::new("lab").unwrap(), node: NodeId::new(node).unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_one_anomaly_that_outlives_a_restart_and_closes_on_its_return() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path(), |_| {}).await;
    pass(&lab, 30).await;
    assert_eq!(silences(&lab.site).await, [], "nobody is silent");
    assert_eq!(score(&lab.site, "pve5").await.status, "healthy");
    let node = NodeId::new("pve5").unwrap();
    let during = Window { from: VIRTUAL_START, to: VIRTUAL_START.after(Duration::from_secs(120)) };
    lab.cluster.fleet.lock().unwrap().faults.push(Fault::Silent { node, during });
    pass(&lab, 40).await;
    let told = silences(&lab.site).await;
    let [silent] = told.as_slice() else { panic!("{told:#?}") };
    assert_eq!(
        (silent.node.as_str(), silent.state.as_str(), silent.severity.as_str()),
        ("pve5", "open", "critical")
    );
    assert_eq!(silent.detectors[0].detector, "silence");
    assert!(silent.text.contains("stopped answering") && silent.vmid.is_none(), "{silent:?}");
    let ill = score(&lab.site, "pve5").await;
    assert_eq!(ill.status, "critical");
    assert!(ill.parts.iter().any(|part| part.code == "silent"), "{:?}", ill.parts);

    let lab = lab.restart().await.unwrap();
    pass(&lab, 20).await;
    let kept = silences(&lab.site).await;
    assert_eq!((kept.len(), &kept[0].id, kept[0].state.as_str()), (1, &silent.id, "open"));
    pass(&lab, 60).await;
    let closed = silences(&lab.site).await;
    assert_eq!((closed.len(), closed[0].state.as_str()), (1, "closed"), "{closed:#?}");
    assert!(score(&lab.site, "pve5").await.status != "critical");
    lab.site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_falls_with_a_critical_anomaly_and_returns_with_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path(), |_| {}).await;
    pass(&lab, 30).await;
    let before = score(&lab.site, "pve1").await.score.unwrap();
    let cell = lab.site.aggregator.live.node(&key("pve1").cluster, &key("pve1").node);
    let anomaly = |injected| Anomaly { injected, ..anomaly(1) };
    cell.lock().open.insert(([1; 16], 1), anomaly(true));
    pass(&lab, 10).await;
    assert_eq!(score(&lab.site, "pve1").await.score, Some(before), "a drill costs nothing");
    cell.lock().open.insert(([1; 16], 1), anomaly(false));
    pass(&lab, 10).await;
    let during = score(&lab.site, "pve1").await;
    assert_eq!(during.score, Some(before - 20.0), "{:?}", during.parts);
    assert!(during.parts.iter().any(|part| part.text == "critical anomaly cpu_used"), "{:?}", during.parts);
    cell.lock().open.remove(&([1; 16], 1));
    pass(&lab, 10).await;
    assert_eq!(score(&lab.site, "pve1").await.score, Some(before));

    let request =
        v1::ListScoresRequest { node: "pve1".into(), history_ms: Some(86_400_000), ..Default::default() };
    let answer = fleet_as(&lab.site, Role::Viewer).await.list_scores(request).await.unwrap().into_inner();
    let own = answer.scores.iter().find(|score| score.vmid.is_none()).unwrap();
    let course: Vec<f64> = own.history.iter().filter_map(|point| point.score).collect();
    assert!(course.contains(&(before - 20.0)) && course.last() == Some(&before), "{course:?}");
    assert!(answer.scores.iter().any(|score| score.vmid.is_some() && score.status == "healthy"));
    lab.site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_leak_is_forecast_and_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path(), |config| config.fleet.rollup_secs = 60).await;
    for _ in 0..15 {
        {
            // One per cent of the node a minute.
            let mut fleet = lab.cluster.fleet.lock().unwrap();
            let total = fleet.nodes[&key("pve2").node].memory.as_f64();
            let guest = fleet.guests.values_mut().find(|guest| guest.node.as_str() == "pve2").unwrap();
            guest.workload.memory += 0.01 * total / guest.memory.as_f64();
        }
        pass(&lab, 60).await;
    }
    let mut viewer = fleet_as(&lab.site, Role::Viewer).await;
    let told =
        viewer.list_forecasts(v1::ListForecastsRequest::default()).await.unwrap().into_inner().forecasts;
    let leak = told.iter().find(|f| f.node == "pve2" && f.metric == "mem_used").expect("a forecast");
    assert!((leak.per_hour - 60.0).abs() < 12.0 && leak.warning && leak.limit == 80.0, "{leak:?}");
    assert!(leak.hours_earliest <= leak.hours && leak.hours < 1.0, "{leak:?}");
    assert!(told.iter().all(|f| f.node == "pve2"), "the others do not leak: {told:?}");
    let mut control = control_as(&lab.site, Role::Viewer).await;
    let status = control.get_status(v1::GetStatusRequest {}).await.unwrap().into_inner();
    assert!(
        status.warnings.iter().any(|w| w.contains("mem_used of pve2 reaches 80 %")),
        "{:?}",
        status.warnings
    );
    let health = score(&lab.site, "pve2").await;
    assert!(health.parts.iter().any(|part| part.code == "forecast"), "{:?}", health.parts);
    let shown = ctl(dir.path().join("ctl.toml"), &["forecast"]).await;
    assert!(shown.status.success() && said(&shown).contains("mem_used"), "{}", said(&shown));
    lab.site.shut_down().await;
}

fn anomaly(number: u64) -> Anomaly {
    Anomaly {
        number,
        series: SeriesKey::node(Metric::CpuUsed),
        opened_at: real_time(),
        closed_at: None,
        value: 97.0,
        expected: 30.0,
        deviation: 9.0,
        confidence: Probability::clamped(0.99),
        severity: Severity::Critical,
        votes: vec![Vote {
            detector: DetectorKind::Ewma,
            score: 9.0,
            confidence: Probability::clamped(0.99),
        }],
        causes: Vec::new(),
        injected: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_say_of_an_anomaly_is_kept_shown_counted_and_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), config()).await;
    let agent = certificate(dir.path(), "pve1");
    let (mut wire, _) = Wire::greet(&site, &agent, hello(7, 3, 1)).await.unwrap();
    let opened = |number: u64| v1::Event {
        at_ms: real_time().as_millis(),
        uptime_ms: number,
        kind: Some(v1::event::Kind::AnomalyOpened(anomaly(number).into())),
    };
    wire.say(Message::Events(v1::EventBatch { first_seq: 1, events: vec![opened(1), opened(2)] })).await;
    wire.acknowledged(2, 0).await;
    let mut viewer = control_as(&site, Role::Viewer).await;
    let listed =
        viewer.list_anomalies(v1::ListAnomaliesRequest::default()).await.unwrap().into_inner().anomalies;
    let (first, second) = (listed[0].id.clone(), listed[1].id.clone());

    let toml = dir.path().join("ctl.toml");
    for (id, verdict) in [(&first, "bad"), (&second, "good"), (&second, "bad")] {
        let noted = ctl(toml.clone(), &["feedback", id, verdict, "--note", "a backup"]).await;
        assert!(noted.status.success(), "{}", said(&noted));
    }
    let json = said(&ctl(toml.clone(), &["anomalies", "--output", "json"]).await);
    assert_eq!(json.matches("\"feedback\": \"bad\"").count(), 2, "the later judgement counts: {json}");
    assert!(json.contains("\"feedback_note\": \"a backup\""), "{json}");
    let request = v1::ListDetectorsRequest::default();
    let counted = fleet_as(&site, Role::Viewer).await.list_detectors(request).await.unwrap().into_inner();
    let ewma = counted.detectors.iter().find(|detector| detector.detector == "ewma").unwrap();
    assert_eq!((ewma.anomalies, ewma.good, ewma.bad, ewma.false_alarm_share), (2, 0, 2, Some(1.0)));
    assert!(ewma.share_low.unwrap() < 0.4, "two answers prove little: {ewma:?}");

    let mut operator = fleet_as(&site, Role::Operator).await;
    let say =
        |anomaly: &str| v1::GiveFeedbackRequest { anomaly: anomaly.into(), good: true, note: String::new() };
    for (id, code) in [("nonsense", Code::InvalidArgument), ("lab/pve1/00000000-1", Code::NotFound)] {
        assert_eq!(operator.give_feedback(say(id)).await.unwrap_err().code(), code, "{id}");
    }
    let refused = fleet_as(&site, Role::Viewer).await.give_feedback(say(&first)).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    let usage = ctl(toml, &["feedback", "nonsense", "good"]).await;
    assert_eq!(usage.status.code(), Some(2), "{}", said(&usage));
    site.shut_down().await;
    let log = std::fs::read_to_string(dir.path().join("aggregator/audit.log")).unwrap();
    assert_eq!(log.matches("Fleet/GiveFeedback").count(), 3, "{log}");
}

/// Eight days of five minutes of a node like pve1, as a file.
fn history(path: &Path) {
    let mut text =
        "timestamp,bandwidth,latency,packet_loss,jitter,cpu_usage,memory_usage,error_rate\n".to_owned();
    for n in 0..8 * 288_i64 {
        let at = VIRTUAL_START.as_secs() - (8 * 288 - n) * 300;
        let wave = (n as f64 / 288.0 * std::f64::consts::TAU).sin();
        let noise = ((n * 7919) % 101) as f64 / 101.0 - 0.5;
        let (mbit, cpu, memory) =
            (80.0 + 10.0 * wave + 4.0 * noise, 35.0 + 5.0 * wave + 3.0 * noise, 45.0 + noise);
        text.push_str(&format!("{at},{mbit:.2},,,,{cpu:.2},{memory:.2},0\n"));
    }
    std::fs::write(path, text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_trained_activated_used_and_refused_when_its_file_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path(), |config| {
        config.fleet.ensemble.lstm_autoencoder.epochs = 1;
        config.fleet.ensemble.isolation_forest.trees = 50;
    })
    .await;
    pass(&lab, 20).await;
    let forest = |lab: &VirtualLab| {
        let verdict = lab.site.aggregator.fleet.verdict(&key("pve1")).unwrap();
        let abstained = verdict.abstained.iter().find(|a| a.detector == FleetDetector::IsolationForest);
        (
            verdict.votes.iter().any(|v| v.detector == FleetDetector::IsolationForest),
            abstained.map(|a| a.reason),
        )
    };
    assert_eq!(forest(&lab), (false, Some(AbstainReason::NoModel)));

    let (toml, file) = (dir.path().join("ctl.toml"), dir.path().join("history.csv"));
    std::fs::write(&file, "timestamp,bandwidth\n1,2\n").unwrap();
    let words = ["model", "train", "--csv", file.to_str().unwrap(), "--node", "pve1"];
    let bad = ctl(toml.clone(), &words).await;
    assert!(bad.status.code() == Some(2) && said(&bad).contains("line 1"), "{}", said(&bad));
    history(&file);
    let trained = ctl(toml.clone(), &words).await;
    assert!(trained.status.success() && said(&trained).contains("lab-m1"), "{}", said(&trained));
    let again = ctl(toml.clone(), &words).await;
    assert!(again.status.success() && said(&again).contains("lab-m2"), "{}", said(&again));
    pass(&lab, 10).await;
    assert_eq!(forest(&lab).1, Some(AbstainReason::NoModel), "trained is not yet in use");
    for id in ["lab-m1", "lab-m2"] {
        let activated = ctl(toml.clone(), &["model", "activate", id]).await;
        assert!(activated.status.success(), "{}", said(&activated));
    }
    let back = ctl(toml.clone(), &["model", "rollback", "--node", "pve1"]).await;
    assert!(said(&back).contains("In use now: lab-m1; before: lab-m2"), "{}", said(&back));
    pass(&lab, 10).await;
    assert_eq!(forest(&lab), (true, None), "it has a vote now");
    let drift = ctl(toml.clone(), &["model", "drift"]).await;
    assert!(drift.status.success() && said(&drift).contains("lab-m1"), "{}", said(&drift));

    let damaged = dir.path().join("aggregator/models/lab-m1-isolation_forest.ekmodel");
    let mut bytes = std::fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let lab = lab.restart().await.unwrap();
    pass(&lab, 20).await;
    assert_eq!(forest(&lab), (false, Some(AbstainReason::ModelRefused)));
    let status = said(&ctl(toml.clone(), &["status", "--output", "json"]).await);
    assert!(status.contains("isolation_forest") && status.contains("damaged"), "{status}");
    let listed = said(&ctl(toml.clone(), &["model", "list"]).await);
    assert!(listed.contains("damaged"), "{listed}");
    let refused = ctl(toml.clone(), &["model", "activate", "lab-m1"]).await;
    assert!(refused.status.code() == Some(1) && said(&refused).contains("checksum"), "{}", said(&refused));
    let unknown = ctl(toml, &["model", "activate", "lab-m9"]).await;
    assert!(unknown.status.code() == Some(1) && said(&unknown).contains("model list"), "{}", said(&unknown));
    lab.site.shut_down().await;
}
