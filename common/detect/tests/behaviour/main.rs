//! What a series watch must do at the shipped defaults, on synthetic 1 s data.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod inputs;
mod nightly;
mod node;
mod properties;
mod workload;

use std::time::Duration;

use evenkeel_common::anomaly::Severity;
use evenkeel_common::sample::Metric;
use evenkeel_common::time::Timestamp;
use evenkeel_detect::config::WatchConfig;
use evenkeel_detect::watch::{AnomalyState, SeriesWatch, Transition};
use workload::{Chance, Host, METRICS};

const START: i64 = 1_760_000_000;

fn at(second: usize) -> Timestamp {
    Timestamp::from_millis((START + second as i64) * 1000)
}

fn watch(metric: Metric) -> SeriesWatch {
    SeriesWatch::new(metric, Duration::from_secs(1), WatchConfig::default())
}

/// All transitions of a series that has a value every second.
fn run(watch: &mut SeriesWatch, values: impl IntoIterator<Item = f64>) -> Vec<(usize, Transition)> {
    values.into_iter().enumerate().filter_map(|(s, v)| Some((s, watch.observe(at(s), v)?))).collect()
}

/// Openings and closings as seconds.
fn spans(transitions: &[(usize, Transition)]) -> Vec<(usize, Option<(usize, AnomalyState)>)> {
    let mut spans = Vec::new();
    for (second, transition) in transitions {
        match transition {
            Transition::Opened(_) => spans.push((*second, None)),
            Transition::Closed(state) => spans.last_mut().unwrap().1 = Some((*second, state.clone())),
        }
    }
    spans
}

/// A host between 5 and 20 % CPU that is fully loaded for 60 s, `known_s` seconds after the agent started.
fn stressed(seed: u64, known_s: usize) -> Vec<f64> {
    let mut host = Host::new(seed, false);
    let mut chance = Chance::new(seed + 1000);
    (0..known_s + 300)
        .map(|s| {
            let [cpu, ..] = host.next();
            if (known_s..known_s + 60).contains(&s) { 100.0 - chance.uniform() } else { cpu }
        })
        .collect()
}

#[test]
fn a_minute_of_full_load_is_one_anomaly_soon_opened_and_soon_closed() {
    for known_s in [90, 240, 1800, 5 * 3600, 26 * 3600] {
        let (mut delays, mut lasts) = (Vec::new(), Vec::new());
        for seed in 0..20 {
            // Every phase of the five-second step is met.
            let known_s = known_s + seed as usize;
            let transitions = run(&mut watch(Metric::CpuUsed), stressed(seed, known_s));
            let spans = spans(&transitions);
            let [(opened, Some((closed, state)))] = &spans[..] else {
                panic!("known {known_s} s, seed {seed}: {spans:?}");
            };
            delays.push(opened - known_s);
            lasts.push(closed - known_s - 60);
            assert!(state.severity >= Severity::Warning && state.deviation > 5.0, "{state:?}");
            assert!(state.votes.len() >= 2 && state.value > 95.0 && state.expected < 25.0, "{state:?}");
        }
        delays.sort_unstable();
        lasts.sort_unstable();
        println!(
            "known {known_s:>5} s: opens after {}..{} s (median {}), closes {}..{} s after the end",
            delays[0], delays[19], delays[10], lasts[0], lasts[19]
        );
        assert!(delays[19] <= 17 && lasts[19] <= 60);
    }
}

#[test]
fn normal_days_are_silent() {
    const SEEDS: u64 = 8;
    const DAYS: usize = 2;
    for (name, jobs, limit) in [("spikes", false, 0.02), ("spikes and jobs", true, 0.1)] {
        let mut opened = [[0_usize; METRICS.len()]; DAYS];
        for seed in 0..SEEDS {
            let mut host = Host::new(seed, jobs);
            let mut watches = METRICS.map(watch);
            for second in 0..DAYS * 86_400 {
                for (i, (value, watch)) in host.next().into_iter().zip(&mut watches).enumerate() {
                    if let Some(Transition::Opened(state)) = watch.observe(at(second), value) {
                        opened[second / 86_400][i] += 1;
                        println!("{name}, seed {seed}, {second} s, {}: {state:?}", METRICS[i]);
                    }
                }
            }
        }
        for (day, counts) in opened.iter().enumerate() {
            let all = counts.iter().sum::<usize>() as f64 / (SEEDS as usize * METRICS.len()) as f64;
            print!("{name}, day {}: {all:.3} a series and day (", day + 1);
            for (metric, &count) in METRICS.iter().zip(counts) {
                print!(" {metric} {:.2}", count as f64 / SEEDS as f64);
            }
            println!(" )");
            assert!(all <= limit, "{name}, day {}: {all}", day + 1);
        }
    }
}
