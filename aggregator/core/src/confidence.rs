//! How likely a move is to help, in percent: of those told 80, 80 % should. What helping means is in [`crate::outcome`].
//!
//! Two kinds of gain are told apart:
//! - Certain ones. A node that is to be emptied, memory over its threshold, a tag that is broken, a plan that evens
//!   out: what the move is for is reached with the guest's arrival, so confidence is 99. Except on a node that is to be
//!   emptied, the points for it have to be worth the move by themselves, what more waits for CPU taken off.
//! - Less waiting for CPU, which is a forecast. It comes true the more often, the more of it is expected against the
//!   cores that are free on the source now (where none is, work waits already), and the larger the guest is (what
//!   others do meanwhile can outweigh a small one).
//!
//! The chance is `(MOST - SMALL / (1 + size)) sqrt(spared / (spared + FREE free + trifle))`, its three constants fitted
//! by likelihood to moves on simulated clusters and checked on others (packaging/doc/decision-quality.md, with the forms
//! that did worse). A guest's profile has no part: it is in the forecast, and without it the same chance came true as
//! often. That the guest arrives is taken for granted here; see [`crate::experience`].
//!
//! Only sums, products, quotients and square roots: these give the same bits on every machine, which replay needs.

use evenkeel_common::units::Score;
use serde::{Deserialize, Serialize};

use crate::bundle;
use crate::outcome::TRIFLE;
use crate::pipeline::Facts;
use crate::policy::Policy;
use crate::recommend::{self, Price};
use crate::repair::Rules;
use crate::score::fleet::Fleet;
use crate::score::waiting_points;
use crate::snapshot::{Candidate, Move, Snapshot};

/// What is said of a gain that comes with the guest's arrival, in percent.
const CERTAIN: f64 = 99.0;

/// The chance that a large guest's move from a full node helps. The rest is what nobody foresees.
const MOST: f64 = 0.96;

/// What a guest that wants next to nothing has less of it.
const SMALL: f64 = 0.25;

/// Core hours for each free core of the source: where no more than these are expected to be spared, the ratio under the
/// root is a half.
const FREE: f64 = 0.075;

/// What confidence in a move is made of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grounds {
    /// Core hours that are expected to wait less in the coming hours, on source and target together; below zero: more.
    pub spared: f64,
    /// Cores that are free on the source now; below zero when more is wanted than there is.
    pub free: f64,
    /// Cores that the guest is expected to want, mean of the coming hours.
    pub size: f64,
    /// Whether the gain comes with the guest's arrival.
    pub certain: bool,
}

impl Grounds {
    /// Of a candidate, on a sorted snapshot with all that is on its way already there; `None` where it means no move.
    #[must_use]
    pub fn of(candidate: &Candidate, snapshot: &Snapshot, policy: &Policy) -> Option<Self> {
        let migration = snapshot.resolve(candidate)?;
        let (facts, fleet) = (Facts::of(snapshot, &[]), Fleet::of(snapshot, policy));
        Some(Self::of_move(&migration, &Rules { snapshot, facts: &facts, fleet: &fleet }, policy))
    }

    fn of_move(migration: &Move<'_>, rules: &Rules<'_>, policy: &Policy) -> Self {
        let fleet = rules.fleet;
        let (guest, target) = (migration.guest_index, migration.target_index);
        let (left, joined) = bundle::moved(rules, guest, target);
        let pairs = [(fleet.nodes[migration.source_index], left), (fleet.nodes[target], joined)];
        let spared = pairs.iter().map(|(now, then)| now.waiting() - then.waiting()).sum();
        let points: f64 = pairs.iter().map(|(now, then)| waiting_points(now) - waiting_points(then)).sum();
        let other = recommend::improvement(rules, guest, target) - points.max(0.0);
        let unit = rules.facts.bundles.unit(&guest).iter();
        let hours = unit.flat_map(|&member| fleet.guests[member].ahead).sum::<f64>();
        let source = migration.source;
        let arrives = pairs[0].0.memory_percent() > policy.mem_threshold
            || rules.gain(guest, target) > 0.0
            || recommend::evening(rules, guest, target) > 0.0;
        let worth = other >= recommend::needed(rules, guest, policy, Price::PLAIN);
        Self {
            spared,
            free: source.cores - source.cpu_used - source.cpu_waited,
            size: hours / crate::outcome::HOURS,
            certain: source.maintenance || (arrives && worth),
        }
    }

    /// How likely the move is to help, in percent. Figures that are none give 0.
    #[must_use]
    pub fn confidence(&self) -> Score {
        if self.certain {
            return Score::clamped(CERTAIN);
        }
        let (spared, free, size) = (self.spared.max(0.0), self.free.max(0.0), self.size.max(0.0));
        let chance = (MOST - SMALL / (1.0 + size)) * (spared / (spared + FREE * free + TRIFLE)).sqrt();
        let known = [self.spared, self.free, self.size].iter().all(|value| value.is_finite());
        Score::clamped(if known { 100.0 * chance } else { 0.0 })
    }
}

/// The confidence of a move on the cluster as it is expected before the move, by how earlier migrations arrived; and
/// whether its gain comes with the arrival.
pub(crate) fn confidence_of(migration: &Move<'_>, rules: &Rules<'_>, policy: &Policy) -> (Score, bool) {
    let grounds = Grounds::of_move(migration, rules, policy);
    let arrives = rules.snapshot.experience.arrives();
    (Score::clamped(grounds.confidence().get() * arrives), grounds.certain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use proptest::prelude::*;

    fn grounds(fleet: &str, migration: &str) -> Grounds {
        let snapshot = fixture::snapshot(fleet).sorted();
        Grounds::of(&fixture::candidate(migration), &snapshot, &Policy::default()).unwrap()
    }

    fn of(spared: f64, free: f64, size: f64) -> f64 {
        Grounds { spared, free, size, certain: false }.confidence().get()
    }

    #[test]
    fn the_grounds_are_what_the_cluster_shows() {
        let fleet =
            "pve1 cpu=16 ram=64 | 101 cpu=5 mem=4 vcpus=5 | 102 cpu=13 mem=4 vcpus=13\npve2 cpu=16 ram=64";
        let found = grounds(fleet, "101 -> pve2");
        assert_eq!((found.free, found.size, found.certain), (-2.5, 5.0, false));
        // Two and a half cores too many for four hours, and what the forecast's error adds.
        assert!((10.0..10.5).contains(&found.spared), "{found:?}");
        assert_eq!(found.confidence().get(), of(found.spared, -2.5, 5.0));
        let back = grounds("pve1 cpu=16 | 101 cpu=5\npve2 cpu=16 | 102 cpu=15", "101 -> pve2");
        assert!(back.spared < -10.0, "{back:?}");
        assert_eq!(back.confidence().get(), 0.0);
    }

    #[test]
    fn what_arrival_brings_is_certain_unless_it_costs_more_than_it_is_worth() {
        for (fleet, certain) in [
            ("pve1 maintenance | 101 cpu=1\npve2", true),
            ("pve1 ram=64 | 101 cpu=1 mem=30 | 102 cpu=1 mem=33\npve2 ram=64", true),
            ("pve1 | 101 tags=evenkeel-anti-a | 102 tags=evenkeel-anti-a\npve2", true),
            ("pve1 | 101 cpu=3 | 102 cpu=14\npve2", false),
            // Points that memory is worth below its threshold too, but there is nothing short.
            ("pve1 ram=64 | 101 cpu=1 mem=16 | 102 cpu=1 mem=33\npve2 ram=64", false),
            (
                "pve1 ram=64 | 101 cpu=8 mem=30 | 102 cpu=1 mem=33\npve2 ram=64 cpu=16 | 103 cpu=16 mem=4",
                false,
            ),
        ] {
            let found = grounds(fleet, "101 -> pve2");
            assert_eq!(found.certain, certain, "{fleet}: {found:?}");
            assert_eq!(found.confidence().get() == CERTAIN, certain);
        }
    }

    #[test]
    fn figures_that_are_none_give_no_confidence() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!([of(bad, 1.0, 1.0), of(1.0, bad, 1.0), of(1.0, 1.0, bad)], [0.0; 3], "{bad}");
        }
        assert_eq!(of(0.0, 0.0, 0.0), 0.0);
    }

    proptest! {
        #[test]
        fn more_is_surer_within_bounds(
            spared in -10.0..50.0f64, free in -8.0..64.0f64, size in 0.0..64.0f64, more in 0.001..20.0f64,
        ) {
            let told = of(spared, free, size);
            prop_assert!((0.0..=100.0 * MOST).contains(&told));
            prop_assert!(of(spared + more, free, size) >= told, "more spared");
            prop_assert!(of(spared, free + more, size) <= told, "more cores free");
            prop_assert!(of(spared, free, size + more) >= told, "a larger guest");
        }
    }
}
