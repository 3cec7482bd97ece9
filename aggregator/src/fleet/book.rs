//! Signs that last become anomalies: opened once, closed once, with the worst that was seen between. What is open
//! survives a restart of the aggregator, since it is read back from the store.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use evenkeel_common::anomaly::{Anomaly, Severity};
use evenkeel_common::sample::{Metric, SeriesKey};
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Probability;

use super::peers;
use super::rules::{Evidence, Sign, Signed};
use crate::store::records::{AnomalyKey, AnomalyRecord, AnomalyTimeKey, FLEET_EPOCH, FleetFinding, NodeKey};
use crate::store::{Batch, Direction, KeyRange, OnDamage, Store, StoreError, trees};

/// Looks in a row that a sign must be there to open, and be gone to close. Silence has waited long enough already, and
/// the comparison with the peers lasts by itself.
const LASTING: (u8, u8) = (2, 3);

/// The aggregator's own anomalies of one node.
#[derive(Debug, Default)]
pub struct Book {
    /// Number of the last one, given out or not: numbers are never used again.
    last_number: u64,
    series: BTreeMap<SeriesKey, Page>,
}

#[derive(Debug, Default)]
struct Page {
    seen: u8,
    gone: u8,
    open: Option<AnomalyRecord>,
}

/// What became of an anomaly at a look.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Its state now.
    pub record: AnomalyRecord,
    /// Whether those who watch are told: it opened or closed. Otherwise it only became worse.
    pub is_news: bool,
}

impl Book {
    /// The book of a node as the store has it.
    ///
    /// # Errors
    /// Of the store.
    pub fn open(store: &dyn Store, node: &NodeKey) -> Result<Self, StoreError> {
        let mut book = Self { last_number: stored_number(store, node)?, ..Self::default() };
        let range = KeyRange::under(&(node.cluster.clone(), node.node.clone(), FLEET_EPOCH));
        trees::ANOMALIES.scan(store, &range, Direction::Forward, OnDamage::Skip, |key, record| {
            book.last_number = book.last_number.max(key.number);
            if record.anomaly.closed_at.is_none() {
                let series = record.anomaly.series.clone();
                book.series.insert(series, Page { open: Some(record), ..Page::default() });
            }
            ControlFlow::Continue(())
        })?;
        Ok(book)
    }

    /// The open ones.
    pub fn open_anomalies(&self) -> impl Iterator<Item = &AnomalyRecord> {
        self.series.values().filter_map(|page| page.open.as_ref())
    }

    /// Takes the signs of one look. `complete`: a series without a sign is gone (its guest was stopped or moved), and what
    /// was open of it closes; otherwise only those with a sign are judged.
    pub fn look(&mut self, node: &NodeKey, at: Timestamp, signs: Vec<Signed>, complete: bool) -> Vec<Change> {
        let mut changes = Vec::new();
        let signed: BTreeSet<SeriesKey> = signs.iter().map(|(series, _)| series.clone()).collect();
        for (series, sign) in signs {
            let page = self.series.entry(series.clone()).or_default();
            let at_once = series.metric == Metric::Silence || series.instance == peers::INSTANCE;
            let lasting = if at_once { (1, 1) } else { LASTING };
            changes.extend(page.turn(node, series, at, sign, lasting, &mut self.last_number));
        }
        if complete {
            for (_, page) in self.series.iter_mut().filter(|(series, _)| !signed.contains(series)) {
                changes.extend(page.close(at));
            }
        }
        self.series.retain(|series, page| page.open.is_some() || (page.seen > 0 && signed.contains(series)));
        changes
    }
}

impl Page {
    fn turn(
        &mut self,
        node: &NodeKey,
        series: SeriesKey,
        at: Timestamp,
        sign: Sign,
        (to_open, to_close): (u8, u8),
        last_number: &mut u64,
    ) -> Option<Change> {
        match sign {
            Sign::Abstain => None,
            Sign::Absent => {
                (self.seen, self.gone) = (0, self.gone.saturating_add(1));
                if self.gone >= to_close { self.close(at) } else { None }
            }
            Sign::Present(evidence) => {
                (self.seen, self.gone) = (self.seen.saturating_add(1), 0);
                if let Some(record) = &mut self.open {
                    return worse(record, *evidence)
                        .then(|| Change { record: record.clone(), is_news: false });
                }
                if self.seen < to_open {
                    return None;
                }
                *last_number += 1;
                let record = opened(*last_number, node, series, at, *evidence);
                self.open = Some(record.clone());
                Some(Change { record, is_news: true })
            }
        }
    }

    fn close(&mut self, at: Timestamp) -> Option<Change> {
        let mut record = self.open.take()?;
        record.anomaly.closed_at = Some(at.max(record.anomaly.opened_at));
        Some(Change { record, is_news: true })
    }
}

fn opened(
    number: u64,
    node: &NodeKey,
    series: SeriesKey,
    at: Timestamp,
    evidence: Evidence,
) -> AnomalyRecord {
    let Evidence { value, expected, deviation, confidence, votes, text, samples, abstained } = evidence;
    let confidence = Probability::clamped(confidence);
    AnomalyRecord {
        anomaly: Anomaly {
            number,
            series,
            opened_at: at,
            closed_at: None,
            value,
            expected,
            deviation,
            confidence,
            severity: Severity::classify(confidence, deviation),
            votes,
            causes: Vec::new(),
            injected: false,
        },
        node: node.node.clone(),
        epoch: FLEET_EPOCH,
        fleet: Some(FleetFinding { text, samples, abstained }),
    }
}

/// Takes over evidence that is worse than what is there. Whether the severity rose, so that it is worth a write.
fn worse(record: &mut AnomalyRecord, evidence: Evidence) -> bool {
    let anomaly = &mut record.anomaly;
    if evidence.deviation.abs() <= anomaly.deviation.abs() {
        return false;
    }
    let confidence = Probability::clamped(evidence.confidence.max(anomaly.confidence.get()));
    let severity = Severity::classify(confidence, evidence.deviation).max(anomaly.severity);
    let rose = severity > anomaly.severity;
    (anomaly.value, anomaly.expected, anomaly.deviation) =
        (evidence.value, evidence.expected, evidence.deviation);
    (anomaly.confidence, anomaly.severity, anomaly.votes) = (confidence, severity, evidence.votes);
    let Evidence { text, samples, abstained, .. } = evidence;
    record.fleet = Some(FleetFinding { text, samples, abstained });
    rose
}

/// Rows for a change: the anomaly, its place in time, and the highest number given out.
///
/// # Errors
/// Only when a record can not be encoded.
pub fn write(batch: &mut Batch, node: &NodeKey, record: &AnomalyRecord) -> Result<(), StoreError> {
    let (cluster, name, number) = (node.cluster.clone(), node.node.clone(), record.anomaly.number);
    let key = AnomalyKey { cluster: cluster.clone(), node: name.clone(), epoch: record.epoch, number };
    batch.put(&trees::ANOMALIES, &key, record)?;
    let opened = record.anomaly.opened_at;
    let by_time = AnomalyTimeKey { cluster, opened, node: name, epoch: record.epoch, number };
    batch.put(&trees::ANOMALIES_BY_TIME, &by_time, &())?;
    if record.anomaly.closed_at.is_none() {
        batch.put(&trees::CONTROL, &number_key(node), &number.into())?;
    }
    Ok(())
}

fn stored_number(store: &dyn Store, node: &NodeKey) -> Result<u64, StoreError> {
    let stored = trees::CONTROL.get(store, &number_key(node))?;
    Ok(stored.and_then(|value| value.as_u64()).unwrap_or_default())
}

fn number_key(node: &NodeKey) -> String {
    format!("fleet_number/{}/{}", node.cluster, node.node)
}

#[cfg(test)]
mod tests {
    use super::super::observe::Observation;
    use super::super::rules::{node_silence, slow_answers};
    use super::*;
    use crate::store::{SledStore, StoreConfig};
    use evenkeel_common::id::{ClusterId, NodeId};
    use std::time::Duration;

    fn node() -> NodeKey {
        NodeKey { cluster: ClusterId::new("lab").unwrap(), node: NodeId::new("pve1").unwrap() }
    }

    fn at(s: i64) -> Timestamp {
        Timestamp::from_millis(s * 1000)
    }

    fn silent(s: u64) -> Vec<Signed> {
        vec![node_silence(Duration::from_secs(s), Duration::from_secs(20), false)]
    }

    fn slow(ms: f64) -> Vec<Signed> {
        let seen = Observation { seven: [ms; 7], ..Observation::default() };
        vec![slow_answers(&seen, Some((0.5, 0.1)), false)]
    }

    #[test]
    fn silence_opens_at_once_and_closes_with_the_worst_when_it_ends() {
        let (mut book, node) = (Book::default(), node());
        assert_eq!(book.look(&node, at(10), silent(5), true), []);
        let opened = book.look(&node, at(20), silent(30), true);
        assert_eq!(opened.len(), 1);
        assert!(opened[0].is_news && opened[0].record.anomaly.number == 1);
        assert_eq!(book.look(&node, at(30), silent(40), true), [], "one opening");
        assert_eq!(book.open_anomalies().count(), 1);
        let closed = book.look(&node, at(40), silent(0), true);
        assert_eq!(closed[0].record.anomaly.closed_at, Some(at(40)));
        assert_eq!(closed[0].record.anomaly.value, 40_000.0, "the longest silence");
        assert_eq!(book.look(&node, at(50), silent(0), true), [], "one closing");
        assert!(book.series.is_empty(), "nothing is remembered of what is well");
    }

    #[test]
    fn a_blip_opens_nothing_and_what_is_not_known_changes_nothing() {
        let (mut book, node) = (Book::default(), node());
        for (s, ms) in [(10, 9.0), (20, 0.5), (30, 9.0), (40, f64::NAN)] {
            assert_eq!(book.look(&node, at(s), slow(ms), true), [], "{s}");
        }
        assert_eq!(
            book.look(&node, at(50), slow(9.0), true).len(),
            1,
            "with no look between that says otherwise"
        );
        for s in [60, 70, 80] {
            assert_eq!(book.look(&node, at(s), slow(f64::NAN), true), [], "no data does not close it");
        }
        assert!(book.look(&node, at(90), slow(0.5), true).is_empty());
        assert!(book.look(&node, at(100), slow(0.5), true).is_empty());
        assert_eq!(book.look(&node, at(110), slow(0.5), true).len(), 1, "after three looks without it");
    }

    #[test]
    fn a_series_that_is_gone_closes_what_was_open() {
        let (mut book, node) = (Book::default(), node());
        assert_eq!(book.look(&node, at(20), silent(30), true).len(), 1);
        assert_eq!(book.look(&node, at(30), Vec::new(), false), [], "an incomplete look proves nothing");
        assert_eq!(book.look(&node, at(40), Vec::new(), true).len(), 1);
    }

    #[test]
    fn open_ones_and_numbers_survive_a_restart_even_when_the_rows_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig { ballast_mib: 0, ..StoreConfig::default() };
        let store = SledStore::open(dir.path(), &config, at(0)).unwrap();
        let (mut book, node) = (Book::default(), node());
        let mut batch = Batch::new();
        for change in book.look(&node, at(20), silent(30), true) {
            write(&mut batch, &node, &change.record).unwrap();
        }
        store.apply(batch).unwrap();
        let mut book = Book::open(&store, &node).unwrap();
        assert_eq!(book.open_anomalies().count(), 1);
        assert_eq!(book.look(&node, at(60), silent(70), true), [], "it is known already");
        let closed = book.look(&node, at(80), silent(0), true);
        assert_eq!((closed[0].record.anomaly.number, closed.len()), (1, 1));
        let mut batch = Batch::new();
        batch.delete(
            &trees::ANOMALIES,
            &AnomalyKey {
                cluster: node.cluster.clone(),
                node: node.node.clone(),
                epoch: FLEET_EPOCH,
                number: 1,
            },
        );
        store.apply(batch).unwrap();
        let mut book = Book::open(&store, &node).unwrap();
        assert_eq!(book.look(&node, at(90), silent(30), true)[0].record.anomaly.number, 2);
    }
}
