//! Cost of one decision run: 8, 32 and 64 nodes with 100, 1,000 and 2,000 guests, a quarter of the nodes hot.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use evenkeel_core::{Memory, Policy, Snapshot, decide, fixture};

/// Guests of many sizes, a third of them bursty, in anti-affinity groups of five; every fourth node has twice its share.
fn fleet(nodes: usize, guests: usize) -> Snapshot {
    let share = guests / nodes;
    let mut texts: Vec<_> =
        (0..nodes).map(|n| format!("n{n:02} cpu={} ram={}", 2 * share, 20 * share)).collect();
    let mut seed = 0x9e37_79b9_u64;
    for guest in 0..guests {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut node = (seed >> 33) as usize % (nodes + nodes / 4);
        if node >= nodes {
            node = (node - nodes) * 4;
        }
        let cpu = 0.2 + 0.1 * ((seed >> 40) % 24) as f64;
        let memory = 2 + (seed >> 50) % 12;
        let vmid = 100 + guest;
        let profile = if guest % 3 == 0 { "profile=bursty" } else { "profile=steady" };
        write!(
            texts[node],
            " | {vmid} cpu={cpu:.1} mem={memory} {profile} p95={:.1} tags=evenkeel-anti-{}",
            cpu * 2.0,
            guest / 5
        )
        .unwrap();
    }
    fixture::snapshot(&texts.join("\n"))
}

fn decisions(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    for (nodes, guests) in [(8, 100), (32, 1000), (64, 2000)] {
        let snapshot = fleet(nodes, guests);
        let policy = Policy::default();
        let run = decide(&snapshot, &policy, &Memory::default());
        assert!(!run.decisions.is_empty(), "{nodes}x{guests} decides nothing: {:?}", run.suppressed);
        group.bench_function(format!("{nodes}x{guests}"), |b| {
            b.iter(|| decide(black_box(&snapshot), &policy, &Memory::default()));
        });
    }
    group.finish();
}

criterion_group!(benches, decisions);
criterion_main!(benches);
