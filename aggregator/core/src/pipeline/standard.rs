//! THE ORDER of the filters: a contract (spec E5), and policy: safety before benefit, cheap before dear.

use super::affinity::Affinity;
use super::confidence::Confidence;
use super::conflict::Conflict;
use super::cooldown::Cooldown;
use super::cost_benefit::CostBenefit;
use super::cycle::Cycle;
use super::guest_success::GuestSuccess;
use super::improvement::Improvement;
use super::outcome::Outcome;
use super::pattern::Pattern;
use super::risk::Risk;
use super::rollback::Rollback;
use super::trend::Trend;
use super::{Filter, Policy};

/// The thirteen filters in order; each reads its options from the context's policy.
#[must_use]
#[rustfmt::skip] // One line each, with its reason.
pub fn standard(policy: &Policy) -> [Box<dyn Filter>; 13] {
    let on = policy.toggles();
    [
        Box::new(Cooldown),                    // A guest that just moved tells nothing yet, whoever moved it.
        Box::new(Rollback),                    // Going back at once proves one of the two moves wrong.
        Box::new(Cycle { enabled: on.cycle }), // So does going round in a circle.
        Box::new(Confidence),                  // Not sure enough: the rest need not be asked.
        Box::new(Conflict),                    // Moves of one run must not add up to a new hot spot.
        Box::new(Risk),                        // What could hurt needs more certainty.
        Box::new(Trend),                       // A load that is going away needs no move.
        Box::new(Outcome),                     // This pair of nodes has disappointed before.
        Box::new(Pattern),                     // Not in the daily peak.
        Box::new(Affinity),                    // What admin, HA and hardware allow.
        Box::new(CostBenefit),                 // Worth its minutes?
        Box::new(GuestSuccess),                // This guest has disappointed before.
        Box::new(Improvement),                 // Last: is the cluster better off, with all of the above settled?
    ]
}
