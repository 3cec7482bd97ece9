//! What holds for any series.

use evenkeel_detect::series::SeriesDetector;
use proptest::prelude::*;

use crate::{at, detector};

/// A value of any kind: usual, huge, tiny, or no number.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => -100.0..100.0_f64,
        1 => Just(5.0),
        2 => any::<f64>(),
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::MAX), Just(f64::MIN), Just(5e-324)],
    ]
}

/// Samples at any distance, now and then backwards.
fn samples() -> impl Strategy<Value = Vec<(i64, f64)>> {
    let distance = prop_oneof![8 => Just(300), 1 => 0..100_000_i64, 1 => -90_000..0_i64];
    prop::collection::vec((distance, value()), 1..1500)
}

/// The scores as text: `{:?}` of a float is exact, and NaN equals itself.
fn play(detector: &mut SeriesDetector, samples: &[(i64, f64)], second: &mut i64) -> Vec<String> {
    let mut told = Vec::new();
    for &(distance, value) in samples {
        *second += distance;
        told.push(format!("{:?}", detector.observe(at((*second).max(0) as usize), value)));
    }
    told
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_but_finite_numbers_comes_out(samples in samples()) {
        let mut detector = detector(300);
        let mut second = 1_000_000;
        for &(distance, value) in &samples {
            second += distance;
            if let Some(score) = detector.observe(at(second.max(0) as usize), value) {
                prop_assert!(value.is_finite());
                prop_assert!((0.0..=1.0).contains(&score.score), "{score:?}");
                prop_assert!(score.expected.is_finite() && score.deviation.is_finite(), "{score:?}");
                prop_assert_eq!(score.is_anomaly, score.score >= 0.5);
            }
        }
        prop_assert!(detector.bytes() <= 1945);
    }

    #[test]
    fn the_same_stream_gives_the_same_scores_and_a_restart_is_invisible(samples in samples(), cut in 0.0..1.0_f64) {
        let (mut whole, mut first) = (detector(300), detector(300));
        let (mut one, mut two) = (1_000_000, 1_000_000);
        let cut = (cut * samples.len() as f64) as usize;
        let expected = play(&mut whole, &samples, &mut one);
        let mut told = play(&mut first, &samples[..cut], &mut two);
        let mut second: SeriesDetector = postcard::from_bytes(&postcard::to_allocvec(&first).unwrap()).unwrap();
        told.extend(play(&mut second, &samples[cut..], &mut two));
        prop_assert_eq!(expected, told);
    }
}
