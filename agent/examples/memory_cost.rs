//! Bytes and milliseconds of keeping what was learned, of a node with 500 guests of 9 series each:
//! `cargo run --release -p evenkeel-agent --example memory_cost`.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods, missing_docs)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use evenkeel_agent::collect::source::{Reading, Registry};
use evenkeel_agent::memory::{Keeper, Memory, path};
use evenkeel_agent::watch::Watcher;
use evenkeel_common::guest::{GuestFacts, GuestKind};
use evenkeel_common::id::Vmid;
use evenkeel_common::sample::{Metric, SeriesKey, Tick};
use evenkeel_common::time::Timestamp;
use evenkeel_detect::config::WatchConfig;

const GUESTS: u32 = 500;
const SECONDS: u64 = 3700;

fn facts(number: u32) -> GuestFacts {
    GuestFacts {
        vmid: Vmid::new(number).expect("a vmid"),
        kind: GuestKind::Qemu,
        name: Some(format!("guest-{number}")),
        vcpus: Some(4.0),
        memory_max: None,
        tags: Vec::new(),
        started_at: Timestamp::from_millis(0),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let metrics = Metric::ALL.iter().copied().filter(|metric| metric.of_guest());
    let keys: Vec<SeriesKey> = metrics
        .flat_map(|metric| (0..GUESTS).map(move |n| SeriesKey::guest(facts(1000 + n).vmid, metric)))
        .collect();
    let mut registry = Registry::new(16_000);
    let ids: Vec<_> = keys.iter().filter_map(|key| registry.intern(key)).collect();
    let (config, second) = (WatchConfig::default(), Duration::from_secs(1));
    let mut watcher = Watcher::new(config, second);
    let start = Timestamp::from_millis(1_790_812_800_000);
    for s in 0..SECONDS {
        let noise = |n: usize| ((s.wrapping_mul(2_654_435_761) >> (n % 13)) % 97) as f64;
        let values = ids.iter().enumerate().map(|(n, &id)| (id, 1e6 + 1e3 * noise(n))).collect();
        let uptime = Duration::from_secs(s);
        let tick = Tick { at: start.after(uptime), uptime, values };
        let guests = (s == 0).then(|| (0..GUESTS).map(|n| facts(1000 + n)).collect());
        let reading = Reading { tick, guests, faults: Vec::new() };
        watcher.observe(&reading, &registry, &BTreeSet::new(), &mut || 1);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = path(folder.path());
    let now = start.after(Duration::from_secs(SECONDS));
    let mut keeper = Keeper::new(path.clone(), Duration::ZERO);
    let mut worst = Duration::ZERO;
    let (mut ticks, mut total) = (0, Duration::ZERO);
    while !path.exists() {
        let begun = Instant::now();
        keeper.tick(&watcher, now, Duration::from_secs(300 + ticks)).await;
        let took = begun.elapsed();
        (ticks, total, worst) = (ticks + 1, total + took, worst.max(took));
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("{} series, {GUESTS} guests: {} bytes", ids.len(), path.metadata().expect("the file").len());
    println!("in pieces: {ticks} ticks, {total:?} in all, {worst:?} the longest");
    let begun = Instant::now();
    keeper.finish(&watcher, now).await;
    println!("at once, fsync included: {:?}", begun.elapsed());
    let begun = Instant::now();
    let memory = Memory::load(&path, &config, second, now, 16_000).expect("whole").expect("there");
    println!("read: {:?}, {:?} series and guests", begun.elapsed(), memory.left());
}
