//! The last look before a migration is started: is what was decided still right on fresh data?
//!
//! A move that was decided, or that an operator approved, is judged once more, alone, by the rules it was decided by.
//! An evacuation is not a matter of taste: there only what can not be waived counts, as in [`crate::whatif::drain`].

use evenkeel_common::decision::Step;
use evenkeel_common::id::NodeId;
use evenkeel_common::reason::Reason;
use serde::{Deserialize, Serialize};

use crate::limits::Limits;
use crate::pipeline::{self, Memory};
use crate::plan::{Planner, not_a_candidate};
use crate::policy::Policy;
use crate::snapshot::{Candidate, HandsOff, Snapshot};
use crate::{coexist, suppress, whatif};

/// What a migration is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// A better cluster: it has to be one still.
    #[default]
    Balance,
    /// An operator wants the source empty.
    Evacuation,
}

/// Why a migration from `source` must not be started on this snapshot; `None` when it may.
///
/// Other migrations under way count as arrived, as in a decision run. The migration in question must not be among them.
#[must_use]
pub fn objection(
    input: &Snapshot,
    policy: &Policy,
    wanted: &Candidate,
    source: &NodeId,
    purpose: Purpose,
) -> Option<Reason> {
    let mut snapshot =
        if purpose == Purpose::Evacuation { whatif::with_restarts(input) } else { input.clone() }.sorted();
    if let Some(problem) = suppress::problems(&snapshot, policy).into_iter().next() {
        return Some(problem);
    }
    let place = snapshot.guest_index(wanted.guest).map(|guest| snapshot.guests[guest].node.clone());
    if place.as_ref() != Some(source) {
        return Some(Reason::GuestElsewhere { guest: wanted.guest, expected: source.clone(), found: place });
    }
    if purpose == Purpose::Balance
        && let Some(other) = coexist::active(&snapshot).into_iter().next()
    {
        return Some(other);
    }
    // That the source is being emptied is what this is.
    let itself = |off: &HandsOff| {
        let emptied = matches!(&off.why, Reason::Evacuating { node } if node == source);
        purpose == Purpose::Evacuation && emptied
    };
    let off = |off: &&HandsOff| off.concerns(wanted.guest, source, &wanted.target) && !itself(off);
    if let Some(off) = snapshot.hands_off.iter().find(off) {
        return Some(off.why.clone());
    }
    if purpose == Purpose::Evacuation {
        snapshot.nodes.iter_mut().filter(|node| node.id == *source).for_each(|node| node.maintenance = true);
    }
    for flight in snapshot.in_flight.clone() {
        if let Some(target) = flight.to {
            snapshot.apply(&Candidate { guest: flight.guest, target });
        }
    }
    judged(snapshot, policy, wanted, purpose)
}

/// What the filters, and the limits on how much happens at once, say.
fn judged(snapshot: Snapshot, policy: &Policy, wanted: &Candidate, purpose: Purpose) -> Option<Reason> {
    let gone = || Reason::TargetOffline { target: wanted.target.clone() };
    let (limits, memory) = (Limits::of(policy, &snapshot), Memory::default());
    let planner = Planner::new(snapshot, policy, &memory, limits, false);
    let Some(migration) = planner.snapshot.resolve(wanted) else { return Some(gone()) };
    let context = planner.context(migration.source_index);
    let binding = |step: Step| purpose == Purpose::Balance || step == Step::Affinity;
    not_a_candidate(migration.guest)
        .or_else(|| {
            let steps: Vec<_> =
                pipeline::standard(policy).into_iter().filter(|step| binding(step.step())).collect();
            pipeline::first_objection(&steps, &migration, &context)
        })
        .or_else(|| {
            pipeline::improvement::too_full(&context.rules(), migration.guest_index, migration.target_index)
        })
        .or_else(|| planner.limit(migration.guest_index, migration.target_index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{InFlight, Mode, decide, fixture};
    use evenkeel_common::decision::Mover;
    use evenkeel_common::id::Vmid;

    const HOT: &str = "
        pve1 cpu=16 ram=64 | 101 cpu=9 mem=4 | 102 cpu=9 mem=4
        pve2 cpu=16 ram=64
        pve3 cpu=16 ram=64";

    fn policy() -> Policy {
        Policy { mode: Mode::Auto, ..Policy::default() }
    }

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn to(guest: u32, target: &str) -> Candidate {
        Candidate { guest: Vmid::new(guest).unwrap(), target: node(target) }
    }

    fn code(snapshot: &Snapshot, wanted: &Candidate, purpose: Purpose) -> Option<&'static str> {
        objection(snapshot, &policy(), wanted, &node("pve1"), purpose).map(|reason| reason.code())
    }

    #[test]
    fn what_a_run_decides_may_be_started_on_the_snapshot_it_was_decided_on() {
        let snapshot = fixture::snapshot(HOT);
        let run = decide(&snapshot, &policy(), &Memory::default());
        let first = &run.decisions[0].recommendation;
        let wanted = Candidate { guest: first.guest, target: first.target.clone() };
        assert_eq!(code(&snapshot, &wanted, Purpose::Balance), None);
    }

    #[test]
    fn what_has_changed_since_is_an_objection() {
        let wanted = to(101, "pve2");
        for (change, expected) in [
            (HOT.replace("101 cpu=9", "101 lock=backup cpu=9"), "guest_locked"),
            (HOT.replace("pve2 cpu=16 ram=64", "pve2 cpu=16 ram=64 maintenance"), "target_maintenance"),
            (HOT.replace("pve2 cpu=16 ram=64", "pve2 cpu=16 ram=64 offline"), "target_offline"),
            (HOT.replace("102 cpu=9", "102 cpu=0.1").replace("101 cpu=9", "101 cpu=1"), "confidence_too_low"),
            (HOT.replace("pve2 cpu=16 ram=64", "pve2 cpu=16 ram=64 | 201 cpu=0.1 mem=56"), "target_memory"),
            (HOT.replace("| 101 cpu=9 mem=4", "") + " | 101 cpu=9 mem=4", "guest_elsewhere"),
            (HOT.replace(" | 101 cpu=9 mem=4", ""), "guest_elsewhere"),
            (format!("{HOT}\npaused"), "paused"),
        ] {
            let snapshot = fixture::snapshot(&change);
            assert_eq!(code(&snapshot, &wanted, Purpose::Balance), Some(expected), "{change}");
        }
    }

    #[test]
    fn one_at_a_time_leaves_a_node_and_switches_hold() {
        let mut snapshot = fixture::snapshot(HOT);
        let (guest, from, to_node) = (Vmid::new(102).unwrap(), node("pve1"), Some(node("pve3")));
        snapshot.in_flight.push(InFlight { guest, from, to: to_node, by: Mover::Evenkeel });
        // One is on its way: what is left is not worth a second move, and an evacuation waits its turn.
        assert_eq!(code(&snapshot, &to(101, "pve2"), Purpose::Evacuation), Some("limit_node"));
        snapshot.in_flight.clear();
        assert_eq!(code(&snapshot, &to(101, "pve2"), Purpose::Evacuation), None);
        let why = Reason::BreakerTrial { node: Some(node("pve2")) };
        snapshot.hands_off.push(HandsOff { node: Some(node("pve2")), guest: None, why });
        assert_eq!(code(&snapshot, &to(101, "pve2"), Purpose::Evacuation), Some("breaker_trial"));
        assert_eq!(code(&snapshot, &to(101, "pve3"), Purpose::Evacuation), None);
    }

    #[test]
    fn an_evacuation_asks_for_no_gain_but_for_memory_and_rules() {
        let idle = HOT.replace("cpu=9", "cpu=0.1");
        let snapshot = fixture::snapshot(&idle);
        assert!(code(&snapshot, &to(101, "pve2"), Purpose::Balance).is_some());
        assert_eq!(code(&snapshot, &to(101, "pve2"), Purpose::Evacuation), None);
        let full = idle.replace("pve2 cpu=16 ram=64", "pve2 cpu=16 ram=64 | 201 cpu=0.1 mem=56");
        assert_eq!(
            code(&fixture::snapshot(&full), &to(101, "pve2"), Purpose::Evacuation),
            Some("target_memory")
        );
        let pinned = idle.replace("101 cpu=0.1", "101 tags=plb_pin_pve3 cpu=0.1");
        assert_eq!(code(&fixture::snapshot(&pinned), &to(101, "pve2"), Purpose::Evacuation), Some("tag_pin"));
    }
}
