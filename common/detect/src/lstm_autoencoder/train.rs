//! Training: mini-batches of windows, gradient clipping, Adam.
//!
//! Kingma and Ba 2015 (Adam); Pascanu, Mikolov, Bengio 2013 (clipping by norm). The cost is bounded by the
//! configuration alone, `windows * epochs` passes, however long the history is.

use super::network::{Network, Scratch, Shape};
use super::{LstmConfig, Progress};
use crate::chance::Chance;

/// Largest norm of a batch's gradient.
const CLIP: f32 = 1.0;
const BATCH: usize = 16;
/// Part of the learning rate that is left in the last epoch.
const LAST_RATE: f32 = 0.1;

/// Adam's memory.
struct Adam {
    mean: Vec<f32>,
    square: Vec<f32>,
    steps: i32,
}

impl Adam {
    fn new(weights: usize) -> Self {
        Self { mean: vec![0.0; weights], square: vec![0.0; weights], steps: 0 }
    }

    fn step(&mut self, weights: &mut [f32], gradient: &[f32], rate: f32) {
        const BETA1: f32 = 0.9;
        const BETA2: f32 = 0.999;
        self.steps += 1;
        let (bias1, bias2) = (1.0 - BETA1.powi(self.steps), 1.0 - BETA2.powi(self.steps));
        let memory = self.mean.iter_mut().zip(&mut self.square);
        for ((w, &g), (m, s)) in weights.iter_mut().zip(gradient).zip(memory) {
            *m = BETA1 * *m + (1.0 - BETA1) * g;
            *s = BETA2 * *s + (1.0 - BETA2) * g * g;
            *w -= rate * (*m / bias1) / ((*s / bias2).sqrt() + 1e-8);
        }
    }
}

/// Trains a network on windows that start at `starts` in `rows` (standardised). `None` when `progress` said to
/// stop. `starts` must not be empty.
pub(super) fn train(
    shape: Shape,
    rows: &[f32],
    starts: &[usize],
    config: &LstmConfig,
    seed: u64,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Option<Network> {
    let mut network = Network::new(shape, seed);
    let mut chance = Chance::new(seed ^ 0x5eed);
    let mut adam = Adam::new(network.weights.len());
    let mut gradient = vec![0.0; network.weights.len()];
    let mut scratch = Scratch::default();
    let epochs = config.epochs.max(1);
    for epoch in 0..epochs {
        let order = chance.sample(starts.len(), usize::from(config.windows).max(1));
        let rate = config.learning_rate as f32
            * (1.0 - (1.0 - LAST_RATE) * f32::from(epoch) / f32::from(epochs.max(2) - 1));
        let mut loss = 0.0;
        for batch in order.chunks(BATCH) {
            gradient.fill(0.0);
            for &i in batch {
                let from = starts[i] * usize::from(shape.inputs);
                let Some(window) = rows.get(from..from + shape.window()) else { continue };
                loss += f64::from(network.learn(window, &mut scratch, &mut gradient));
            }
            clip(&mut gradient, batch.len());
            adam.step(&mut network.weights, &gradient, rate);
        }
        let done = Progress { epoch: epoch + 1, epochs, loss: loss / order.len().max(1) as f64 };
        if !progress(done) {
            return None;
        }
    }
    network.is_sound().then_some(network)
}

/// Makes the sum of a batch its mean, no longer than [`CLIP`].
fn clip(gradient: &mut [f32], batch: usize) {
    let share = 1.0 / batch.max(1) as f32;
    let norm = gradient.iter().map(|g| g * g).sum::<f32>().sqrt() * share;
    let factor = if norm.is_finite() { share * (CLIP / norm.max(CLIP)) } else { 0.0 };
    for g in gradient {
        *g = if factor > 0.0 { *g * factor } else { 0.0 };
    }
}
