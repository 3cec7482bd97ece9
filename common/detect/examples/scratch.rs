//! scratch
#![allow(clippy::all, missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#[path = "../tests/behaviour/workload.rs"]
mod workload;
use evenkeel_common::sample::Metric;
use evenkeel_common::time::Timestamp;
use evenkeel_detect::config::WatchConfig;
use evenkeel_detect::watch::*;
use std::time::Duration;
use workload::*;

fn at(s: usize) -> Timestamp { Timestamp::from_millis((1_760_000_000 + s as i64) * 1000) }

fn cfg() -> WatchConfig { let mut c = WatchConfig::default(); if let Ok(v) = std::env::var("OC") { c.open_confidence = v.parse().unwrap(); } c }
fn main() {
    let mode = std::env::args().nth(1).unwrap();
    if mode == "sense" {
        for known in [240, 1800, 3 * 3600, 30 * 3600] {
            for jobs in [false, true] {
            for len in [60] {
                print!("known {known:>6} jobs {jobs} len {len:>3}:");
                for add in [10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 80.0] {
                    let mut hit = 0; let mut delay = 0;
                    for seed in 0..10 {
                        let mut h = Host::new(seed + 50, jobs);
                        let mut w = SeriesWatch::new(Metric::CpuUsed, Duration::from_secs(1), cfg());
                        let mut got = None;
                        for s in 0..known + len + 20 {
                            let mut c = h.next()[0];
                            if (known..known + len).contains(&s) { c = (c + add).min(100.0); }
                            if let Some(Transition::Opened(_)) = w.observe(at(s), c) { if s >= known { got = Some(s - known); } }
                        }
                        if let Some(d) = got { hit += 1; delay += d; }
                    }
                    print!("  +{add}: {}/10 {}s", hit, if hit > 0 { delay / hit } else { 0 });
                }
                println!();
            }}
        }
        for (mi, metric) in METRICS.iter().enumerate().skip(3) {
            for known in [2 * 3600, 30 * 3600] {
                print!("{metric} known {known}:");
                for (mul, add) in [(1.0, 20.0), (1.0, 60.0), (5.0, 0.0), (20.0, 0.0), (100.0, 0.0), (0.0, 0.0)] {
                    let mut hit = 0;
                    for seed in 0..10 {
                        let mut h = Host::new(seed + 50, true);
                        let mut w = SeriesWatch::new(*metric, Duration::from_secs(1), cfg());
                        let mut got = false;
                        for s in 0..known + 320 {
                            let mut c = h.next()[mi];
                            if (known..known + 300).contains(&s) { c = c * mul + add; }
                            if let Some(Transition::Opened(_)) = w.observe(at(s), c) { if s >= known { got = true; } }
                        }
                        hit += got as usize;
                    }
                    print!("  x{mul}+{add}: {hit}/10");
                }
                println!();
            }
        }
        return;
    }
    // real data
    let (mut days, mut opens_train, mut per_series_first) = (0.0, 0, 0);
    for m in std::fs::read_dir("/tmp/data/smd-dev").unwrap().flatten().filter(|e| e.path().is_dir()) {
        let rows = |f: &str| -> Vec<Vec<f64>> {
            std::fs::read_to_string(m.path().join(f)).unwrap().lines().skip(1)
                .map(|l| l.split(',').map(|v| v.parse().unwrap_or(f64::NAN)).collect()).collect()
        };
        let train = rows("train.csv"); let test = rows("test.csv");
        let head = std::fs::read_to_string(m.path().join("test.csv")).unwrap().lines().next().unwrap().to_string();
        let ncol = head.split(',').count(); let off: usize = std::env::args().nth(2).map_or(0, |v| v.parse().unwrap());
        let nm = 38;
        let mut watches: Vec<_> = (0..nm).map(|_| SeriesWatch::new(Metric::CpuUsed, Duration::from_secs(60), cfg())).collect();
        let mut per = vec![0; nm];
        for (t, row) in train.iter().enumerate() {
            for (i, w) in watches.iter_mut().enumerate() {
                if let Some(Transition::Opened(_)) = w.observe(at(t * 60), row[off + i] * 100.0) { opens_train += 1; per[i] += 1; if t < 1440 { per_series_first += 1; } }
            }
        }
        days += train.len() as f64 / 1440.0 * nm as f64;
        let label: Vec<bool> = test.iter().map(|r| r[ncol - 1] > 0.5).collect();
        let mut fa = 0; let mut hits = std::collections::BTreeSet::new();
        let mut events = vec![]; let mut prev = false;
        for (t, &l) in label.iter().enumerate() { if l && !prev { events.push((t, t)); } if l { events.last_mut().unwrap().1 = t; } prev = l; }
        for (t, row) in test.iter().enumerate() {
            for (i, w) in watches.iter_mut().enumerate() {
                if let Some(Transition::Opened(_)) = w.observe(at((train.len() + t) * 60), row[off + i] * 100.0) {
                    match events.iter().position(|e| t >= e.0 && t <= e.1 + 10) { Some(e) => { hits.insert(e); } None => fa += 1 }
                }
            }
        }
        println!("{:?}: train opens/series {:?}  test: {}/{} events, false {} in {:.1} node days", m.file_name(), per, hits.len(), events.len(), fa, test.len() as f64 / 1440.0);
    }
    println!("train: {:.4} per series-day ({opens_train} in {days:.0}), first day {per_series_first}", opens_train as f64 / days);
}
