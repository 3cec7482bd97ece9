//! The fleet as marks: hosts by score, and each of them over time. Data only; whoever has a screen draws it.

use std::collections::BTreeMap;

use evenkeel_common::time::Timestamp;

use super::record::Record;
use super::score::{Band, Counts};

/// Most columns: four hundred days, or two weeks of hours.
pub const MOST_COLUMNS: usize = 400;

/// How time is cut into columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Start of the first column.
    pub from: Timestamp,
    /// Length of a column, in milliseconds.
    pub step_ms: i64,
    /// Number of columns.
    pub columns: usize,
}

impl Grid {
    /// Columns of this length, on whole ones since 1970 UTC, of which the last holds `to` and the first `from`; at most
    /// [`MOST_COLUMNS`], the latest.
    #[must_use]
    pub fn between(from: Timestamp, to: Timestamp, step_ms: i64) -> Self {
        let step_ms = step_ms.max(1);
        let (first, last) = (from.as_millis().div_euclid(step_ms), to.as_millis().div_euclid(step_ms));
        let columns = usize::try_from(last.saturating_sub(first)).unwrap_or(0).saturating_add(1);
        let columns = columns.min(MOST_COLUMNS);
        let first = last.saturating_sub(columns as i64 - 1);
        Self { from: Timestamp::from_millis(first.saturating_mul(step_ms)), step_ms, columns }
    }

    /// The column of a time; `None` outside.
    #[must_use]
    pub fn column(&self, at: Timestamp) -> Option<usize> {
        let offset = at.as_millis().checked_sub(self.from.as_millis())?;
        usize::try_from(offset.div_euclid(self.step_ms)).ok().filter(|column| *column < self.columns)
    }
}

/// Collects marks for some hosts.
#[derive(Clone, Debug)]
pub struct Heatmap {
    grid: Grid,
    hosts: BTreeMap<String, Vec<Counts>>,
}

/// A host over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which host.
    pub host: String,
    /// A cell for each column: migrations, failures, and how they are to be taken; `None` without migrations.
    pub cells: Vec<Option<Cell>>,
}

/// What a host's migrations in a column came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Migrations.
    pub migrations: u64,
    /// Those that failed.
    pub failures: u64,
    /// By the score of these migrations alone.
    pub band: Band,
}

impl Heatmap {
    /// For these hosts.
    #[must_use]
    pub fn of(hosts: impl IntoIterator<Item = String>, grid: Grid) -> Self {
        let row = |host| (host, vec![Counts::default(); grid.columns]);
        Self { grid, hosts: hosts.into_iter().map(row).collect() }
    }

    /// Takes in a migration.
    pub fn add(&mut self, record: &Record) {
        let Some(column) = self.grid.column(record.at) else { return };
        if let Some(counts) = self.hosts.get_mut(&record.host).and_then(|row| row.get_mut(column)) {
            counts.add(record);
        }
    }

    /// The rows, by host.
    #[must_use]
    pub fn rows(self) -> Vec<Row> {
        let cell = |counts: Counts| {
            let band = Band::of(counts.score()?);
            Some(Cell { migrations: counts.total(), failures: counts.failures, band })
        };
        let row = |(host, counts): (String, Vec<Counts>)| Row {
            host,
            cells: counts.into_iter().map(cell).collect(),
        };
        self.hosts.into_iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::fixture::{DAY, failure, success};

    fn at(s: i64) -> Timestamp {
        Timestamp::from_millis(s * 1000)
    }

    #[test]
    fn each_column_has_its_own_migrations() {
        let grid = Grid::between(at(10 * DAY + 5), at(13 * DAY + 7), DAY * 1000);
        assert_eq!((grid.from, grid.columns), (at(10 * DAY), 4));
        let mut map = Heatmap::of(["a".to_owned(), "b".to_owned()], grid);
        for record in [
            failure("a", 10 * DAY, "x"),
            failure("a", 12 * DAY, "x"),
            failure("a", 13 * DAY - 1, "x"),
            failure("a", 12 * DAY + 9, "x"),
            success("a", 13 * DAY),
            success("a", 9 * DAY),
            success("a", 14 * DAY),
            success("other", 13 * DAY),
        ] {
            map.add(&record);
        }
        let rows = map.rows();
        let bands = |row: &Row| row.cells.iter().map(|cell| cell.map(|cell| cell.band)).collect::<Vec<_>>();
        assert_eq!(bands(&rows[0]), [Some(Band::Elevated), None, Some(Band::Critical), Some(Band::Normal)]);
        assert_eq!(rows[0].cells[2], Some(Cell { migrations: 3, failures: 3, band: Band::Critical }));
        assert_eq!(rows[1].cells, [None; 4]);
    }

    #[test]
    fn a_grid_is_bounded_and_holds_its_end() {
        let grid = Grid::between(at(0), at(5000 * DAY), DAY * 1000);
        assert_eq!((grid.columns, grid.column(at(5000 * DAY)), grid.column(at(0))), (400, Some(399), None));
        let turned = Grid::between(at(DAY), at(0), 1000);
        assert_eq!((turned.columns, turned.column(at(0))), (1, Some(0)));
        let odd = Grid::between(Timestamp::from_millis(i64::MIN), Timestamp::from_millis(i64::MAX), 0);
        assert_eq!((odd.columns, odd.column(Timestamp::from_millis(i64::MIN))), (400, None));
    }
}
