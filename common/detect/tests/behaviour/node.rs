//! The node detector as a caller sees it: whatever comes in, sane verdicts come out, and the right ones.

use std::time::Duration;

use evenkeel_common::time::Timestamp;
use evenkeel_detect::{NodeConfig, NodeDetector, NodeScore};
use proptest::prelude::*;

const CHANNELS: usize = 8;
/// Steps of ten minutes.
const STEP_S: usize = 600;
const DAY: usize = 86_400 / STEP_S;

fn at(step: usize) -> Timestamp {
    Timestamp::from_millis((step * STEP_S * 1000) as i64)
}

fn detector(channels: usize) -> NodeDetector {
    NodeDetector::new(channels, Duration::from_secs(STEP_S as u64), NodeConfig::default())
}

/// Noise around a level that swings with the hour: reproducible, within +-1 of its day.
fn usual(step: usize, channel: usize) -> f64 {
    let mut hash = (step as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ (channel as u64 + 1).wrapping_mul(0xD1B5_4A32_D192_ED03);
    for _ in 0..2 {
        hash ^= hash >> 29;
        hash = hash.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    }
    let noise = (hash >> 11) as f64 / (1_u64 << 52) as f64 - 1.0;
    let hour = (step % DAY) as f64 / DAY as f64 * std::f64::consts::TAU;
    200.0 + 5.0 * hour.sin() + noise
}

fn row(step: usize) -> Vec<f64> {
    (0..CHANNELS).map(|channel| usual(step, channel)).collect()
}

/// A detector that knows three weeks.
fn taught(scale: impl Fn(usize, f64) -> f64) -> NodeDetector {
    let mut node = detector(CHANNELS);
    for step in 0..21 * DAY {
        let row: Vec<f64> = row(step).into_iter().enumerate().map(|(c, v)| scale(c, v)).collect();
        node.train(at(step), &row);
    }
    node
}

fn sane(verdict: &NodeScore) -> bool {
    let share = |value: f64| (0.0..=1.0).contains(&value);
    share(verdict.score)
        && share(verdict.confidence)
        && share(verdict.anomaly_rate)
        && verdict.is_anomaly == (verdict.score >= 0.5)
        && verdict.causes.iter().all(|(_, z)| z.is_finite())
        && verdict.causes.windows(2).all(|pair| pair[0].1.abs() >= pair[1].1.abs())
}

#[test]
fn a_jump_of_one_channel_is_an_anomaly_that_names_it_first() {
    for channel in [0, 5] {
        for sign in [1.0, -1.0] {
            let mut node = taught(|_, v| v);
            let start = 21 * DAY;
            let calm = node.observe(at(start), &row(start)).unwrap();
            let mut jumped = row(start + 1);
            jumped[channel] += 40.0 * sign;
            let verdict = node.observe(at(start + 1), &jumped).unwrap();
            assert!(!calm.is_anomaly && verdict.is_anomaly, "{calm:?} {verdict:?}");
            assert_eq!(verdict.causes[0].0, channel);
            assert!(verdict.causes[0].1 * sign > 5.0);
            assert!(verdict.score > calm.score && verdict.confidence > calm.confidence);
        }
    }
}

#[test]
fn the_swing_of_the_day_is_no_anomaly_and_its_absence_is() {
    let mut node = taught(|_, v| v);
    let days = 21 * DAY..24 * DAY;
    let alarms = days.filter(|&step| node.observe(at(step), &row(step)).unwrap().is_anomaly).count();
    assert_eq!(alarms, 0);
    // Noon's values at midnight.
    let moved =
        (24 * DAY..25 * DAY).filter(|&step| node.observe(at(step), &row(step + DAY / 2)).unwrap().is_anomaly);
    assert!(moved.count() > DAY / 4);
}

#[test]
fn a_new_level_is_news_for_a_while_and_then_accepted() {
    let mut node = taught(|_, v| v);
    let anomalous = |node: &mut NodeDetector, day: usize| {
        let steps = day * DAY..(day + 1) * DAY;
        let shifted = |step| row(step).into_iter().map(|v| v + 30.0).collect::<Vec<_>>();
        steps.filter(|&step| node.observe(at(step), &shifted(step)).unwrap().is_anomaly).count()
    };
    let days: Vec<usize> = (21..45).map(|day| anomalous(&mut node, day)).collect();
    assert!(days[0] > DAY / 4, "{days:?}");
    assert_eq!(days[20..].iter().sum::<usize>(), 0, "{days:?}");
}

#[test]
fn the_unit_of_a_channel_changes_little() {
    let mut plain = taught(|_, v| v);
    let scale = |c: usize, v: f64| v * 10f64.powi(c as i32 - 3) + 1e3 * 10f64.powi(c as i32 - 3);
    let mut scaled = taught(scale);
    for step in 21 * DAY..22 * DAY {
        let mut row = row(step);
        row[3] += if step % 50 == 0 { 20.0 } else { 0.0 };
        let other: Vec<f64> = row.iter().enumerate().map(|(c, &v)| scale(c, v)).collect();
        let (a, b) = (plain.observe(at(step), &row).unwrap(), scaled.observe(at(step), &other).unwrap());
        assert!((a.score - b.score).abs() < 0.01, "{step}: {} {}", a.score, b.score);
    }
}

#[test]
fn constant_channels_are_silent_and_their_first_move_is_bounded() {
    let mut node = detector(3);
    (0..7 * DAY).for_each(|step| node.train(at(step), &[0.0, 1e12, -3.5]));
    let quiet = node.observe(at(7 * DAY), &[0.0, 1e12, -3.5]).unwrap();
    assert!(!quiet.is_anomaly && quiet.causes.iter().all(|(_, z)| *z == 0.0), "{quiet:?}");
    let moved = node.observe(at(7 * DAY + 1), &[0.0, 1e12, -2.0]).unwrap();
    assert_eq!(moved.causes[0].0, 2);
    assert!((1.0..=40.0).contains(&moved.causes[0].1), "{moved:?}");
    assert!(moved.score > quiet.score);
}

#[test]
fn absent_channels_are_not_judged_and_added_ones_warm_up_alone() {
    let mut node = taught(|_, v| v);
    let start = 21 * DAY;
    for step in start..start + 20 {
        let mut gap = row(step);
        gap[2] = f64::NAN;
        let verdict = node.observe(at(step), &gap[..6]).unwrap();
        assert!(!verdict.is_anomaly && sane(&verdict));
    }
    assert_eq!(node.observe(at(start + 20), &[]), None);
    // A night later, as after a restart: levels of before tell nothing of what is normal now.
    let start = start + DAY / 2;
    node.resize(CHANNELS + 1);
    for step in start + 21..start + 221 {
        let mut wide = row(step);
        wide.push(if step % 2 == 0 { 1e9 } else { -1e9 });
        assert!(!node.observe(at(step), &wide).unwrap().is_anomaly, "{step}");
    }
}

#[test]
fn without_training_it_warms_up_by_itself() {
    let mut node = detector(CHANNELS);
    let verdicts: Vec<_> = (0..10 * DAY).map(|step| node.observe(at(step), &row(step))).collect();
    let warm_up = NodeConfig::default().warm_up_steps as usize;
    assert!(verdicts[..warm_up].iter().all(Option::is_none));
    assert!(verdicts[3 * warm_up..].iter().all(Option::is_some));
    let alarms = verdicts.iter().flatten().filter(|verdict| verdict.is_anomaly).count();
    assert!(alarms <= 5, "{alarms}");
    let mut jumped = row(10 * DAY);
    jumped.iter_mut().for_each(|value| *value += 50.0);
    assert!(node.observe(at(10 * DAY), &jumped).unwrap().is_anomaly);
}

#[test]
fn large_nodes_stay_within_their_size() {
    let mut node = detector(500);
    for step in 0..3 * DAY {
        let row: Vec<f64> = (0..500).map(|channel| usual(step, channel)).collect();
        node.train(at(step), &row);
    }
    assert!(node.bytes() / 500 <= 1100, "{}", node.bytes() / 500);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any numbers at any time: no panic, no verdict that is no number, the same again from the same stream, and
    /// a restart in the middle changes nothing.
    #[test]
    fn any_input_gives_sane_repeatable_verdicts(
        rows in prop::collection::vec(
            (any::<i64>(), prop::collection::vec(prop_oneof![any::<f64>(), -10.0..10.0, Just(0.0)], 0..5)), 0..200),
        cut in 0_usize..200,
    ) {
        let config = NodeConfig { warm_up_steps: 30, ..NodeConfig::default() };
        let mut node = NodeDetector::new(4, Duration::from_secs(60), config);
        let mut other = node.clone();
        for (i, (ms, row)) in rows.iter().enumerate() {
            if i == cut {
                let stored = postcard::to_allocvec(&other).unwrap();
                other = postcard::from_bytes(&stored).unwrap();
            }
            let verdict = node.observe(Timestamp::from_millis(*ms), row);
            prop_assert!(verdict.as_ref().is_none_or(sane), "{:?}", verdict);
            prop_assert_eq!(&verdict, &other.observe(Timestamp::from_millis(*ms), row));
        }
    }
}
