//! The migration decision: pure, replayable, explained. No clock, no I/O, no randomness: the same [`Snapshot`],
//! [`Policy`] and [`Memory`] give the same [`Run`], bit for bit.
//!
//! The recipe, in the order of [`decide`]:
//! 1. refuse to decide on what is paused, stale, partial or contradictory ([`suppress`]);
//! 2. [`score`] every node on what its guests are expected to need, and stop if the cluster is balanced;
//! 3. search for the best move ([`recommend`]), ask the thirteen filters ([`pipeline`]), fold it in, repeat ([`plan`]);
//! 4. hold what has not lasted yet or is over a limit;
//! 5. say for every node why nothing (else) happens to it ([`stays`]).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod aftermath;
mod bundle;
mod charges;
pub mod coexist;
pub mod confidence;
pub mod experience;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
#[cfg(test)]
mod golden;
pub mod history;
pub mod learn;
mod limits;
pub mod outcome;
pub mod pipeline;
mod plan;
pub mod policy;
pub mod preflight;
#[cfg(test)]
mod properties;
mod recommend;
pub mod record;
mod repair;
pub mod risk;
pub mod score;
mod search;
pub mod snapshot;
pub mod stays;
mod suppress;
mod urgent;
pub mod whatif;

use evenkeel_common::decision::{Decision, RunSummary};
use evenkeel_common::id::ClusterId;
use evenkeel_common::reason::Reason;
use evenkeel_common::time::Timestamp;
use serde::{Deserialize, Serialize};

pub use coexist::OtherBalancer;
pub use experience::Experience;
pub use learn::Learner;
use limits::Limits;
pub use pipeline::{Advised, Memory, Observed};
use plan::Planner;
pub use policy::{Mode, Policy, Preset};
pub use record::{Difference, ReplayError, Replayed, RunRecord, replay};
pub use risk::RiskLimits;
pub use score::NodeScore;
pub use snapshot::{
    Candidate, GuestState, HaRule, HandsOff, InFlight, Move, NodeState, PastMove, Pressure, Snapshot,
    TrailPoint,
};
pub use stays::{GuestStay, NodeStay};

/// What one run decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Which cluster.
    pub cluster: ClusterId,
    /// When: the snapshot's time.
    pub at: Timestamp,
    /// Why nothing was decided, if so. There are no decisions then.
    pub suppressed: Option<Reason>,
    /// Further reasons of the same kind, and tags that could not be followed.
    pub warnings: Vec<Reason>,
    /// The cluster's score before any move, in points: lower is better, 0 is idle.
    pub cluster_score: f64,
    /// Difference of the highest and the lowest node score, in points.
    pub spread: f64,
    /// Every node that takes part, by name.
    pub scores: Vec<NodeScore>,
    /// One per recommendation: first what passed the filters, in the order of the plan, then the best that were held.
    pub decisions: Vec<Decision>,
    /// Why nothing (else) happens to each node.
    pub stays: Vec<NodeStay>,
    /// Decisions by action.
    pub summary: RunSummary,
    /// For the next run.
    pub memory_out: Memory,
}

/// A run with everything that can be said about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// The run, with every filter asked for every decision.
    pub run: Run,
    /// Why each guest that no decision is about stays where it is.
    pub guests: Vec<GuestStay>,
}

/// Decides. Call it every `decision_interval` with a fresh snapshot and the last run's `memory_out`.
#[must_use]
pub fn decide(input: &Snapshot, policy: &Policy, memory: &Memory) -> Run {
    work(input, policy, memory, Scope::Run).run
}

/// Decides the same and explains it in full: every filter's answer, and a reason for every guest that stays.
#[must_use]
pub fn explain(input: &Snapshot, policy: &Policy, memory: &Memory) -> Explained {
    work(input, policy, memory, Scope::Explain)
}

/// The whole plan at once, as if nothing limited how much is moved: no persistence, no limits per run or node, and no
/// higher confidence for moves of high risk, which whoever reads the plan sees marked. If a node is too full, the plan
/// also evens out use: it has no later run to do what would be needed then.
#[must_use]
pub fn plan_at_once(input: &Snapshot, policy: &Policy) -> Run {
    let mut policy = policy.clone();
    policy.intelligent_migrations.enabled = Some(false);
    policy.intelligent_migrations.risk_gating_enabled = Some(false);
    work(input, &policy, &Memory::default(), Scope::WholePlan).run
}

#[derive(Clone, Copy, PartialEq)]
enum Scope {
    Run,
    Explain,
    WholePlan,
}

fn work(input: &Snapshot, policy: &Policy, memory: &Memory, scope: Scope) -> Explained {
    let mut snapshot = input.sorted();
    // A pause, or somebody's migration, keeps a run from moving; who asks for a plan is told of it.
    let (mut problems, passing) = match scope {
        Scope::WholePlan => whatif::doubts(&snapshot, policy),
        Scope::Run | Scope::Explain => (suppress::problems(&snapshot, policy), Vec::new()),
    };
    if snapshot.nonsense().is_some() {
        return stopped(&snapshot, problems, memory); // Not even scores can be computed.
    }
    // What is on its way counts as arrived: its source is relieved, its target charged.
    for flight in snapshot.in_flight.clone() {
        if let Some(target) = flight.to {
            snapshot.apply(&Candidate { guest: flight.guest, target });
        }
    }
    let limits = if scope == Scope::WholePlan { Limits::NONE } else { Limits::of(policy, &snapshot) };
    let mut planner = Planner::new(snapshot, policy, memory, limits, scope == Scope::Explain);
    let scores = score::of_all(&planner.snapshot, &planner.fleet);
    let spread = score::spread(&scores);
    let cluster_score = recommend::objective(&planner.rules());

    let undecidable = !problems.is_empty();
    if !undecidable {
        problems.extend(suppress::converged(&planner.rules(), spread, policy));
    }
    let memory_out = if problems.is_empty() {
        planner.search();
        planner.memory()
    } else if undecidable {
        memory.clone() // A run that could not look has not seen a recommendation go away.
    } else {
        planner.memory()
    };
    let mut problems = problems.into_iter();
    let suppressed = problems.next();
    let told = problems.chain(passing).chain(coexist::warnings(input));
    let warnings = told.chain(planner.warnings()).collect();
    let nodes = stays::nodes(&planner, &scores, suppressed.as_ref());
    let guests = if scope == Scope::Explain {
        stays::guests(&planner, &scores, suppressed.as_ref())
    } else {
        Vec::new()
    };
    let decisions = coexist::restrain(input, planner.decisions);
    let run = Run {
        cluster: input.cluster.clone(),
        at: input.at,
        suppressed,
        warnings,
        cluster_score,
        spread,
        scores,
        summary: RunSummary::of(&decisions),
        decisions,
        stays: nodes,
        memory_out,
    };
    Explained { run, guests }
}

/// A run that decided nothing and could not even look.
fn stopped(snapshot: &Snapshot, problems: Vec<Reason>, memory: &Memory) -> Explained {
    let mut problems = problems.into_iter();
    let run = Run {
        cluster: snapshot.cluster.clone(),
        at: snapshot.at,
        suppressed: problems.next(),
        warnings: problems.collect(),
        cluster_score: 0.0,
        spread: 0.0,
        scores: Vec::new(),
        decisions: Vec::new(),
        stays: Vec::new(),
        summary: RunSummary::default(),
        memory_out: memory.clone(),
    };
    Explained { run, guests: Vec::new() }
}
