//! Cost of the fleet's ensemble: one look at a node with all four detectors, and the two that cost most alone.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use evenkeel_common::time::Timestamp;
use evenkeel_detect::ensemble::{EnsembleConfig, EnsembleDetector, TrainingRow, train};
use evenkeel_detect::model::{ModelKind, Payload};
use evenkeel_detect::seven::SevenMetrics;

fn look(i: i64) -> SevenMetrics {
    let wave = (i as f64 / 1440.0 * std::f64::consts::TAU).sin();
    let noise = (i.wrapping_mul(2_654_435_761) % 1000) as f64 / 1000.0;
    SevenMetrics([
        200.0 + 100.0 * wave + 20.0 * noise,
        1.0 + 0.2 * noise,
        0.0,
        0.3 + 0.1 * noise,
        30.0 + 10.0 * wave + 5.0 * noise,
        50.0 + noise,
        0.0,
    ])
}

fn ensemble(c: &mut Criterion) {
    let at = |seconds: i64| Timestamp::from_millis((1_700_000_000 + seconds) * 1000);
    let rows: Vec<TrainingRow> =
        (0..8 * 1440).map(|i| TrainingRow { at: at(i * 60), metrics: look(i), anomalous: false }).collect();
    let config = EnsembleConfig::default();
    let models = train(&rows, &config, at(0), &mut |_| true).unwrap();
    for model in models.all() {
        println!("{}: {} bytes", model.kind(), model.encode().unwrap().len());
    }
    let mut detector = EnsembleDetector::new(config);
    models.apply(&mut detector).unwrap();
    let mut second = 8 * 86_400;
    let mut next = || {
        second += 10;
        (at(second), look(second / 60))
    };
    (0..1000).for_each(|_| {
        let (at, metrics) = next();
        detector.observe(at, &metrics);
    });
    c.bench_function("ensemble/observe", |b| {
        b.iter(|| {
            let (at, metrics) = next();
            black_box(detector.observe(at, &metrics))
        });
    });
    if let Some(Payload::IsolationForest { forest, .. }) =
        models.get(ModelKind::IsolationForest).map(|m| &m.payload)
    {
        let row = [3.0_f32; 14];
        c.bench_function("isolation_forest/score", |b| b.iter(|| black_box(forest.score(black_box(&row)))));
    }
    if let Some(Payload::LstmAutoencoder { autoencoder, .. }) =
        models.get(ModelKind::LstmAutoencoder).map(|m| &m.payload)
    {
        let window: Vec<Vec<f64>> = (0..30).map(|i| look(i).domain().to_vec()).collect();
        c.bench_function("lstm_autoencoder/errors", |b| {
            b.iter(|| black_box(autoencoder.errors(black_box(&window))))
        });
    }
}

criterion_group!(benches, ensemble);
criterion_main!(benches);
