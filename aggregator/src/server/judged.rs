//! What people think of anomalies: finding one by the id that is shown, keeping their judgement, and counting what it
//! says about each detector.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use evenkeel_common::anomaly::DetectorKind;
use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_common::time::Timestamp;
use evenkeel_proto::v1;

use crate::store::records::{AnomalyKey, AnomalyRecord, AnomalyTimeKey, Epoch, FeedbackRecord};
use crate::store::{Batch, Direction, KeyRange, OnDamage, Store, StoreError, trees};

/// Anomalies counted at most for one answer.
const COUNTED: usize = 200_000;

/// An anomaly id as it is shown: `CLUSTER/NODE/EPOCH-NUMBER`, with the first four bytes of the epoch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ShownId {
    cluster: ClusterId,
    node: NodeId,
    epoch: [u8; 4],
    number: u64,
}

impl ShownId {
    /// Reads one; `None` when it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (cluster, node, last) = (parts.next()?, parts.next()?, parts.next()?);
        let (epoch, number) = last.split_once('-')?;
        let digits = epoch.len() == 8 && epoch.bytes().all(|b| b.is_ascii_hexdigit());
        let epoch = u32::from_str_radix(epoch, 16).ok().filter(|_| digits && parts.next().is_none())?;
        Some(Self {
            cluster: ClusterId::new(cluster).ok()?,
            node: NodeId::new(node).ok()?,
            epoch: epoch.to_be_bytes(),
            number: number.parse().ok()?,
        })
    }
}

/// The anomaly of a shown id, if it is kept. Of two epochs that begin alike the later one answers.
pub(super) fn find(
    store: &dyn Store,
    id: &ShownId,
) -> Result<Option<(AnomalyKey, AnomalyRecord)>, StoreError> {
    let bound = |fill: u8| {
        let mut epoch: Epoch = [fill; 16];
        epoch[..4].copy_from_slice(&id.epoch);
        epoch
    };
    let place = |epoch: Epoch, number: u64| (id.cluster.clone(), id.node.clone(), epoch, number);
    let range = KeyRange::between(&place(bound(0), 0), &place(bound(0xFF), u64::MAX));
    let mut found = None;
    trees::ANOMALIES.scan(store, &range, Direction::Backward, OnDamage::Skip, |key, record| {
        if key.number == id.number {
            found = Some((key, record));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// Adds to an anomaly what people think of it. A judgement that can not be read is left out: the anomaly counts more.
pub(super) fn shown(store: &dyn Store, key: &AnomalyKey, view: v1::AnomalyView) -> v1::AnomalyView {
    match trees::FEEDBACK.get(store, key) {
        Ok(Some(said)) => {
            v1::AnomalyView { feedback: verdict(said.good).into(), feedback_note: said.note, ..view }
        }
        Ok(None) | Err(_) => view,
    }
}

/// Keeps a judgement, durable on return; a later one takes the place of an earlier one.
pub(super) fn keep(store: &dyn Store, key: &AnomalyKey, said: &FeedbackRecord) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    batch.put(&trees::FEEDBACK, key, said)?;
    store.apply(batch)?;
    store.flush()
}

/// The word for a judgement.
pub(super) const fn verdict(good: bool) -> &'static str {
    if good { "good" } else { "bad" }
}

/// Anomalies and judgements of each detector since a time. An anomaly counts for every detector that voted for it;
/// drills count for none.
pub(super) fn detectors(
    store: &dyn Store,
    clusters: &[ClusterId],
    since: Timestamp,
) -> Result<v1::ListDetectorsResponse, StoreError> {
    let mut counts: BTreeMap<DetectorKind, [u64; 3]> = DetectorKind::ALL.map(|kind| (kind, [0; 3])).into();
    let (mut seen, mut truncated) = (0, false);
    for cluster in clusters {
        let from = (cluster.clone(), since);
        let range = KeyRange::between(&from, &(cluster.clone(), Timestamp::from_millis(i64::MAX)));
        let mut failure = None;
        let visit = |key: AnomalyTimeKey, ()| {
            seen += 1;
            if seen > COUNTED {
                truncated = true;
                return ControlFlow::Break(());
            }
            let AnomalyTimeKey { cluster, node, epoch, number, .. } = key;
            let key = AnomalyKey { cluster, node, epoch, number };
            match count(store, &key, &mut counts) {
                Err(error) if !error.is_damaged_value() => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        };
        trees::ANOMALIES_BY_TIME.scan(store, &range, Direction::Backward, OnDamage::Skip, visit)?;
        failure.map_or(Ok(()), Err)?;
    }
    let detectors = counts.into_iter().map(|(kind, counts)| detector(kind, counts)).collect();
    Ok(v1::ListDetectorsResponse { detectors, truncated })
}

fn count(
    store: &dyn Store,
    key: &AnomalyKey,
    counts: &mut BTreeMap<DetectorKind, [u64; 3]>,
) -> Result<(), StoreError> {
    let record = trees::ANOMALIES.get(store, key)?;
    let Some(record) = record.filter(|record| !record.anomaly.injected) else { return Ok(()) };
    let said = trees::FEEDBACK.get(store, key)?;
    let mut kinds: Vec<DetectorKind> = record.anomaly.votes.iter().map(|vote| vote.detector).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        let of = counts.entry(kind).or_default();
        of[0] += 1;
        match &said {
            Some(said) if said.good => of[1] += 1,
            Some(_) => of[2] += 1,
            None => {}
        }
    }
    Ok(())
}

fn detector(kind: DetectorKind, [anomalies, good, bad]: [u64; 3]) -> v1::DetectorRecord {
    let interval = wilson(bad, good + bad);
    v1::DetectorRecord {
        detector: kind.to_string(),
        anomalies,
        good,
        bad,
        false_alarm_share: interval.map(|(share, ..)| share),
        share_low: interval.map(|(_, low, _)| low),
        share_high: interval.map(|(.., high)| high),
    }
}

/// Share of `k` in `n` with its 95 % score interval (Wilson 1927), which is honest for few as well; `None` for none.
fn wilson(k: u64, n: u64) -> Option<(f64, f64, f64)> {
    const Z2: f64 = 1.96 * 1.96;
    if n == 0 {
        return None;
    }
    let (n, share) = (n as f64, k as f64 / n as f64);
    let centre = (share + Z2 / (2.0 * n)) / (1.0 + Z2 / n);
    let half = (Z2 * (share * (1.0 - share) / n + Z2 / (4.0 * n * n))).sqrt() / (1.0 + Z2 / n);
    Some((share, (centre - half).max(0.0), (centre + half).min(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_ids_are_read_back_and_others_refused() {
        let id = ShownId::parse("lab/pve-1/65766565-12").unwrap();
        assert_eq!((id.node.as_str(), id.epoch, id.number), ("pve-1", *b"evee", 12));
        for bad in [
            "",
            "lab/pve1",
            "lab/pve1/65766565",
            "lab/pve1/+5766565-1",
            "lab/pve1/65766565-x",
            "a/b/65766565-1/c",
        ] {
            assert_eq!(ShownId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn few_judgements_leave_a_wide_interval() {
        assert_eq!(wilson(0, 0), None);
        let (share, low, high) = wilson(1, 2).unwrap();
        assert!(share == 0.5 && low < 0.11 && high > 0.89, "{low} {high}");
        let (_, low, high) = wilson(10, 100).unwrap();
        assert!(low > 0.05 && high < 0.18, "{low} {high}");
        assert_eq!(wilson(0, 3).unwrap().1, 0.0);
    }
}
