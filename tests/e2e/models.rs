//! Models on the whole path: trained from the store and by themselves when they grow old, and the alert of the ensemble that
//! uses them.

use std::time::Duration;

use evenkeel_aggregator::store::records::{BlockKey, ModelKey, RollupRecord};
use evenkeel_aggregator::store::{Batch, trees};
use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_common::time::{Timestamp, Window};
use evenkeel_runtime::clock::Clock as _;
use evenkeel_tests::lab::{Options, VIRTUAL_START, VirtualLab};
use evenkeel_tests::sim::{Fault, Fleet};

use crate::support::{STUCK, anomalies, ctl, options, pass, said};

/// Seconds between samples.
const STEP: u32 = 10;
const HOUR: u32 = 3600 / STEP;

/// The means of five minutes that pve1 would have left in the last nine days, had the lab run then.
fn past(fleet: &Fleet, node: &NodeId) -> Vec<Batch> {
    let (mut batches, mut batch) = (Vec::new(), Batch::new());
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    for n in 1..=9 * 288 {
        let start = Timestamp::from_millis(VIRTUAL_START.as_millis() - n * 300_000);
        let mut sums = [0.0; 7];
        for look in 0..10 {
            let at = start.after(Duration::from_secs(look * 30));
            let seen = fleet.node_use(node, at).unwrap();
            let traffic: f64 = seen.guests.iter().map(|guest| guest.traffic[2] + guest.traffic[3]).sum();
            let links = fleet.links(node, at);
            let of = |value: fn(&evenkeel_tests::sim::links::LinkUse) -> Option<f64>| {
                median(links.iter().filter_map(value).collect()).unwrap()
            };
            let memory = 100.0 * seen.memory / fleet.nodes[node].memory.as_f64();
            let row = [
                traffic * 8.0 / 1e6,
                of(|link| link.latency_ms),
                0.0,
                of(|link| link.jitter_ms),
                seen.cpu_percent,
                memory,
                f64::NAN,
            ];
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value / 10.0);
        }
        let seven = sums.map(|mean| Some(mean).filter(|mean| mean.is_finite()));
        let record = RollupRecord { count: 30, seven, ..RollupRecord::default() };
        let key = BlockKey { cluster: fleet.cluster.clone(), node: node.clone(), start };
        batch.put(&trees::ROLLUPS, &key, &record).unwrap();
        if batch.is_full() {
            batches.push(std::mem::take(&mut batch));
        }
    }
    batches.push(batch);
    batches
}

/// What `model list` says, as soon as it has this word.
async fn listed(lab: &VirtualLab, word: &str) -> String {
    let waiting = async {
        loop {
            let shown =
                said(&ctl(lab.site.dir.join("ctl.toml"), &["model", "list", "--output", "json"]).await);
            if shown.contains(word) {
                return shown;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(4 * STUCK, waiting).await.unwrap_or_else(|_| panic!("no {word} comes"))
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_trained_from_the_store_and_anew_when_old_and_the_ensemble_alerts_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { interval_s: STEP, ..options(dir.path()) };
    let lab = VirtualLab::start_with(&options, |config| {
        config.fleet.ensemble.lstm_autoencoder.epochs = 1;
        config.fleet.ensemble.isolation_forest.trees = 50;
        config.fleet.silence_after_secs = 2 * STEP;
    })
    .await
    .unwrap();
    let (cluster, node) = (ClusterId::new("lab").unwrap(), NodeId::new("pve1").unwrap());
    let rows = past(&lab.cluster.fleet.lock().unwrap(), &node);
    rows.into_iter().for_each(|batch| lab.site.aggregator.store.apply(batch).unwrap());
    let toml = lab.site.dir.join("ctl.toml");

    // An hour after its start it looks what is due: pve1 has a past, the others have none.
    pass(&lab, HOUR + 6).await;
    let shown = listed(&lab, "lab-m1").await;
    assert!(shown.contains("\"monthly\"") && !shown.contains("lab-m2"), "{shown}");
    let asked =
        ctl(toml.clone(), &["--cluster", "lab", "model", "train", "--node", "pve1", "--since", "30d"]).await;
    assert!(asked.status.success() && said(&asked).contains("lab-m2"), "{}", said(&asked));
    let none = ctl(toml.clone(), &["--cluster", "lab", "model", "train", "--node", "pve2"]).await;
    assert!(
        none.status.code() == Some(1) && said(&none).contains("wait for more history"),
        "{}",
        said(&none)
    );

    // Both are young, so that nothing is due; a month later there is.
    pass(&lab, HOUR).await;
    let store = &lab.site.aggregator.store;
    for number in [1, 2] {
        let key = ModelKey { cluster: cluster.clone(), number };
        let mut record = trees::MODELS.get(store.as_ref(), &key).unwrap().unwrap();
        assert_eq!(record.source, ["monthly", "store"][number as usize - 1]);
        assert!(record.rows > 2500, "{record:?}");
        record.trained_at = lab.clock.now().before(Duration::from_hours(31 * 24));
        let mut batch = Batch::new();
        batch.put(&trees::MODELS, &key, &record).unwrap();
        store.apply(batch).unwrap();
    }
    let shown = listed(&lab, "lab-m2").await;
    assert!(!shown.contains("lab-m3"), "{shown}");
    pass(&lab, HOUR).await;
    let shown = listed(&lab, "lab-m3").await;
    assert_eq!(shown.matches("\"monthly\"").count(), 2, "{shown}");
    assert_eq!(shown.matches("\"active\"").count(), 1, "{shown}");

    // Half an hour later the autoencoder has its window as well.
    pass(&lab, HOUR).await;
    let ensemble = |all: Vec<evenkeel_proto::v1::AnomalyView>| {
        all.into_iter().filter(|a| a.instance == "ensemble" && a.node == "pve1").collect::<Vec<_>>()
    };
    assert_eq!(ensemble(anomalies(&lab.site).await), [], "nothing is wrong yet");
    let from = lab.clock.now();
    let during = Window { from, to: from.after(Duration::from_mins(15)) };
    lab.cluster.fleet.lock().unwrap().faults.push(Fault::HostLoad { node, share: 0.5, during });
    pass(&lab, HOUR).await;
    let told = ensemble(anomalies(&lab.site).await);
    let [alert] = told.as_slice() else { panic!("{told:#?}") };
    assert_eq!((alert.metric.as_str(), alert.state.as_str()), ("cpu_used", "closed"), "{alert:?}");
    assert!(alert.opened_ms < during.to.as_millis() && alert.confidence > 0.6, "{alert:?}");
    assert!(alert.detectors.iter().any(|vote| vote.detector == "isolation_forest"), "{alert:?}");
    assert!(alert.text.contains("the seven metrics together are unlike this node"), "{}", alert.text);
    lab.site.shut_down().await;
}
