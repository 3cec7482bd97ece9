//! How earlier moves went, by pair of nodes and by guest: what filters 8 and 12 judge by.
//!
//! A move that failed, or that was judged to have helped nobody, is poor; one that was judged to have helped is good.
//! One that arrived and was not judged is half a good one: it did not fail, and without it a pair would look worse the
//! less of it is judged. Outcomes count half after 14 days and not at all after 30, so that whatever was wrong gets
//! another chance.
//!
//! The chance of success then has a beta distribution (Bayes, begun with one good and one poor outcome: nothing is
//! known). A record is poor when at least three outcomes are known and that chance is below one half with 80 %
//! certainty: 3 of 3, 3 of 4, 5 of 7 fresh outcomes, not 2 of 3 or 3 of 5. The quantile is that of the normal
//! distribution with the same mean and deviation, which for these cases gives the same answer as the exact one and
//! needs no more than a square root.

use std::collections::BTreeMap;

use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::Timestamp;

use crate::snapshot::{PastMove, Snapshot};

/// Outcomes below which nothing is said.
const ENOUGH: u32 = 3;
/// Days after which an outcome counts no more.
const FORGOTTEN_DAYS: u64 = 30;
/// What is left of an outcome's weight after a day: half of it after 14.
const KEPT_PER_DAY: f64 = 0.951_695_153_010_619_6;
/// Good outcomes that an arrival is worth which nobody judged.
const UNJUDGED: f64 = 0.5;
/// Success rate that a record must not be known to be below.
const POOR_RATE: f64 = 0.5;
/// Standard deviations below which 80 % of a normal distribution lie.
const CERTAINTY: f64 = 0.841_621;

/// Outcomes of one pair or guest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Track {
    /// Outcomes that are known, and the poor ones among them.
    pub judged: u32,
    pub poor: u32,
    /// The same with the weight that their age leaves them.
    good_weight: f64,
    poor_weight: f64,
}

impl Track {
    fn add(&mut self, past: &PastMove, age_days: u64) {
        let weight = (0..age_days).fold(1.0, |weight, _| weight * KEPT_PER_DAY);
        match (past.ok, past.helped) {
            (true, None) => self.good_weight += UNJUDGED * weight,
            (true, Some(true)) => {
                self.judged += 1;
                self.good_weight += weight;
            }
            (false, _) | (true, Some(false)) => {
                self.judged += 1;
                self.poor += 1;
                self.poor_weight += weight;
            }
        }
    }

    /// Expected success rate, 0 to 1.
    pub(crate) fn rate(&self) -> f64 {
        (1.0 + self.good_weight) / (2.0 + self.good_weight + self.poor_weight)
    }

    /// Whether success is less likely than not, with enough certainty.
    pub(crate) fn is_poor(&self) -> bool {
        let count = 2.0 + self.good_weight + self.poor_weight;
        let rate = self.rate();
        let deviation = (rate * (1.0 - rate) / (count + 1.0)).sqrt();
        self.judged >= ENOUGH && rate + CERTAINTY * deviation < POOR_RATE
    }

    /// What an improvement is worth with this record: 1 without poor outcomes, towards one half the more there are.
    pub(crate) fn rank(&self) -> f64 {
        1.0 - 0.5 * self.poor_weight / (2.0 + self.good_weight + self.poor_weight)
    }
}

/// Every record there is.
#[derive(Debug, Default)]
pub(crate) struct Tracks {
    pairs: BTreeMap<NodeId, BTreeMap<NodeId, Track>>,
    guests: BTreeMap<Vmid, Track>,
    /// When a guest last came to or left a node.
    touched: BTreeMap<NodeId, Timestamp>,
}

impl Tracks {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let mut tracks = Self::default();
        for past in &snapshot.history {
            let age_days = snapshot.at.since(past.at).as_secs() / 86_400;
            if age_days < FORGOTTEN_DAYS {
                let pairs = tracks.pairs.entry(past.from.clone()).or_default();
                pairs.entry(past.to.clone()).or_default().add(past, age_days);
                tracks.guests.entry(past.guest).or_default().add(past, age_days);
            }
            for node in [&past.from, &past.to].into_iter().filter(|_| past.ok) {
                let newest = tracks.touched.entry(node.clone()).or_insert(past.at);
                *newest = (*newest).max(past.at);
            }
        }
        tracks
    }

    /// Of moves from one node to another.
    pub(crate) fn of_pair(&self, source: &NodeId, target: &NodeId) -> Track {
        self.pairs.get(source).and_then(|to| to.get(target)).copied().unwrap_or_default()
    }

    /// Of all moves of a guest.
    pub(crate) fn of_guest(&self, guest: Vmid) -> Track {
        self.guests.get(&guest).copied().unwrap_or_default()
    }

    /// When a move last changed what runs on a node.
    pub(crate) fn touched(&self, node: &NodeId) -> Option<Timestamp> {
        self.touched.get(node).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn track(outcomes: &[(&str, u32, u64)]) -> Track {
        let mut track = Track::default();
        for &(outcome, times, days) in outcomes {
            let text = format!("pve1\npve2\nmoved 101 pve1->pve2 0m {outcome}");
            (0..times).for_each(|_| track.add(&fixture::snapshot(&text).history[0], days));
        }
        track
    }

    #[test]
    fn a_record_is_poor_when_success_is_known_to_be_unlikely() {
        // The exact beta quantile was looked up for each: of k poor and n - k good fresh outcomes.
        for (poor, good, expected) in [
            (2, 0, false),
            (3, 0, true),
            (2, 1, false),
            (3, 1, true),
            (3, 2, false),
            (4, 2, false),
            (5, 2, true),
            (6, 3, true),
            (5, 3, false),
            (0, 9, false),
        ] {
            let found = track(&[("useless", poor, 0), ("helped", good, 0)]);
            assert_eq!(found.is_poor(), expected, "{poor} poor, {good} good: {found:?}");
            assert_eq!((found.poor, found.judged), (poor, poor + good));
        }
        assert!(track(&[("failed", 3, 0)]).is_poor(), "a failure needs no judge");
    }

    #[test]
    fn outcomes_fade_and_arrivals_speak_for_a_pair() {
        assert!(track(&[("useless", 3, 14)]).is_poor());
        assert!(!track(&[("useless", 3, 29)]).is_poor());
        assert!(track(&[("useless", 4, 0), ("helped", 4, 29)]).is_poor(), "recent ones count more");
        assert!(!track(&[("useless", 4, 29), ("helped", 4, 0)]).is_poor());
        assert!(!track(&[("failed", 3, 0), ("", 50, 0)]).is_poor(), "three of fifty-three failed");
        assert_eq!(track(&[("", 50, 0)]).judged, 0);
        let half = (0..14).fold(1.0, |weight, _| weight * KEPT_PER_DAY);
        assert!((half - 0.5_f64).abs() < 1e-12);
    }

    #[test]
    fn the_rank_falls_with_poor_outcomes_but_never_below_half() {
        assert_eq!(track(&[("helped", 9, 0)]).rank(), 1.0);
        assert_eq!(Track::default().rank(), 1.0);
        let (one, two, many) =
            (track(&[("failed", 1, 0)]), track(&[("failed", 2, 0)]), track(&[("failed", 99, 0)]));
        assert!(one.rank() > two.rank() && two.rank() > many.rank() && many.rank() > 0.5);
        assert!(track(&[("failed", 1, 0), ("helped", 9, 0)]).rank() > 0.95);
    }
}
