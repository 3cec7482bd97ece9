//! A drill whose samples come late, from the spool of an agent that was cut off meanwhile: every one of them bears its mark
//! in the store, none teaches the fleet's baselines, and the node bears no decision while they count.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_aggregator::identity::roles::Role;
use evenkeel_aggregator::ingest::block::SampleBlock;
use evenkeel_aggregator::store::records::{NodeKey, RollupRecord};
use evenkeel_aggregator::store::{Direction, KeyRange, OnDamage, Store, trees};
use evenkeel_common::sample::{Metric, SeriesKey};
use evenkeel_common::time::{Timestamp, Window};
use evenkeel_proto::v1;
use evenkeel_runtime::clock::{Clock as _, VirtualClock};
use evenkeel_tests::harness::Site;
use evenkeel_tests::lab::VIRTUAL_START;

use crate::agent_reconnects::{Behind, Cut, PACE, cpu, in_time};
use crate::support::{config, control_as};

/// Points of CPU that the drill makes up, and seconds it lasts.
const POINTS: f64 = 60.0;
const LASTS: u64 = 90;

async fn second(clock: &VirtualClock, agent: &Behind) {
    clock.advance(Duration::from_secs(1));
    agent.ticked(clock).await;
}

/// CPU and mark of every stored tick.
fn stored(store: &dyn Store, key: &NodeKey) -> BTreeMap<Timestamp, (f64, bool)> {
    let mut names: BTreeMap<u32, SeriesKey> = BTreeMap::new();
    let range = KeyRange::under(key);
    trees::SERIES
        .scan(store, &range, Direction::Forward, OnDamage::Fail, |number, name| {
            names.insert(number.series, name);
            ControlFlow::Continue(())
        })
        .unwrap();
    let mut found = BTreeMap::new();
    let blocks = trees::BLOCKS.scan(store, &range, Direction::Forward, OnDamage::Fail, |_, bytes| {
        let (series, times, matrix) = SampleBlock::from_bytes(&bytes).unwrap().matrix().unwrap();
        let row = |metric: Metric| series.iter().position(|number| names[number].metric == metric);
        let (cpu, mark) = (row(Metric::CpuUsed).unwrap(), row(Metric::DrillActive));
        for (tick, at) in times.into_iter().enumerate() {
            let value = Metric::CpuUsed.restore(matrix.get(cpu, tick).unwrap());
            let marked = mark.is_some_and(|row| matrix.get(row, tick).is_some());
            found.insert(at, (value, marked));
        }
        ControlFlow::Continue(())
    });
    blocks.unwrap();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_of_a_drill_that_come_late_are_marked_and_teach_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let clock = VirtualClock::new(VIRTUAL_START);
    let mut config = config();
    config.ingest.block_secs = 20;
    config.fleet.rollup_secs = 60;
    let site = Site::start(dir.path(), config, Arc::new(clock.clone()), 1).await.unwrap();
    let agent = Behind::start(&site, &clock, "closed", Cut::Closed, 60).await;
    let connected = async {
        while !agent.cell.lock().connected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time("a connection", connected).await;
    for _ in 0..30 {
        second(&clock, &agent).await;
    }
    let order = v1::SimulateRequest {
        node: "closed".into(),
        kind: "cpu".into(),
        amount: POINTS,
        lasts_ms: LASTS * 1000,
        ..Default::default()
    };
    control_as(&site, Role::Operator).await.simulate(order).await.unwrap();
    let mut waited = 0;
    while agent.cell.lock().load.drill.latest().is_none() {
        assert!(waited < 60, "the drill does not begin");
        // Orders travel in real time, beside the lab's.
        tokio::time::sleep(PACE).await;
        second(&clock, &agent).await;
        waited += 1;
    }
    let began = clock.now();

    agent.proxy.open.send_replace(false);
    for _ in 0..LASTS + 30 {
        second(&clock, &agent).await;
    }
    let cut_until = clock.now();
    agent.proxy.open.send_replace(true);
    let (missing, mut turns) = (clock.uptime().as_secs(), 0);
    let store = Arc::clone(&site.aggregator.store);
    while agent.cursor(store.as_ref()).sample < missing {
        assert!(turns < 400, "the replay does not end");
        second(&clock, &agent).await;
        tokio::time::sleep(PACE).await;
        turns += 1;
    }
    let away = Window { from: began.after(Duration::from_secs(5)), to: cut_until };
    assert_eq!(agent.cell.lock().load.cpu.mean(away), None, "what came late is no live load");

    let ticks = stored(store.as_ref(), &agent.key);
    let made_up = |(at, (value, _)): &(&Timestamp, &(f64, bool))| (*value - cpu(**at) - POINTS).abs() < 0.1;
    let late: Vec<_> = ticks.iter().filter(made_up).collect();
    // It counts from its order, which took its time to get there.
    assert!((LASTS / 2..=LASTS + 2).contains(&(late.len() as u64)), "{}", late.len());
    assert!(late.iter().filter(|(at, _)| **at > began).count() as u64 >= LASTS / 2, "most came late");
    assert!(late.iter().all(|(_, (_, marked))| *marked), "a made-up value without its mark");
    let marked = ticks.values().filter(|(_, marked)| *marked).count();
    assert_eq!(marked, late.len(), "a mark beside what was read");
    let mut means: Vec<RollupRecord> = Vec::new();
    let range = KeyRange::under(&agent.key);
    let each = |_, record| {
        means.push(record);
        ControlFlow::Continue(())
    };
    trees::ROLLUPS.scan(store.as_ref(), &range, Direction::Forward, OnDamage::Fail, each).unwrap();
    assert!(means.iter().all(|mean| mean.seven[4].is_none_or(|cpu| cpu < 30.0)), "{means:?}");
    agent.stop.cancel();
    in_time("the end of the agent", agent.task).await.unwrap();
    site.shut_down().await;
}
