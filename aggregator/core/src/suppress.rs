//! Fail static: what keeps a whole run from deciding.

use evenkeel_common::decision::Mover;
use evenkeel_common::reason::Reason;

use crate::policy::Policy;
use crate::repair::Rules;
use crate::score::season;
use crate::search::over_threshold;
use crate::snapshot::{Snapshot, takes_part};

/// Everything that stops the run, the most telling first; empty when it may decide.
pub(crate) fn problems(snapshot: &Snapshot, policy: &Policy) -> Vec<Reason> {
    let mut problems = Vec::new();
    problems.extend(snapshot.paused.clone().map(|why| Reason::Paused { why }));
    problems.extend(snapshot.problems.iter().cloned());
    problems.extend(snapshot.nonsense());
    let limit_s = u64::from(policy.max_data_age);
    for node in snapshot.nodes.iter().filter(|node| takes_part(node)) {
        match node.agent_age_s {
            None => problems.push(Reason::AgentMissing { node: node.id.clone() }),
            Some(age_s) if age_s > limit_s => {
                problems.push(Reason::AgentStale { node: node.id.clone(), age_s, limit_s });
            }
            Some(_) => {}
        }
    }
    problems.extend(snapshot.guests.iter().filter_map(|guest| guest.disputed.clone()));
    problems.extend(snapshot.in_flight.iter().filter(|flight| flight.by == Mover::Foreign).map(|flight| {
        let (guest, source, target) = (flight.guest, flight.from.clone(), flight.to.clone());
        Reason::ForeignMigration { guest, source, target }
    }));
    let nodes = snapshot.nodes.iter().filter(|node| takes_part(node)).count();
    if nodes < 2 {
        problems.push(Reason::TooFewNodes { nodes: u32::try_from(nodes).unwrap_or(u32::MAX) });
    }
    let mut seen = Vec::new();
    problems.retain(|problem| {
        let new = !seen.contains(problem);
        seen.push(problem.clone());
        new
    });
    problems
}

/// Whether there is nothing to balance: scores close together, no node over a threshold, none to be emptied, no group
/// on its way, nor, where that is asked for, a tag to be put right.
pub(crate) fn converged(rules: &Rules<'_>, spread: f64, policy: &Policy) -> Option<Reason> {
    let Rules { snapshot, fleet, .. } = *rules;
    let threshold = policy.penalty_config.cluster_convergence_threshold;
    let leaving = |guest: usize| snapshot.guests[guest].running && fleet.nodes[fleet.place[guest]].leaving;
    let to_mend = policy.enforce_rules && rules.any_broken();
    let under_way = rules.facts.bundles.following().next().is_some();
    let calm = spread <= threshold
        && !to_mend
        && !under_way
        && !over_threshold(snapshot, fleet, policy).contains(&true)
        && !(0..fleet.place.len()).any(leaving);
    // Where a node is over the threshold all the same, that it is usual is what there is to say.
    let excused = || season::excuses(snapshot, fleet, policy).into_iter().flatten().next();
    calm.then(|| excused().unwrap_or(Reason::Converged { spread, threshold }))
}
