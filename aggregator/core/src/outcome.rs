//! Whether a move helped: what waited for CPU afterwards, against what would have waited had the guest stayed.
//!
//! At each later moment the demand of both nodes and of the guest (used and waited for) is known. The guest's is put
//! back on the source and taken off the target, and what waits is reckoned for both cases by [`waiting`]'s rule. A move
//! helped when over the [`HOURS`] that decisions look ahead less has waited on the two nodes together. Where nothing
//! would have waited anyway it was not needed, so it did not help. Work counts as waiting from where vCPUs begin to
//! queue, which is before a node is full; with a variance of 0, the stricter reading, only what exceeds the cores does.
//!
//! Both cases are reckoned from demand by one rule, instead of one measured and one reckoned: what the rule gets wrong
//! is then wrong in both. What else happens on the nodes meanwhile is in both, too.

use serde::{Deserialize, Serialize};

use crate::score::{forecast, waiting};

/// Hours after its arrival over which a move is judged: as many as decisions look ahead.
#[allow(clippy::cast_precision_loss)] // Four.
pub const HOURS: f64 = forecast::HOURS as f64;

/// Core hours that a move spares at least when it helped: 36 core seconds in four hours are nothing that anybody feels.
pub(crate) const TRIFLE: f64 = 0.01;

/// What a guest, or all on a node, wants to run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// Cores used and waited for.
    pub cores: f64,
    /// Variance of the runnable vCPUs around that, in cores squared: `d (1 - d / v)` for a guest that wants `d` of its
    /// `v` vCPUs; for a node the sum.
    pub variance: f64,
}

/// A short while after a move, minutes as a rule, in which demand hardly changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// How long it was.
    pub hours: f64,
    /// Cores of the source.
    pub source_cores: f64,
    /// What was wanted on the source, without the guest.
    pub source: Demand,
    /// Cores of the target.
    pub target_cores: f64,
    /// What was wanted on the target, with the guest.
    pub target: Demand,
    /// What the guest wanted.
    pub guest: Demand,
}

impl Moment {
    /// The same moment with only what exceeds the cores as waiting.
    #[must_use]
    pub fn strictly(self) -> Self {
        let flat = |demand: Demand| Demand { variance: 0.0, ..demand };
        Self { source: flat(self.source), target: flat(self.target), guest: flat(self.guest), ..self }
    }

    fn is_sound(&self) -> bool {
        let Self { hours, source_cores, target_cores, source, target, guest } = *self;
        let demands = [source, target, guest].into_iter().flat_map(|demand| [demand.cores, demand.variance]);
        [hours, source_cores, target_cores]
            .into_iter()
            .chain(demands)
            .all(|value| (0.0..1e9).contains(&value))
    }
}

/// What waited after a move, and what would have without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Hours that were judged.
    pub hours: f64,
    /// Core hours that waited on source and target together.
    pub waited: f64,
    /// Core hours that would have, had the guest stayed.
    pub would_have: f64,
}

impl Outcome {
    /// Adds a moment. One with a figure that is negative or none at all tells nothing and is left out.
    pub fn add(&mut self, moment: &Moment) {
        if !moment.is_sound() {
            return;
        }
        let Moment { hours, source_cores, target_cores, source, target, guest } = *moment;
        let waits = |demand: Demand, cores: f64| waiting::expected(demand.cores, demand.variance, cores);
        let with = Demand { cores: source.cores + guest.cores, variance: source.variance + guest.variance };
        let without = Demand {
            cores: (target.cores - guest.cores).max(0.0),
            variance: (target.variance - guest.variance).max(0.0),
        };
        self.hours += hours;
        self.waited += hours * (waits(source, source_cores) + waits(target, target_cores));
        self.would_have += hours * (waits(with, source_cores) + waits(without, target_cores));
    }

    /// Core hours that did not wait thanks to the move; below zero when it made more wait.
    #[must_use]
    pub fn spared(&self) -> f64 {
        self.would_have - self.waited
    }

    /// Whether the move helped.
    #[must_use]
    pub fn helped(&self) -> bool {
        self.spared() > TRIFLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(cores: f64) -> Demand {
        Demand { cores, variance: 0.0 }
    }

    /// An hour with so much on the source (without the guest) and the target (with it), of 16 cores each.
    fn hour(source: f64, target: f64, guest: f64) -> Outcome {
        let mut outcome = Outcome::default();
        outcome.add(&Moment {
            hours: 1.0,
            source_cores: 16.0,
            source: wants(source),
            target_cores: 16.0,
            target: wants(target),
            guest: wants(guest),
        });
        outcome
    }

    #[test]
    fn what_would_have_waited_on_the_source_is_spared() {
        let outcome = hour(14.0, 10.0, 5.0);
        assert_eq!((outcome.waited, outcome.would_have, outcome.spared()), (0.0, 3.0, 3.0));
        assert!(outcome.helped());
    }

    #[test]
    fn it_did_not_help_where_nothing_waits_or_as_much_or_more() {
        for (source, target, guest, spared) in
            [(8.0, 10.0, 5.0, 0.0), (14.0, 19.0, 5.0, 0.0), (10.0, 19.0, 5.0, -3.0)]
        {
            let outcome = hour(source, target, guest);
            assert_eq!((outcome.spared(), outcome.helped()), (spared, false), "{source} {target} {guest}");
        }
    }

    #[test]
    fn moments_add_up_by_their_length() {
        let mut outcome = hour(14.0, 10.0, 5.0);
        let bad = Moment {
            hours: 2.0,
            source_cores: 16.0,
            source: wants(12.0),
            target_cores: 16.0,
            target: wants(18.0),
            guest: wants(3.0),
        };
        outcome.add(&bad);
        assert_eq!(outcome, Outcome { hours: 3.0, waited: 4.0, would_have: 3.0 });
    }

    #[test]
    fn vcpus_queue_before_a_node_is_full_but_not_in_the_strict_reading() {
        let guest = Demand { cores: 2.0, variance: 1.0 };
        let (source, target) = (Demand { cores: 13.0, variance: 8.0 }, Demand { cores: 4.0, variance: 3.0 });
        let moment = Moment { hours: 4.0, source_cores: 16.0, source, target_cores: 16.0, target, guest };
        let (mut outcome, mut strict) = (Outcome::default(), Outcome::default());
        outcome.add(&moment);
        strict.add(&moment.strictly());
        assert!(outcome.helped() && !strict.helped(), "{outcome:?} {strict:?}");
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let before = hour(14.0, 10.0, 5.0);
        for bad in [f64::NAN, f64::INFINITY, -1.0] {
            let mut outcome = before;
            let guest = Demand { cores: bad, variance: 0.0 };
            let (source, target) = (wants(9.0), wants(9.0));
            outcome.add(&Moment {
                hours: 1.0,
                source_cores: 16.0,
                source,
                target_cores: 16.0,
                target,
                guest,
            });
            assert_eq!(outcome, before, "{bad}");
        }
    }
}
