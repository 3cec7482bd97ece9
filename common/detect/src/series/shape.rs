//! Shapes that were never seen: the last values against a bounded set of learned prototypes.
//!
//! The last 32 ticks are one point of 16 coordinates, finer for the newest: eight single values, four means of
//! two, four means of four. A point near a prototype moves it, a point that is near none becomes one, and the
//! least used makes room: adaptive resonance with a vigilance radius (Carpenter and Grossberg 1991). The
//! statistic is the distance from the nearest prototype, in deviations of the series.

use serde::{Deserialize, Serialize};

const TICKS: usize = 32;
const SINGLES: usize = 8;
const COORDINATES: usize = 16;
const PROTOTYPES: usize = 20;
/// Distance within which a point is taken for the prototype.
const VIGILANCE: f32 = 2.0;
/// Ticks from one learned point to the next.
const EVERY: u8 = 4;
/// What is kept of a prototype's weight whenever a new one comes.
const FADE: f32 = 0.995;

/// Values in a byte by the square root, so that small ones are exact to 0.01 and 30 fits.
const COMPAND: f32 = 23.0;

fn pack(value: f32) -> i8 {
    (value.abs().sqrt() * COMPAND).min(127.0).copysign(value).round() as i8
}

fn unpack(byte: i8) -> f32 {
    let root = f32::from(byte);
    root * root.abs() * (1.0 / (COMPAND * COMPAND))
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Prototype {
    at: [i8; COORDINATES],
    weight: f32,
}

/// The shapes of one series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shape {
    recent: [i8; TICKS],
    /// Where the next value goes, and how many there are.
    next: u8,
    known: u8,
    since: u8,
    prototypes: Vec<Prototype>,
}

impl Shape {
    /// Adds a value, given in deviations from the level, and says how far the last 32 are from all that is
    /// known; `None` until there are 32 of them and three prototypes.
    pub fn observe(&mut self, offset: f64, teach: bool) -> Option<f64> {
        let at = usize::from(self.next) % TICKS;
        self.recent[at] = pack(offset.clamp(-30.0, 30.0) as f32);
        self.next = ((at + 1) % TICKS) as u8;
        self.known = self.known.saturating_add(1).min(TICKS as u8);
        if usize::from(self.known) < TICKS {
            return None;
        }
        let point = self.point();
        let nearest = self.nearest(&point);
        let distance = nearest.map_or(f32::INFINITY, |(_, squared)| squared.sqrt());
        let enough = self.prototypes.len() > 2;
        self.since = self.since.wrapping_add(1);
        if teach && self.since >= EVERY {
            self.since = 0;
            self.learn(&point, nearest.map(|(i, _)| i), distance);
        }
        enough.then_some(f64::from(distance))
    }

    /// After a gap the last values are no neighbours of the next.
    pub fn rearm(&mut self) {
        self.known = 0;
    }

    fn point(&self) -> [f32; COORDINATES] {
        let newest = usize::from(self.next) + TICKS - 1;
        let back = |ticks: usize| unpack(self.recent[(newest - ticks) % TICKS]);
        let mean = |from: usize, of: usize| (from..from + of).map(back).sum::<f32>() / of as f32;
        std::array::from_fn(|i| match i {
            0..SINGLES => back(i),
            SINGLES..12 => mean(8 + 2 * (i - SINGLES), 2) * std::f32::consts::SQRT_2,
            _ => mean(16 + 4 * (i - 12), 4) * 2.0,
        })
    }

    fn nearest(&self, point: &[f32; COORDINATES]) -> Option<(usize, f32)> {
        let mut best: Option<(usize, f32)> = None;
        for (i, prototype) in self.prototypes.iter().enumerate() {
            // Four sums side by side, so that the additions do not wait for each other.
            let mut sums = [0.0_f32; 4];
            for (bytes, here) in prototype.at.chunks_exact(4).zip(point.chunks_exact(4)) {
                for ((sum, &byte), &here) in sums.iter_mut().zip(bytes).zip(here) {
                    let offset = unpack(byte) - here;
                    *sum += offset * offset;
                }
            }
            let squared: f32 = sums.iter().sum();
            if best.is_none_or(|(_, least)| squared < least) {
                best = Some((i, squared));
            }
        }
        best
    }

    fn learn(&mut self, point: &[f32; COORDINATES], nearest: Option<usize>, distance: f32) {
        if let Some(prototype) =
            nearest.filter(|_| distance < VIGILANCE).and_then(|i| self.prototypes.get_mut(i))
        {
            prototype.weight += 1.0;
            let alpha = (1.0 / prototype.weight).max(0.05);
            for (byte, &here) in prototype.at.iter_mut().zip(point) {
                let known = unpack(*byte);
                *byte = pack(known + alpha * (here - known));
            }
            return;
        }
        let fresh = Prototype { at: point.map(pack), weight: 1.0 };
        let least = (0..self.prototypes.len())
            .min_by(|&a, &b| self.prototypes[a].weight.total_cmp(&self.prototypes[b].weight));
        match least {
            Some(least) if self.prototypes.len() >= PROTOTYPES => self.prototypes[least] = fresh,
            _ => {
                self.prototypes.reserve_exact(1);
                self.prototypes.push(fresh);
            }
        }
        self.prototypes.iter_mut().for_each(|p| p.weight *= FADE);
    }

    pub fn heap_bytes(&self) -> usize {
        self.prototypes.capacity() * size_of::<Prototype>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_repeats_is_known_and_a_new_one_is_not() {
        let mut shape = Shape::default();
        let wave = |i: u32| f64::from(i % 13) / 6.0 - 1.0;
        let seen: Vec<f64> = (0..2000).filter_map(|i| shape.observe(wave(i), true)).collect();
        let usual = seen.iter().skip(1000).fold(0.0_f64, |a, &b| a.max(b));
        let flat = (0..32).filter_map(|_| shape.observe(-1.0, true)).fold(0.0, f64::max);
        assert!(usual < 1.5 * f64::from(VIGILANCE) && flat > 1.3 * usual, "{usual} {flat}");
    }

    #[test]
    fn packing_keeps_small_values_exact_and_bounds_large_ones() {
        for value in [0.0_f32, 0.01, -0.4, 1.0, -7.5, 29.0] {
            assert!((unpack(pack(value)) - value).abs() <= 0.01 + 0.05 * value.abs(), "{value}");
        }
        assert!(unpack(pack(1e9)) < 31.0);
    }
}
