//! Which hosts fail together, and with what error.
//!
//! Time is cut into windows (a day, unless asked otherwise), and only windows count in which anything was migrated: that
//! all hosts rest on Sundays is no likeness. For each error code a host has a row of yes and no, one for each window:
//! whether it failed with that code then. How often is left out, since a migration that is tried ten times in an hour
//! is one trouble. Two hosts are alike in a code when
//!
//! - the phi coefficient of their rows is at least [`LEAST_COEFFICIENT`];
//! - they failed together in at least [`LEAST_TOGETHER`] windows; and
//! - so many coincidences have a chance of at most [`CHANCE`] (Fisher's exact test), divided by the number of pairs and
//!   codes that were tried: of a hundred fleets in which nothing has to do with anything, at most one shows a cluster.
//!
//! A cluster is a set of hosts of which every two are alike, so none belongs to it by way of another. The matrix holds the
//! phi coefficient over all codes at once.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_common::time::Timestamp;

use super::hosts::Hosts;
use super::record::Record;
use super::significance::{Factorials, phi};

/// Hosts that are compared: those that failed most. Each is compared with each.
pub const MOST_HOSTS: usize = 100;
/// Error codes that are compared: the most frequent.
pub const MOST_CODES: usize = 64;
/// Windows that are looked at: the latest.
pub const MOST_WINDOWS: usize = 10_000;
/// Least coefficient of two hosts that are alike.
pub const LEAST_COEFFICIENT: f64 = 0.5;
/// Least number of windows in which both failed: two are a coincidence.
pub const LEAST_TOGETHER: usize = 3;
/// Highest chance that a cluster is none.
pub const CHANCE: f64 = 0.01;
/// Error codes told apart before the most frequent are known.
const CODES: usize = 10_000;

/// The first look at the records: which hosts and codes are worth comparing.
#[derive(Clone, Debug, Default)]
pub struct FirstLook {
    hosts: Hosts<u64>,
    codes: BTreeMap<String, u64>,
    without_code: u64,
}

impl FirstLook {
    /// Takes in a migration.
    pub fn add(&mut self, record: &Record) {
        if !record.failed() {
            return;
        }
        let Some(code) = &record.error_code else {
            self.without_code += 1;
            return;
        };
        if let Some(failures) = self.hosts.of(&record.host) {
            *failures += 1;
        }
        if let Some(count) = self.codes.get_mut(code) {
            *count += 1;
        } else if self.codes.len() < CODES {
            self.codes.insert(code.clone(), 1);
        }
    }

    /// Chooses; the second look takes the same records again.
    #[must_use]
    pub fn second(self, window_ms: i64) -> SecondLook {
        let hosts = self.hosts.iter().map(|(host, failures)| (host.to_owned(), *failures));
        let (hosts, hosts_left_out) = most(hosts, MOST_HOSTS);
        let (codes, codes_left_out) = most(self.codes.into_iter(), MOST_CODES);
        SecondLook {
            window_ms: window_ms.max(1),
            hosts,
            codes,
            active: BTreeSet::new(),
            failed: BTreeMap::new(),
            windows_left_out: false,
            left_out: LeftOut {
                hosts: hosts_left_out,
                codes: codes_left_out,
                without_code: self.without_code,
                windows: false,
            },
        }
    }
}

/// The names with the highest counts, in order of names, each with its place; and how many others there are.
fn most(counted: impl Iterator<Item = (String, u64)>, most: usize) -> (BTreeMap<String, usize>, u64) {
    let mut ranked: Vec<_> = counted.collect();
    ranked.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let others = ranked.len().saturating_sub(most) as u64;
    ranked.truncate(most);
    let names: BTreeSet<String> = ranked.into_iter().map(|(name, _)| name).collect();
    (names.into_iter().enumerate().map(|(place, name)| (name, place)).collect(), others)
}

/// The second look: when each host failed with what.
#[derive(Clone, Debug)]
pub struct SecondLook {
    window_ms: i64,
    hosts: BTreeMap<String, usize>,
    codes: BTreeMap<String, usize>,
    /// Windows in which anything was migrated.
    active: BTreeSet<i64>,
    /// Windows in which a host failed, by code and host.
    failed: BTreeMap<(usize, usize), BTreeSet<i64>>,
    windows_left_out: bool,
    left_out: LeftOut,
}

/// What the bounds kept out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Hosts that failed with a code, but less often than the [`MOST_HOSTS`] that were compared.
    pub hosts: u64,
    /// Codes that are rarer than the [`MOST_CODES`] that were compared.
    pub codes: u64,
    /// Failures without a code: nothing says that they have anything in common.
    pub without_code: u64,
    /// Whether there are earlier windows than the [`MOST_WINDOWS`] that were looked at.
    pub windows: bool,
}

/// Hosts that fail together.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// With this error.
    pub error_code: String,
    /// Which, by name.
    pub hosts: Vec<String>,
    /// Mean phi coefficient of its pairs.
    pub coefficient: f64,
    /// The lowest of them.
    pub weakest: f64,
    /// Windows in which at least two of them failed with it.
    pub windows: u64,
    /// The highest chance among its pairs, before it is weighed by how many were tried.
    pub chance: f64,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Correlated {
    /// Length of a window, in milliseconds.
    pub window_ms: i64,
    /// Windows in which anything was migrated.
    pub windows: u64,
    /// The hosts compared, by name.
    pub hosts: Vec<String>,
    /// The coefficient of each with each over all codes, row by row; `None` where it can not be told.
    pub matrix: Vec<Vec<Option<f64>>>,
    /// The largest first, of equal ones the one that holds together best.
    pub clusters: Vec<Cluster>,
    /// Pairs of hosts and code that could have been found alike.
    pub tried: u64,
    /// What the bounds kept out.
    pub left_out: LeftOut,
}

/// Two hosts that are alike in a code.
#[derive(Clone, Copy, Debug)]
struct Likeness {
    coefficient: f64,
    chance: f64,
}

impl SecondLook {
    /// Takes in a migration.
    pub fn add(&mut self, record: &Record) {
        let window = record.at.as_millis().div_euclid(self.window_ms);
        if self.active.len() >= MOST_WINDOWS && !self.active.contains(&window) {
            self.windows_left_out = true;
            if self.active.first().is_some_and(|first| window < *first) {
                return;
            }
            self.active.pop_first();
        }
        self.active.insert(window);
        let Some(code) = record.error_code.as_ref().filter(|_| record.failed()) else { return };
        if let (Some(code), Some(host)) = (self.codes.get(code), self.hosts.get(&record.host)) {
            self.failed.entry((*code, *host)).or_default().insert(window);
        }
    }

    /// What they have in common.
    #[must_use]
    pub fn correlated(mut self) -> Correlated {
        if let Some(first) = self.active.first().copied() {
            self.failed.values_mut().for_each(|windows| *windows = windows.split_off(&first));
        }
        self.left_out.windows = self.windows_left_out;
        let (clusters, tried) = self.clusters();
        Correlated {
            window_ms: self.window_ms,
            windows: self.active.len() as u64,
            matrix: self.matrix(),
            clusters,
            tried,
            hosts: self.hosts.into_keys().collect(),
            left_out: self.left_out,
        }
    }

    /// The windows of each host with this code, by host.
    fn rows(&self, code: usize) -> Vec<(usize, &BTreeSet<i64>)> {
        let range = self.failed.range((code, 0)..=(code, usize::MAX));
        range.map(|((_, host), windows)| (*host, windows)).collect()
    }

    fn clusters(&self) -> (Vec<Cluster>, u64) {
        let enough = |windows: &BTreeSet<i64>| windows.len() >= LEAST_TOGETHER;
        let able: Vec<Vec<_>> = (0..self.codes.len())
            .map(|code| self.rows(code).into_iter().filter(|(_, windows)| enough(windows)).collect())
            .collect();
        let pairs = |hosts: &Vec<_>| hosts.len() * hosts.len().saturating_sub(1) / 2;
        let tried: usize = able.iter().map(pairs).sum();
        let factorials = Factorials::up_to(self.active.len());
        let mut clusters = Vec::new();
        for (name, code) in &self.codes {
            let rows = &able[*code];
            let mut alike = BTreeMap::new();
            for (n, (one, first)) in rows.iter().enumerate() {
                for (other, second) in &rows[n + 1..] {
                    if let Some(likeness) = self.likeness(&factorials, first, second, tried) {
                        alike.insert((*one, *other), likeness);
                    }
                }
            }
            clusters.extend(self.gather(name, *code, alike));
        }
        clusters.sort_by(|a, b| {
            let larger = b.hosts.len().cmp(&a.hosts.len()).then(b.coefficient.total_cmp(&a.coefficient));
            larger.then_with(|| (&a.error_code, &a.hosts).cmp(&(&b.error_code, &b.hosts)))
        });
        (clusters, tried as u64)
    }

    fn likeness(
        &self,
        factorials: &Factorials,
        first: &BTreeSet<i64>,
        second: &BTreeSet<i64>,
        tried: usize,
    ) -> Option<Likeness> {
        let (n, a, b, both) =
            (self.active.len(), first.len(), second.len(), first.intersection(second).count());
        let coefficient = phi(n, a, b, both)?;
        if both < LEAST_TOGETHER || coefficient < LEAST_COEFFICIENT {
            return None;
        }
        let chance = factorials.chance(n, a, b, both);
        (chance * tried as f64 <= CHANCE).then_some(Likeness { coefficient, chance })
    }

    /// Makes clusters of the pairs: from the strongest pair on, whoever is alike with all members joins.
    fn gather(&self, name: &str, code: usize, mut alike: BTreeMap<(usize, usize), Likeness>) -> Vec<Cluster> {
        let names: Vec<&String> = self.hosts.keys().collect();
        let mut clusters = Vec::new();
        loop {
            // Of equally strong ones the first by name, since keys are in order and only a stronger one replaces it.
            let stronger = |best: Option<((usize, usize), f64)>,
                            (pair, likeness): (&(usize, usize), &Likeness)| {
                match best {
                    Some((_, coefficient)) if likeness.coefficient <= coefficient => best,
                    _ => Some((*pair, likeness.coefficient)),
                }
            };
            let Some(((one, other), _)) = alike.iter().fold(None, stronger) else { return clusters };
            let mut members = BTreeSet::from([one, other]);
            let candidates: BTreeSet<usize> = alike.keys().flat_map(|(a, b)| [*a, *b]).collect();
            for candidate in candidates {
                let with =
                    |member: &usize| alike.contains_key(&(candidate.min(*member), candidate.max(*member)));
                if !members.contains(&candidate) && members.iter().all(with) {
                    members.insert(candidate);
                }
            }
            let inside = |(a, b): &(usize, usize)| members.contains(a) && members.contains(b);
            let pairs: Vec<Likeness> =
                alike.iter().filter(|(pair, _)| inside(pair)).map(|(_, likeness)| *likeness).collect();
            let mut seen = BTreeMap::new();
            let rows = self.rows(code).into_iter().filter(|(host, _)| members.contains(host));
            rows.flat_map(|(_, windows)| windows)
                .for_each(|window| *seen.entry(*window).or_insert(0_u32) += 1);
            clusters.push(Cluster {
                error_code: name.to_owned(),
                hosts: members.iter().map(|member| names[*member].clone()).collect(),
                coefficient: pairs.iter().map(|pair| pair.coefficient).sum::<f64>() / pairs.len() as f64,
                weakest: pairs.iter().map(|pair| pair.coefficient).fold(1.0, f64::min),
                windows: seen.values().filter(|hosts| **hosts >= 2).count() as u64,
                chance: pairs.iter().map(|pair| pair.chance).fold(0.0, f64::max),
            });
            alike.retain(|(a, b), _| !members.contains(a) && !members.contains(b));
        }
    }

    fn matrix(&self) -> Vec<Vec<Option<f64>>> {
        let mut rows = vec![BTreeSet::new(); self.hosts.len()];
        for ((code, host), windows) in &self.failed {
            rows[*host].extend(windows.iter().map(|window| (*code, *window)));
        }
        let cells = self.active.len() * self.codes.len();
        let coefficient = |one: &BTreeSet<(usize, i64)>, other: &BTreeSet<(usize, i64)>| {
            phi(cells, one.len(), other.len(), one.intersection(other).count())
        };
        rows.iter().map(|one| rows.iter().map(|other| coefficient(one, other)).collect()).collect()
    }
}

/// The start of the window a time lies in.
#[must_use]
pub fn window_start(at: Timestamp, window_ms: i64) -> Timestamp {
    let window_ms = window_ms.max(1);
    Timestamp::from_millis(at.as_millis().div_euclid(window_ms).saturating_mul(window_ms))
}

#[cfg(test)]
#[path = "correlate_tests.rs"]
mod tests;
