//! Behaviour of the autoencoder as a whole; the gradient is tested beside the network.

use std::sync::OnceLock;

use super::*;
use proptest::prelude::*;

fn wave(n: usize) -> Vec<Vec<f64>> {
    let angle = |i: usize| i as f64 * std::f64::consts::TAU / 24.0;
    (0..n).map(|i| vec![50.0 + 20.0 * angle(i).sin(), 10.0 + 3.0 * angle(i).cos()]).collect()
}

fn small() -> LstmConfig {
    LstmConfig { steps: 12, hidden: 8, latent: 3, windows: 300, epochs: 20, ..LstmConfig::default() }
}

fn trained(rows: &[Vec<f64>]) -> LstmAutoencoder {
    let starts: Vec<usize> = (0..rows.len() - 12).collect();
    LstmAutoencoder::train(rows, &starts, &[0.1, 0.1], &small(), 1, &mut |_| true).unwrap()
}

#[test]
fn learns_a_course_and_points_at_what_leaves_it() {
    let rows = wave(600);
    let model = trained(&rows);
    let normal = model.errors(&rows[100..112]).unwrap();
    let mut broken = rows[100..112].to_vec();
    broken[11][1] = 25.0;
    let strange = model.errors(&broken).unwrap();
    assert!(normal[0] < 0.4 && normal[1] < 0.4, "{normal:?}");
    assert!(strange[1] > 5.0 * normal[1] && strange[1] > 2.0 * strange[0], "{normal:?} {strange:?}");
}

#[test]
fn training_is_repeatable_reports_and_can_be_stopped() {
    let rows = wave(200);
    let starts: Vec<usize> = (0..180).collect();
    let mut losses = Vec::new();
    let mut run = |seed| {
        let mut note = |p: Progress| {
            losses.push(p.loss);
            true
        };
        LstmAutoencoder::train(&rows, &starts, &[0.1, 0.1], &small(), seed, &mut note).unwrap()
    };
    let (a, b, c) = (run(1), run(1), run(2));
    assert_eq!(a, b);
    assert_ne!(a, c);
    assert!(losses.len() == 60 && losses[19] < 0.5 * losses[0], "{losses:?}");
    let mut rounds = 0;
    let mut stop = |p: Progress| {
        rounds = p.epoch;
        p.epoch < 3
    };
    let stopped = LstmAutoencoder::train(&rows, &starts, &[0.1, 0.1], &small(), 1, &mut stop);
    assert_eq!((stopped, rounds), (Err(TrainFailure::Cancelled), 3));
}

#[test]
fn unusable_rows_and_windows_are_refused() {
    let rows = wave(5);
    let train = |rows: &[Vec<f64>], starts: &[usize]| {
        LstmAutoencoder::train(rows, starts, &[0.1, 0.1], &small(), 1, &mut |_| true)
    };
    assert_eq!(train(&rows, &[0]), Err(TrainFailure::NoWindow));
    assert_eq!(train(&[vec![1.0], vec![2.0]], &[0]), Err(TrainFailure::NoWindow));
    let model = trained(&wave(100));
    assert_eq!(model.errors(&wave(11)), None);
    assert_eq!(model.errors(&vec![vec![f64::NAN; 2]; 12]), None);
    assert!(model.is_sound());
}

proptest! {
    #[test]
    fn errors_are_finite_whatever_comes_in(
        values in prop::collection::vec(prop::num::f64::ANY, 24),
    ) {
        static MODEL: OnceLock<LstmAutoencoder> = OnceLock::new();
        let model = MODEL.get_or_init(|| {
            let mut rows = wave(60);
            rows[7][0] = f64::NAN;
            trained(&rows)
        });
        let window: Vec<Vec<f64>> = values.chunks(2).map(<[f64]>::to_vec).collect();
        if let Some(errors) = model.errors(&window) {
            prop_assert!(errors.iter().all(|e| e.is_finite() && *e >= 0.0));
        }
    }
}
