//! The series dictionary of one stream, and the series table of one node that it maps to.
//!
//! A stream numbers its series anew after every reconnect; the store keeps one number per series and node for
//! good. The dictionary translates, and tells at once which rows the live state wants.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use evenkeel_common::sample::SeriesKey;
use evenkeel_proto::convert::Problem;
use evenkeel_proto::v1;
use tonic::Status;

use super::live::NodeLive;

/// Stored numbers of a node's series. Shared by all streams that ever speak for the node.
#[derive(Debug, Default)]
pub struct SeriesTable {
    inner: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    numbers: HashMap<SeriesKey, u32>,
    /// Numbers not yet durable, to be written with the next block.
    fresh: Vec<(u32, SeriesKey)>,
}

impl SeriesTable {
    /// The table as it is in the store.
    #[must_use]
    pub fn from_stored(stored: impl IntoIterator<Item = (u32, SeriesKey)>) -> Self {
        let numbers = stored.into_iter().map(|(number, key)| (key, number)).collect();
        Self { inner: Mutex::new(Table { numbers, fresh: Vec::new() }) }
    }

    fn number(&self, key: &SeriesKey) -> u32 {
        let mut table = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&number) = table.numbers.get(key) {
            return number;
        }
        let number = u32::try_from(table.numbers.len()).unwrap_or(u32::MAX);
        table.numbers.insert(key.clone(), number);
        table.fresh.push((number, key.clone()));
        number
    }

    /// Numbers given since the last call, to be stored together with the first block that uses them.
    #[must_use]
    pub fn take_fresh(&self) -> Vec<(u32, SeriesKey)> {
        std::mem::take(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner).fresh)
    }
}

/// The dictionary of one stream.
#[derive(Debug)]
pub struct Dictionary {
    table: Arc<SeriesTable>,
    /// Stored number of each index.
    numbers: Vec<u32>,
    /// Key of each index that the live state keeps.
    live: Vec<Option<SeriesKey>>,
    /// Whether the series is known to this version; others take part in the coding but are not stored.
    known: Vec<bool>,
    limit: usize,
}

/// Stored number of a series whose metric this version does not know: never given to a real series.
const UNKNOWN: u32 = u32::MAX;

impl Dictionary {
    /// Empty, for at most `limit` series.
    #[must_use]
    pub fn new(table: Arc<SeriesTable>, limit: usize) -> Self {
        Self { table, numbers: Vec::new(), live: Vec::new(), known: Vec::new(), limit }
    }

    /// The node's table behind it.
    #[must_use]
    pub fn table(&self) -> Arc<SeriesTable> {
        Arc::clone(&self.table)
    }

    /// Appends what the agent added.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` over the limit, `INVALID_ARGUMENT` for a malformed entry or a gap.
    pub fn extend(&mut self, added: v1::SeriesAdded) -> Result<(), Status> {
        if added.first_index as usize != self.numbers.len() {
            return Err(Status::invalid_argument(format!(
                "series dictionary: entry {} announced, {} expected",
                added.first_index,
                self.numbers.len()
            )));
        }
        if self.numbers.len() + added.series.len() > self.limit {
            return Err(Status::resource_exhausted(format!(
                "more than {} series: raise ingest.max_series_per_agent, or lower the agent's max_series",
                self.limit
            )));
        }
        for def in added.series {
            match SeriesKey::try_from(def) {
                Ok(key) => {
                    self.numbers.push(self.table.number(&key));
                    self.known.push(true);
                    self.live.push(NodeLive::keeps(&key).then_some(key));
                }
                Err(error) if error.problem == Problem::Unknown => {
                    self.numbers.push(UNKNOWN);
                    self.known.push(false);
                    self.live.push(None);
                }
                Err(error) => return Err(Status::invalid_argument(error.to_string())),
            }
        }
        Ok(())
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there is no entry yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Stored number of every index.
    #[must_use]
    pub fn numbers(&self) -> &[u32] {
        &self.numbers
    }

    /// Whether this version knows the metric at an index.
    #[must_use]
    pub fn is_known(&self, index: usize) -> bool {
        self.known.get(index).copied().unwrap_or(false)
    }

    /// Indices and keys that the live state keeps, among the first `series`.
    pub fn live(&self, series: usize) -> impl Iterator<Item = (usize, &SeriesKey)> {
        self.live.iter().take(series).enumerate().filter_map(|(i, key)| key.as_ref().map(|key| (i, key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::sample::Metric;

    fn added(first_index: u32, metrics: &[u32]) -> v1::SeriesAdded {
        let def = |&metric: &u32| v1::SeriesDef { metric, vmid: 0, instance: String::new() };
        v1::SeriesAdded { first_index, series: metrics.iter().map(def).collect() }
    }

    #[test]
    fn numbers_are_kept_over_streams_and_new_ones_are_written_once() {
        let stored = SeriesKey::node(Metric::Load1);
        let table = Arc::new(SeriesTable::from_stored([(0, stored)]));
        let mut first = Dictionary::new(Arc::clone(&table), 10);
        first.extend(added(0, &[Metric::CpuUsed as u32, Metric::Load1 as u32, 60_000])).unwrap();
        assert_eq!(first.numbers(), [1, 0, UNKNOWN]);
        assert!(!first.is_known(2));
        assert_eq!(first.live(3).map(|(i, _)| i).collect::<Vec<_>>(), [0]);
        assert_eq!(table.take_fresh(), [(1, SeriesKey::node(Metric::CpuUsed))]);
        let mut second = Dictionary::new(Arc::clone(&table), 10);
        second.extend(added(0, &[Metric::CpuUsed as u32])).unwrap();
        assert_eq!(second.numbers(), [1]);
        assert!(table.take_fresh().is_empty());
    }

    #[test]
    fn gaps_and_floods_are_refused() {
        let mut dictionary = Dictionary::new(Arc::default(), 2);
        assert!(dictionary.extend(added(1, &[1])).is_err());
        assert!(dictionary.extend(added(0, &[1, 2, 4])).is_err());
        let bad = v1::SeriesDef { metric: 1, vmid: 7, instance: String::new() };
        assert!(dictionary.extend(v1::SeriesAdded { first_index: 0, series: vec![bad] }).is_err());
        assert!(dictionary.is_empty());
    }
}
