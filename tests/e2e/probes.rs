//! The probe mesh with real agents, sockets and store: what they measure of each other arrives, and one that is gone is
//! lost, and then left alone.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};

use evenkeel_aggregator::ingest::block::SampleBlock;
use evenkeel_aggregator::store::records::NodeKey;
use evenkeel_aggregator::store::{Direction, KeyRange, OnDamage, Store, trees};
use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_common::sample::{Metric, SeriesKey};
use evenkeel_runtime::clock::SystemClock;
use evenkeel_tests::harness::Site;
use evenkeel_tests::sim::{Fleet, SimSource};
use tokio_util::sync::CancellationToken;

use crate::support::{config, site, until};

const NODES: [&str; 3] = ["pve1", "pve2", "pve3"];

fn cluster() -> ClusterId {
    ClusterId::new("lab").unwrap()
}

fn start(site: &Site, name: &str) -> CancellationToken {
    let node = NodeId::new(name).unwrap();
    // One node a fleet: the simulation itself tells of no links then.
    let mut fleet = Fleet::lab(cluster(), 1, evenkeel_tests::harness::real_time());
    fleet.nodes.retain(|id, _| *id == node);
    let source = SimSource::new(Arc::new(Mutex::new(fleet)), node.clone());
    let mut agent = site.agent_config(&cluster(), &node).unwrap();
    agent.probe.enabled = true;
    agent.probe.listen = "127.0.0.1:0".parse().unwrap();
    agent.probe.interval_ms = 250;
    site.spawn_agent(agent, Box::new(source), Arc::new(SystemClock::new()))
}

/// The newest stored values of a node's probes, by metric and peer.
fn stored(store: &dyn Store, node: &str) -> BTreeMap<(Metric, String), f64> {
    let key = NodeKey { cluster: cluster(), node: NodeId::new(node).unwrap() };
    let mut names: BTreeMap<u32, SeriesKey> = BTreeMap::new();
    let range = KeyRange::under(&key);
    trees::SERIES
        .scan(store, &range, Direction::Forward, OnDamage::Fail, |number, name| {
            names.insert(number.series, name);
            ControlFlow::Continue(())
        })
        .unwrap();
    let mut found = BTreeMap::new();
    trees::BLOCKS
        .scan(store, &range, Direction::Backward, OnDamage::Fail, |_, bytes| {
            let (series, times, matrix) = SampleBlock::from_bytes(&bytes).unwrap().matrix().unwrap();
            for (row, number) in series.iter().enumerate() {
                let name = &names[number];
                let newest = (0..times.len()).rev().find_map(|tick| matrix.get(row, tick));
                if name.metric.name().starts_with("probe_")
                    && let Some(steps) = newest
                {
                    found.insert((name.metric, name.instance.clone()), name.metric.restore(steps));
                }
            }
            ControlFlow::Break(())
        })
        .unwrap();
    found
}

async fn three(dir: &Path) -> (Site, Vec<CancellationToken>) {
    let mut config = config();
    config.ingest.block_secs = 1;
    config.ingest.probe_linger_secs = 20;
    let site = site(dir, config).await;
    let agents = NODES.map(|name| start(&site, name)).into();
    (site, agents)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_agents_measure_each_other_and_lose_the_one_that_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (site, agents) = three(dir.path()).await;
    let store = Arc::clone(&site.aggregator.store);
    for node in NODES {
        until(&format!("{node} has measured the others"), || {
            let seen = stored(store.as_ref(), node);
            NODES.iter().filter(|peer| **peer != node).all(|peer| {
                let value = |metric| seen.get(&(metric, (*peer).to_owned()));
                value(Metric::ProbeLatency).is_some_and(|ms| *ms < 1000.0)
                    && value(Metric::ProbeJitter).is_some()
                    && value(Metric::ProbeLoss).is_some_and(|percent| *percent < 100.0)
            })
        })
        .await;
    }
    agents[2].cancel();
    until("pve3 is lost", || {
        stored(store.as_ref(), "pve1").get(&(Metric::ProbeLoss, "pve3".into())) == Some(&100.0)
    })
    .await;
    until("pve3 is left alone", || {
        let seen = stored(store.as_ref(), "pve1");
        !seen.contains_key(&(Metric::ProbeLoss, "pve3".into()))
            && seen.contains_key(&(Metric::ProbeLoss, "pve2".into()))
    })
    .await;
    site.shut_down().await;
}
