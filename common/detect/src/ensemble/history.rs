//! The last looks at a node, bounded, and the windows that detectors cut from them.
//!
//! Models learn from minutes, looks come every ten seconds: a window is cut by time, each step the mean of the
//! looks within it, so that a model judges what it was trained on.

use std::collections::VecDeque;

use evenkeel_common::time::Timestamp;

use crate::seven::SEVEN;

/// A ring of looks in the metrics' domain.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    looks: VecDeque<(i64, [f64; SEVEN])>,
}

impl History {
    /// Adds a look, dropping the oldest beyond `bound`.
    pub(super) fn push(&mut self, at: Timestamp, values: [f64; SEVEN], bound: usize) {
        while self.looks.len() >= bound.max(1) {
            self.looks.pop_front();
        }
        self.looks.push_back((at.as_millis(), values));
    }

    /// Time of the newest look.
    pub(super) fn newest(&self) -> Option<Timestamp> {
        self.looks.back().map(|(at, _)| Timestamp::from_millis(*at))
    }

    pub(super) fn len(&self) -> usize {
        self.looks.len()
    }

    /// Mean of each metric over the last `span_s` seconds; NaN where nothing is known.
    pub(super) fn trailing(&self, span_s: u32) -> [f64; SEVEN] {
        let Some((newest, _)) = self.looks.back() else { return [f64::NAN; SEVEN] };
        let from = newest - i64::from(span_s) * 1000;
        let mut mean = Mean::default();
        self.looks.iter().rev().take_while(|(at, _)| *at > from).for_each(|(_, values)| mean.add(values));
        mean.get()
    }

    /// The last `steps` steps of `step_s` seconds, oldest first; `None` when more than a tenth has no look.
    pub(super) fn window(&self, steps: usize, step_s: u32) -> Option<Vec<Vec<f64>>> {
        let newest = self.looks.back()?.0;
        let step = i64::from(step_s.max(1)) * 1000;
        let mut means = vec![Mean::default(); steps];
        for (at, values) in self.looks.iter().rev() {
            let back = usize::try_from((newest - at) / step).ok()?;
            let Some(mean) = means.get_mut(back) else { break };
            mean.add(values);
        }
        let empty = means.iter().filter(|mean| mean.looks == 0).count();
        (empty * 10 <= steps).then(|| means.iter().rev().map(|mean| mean.get().to_vec()).collect())
    }
}

#[derive(Clone, Copy, Default)]
struct Mean {
    looks: u32,
    sums: [f64; SEVEN],
    known: [u32; SEVEN],
}

impl Mean {
    fn add(&mut self, values: &[f64; SEVEN]) {
        self.looks += 1;
        for (i, v) in values.iter().enumerate().filter(|(_, v)| v.is_finite()) {
            self.sums[i] += v;
            self.known[i] += 1;
        }
    }

    fn get(&self) -> [f64; SEVEN] {
        std::array::from_fn(|i| {
            if self.known[i] == 0 { f64::NAN } else { self.sums[i] / f64::from(self.known[i]) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(looks: i64) -> History {
        let mut history = History::default();
        for i in 0..looks {
            history.push(Timestamp::from_millis(i * 10_000), [i as f64; SEVEN], 100);
        }
        history
    }

    #[test]
    fn windows_are_cut_by_time_and_the_ring_is_bounded() {
        let history = filled(500);
        assert_eq!(history.len(), 100);
        assert_eq!(history.trailing(60), [496.5; SEVEN]);
        let window = history.window(3, 60).unwrap();
        assert_eq!(window.iter().map(|row| row[0]).collect::<Vec<_>>(), [484.5, 490.5, 496.5]);
        assert_eq!(history.window(30, 60), None, "100 looks are not half an hour");
    }

    #[test]
    fn a_hole_is_missing_and_too_many_are_no_window() {
        let mut history = filled(90);
        history.push(Timestamp::from_millis(90 * 10_000 + 60_000), [f64::NAN; SEVEN], 100);
        let window = history.window(15, 60).unwrap();
        assert!(window[14].iter().all(|v| v.is_nan()) && window[12].iter().all(|v| v.is_finite()));
        history.push(Timestamp::from_millis(3_000_000), [1.0; SEVEN], 100);
        assert_eq!(history.window(15, 60), None);
        assert_eq!(History::default().window(2, 60), None);
    }
}
