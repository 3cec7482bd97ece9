//! One LSTM layer: forward over one step, and back.
//!
//! Hochreiter and Schmidhuber 1997, with the forget gate of Gers, Schmidhuber, Cummins 2000:
//!
//! `[i f g o] = W [x h 1]`, `c' = sigmoid(f) c + sigmoid(i) tanh(g)`, `h' = sigmoid(o) tanh(c')`.
//!
//! Weights lie as one row of `4 * hidden` per input, so that both the product and the gradient run along rows,
//! which the compiler turns into vector instructions.

/// What a step left behind for the way back.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace {
    /// Inputs: `[x h 1]` before the step.
    input: Vec<f32>,
    /// Gates after their nonlinearities.
    gates: Vec<f32>,
    /// Cell state before the step, and `tanh` of the one after.
    before: Vec<f32>,
    squashed: Vec<f32>,
}

/// Hidden and cell state.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    pub(super) hidden: Vec<f32>,
    pub(super) cell: Vec<f32>,
}

impl State {
    pub(super) fn zero(hidden: usize) -> Self {
        Self { hidden: vec![0.0; hidden], cell: vec![0.0; hidden] }
    }
}

/// Number of weights of a layer.
pub(super) const fn weights(inputs: usize, hidden: usize) -> usize {
    (inputs + hidden + 1) * 4 * hidden
}

/// Advances `state` by one step with input `x`, keeping in `trace` what [`backward`] needs.
pub(super) fn forward(weights: &[f32], x: &[f32], state: &mut State, trace: &mut Trace) {
    let hidden = state.hidden.len();
    trace.input.clear();
    trace.input.extend_from_slice(x);
    trace.input.extend_from_slice(&state.hidden);
    trace.input.push(1.0);
    trace.gates.clear();
    trace.gates.resize(4 * hidden, 0.0);
    for (row, &input) in weights.chunks_exact(4 * hidden).zip(&trace.input) {
        add_scaled(&mut trace.gates, row, input);
    }
    trace.before.clone_from(&state.cell);
    trace.squashed.resize(hidden, 0.0);
    let (input_forget, rest) = trace.gates.split_at_mut(2 * hidden);
    let (candidate, output) = rest.split_at_mut(hidden);
    input_forget.iter_mut().chain(output.iter_mut()).for_each(|gate| *gate = sigmoid(*gate));
    candidate.iter_mut().for_each(|gate| *gate = tanh(*gate));
    let (input, forget) = input_forget.split_at(hidden);
    for (((cell, f), i), g) in state.cell.iter_mut().zip(forget).zip(input).zip(candidate) {
        *cell = f * *cell + i * *g;
    }
    for (squashed, cell) in trace.squashed.iter_mut().zip(&state.cell) {
        *squashed = tanh(*cell);
    }
    for ((hidden, o), squashed) in state.hidden.iter_mut().zip(output).zip(&trace.squashed) {
        *hidden = *o * squashed;
    }
}

/// One step back: `error` holds the loss's gradient of the state after the step and becomes that of the state
/// before it; the gradient of the weights is added to `gradient`, that of the input is written to `of_input`.
pub(super) fn backward(
    weights: &[f32],
    trace: &Trace,
    error: &mut State,
    gradient: &mut [f32],
    of_input: &mut [f32],
) {
    let hidden = error.hidden.len();
    let mut of_gates = vec![0.0; 4 * hidden];
    for j in 0..hidden {
        let [i, f, g, o] = [0, 1, 2, 3].map(|k| trace.gates[k * hidden + j]);
        let squashed = trace.squashed[j];
        let of_cell = error.cell[j] + error.hidden[j] * o * (1.0 - squashed * squashed);
        of_gates[j] = of_cell * g * i * (1.0 - i);
        of_gates[hidden + j] = of_cell * trace.before[j] * f * (1.0 - f);
        of_gates[2 * hidden + j] = of_cell * i * (1.0 - g * g);
        of_gates[3 * hidden + j] = error.hidden[j] * squashed * o * (1.0 - o);
        error.cell[j] = of_cell * f;
    }
    let rows = weights.chunks_exact(4 * hidden).zip(gradient.chunks_exact_mut(4 * hidden));
    for (k, ((row, gradient), &input)) in rows.zip(&trace.input).enumerate() {
        add_scaled(gradient, &of_gates, input);
        if k < of_input.len() {
            of_input[k] = dot(row, &of_gates);
        } else if k < of_input.len() + hidden {
            error.hidden[k - of_input.len()] = dot(row, &of_gates);
        }
    }
}

/// `to += row * factor`.
pub(super) fn add_scaled(to: &mut [f32], row: &[f32], factor: f32) {
    for (to, &w) in to.iter_mut().zip(row) {
        *to += w * factor;
    }
}

/// Sum of products, in eight lanes: a fixed order, and one that vectorises.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a8.remainder().iter().zip(b8.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a8.zip(b8) {
        for (lane, (x, y)) in lanes.iter_mut().zip(x.iter().zip(y)) {
            *lane += x * y;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

fn sigmoid(x: f32) -> f32 {
    0.5 + 0.5 * tanh(0.5 * x)
}

/// Hyperbolic tangent by Lambert's continued fraction, to 1e-4: arithmetic alone, so that it vectorises and is the
/// same on every machine, which the C library's is not.
fn tanh(x: f32) -> f32 {
    let x = x.clamp(-4.97, 4.97);
    let s = x * x;
    x * (135_135.0 + s * (17_325.0 + s * (378.0 + s)))
        / (135_135.0 + s * (62_370.0 + s * (3150.0 + s * 28.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tangent_is_one() {
        for i in -1000..=1000_i16 {
            let x = f32::from(i) / 100.0;
            assert!((tanh(x) - x.tanh()).abs() < 2e-4 && tanh(x).abs() <= 1.0, "{x}");
        }
        assert!(tanh(f32::NAN).is_nan() && tanh(f32::INFINITY) > 0.999);
    }
}
