//! A backup every night: news at first, and from the third night on none.

use evenkeel_common::sample::Metric;
use evenkeel_detect::watch::Transition;

use crate::workload::{Chance, Host};
use crate::{at, watch};

const HOUR: usize = 3600;
const DAY: usize = 24 * HOUR;
const NIGHTS: usize = 7;

/// What a backup adds: CPU points, bytes written and sent a second, points of waiting.
const SERIES: [Metric; 5] =
    [Metric::CpuUsed, Metric::DiskWrite, Metric::NetRx, Metric::CpuIowait, Metric::DiskUtil];

/// A host that is backed up from 02:00 on for about an hour, not always as long and not always at the second.
fn nights(seed: u64) -> impl Iterator<Item = [f64; SERIES.len()]> {
    let mut host = Host::new(seed, true);
    let mut chance = Chance::new(seed + 77);
    let (mut from, mut to) = (0, 0);
    // Tests start at 08:53:20 UTC.
    (0..NIGHTS * DAY).map(move |second| {
        let of_day = (second + 32_000) % DAY;
        if of_day == 0 {
            from = 2 * HOUR + (chance.uniform() * 300.0) as usize;
            to = from + HOUR + ((chance.uniform() - 0.5) * 900.0) as usize;
        }
        let on = (from..to).contains(&of_day);
        let [cpu, _, _, _, disk, net, _] = host.next();
        let noise = 0.8 + 0.4 * chance.uniform();
        let wait = 0.4 * chance.uniform();
        if on {
            [
                (cpu + 35.0 * noise).min(100.0),
                disk + 180e6 * noise,
                net + 90e6 * noise,
                wait + 15.0 * noise,
                60.0 * noise,
            ]
        } else {
            [cpu, disk, net, wait, 2.0 * noise]
        }
    })
}

#[test]
fn a_nightly_backup_is_no_anomaly_from_the_third_night_on() {
    const SEEDS: u64 = 6;
    let mut opened = [[0; SERIES.len()]; NIGHTS];
    for seed in 0..SEEDS {
        let mut watches = SERIES.map(watch);
        for (second, values) in nights(seed).enumerate() {
            for (i, (value, watch)) in values.into_iter().zip(&mut watches).enumerate() {
                if let Some(Transition::Opened(state)) = watch.observe(at(second), value) {
                    let of_day = (second + 32_000) % DAY;
                    println!(
                        "night {} {:02}:{:02} {}: {state:?}",
                        second / DAY + 1,
                        of_day / HOUR,
                        of_day % HOUR / 60,
                        SERIES[i]
                    );
                    if (2 * HOUR..4 * HOUR).contains(&of_day) {
                        opened[second / DAY][i] += 1;
                    }
                }
            }
        }
    }
    println!("{opened:?}");
    for (night, counts) in opened.iter().enumerate().skip(2) {
        assert!(counts.iter().sum::<i32>() == 0, "night {}: {counts:?} of {SEEDS} hosts", night + 1);
    }
}
