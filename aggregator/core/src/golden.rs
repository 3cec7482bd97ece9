//! Whole runs and trails as text: what an admin reads.

mod filters;
mod learned;
mod runs;

use evenkeel_common::decision::{Action, Step};

use crate::bundle::Bundles;
use crate::pipeline::{self, Context, Facts};
use crate::recommend::Price;
use crate::score::fleet::Fleet;
use crate::{Explained, Memory, Mode, Policy, Run, explain, fixture};

/// The answer of one filter to one move, on a cluster as it stands.
fn judge(step: Step, policy: &Policy, fleet: &str, migration: &str) -> String {
    judge_after(step, policy, fleet, |_| (), migration)
}

/// The same after other moves of the run.
fn judge_after(step: Step, policy: &Policy, fleet: &str, moves: fn(&mut Fleet), migration: &str) -> String {
    let snapshot = fixture::snapshot(fleet).sorted();
    let before = Fleet::of(&snapshot, policy);
    let mut loads = before.clone();
    moves(&mut loads);
    // One guest is asked about, not the group that it may be of.
    let mut facts = Facts::of(&snapshot, &[]);
    facts.bundles = Bundles::default();
    let context = Context {
        snapshot: &snapshot,
        fleet: &loads,
        before: &before,
        facts: &facts,
        policy,
        price: Price::PLAIN,
    };
    let migration = snapshot.resolve(&fixture::candidate(migration)).expect("a possible move");
    let trail = pipeline::explain(&pipeline::standard(policy), &migration, &context);
    let entry = &trail.0[Step::ALL.iter().position(|known| *known == step).unwrap()];
    assert_eq!(entry.filter, step, "the pipeline is not in the order of its names");
    match entry.verdict.reason() {
        Some(reason) => format!("{}: {reason}", entry.verdict.name()),
        None => entry.verdict.name().to_owned(),
    }
}

#[track_caller]
fn check(step: Step, fleet: &str, migration: &str, expected: &str) {
    assert_eq!(judge(step, &Policy::default(), fleet, migration), expected);
}

fn run(fleet: &str) -> Explained {
    run_with(fleet, &Policy::default())
}

fn run_with(fleet: &str, policy: &Policy) -> Explained {
    explain(&fixture::snapshot(fleet), policy, &Memory::default())
}

/// A line per decision and per node that stays.
fn told(run: &Run) -> String {
    let mut lines = Vec::new();
    lines.extend(run.suppressed.iter().map(|reason| format!("suppressed: {reason}")));
    lines.extend(run.warnings.iter().map(|reason| format!("warning: {reason}")));
    for decision in &run.decisions {
        let r = &decision.recommendation;
        lines
            .push(format!("{} {}->{} {}: {}", r.guest, r.source, r.target, decision.action, decision.reason));
    }
    for stay in &run.stays {
        let reasons: Vec<_> = stay.reasons.iter().map(ToString::to_string).collect();
        lines.push(format!("{}: {}", stay.node, reasons.join("; ")));
    }
    lines.join("\n")
}

const TWO: &str = "
    pve1 cpu=16 ram=64 | 101 cpu=5 mem=4 | 102 cpu=5 mem=4 | 103 cpu=5 mem=4
    pve2 cpu=16 ram=64
    pve3 cpu=16 ram=64";

fn two(more: &str) -> String {
    format!("{TWO}\n{more}")
}
