//! The rules of fleet detection on the whole path: a guest without figures, ways without answers, and tasks that fail.

use std::time::Duration;

use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::Window;
use evenkeel_proto::v1;
use evenkeel_tests::lab::{Options, VirtualLab};
use evenkeel_tests::sim::Fault;

use crate::support::{anomalies, ctl, options, pass, said};

/// Seconds between samples.
const STEP: u32 = 10;

async fn lab(dir: &std::path::Path) -> VirtualLab {
    let options = Options { interval_s: STEP, ..options(dir) };
    VirtualLab::start_with(&options, |config| config.fleet.silence_after_secs = 2 * STEP).await.unwrap()
}

fn from_now(lab: &VirtualLab, seconds: u64) -> Window {
    use evenkeel_runtime::clock::Clock as _;
    let from = lab.clock.now();
    Window { from, to: from.after(Duration::from_secs(seconds)) }
}

async fn told(lab: &VirtualLab, metric: &str) -> Vec<v1::AnomalyView> {
    let mut told = anomalies(&lab.site).await;
    told.retain(|anomaly| anomaly.metric == metric);
    told.sort_by(|a, b| (&a.node, &a.instance).cmp(&(&b.node, &b.instance)));
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_says_nothing_while_its_node_does_is_told_and_one_that_is_idle_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path()).await;
    let (mute, idle) = (Vmid::new(101).unwrap(), Vmid::new(102).unwrap());
    {
        let mut fleet = lab.cluster.fleet.lock().unwrap();
        let workload = &mut fleet.guests.get_mut(&idle).unwrap().workload;
        (workload.level, workload.io) = (0.0, 0.0);
    }
    pass(&lab, 12).await;
    let during = from_now(&lab, 120);
    lab.cluster.fleet.lock().unwrap().faults.push(Fault::Mute { guest: mute, during });
    pass(&lab, 9).await;
    let silent = told(&lab, "silence").await;
    let [one] = silent.as_slice() else { panic!("{silent:#?}") };
    assert_eq!((one.node.as_str(), one.vmid, one.state.as_str()), ("pve2", Some(101), "open"));
    assert!(one.text.contains("guest 101 runs, but its figures have stopped"), "{}", one.text);
    pass(&lab, 9).await;
    let silent = told(&lab, "silence").await;
    assert_eq!((silent.len(), silent[0].state.as_str()), (1, "closed"), "{silent:#?}");
    lab.site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ways_without_an_answer_are_told_at_the_node_that_is_cut_off_and_not_at_those_that_ask_it() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path()).await;
    pass(&lab, 12).await;
    let (node, during) = (NodeId::new("pve6").unwrap(), from_now(&lab, 240));
    let link = Fault::Link { node, extra_ms: 0.0, loss_percent: 100.0, during };
    lab.cluster.fleet.lock().unwrap().faults.push(link);
    pass(&lab, 18).await;
    let silent = told(&lab, "silence").await;
    let at: Vec<(&str, &str)> = silent.iter().map(|a| (a.node.as_str(), a.instance.as_str())).collect();
    assert_eq!(at, [("pve6", "pve1"), ("pve6", "pve2"), ("pve6", "pve7"), ("pve6", "pve8")]);
    assert!(silent.iter().all(|a| a.state == "open" && a.text.contains("though its agent reports")));
    pass(&lab, 18).await;
    let silent = told(&lab, "silence").await;
    assert!(silent.len() == 4 && silent.iter().all(|a| a.state == "closed"), "{silent:#?}");
    lab.site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_fail_are_an_error_rate_with_their_messages() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path()).await;
    pass(&lab, 12).await;
    assert_eq!(told(&lab, "task_error_rate").await, []);
    {
        let mut fake = lab.cluster.fake.lock().unwrap();
        for n in 0..8 {
            let (node, failing) = (NodeId::new(["pve3", "pve4"][n % 2]).unwrap(), n % 2 == 0);
            let upid = fake.add_task(&node, "vzdump", &(100 + n).to_string(), "root@pam");
            let status = if failing { "job errors: storage 'backup1' is not online" } else { "OK" };
            fake.end_task(&upid, status, None);
        }
        for n in 0..2 {
            let upid =
                fake.add_task(&NodeId::new("pve3").unwrap(), "qmstart", &(110 + n).to_string(), "root@pam");
            fake.end_task(&upid, "OK", None);
        }
    }
    pass(&lab, 18).await;
    let rate = told(&lab, "task_error_rate").await;
    let [one] = rate.as_slice() else { panic!("{rate:#?}") };
    assert_eq!((one.node.as_str(), one.state.as_str()), ("pve3", "open"));
    assert!(one.text.contains("4 of 6 tasks failed") && one.value > 60.0, "{one:?}");
    assert!(
        !one.samples.is_empty() && one.samples.iter().all(|s| s.contains("storage 'backup1' is not online"))
    );
    let json = said(&ctl(dir.path().join("ctl.toml"), &["anomalies", "--output", "json"]).await);
    assert!(json.contains("storage 'backup1' is not online"), "{json}");
    pass(&lab, 3600 / STEP).await;
    let rate = told(&lab, "task_error_rate").await;
    assert_eq!((rate.len(), rate[0].state.as_str()), (1, "closed"), "an hour later it is past");
    lab.site.shut_down().await;
}
