//! A restart that nobody notices, and files that are not what they should be.

use super::*;
use std::collections::BTreeSet;
use std::fs;

use evenkeel_common::event::EventKind;
use evenkeel_common::guest::GuestProfile;
use evenkeel_common::sample::{SeriesId, Tick};
use evenkeel_runtime::random::{self, SeededEntropy};
use proptest::prelude::*;

use crate::collect::source::{Reading, Registry};
use crate::watch::Watcher;

const SECOND: Duration = Duration::from_secs(1);

fn vmid() -> Vmid {
    Vmid::new(100).unwrap()
}

fn guest(started_s: i64) -> GuestFacts {
    GuestFacts {
        vmid: vmid(),
        kind: GuestKind::Qemu,
        name: None,
        vcpus: Some(2.0),
        memory_max: None,
        tags: Vec::new(),
        started_at: Timestamp::from_millis(started_s * 1000),
    }
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_millis(1_790_812_800_000).after(Duration::from_secs(second))
}

fn keys() -> [SeriesKey; 4] {
    [
        SeriesKey::node(Metric::CpuUsed),
        SeriesKey::device(Metric::DiskAwait, "sda"),
        SeriesKey::guest(vmid(), Metric::GuestCpu),
        SeriesKey::guest(vmid(), Metric::GuestMem),
    ]
}

/// A run of an agent: numbers of series and anomalies of its own.
struct Run {
    watcher: Watcher,
    registry: Registry,
    ids: Vec<SeriesId>,
    guest: Option<GuestFacts>,
}

impl Run {
    /// `reversed`: its series get other numbers than in a run that is not.
    fn new(memory: Memory, started_s: i64, reversed: bool) -> Self {
        let mut registry = Registry::new(100);
        let mut order: Vec<usize> = (0..keys().len()).collect();
        if reversed {
            order.reverse();
        }
        let mut ids = vec![SeriesId(0); keys().len()];
        for n in order {
            ids[n] = registry.intern(&keys()[n]).unwrap();
        }
        let mut watcher = Watcher::new(WatchConfig::default(), SECOND);
        watcher.remember(memory);
        Self { watcher, registry, ids, guest: Some(guest(started_s)) }
    }

    /// One second of a stream that leaps now and then.
    fn second(&mut self, seed: u64, second: u64) -> Vec<EventKind> {
        let noise = |n: u64| {
            let entropy = SeededEntropy::new(seed ^ (second << 8) ^ n);
            f64::from(u16::from_le_bytes(random::bytes(&entropy).unwrap())) / 65_536.0
        };
        let leap = if (second / 250).is_multiple_of(4) && second > 900 { 60.0 } else { 0.0 };
        let values = [10.0 + 3.0 * noise(1) + leap, 2.0 + noise(2) + leap, 0.5 + 0.1 * noise(3), 1e9];
        let mut values: Vec<_> = self.ids.iter().copied().zip(values).collect();
        values.sort_by_key(|(id, _)| *id);
        let tick = Tick { at: at(second), uptime: Duration::from_secs(second), values };
        let reading =
            Reading { tick, guests: self.guest.take().map(|guest| vec![guest]), faults: Vec::new() };
        let told = self.watcher.observe(&reading, &self.registry, &BTreeSet::new(), &mut || 1);
        let kinds = told.into_iter().map(|event| event.kind);
        kinds.filter(|kind| !matches!(kind, EventKind::GuestAppeared(_))).collect()
    }

    fn profiles(&self) -> Vec<GuestProfile> {
        self.watcher.profiles()
    }
}

async fn save(run: &Run, path: &Path, second: u64) {
    Keeper::new(path.to_owned(), Duration::ZERO).finish(&run.watcher, at(second)).await;
}

fn load(path: &Path, second: u64) -> Result<Option<Memory>, MemoryError> {
    Memory::load(path, &WatchConfig::default(), SECOND, at(second), 100)
}

/// A file of a run of 1000 s, during which nothing was amiss at the end.
async fn example(folder: &Path) -> PathBuf {
    let mut run = Run::new(Memory::default(), 5, false);
    (0..900).for_each(|second| drop(run.second(1, second)));
    let path = path(folder);
    save(&run, &path, 900).await;
    path
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_restart_is_invisible(seed: u64, cut in 1_u64..3000) {
        // Inside an anomaly it is not: its anomaly ends with the run. That is another test's matter.
        let cut = if (cut / 250).is_multiple_of(4) { cut + 500 } else { cut };
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path());
        let mut whole = Run::new(Memory::default(), 5, false);
        let mut before = Run::new(Memory::default(), 5, false);
        for second in 0..cut {
            prop_assert_eq!(whole.second(seed, second), before.second(seed, second));
        }
        let opened = whole.watcher.ids().filter(|id| {
            whole.watcher.learned(*id).is_some_and(|(_, watch)| watch.open().is_some())
        }).count();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(save(&before, &path, cut));
        let memory = load(&path, cut).unwrap().unwrap();
        prop_assert_eq!(memory.left(), (4, 1));
        let mut after = Run::new(memory, 5, true);
        let mut told = 0;
        for second in cut..cut + 2000 {
            let (one, other) = (whole.second(seed, second), after.second(seed, second));
            if opened == 0 {
                told += one.len();
                prop_assert_eq!(one, other, "second {}", second);
            }
        }
        prop_assert!(opened > 0 || told > 0, "nothing happened afterwards, so nothing was compared");
        prop_assert_eq!(whole.profiles(), after.profiles());
    }
}

#[tokio::test]
async fn what_was_open_is_closed_and_held_off_but_what_was_learned_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path());
    let mut run = Run::new(Memory::default(), 5, false);
    let told: Vec<_> = (0..1100).flat_map(|second| run.second(1, second)).collect();
    assert!(matches!(told.last(), Some(EventKind::AnomalyOpened(_))), "{told:?}");
    save(&run, &path, 1100).await; // As every five minutes: a crash does not close first.
    let learned = |id: SeriesId| run.watcher.learned(id).unwrap().1.clone();
    assert!(learned(run.ids[0]).open().is_some());
    let mut memory = load(&path, 1100).unwrap().unwrap();
    for (key, id) in keys().iter().zip(&run.ids) {
        let mut expected = learned(*id);
        let _ = expected.leave(at(1100));
        assert_eq!(memory.take_series(key), Some(expected), "{key}");
    }
    let mut run = Run::new(load(&path, 1100).unwrap().unwrap(), 5, false);
    let within: Vec<_> = (1100..1150).flat_map(|second| run.second(1, second)).collect();
    assert_eq!(within, [], "held off");
}

#[tokio::test]
async fn a_guest_of_another_life_learns_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = example(folder.path()).await;
    for (started_s, same) in [(5, true), (6, true), (9, false), (-100, false)] {
        let mut run = Run::new(load(&path, 900).unwrap().unwrap(), started_s, false);
        run.second(1, 900);
        let observed = run.profiles().first().map_or(0, |profile| profile.observed_s);
        assert_eq!(observed > 800, same, "started {started_s}");
        let fresh = SeriesWatch::new(Metric::GuestMem, SECOND, WatchConfig::default());
        let (_, watch) = run.watcher.learned(run.ids[3]).unwrap();
        assert_eq!(watch.bytes() > fresh.bytes(), same, "started {started_s}");
    }
}

#[tokio::test]
async fn other_options_cost_the_series_and_old_files_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = example(folder.path()).await;
    let config = WatchConfig::default();
    let load = |config: &WatchConfig, interval_s, second| {
        Memory::load(&path, config, Duration::from_secs(interval_s), at(second), 100)
    };
    let left = |loaded: Result<Option<Memory>, MemoryError>| {
        let memory = loaded.unwrap().unwrap();
        (memory.left(), memory.unfit())
    };
    assert_eq!(left(load(&config, 1, 901)), ((4, 1), 0));
    assert_eq!(left(load(&config, 10, 901)), ((0, 1), 4));
    assert_eq!(left(load(&WatchConfig { hold_off_s: 61, ..config }, 1, 901)), ((0, 1), 4));
    assert!(matches!(load(&config, 1, 900 + 86_400), Err(MemoryError::Old(_))));
    assert!(load(&config, 1, 899 + 86_400).is_ok());
    assert!(matches!(Memory::load(&path, &config, SECOND, at(900), 3), Err(MemoryError::Damaged(_))));
    let ahead = Memory::load(&path, &config, SECOND, at(900).before(Duration::from_secs(86_400)), 100);
    assert!(matches!(ahead, Err(MemoryError::Old(_))), "its clock was a day ahead");
    assert!(
        super::Memory::load(&path.with_extension("gone"), &config, SECOND, at(900), 3).unwrap().is_none()
    );
}

#[tokio::test]
async fn any_damage_is_found_and_the_file_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = example(folder.path()).await;
    let whole = fs::read(&path).unwrap();
    for cut in (0..whole.len()).step_by(37) {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(load(&path, 900).is_err(), "cut at {cut}");
    }
    for flip in (0..whole.len()).step_by(41).chain(0..64) {
        let mut bytes = whole.clone();
        bytes[flip] ^= 0x10;
        fs::write(&path, bytes).unwrap();
        assert!(load(&path, 900).is_err(), "flipped at {flip}");
    }
    let mut newer = whole.clone();
    newer[7] = b'2';
    fs::write(&path, newer).unwrap();
    assert!(matches!(load(&path, 900), Err(MemoryError::OtherVersion)));
    // A length of 4 GiB claims nothing.
    let mut long = whole[..8].to_vec();
    long.extend([0xff; 8]);
    fs::write(&path, long).unwrap();
    assert!(matches!(load(&path, 900), Err(MemoryError::Damaged("a length"))));
    let mut run = Run::new(Memory::default(), 5, false);
    (0..900).for_each(|second| drop(run.second(1, second)));
    save(&run, &path, 900).await;
    assert!(load(&path, 900).unwrap().is_some());
}

#[tokio::test]
async fn it_is_written_in_pieces_every_five_minutes() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path());
    let mut run = Run::new(Memory::default(), 5, false);
    let mut keeper = Keeper::new(path.clone(), Duration::ZERO);
    for second in 0..310 {
        run.second(1, second);
        keeper.tick(&run.watcher, at(second), Duration::from_secs(second)).await;
        assert!(second >= 300 || !path.exists());
    }
    while !path.exists() {
        tokio::task::yield_now().await;
    }
    keeper.tick(&run.watcher, at(310), Duration::from_secs(310)).await;
    assert_eq!(load(&path, 311).unwrap().unwrap().left(), (4, 1));
}
