//! The search: best move, judged, folded in, next.
//!
//! Each round takes the move with the highest improvement after its price, asks the filters, and, if none objects,
//! continues on the cluster as it will be then. A move that is held leaves the search; its guest's next best target
//! takes its place, unless the objection holds for every target. Ties go to the lower vmid, then the lower node name.
//! A group that stands complete on one node is searched as if it were one guest (see [`crate::bundle`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_common::decision::{Action, Decision, Mover, Recommendation, Step, Trail};
use evenkeel_common::id::DecisionId;
use evenkeel_common::reason::Reason;
use evenkeel_common::units::Bytes;

use crate::bundle;
use crate::charges::Charges;
use crate::limits::{self, Limits};
use crate::pipeline::affinity::concerns_guest;
use crate::pipeline::{self, Context, Facts, Filter, Memory, Observed, persistence};
use crate::policy::{Mode, Policy};
use crate::recommend::{self, Price};
use crate::repair::Rules;
use crate::score::fleet::Fleet;
use crate::score::spare::Supposed;
use crate::search::{self, Known, Possible};
use crate::snapshot::{Candidate, Snapshot, takes_part};

/// Moves that one run judges at most; keeps a cluster full of objections from taking for ever.
const MAX_JUDGED: usize = 20_000;

/// Held moves that are listed as decisions; the rest shows up in what explains nodes and guests.
const MAX_HELD: usize = 10;

/// Times `min_improvement` that a move must gain while a plan evens out: few moves that do much.
const EVENING: f64 = 30.0;

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
    pub memory: &'a Memory,
    pub limits: Limits,
    steps: [Box<dyn Filter>; 13],
    pub facts: Facts,
    /// Expected loads before any move of this run.
    pub before: Fleet,
    pub fleet: Fleet,
    /// What the search knows of `fleet`.
    pub known: Known,
    /// Nodes that had something to be relieved of before any move.
    pub sources_before: Vec<bool>,
    /// How much dearer moves are for how little there is to win.
    pub ease: f64,
    /// Whether every filter is asked for the trail.
    ask_all: bool,
    /// Guests out of the search: decided, or no candidates.
    pub closed: Vec<bool>,
    /// Targets a filter objected to, by guest.
    pub barred: Vec<Vec<usize>>,
    /// Best move left of each guest, even if it is not worth it.
    pub best: Vec<Option<Possible>>,
    pub held: BTreeMap<usize, Held>,
    pub decisions: Vec<Decision>,
    observed: Vec<Observed>,
    pub outs: BTreeSet<usize>,
    pub ins: BTreeSet<usize>,
    pub accepted: u32,
    /// Own moves of the last 24 hours that are over.
    pub made_today: u32,
    /// Moves that groups on their way still need.
    pub owed: u32,
    /// Groups on their way that can not go on, each with its reason.
    pub stuck: Vec<Reason>,
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
        let facts = Facts::of(&snapshot, &memory.advised);
        let sources_before = search::sources(&snapshot, &fleet, policy);
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
        let known = Known::of(&Rules { snapshot: &snapshot, facts: &facts, fleet: &fleet }, policy);
        let owed = facts.bundles.following().map(|bundle| bundle.members.len()).sum();
        Self {
            owed: limits::count(owed),
            stuck: facts.bundles.stuck.clone(),
            made_today: limits::count(own),
            steps: pipeline::standard(policy),
            sources_before,
            ease,
            before: fleet.clone(),
            known,
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
        if self.fleet.evens_out {
            // The moves that even most out are also the fewest that relieve; what is then still too full, or a tag that
            // is broken, is next.
            self.ease = EVENING;
            self.rounds();
            self.fleet.as_it_is();
            // What was held for gaining too little evenness may be worth it now, at the lower price.
            self.barred.iter_mut().for_each(Vec::clear);
            for guest in std::mem::take(&mut self.held).into_keys() {
                self.closed[guest] = not_a_candidate(&self.snapshot.guests[guest]).is_some();
            }
            self.known.charges = Charges::of(&self.fleet);
            self.ease = Price::PLAIN.ease;
        }
        self.rounds();
        self.stuck.extend(bundle::stuck_now(self));
        self.list_held();
    }

    fn rounds(&mut self) {
        self.refresh();
        for _ in 0..MAX_JUDGED {
            let Some((guest, option)) = self.pick() else { break };
            let migration = self.snapshot.move_at(guest, self.fleet.place[guest], option.target);
            match pipeline::first_objection(&self.steps, &migration, &self.context(migration.source_index)) {
                Some(objection) => self.hold(guest, option, &objection),
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
    pub(crate) fn context(&self, source: usize) -> Context<'_> {
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
    pub(crate) fn rules_before(&self) -> Rules<'_> {
        Rules { fleet: &self.before, ..self.rules() }
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

    /// Whoever moves with a guest: itself first.
    fn unit(&self, guest: usize) -> Vec<usize> {
        let candidate = |&member: &usize| not_a_candidate(&self.snapshot.guests[member]).is_none();
        self.facts.bundles.unit(&guest).iter().copied().filter(candidate).collect()
    }

    fn hold(&mut self, guest: usize, option: Possible, objection: &Reason) {
        for member in self.unit(guest) {
            if self.held.contains_key(&member) {
                continue;
            }
            let mut recommendation = self.recommendation(member, option.target);
            let trail = self.trail(member, option.target);
            let Some((step, action, reason)) = trail.stopped() else { continue };
            let reason = reason.clone();
            if step == Step::Conflict {
                recommendation.conflict = Some(reason.clone());
            }
            self.held.insert(member, Held { recommendation, step, action, reason, trail });
        }
        if concerns_guest(objection) {
            self.closed[guest] = true;
        }
        self.barred[guest].push(option.target);
        self.best[guest] = if self.closed[guest] { None } else { self.best_of(guest) };
    }

    fn accept(&mut self, guest: usize, option: Possible) {
        let unit = self.unit(guest);
        let alone =
            |member: &usize| self.facts.bundles.bundle(*member).is_none_or(|b| b.along(*member).is_none());
        // All are judged on the cluster as it is before any of them has moved.
        let judge = |member| {
            let recommendation = self.recommendation(member, option.target);
            let entry = self.observe(member, &recommendation);
            (member, recommendation, self.trail(member, option.target), entry)
        };
        let judged: Vec<_> = unit.iter().copied().filter(alone).map(judge).collect();
        let gate = |entry| persistence::gate(self.snapshot.at, self.memory.since, entry, self.policy);
        // A group does not set out before all of it may.
        let gate = judged.iter().find_map(|(.., entry)| gate(entry));
        let too_many = self.limit_group(guest, judged.len());
        let sets_out = gate.is_none() && too_many.is_none() && self.limit(guest, option.target).is_none();
        if sets_out && unit.len() > 1 && self.facts.bundles.follows(guest).is_none() {
            self.owed += limits::count(judged.len()); // From now on the day's moves are promised to all of it.
        }
        let before = recommend::objective(&self.rules());
        for (member, recommendation, trail, entry) in judged {
            self.observed.push(entry);
            let after = before - recommendation.improvement;
            let limit = || too_many.clone().or_else(|| self.limit(member, option.target));
            let (action, reason) = if let Some(reason) = gate.clone() {
                (Action::Observing, reason)
            } else if let Some(reason) = limit() {
                (Action::Skipped, reason)
            } else {
                self.go(member, option.target);
                match self.policy.mode {
                    Mode::Advise => (Action::Recommended, Reason::Advised { before, after }),
                    Mode::Approve => (Action::AwaitingApproval, Reason::NeedsApproval { before, after }),
                    Mode::Auto => (Action::Pending, Reason::Accepted { before, after }),
                }
            };
            self.list(recommendation, action, None, reason, trail);
        }
        for member in unit {
            self.held.remove(&member);
            self.closed[member] = true;
            let target = self.snapshot.nodes[option.target].id.clone();
            self.snapshot.apply(&Candidate { guest: self.snapshot.guests[member].vmid, target });
            let nodes = [self.fleet.place[member], option.target];
            self.fleet.apply(member, option.target);
            self.known.moved(
                member,
                nodes,
                &Rules { snapshot: &self.snapshot, facts: &self.facts, fleet: &self.fleet },
            );
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
        let (since, advised) = (self.memory.since.or(Some(self.snapshot.at)), self.advised());
        Memory { since, observed, advised }
    }

    /// Tags that could not be followed, and those that are not.
    pub(crate) fn warnings(&self) -> Vec<Reason> {
        let mut warnings = self.facts.warnings();
        warnings.extend(self.policy.unknown_in_rooms(&self.snapshot.nodes));
        warnings.extend(self.stuck.iter().cloned());
        warnings.extend(self.rules_before().warnings());
        warnings.extend(self.spare_short());
        warnings
    }
}

impl Planner<'_> {
    /// Nodes that the cluster could not lose as it stands, before any move of this run.
    fn spare_short(&self) -> Option<Reason> {
        let there = |node: usize| takes_part(&self.snapshot.nodes[node]);
        if (0..self.snapshot.nodes.len()).filter(|&node| there(node)).count() < 2 {
            return None; // Nobody expects more of it.
        }
        let stranded = Supposed::as_is(&self.before).stranded();
        let short: Vec<_> = stranded
            .iter()
            .enumerate()
            .filter(|&(node, stranded)| stranded.guests > 0 && there(node))
            .collect();
        let &(_, worst) = short.iter().max_by(|a, b| a.1.memory.total_cmp(&b.1.memory))?;
        let nodes = short.iter().map(|&(node, _)| self.snapshot.nodes[node].id.clone()).collect();
        Some(Reason::SpareShort { nodes, guests: worst.guests, memory: Bytes::from_f64(worst.memory) })
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
