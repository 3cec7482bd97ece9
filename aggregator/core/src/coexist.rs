//! Other balancers: while one is at work, evenkeel only advises.
//!
//! Two movers that each act on what the other has just changed chase guests around the cluster. So whoever was here
//! first keeps the wheel: a balancer that has moved a guest within [`QUIET`] turns every move of a run into advice,
//! and the run says who it is. Proxmox VE's own auto-rebalance moves HA guests only; these are left to it by filter 10,
//! the others may move.

use std::time::Duration;

use evenkeel_common::decision::{Action, Decision, Recommendation};
use evenkeel_common::reason::Reason;
use evenkeel_common::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::snapshot::Snapshot;

/// How long another balancer must not have moved anything before evenkeel moves again: a day, so that one that runs
/// nightly is seen every night.
pub const QUIET: Duration = Duration::from_secs(24 * 3600);

/// Somebody else who moves guests to balance the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherBalancer {
    /// User or token as Proxmox VE names it, `root@pam!proxlb`; another's text.
    pub name: String,
    /// What gave it away.
    pub what: Sign,
    /// First of its moves that are counted.
    pub since: Timestamp,
    /// Latest of its moves.
    pub last: Timestamp,
    /// Its moves between the two.
    pub moves: u32,
}

/// What gives a balancer away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sign {
    /// It calls itself one.
    Name,
    /// It moves guests as no person does: three or more within an hour.
    Pattern,
}

/// Who else moved guests lately, each as a reason; the latest first.
pub(crate) fn active(snapshot: &Snapshot) -> Vec<Reason> {
    let mut others: Vec<_> =
        snapshot.others.iter().filter(|other| snapshot.at.since(other.last) < QUIET).collect();
    others.sort_by(|a, b| (b.last, &a.name).cmp(&(a.last, &b.name)));
    let told = |other: &OtherBalancer| Reason::OtherBalancer {
        name: other.name.clone(),
        moves: other.moves,
        minutes_ago: snapshot.at.since(other.last).as_secs_f64() / 60.0,
        quiet_h: QUIET.as_secs_f64() / 3600.0,
    };
    others.into_iter().map(told).collect()
}

/// What a run says about others at the wheel, and what evenkeel therefore leaves alone.
pub(crate) fn warnings(snapshot: &Snapshot) -> Vec<Reason> {
    let mut warnings = active(snapshot);
    warnings.extend(snapshot.pve_rebalances.then_some(Reason::PveRebalances {}));
    let of_all = snapshot.hands_off.iter().filter(|off| off.guest.is_none());
    warnings.extend(of_all.map(|off| off.why.clone()));
    warnings
}

/// Never two movers: what would be executed, or wait for an operator's word, becomes advice while another balancer is
/// at work, or while something else forbids to start it.
pub(crate) fn restrain(snapshot: &Snapshot, mut decisions: Vec<Decision>) -> Vec<Decision> {
    for decision in &mut decisions {
        let waits = matches!(decision.action, Action::Pending | Action::AwaitingApproval);
        if let Some(why) = forbids(snapshot, &decision.recommendation).filter(|_| waits) {
            decision.action = Action::Recommended;
            decision.reason = why;
        }
    }
    decisions
}

/// Why a move is not to be started, good as it may be.
pub(crate) fn forbids(snapshot: &Snapshot, wanted: &Recommendation) -> Option<Reason> {
    let Recommendation { guest, source, target, .. } = wanted;
    let hands_off = snapshot.hands_off.iter().find(|off| off.concerns(*guest, source, target));
    active(snapshot).into_iter().next().or_else(|| hands_off.map(|off| off.why.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Memory, Mode, Policy, decide, fixture};

    const HOT: &str = "
        pve1 cpu=16 ram=64 | 101 cpu=9 mem=4 | 102 cpu=9 mem=4
        pve2 cpu=16 ram=64
        pve3 cpu=16 ram=64";

    fn other(minutes_ago: u64) -> OtherBalancer {
        let last = fixture::NOW.before(Duration::from_secs(60 * minutes_ago));
        let since = last.before(Duration::from_secs(1800));
        OtherBalancer { name: "root@pam!proxlb".into(), what: Sign::Name, since, last, moves: 4 }
    }

    fn actions(mode: Mode, others: Vec<OtherBalancer>) -> (Vec<Action>, Vec<String>) {
        let snapshot = Snapshot { others, ..fixture::snapshot(HOT) };
        let run = decide(&snapshot, &Policy { mode, ..Policy::default() }, &Memory::default());
        assert_eq!(run.summary.0.values().sum::<u32>() as usize, run.decisions.len());
        let told = run.warnings.iter().map(ToString::to_string).collect();
        (run.decisions.iter().map(|decision| decision.action).collect(), told)
    }

    #[test]
    fn while_another_balancer_moves_guests_nothing_is_executed_and_the_run_says_who_it_is() {
        assert_eq!(actions(Mode::Auto, vec![]).0[0], Action::Pending);
        for mode in [Mode::Auto, Mode::Approve, Mode::Advise] {
            let (actions, told) = actions(mode, vec![other(90)]);
            assert_eq!(actions[0], Action::Recommended, "{mode:?}");
            assert!(!actions.iter().any(|a| matches!(a, Action::Pending | Action::AwaitingApproval)));
            assert_eq!(
                told,
                ["another balancer, root@pam!proxlb, moved 4 guest(s), the last 90 min ago; evenkeel only \
                  advises until it has been quiet for 24 h"]
            );
        }
    }

    #[test]
    fn after_a_quiet_day_evenkeel_moves_again() {
        for (minutes_ago, action) in [(24 * 60 - 1, Action::Recommended), (24 * 60, Action::Pending)] {
            assert_eq!(actions(Mode::Auto, vec![other(minutes_ago)]).0[0], action, "{minutes_ago}");
        }
        let (actions, told) = actions(Mode::Auto, vec![other(24 * 60), other(5)]);
        assert_eq!((actions[0], told.len()), (Action::Recommended, 1), "one of two is still at it");
    }

    #[test]
    fn the_auto_rebalance_of_proxmox_is_told_and_leaves_the_other_guests_to_evenkeel() {
        let snapshot = fixture::snapshot(&format!("{HOT}\npve-rebalances"));
        let policy = Policy { mode: Mode::Auto, ..Policy::default() };
        let run = decide(&snapshot, &policy, &Memory::default());
        assert_eq!(run.warnings, [Reason::PveRebalances {}]);
        assert_eq!(run.decisions[0].action, Action::Pending);
    }

    #[test]
    fn a_snapshot_from_before_others_were_noticed_is_read_as_none() {
        let mut stored = serde_json::to_value(fixture::snapshot(HOT)).unwrap();
        stored.as_object_mut().unwrap().remove("others").unwrap();
        assert_eq!(serde_json::from_value::<Snapshot>(stored).unwrap(), fixture::snapshot(HOT));
    }
}
