//! scratch
#![allow(clippy::all, missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#[path = "../tests/behaviour/workload.rs"]
mod workload;
use evenkeel_common::sample::Metric;
use evenkeel_detect::{config::WatchConfig, vote::Panel, step::Stepper, scale::scale_floor};
use std::time::Duration;
use workload::*;
fn main() {
    for seed in 50..54 {
    let mut h = Host::new(seed, true);
    let mut st = Stepper::new(Duration::from_secs(1));
    let mut p = Panel::new(&WatchConfig::default(), 5.0);
    let sc = scale_floor(Metric::CpuUsed);
    let known = 30 * 3600;
    let mut long: f64 = 0.0;
    for s in 0..known + 60 {
        let mut c = h.next()[0];
        if s >= known { c = (c + 80.0).min(100.0); }
        if let Some(step) = st.push(c, |v| v) {
            let v = p.observe(&step, &sc);
            if s > known { println!("{s} {:.1} {:?}", step.median, v); } else { long = long.max(step.hold.map_or(0.0, |h| h.low)); p.learn(&step, v.as_ref(), &sc); }
            if s == known - 1 || s == known - 6 { println!("{:?}", format!("{p:?}").split("high_bound").nth(1)); }
        }
    }
    println!("max held {long}");
    }
}
