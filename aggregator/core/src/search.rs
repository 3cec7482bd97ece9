//! The best move of every guest on the cluster as it is planned so far, and of these the one that is worth most.
//!
//! A move is worth its improvement less what it needs to gain at least. Ties go to the lower vmid, then the lower node
//! name. A group that moves as one stands under its first member.

use crate::charges::Charges;
use crate::pipeline::guest_success::rank_factor;
use crate::plan::Planner;
use crate::policy::Policy;
use crate::recommend;
use crate::repair::Rules;
use crate::score::fleet::{Fleet, NodeLoad};
use crate::score::season::{self, Season};
use crate::snapshot::{NodeState, Snapshot, takes_part};

/// A possible move of one guest, or of all that move as one, which the first of them stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Possible {
    pub target: usize,
    pub improvement: f64,
    pub needed: f64,
    /// Whether what is needed is raised because the day's moves run out.
    pub dear: bool,
    /// What it is worth when moves are ranked, by the guest's record; 1 at best.
    rank: f64,
}

impl Possible {
    fn net(&self) -> f64 {
        self.improvement - self.needed
    }
}

/// What the search asks of every guest again and again, kept until a planned move changes it.
pub(crate) struct Known {
    /// What single guests add to nodes.
    pub charges: Charges,
    /// By guest, whether it breaks a rule that tags make.
    breaks: Vec<bool>,
    /// By guest, what its moves are worth by its record.
    ranks: Vec<f64>,
}

impl Known {
    pub(crate) fn of(rules: &Rules<'_>, policy: &Policy) -> Self {
        let guests = 0..rules.fleet.place.len();
        let rank = |guest: usize| rank_factor(rules.snapshot.guests[guest].vmid, rules.facts, policy);
        Self {
            charges: Charges::of(rules.fleet),
            breaks: guests.clone().map(|guest| rules.breaks(guest)).collect(),
            ranks: guests.map(rank).collect(),
        }
    }

    /// A guest has left a node for another.
    pub(crate) fn moved(&mut self, guest: usize, nodes: [usize; 2], rules: &Rules<'_>) {
        nodes.iter().for_each(|&node| self.charges.forget(node));
        let near = &rules.facts.near[guest];
        for &other in near.together.iter().chain(&near.apart).chain([&guest]) {
            self.breaks[other] = rules.breaks(other);
        }
    }
}

impl Planner<'_> {
    /// The move that is worth most, if any is worth it. Groups on their way come first: they are not to stand split.
    pub(crate) fn pick(&self) -> Option<(usize, Possible)> {
        let worth = self.best.iter().enumerate().filter_map(|(guest, best)| {
            best.filter(|option| !self.closed[guest] && option.net() >= 0.0).map(|option| (guest, option))
        });
        // The first of equals: guests are in order of vmid.
        let value = |&(guest, option): &(usize, Possible)| {
            (self.facts.bundles.follows(guest).is_some(), option.rank * option.net())
        };
        worth.reduce(|a, b| if value(&b) > value(&a) { b } else { a })
    }

    /// Finds every guest's best move on the cluster as it is now planned.
    pub(crate) fn refresh(&mut self) {
        let sources = self.sources();
        // What tags ask for is put right while guests move anyway.
        let repairs = self.policy.enforce_rules || self.sources_before.contains(&true);
        for guest in 0..self.best.len() {
            let bundles = &self.facts.bundles;
            let unit = bundles.unit(&guest);
            let breaks = || unit.iter().any(|&member| self.known.breaks[member]);
            let wanted = sources[self.fleet.place[guest]]
                || bundles.follows(guest).is_some()
                || (repairs && !bundles.under_way(guest) && breaks());
            // Nothing can be moved from a node that is not there.
            let there = takes_part(&self.snapshot.nodes[self.fleet.place[guest]]);
            let open = unit[0] == guest && !self.closed[guest] && there && wanted;
            self.best[guest] = if open { self.best_of(guest) } else { None };
        }
    }

    pub(crate) fn best_of(&self, guest: usize) -> Option<Possible> {
        let (fleet, rules) = (&self.fleet, self.rules());
        let (unit, bundles) = (self.facts.bundles.unit(&guest), &self.facts.bundles);
        let price = self.price(fleet.place[guest]);
        // What has to leave has no price.
        let needed = if fleet.nodes[fleet.place[guest]].leaving {
            0.0
        } else {
            recommend::needed(&rules, guest, self.policy, price)
        };
        let rank = unit.iter().map(|&member| self.known.ranks[member]).fold(1.0, f64::min);
        let alone = unit.len() == 1;
        let wrong = if alone && self.known.breaks[guest] { rules.wrong(guest) } else { 0 };
        let (follows, charges) = (bundles.follows(guest), &self.known.charges);
        let relief = charges.relief(fleet, guest);
        let mut best: Option<Possible> = None;
        for target in 0..fleet.nodes.len() {
            let possible =
                fleet.nodes[target].takes && target != fleet.place[guest] && fleet.fits(unit, target);
            let elsewhere = follows.is_some_and(|there| there != target);
            if !possible || elsewhere || self.barred[guest].contains(&target) {
                continue;
            }
            let improvement = if alone {
                relief + charges.charge(fleet, guest, target) + rules.gain_of(guest, wrong, target)
            } else {
                recommend::improvement(&rules, guest, target)
            };
            if fleet.evens_out {
                let evening = recommend::evening(&rules, guest, target);
                if evening > 0.0 && improvement < evening {
                    continue; // Evener, but worse.
                }
            }
            if best.is_none_or(|best| improvement > best.improvement) {
                best = Some(Possible { target, improvement, needed, dear: price.scarcity > 1.0, rank });
            }
        }
        best
    }

    /// Nodes that have something to be relieved of: over a threshold, or to be emptied.
    pub(crate) fn sources(&self) -> Vec<bool> {
        sources(&self.snapshot, &self.fleet, self.policy)
    }
}

/// Nodes over a threshold, by what is measured or by what is expected, and those where work is expected to wait.
pub(crate) fn over_threshold(snapshot: &Snapshot, fleet: &Fleet, policy: &Policy) -> Vec<bool> {
    let seasons = season::usual(snapshot, fleet, policy);
    let over = |((node, load), season): ((&NodeState, &NodeLoad), &Season)| {
        let now = 100.0 * (node.cpu_used + node.cpu_waited) / load.cores;
        takes_part(node)
            && (season.counts(now.max(load.cpu_percent()) > policy.cpu_threshold || load.waits())
                || load.memory_percent() > policy.mem_threshold
                || load.pressure_percent() > policy.pressure_threshold)
    };
    snapshot.nodes.iter().zip(&fleet.nodes).zip(&seasons).map(over).collect()
}

/// A node at ease gives nothing away, unless evenness counts: evening out what nobody feels only costs.
pub(crate) fn sources(snapshot: &Snapshot, fleet: &Fleet, policy: &Policy) -> Vec<bool> {
    let over = over_threshold(snapshot, fleet, policy);
    over.iter().zip(&fleet.nodes).map(|(over, load)| *over || load.leaving || load.above_even()).collect()
}
