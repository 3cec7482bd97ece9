//! LSTM autoencoder: what a network that has learned the normal course of a node can not rebuild is not normal.
//!
//! Malhotra et al. 2016 (arXiv 1607.00148). Windows of the last steps, standardised, go through a narrow code
//! and back ([`network`](self)); the error of the newest steps is the statistic, and the tail of the errors on days
//! that were not learned from turns it into a probability ([`crate::tail`]).
//!
//! Written by hand: 10,000 weights need no framework. `f32`, seeded, one thread, cost bounded by [`LstmConfig`].

mod cell;
mod network;
mod train;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use network::Shape;
use network::{Network, Scratch};

/// Largest standardised value that enters: beyond, a value is simply "far out".
const FAR: f32 = 10.0;

/// Options of the LSTM autoencoder.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LstmConfig {
    /// Steps in a window; a step is the interval of the training data, a minute as a rule.
    #[schemars(range(min = 5, max = 120))]
    pub steps: u16,
    /// Memory cells of the encoder and of the decoder. Cost grows with the square.
    #[schemars(range(min = 4, max = 64))]
    pub hidden: u16,
    /// Numbers through which a window must pass. Too many, and it learns to copy anomalies as well.
    #[schemars(range(min = 1, max = 32))]
    pub latent: u16,
    /// Newest steps whose error counts; more are steadier and later.
    #[schemars(range(min = 1, max = 120))]
    pub judged_steps: u16,
    /// Windows drawn from the history for each round of training.
    #[schemars(range(min = 64, max = 20000))]
    pub windows: u16,
    /// Rounds of training. `windows * epochs` is the whole cost, whatever the length of the history: 24,000
    /// windows at the defaults, some seconds of one core.
    #[schemars(range(min = 1, max = 200))]
    pub epochs: u16,
    /// Step size of the optimiser at the start; a tenth of it at the end.
    #[schemars(range(min = 0.0001, max = 0.1))]
    pub learning_rate: f64,
}

impl Default for LstmConfig {
    fn default() -> Self {
        Self {
            steps: 30,
            hidden: 24,
            latent: 6,
            judged_steps: 3,
            windows: 1500,
            epochs: 16,
            learning_rate: 0.005,
        }
    }
}

/// How far a training is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Rounds done, from 1.
    pub epoch: u16,
    /// Rounds in all.
    pub epochs: u16,
    /// Mean squared error of the round, in variances: 1 = nothing learned, 0 = perfect.
    pub loss: f64,
}

/// A trained autoencoder, with the standardisation it was trained under.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LstmAutoencoder {
    network: Network,
    means: Vec<f32>,
    deviations: Vec<f32>,
    judged_steps: u16,
}

/// Why there is no autoencoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrainFailure {
    /// No stretch of rows is as long as a window, or the rows or options are not usable.
    NoWindow,
    /// The caller cancelled.
    Cancelled,
}

impl LstmAutoencoder {
    /// Learns from `rows`, row after row at one interval (NaN = missing, a whole row of it = a gap).
    ///
    /// `starts`: rows at which a window may begin. `floors`: smallest deviation per value. `progress` is called
    /// after every round and stops the training by returning `false`.
    ///
    /// # Errors
    /// See [`TrainFailure`].
    pub fn train(
        rows: &[Vec<f64>],
        starts: &[usize],
        floors: &[f64],
        config: &LstmConfig,
        seed: u64,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Self, TrainFailure> {
        let inputs = floors.len();
        let shape = Shape {
            inputs: u16::try_from(inputs).unwrap_or(u16::MAX),
            hidden: config.hidden,
            latent: config.latent,
            steps: config.steps,
        };
        let starts: Vec<usize> =
            starts.iter().copied().filter(|&s| s + usize::from(shape.steps) <= rows.len()).collect();
        if !shape.is_sound() || starts.is_empty() || rows.iter().any(|row| row.len() != inputs) {
            return Err(TrainFailure::NoWindow);
        }
        let (means, deviations) = standards(rows, floors);
        let flat: Vec<f32> =
            rows.iter().flat_map(|row| standardised(row, &means, &deviations).collect::<Vec<_>>()).collect();
        let network =
            train::train(shape, &flat, &starts, config, seed, progress).ok_or(TrainFailure::Cancelled)?;
        Ok(Self { network, means, deviations, judged_steps: config.judged_steps.clamp(1, config.steps) })
    }

    /// Steps of a window.
    #[must_use]
    pub fn steps(&self) -> usize {
        usize::from(self.network.shape.steps)
    }

    /// Root mean squared error, in deviations, of each value over the newest steps of a window (oldest row
    /// first); `None` for a window of another shape or of which the newest steps are unknown. Values that are
    /// missing throughout have an error of 0.
    #[must_use]
    pub fn errors(&self, window: &[Vec<f64>]) -> Option<Vec<f64>> {
        let inputs = self.means.len();
        if window.len() != self.steps() || window.iter().any(|row| row.len() != inputs) {
            return None;
        }
        let flat: Vec<f32> =
            window.iter().flat_map(|row| standardised(row, &self.means, &self.deviations)).collect();
        let mut scratch = Scratch::default();
        self.network.forward(&flat, &mut scratch);
        let newest = flat.len() - usize::from(self.judged_steps) * inputs;
        let mut sums = vec![(0.0_f64, 0_u32); inputs];
        for (i, (&v, &r)) in flat.iter().zip(&scratch.rebuilt).enumerate().skip(newest) {
            if v.is_finite() {
                let (sum, known) = &mut sums[i % inputs];
                *sum += f64::from(v - r).powi(2);
                *known += 1;
            }
        }
        let any = sums.iter().any(|(_, known)| *known > 0);
        any.then(|| sums.iter().map(|(sum, n)| (sum / f64::from((*n).max(1))).sqrt()).collect())
    }

    /// Whether a stored autoencoder can be used.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let inputs = usize::from(self.network.shape.inputs);
        self.network.is_sound()
            && self.means.len() == inputs
            && self.deviations.len() == inputs
            && self.means.iter().all(|m| m.is_finite())
            && self.deviations.iter().all(|d| d.is_finite() && *d > 0.0)
            && (1..=self.network.shape.steps).contains(&self.judged_steps)
    }

    /// Values of a row.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.means.len()
    }
}

/// Mean and deviation (not below its floor) of each value.
fn standards(rows: &[Vec<f64>], floors: &[f64]) -> (Vec<f32>, Vec<f32>) {
    floors
        .iter()
        .enumerate()
        .map(|(i, &floor)| {
            let known: Vec<f64> = rows.iter().map(|row| row[i]).filter(|v| v.is_finite()).collect();
            let n = known.len().max(1) as f64;
            let mean = known.iter().sum::<f64>() / n;
            let variance = known.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            (mean as f32, variance.sqrt().max(floor).max(1e-6) as f32)
        })
        .unzip()
}

fn standardised<'a>(
    row: &'a [f64],
    means: &'a [f32],
    deviations: &'a [f32],
) -> impl Iterator<Item = f32> + 'a {
    row.iter()
        .zip(means.iter().zip(deviations))
        .map(|(&v, (&m, &d))| if v.is_finite() { ((v as f32 - m) / d).clamp(-FAR, FAR) } else { f32::NAN })
}

#[cfg(test)]
mod tests;
