//! Nodes against the other nodes of their cluster: what is looked at, what becomes of it, and how it is known again
//! after a restart. The maths is in `evenkeel_detect::peers`.

use std::collections::BTreeMap;

use evenkeel_common::anomaly::DetectorKind;
use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_common::sample::{Metric, SeriesKey};
use evenkeel_common::time::Timestamp;
use evenkeel_detect::peers::{Likeness, METRICS, PRESSURE, Peers, Unlike};

use super::FleetConfig;
use super::book::Book;
use super::history;
use super::observe::{Observation, SEVEN};
use super::rules::{Evidence, Sign, Signed};
use crate::store::records::NodeKey;
use crate::store::{Store, StoreError};

/// Instance of its series, which tells its anomalies from those of the others about the same metric.
pub(super) const INSTANCE: &str = "peers";
/// Days of stored means from which it learns at a start: what usually tells nodes apart is known by then, and which
/// nights are habits.
const RELEARNED_DAYS: u64 = 4;
/// Stretches of ten minutes a day in which something is really wrong, assumed.
const REAL_PER_DAY: f64 = 0.1;

/// What is compared of a node; `None` while a drill makes it up.
pub(super) fn row(seen: &Observation) -> Option<[f64; METRICS]> {
    let mut row = [f64::NAN; METRICS];
    row[..SEVEN.len()].copy_from_slice(&seen.seven);
    row[PRESSURE] = seen.pressure.unwrap_or(f64::NAN);
    (!seen.injected).then_some(row)
}

/// The signs of a look at one node. An anomaly that is open keeps its series.
pub(super) fn signs(likeness: Option<&Likeness>, book: &Book) -> Vec<Signed> {
    let open = book.open_anomalies().map(|record| &record.anomaly.series).find(|s| s.instance == INSTANCE);
    match likeness {
        Some(Likeness::Unlike(unlike)) => {
            let series = open.cloned().unwrap_or_else(|| series(unlike.metric));
            vec![(series, Sign::Present(Box::new(evidence(unlike))))]
        }
        Some(Likeness::Alike) => open.map(|series| (series.clone(), Sign::Absent)).into_iter().collect(),
        Some(Likeness::Unknown) | None => {
            open.map(|series| (series.clone(), Sign::Abstain)).into_iter().collect()
        }
    }
}

fn series(place: usize) -> SeriesKey {
    SeriesKey::device(SEVEN.get(place).copied().unwrap_or(Metric::PsiCpuSome), INSTANCE)
}

fn evidence(unlike: &Unlike) -> Evidence {
    let Unlike { metric, value, peers, expected, deviation, per_day, compared } = *unlike;
    let name = match SEVEN.get(metric) {
        Some(metric) => metric.name(),
        None => "pressure",
    };
    let text = format!(
        "{name} is {value:.2} while the median of its {compared} peers is {peers:.2}; by what usually tells this node \
         from them it would be {expected:.2}"
    );
    let confidence = REAL_PER_DAY / (REAL_PER_DAY + per_day);
    Evidence::new(DetectorKind::Peers, [value, expected, deviation], confidence, text)
}

/// What can be known from the store: the means of the last days, looked at again in order.
///
/// # Errors
/// Of the store.
pub(super) fn load<'a>(
    store: &dyn Store,
    config: &FleetConfig,
    nodes: impl Iterator<Item = &'a NodeKey>,
    now: Timestamp,
) -> Result<BTreeMap<ClusterId, Peers<NodeId>>, StoreError> {
    let since = now.before(std::time::Duration::from_hours(24 * RELEARNED_DAYS));
    let mut clusters: BTreeMap<ClusterId, BTreeMap<Timestamp, BTreeMap<NodeId, [f64; METRICS]>>> =
        BTreeMap::new();
    for node in nodes {
        let looks = clusters.entry(node.cluster.clone()).or_default();
        for (start, record) in history::rollups(store, node, since)? {
            let mut row = [f64::NAN; METRICS];
            for (place, value) in row.iter_mut().zip(record.seven) {
                *place = value.unwrap_or(f64::NAN);
            }
            // A mean is known when its time is over.
            looks.entry(start.after(config.rollup())).or_default().insert(node.node.clone(), row);
        }
    }
    Ok(clusters
        .into_iter()
        .map(|(cluster, looks)| {
            let mut peers = Peers::new(config.peers);
            for (at, rows) in looks {
                peers.look(at, &rows);
            }
            (cluster, peers)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_names_metric_value_and_peers_and_keeps_its_series() {
        let unlike = Unlike {
            metric: 4,
            value: 92.5,
            peers: 31.0,
            expected: 33.0,
            deviation: 12.0,
            per_day: 0.001,
            compared: 7,
        };
        let (mut book, node) = (
            Book::default(),
            NodeKey { cluster: ClusterId::new("lab").unwrap(), node: NodeId::new("pve1").unwrap() },
        );
        let at = Timestamp::from_millis;
        let told = signs(Some(&Likeness::Unlike(unlike)), &book);
        let opened = book.look(&node, at(10_000), told, true);
        let anomaly = &opened[0].record.anomaly;
        assert_eq!((anomaly.series.to_string().as_str(), anomaly.value), ("cpu_used[peers]", 92.5));
        assert_eq!(anomaly.votes[0].detector, DetectorKind::Peers);
        let text = &opened[0].record.fleet.as_ref().unwrap().text;
        assert!(text.contains("cpu_used is 92.50 while the median of its 7 peers is 31.00"), "{text}");
        let pressure = signs(Some(&Likeness::Unlike(Unlike { metric: PRESSURE, ..unlike })), &book);
        assert_eq!(pressure[0].0, anomaly.series, "one anomaly at a time");
        assert_eq!(book.look(&node, at(20_000), signs(None, &book), true), [], "no data does not close it");
        assert_eq!(book.look(&node, at(30_000), signs(Some(&Likeness::Alike), &book), true).len(), 1);
    }
}
