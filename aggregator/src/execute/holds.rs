//! What forbids to start migrations, or some of them, by what became of earlier ones.

use std::time::Duration;

use evenkeel_common::id::NodeId;
use evenkeel_common::reason::Reason;
use evenkeel_common::time::Timestamp;
use evenkeel_core::HandsOff;
use evenkeel_core::preflight::Purpose;

use super::book::Book;
use super::breaker::{Breaker, breaker};
use super::intent::{Intent, State};

/// How long a guest is left alone whose move Proxmox VE would not take, or an operator did not want.
const REFUSED: Duration = Duration::from_hours(1);

/// Everything the intents forbid at a time. `rest`: how long breakers stay open.
#[must_use]
pub fn holds(book: &Book, rest: Duration, now: Timestamp) -> Vec<HandsOff> {
    let intents = book.all();
    let unresolved = book.unresolved().into_iter().map(|lost| HandsOff {
        node: None,
        guest: None,
        why: Reason::Unresolved { migration: lost.id, guest: lost.guest },
    });
    let mut holds: Vec<HandsOff> = unresolved.collect();
    holds.extend(book.unreadable().map(|rows| HandsOff {
        node: None,
        guest: None,
        why: Reason::IntentsDamaged { rows },
    }));
    let mut nodes: Vec<&NodeId> =
        intents.iter().flat_map(|intent| [&intent.source, &intent.target]).collect();
    nodes.sort();
    nodes.dedup();
    let scopes = std::iter::once(None).chain(nodes.into_iter().map(Some));
    holds.extend(scopes.filter_map(|node| tripped(&intents, node, book.rearmed_at(), rest, now)));
    holds.extend(intents.iter().filter_map(|intent| refused(intent, now)));
    // One for each node, however many of its guests have still to leave.
    for off in intents.iter().filter_map(evacuating) {
        if !holds.contains(&off) {
            holds.push(off);
        }
    }
    holds
}

/// The breaker of a node, or of the cluster.
fn tripped(
    intents: &[Intent],
    node: Option<&NodeId>,
    rearmed: Option<Timestamp>,
    rest: Duration,
    now: Timestamp,
) -> Option<HandsOff> {
    let of_node = |intent: &&Intent| node.is_none_or(|node| [&intent.source, &intent.target].contains(&node));
    let ended = |intent: &Intent| {
        let at = intent.ended_at().filter(|_| intent.submitted_at.is_some())?;
        let counts = rearmed.is_none_or(|rearmed| at > rearmed);
        (counts && intent.state != State::Aborted).then_some((at, intent.state == State::Done))
    };
    let mut results: Vec<_> = intents.iter().filter(of_node).filter_map(ended).collect();
    results.sort_unstable();
    let named = || node.cloned();
    let why = match breaker(results, rest, now) {
        Breaker::Closed => return None,
        Breaker::Open { until, failed, of } => {
            Reason::BreakerOpen { node: named(), failed, of, minutes_left: minutes(until.since(now)) }
        }
        Breaker::Trial => {
            let on_trial = intents.iter().filter(of_node).any(|intent| intent.state.is_under_way());
            if !on_trial {
                return None;
            }
            Reason::BreakerTrial { node: named() }
        }
    };
    Some(HandsOff { node: named(), guest: None, why })
}

/// A guest whose move was refused.
fn refused(intent: &Intent, now: Timestamp) -> Option<HandsOff> {
    let why = intent.why.as_ref().filter(|why| {
        matches!(why, Reason::PveObjects { .. } | Reason::NotAccepted { .. } | Reason::Rejected { .. })
    })?;
    let until = intent.ended_at()?.after(REFUSED);
    let why = Reason::RefusedLately { minutes_left: minutes(until.since(now)), why: Box::new(why.clone()) };
    (now < until).then_some(HandsOff { node: None, guest: Some(intent.guest), why })
}

/// A node that is being emptied is filled by nobody.
fn evacuating(intent: &Intent) -> Option<HandsOff> {
    let open = intent.purpose == Purpose::Evacuation && !intent.state.is_over() && intent.approved.is_some();
    let why = Reason::Evacuating { node: intent.source.clone() };
    open.then(|| HandsOff { node: Some(intent.source.clone()), guest: None, why })
}

/// Rounded up: nothing is over before it is.
fn minutes(time: Duration) -> u32 {
    u32::try_from(time.as_secs().div_ceil(60)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execute::book::tests::Forgetful;
    use crate::execute::intent::tests::intent;
    use std::sync::Arc;

    const REST: Duration = Duration::from_hours(1);

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_millis(60_000 * minute)
    }

    /// An intent from pve1 to this target that came to this at a minute.
    fn ended(minute: i64, target: &str, state: State) -> Intent {
        let mut intent = intent(60 * minute);
        intent.target = NodeId::new(target).unwrap();
        for next in [State::Approved, State::Prepared, State::Submitting] {
            intent.enter(at(minute), next, "");
        }
        intent.submitted_at = Some(at(minute));
        if state.is_over() {
            let why = Reason::MigrationFailed { detail: "no".into() };
            intent.end(at(minute), state, why);
        }
        intent
    }

    fn codes(kept: Vec<Intent>, rearmed: Option<i64>, minute: i64) -> Vec<String> {
        let book = Book::new(Arc::new(Forgetful::default()), kept, rearmed.map(at));
        let named = |off: HandsOff| {
            let of = off.node.map(|node| node.to_string()).or(off.guest.map(|guest| guest.to_string()));
            format!("{} {}", off.why.code(), of.unwrap_or_default()).trim().to_owned()
        };
        holds(&book, REST, at(minute)).into_iter().map(named).collect()
    }

    fn failures() -> Vec<Intent> {
        (1..=3).map(|minute| ended(minute, "pve2", State::Failed)).collect()
    }

    #[test]
    fn failures_stop_their_nodes_and_the_cluster_until_they_rested_or_are_armed_anew() {
        assert_eq!(codes(failures(), None, 4), ["breaker_open", "breaker_open pve1", "breaker_open pve2"]);
        assert_eq!(codes(failures(), Some(3), 4), [""; 0]);
        assert_eq!(codes(failures(), None, 64), [""; 0], "one may be tried");
        let trial = failures().into_iter().chain([ended(64, "pve2", State::Submitting)]).collect();
        assert_eq!(codes(trial, None, 65), ["breaker_trial", "breaker_trial pve1", "breaker_trial pve2"]);
        // Many arrivals elsewhere keep the cluster going, not the node that fails.
        let elsewhere = |minute| {
            let mut arrived = ended(minute, "pve4", State::Done);
            arrived.source = NodeId::new("pve3").unwrap();
            arrived
        };
        let mixed = (-5..0).map(elsewhere).chain(failures()).collect();
        assert_eq!(codes(mixed, None, 4), ["breaker_open pve1", "breaker_open pve2"]);
    }

    #[test]
    fn what_was_refused_rests_alone() {
        let mut refused = intent(0);
        refused.end(at(1), State::Aborted, Reason::PveObjects { detail: "pve2 lacks storage".into() });
        assert_eq!(codes(vec![refused.clone()], None, 60), ["refused_lately 101"]);
        assert_eq!(codes(vec![refused], None, 61), [""; 0]);
        let mut late = intent(0);
        late.end(at(1), State::Aborted, Reason::Expired { minutes: 30, approved: false });
        assert_eq!(codes(vec![late], None, 2), [""; 0]);
    }

    #[test]
    fn a_node_that_is_emptied_is_told_once_and_only_while_it_is() {
        let leaves = |run_s: i64| {
            let mut intent = intent(run_s);
            (intent.purpose, intent.approved) = (Purpose::Evacuation, Some(("ann".into(), at(0))));
            intent
        };
        assert_eq!(codes(vec![leaves(1), leaves(2)], None, 1), ["evacuating pve1"]);
        let mut over = leaves(1);
        over.end(at(1), State::Aborted, Reason::Expired { minutes: 1, approved: true });
        assert_eq!(codes(vec![over], None, 1), [""; 0]);
    }

    #[test]
    fn what_is_unknown_stops_everything() {
        let mut lost = ended(1, "pve2", State::Submitting);
        lost.enter(at(2), State::Unknown, "");
        assert_eq!(codes(vec![lost.clone()], None, 3), ["unresolved"]);
        assert_eq!(codes(vec![lost], Some(2), 3), [""; 0]);
    }
}
