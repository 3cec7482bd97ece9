//! Cost of a sample and size of a state: nanoseconds in `observe`, bytes of a series and of a guest's profile.
//! The budget is 300 ns and 4 KB, the aim 100 ns and 2.5 KB.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

#[path = "../tests/behaviour/workload.rs"]
mod workload;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use evenkeel_common::time::Timestamp;
use evenkeel_detect::config::WatchConfig;
use evenkeel_detect::profile::GuestProfiler;
use evenkeel_detect::watch::SeriesWatch;
use workload::{Host, METRICS};

const WARM_S: usize = 26 * 3600;
const MEASURED_S: usize = 3600;

fn at(second: usize) -> Timestamp {
    Timestamp::from_millis(1_760_000_000_000 + second as i64 * 1000)
}

fn watch(c: &mut Criterion) {
    let mut group = c.benchmark_group("observe");
    for (i, metric) in METRICS.into_iter().enumerate() {
        let mut host = Host::new(1, true);
        let mut watch = SeriesWatch::new(metric, Duration::from_secs(1), WatchConfig::default());
        for second in 0..WARM_S {
            watch.observe(at(second), host.next()[i]);
        }
        let values: Vec<f64> = (0..MEASURED_S).map(|_| host.next()[i]).collect();
        println!("{metric}: {} bytes a series after 26 h", watch.bytes());
        group.throughput(Throughput::Elements(MEASURED_S as u64));
        group.bench_function(metric.name(), |b| {
            b.iter(|| {
                let mut watch = watch.clone();
                for (second, &value) in values.iter().enumerate() {
                    black_box(watch.observe(at(WARM_S + second), value));
                }
            });
        });
    }
    group.finish();
}

fn profile(c: &mut Criterion) {
    let mut host = Host::new(1, true);
    let mut profiler = GuestProfiler::default();
    for second in 0..15 * 24 * 360 {
        let [.., cpu] = host.next();
        profiler.observe(at(second * 10), cpu, 4e9 + 1e9 * cpu);
    }
    println!("{} bytes a guest's profile after 15 days", profiler.bytes());
    let mut second = 0;
    c.bench_function("profile/observe", |b| {
        b.iter(|| {
            second += 1;
            profiler.observe(at(15 * 86_400 + second), black_box(1.5), black_box(4e9));
        });
    });
    let vmid = evenkeel_common::id::Vmid::new(100).unwrap();
    c.bench_function("profile/figures", |b| b.iter(|| black_box(&profiler).profile(vmid)));
}

criterion_group!(benches, watch, profile);
criterion_main!(benches);
