//! An intent: one migration that is wanted, how far it is, and what it came to. It is written down before each step,
//! so that after a crash it is known what may have happened.

use std::time::Duration;

use evenkeel_common::decision::{Action, Decision, Recommendation};
use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{DecisionId, NodeId, Vmid};
use evenkeel_common::reason::Reason;
use evenkeel_common::time::Timestamp;
use evenkeel_core::aftermath::{Check, Figures};
use evenkeel_core::preflight::Purpose;
use serde::{Deserialize, Serialize};

/// Longest text of a step of the log, in characters.
const LONGEST_DETAIL: usize = 500;
/// Most steps kept of one intent; what follows replaces the last.
const MOST_STEPS: usize = 60;

/// How far an intent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for an operator's word.
    Proposed,
    /// May be started.
    Approved,
    /// The last look found nothing against it.
    Prepared,
    /// The call to Proxmox VE is being made, or was when the aggregator ended.
    Submitting,
    /// Proxmox VE has taken it.
    Submitted,
    /// Its task runs.
    Running,
    /// Its task has ended; where the guest is has to be seen.
    Verifying,
    /// The guest was seen on its target.
    Done,
    /// It ended otherwise.
    Failed,
    /// It was never started.
    Aborted,
    /// Nothing tells what became of it.
    Unknown,
}

impl State {
    /// Stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Approved => "approved",
            Self::Prepared => "prepared",
            Self::Submitting => "submitting",
            Self::Submitted => "submitted",
            Self::Running => "running",
            Self::Verifying => "verifying",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Unknown => "unknown",
        }
    }

    /// Whether nothing more will happen to it.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Aborted)
    }

    /// Whether Proxmox VE may be moving the guest.
    #[must_use]
    pub const fn is_under_way(self) -> bool {
        matches!(self, Self::Submitting | Self::Submitted | Self::Running | Self::Verifying | Self::Unknown)
    }

    /// Whether an intent may go from one state to another. Nothing leads back to where the call is made: that is what
    /// makes it one call.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Proposed => matches!(next, Self::Approved | Self::Aborted),
            Self::Approved => matches!(next, Self::Prepared | Self::Aborted),
            Self::Prepared => matches!(next, Self::Submitting | Self::Aborted),
            // Aborted: a switch was thrown between the writing and the call.
            Self::Submitting => {
                matches!(next, Self::Aborted | Self::Submitted | Self::Running | Self::Verifying)
                    || next.ends()
            }
            Self::Submitted => matches!(next, Self::Running | Self::Verifying) || next.ends(),
            Self::Running => matches!(next, Self::Verifying) || next.ends(),
            Self::Verifying => matches!(next, Self::Running) || next.ends(),
            Self::Unknown => matches!(next, Self::Running | Self::Done | Self::Failed),
            // A task that shows up late was accepted after all.
            Self::Failed => matches!(next, Self::Running | Self::Verifying),
            Self::Done | Self::Aborted => false,
        }
    }

    const fn ends(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Unknown)
    }
}

/// A step of an intent's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When.
    pub at: Timestamp,
    /// What it became, or was.
    pub state: State,
    /// What happened, a sentence; may hold words of Proxmox VE or of people.
    pub detail: String,
}

/// What was told of a migration before it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    /// Gain of the cluster's score, in points.
    pub improvement: f64,
    /// 0 to 100.
    pub confidence: f64,
    /// How long it takes, in minutes.
    pub minutes: f64,
    /// What that was of the duration at the configured speed.
    pub pace: f64,
    /// Bytes that cross the network.
    pub bytes: u64,
}

/// One migration that is wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// The decision it comes from, which also gives its trace.
    pub id: DecisionId,
    /// Which guest.
    pub guest: Vmid,
    /// Its name; another's text.
    pub name: String,
    /// Its kind.
    pub kind: GuestKind,
    /// Where it is.
    pub source: NodeId,
    /// Where it is to go.
    pub target: NodeId,
    /// Guests that HA takes along.
    pub along: Vec<Vmid>,
    /// What for.
    pub purpose: Purpose,
    /// What tells the guest from another that gets its number, where that is known.
    pub identity: Option<String>,
    /// What was told of it.
    pub predicted: Predicted,
    /// How far it is.
    pub state: State,
    /// The last run that wanted it.
    pub confirmed_at: Timestamp,
    /// Who approved it, and when.
    pub approved: Option<(String, Timestamp)>,
    /// What it waits for, where it does, without the numbers.
    pub waits_for: Option<String>,
    /// When the call was made, and when it had its answer or none would come any more.
    pub submitted_at: Option<Timestamp>,
    /// See [`Self::submitted_at`].
    pub answered_at: Option<Timestamp>,
    /// As whom the call was made: `user@realm!tokenid`.
    pub submitted_as: String,
    /// The tasks of this guest that were there before the call.
    pub tasks_before: Vec<String>,
    /// Proxmox VE's task, once known.
    pub upid: Option<String>,
    /// Since when the guest has not been listed, if it is not.
    pub missing_since: Option<Timestamp>,
    /// When it became unknown, if it did: nothing is started until an operator has looked.
    pub unknown_at: Option<Timestamp>,
    /// What it came to.
    pub why: Option<Reason>,
    /// Use of the nodes at the last look before the call.
    pub before: Option<Figures>,
    /// Points of use that the source was to lose.
    pub expected_relief: Option<f64>,
    /// Use of the nodes after it was done.
    pub checks: Vec<Check>,
    /// Its way so far.
    pub log: Vec<Step>,
}

impl Intent {
    /// What a decision wants, at the time of its run.
    #[must_use]
    pub fn of(decision: &Decision, kind: GuestKind, pace: f64) -> Self {
        let (id, at, why) = (decision.id.clone(), decision.id.run_at(), decision.reason.to_string());
        Self::new(id, &decision.recommendation, kind, Purpose::Balance, at, &why).at_pace(pace)
    }

    /// Told at this pace, see [`Predicted::pace`].
    #[must_use]
    pub fn at_pace(mut self, pace: f64) -> Self {
        self.predicted.pace = pace;
        self
    }

    /// A proposal.
    #[must_use]
    pub fn new(
        id: DecisionId,
        wanted: &Recommendation,
        kind: GuestKind,
        purpose: Purpose,
        at: Timestamp,
        why: &str,
    ) -> Self {
        let Recommendation { guest, name, source, target, improvement, confidence, cost, .. } = wanted;
        let proposed = Step { at, state: State::Proposed, detail: plain(why) };
        Self {
            id,
            guest: *guest,
            name: name.clone(),
            kind,
            source: source.clone(),
            target: target.clone(),
            along: wanted.along().to_vec(),
            purpose,
            identity: None,
            predicted: Predicted {
                improvement: *improvement,
                confidence: confidence.get(),
                minutes: cost.minutes,
                pace: 1.0,
                bytes: cost.bytes.0,
            },
            state: State::Proposed,
            confirmed_at: at,
            approved: None,
            waits_for: None,
            submitted_at: None,
            answered_at: None,
            submitted_as: String::new(),
            tasks_before: Vec::new(),
            upid: None,
            missing_since: None,
            unknown_at: None,
            why: None,
            before: None,
            expected_relief: None,
            checks: Vec::new(),
            log: vec![proposed],
        }
    }

    /// Goes on to a state, and notes why. A step that there is not is refused, which no rule may ask for.
    pub fn enter(&mut self, at: Timestamp, state: State, detail: impl Into<String>) -> bool {
        if !self.state.may_become(state) {
            tracing::error!(id = %self.id, from = self.state.name(), to = state.name(), "no such step");
            return false;
        }
        self.state = state;
        if state == State::Unknown {
            self.unknown_at = Some(at);
        }
        self.note(at, detail);
        true
    }

    /// Ends with a reason.
    pub fn end(&mut self, at: Timestamp, state: State, why: Reason) -> bool {
        let entered = self.enter(at, state, why.to_string());
        if entered {
            self.why = Some(why);
        }
        entered
    }

    /// Notes what happened within a state.
    pub fn note(&mut self, at: Timestamp, detail: impl Into<String>) {
        let detail = plain(&detail.into());
        if self.log.len() >= MOST_STEPS {
            self.log.pop();
        }
        self.log.push(Step { at, state: self.state, detail });
    }

    /// When it entered the state it is in.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        let entered = self.log.iter().rev().take_while(|step| step.state == self.state).last();
        entered.map_or(self.confirmed_at, |step| step.at)
    }

    /// What it means for the decisions that wanted it; without a reason the one they were made with stands.
    #[must_use]
    pub fn fate(&self) -> (Action, Option<Reason>) {
        match self.state {
            State::Proposed => (Action::AwaitingApproval, None),
            State::Approved | State::Prepared => {
                let by = self.approved.as_ref().map(|(by, _)| by.clone()).unwrap_or_default();
                (Action::Pending, Some(Reason::Approved { by }))
            }
            State::Submitting | State::Submitted | State::Running | State::Verifying => {
                (Action::Pending, Some(Reason::UnderWay { state: self.state.name().to_owned() }))
            }
            State::Done => (Action::Executed, self.why.clone()),
            State::Failed | State::Unknown => (Action::Failed, self.why.clone()),
            State::Aborted => (Action::Skipped, self.why.clone()),
        }
    }

    /// Whether a decision is the one it comes from, or wanted the same move again while it waited.
    #[must_use]
    pub fn answers(&self, decision: &Decision) -> bool {
        let wanted = &decision.recommendation;
        let same = (self.guest, &self.source, &self.target) == (wanted.guest, &wanted.source, &wanted.target);
        let meanwhile = decision.id.run_s >= self.id.run_s && decision.id.run_at() <= self.confirmed_at;
        let waits = matches!(decision.action, Action::AwaitingApproval | Action::Pending);
        self.id == decision.id || (self.purpose == Purpose::Balance && same && meanwhile && waits)
    }

    /// How long it took, from the call to the end of its task; `None` while it has not arrived.
    #[must_use]
    pub fn took(&self) -> Option<Duration> {
        match self.why {
            Some(Reason::Arrived { seconds, .. }) => Some(Duration::from_secs(seconds)),
            _ => None,
        }
    }

    /// When it ended, if it did.
    #[must_use]
    pub fn ended_at(&self) -> Option<Timestamp> {
        self.state.is_over().then(|| self.since())
    }
}

/// One line of plain text.
fn plain(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_DETAIL).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use evenkeel_common::decision::{Cost, Risk, Trail};
    use evenkeel_common::id::ClusterId;
    use evenkeel_common::units::{Bytes, Score};

    const ALL: [State; 11] = [
        State::Proposed,
        State::Approved,
        State::Prepared,
        State::Submitting,
        State::Submitted,
        State::Running,
        State::Verifying,
        State::Done,
        State::Failed,
        State::Aborted,
        State::Unknown,
    ];

    /// Guest 101 from pve1 to pve2, wanted by a run at this second.
    pub(crate) fn intent(run_s: i64) -> Intent {
        Intent::of(&decision(run_s), GuestKind::Qemu, 1.0)
    }

    fn decision(run_s: i64) -> Decision {
        let node = |name| NodeId::new(name).unwrap();
        Decision {
            id: DecisionId { cluster: ClusterId::new("lab").unwrap(), run_s, number: 1 },
            recommendation: Recommendation {
                guest: Vmid::new(101).unwrap(),
                name: "db".into(),
                source: node("pve1"),
                target: node("pve2"),
                improvement: 2.0,
                confidence: Score::clamped(90.0),
                certain: false,
                risk: Risk::Low,
                cost: Cost { minutes: 0.7, bytes: Bytes::gib(8) },
                conflict: None,
                evidence: vec![],
            },
            action: Action::Pending,
            filter: None,
            reason: Reason::Accepted { before: 10.0, after: 8.0 },
            trail: Trail::default(),
        }
    }

    #[test]
    fn what_became_of_a_move_is_told_of_every_run_that_wanted_it() {
        let at = |second: i64| Timestamp::from_millis(1000 * second);
        let mut intent = intent(60);
        intent.confirmed_at = at(180);
        for (run_s, answered) in [(0, false), (60, true), (120, true), (180, true), (240, false)] {
            assert_eq!(intent.answers(&decision(run_s)), answered, "{run_s}");
        }
        let elsewhere = |mut decision: Decision| {
            decision.recommendation.target = NodeId::new("pve3").unwrap();
            decision
        };
        assert!(!intent.answers(&elsewhere(decision(120))));
        assert!(!intent.answers(&Decision { action: Action::Recommended, ..decision(120) }));
        assert_eq!(intent.fate(), (Action::AwaitingApproval, None));
        intent.end(at(200), State::Aborted, Reason::Expired { minutes: 30, approved: false });
        assert_eq!(intent.fate().0, Action::Skipped);
    }

    #[test]
    fn nothing_leads_back_to_the_call() {
        for from in ALL {
            let reached = from.may_become(State::Submitting);
            assert_eq!(reached, from == State::Prepared, "{from:?}");
            let before = [State::Proposed, State::Approved, State::Prepared];
            if !before.contains(&from) {
                assert!(before.iter().all(|state| !from.may_become(*state)), "{from:?} goes back");
            }
        }
    }

    #[test]
    fn every_state_is_reached_and_only_those_that_are_over_lead_nowhere() {
        for state in ALL {
            assert!(state == State::Proposed || ALL.iter().any(|from| from.may_become(state)), "{state:?}");
            let leads = ALL.iter().any(|next| state.may_become(*next));
            assert_eq!(leads, !matches!(state, State::Done | State::Aborted), "{state:?}");
        }
    }

    #[test]
    fn a_step_that_there_is_not_changes_nothing_and_the_log_stays_bounded() {
        let at = |n: i64| Timestamp::from_millis(1000 * n);
        let mut intent = intent(10);
        let before = intent.clone();
        assert!(!intent.enter(at(20), State::Submitting, "no"));
        assert_eq!(intent, before);
        assert!(intent.enter(at(20), State::Approved, "yes\u{1b}[31m\nroot"));
        assert_eq!((intent.since(), intent.log[1].detail.as_str()), (at(20), "yes [31m root"));
        for n in 21..200 {
            intent.note(at(n), "x".repeat(600));
        }
        assert_eq!((intent.log.len(), intent.since()), (60, at(20)));
        assert_eq!(intent.log.last().map(|step| (step.at, step.detail.len())), Some((at(199), 500)));
        let json = serde_json::to_string(&intent).unwrap();
        assert_eq!(serde_json::from_str::<Intent>(&json).unwrap(), intent);
    }
}
