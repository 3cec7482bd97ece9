//! How much may happen at once: what keeps a move that passed all filters from this run.

use evenkeel_common::reason::Reason;

use crate::plan::Planner;
use crate::policy::Policy;
use crate::recommend::{self, Price};
use crate::snapshot::Snapshot;

/// How much may happen at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    per_run: u32,
    concurrent: u32,
    /// One out of and one into a node at a time.
    one_per_node: bool,
    per_day: u32,
    /// Decisions that are listed at most, held ones not counted.
    pub listed: usize,
    /// The whole plan at once.
    pub whole: bool,
}

impl Limits {
    /// None: the whole plan at once.
    pub(crate) const NONE: Self = Self {
        per_run: u32::MAX,
        concurrent: u32::MAX,
        one_per_node: false,
        per_day: u32::MAX,
        listed: usize::MAX,
        whole: true,
    };

    /// Those of a policy; the limit per day grows with the cluster.
    pub(crate) fn of(policy: &Policy, snapshot: &Snapshot) -> Self {
        let nodes = u32::try_from(snapshot.nodes.len()).unwrap_or(u32::MAX);
        Self {
            per_run: policy.max_migrations_per_run,
            concurrent: policy.max_concurrent_migrations,
            one_per_node: true,
            per_day: policy.max_migrations_per_day.saturating_mul(nodes),
            // More would only be skipped, and seen again by the next run.
            listed: 20.max(policy.max_migrations_per_run as usize),
            whole: false,
        }
    }
}

impl Planner<'_> {
    /// How dear a move from a node is. Where guests wait already, nothing is at ease.
    pub(crate) fn price(&self, source: usize) -> Price {
        let waits = self.before.nodes[source].pressure_percent() > self.policy.pressure_threshold;
        let ease = if waits { Price::PLAIN.ease } else { self.ease };
        // A plan at once has no day whose moves could run out.
        let scarcity = if self.limits.whole {
            Price::PLAIN.scarcity
        } else {
            recommend::scarcity(self.used_today(), self.limits.per_day)
        };
        Price { scarcity, ease }
    }

    /// Moves of a day at most, and those used of them.
    pub(crate) fn of_the_day(&self) -> (u32, u32) {
        (self.used_today(), self.limits.per_day)
    }

    /// Moves of the last 24 hours, with those under way, those of this run and those promised to groups on their way.
    pub(crate) fn used_today(&self) -> u32 {
        self.made_today.saturating_add(self.running()).saturating_add(self.owed)
    }

    fn running(&self) -> u32 {
        count(self.snapshot.in_flight.len()).saturating_add(self.accepted)
    }

    /// Counts a move that nothing limits.
    pub(crate) fn go(&mut self, guest: usize, target: usize) {
        self.accepted += 1;
        self.owed -= u32::from(self.facts.bundles.bundle(guest).is_some()).min(self.owed);
        self.outs.insert(self.fleet.place[guest]);
        self.ins.insert(target);
    }

    /// A group does not set out on a day that does not suffice for all of it.
    pub(crate) fn limit_group(&self, guest: usize, migrations: usize) -> Option<Reason> {
        let bundle = self.facts.bundles.bundle(guest).filter(|bundle| bundle.follows.is_none())?;
        let (migrations, limit) = (count(migrations), self.limits.per_day);
        let left = limit.saturating_sub(self.used_today());
        let held = migrations > left && left > 0 && !self.fleet.nodes[self.fleet.place[guest]].leaving;
        held.then(|| Reason::LimitGroup { groups: bundle.groups.clone(), migrations, left, limit })
    }

    /// The limit that keeps an accepted move from this run.
    pub(crate) fn limit(&self, guest: usize, target: usize) -> Option<Reason> {
        let limits = &self.limits;
        // What was promised to a group is its own.
        let promised = if self.facts.bundles.bundle(guest).is_some() { 0 } else { self.owed };
        let (running, used) = (self.running(), self.used_today());
        let moved = used.saturating_sub(self.owed);
        let source = self.fleet.place[guest];
        let busy = |node: usize, into| Reason::LimitNode { node: self.snapshot.nodes[node].id.clone(), into };
        if self.accepted >= limits.per_run {
            Some(Reason::LimitRun { limit: limits.per_run })
        } else if moved.saturating_add(promised) >= limits.per_day && !self.fleet.nodes[source].leaving {
            let (limit, per_node) = (limits.per_day, self.policy.max_migrations_per_day);
            Some(match promised {
                0 => Reason::LimitDay { moved, limit, per_node },
                _ => Reason::LimitPromised { moved, promised, limit },
            })
        } else if running >= limits.concurrent {
            Some(Reason::LimitConcurrent { limit: limits.concurrent, running })
        } else if limits.one_per_node && self.outs.contains(&source) {
            Some(busy(source, false))
        } else if limits.one_per_node && self.ins.contains(&target) {
            Some(busy(target, true))
        } else {
            self.limit_room(guest, target)
        }
    }

    /// What leaves a target by this run, or is leaving it, is there until it has left: its memory is not yet to be had.
    fn limit_room(&self, guest: usize, target: usize) -> Option<Reason> {
        let (fleet, before) = (&self.fleet, &self.before);
        let unit = self.facts.bundles.unit(&guest);
        let id = &self.snapshot.nodes[target].id;
        let flights = self.snapshot.in_flight.iter().filter(|flight| flight.from == *id);
        let leaving = flights.filter_map(|flight| self.snapshot.guest_index(flight.guest));
        let comes = |&other: &usize| fleet.place[other] == target && before.place[other] != target;
        let others = (0..fleet.place.len()).filter(|other| comes(other) && !unit.contains(other));
        let all = leaving.chain(others).chain(unit.iter().copied());
        let used =
            all.map(|other| fleet.guests[other].memory).sum::<f64>() + before.nodes[target].memory_used;
        let load = &fleet.nodes[target];
        let late = self.limits.one_per_node && used > load.memory - fleet.reserve_of(target);
        late.then(|| Reason::LimitRoom { target: id.clone() })
    }
}

/// A number of things, as the options count them.
pub(crate) fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}
