//! Stories of a lab as an admin lives them, told by the public interface alone: what was wrong is told where it was, once,
//! with its metric, and nowhere else; and what comes every night is no news from the third night on.

use std::time::Duration;

use evenkeel_aggregator::identity::roles::Role;
use evenkeel_common::id::NodeId;
use evenkeel_common::time::{Timestamp, Window};
use evenkeel_proto::v1;
use evenkeel_tests::lab::{Options, VIRTUAL_START, VirtualLab};
use evenkeel_tests::sim::Fault;

use crate::support::{anomalies, control_as, ctl, fleet_as, options, pass, said};

/// Seconds between samples in the story of one day.
const STEP: u32 = 10;

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

/// A time of the lab, in minutes after its start.
fn minute(n: u64) -> Timestamp {
    VIRTUAL_START.after(Duration::from_secs(60 * n))
}

fn during(from: u64, minutes: u64) -> Window {
    Window { from: minute(from), to: minute(from + minutes) }
}

/// One anomaly in a line, for those who read a failure.
fn line(anomaly: &v1::AnomalyView) -> String {
    let m = |ms: i64| (ms - VIRTUAL_START.as_millis()) as f64 / 60_000.0;
    let guest = anomaly.vmid.map(|vmid| format!("{vmid}/")).unwrap_or_default();
    let closed = anomaly.closed_ms.map_or("open".to_owned(), |ms| format!("{:.1}", m(ms)));
    let by: Vec<&str> = anomaly.detectors.iter().map(|vote| vote.detector.as_str()).collect();
    format!(
        "{} {guest}{}[{}] {} from {:.1} to {closed} min: {:.2}, usually {:.2} (by {}) {}",
        anomaly.node,
        anomaly.metric,
        anomaly.instance,
        anomaly.severity,
        m(anomaly.opened_ms),
        anomaly.value,
        anomaly.expected,
        by.join(", "),
        anomaly.text
    )
}

/// What an anomaly is about: metric, and instance where it has one.
fn about(anomaly: &v1::AnomalyView) -> String {
    match anomaly.instance.as_str() {
        "" => anomaly.metric.clone(),
        instance => format!("{}[{instance}]", anomaly.metric),
    }
}

/// The anomalies that opened between two minutes: all on this node, each told once and closed, those named among them,
/// and all others of those that go with it.
#[track_caller]
fn told_once(all: &[v1::AnomalyView], (from, to): (u64, u64), on: &str, must: &[&str], may: &[&str]) {
    let told: Vec<&v1::AnomalyView> = all
        .iter()
        .filter(|a| (minute(from).as_millis()..minute(to).as_millis()).contains(&a.opened_ms))
        .collect();
    let lines: Vec<String> = told.iter().map(|anomaly| line(anomaly)).collect();
    let lines = lines.join("\n");
    let mut seen: Vec<String> = told.iter().map(|anomaly| about(anomaly)).collect();
    for anomaly in &told {
        assert_eq!(anomaly.node, on, "told elsewhere: {}\n{lines}", line(anomaly));
        assert_eq!(anomaly.state, "closed", "{}\n{lines}", line(anomaly));
    }
    for must in must {
        assert!(seen.iter().any(|about| about == must), "{must} is not told\n{lines}");
    }
    seen.sort();
    let all_of_them = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), all_of_them, "something was told twice\n{lines}");
    let stray: Vec<&String> = seen
        .iter()
        .filter(|about| !must.contains(&about.as_str()) && !may.contains(&about.as_str()))
        .collect();
    assert!(stray.is_empty(), "does not belong to it: {stray:?}\n{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hog_a_silent_node_a_slow_link_and_a_leak_are_told_once_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { interval_s: STEP, ..options(dir.path()) };
    let lab =
        VirtualLab::start_with(&options, |config| config.fleet.silence_after_secs = 2 * STEP).await.unwrap();
    // Nine hours in which nothing is wrong: peers are compared after eight of them.
    lab.cluster.fleet.lock().unwrap().faults = vec![
        Fault::HostLoad { node: node("pve2"), share: 0.5, during: during(540, 20) },
        Fault::Silent { node: node("pve5"), during: during(600, 10) },
        Fault::Link { node: node("pve6"), extra_ms: 40.0, loss_percent: 20.0, during: during(660, 20) },
        Fault::Leak { node: node("pve1"), gib_per_hour: 16.0, during: during(720, 120) },
    ];
    let minutes = 60 / STEP;
    pass(&lab, 835 * minutes).await;
    let mut control = control_as(&lab.site, Role::Viewer).await;
    let warnings = control.get_status(v1::GetStatusRequest {}).await.unwrap().into_inner().warnings;
    assert!(warnings.iter().any(|w| w.contains("mem_used of pve1 reaches 80 %")), "{warnings:?}");
    let forecasts = v1::ListForecastsRequest::default();
    let forecasts = fleet_as(&lab.site, Role::Viewer).await.list_forecasts(forecasts).await.unwrap();
    let near = forecasts.into_inner().forecasts.into_iter().filter(|forecast| forecast.warning);
    let near: Vec<(String, String)> = near.map(|forecast| (forecast.node, forecast.metric)).collect();
    assert_eq!(near, [("pve1".to_owned(), "mem_used".to_owned())]);
    pass(&lab, 65 * minutes).await;

    let all = anomalies(&lab.site).await;
    for anomaly in all.iter().rev() {
        println!("{}", line(anomaly));
    }
    let before = all.iter().filter(|anomaly| anomaly.opened_ms < minute(540).as_millis()).count();
    assert!(before <= 4, "{before} false alarms in nine quiet hours of eight nodes and a hundred guests");
    let load = [
        "load1",
        "psi_cpu_some",
        "psi_cpu_some[peers]",
        "cpu_used[peers]",
        "cpu_used[ensemble]",
        "node_anomaly",
    ];
    told_once(&all, (540, 600), "pve2", &["cpu_used"], &load);
    told_once(&all, (600, 660), "pve5", &["silence"], &[]);
    let link = [
        "probe_jitter",
        "probe_loss",
        "probe_loss[ensemble]",
        "probe_latency[peers]",
        "probe_loss[peers]",
        "probe_jitter[peers]",
        "node_anomaly",
    ];
    told_once(&all, (660, 720), "pve6", &["probe_latency"], &link);
    let memory = ["mem_used", "mem_used_bytes", "mem_used[ensemble]", "node_anomaly"];
    told_once(&all, (720, 900), "pve1", &["mem_used[peers]"], &memory);

    let shown = said(&ctl(dir.path().join("ctl.toml"), &["anomalies", "--since", "24h"]).await);
    for words in ["cpu_used", "silence", "probe_latency", "pve1", "pve2", "pve5", "pve6"] {
        assert!(shown.contains(words), "{words} is not in {shown}");
    }
    lab.site.shut_down().await;
}

/// Seconds between samples in the story of many nights.
const COARSE: u32 = 30;
/// Nights of it.
const NIGHTS: u64 = 4;
/// Minutes from the start of the lab, at eight in the morning, to two at night.
const TWO: u64 = 18 * 60;

#[tokio::test(flavor = "multi_thread")]
async fn a_nightly_backup_is_told_for_two_nights_and_no_news_from_the_third_on() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { interval_s: COARSE, ..options(dir.path()) };
    let lab = VirtualLab::start_with(&options, |config| {
        config.fleet.ensemble.check_interval_s = COARSE;
        config.fleet.silence_after_secs = 3 * COARSE;
        config.fleet.rollup_secs = 3600;
    })
    .await
    .unwrap();
    {
        let mut fleet = lab.cluster.fleet.lock().unwrap();
        fleet.faults = vec![Fault::Backup { node: node("pve4"), first: during(TWO, 20) }];
        // Two guests a node do: the story is the node's.
        fleet.guests.retain(|vmid, _| vmid.get() < 120);
        let left: Vec<_> = fleet.guests.keys().copied().collect();
        lab.cluster.fake.lock().unwrap().guests.retain(|vmid, _| left.contains(vmid));
    }
    pass(&lab, ((TWO + (NIGHTS - 1) * 1440 + 60) * 60 / u64::from(COARSE)) as u32).await;
    let all = anomalies(&lab.site).await;
    for anomaly in all.iter().rev() {
        println!("{}", line(anomaly));
    }
    for night in 0..NIGHTS {
        let from = TWO + night * 1440;
        let told = all
            .iter()
            .filter(|a| (minute(from).as_millis()..minute(from + 40).as_millis()).contains(&a.opened_ms));
        let told: Vec<String> = told.map(line).collect();
        if night < 2 {
            assert!(
                told.iter().any(|line| line.starts_with("pve4 disk_read")),
                "night {}: {told:#?}",
                night + 1
            );
        } else {
            assert_eq!(told, Vec::<String>::new(), "night {}", night + 1);
        }
    }
    lab.site.shut_down().await;
}

/// Decides nothing but by what the public interface shows: how long after the first sample of a hog its anomaly is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_hog_is_seen_within_half_a_minute_of_its_first_sample() {
    let dir = tempfile::tempdir().unwrap();
    let lab = VirtualLab::start(&options(dir.path()), |_| {}).await.unwrap();
    {
        let mut fleet = lab.cluster.fleet.lock().unwrap();
        let during = Window { from: minute(70), to: minute(75) };
        fleet.faults = vec![Fault::HostLoad { node: node("pve2"), share: 0.5, during }];
        fleet.guests.retain(|vmid, _| vmid.get() < 120);
        let left: Vec<_> = fleet.guests.keys().copied().collect();
        lab.cluster.fake.lock().unwrap().guests.retain(|vmid, _| left.contains(vmid));
    }
    pass(&lab, 70 * 60).await;
    let mut control = control_as(&lab.site, Role::Viewer).await;
    let question = v1::ListAnomaliesRequest { since_ms: Some(minute(70).as_millis()), ..Default::default() };
    for second in 1..=30 {
        lab.sample().await.unwrap();
        let sampled = std::time::Instant::now();
        // What an agent says of its sample comes beside it; half a second of the lab is up to a tenth of a real one here.
        for _ in 0..20 {
            let told = control.list_anomalies(question.clone()).await.unwrap().into_inner().anomalies;
            if let Some(hog) = told.iter().find(|a| a.node == "pve2" && a.metric == "cpu_used") {
                let wall = sampled.elapsed().as_millis();
                println!(
                    "visible {second} s after the first sample of the hog, {wall} ms after the last: {}",
                    line(hog)
                );
                lab.site.shut_down().await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        lab.decide().await.unwrap();
    }
    panic!("not seen within half a minute");
}
