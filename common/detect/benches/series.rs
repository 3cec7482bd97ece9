//! Cost of a tick and size of a state of the detector of one series. The budget is 300 ns and 1.9 KB.

#![allow(missing_docs, clippy::print_stdout)]

#[path = "../tests/behaviour/workload.rs"]
mod workload;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use evenkeel_common::time::Timestamp;
use evenkeel_detect::series::{SeriesConfig, SeriesDetector};
use workload::{Host, METRICS};

const MEASURED: usize = 4000;

fn at(step_s: usize, sample: usize) -> Timestamp {
    Timestamp::from_millis(1_760_000_000_000 + (sample * step_s) as i64 * 1000)
}

fn series(c: &mut Criterion) {
    let mut group = c.benchmark_group("series");
    for step_s in [1, 300] {
        let mut host = Host::new(1, true);
        let mut detector = SeriesDetector::new(Duration::from_secs(step_s as u64), SeriesConfig::default());
        let warm = 30 * 288 * 300 / step_s / if step_s == 1 { 10 } else { 1 };
        for sample in 0..warm {
            detector.observe(at(step_s, sample), host.next()[0]);
        }
        let values: Vec<f64> = (0..MEASURED).map(|_| host.next()[0]).collect();
        println!("{}, a sample in {step_s} s: {} bytes a series", METRICS[0], detector.bytes());
        group.throughput(Throughput::Elements(MEASURED as u64));
        group.bench_function(format!("observe/{step_s}s"), |b| {
            b.iter(|| {
                let mut detector = detector.clone();
                for (i, &value) in values.iter().enumerate() {
                    black_box(detector.observe(at(step_s, warm + i), value));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, series);
criterion_main!(benches);
