//! The collectors together: on fixture trees, on damaged trees, through guests' lives, and on this machine.

mod damage;
mod fixtures;
mod lives;
mod machine;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_common::guest::GuestFacts;
use evenkeel_common::sample::{Metric, Unit};
use evenkeel_common::time::Timestamp;

use super::source::{Fault, Registry, Source};
use super::{CollectConfig, NodeSource};

/// A node in a temporary folder, read every two seconds.
struct Node {
    dir: tempfile::TempDir,
    source: NodeSource,
    registry: Registry,
    uptime: Duration,
}

/// One reading, with series by name.
#[derive(Debug)]
struct Seen {
    values: BTreeMap<String, f64>,
    guests: Option<Vec<GuestFacts>>,
    faults: Vec<Fault>,
}

fn fixture(tree: &str, when: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(tree).join(when)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::write(&target, fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

impl Node {
    /// A fixture tree as it is at first.
    fn new(tree: &str) -> Self {
        Self::with(tree, CollectConfig::default())
    }

    fn with(tree: &str, config: CollectConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy(&fixture(tree, "t0"), dir.path());
        let source = NodeSource::new(CollectConfig { root: dir.path().to_owned(), ..config });
        Self { dir, source, registry: Registry::new(10_000), uptime: Duration::from_secs(5000) }
    }

    /// Lets the files of the tree change to what they are two seconds later.
    fn advance(&self, tree: &str) {
        copy(&fixture(tree, "t1"), self.dir.path());
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        let path = self.path(path);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }

    fn read(&mut self) -> Seen {
        self.read_after(Duration::from_secs(2))
    }

    fn read_after(&mut self, time: Duration) -> Seen {
        self.uptime += time;
        let at = Timestamp::from_millis(1_763_719_500_000).after(self.uptime);
        let reading = self.source.read(at, self.uptime, &mut self.registry);
        let ids: Vec<_> = reading.tick.values.iter().map(|&(id, _)| id).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "each series once, ascending: {ids:?}");
        let mut values = BTreeMap::new();
        for (id, value) in reading.tick.values {
            let key = self.registry.key(id).unwrap();
            assert!(is_possible(key.metric, value), "{key} = {value}");
            values.insert(key.to_string(), value);
        }
        Seen { values, guests: reading.guests, faults: reading.faults }
    }
}

/// Whether any honest node could show this value.
fn is_possible(metric: Metric, value: f64) -> bool {
    (0.0..1e13).contains(&value) && (metric.unit() != Unit::Percent || value <= 100.0)
}

impl Seen {
    /// Checks that exactly these values are there: lines of `series value`; file systems are left out,
    /// because they are those of the machine that runs the test.
    #[track_caller]
    fn check(&self, expected: &str) {
        let parse = |line: &str| {
            let (key, value) = line.trim().rsplit_once(' ').unwrap();
            (key.trim().to_owned(), value.parse::<f64>().unwrap())
        };
        let expected: BTreeMap<_, _> =
            expected.lines().filter(|line| !line.trim().is_empty()).map(parse).collect();
        let found: BTreeMap<_, _> =
            self.values.iter().filter(|(key, _)| !key.starts_with("fs_used")).collect();
        for (key, value) in &expected {
            let found = found.get(key).unwrap_or_else(|| panic!("{key} has no value, expected {value}"));
            assert!((*found - value).abs() <= 1e-9 * value.abs(), "{key} is {found}, expected {value}");
        }
        let more: Vec<_> = found.keys().filter(|key| !expected.contains_key(**key)).collect();
        assert!(more.is_empty(), "not expected: {more:?}");
    }

    fn vmids(&self) -> Option<Vec<u32>> {
        self.guests.as_ref().map(|guests| guests.iter().map(|guest| guest.vmid.get()).collect())
    }

    fn guest(&self, vmid: u32) -> &GuestFacts {
        self.guests.iter().flatten().find(|guest| guest.vmid.get() == vmid).unwrap()
    }

    /// Metrics of a guest that have a value.
    fn of_guest(&self, vmid: u32) -> Vec<&str> {
        let prefix = format!("{vmid}/");
        self.values.keys().filter_map(|key| key.strip_prefix(&prefix)).collect()
    }
}
