//! What holds whatever goes in.

use std::time::Duration;

use evenkeel_common::id::Vmid;
use evenkeel_common::sample::Metric;
use evenkeel_common::time::Timestamp;
use evenkeel_detect::config::WatchConfig;
use evenkeel_detect::profile::GuestProfiler;
use evenkeel_detect::watch::{AnomalyState, SeriesWatch, Transition};
use proptest::prelude::*;

/// One thing a series may do.
#[derive(Clone, Debug)]
enum Input {
    /// So many values around a level.
    Level(f64, u16),
    /// One value, whatever it is.
    Value(f64),
    /// Nothing for so many milliseconds; the watch is told the time at the end.
    Silence(u32),
    /// The clock steps.
    Clock(i64),
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        4 => (0.0_f64..100.0, 1_u16..600).prop_map(|(v, n)| Input::Level(v, n)),
        3 => any::<f64>().prop_map(Input::Value),
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(-1e30), Just(1e300), Just(-0.0)]
            .prop_map(Input::Value),
        1 => (0_u32..1_000_000).prop_map(Input::Silence),
        1 => prop_oneof![-100_000_000_i64..100_000_000, Just(i64::MAX), Just(i64::MIN)].prop_map(Input::Clock),
    ]
}

/// A story that starts with a level long enough to be known and then leaves it.
fn story() -> impl Strategy<Value = Vec<Input>> {
    (prop::collection::vec(input(), 0..20), 70_u16..5000).prop_map(|(rest, known)| {
        let mut story = vec![Input::Level(5.0, known), Input::Level(95.0, 40)];
        story.extend(rest);
        story
    })
}

fn metric() -> impl Strategy<Value = Metric> {
    (0..Metric::ALL.len()).prop_map(|i| Metric::ALL[i])
}

/// Plays a story; calls `between` after every input.
fn play(story: &[Input], watch: &mut SeriesWatch, between: impl Fn(&mut SeriesWatch)) -> Vec<Transition> {
    let (mut ms, mut seen) = (1_760_000_000_000_i64, Vec::new());
    for input in story {
        match *input {
            Input::Level(level, count) => {
                for i in 0..count {
                    ms = ms.saturating_add(1000);
                    seen.extend(watch.observe(Timestamp::from_millis(ms), level + f64::from(i % 3)));
                }
            }
            Input::Value(value) => {
                ms = ms.saturating_add(1000);
                seen.extend(watch.observe(Timestamp::from_millis(ms), value));
            }
            Input::Silence(span) => {
                ms = ms.saturating_add(span.into());
                seen.extend(watch.silence(Timestamp::from_millis(ms)));
            }
            Input::Clock(by) => ms = ms.saturating_add(by),
        }
        between(watch);
    }
    seen
}

fn fresh(metric: Metric) -> SeriesWatch {
    SeriesWatch::new(metric, Duration::from_secs(1), WatchConfig::default())
}

fn sound(state: &AnomalyState) -> bool {
    let numbers = [state.value, state.expected, state.deviation];
    let votes = state.votes.iter().all(|v| v.score.is_finite());
    numbers.iter().all(|n| n.is_finite()) && votes && state.votes.len() >= 2
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn numbers_come_out_finite_and_every_opening_is_followed_by_one_closing(
        story in story(), metric in metric(),
    ) {
        let mut watch = fresh(metric);
        let mut open: Option<AnomalyState> = None;
        for transition in play(&story, &mut watch, |_| ()) {
            match transition {
                Transition::Opened(state) => {
                    prop_assert!(open.is_none() && state.closed_at.is_none() && sound(&state), "{state:?}");
                    open = Some(state);
                }
                Transition::Closed(state) => {
                    let opened = open.take();
                    prop_assert!(state.closed_at.is_some() && sound(&state), "{state:?}");
                    prop_assert_eq!(opened.map(|o| o.opened_at), Some(state.opened_at));
                }
            }
        }
        prop_assert_eq!(open.map(|o| o.opened_at), watch.open().map(|o| o.opened_at));
        prop_assert!(watch.bytes() <= 4096, "{}", watch.bytes());
    }

    #[test]
    fn the_same_stream_gives_the_same_output_also_across_restarts(story in story(), metric in metric()) {
        let (mut one, mut other) = (fresh(metric), fresh(metric));
        let plain = play(&story, &mut one, |_| ());
        let restarted = play(&story, &mut other, |watch| {
            let bytes = postcard::to_allocvec(watch).unwrap();
            *watch = postcard::from_bytes(&bytes).unwrap();
        });
        prop_assert_eq!(plain, restarted);
        prop_assert_eq!(one, other);
    }

    #[test]
    fn profiles_merge_in_any_order(
        parts in prop::collection::vec((0_i64..1000, prop::collection::vec((0.0_f64..64.0, 0.0_f64..1e12), 1..40)), 3),
    ) {
        let profilers: Vec<GuestProfiler> = (0..)
            .zip(&parts)
            .map(|(part, (hour, values))| {
                let mut profiler = GuestProfiler::default();
                for (i, (cpu, memory)) in values.iter().enumerate() {
                    // Each begins at a time of its own: with a piece in common nothing would be merged.
                    let ms = (490_000 + hour) * 3_600_000 + i as i64 * 60_000 + part;
                    profiler.observe(Timestamp::from_millis(ms), *cpu, *memory);
                }
                profiler
            })
            .collect();
        let joined = |order: [usize; 3]| {
            let mut all = profilers[order[0]].clone();
            all.merge(&profilers[order[1]]);
            all.merge(&profilers[order[2]]);
            all
        };
        let vmid = Vmid::new(100).unwrap();
        let reference = joined([0, 1, 2]).profile(vmid);
        for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let profile = joined(order).profile(vmid);
            prop_assert_eq!(profile.observed_s, reference.observed_s);
            for (a, b) in [(&profile.cpu, &reference.cpu), (&profile.memory, &reference.memory)] {
                let scale = 1e-4 * (1.0 + b.max.abs());
                prop_assert!((a.min - b.min).abs() <= scale && (a.max - b.max).abs() <= scale);
                prop_assert!((a.mean - b.mean).abs() <= scale && (a.std_dev - b.std_dev).abs() <= scale);
                prop_assert!((a.p95 - b.p95).abs() <= scale && (a.slope_per_hour - b.slope_per_hour).abs() <= scale);
            }
        }
        // And associative: one and the other two joined first.
        let mut pair = profilers[1].clone();
        pair.merge(&profilers[2]);
        let mut nested = profilers[0].clone();
        nested.merge(&pair);
        prop_assert!((nested.profile(vmid).cpu.mean - reference.cpu.mean).abs() < 1e-6);
    }

    #[test]
    fn profiles_stay_finite_and_survive_a_restart(
        values in prop::collection::vec((any::<i64>(), any::<f64>(), any::<f64>()), 0..60),
    ) {
        let mut profiler = GuestProfiler::default();
        for (ms, cpu, memory) in values {
            profiler.observe(Timestamp::from_millis(ms), cpu, memory);
        }
        let back: GuestProfiler = postcard::from_bytes(&postcard::to_allocvec(&profiler).unwrap()).unwrap();
        let profile = back.profile(Vmid::new(100).unwrap());
        prop_assert_eq!(&profile, &profiler.profile(Vmid::new(100).unwrap()));
        for usage in [profile.cpu, profile.memory] {
            let figures = [usage.min, usage.max, usage.mean, usage.std_dev, usage.p95, usage.slope_per_hour];
            prop_assert!(figures.iter().all(|f| f.is_finite()), "{usage:?}");
        }
    }
}
