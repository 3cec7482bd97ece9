//! Fault drills on the whole path: ordered by a person, done by an agent that allows them, marked everywhere, and never
//! part of a decision.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_aggregator::config::ClusterConfig;
use evenkeel_aggregator::identity::roles::Role;
use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_common::reason::Reason;
use evenkeel_core::RunRecord;
use evenkeel_proto::v1;
use evenkeel_proto::v1::control_client::ControlClient;
use evenkeel_runtime::clock::SystemClock;
use evenkeel_tests::lab::VirtualLab;
use evenkeel_tests::sim::{Fleet, SimSource};
use tonic::Code;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use crate::support::{Bearer, STUCK, anomalies, config, control_as, ctl, options, pass, said, site};

fn often(cluster: &mut ClusterConfig) {
    cluster.policy.decision_interval = 15;
}

type Client = ControlClient<InterceptedService<Channel, Bearer>>;

async fn drills(client: &mut Client) -> Vec<v1::DrillView> {
    client.list_drills(v1::ListDrillsRequest::default()).await.unwrap().into_inner().drills
}

/// Goes on until the agent says so.
async fn until_state(lab: &VirtualLab, client: &mut Client, id: &str, state: &str, most: u32) {
    for _ in 0..most {
        let told = drills(client).await;
        let drill = told.iter().find(|drill| drill.id == id).unwrap_or_else(|| panic!("{id}: {told:?}"));
        if drill.state == state {
            return;
        }
        // Orders travel in real time, beside the lab's.
        tokio::time::sleep(Duration::from_millis(20)).await;
        pass(lab, 1).await;
    }
    panic!("never {state}: {:?}", drills(client).await);
}

fn last(lab: &VirtualLab) -> Arc<RunRecord> {
    let handle = lab.site.aggregator.clusters.values().next().unwrap();
    handle.lock().last_run.clone().expect("a run")
}

fn barred(run: &RunRecord) -> Vec<&str> {
    let injected = |node: &&evenkeel_core::snapshot::NodeState| matches!(&node.barred, Some(Reason::DataInjected { node: named }) if *named == node.id);
    run.snapshot.nodes.iter().filter(injected).map(|node| node.id.as_str()).collect()
}

fn order(node: &str, kind: &str, amount: f64, seconds: u64) -> v1::SimulateRequest {
    let (node, kind) = (node.into(), kind.into());
    v1::SimulateRequest { node, kind, amount, lasts_ms: seconds * 1000, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_is_seen_marked_and_kept_from_decisions_until_its_data_are_old() {
    let dir = tempfile::tempdir().unwrap();
    let lab = VirtualLab::start(&options(dir.path()), often).await.unwrap();
    pass(&lab, 135).await;
    let before = last(&lab);
    assert_eq!((barred(&before).len(), &before.run.suppressed), (0, &None));
    assert!(!before.run.decisions.is_empty(), "pve3 is to be relieved: {}", before.run.summary);

    let mut operator = control_as(&lab.site, Role::Operator).await;
    let drill = operator.simulate(order("pve3", "cpu", 60.0, 90)).await.unwrap().into_inner().drill.unwrap();
    let memory =
        operator.simulate(order("pve1", "memory", 60.0, 90)).await.unwrap().into_inner().drill.unwrap();
    until_state(&lab, &mut operator, &drill.id, "running", 60).await;
    pass(&lab, 45).await;
    let run = last(&lab);
    assert_eq!(barred(&run), ["pve1", "pve3"]);
    for decision in &run.run.decisions {
        let advice = &decision.recommendation;
        let nodes = [advice.source.as_str(), advice.target.as_str()];
        assert!(!nodes.contains(&"pve1") && !nodes.contains(&"pve3"), "{decision:?}");
    }
    let shown = said(&ctl(dir.path().join("ctl.toml"), &["simulate", "status"]).await);
    assert!(shown.contains("running") && shown.contains("pve3"), "{shown}");
    let open: Vec<_> = anomalies(&lab.site).await.into_iter().filter(|anomaly| anomaly.injected).collect();
    let of = |anomaly: &v1::AnomalyView| (anomaly.node.clone(), anomaly.metric.clone());
    assert!(open.iter().any(|anomaly| of(anomaly) == ("pve1".into(), "mem_used".into())), "{open:?}");

    until_state(&lab, &mut operator, &drill.id, "over", 120).await;
    until_state(&lab, &mut operator, &memory.id, "over", 5).await;
    pass(&lab, 15).await;
    assert_eq!(barred(&last(&lab)), ["pve1", "pve3"], "its data still count within the minute");
    pass(&lab, 75).await;
    let after = last(&lab);
    assert_eq!(barred(&after), Vec::<&str>::new());
    assert!(!after.run.decisions.is_empty(), "{}", after.run.summary);
    let injected: Vec<_> =
        anomalies(&lab.site).await.into_iter().filter(|anomaly| anomaly.injected).collect();
    assert!(injected.iter().all(|anomaly| anomaly.state == "closed"), "{injected:?}");
    lab.site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clear_ends_a_drill_and_so_does_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let lab = VirtualLab::start(&options(dir.path()), often).await.unwrap();
    let mut operator = control_as(&lab.site, Role::Operator).await;
    let drill =
        operator.simulate(order("pve2", "delay", 25.0, 3600)).await.unwrap().into_inner().drill.unwrap();
    until_state(&lab, &mut operator, &drill.id, "running", 60).await;
    let cleared = said(&ctl(dir.path().join("ctl.toml"), &["simulate", "clear", "--node", "pve2"]).await);
    assert!(cleared.contains(&drill.id), "{cleared}");
    until_state(&lab, &mut operator, &drill.id, "cleared", 60).await;

    let drill =
        operator.simulate(order("pve2", "cpu", 25.0, 3600)).await.unwrap().into_inner().drill.unwrap();
    until_state(&lab, &mut operator, &drill.id, "running", 60).await;
    drop(operator);
    let lab = lab.restart().await.unwrap();
    let mut operator = control_as(&lab.site, Role::Operator).await;
    assert_eq!(drills(&mut operator).await, []);
    pass(&lab, 90).await;
    assert_eq!(barred(&last(&lab)), Vec::<&str>::new());
    lab.site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_allow_it_refuses_and_nonsense_goes_no_further_than_the_aggregator() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), config()).await;
    let (cluster, node) = (ClusterId::new("lab").unwrap(), NodeId::new("pve1").unwrap());
    let fleet = Fleet::lab(cluster.clone(), 1, evenkeel_tests::harness::real_time());
    let source = SimSource::new(Arc::new(Mutex::new(fleet)), node.clone());
    let agent = site.agent_config(&cluster, &node).unwrap();
    assert!(!agent.drills.allowed, "nobody allowed it");
    site.spawn_agent(agent, Box::new(source), Arc::new(SystemClock::new()));
    let cell = site.aggregator.live.node(&cluster, &node);
    crate::support::until("the agent is connected", || cell.lock().connected).await;

    let mut operator = control_as(&site, Role::Operator).await;
    for (bad, code) in [
        (order("pve1", "fire", 1.0, 60), Code::InvalidArgument),
        (order("pve1", "cpu", f64::NAN, 60), Code::InvalidArgument),
        (order("pve1", "cpu", -1.0, 60), Code::InvalidArgument),
        (order("pve1", "cpu", 10.0, 3601), Code::InvalidArgument),
        (v1::SimulateRequest { vmid: 100, ..order("pve1", "delay", 10.0, 60) }, Code::InvalidArgument),
        (order("pve9", "cpu", 10.0, 60), Code::NotFound),
        (order("", "cpu", 10.0, 60), Code::InvalidArgument),
    ] {
        let status = operator.simulate(bad.clone()).await.unwrap_err();
        assert_eq!(status.code(), code, "{bad:?}: {}", status.message());
    }
    operator.simulate(order("pve1", "cpu", 10.0, 60)).await.unwrap();
    let ctl_file = dir.path().join("ctl.toml");
    let refused = async {
        loop {
            let shown = said(&ctl(ctl_file.clone(), &["simulate", "status"]).await);
            if shown.contains("refused") {
                return shown;
            }
        }
    };
    let shown = tokio::time::timeout(STUCK, refused).await.expect("the agent refuses");
    assert!(shown.contains("drills.allowed = true"), "{shown}");
    assert!(cell.lock().load.drill.latest().is_none(), "nothing is marked, since nothing is made up");
    site.shut_down().await;
}
