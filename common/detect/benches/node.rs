//! Cost of a channel in a step and size of its state, on a node of 40 and one of 500 channels. The budget is
//! 300 ns and 1.2 KB, the aim 100 ns.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use evenkeel_common::time::Timestamp;
use evenkeel_detect::{NodeConfig, NodeDetector};

const STEP_S: usize = 60;
const WARM: usize = 3 * 1440;
const MEASURED: usize = 100;

fn at(step: usize) -> Timestamp {
    Timestamp::from_millis((step * STEP_S * 1000) as i64)
}

/// A day's swing and something that looks like noise.
fn row(step: usize, channels: usize) -> Vec<f64> {
    let swing = (step as f64 / 1440.0 * std::f64::consts::TAU).sin();
    (0..channels).map(|c| 50.0 + 10.0 * swing + ((step * 7919 + c * 104_729) % 101) as f64 / 20.0).collect()
}

fn node(c: &mut Criterion) {
    let mut group = c.benchmark_group("node");
    for channels in [40, 500] {
        let mut node = NodeDetector::new(channels, Duration::from_secs(STEP_S as u64), NodeConfig::default());
        (0..WARM).for_each(|step| node.train(at(step), &row(step, channels)));
        println!("{channels} channels: {} bytes a channel", node.bytes() / channels);
        let rows: Vec<Vec<f64>> = (WARM..WARM + MEASURED).map(|step| row(step, channels)).collect();
        group.throughput(Throughput::Elements((MEASURED * channels) as u64));
        group.bench_function(format!("{channels} channels"), |b| {
            b.iter_batched_ref(
                || node.clone(),
                |node| {
                    for (i, row) in rows.iter().enumerate() {
                        black_box(node.observe(at(WARM + i), row));
                    }
                },
                criterion::BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, node);
criterion_main!(benches);
