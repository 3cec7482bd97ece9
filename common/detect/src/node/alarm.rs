//! Which leaps of a node wake somebody: alarms a day, by the bulk of its own peaks.
//!
//! The past of a running node holds incidents of its own, and no one has marked them. A law fitted to the largest
//! peaks (as in [`super::tail`]) takes them for the node's habits and then misses the next one. Here an exponential
//! law is laid through the body of the peaks - half, a fifth and a tenth of them exceed the three points - and the
//! budget is read off where it goes on: what happens a few times a month does not move it.

use serde::{Deserialize, Serialize};

use super::histogram::LogHistogram;

/// Share of the steps that are above the bound; a stretch of such steps is a peak.
const BEYOND: f32 = 0.1;
/// Shares of the peaks beyond the points that the law is laid through.
const POINTS: [f32; 3] = [0.5, 0.2, 0.1];
/// Days over which peaks fade.
const MEMORY_DAYS: f64 = 30.0;
/// Days before peaks are learned: nothing was known before, and all looked wild.
const WILD_DAYS: f64 = 1.0;
/// Peaks from which the law is the node's own, and what is assumed before: the mean excess, and peaks a day.
const KNOWN_PEAKS: f32 = 30.0;
const ASSUMED_MEAN: f32 = 4.0;
const ASSUMED_PER_DAY: f64 = 30.0;
/// What a step teaches from an alarm on, as a share of what it else does, and for how many hours.
const HELD: f32 = 0.1;
const HELD_HOURS: f64 = 4.0;
/// Until about this age the peaks seen are no measure of those to come.
const YOUNG_DAYS: f64 = 1.5;

/// The peaks of a node's leaps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Alarm {
    seen: u32,
    scores: LogHistogram,
    peaks: LogHistogram,
    /// Number of peaks known, fading, and their share in the steps.
    known: f32,
    rate: f64,
    /// Bound and mean excess of the law, looked up now and then.
    bound: f32,
    mean: f32,
    /// The peak under way, and the steps since it was last above the bound.
    peak: f32,
    quiet: u32,
    /// Steps for which what is seen is hardly learned, and for how long that has been so.
    held: u32,
    held_for: u32,
}

/// What all steps share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rhythm {
    /// Steps of a day; steps apart from which peaks are two.
    pub(super) day: f64,
    pub(super) gap: u32,
    /// Alarms a day that are accepted; hours of holding back after which all is learned again.
    pub(super) budget: f64,
    pub(super) accept_hours: f64,
    /// Whether alarms are raised; otherwise everything is taken for normal.
    pub(super) judged: bool,
}

impl Alarm {
    pub(super) fn new() -> Self {
        Self {
            seen: 0,
            scores: LogHistogram::narrow(),
            peaks: LogHistogram::narrow(),
            known: 0.0,
            rate: 0.0,
            bound: f32::INFINITY,
            mean: ASSUMED_MEAN,
            peak: 0.0,
            quiet: 0,
            held: 0,
            held_for: 0,
        }
    }

    /// How many peaks a day at least as high normal variation brings; then learns the step.
    pub(super) fn observe(&mut self, score: f32, rhythm: &Rhythm) -> f64 {
        let per_day = self.per_day(score, rhythm.day);
        if rhythm.judged && per_day <= rhythm.budget {
            self.held = (HELD_HOURS / 24.0 * rhythm.day) as u32 + 1;
        }
        let accepted = f64::from(self.held_for) > rhythm.accept_hours / 24.0 * rhythm.day;
        let weight = if self.held > 0 && !accepted { HELD } else { 1.0 };
        self.held_for = if self.held > 0 { self.held_for.saturating_add(1) } else { 0 };
        self.held = self.held.saturating_sub(1);
        self.learn(score, weight, rhythm);
        per_day
    }

    fn per_day(&self, score: f32, day: f64) -> f64 {
        let age = f64::from(self.seen) / day;
        let young = 1.0 + (YOUNG_DAYS / age.max(1e-3)).powi(2);
        let own = f64::from((self.known / KNOWN_PEAKS).min(1.0));
        let peaks = own * (self.rate * day).max(1.0) + (1.0 - own) * ASSUMED_PER_DAY;
        let excess = f64::from((score - self.bound) / self.mean).max(0.0);
        young * peaks * (-excess).max(-600.0).exp()
    }

    fn learn(&mut self, score: f32, weight: f32, rhythm: &Rhythm) {
        self.seen = self.seen.saturating_add(1);
        let memory = MEMORY_DAYS * rhythm.day;
        let share = f64::from(weight) / f64::from(self.seen).min(memory);
        self.scores.learn(score, share as f32);
        let settled = f64::from(self.seen) - WILD_DAYS * rhythm.day;
        if settled > 0.0 {
            let ended = self.ended(score, rhythm.gap);
            let share = f64::from(weight) / settled.min(memory).max(1.0);
            self.rate += share * (f64::from(u8::from(ended.is_some())) - self.rate);
            if let Some(peak) = ended {
                let most = (MEMORY_DAYS * self.rate * rhythm.day) as f32;
                self.known = (self.known + weight).min(most.max(1.0));
                self.peaks.learn(peak, (weight / self.known.max(weight)).min(1.0));
            }
        }
        if self.seen.is_multiple_of(((rhythm.day / 24.0) as u32).max(20)) {
            self.look();
        }
    }

    /// The peak that is over with this step.
    fn ended(&mut self, score: f32, gap: u32) -> Option<f32> {
        if score > self.bound {
            self.peak = self.peak.max(score);
            self.quiet = 0;
            return None;
        }
        if self.peak == 0.0 {
            return None;
        }
        self.quiet += 1;
        (self.quiet >= gap).then(|| {
            self.quiet = 0;
            std::mem::take(&mut self.peak)
        })
    }

    /// Lays the law through the points.
    fn look(&mut self) {
        let Some(bound) = self.scores.quantile(BEYOND) else { return };
        self.bound = bound;
        let through = |beyond: f32| Some((self.peaks.quantile(beyond)? - bound) / -beyond.ln());
        let own = POINTS.into_iter().filter_map(through).fold(0.0, f32::max);
        let known = (self.known / KNOWN_PEAKS).min(1.0);
        self.mean = (known * own + (1.0 - known) * ASSUMED_MEAN).max(1e-3 * bound + 1e-6);
    }

    /// Bytes of the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.scores.heap_bytes() + self.peaks.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RHYTHM: Rhythm = Rhythm { day: 1440.0, gap: 10, budget: 0.1, accept_hours: 24.0, judged: true };

    /// Exponential scores of mean 1, a draw each step; `extra` on top.
    fn taught(days: u32, extra: impl Fn(u32) -> f32) -> (Alarm, u32) {
        let mut alarm = Alarm::new();
        let (mut state, mut alarms) = (7_u64, 0);
        for step in 0..days * 1440 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let uniform = ((state >> 40) as f32 + 1.0) / 16_777_217.0;
            alarms += u32::from(alarm.observe(-uniform.ln() + extra(step), &RHYTHM) <= RHYTHM.budget);
        }
        (alarm, alarms)
    }

    #[test]
    fn noise_keeps_the_budget_and_a_leap_does_not() {
        let (alarm, alarms) = taught(40, |_| 0.0);
        assert!(alarms <= 8, "{alarms}");
        assert!(alarm.per_day(25.0, 1440.0) < 0.1 && alarm.per_day(5.0, 1440.0) > 0.1);
    }

    #[test]
    fn rarity_is_monotonic() {
        let (alarm, _) = taught(10, |_| 0.0);
        let curve: Vec<f64> = (0..200).map(|tenth| alarm.per_day(tenth as f32 / 10.0, 1440.0)).collect();
        assert!(curve.windows(2).all(|pair| pair[0] >= pair[1]) && curve[0] > curve[199]);
    }

    #[test]
    fn an_incident_a_day_does_not_hide_the_next_one() {
        let (alarm, alarms) = taught(30, |step| if step % 1440 < 3 { 30.0 } else { 0.0 });
        assert!(alarms >= 3 * 25, "{alarms}");
        assert!(alarm.per_day(25.0, 1440.0) < 0.1);
    }

    #[test]
    fn what_never_ends_is_learned() {
        // A burst each hour from the tenth day on.
        let (alarm, _) = taught(40, |step| if step > 14_400 && step % 60 == 0 { 30.0 } else { 0.0 });
        assert!(alarm.per_day(28.0, 1440.0) > 0.1, "{}", alarm.per_day(28.0, 1440.0));
    }
}
