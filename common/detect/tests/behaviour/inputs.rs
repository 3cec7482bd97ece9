//! The inputs a detector is known to fall over: one test each.

use std::time::Duration;

use evenkeel_common::sample::Metric;
use evenkeel_common::time::Timestamp;
use evenkeel_detect::config::WatchConfig;
use evenkeel_detect::watch::{SeriesWatch, Transition};

use crate::{at, run, spans, watch};

/// `level` with a little noise.
fn around(level: f64, seconds: usize) -> impl Iterator<Item = f64> {
    (0..seconds).map(move |s| level + (s * 7 % 5) as f64 * 0.4)
}

#[test]
fn a_flat_series_does_not_alarm_on_a_blip_that_nobody_cares_about() {
    let values: Vec<f64> = around(0.1, 7200).map(|_| 0.1).chain([1.5; 600]).chain([0.1; 600]).collect();
    assert_eq!(run(&mut watch(Metric::CpuUsed), values), []);
}

#[test]
fn an_anomaly_does_not_teach_the_baseline_that_it_is_normal() {
    let mut values: Vec<f64> = around(10.0, 1800).collect();
    for _ in 0..2 {
        values.extend(around(95.0, 600));
        values.extend(around(10.0, 900));
    }
    let transitions = run(&mut watch(Metric::CpuUsed), values);
    let spans = spans(&transitions);
    assert_eq!(spans.len(), 2, "{spans:?}");
    for (opened, closed) in &spans {
        let (closed, state) = closed.as_ref().unwrap();
        assert!((600..660).contains(&(closed - opened)), "open for all of its time: {opened} {closed}");
        assert!((state.expected - 10.8).abs() < 1.0, "{state:?}");
    }
}

#[test]
fn a_level_that_stays_is_accepted_after_half_an_hour_and_its_end_is_no_news() {
    let mut watch = watch(Metric::CpuUsed);
    let values: Vec<f64> = around(10.0, 7200).chain(around(80.0, 7200)).chain(around(10.0, 3600)).collect();
    let spans = spans(&run(&mut watch, values));
    let [(opened, Some((closed, _)))] = &spans[..] else { panic!("{spans:?}") };
    assert!((1800..1810).contains(&(closed - opened)), "{opened} {closed}");
}

#[test]
fn calming_down_after_a_start_is_no_anomaly() {
    let values: Vec<f64> = around(90.0, 120).chain(around(5.0, 7200)).collect();
    assert_eq!(run(&mut watch(Metric::CpuUsed), values), []);
}

#[test]
fn traffic_that_stops_is_an_anomaly_and_errors_that_stop_are_none() {
    for (metric, level, expected) in [(Metric::NetRx, 80e6, 1), (Metric::NetErrors, 80.0, 0)] {
        let values: Vec<f64> = (0..30_000)
            .map(|s| if s < 29_000 { level * (1.0 + (s % 7) as f64 / 20.0) } else { 0.0 })
            .collect();
        assert_eq!(spans(&run(&mut watch(metric), values)).len(), expected, "{metric}");
    }
}

#[test]
fn what_is_no_number_is_as_good_as_missing() {
    let values: Vec<f64> = around(10.0, 3600).chain(around(95.0, 60)).chain(around(10.0, 120)).collect();
    let clean = run(&mut watch(Metric::CpuUsed), values.iter().copied());
    let mut dirty = watch(Metric::CpuUsed);
    let mut transitions = Vec::new();
    for (s, &value) in values.iter().enumerate() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            assert_eq!(dirty.observe(at(s), bad), None);
        }
        transitions.extend(dirty.observe(at(s), value).map(|t| (s, t)));
    }
    assert_eq!(transitions, clean);
    assert_eq!(clean.len(), 2);
}

#[test]
fn a_change_across_a_gap_has_to_be_held_like_any_other() {
    for (after_s, opens) in [(10, false), (20, true)] {
        let mut watch = watch(Metric::CpuUsed);
        run(&mut watch, around(10.0, 3600));
        let seen: Vec<_> =
            around(95.0, after_s).enumerate().filter_map(|(s, v)| watch.observe(at(3700 + s), v)).collect();
        assert_eq!(!seen.is_empty(), opens, "{after_s} s after the gap");
    }
}

#[test]
fn after_an_hour_of_silence_the_level_is_learned_anew() {
    let mut watch = watch(Metric::CpuUsed);
    run(&mut watch, around(10.0, 3000));
    let seen: Vec<_> =
        around(95.0, 600).enumerate().filter_map(|(s, v)| watch.observe(at(9000 + s), v)).collect();
    assert_eq!(seen, []);
}

#[test]
fn a_series_that_stops_closes_its_anomaly_once_with_or_without_being_asked() {
    for asked in [true, false] {
        let mut watch = watch(Metric::CpuUsed);
        let opened = run(&mut watch, around(10.0, 600).chain(around(95.0, 60)));
        assert_eq!(opened.len(), 1);
        assert_eq!(watch.silence(at(800)), None, "five minutes are not over");
        if asked {
            assert!(matches!(watch.silence(at(960)), Some(Transition::Closed(_))));
            assert_eq!(watch.silence(at(970)), None);
        }
        let back = watch.observe(at(1000), 10.0);
        assert_eq!(matches!(back, Some(Transition::Closed(_))), !asked);
        assert!(watch.open().is_none());
    }
}

#[test]
fn a_clock_set_back_by_a_year_neither_keeps_open_nor_mutes() {
    let mut watch = watch(Metric::CpuUsed);
    let known = run(&mut watch, around(10.0, 600).chain(around(95.0, 60)));
    assert_eq!(known.len(), 1);
    let earlier = |s: usize| Timestamp::from_millis(at(s).as_millis() - 365 * 86_400_000);
    let values = around(10.0, 600).chain(around(95.0, 60));
    let seen: Vec<_> = values.enumerate().filter_map(|(s, v)| watch.observe(earlier(s), v)).collect();
    assert!(matches!(&seen[..], [Transition::Closed(_), Transition::Opened(_)]), "{seen:?}");
}

/// The worst series: after three calm hours, every five minutes it does twice what it has ever done.
#[test]
fn no_series_can_open_more_than_about_a_dozen_anomalies_a_day() {
    let opened = |hold_off_s| {
        let config = WatchConfig { hold_off_s, ..WatchConfig::default() };
        let mut watch = SeriesWatch::new(Metric::GuestMem, Duration::from_secs(1), config);
        let pulses = (0..5 * 3600).map(|s| if s % 300 < 60 { 2e9 * 2_f64.powi(s / 300) } else { 1e9 });
        spans(&run(&mut watch, std::iter::repeat_n(1e9, 3 * 3600).chain(pulses))).len()
    };
    let (bounded, unbounded) = (opened(WatchConfig::default().hold_off_s), opened(0));
    println!("{bounded} openings, {unbounded} without hold-off");
    assert!((2..=9).contains(&bounded) && unbounded > 30, "{bounded} {unbounded}");
}

#[test]
fn state_fits_the_budget() {
    let mut watch = watch(Metric::DiskWrite);
    run(&mut watch, (0..100_000).map(|s| ((s * 7919) % 1_000_003) as f64));
    println!("{} bytes a series", watch.bytes());
    assert!(watch.bytes() <= 2560, "{}", watch.bytes());
}
