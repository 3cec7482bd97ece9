//! What a simulated guest wants, as a function of time.

use std::f64::consts::TAU;

use evenkeel_common::guest::ProfileClass;

/// How a guest behaves. Utilisations are shares of its vCPUs, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Workload {
    /// Its kind of behaviour.
    pub class: ProfileClass,
    /// Usual CPU utilisation.
    pub level: f64,
    /// Share of its memory that it uses.
    pub memory: f64,
    /// Bytes a second it reads, writes, receives and sends at its usual level.
    pub io: f64,
}

impl Workload {
    /// CPU utilisation wanted at `t` seconds (since 1970), 0 to 1. `salt` makes guests differ.
    #[must_use]
    pub fn cpu(&self, salt: u64, t: i64) -> f64 {
        let noise =
            0.05 * smooth(salt, t, 7) + 0.08 * smooth(salt ^ 1, t, 90) + 0.10 * smooth(salt ^ 2, t, 900);
        let shape = match self.class {
            ProfileClass::Steady | ProfileClass::Unknown => 1.0,
            ProfileClass::Bursty => {
                // A burst of 20 to 60 s in about every third slot of five minutes.
                let slot = t.div_euclid(300);
                let dice = unit(salt ^ 3, slot);
                let (start, length) = (unit(salt ^ 4, slot) * 200.0, 20.0 + unit(salt ^ 5, slot) * 40.0);
                let offset = t.rem_euclid(300) as f64;
                if dice < 0.33 && offset >= start && offset < start + length { 2.5 } else { 0.7 }
            }
            ProfileClass::Growing => 1.0 + 0.01 * (t.rem_euclid(7 * 86_400) as f64 / 3_600.0),
            ProfileClass::Cyclical => {
                let hour = t.rem_euclid(86_400) as f64 / 3_600.0;
                1.0 + 0.6 * ((hour - 9.0) / 24.0 * TAU).sin()
            }
        };
        (self.level * shape * (1.0 + noise)).clamp(0.0, 1.0)
    }

    /// Traffic in bytes a second at `t`, one of four streams told apart by `stream`.
    #[must_use]
    pub fn traffic(&self, salt: u64, stream: u64, t: i64) -> f64 {
        let wave = 1.0 + 0.4 * smooth(salt ^ (16 + stream), t, 30) + 0.3 * smooth(salt ^ (32 + stream), t, 2);
        (self.io * wave).max(0.0)
    }
}

/// Evenly spread number from 0 to 1, the same for the same input.
#[must_use]
pub fn unit(salt: u64, step: i64) -> f64 {
    // splitmix64: every bit of the input reaches every bit of the output.
    let mut x = salt.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(step.cast_unsigned());
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (x ^ (x >> 31)) as f64 / u64::MAX as f64
}

/// Noise between -1 and 1 that changes over about `period` seconds.
fn smooth(salt: u64, t: i64, period: i64) -> f64 {
    let (step, offset) = (t.div_euclid(period), t.rem_euclid(period) as f64 / period as f64);
    let (a, b) = (unit(salt, step), unit(salt, step + 1));
    let ease = offset * offset * (3.0 - 2.0 * offset);
    2.0 * (a + (b - a) * ease) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_moment_gives_the_same_load_and_it_stays_in_bounds() {
        for class in
            [ProfileClass::Steady, ProfileClass::Bursty, ProfileClass::Growing, ProfileClass::Cyclical]
        {
            let work = Workload { class, level: 0.4, memory: 0.5, io: 1e5 };
            for t in (0..200_000).step_by(97) {
                let cpu = work.cpu(42, t);
                assert!((0.0..=1.0).contains(&cpu));
                assert_eq!(cpu, work.cpu(42, t));
            }
        }
    }

    #[test]
    fn bursty_guests_burst() {
        let work = Workload { class: ProfileClass::Bursty, level: 0.3, memory: 0.5, io: 0.0 };
        let high = (0..86_400).filter(|&t| work.cpu(7, t) > 0.5).count();
        assert!((2_000..20_000).contains(&high), "{high}");
    }
}
