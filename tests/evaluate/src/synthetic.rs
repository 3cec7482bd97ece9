//! Clean nodes made up: nothing in them is wrong, so every alarm is a false one. The same seed, the same fleet.

use std::f64::consts::TAU;

/// Channels of a made-up node.
const CHANNELS: usize = 20;
/// Seconds of a step.
pub const STEP_S: u64 = 60;
const STEPS_PER_DAY: usize = 1440;

/// A node: a day that breathes, autocorrelated noise, bursts, and a backup each night.
pub struct Node {
    chance: Chance,
    row: usize,
    load: f64,
    burst: usize,
    backup: (usize, usize),
    channels: Vec<Channel>,
}

struct Channel {
    kind: usize,
    scale: f64,
    /// Share that follows the node's load, and phase of the day.
    follows: f64,
    phase: f64,
    noise: f64,
    state: f64,
}

impl Node {
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let channels = (0..CHANNELS)
            .map(|kind| Channel {
                kind: kind % 5,
                scale: 10f64.powf(4.0 * chance.uniform()),
                follows: chance.uniform(),
                phase: 0.1 * chance.uniform(),
                noise: 0.02 + 0.1 * chance.uniform(),
                state: 0.0,
            })
            .collect();
        let backup = ((60.0 + 240.0 * chance.uniform()) as usize, (20.0 + 40.0 * chance.uniform()) as usize);
        Self { chance, row: 0, load: 0.0, burst: 0, backup, channels }
    }

    /// The next step.
    pub fn next(&mut self) -> Vec<f64> {
        let chance = &mut self.chance;
        let minute = self.row % STEPS_PER_DAY;
        self.row += 1;
        self.load += 0.1 * (chance.normal() - self.load);
        // Somebody runs a job four times a day.
        self.burst = if self.burst > 0 { self.burst - 1 } else { 0 };
        if chance.uniform() < 4.0 / STEPS_PER_DAY as f64 {
            self.burst = 2 + (10.0 * chance.uniform()) as usize;
        }
        // The backup never starts or ends on the minute.
        let late = (3.0 * chance.uniform()) as usize;
        let backup = (self.backup.0 + late..self.backup.0 + self.backup.1 + late).contains(&minute);
        let (load, burst) = (self.load, f64::from(u8::from(self.burst > 0)));
        let backup = f64::from(u8::from(backup));
        self.channels
            .iter_mut()
            .map(|channel| {
                channel.state = 0.9 * channel.state + 0.44 * chance.normal();
                let day =
                    0.5 + 0.3 * (TAU * (minute as f64 / STEPS_PER_DAY as f64 - 0.3 + channel.phase)).sin();
                let busy = day
                    + channel.noise * (channel.state + channel.follows * 2.0 * load)
                    + 0.3 * burst * channel.follows;
                channel.scale
                    * match channel.kind {
                        // A gauge, a bursty rate, a disk that the backup uses, a counter of rare errors, a fill level.
                        0 => busy.max(0.0),
                        1 => (2.0 * busy + 0.5 * chance.normal()).exp(),
                        2 => (channel.noise * chance.normal()).exp() * (0.1 + backup + 0.2 * burst),
                        3 => f64::from(u8::from(chance.uniform() < 0.01)) * (1.0 + chance.uniform()),
                        _ => (0.4 + 0.02 * channel.state * channel.noise + 1e-6 * self.row as f64).min(1.0),
                    }
            })
            .collect()
    }
}

/// Chance that is none: xorshift64* (Vigna 2016).
struct Chance(u64);

impl Chance {
    /// 0 to 1, never 1.
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Mean 0, deviation 1 (Box and Muller 1958).
    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (TAU * self.uniform()).cos()
    }
}
