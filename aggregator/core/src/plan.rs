//! The search: best move, judged, folded in, next.
//!
//! Each round takes the move with the highest improvement after its price, asks the filters, and, if none objects,
//! continues on the cluster as it will be then. A move that is held leaves the search; its guest's next best target
//! takes its place, unless the objection holds for every target. Ties go to the lower vmid, then the lower node name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_common::decision::{Action, Decision, Mover, Recommendation, Step, Trail, Verdict};
use evenkeel_common::id::DecisionId;
use evenkeel_common::reason::Reason;

use crate::pipeline::affinity::concerns_guest;
use crate::pipeline::guest_success::rank_factor;
use crate::pipeline::{self, Context, Facts, Filter, Memory, Observed, persistence};
use crate::policy::{Mode, Policy};
use crate::recommend::{self, Price};
use crate::repair::Rules;
use crate::score::fleet::Fleet;
use crate::score::season::{self, Season};
use crate::snapshot::{Candidate, Snapshot, takes_part};

/// Moves that one run judges at most; keeps a cluster full of objections from taking for ever.
const MAX_JUDGED: usize = 20_000;

/// Held moves that are listed as decisions; the rest shows up in what explains nodes and guests.
const MAX_HELD: usize = 10;

/// Times `min_improvement` that a move must gain while a plan evens out: few moves that do much.
const EVENING: f64 = 6.0;

/// How much may happen at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    per_run: u32,
    concurrent: u32,
    /// One out of and one into a node at a time.
    one_per_node: bool,
    per_day: u32,
    /// Decisions that are listed at most, held ones not counted.
    listed: usize,
    /// The whole plan at once.
    whole: bool,
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

/// A possible move of one guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Possible {
    pub target: usize,
    pub improvement: f64,
    pub needed: f64,
    /// What it is worth when moves are ranked, by the guest's record; 1 at best.
    rank: f64,
}

impl Possible {
    fn net(&self) -> f64 {
        self.improvement - self.needed
    }
}

/// The best move of a guest that a filter held, as it was judged.
pub(crate) struct Held {
    pub recommendation: Recommendation,
    pub step: Step,
    pub action: Action,
    pub reason: Reason,
    trail: Trail,
}

/// The state of the search.
pub(crate) struct Planner<'a> {
    pub snapshot: Snapshot,
    pub policy: &'a Policy,
    memory: &'a Memory,
    limits: Limits,
    steps: [Box<dyn Filter>; 13],
    facts: Facts,
    /// Expected loads before any move of this run.
    pub before: Fleet,
    pub fleet: Fleet,
    /// Nodes that had something to be relieved of before any move.
    pub sources_before: Vec<bool>,
    /// How much dearer moves are for how little there is to win.
    ease: f64,
    /// Whether every filter is asked for the trail.
    ask_all: bool,
    /// Guests out of the search: decided, or no candidates.
    closed: Vec<bool>,
    /// Targets a filter objected to, by guest.
    barred: Vec<Vec<usize>>,
    /// Best move left of each guest, even if it is not worth it.
    pub best: Vec<Option<Possible>>,
    pub held: BTreeMap<usize, Held>,
    pub decisions: Vec<Decision>,
    observed: Vec<Observed>,
    outs: BTreeSet<usize>,
    ins: BTreeSet<usize>,
    accepted: u32,
    /// Own moves of the last 24 hours that are over.
    made_today: u32,
}

impl<'a> Planner<'a> {
    /// Starts from a sorted snapshot whose own migrations under way are applied to it.
    pub(crate) fn new(
        snapshot: Snapshot,
        policy: &'a Policy,
        memory: &'a Memory,
        limits: Limits,
        ask_all: bool,
    ) -> Self {
        let mut fleet = Fleet::of(&snapshot, policy);
        let facts = Facts::of(&snapshot);
        let sources_before = sources(&snapshot, &fleet, policy);
        let day = snapshot.at.before(Duration::from_secs(24 * 3600));
        let own = snapshot.history.iter().filter(|past| past.by == Mover::Evenkeel && past.at > day).count();
        // Who asks for a plan wants the cluster in order, and has no later run to wait for. On a calm one nothing is
        // out of order, and what was put in order today is not shuffled again.
        if limits.whole && own == 0 && sources_before.contains(&true) {
            fleet.even_out();
        }
        let ease = if limits.whole { Price::PLAIN.ease } else { recommend::ease(&fleet) };
        let flights = || snapshot.in_flight.iter();
        let outs = flights().filter_map(|flight| snapshot.node_index(&flight.from)).collect();
        let ins = flights().filter_map(|flight| snapshot.node_index(flight.to.as_ref()?)).collect();
        let closed = snapshot.guests.iter().map(|guest| not_a_candidate(guest).is_some()).collect();
        let guests = snapshot.guests.len();
        Self {
            made_today: u32::try_from(own).unwrap_or(u32::MAX),
            steps: pipeline::standard(policy),
            sources_before,
            ease,
            before: fleet.clone(),
            best: vec![None; guests],
            snapshot,
            policy,
            memory,
            limits,
            facts,
            fleet,
            ask_all,
            closed,
            barred: vec![Vec::new(); guests],
            held: BTreeMap::new(),
            decisions: Vec::new(),
            observed: Vec::new(),
            outs,
            ins,
            accepted: 0,
        }
    }

    /// Searches until no move is worth it.
    pub(crate) fn search(&mut self) {
        if self.fleet.evens_out() {
            // The moves that even most out are also the fewest that relieve; what is then still too full is next.
            self.ease = EVENING;
            self.rounds();
            self.fleet.as_it_is();
            self.ease = Price::PLAIN.ease;
        }
        self.rounds();
        self.list_held();
    }

    fn rounds(&mut self) {
        self.refresh();
        for _ in 0..MAX_JUDGED {
            let Some((guest, option)) = self.pick() else { break };
            let migration = self.snapshot.move_at(guest, self.fleet.place[guest], option.target);
            match pipeline::first_objection(&self.steps, &migration, &self.context(migration.source_index)) {
                Some((step, verdict)) => self.hold(guest, option, step, verdict),
                None => {
                    self.accept(guest, option);
                    if self.decisions.len() >= self.limits.listed {
                        break;
                    }
                    self.refresh();
                }
            }
        }
    }

    /// For moves from a node.
    fn context(&self, source: usize) -> Context<'_> {
        Context {
            snapshot: &self.snapshot,
            fleet: &self.fleet,
            before: &self.before,
            facts: &self.facts,
            policy: self.policy,
            price: self.price(source),
        }
    }

    /// The rules that tags make, on the cluster as it is now planned.
    pub(crate) fn rules(&self) -> Rules<'_> {
        Rules { snapshot: &self.snapshot, facts: &self.facts, fleet: &self.fleet }
    }

    /// The same before any move of this run.
    fn rules_before(&self) -> Rules<'_> {
        Rules { fleet: &self.before, ..self.rules() }
    }

    /// How dear a move from a node is. Where guests wait already, nothing is at ease.
    fn price(&self, source: usize) -> Price {
        let waits = self.before.nodes[source].pressure_percent() > self.policy.pressure_threshold;
        let ease = if waits { Price::PLAIN.ease } else { self.ease };
        Price { scarcity: recommend::scarcity(self.used_today(), self.limits.per_day), ease }
    }

    /// Moves of the last 24 hours, with those under way and those of this run.
    fn used_today(&self) -> u32 {
        self.made_today.saturating_add(self.running())
    }

    fn running(&self) -> u32 {
        u32::try_from(self.snapshot.in_flight.len()).unwrap_or(u32::MAX).saturating_add(self.accepted)
    }

    /// The move that is worth most, if any is worth it.
    fn pick(&self) -> Option<(usize, Possible)> {
        let worth = self.best.iter().enumerate().filter_map(|(guest, best)| {
            best.filter(|option| !self.closed[guest] && option.net() >= 0.0).map(|option| (guest, option))
        });
        // The first of equals: guests are in order of vmid.
        worth.reduce(|a, b| if b.1.rank * b.1.net() > a.1.rank * a.1.net() { b } else { a })
    }

    /// Finds every guest's best move on the cluster as it is now planned.
    fn refresh(&mut self) {
        let sources = self.sources();
        // What tags ask for is put right while guests move anyway.
        let repairs = self.policy.enforce_rules || self.sources_before.contains(&true);
        for guest in 0..self.best.len() {
            let wanted = sources[self.fleet.place[guest]] || (repairs && self.rules().breaks(guest));
            let open = !self.closed[guest] && wanted;
            self.best[guest] = if open { self.best_of(guest) } else { None };
        }
    }

    fn best_of(&self, guest: usize) -> Option<Possible> {
        let fleet = &self.fleet;
        let relief = recommend::relief(fleet, guest);
        // What has to leave has no price.
        let needed = if fleet.nodes[fleet.place[guest]].leaving {
            0.0
        } else {
            recommend::needed(&self.snapshot.guests[guest], self.policy, self.price(fleet.place[guest]))
        };
        let rank = rank_factor(self.snapshot.guests[guest].vmid, &self.facts, self.policy);
        let rules = self.rules();
        let mut best: Option<Possible> = None;
        for target in 0..fleet.nodes.len() {
            let possible =
                fleet.nodes[target].takes && target != fleet.place[guest] && fleet.fits(guest, target);
            if !possible || self.barred[guest].contains(&target) {
                continue;
            }
            let improvement = relief + recommend::charge(fleet, guest, target) + rules.gain(guest, target);
            let evening = recommend::evening(fleet, guest, target);
            if evening > 0.0 && improvement < evening {
                continue; // Evener, but worse.
            }
            if best.is_none_or(|best| improvement > best.improvement) {
                best = Some(Possible { target, improvement, needed, rank });
            }
        }
        best
    }

    /// Nodes that have something to be relieved of: over a threshold, or to be emptied.
    pub(crate) fn sources(&self) -> Vec<bool> {
        sources(&self.snapshot, &self.fleet, self.policy)
    }

    fn recommendation(&self, guest: usize, target: usize) -> Recommendation {
        let migration = self.snapshot.move_at(guest, self.fleet.place[guest], target);
        recommend::recommendation(&migration, &self.rules(), self.policy)
    }

    fn trail(&self, guest: usize, target: usize) -> Trail {
        let migration = self.snapshot.move_at(guest, self.fleet.place[guest], target);
        let ask = if self.ask_all { pipeline::explain } else { pipeline::run };
        ask(&self.steps, &migration, &self.context(migration.source_index))
    }

    fn hold(&mut self, guest: usize, option: Possible, step: Step, verdict: Verdict) {
        let Some((action, reason)) = verdict.objection() else { return };
        if !self.held.contains_key(&guest) {
            let mut recommendation = self.recommendation(guest, option.target);
            if step == Step::Conflict {
                recommendation.conflict = Some(reason.clone());
            }
            let trail = self.trail(guest, option.target);
            self.held.insert(guest, Held { recommendation, step, action, reason: reason.clone(), trail });
        }
        if concerns_guest(reason) {
            self.closed[guest] = true;
        }
        self.barred[guest].push(option.target);
        self.best[guest] = if self.closed[guest] { None } else { self.best_of(guest) };
    }

    fn accept(&mut self, guest: usize, option: Possible) {
        let recommendation = self.recommendation(guest, option.target);
        let trail = self.trail(guest, option.target);
        let entry = self.observe(guest, &recommendation);
        let gate = persistence::gate(self.snapshot.at, self.memory.since, &entry, self.policy);
        self.observed.push(entry);
        let before = recommend::objective(&self.rules());
        let after = before - recommendation.improvement;
        let (action, reason) = if let Some(reason) = gate {
            (Action::Observing, reason)
        } else if let Some(reason) = self.limit(guest, option.target) {
            (Action::Skipped, reason)
        } else {
            self.accepted += 1;
            self.outs.insert(self.fleet.place[guest]);
            self.ins.insert(option.target);
            match self.policy.mode {
                Mode::Advise => (Action::Recommended, Reason::Advised { before, after }),
                Mode::Approve => (Action::AwaitingApproval, Reason::NeedsApproval { before, after }),
                Mode::Auto => (Action::Pending, Reason::Accepted { before, after }),
            }
        };
        self.held.remove(&guest);
        self.closed[guest] = true;
        self.list(recommendation, action, None, reason, trail);
        let target = self.snapshot.nodes[option.target].id.clone();
        self.snapshot.apply(&Candidate { guest: self.snapshot.guests[guest].vmid, target });
        self.fleet.apply(guest, option.target);
    }

    /// The limit that keeps an accepted move from this run.
    fn limit(&self, guest: usize, target: usize) -> Option<Reason> {
        let limits = &self.limits;
        let (running, moved) = (self.running(), self.used_today());
        let source = self.fleet.place[guest];
        let busy = |node: usize, into| Reason::LimitNode { node: self.snapshot.nodes[node].id.clone(), into };
        if self.accepted >= limits.per_run {
            Some(Reason::LimitRun { limit: limits.per_run })
        } else if moved >= limits.per_day && !self.fleet.nodes[source].leaving {
            let per_node = self.policy.max_migrations_per_day;
            Some(Reason::LimitDay { moved, limit: limits.per_day, per_node })
        } else if running >= limits.concurrent {
            Some(Reason::LimitConcurrent { limit: limits.concurrent, running })
        } else if limits.one_per_node && self.outs.contains(&source) {
            Some(busy(source, false))
        } else if limits.one_per_node && self.ins.contains(&target) {
            Some(busy(target, true))
        } else {
            None
        }
    }

    /// The persistence entry of a recommendation: it goes on if the last run's was for the same guest and source, and
    /// its target is no better than this one.
    fn observe(&self, guest: usize, new: &Recommendation) -> Observed {
        let same = |old: &&Observed| {
            let old_target = self.snapshot.node_index(&old.target);
            old.target == new.target
                || old_target.is_none_or(|old| {
                    !self.fleet.nodes[old].takes
                        || recommend::improvement(&self.rules(), guest, old) <= new.improvement
                })
        };
        let previous = self.memory.matching(new.guest, &new.source).filter(same);
        persistence::observe(self.snapshot.at, (new.guest, &new.source, &new.target), previous, self.policy)
    }

    fn list(
        &mut self,
        recommendation: Recommendation,
        action: Action,
        filter: Option<Step>,
        reason: Reason,
        trail: Trail,
    ) {
        let number = u32::try_from(self.decisions.len() + 1).unwrap_or(u32::MAX);
        let id =
            DecisionId { cluster: self.snapshot.cluster.clone(), run_s: self.snapshot.at.as_secs(), number };
        self.decisions.push(Decision { id, recommendation, action, filter, reason, trail });
    }

    /// The best of the held moves become decisions; all of them are remembered for persistence.
    fn list_held(&mut self) {
        let mut order: Vec<_> = self.held.keys().copied().collect();
        order.sort_by(|a, b| {
            self.held[b].recommendation.improvement.total_cmp(&self.held[a].recommendation.improvement)
        });
        for (rank, guest) in order.into_iter().enumerate() {
            let Held { recommendation, step, action, reason, trail } = &self.held[&guest];
            let (recommendation, reason, trail) = (recommendation.clone(), reason.clone(), trail.clone());
            let (step, action) = (*step, *action);
            let entry = self.observe(guest, &recommendation);
            self.observed.push(entry);
            if rank < MAX_HELD {
                self.list(recommendation, action, Some(step), reason, trail);
            }
        }
    }

    /// What the next run needs to know.
    pub(crate) fn memory(&mut self) -> Memory {
        let mut observed = std::mem::take(&mut self.observed);
        observed.sort_by_key(|entry| entry.guest);
        Memory { since: self.memory.since.or(Some(self.snapshot.at)), observed }
    }

    /// Tags that could not be followed, and those that are not.
    pub(crate) fn warnings(&self) -> Vec<Reason> {
        let mut warnings = self.facts.warnings();
        warnings.extend(self.rules_before().warnings());
        warnings
    }
}

/// Why a guest is no candidate, wherever it could go.
pub(crate) fn not_a_candidate(guest: &crate::snapshot::GuestState) -> Option<Reason> {
    if guest.template {
        Some(Reason::GuestTemplate {})
    } else if !guest.running {
        Some(Reason::GuestStopped {})
    } else if let Some(lock) = &guest.lock {
        Some(Reason::GuestLocked { lock: lock.clone() })
    } else if guest.cpu_used.is_none() {
        Some(Reason::GuestUnknownLoad {})
    } else {
        None
    }
}

/// Nodes over a threshold, by what is measured or by what is expected, and those where work is expected to wait.
pub(crate) fn over_threshold(snapshot: &Snapshot, fleet: &Fleet, policy: &Policy) -> Vec<bool> {
    let seasons = season::usual(snapshot, fleet, policy);
    let over =
        |((node, load), season): ((&crate::snapshot::NodeState, &crate::score::fleet::NodeLoad), &Season)| {
            let now = 100.0 * (node.cpu_used + node.cpu_waited) / load.cores;
            takes_part(node)
                && (season.counts(now.max(load.cpu_percent()) > policy.cpu_threshold || load.waits())
                    || load.memory_percent() > policy.mem_threshold
                    || load.pressure_percent() > policy.pressure_threshold)
        };
    snapshot.nodes.iter().zip(&fleet.nodes).zip(&seasons).map(over).collect()
}

/// A node at ease gives nothing away, unless evenness counts: evening out what nobody feels only costs.
fn sources(snapshot: &Snapshot, fleet: &Fleet, policy: &Policy) -> Vec<bool> {
    let over = over_threshold(snapshot, fleet, policy);
    over.iter().zip(&fleet.nodes).map(|(over, load)| *over || load.leaving || load.above_even()).collect()
}
