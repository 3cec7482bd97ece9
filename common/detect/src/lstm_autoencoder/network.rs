//! The network: an encoder LSTM reads a window, a linear layer squeezes its last state, a decoder LSTM rebuilds
//! the window from that alone, newest step first.
//!
//! Malhotra et al. 2016, "LSTM-based encoder-decoder for multi-sensor anomaly detection"; rebuilding in reverse
//! order is from Sutskever, Vinyals, Le 2014. All weights lie in one vector, so that clipping, Adam, and storing
//! are each one loop. Values in and out are standardised; NaN = missing: it enters as 0 and carries no loss.

use serde::{Deserialize, Serialize};

use super::cell::{self, State, Trace, add_scaled, dot};
use crate::chance::Chance;

/// Sizes of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Values of a step.
    pub inputs: u16,
    /// Cells of encoder and decoder each.
    pub hidden: u16,
    /// Numbers between them.
    pub latent: u16,
    /// Steps of a window.
    pub steps: u16,
}

impl Shape {
    /// Whether a network of these sizes is one this code would make: bounds memory before anything is allocated.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        (1..=64).contains(&self.inputs)
            && (1..=128).contains(&self.hidden)
            && (1..=64).contains(&self.latent)
            && (2..=512).contains(&self.steps)
    }

    fn sizes(&self) -> [usize; 3] {
        [self.inputs, self.hidden, self.latent].map(usize::from)
    }

    /// Lengths of the four groups of weights: encoder, to the latent layer, decoder, to the output.
    fn groups(&self) -> [usize; 4] {
        let [inputs, hidden, latent] = self.sizes();
        [
            cell::weights(inputs, hidden),
            (hidden + 1) * latent,
            cell::weights(latent, hidden),
            (hidden + 1) * inputs,
        ]
    }

    /// Number of weights.
    #[must_use]
    pub fn weights(&self) -> usize {
        self.groups().iter().sum()
    }

    /// Values of a window.
    #[must_use]
    pub fn window(&self) -> usize {
        usize::from(self.steps) * usize::from(self.inputs)
    }
}

/// Sizes and weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Network {
    pub(super) shape: Shape,
    pub(super) weights: Vec<f32>,
}

/// Room for one pass, kept between passes.
#[derive(Clone, Debug, Default)]
pub(super) struct Scratch {
    encoder: Vec<Trace>,
    decoder: Vec<Trace>,
    code: Vec<f32>,
    last: Vec<f32>,
    hidden: Vec<Vec<f32>>,
    /// The window rebuilt, in order of time.
    pub(super) rebuilt: Vec<f32>,
}

impl Network {
    /// Uniform initial weights within `1 / sqrt(fan in)`; the forget gates start open (Jozefowicz et al. 2015).
    pub(super) fn new(shape: Shape, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let [inputs, hidden, latent] = shape.sizes();
        let fans = [inputs + hidden, hidden, latent + hidden, hidden];
        let mut weights = Vec::with_capacity(shape.weights());
        for (count, fan) in shape.groups().into_iter().zip(fans) {
            let width = 1.0 / (fan as f64).sqrt();
            weights.extend((0..count).map(|_| ((chance.unit() * 2.0 - 1.0) * width) as f32));
        }
        let mut end = 0;
        for (group, count) in shape.groups().into_iter().enumerate() {
            end += count;
            if group % 2 == 0 {
                let bias = end - 4 * hidden;
                weights[bias + hidden..bias + 2 * hidden].fill(1.0);
            }
        }
        Self { shape, weights }
    }

    pub(super) fn is_sound(&self) -> bool {
        self.shape.is_sound()
            && self.weights.len() == self.shape.weights()
            && self.weights.iter().all(|w| w.is_finite())
    }

    fn split(&self) -> [&[f32]; 4] {
        let [a, b, c, _] = self.shape.groups();
        let (encoder, rest) = self.weights.split_at(a);
        let (to_code, rest) = rest.split_at(b);
        let (decoder, output) = rest.split_at(c);
        [encoder, to_code, decoder, output]
    }

    /// Rebuilds a window (`steps` rows of `inputs` values, oldest first) into `scratch.rebuilt`.
    pub(super) fn forward(&self, window: &[f32], scratch: &mut Scratch) {
        let [inputs, hidden, latent] = self.shape.sizes();
        let steps = usize::from(self.shape.steps);
        let [encoder, to_code, decoder, output] = self.split();
        scratch.encoder.resize_with(steps, Trace::default);
        scratch.decoder.resize_with(steps, Trace::default);
        scratch.hidden.resize_with(steps, Vec::new);
        scratch.rebuilt.resize(window.len(), 0.0);
        let mut state = State::zero(hidden);
        let mut x = vec![0.0; inputs];
        for (values, trace) in window.chunks_exact(inputs).zip(&mut scratch.encoder) {
            for (x, &v) in x.iter_mut().zip(values) {
                *x = if v.is_finite() { v } else { 0.0 };
            }
            cell::forward(encoder, &x, &mut state, trace);
        }
        scratch.last.clone_from(&state.hidden);
        scratch.code.clear();
        for row in to_code.chunks_exact(hidden + 1).take(latent) {
            scratch.code.push(dot(&row[..hidden], &state.hidden) + row[hidden]);
        }
        let mut state = State::zero(hidden);
        for back in 0..steps {
            cell::forward(decoder, &scratch.code, &mut state, &mut scratch.decoder[back]);
            scratch.hidden[back].clone_from(&state.hidden);
            let at = (steps - 1 - back) * inputs;
            for (out, row) in scratch.rebuilt[at..at + inputs].iter_mut().zip(output.chunks_exact(hidden + 1))
            {
                *out = dot(&row[..hidden], &state.hidden) + row[hidden];
            }
        }
    }

    /// Adds the gradient of the window's loss to `gradient` and returns the loss: the mean squared error of the
    /// values that are known.
    pub(super) fn learn(&self, window: &[f32], scratch: &mut Scratch, gradient: &mut [f32]) -> f32 {
        self.forward(window, scratch);
        let known = window.iter().filter(|v| v.is_finite()).count().max(1) as f32;
        let errors: Vec<f32> = window
            .iter()
            .zip(&scratch.rebuilt)
            .map(|(&v, &r)| if v.is_finite() { r - v } else { 0.0 })
            .collect();
        let [a, b, c, _] = self.shape.groups();
        let (of_encoder, rest) = gradient.split_at_mut(a);
        let (of_code_layer, rest) = rest.split_at_mut(b);
        let (of_decoder, of_output) = rest.split_at_mut(c);
        let [inputs, hidden, latent] = self.shape.sizes();
        let steps = usize::from(self.shape.steps);
        let [encoder, to_code, decoder, output] = self.split();

        let mut error = State::zero(hidden);
        let (mut of_code, mut of_input) = (vec![0.0; latent], vec![0.0; latent]);
        for back in (0..steps).rev() {
            let at = (steps - 1 - back) * inputs;
            let state = &scratch.hidden[back];
            for (i, &e) in errors[at..at + inputs].iter().enumerate() {
                let slope = 2.0 * e / known;
                let row = i * (hidden + 1)..(i + 1) * (hidden + 1);
                add_scaled(&mut error.hidden, &output[row.clone()], slope);
                let of_row = &mut of_output[row];
                add_scaled(of_row, state, slope);
                of_row[hidden] += slope;
            }
            cell::backward(decoder, &scratch.decoder[back], &mut error, of_decoder, &mut of_input);
            add_scaled(&mut of_code, &of_input, 1.0);
        }
        let mut error = State::zero(hidden);
        for (i, &slope) in of_code.iter().enumerate() {
            let row = i * (hidden + 1)..(i + 1) * (hidden + 1);
            add_scaled(&mut error.hidden, &to_code[row.clone()], slope);
            let of_row = &mut of_code_layer[row];
            add_scaled(of_row, &scratch.last, slope);
            of_row[hidden] += slope;
        }
        let mut of_input = vec![0.0; inputs];
        for trace in scratch.encoder.iter().rev() {
            cell::backward(encoder, trace, &mut error, of_encoder, &mut of_input);
        }
        errors.iter().map(|e| e * e).sum::<f32>() / known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The gradient against finite differences: the test that makes hand-written backpropagation trustworthy.
    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let shape = Shape { inputs: 3, hidden: 5, latent: 2, steps: 6 };
        let mut network = Network::new(shape, 4);
        let mut chance = Chance::new(8);
        let mut window: Vec<f32> = (0..shape.window()).map(|_| chance.unit() as f32 * 2.0 - 1.0).collect();
        window[4] = f32::NAN;
        let mut scratch = Scratch::default();
        let mut gradient = vec![0.0; shape.weights()];
        network.learn(&window, &mut scratch, &mut gradient);
        let mut unused = vec![0.0; shape.weights()];
        let largest = gradient.iter().fold(0.0_f32, |m, g| m.max(g.abs()));
        for (i, &expected) in gradient.iter().enumerate() {
            let kept = network.weights[i];
            let mut at = |w: f32| {
                network.weights[i] = w;
                f64::from(network.learn(&window, &mut scratch, &mut unused))
            };
            let step = 1e-2;
            let slope = ((at(kept + step) - at(kept - step)) / f64::from(2.0 * step)) as f32;
            network.weights[i] = kept;
            let off = (slope - expected).abs();
            assert!(off < 2e-2 * expected.abs() + 2e-3 * largest, "{i}: {slope} and {}", expected);
        }
        assert!(largest > 1e-2, "a gradient of nothing proves nothing");
    }

    #[test]
    fn shapes_out_of_bounds_are_refused_before_they_are_made() {
        let good = Shape { inputs: 7, hidden: 24, latent: 6, steps: 30 };
        assert!(good.is_sound() && Network::new(good, 1).is_sound());
        for bad in [
            Shape { hidden: 0, ..good },
            Shape { hidden: 60_000, ..good },
            Shape { steps: 1, ..good },
            Shape { inputs: 65, ..good },
        ] {
            assert!(!bad.is_sound());
        }
        let mut short = Network::new(good, 1);
        short.weights.pop();
        assert!(!short.is_sound());
    }
}
