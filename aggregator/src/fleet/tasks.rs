//! What became of Proxmox' tasks: share of failures per node in the last hour, against their usual share. Proxmox
//! forgets soon, so what it lists is remembered for two days.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_common::id::NodeId;
use evenkeel_common::time::Timestamp;

use crate::pve::tasks::{EndedTask, Upid};

/// What counts as now.
const RECENT: Duration = Duration::from_hours(1);
/// What counts as usual, at most.
const KEPT: Duration = Duration::from_hours(48);
/// Tasks remembered of a cluster; the oldest go first.
const MOST: usize = 20_000;
/// Messages shown.
const SAMPLES: usize = 3;
/// Fewest tasks that make a share.
pub const FEWEST_TASKS: u32 = 5;
/// Fewest failures that are worth a word: one or two are everyday.
const FEWEST_FAILURES: u32 = 3;
/// The usual share is never taken for less, percent: backups of guests that are locked fail now and then.
const LEAST_USUAL: f64 = 2.0;

/// Tasks of one cluster.
#[derive(Debug, Default)]
pub struct TaskBook {
    ended: BTreeMap<Upid, EndedTask>,
}

/// How the tasks of a node fared.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskShare {
    /// Ended in the last hour.
    pub tasks: u32,
    /// Failed among them.
    pub failed: u32,
    /// Share that failed, percent.
    pub percent: f64,
    /// Usual share, percent.
    pub usual: f64,
    /// Probability of so many failures at the usual share.
    pub chance: f64,
    /// Distance from the usual number of failures in standard deviations.
    pub sigma: f64,
    /// Up to three different messages, newest first, with what failed.
    pub samples: Vec<String>,
}

impl TaskShare {
    /// Whether this is an error spike: clearly more than usual and not by chance.
    #[must_use]
    pub fn is_spike(&self) -> bool {
        self.tasks >= FEWEST_TASKS
            && self.failed >= FEWEST_FAILURES
            && self.percent >= 3.0 * self.usual
            && self.chance < 1e-3
    }
}

impl TaskBook {
    /// Takes in what an inventory lists.
    pub fn note(&mut self, listed: &[EndedTask], now: Timestamp) {
        self.ended.extend(listed.iter().map(|task| (task.upid.clone(), task.clone())));
        let oldest = now.before(KEPT);
        self.ended.retain(|_, task| task.ended_at >= oldest);
        if self.ended.len() > MOST {
            let mut times: Vec<Timestamp> = self.ended.values().map(|task| task.ended_at).collect();
            times.sort_unstable();
            let cut = times[times.len() - MOST];
            self.ended.retain(|_, task| task.ended_at >= cut);
        }
    }

    /// How the tasks of a node fared; `None` without any in the last hour.
    #[must_use]
    pub fn share(&self, node: &NodeId, now: Timestamp) -> Option<TaskShare> {
        let since = now.before(RECENT);
        let (mut recent, mut failed, mut past, mut past_failed) = (0u32, Vec::new(), 0u32, 0u32);
        for task in self.ended.values().filter(|task| task.upid.node == *node) {
            if task.ended_at >= since {
                recent += 1;
                failed.extend(task.failed.as_ref().map(|why| (task.ended_at, task, why)));
            } else {
                past += 1;
                past_failed += u32::from(task.failed.is_some());
            }
        }
        if recent == 0 {
            return None;
        }
        // Ten good tasks are granted to everyone, so that a short past does not excuse everything.
        let usual = (100.0 * f64::from(past_failed) / f64::from(past + 10)).max(LEAST_USUAL);
        let n = u32::try_from(failed.len()).unwrap_or(u32::MAX);
        let (mean, share) = (f64::from(recent) * usual / 100.0, usual / 100.0);
        failed.sort_by_key(|(at, ..)| std::cmp::Reverse(*at));
        let mut samples: Vec<String> = Vec::new();
        for (_, task, why) in failed {
            let text = format!("{} {}: {why}", task.upid.kind, task.upid.id);
            if samples.len() < SAMPLES && !samples.contains(&text) {
                samples.push(text);
            }
        }
        Some(TaskShare {
            tasks: recent,
            failed: n,
            percent: 100.0 * f64::from(n) / f64::from(recent),
            usual,
            chance: at_least(n, recent, share),
            sigma: (f64::from(n) - mean) / (mean * (1.0 - share)).sqrt().max(0.1),
            samples,
        })
    }
}

/// Probability of at least `k` of `n` when each happens with probability `p` (binomial tail).
fn at_least(k: u32, n: u32, p: f64) -> f64 {
    let (p, n) = (p.clamp(1e-9, 1.0 - 1e-9), n.min(100_000));
    // In logarithms: the first terms of a thousand tasks are below what a float can hold.
    let mut term = f64::from(n) * (1.0 - p).ln();
    let mut below = 0.0;
    for i in 0..k.min(n) {
        below += term.exp();
        term += (f64::from(n - i) / f64::from(i + 1)).ln() + (p / (1.0 - p)).ln();
    }
    (1.0 - below).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_millis(s * 1000)
    }

    fn task(n: u32, ended_s: i64, failed: Option<&str>) -> EndedTask {
        let upid = format!("UPID:pve1:{n:08X}:00061A2B:{ended_s:08X}:vzdump:{}:root@pam:", 100 + n % 3);
        EndedTask { upid: upid.parse().unwrap(), ended_at: at(ended_s), failed: failed.map(str::to_owned) }
    }

    #[test]
    fn a_share_of_failures_far_above_the_usual_is_a_spike_and_counts_alone_are_not() {
        let (mut book, node, now) = (TaskBook::default(), NodeId::new("pve1").unwrap(), at(100_000));
        assert_eq!(book.share(&node, now), None);
        let past = (0..100).map(|n| task(n, 20_000 + i64::from(n), (n % 50 == 0).then_some("locked")));
        book.note(&past.collect::<Vec<_>>(), now);
        let recent = (200..210).map(|n| task(n, 99_000 + i64::from(n), (n % 2 == 0).then_some("job errors")));
        book.note(&recent.collect::<Vec<_>>(), now);
        let share = book.share(&node, now).unwrap();
        assert_eq!((share.tasks, share.failed, share.percent), (10, 5, 50.0));
        assert!(share.is_spike() && share.sigma > 5.0 && share.chance < 1e-4, "{share:?}");
        assert_eq!(share.samples.len(), 3, "{:?}", share.samples);
        assert!(share.samples[0].ends_with(": job errors"), "{:?}", share.samples);
        assert_eq!(book.share(&NodeId::new("pve2").unwrap(), now), None);

        // As many failures among a thousand tasks are nothing new.
        let many = (1000..2000).map(|n| task(n, 99_500, None));
        book.note(&many.collect::<Vec<_>>(), now);
        assert!(!book.share(&node, now).unwrap().is_spike());
        // After two days all is forgotten.
        book.note(&[], at(100_000 + 49 * 3600));
        assert!(book.ended.is_empty());
    }

    #[test]
    fn binomial_tails() {
        assert!((at_least(1, 10, 0.1) - 0.651_321_559_9).abs() < 1e-9);
        assert!((at_least(5, 10, 0.5) - 0.623_046_875).abs() < 1e-9);
        assert_eq!(at_least(0, 10, 0.1), 1.0);
        assert!(at_least(50, 1000, 0.02) < 1e-6);
    }
}
