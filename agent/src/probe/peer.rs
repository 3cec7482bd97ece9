//! What is known of the way to one peer: the last questions, and what became of them. No clock and no socket in here.

use std::collections::VecDeque;
use std::time::Duration;

/// An answer that takes longer is lost: on a cluster's network, what comes a second late is of no use to anyone.
pub const LOST_AFTER: Duration = Duration::from_secs(1);
/// Questions that loss and jitter are told over.
pub const WINDOW: usize = 30;
/// Answers whose median is the latency: one that waited behind a tick of either agent does not show.
const LATENCY_OVER: usize = 9;
/// Questions before anything is told.
const ENOUGH: usize = 5;

/// Figures of the way to a peer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Round trip in milliseconds: median of the last answers; `None` while none comes.
    pub latency_ms: Option<f64>,
    /// Mean difference of successive round trips, in milliseconds.
    pub jitter_ms: Option<f64>,
    /// Percent of questions without an answer.
    pub loss_percent: f64,
}

/// The way to one peer.
#[derive(Debug)]
pub(super) struct Way {
    /// Random, so that no other peer's answer and none of an earlier run fits.
    pub(super) nonce: u64,
    next: u64,
    asked: VecDeque<Asked>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    number: u64,
    at: Duration,
    took: Option<Duration>,
}

impl Way {
    pub(super) fn new(nonce: u64) -> Self {
        Self { nonce, next: 1, asked: VecDeque::with_capacity(WINDOW + 8) }
    }

    /// Asks: the number of the question.
    pub(super) fn ask(&mut self, at: Duration) -> u64 {
        let number = self.next;
        self.next += 1;
        self.asked.push_back(Asked { number, at, took: None });
        // Those still open come on top of those told of.
        while self.asked.len() > WINDOW + 8 {
            self.asked.pop_front();
        }
        number
    }

    /// An answer arrived. False when it is a duplicate, late, or to no question of ours.
    pub(super) fn answered(&mut self, nonce: u64, number: u64, at: Duration) -> bool {
        let asked = self.asked.iter_mut().find(|asked| asked.number == number && nonce == self.nonce);
        let Some(asked) = asked.filter(|asked| asked.took.is_none()) else { return false };
        let took = at.saturating_sub(asked.at);
        if took >= LOST_AFTER {
            return false;
        }
        asked.took = Some(took);
        true
    }

    /// What the last questions tell; `None` while there are too few.
    pub(super) fn figures(&self, now: Duration) -> Option<Figures> {
        let settled = |asked: &&Asked| asked.took.is_some() || now.saturating_sub(asked.at) >= LOST_AFTER;
        let told: Vec<Option<Duration>> =
            self.asked.iter().rev().filter(settled).take(WINDOW).map(|asked| asked.took).collect();
        if told.len() < ENOUGH {
            return None;
        }
        let trips: Vec<f64> = told.iter().flatten().map(|took| took.as_secs_f64() * 1000.0).collect();
        let lost = told.len() - trips.len();
        let mut last: Vec<f64> = trips.iter().copied().take(LATENCY_OVER).collect();
        last.sort_by(f64::total_cmp);
        // Only between answers to neighbouring questions: across a loss it would tell of another time.
        let steps: Vec<f64> = told
            .iter()
            .zip(told.iter().skip(1))
            .filter_map(|(a, b)| Some((a.as_ref()?.as_secs_f64() - b.as_ref()?.as_secs_f64()).abs() * 1000.0))
            .collect();
        Some(Figures {
            latency_ms: last.get(last.len() / 2).copied(),
            jitter_ms: (!steps.is_empty()).then(|| steps.iter().sum::<f64>() / steps.len() as f64),
            loss_percent: 100.0 * lost as f64 / told.len() as f64,
        })
    }
}

/// Lets through `per_second` on average and `burst` at once.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: f64,
    burst: f64,
    left: f64,
    at: Duration,
}

impl Bucket {
    pub(super) fn new(per_second: f64, burst: f64, now: Duration) -> Self {
        Self { per_second, burst, left: burst, at: now }
    }

    pub(super) fn take(&mut self, now: Duration) -> bool {
        let more = now.saturating_sub(self.at).as_secs_f64() * self.per_second;
        (self.left, self.at) = ((self.left + more).min(self.burst), now);
        let passes = self.left >= 1.0;
        if passes {
            self.left -= 1.0;
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn latency_jitter_and_loss_are_those_of_the_window() {
        let mut way = Way::new(7);
        for second in 0..40 {
            let number = way.ask(ms(second * 1000));
            let took = if second % 2 == 0 { 10 } else { 14 };
            if second % 10 != 9 {
                assert!(way.answered(7, number, ms(second * 1000 + took)));
            }
        }
        let figures = way.figures(ms(41_000)).unwrap();
        assert!([10.0, 14.0].contains(&figures.latency_ms.unwrap()), "{figures:?}");
        assert!((figures.jitter_ms.unwrap() - 4.0).abs() < 1e-9, "{figures:?}");
        assert!((figures.loss_percent - 10.0).abs() < 1e-9, "three of the last thirty: {figures:?}");
    }

    #[test]
    fn an_open_question_is_not_lost_yet_and_a_late_answer_is() {
        let mut way = Way::new(7);
        assert_eq!(way.figures(ms(0)), None);
        let numbers: Vec<u64> = (0..6).map(|n| way.ask(ms(n * 100))).collect();
        assert_eq!(way.figures(ms(900)), None, "nothing is settled");
        assert!(!way.answered(7, numbers[0], ms(1000)), "late");
        assert!(!way.answered(8, numbers[5], ms(600)), "another's nonce");
        assert!(!way.answered(7, 99, ms(600)), "never asked");
        assert!(way.answered(7, numbers[5], ms(600)) && !way.answered(7, numbers[5], ms(601)), "once");
        let figures = way.figures(ms(1500)).unwrap();
        assert!((figures.loss_percent - 100.0 * 5.0 / 6.0).abs() < 1e-9);
        assert_eq!(figures.jitter_ms, None);
    }

    #[test]
    fn a_peer_that_is_gone_is_lost_altogether_and_memory_stays_bounded() {
        let mut way = Way::new(7);
        for n in 0..10_000 {
            let number = way.ask(ms(n * 1000));
            if n < 9_000 {
                way.answered(7, number, ms(n * 1000 + 1));
            }
        }
        let figures = way.figures(ms(10_001_000)).unwrap();
        assert_eq!((figures.latency_ms, figures.loss_percent), (None, 100.0));
        assert!(way.asked.len() <= WINDOW + 8);
    }

    #[test]
    fn the_bucket_holds_its_rate() {
        let mut bucket = Bucket::new(5.0, 10.0, ms(0));
        let passed = (0..10_000).filter(|n| bucket.take(ms(*n))).count();
        assert_eq!(passed, 10 + 49, "ten at once, then five a second for ten seconds");
    }
}
