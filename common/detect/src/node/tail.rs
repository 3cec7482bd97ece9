//! From the node's raw score to alarms a day: extreme values of its own past.
//!
//! Peaks over threshold as in SPOT (Siffer, Fouque, Termier and Largouet 2017), with two changes that a month of
//! unattended running needs. Rows of one stretch are one peak (Leadbetter's de-clustering), because an admin is
//! woken once. And the past fades, so that a threshold raised by an incident comes down again.

use serde::{Deserialize, Serialize};

use super::histogram::LogHistogram;

/// Share of rows that belong to the tail.
const BEYOND: f32 = 0.02;
/// What is assumed before anything is known: for how many days, peaks a day, and their mean height.
const PRIOR_DAYS: f64 = 2.0;
const PRIOR_PER_DAY: f64 = 10.0;
const PRIOR_EXCESS: f64 = 0.42;

/// The tail of a raw score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Tail {
    bound: LogHistogram,
    days: f64,
    peaks: f64,
    /// Heights of the peaks over the bound, relative to it, summed.
    excess: f64,
    /// The peak under way, relative, and the steps since it was last above.
    peak: f32,
    quiet: u32,
}

/// How a step is learned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lesson {
    /// Weight of the step among all that are known, and as a number of steps.
    pub(super) share: f32,
    pub(super) weight: f64,
    /// What a step takes from the weight of those before.
    pub(super) fade: f64,
    /// Steps in a day; steps apart from which peaks are two.
    pub(super) day: f64,
    pub(super) gap: u32,
    /// Alarms a day of the rarest peak that is believed to be normal variation.
    pub(super) rarest: f64,
}

impl Tail {
    pub(super) fn new() -> Self {
        Self { bound: LogHistogram::narrow(), days: 0.0, peaks: 0.0, excess: 0.0, peak: 0.0, quiet: 0 }
    }

    /// Learns a score.
    pub(super) fn learn(&mut self, score: f32, lesson: &Lesson) {
        let keep = 1.0 - lesson.fade;
        (self.days, self.peaks, self.excess) = (self.days * keep, self.peaks * keep, self.excess * keep);
        self.days += lesson.weight / lesson.day;
        let bound = self.bound.quantile(BEYOND).unwrap_or(1.0);
        if score > bound {
            self.peak = self.peak.max(score / bound - 1.0);
            self.quiet = 0;
        } else if self.peak > 0.0 {
            self.quiet += 1;
            if self.quiet >= lesson.gap {
                let (per_day, mean) = self.model();
                // An incident is not allowed to teach that incidents are normal.
                let highest = mean * (per_day / lesson.rarest).max(1.0).ln();
                self.peaks += lesson.weight;
                self.excess += lesson.weight * f64::from(self.peak).min(highest);
                (self.peak, self.quiet) = (0.0, 0);
            }
        }
        self.bound.learn(score, lesson.share);
    }

    /// Forgets all but a share of what was learned so far.
    pub(super) fn forget(&mut self, keep: f64) {
        (self.days, self.peaks, self.excess) = (self.days * keep, self.peaks * keep, self.excess * keep);
    }

    /// Peaks a day, and their mean height.
    fn model(&self) -> (f64, f64) {
        let peaks = self.peaks + PRIOR_DAYS * PRIOR_PER_DAY;
        let per_day = peaks / (self.days + PRIOR_DAYS);
        let mean = (self.excess + PRIOR_DAYS * PRIOR_PER_DAY * PRIOR_EXCESS) / peaks;
        (per_day, mean.max(1e-3))
    }

    /// How many peaks a day normal variation brings that are at least as high.
    pub(super) fn per_day(&self, score: f32) -> f64 {
        let (per_day, mean) = self.model();
        let excess = f64::from(score / self.bound.quantile(BEYOND).unwrap_or(1.0)) - 1.0;
        if excess > 0.0 {
            // The bound keeps apart what is beyond telling apart; it is never reached below a thousand means.
            per_day * (-excess / mean).max(-600.0).exp()
        } else {
            // Within the bulk the figure only has to be large and monotonic.
            per_day * (1.0 - 30.0 * excess.max(-1.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: f64 = 1440.0;

    fn taught(days: usize, score: impl Fn(usize) -> f32) -> Tail {
        let mut tail = Tail::new();
        for step in 0..days * 1440 {
            let share = 1.0 / (step + 1) as f32;
            let lesson = Lesson { share, weight: 1.0, fade: 0.0, day: DAY, gap: 10, rarest: 0.1 };
            tail.learn(score(step), &lesson);
        }
        tail
    }

    #[test]
    fn rarity_grows_with_the_score_and_follows_the_past() {
        // A peak each 200 minutes, of 2 on the calm node and up to 4 on the wild one.
        let bulk = |step: usize| 0.5 + (step * 7919 % 101) as f32 / 250.0;
        let calm = taught(20, |step| if step % 200 == 0 { 1.2 } else { bulk(step) });
        let wild =
            taught(20, |step| if step % 200 == 0 { 1.0 + (step / 200 % 4) as f32 } else { bulk(step) });
        assert!(calm.per_day(5.0) < 0.1 * wild.per_day(5.0));
        let curve: Vec<f64> = (0..100).map(|i| calm.per_day(i as f32 / 10.0)).collect();
        assert!(curve.windows(2).all(|pair| pair[0] >= pair[1]) && curve[0] > curve[99]);
    }

    #[test]
    fn one_incident_does_not_raise_the_bar_much() {
        let bulk = |step: usize| 0.5 + (step * 7919 % 101) as f32 / 250.0;
        let clean = taught(20, |step| if step % 200 == 0 { 1.2 } else { bulk(step) });
        let hurt = taught(20, |step| match step {
            14_400..14_500 => 1000.0,
            _ if step % 200 == 0 => 1.2,
            _ => bulk(step),
        });
        assert!(hurt.per_day(4.0) < 3.0 * clean.per_day(4.0) + 0.01);
    }
}
