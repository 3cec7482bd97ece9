//! The executor: takes decisions up, looks once more, and makes the one call that starts a migration.
//!
//! In one step of the cycle it first follows what is under way, then lets expire what was not started in time, and then
//! starts what may be started, one after the other, each on the state that the one before left.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::decision::{Action, Decision, Mover};
use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::reason::Reason;
use evenkeel_core::aftermath::{AFTER, Check, Figures, expected_relief};
use evenkeel_core::preflight::{Purpose, objection};
use evenkeel_core::{Candidate, InFlight, Policy, RunRecord, Snapshot};
use evenkeel_runtime::clock::Clock;

use super::book::{Book, LogError};
use super::config::ExecuteConfig;
use super::follow::{follow, is_open};
use super::gate::Gate;
use super::holds::holds;
use super::intent::{Intent, State};
use super::view::View;

/// What is asked of Proxmox VE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Where the guest is.
    pub source: NodeId,
    /// Its kind.
    pub kind: GuestKind,
    /// Its number.
    pub guest: Vmid,
    /// Where it is to go.
    pub target: NodeId,
    /// Token that the intent says the call is made with.
    pub caller: String,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Taken: the task's name.
    Taken(String),
    /// Certainly not taken, and why.
    Refused(String),
    /// Nobody can say; what is seen at Proxmox VE will.
    Unclear(String),
}

/// What the executor needs of Proxmox VE.
pub trait Hypervisor: Send + Sync {
    /// As whom migrations would be started, `user@realm!tokenid`, or why they can not.
    fn caller(&self) -> impl Future<Output = Result<String, Reason>> + Send;
    /// What Proxmox VE has against a migration, asked now.
    fn objection(&self, intent: &Intent) -> impl Future<Output = Option<Reason>> + Send;
    /// Starts a migration. Called once for an intent, whatever comes back.
    fn migrate(&self, order: &Order) -> impl Future<Output = Answer> + Send;
}

/// What forbids every start, looked at right before it.
pub trait Switches: Send + Sync {
    /// Why nothing may be started now.
    fn off(&self) -> Option<Reason>;
}

/// Acts for one cluster.
pub struct Executor<H> {
    /// Its intents.
    pub book: Arc<Book>,
    /// What a pause waits for.
    pub gate: Arc<Gate>,
    /// Proxmox VE.
    pub hypervisor: H,
    /// What forbids every start.
    pub switches: Arc<dyn Switches>,
    /// How decisions are made.
    pub policy: Policy,
    /// How they are acted on.
    pub config: ExecuteConfig,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl<H: Hypervisor> Executor<H> {
    /// Takes up what a run decided, which is stored by now: as approved in mode auto, else as proposals. A move that
    /// waits already is confirmed.
    ///
    /// # Errors
    /// [`LogError`]: nothing may be started any more.
    pub async fn take_up(&self, record: &RunRecord) -> Result<(), LogError> {
        for decision in &record.run.decisions {
            let by_itself = match decision.action {
                Action::Pending => true,
                Action::AwaitingApproval => false,
                _ => continue,
            };
            if self.confirm(decision).await? {
                continue;
            }
            let guest = record.snapshot.guests.iter().find(|g| g.vmid == decision.recommendation.guest);
            let Some(guest) = guest else { continue };
            let mut intent = Intent::of(decision, guest.kind, record.snapshot.experience.pace());
            if by_itself {
                let (at, by) = (decision.id.run_at(), "mode auto".to_owned());
                intent.enter(at, State::Approved, Reason::Approved { by: by.clone() }.to_string());
                intent.approved = Some((by, at));
            }
            self.book.add(intent).await?;
        }
        Ok(())
    }

    /// Whether the guest's move waits already. A proposal of another target gives way to the newer one; what an operator
    /// has approved, or an evacuation, stays: the last look judges it.
    async fn confirm(&self, decision: &Decision) -> Result<bool, LogError> {
        let wanted = &decision.recommendation;
        let at = decision.id.run_at();
        for open in self.book.in_state(&[State::Proposed, State::Approved, State::Prepared]) {
            if open.guest != wanted.guest {
                continue;
            }
            let same = open.source == wanted.source && open.target == wanted.target;
            let stays = same || open.approved.is_some() || open.purpose == Purpose::Evacuation;
            let change = |intent: &mut Intent| {
                if same {
                    intent.confirmed_at = at;
                } else if !stays && intent.state == State::Proposed {
                    let why = Reason::Superseded { target: wanted.target.clone() };
                    intent.end(at, State::Aborted, why);
                }
                Ok::<_, LogError>(())
            };
            self.book.change(&open.id, change).await?;
            if stays {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Follows what is under way to what became of it, and ends what waited too long.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn follow(&self, view: &View) -> Result<(), LogError> {
        for intent in self.book.all().into_iter().filter(|intent| is_open(intent, view.at)) {
            let claimed = self.book.claimed_by_others(&intent.id);
            if follow(&intent, view, &claimed).is_none() {
                continue;
            }
            let change = |intent: &mut Intent| {
                if let Some(next) = follow(intent, view, &claimed) {
                    *intent = next;
                }
                Ok::<_, LogError>(())
            };
            self.book.change(&intent.id, change).await?;
        }
        self.book.expire(self.clock.now(), self.config.patience()).await
    }

    /// Looks at what came of migrations a while after they were done.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn check(&self, snapshot: &Snapshot) -> Result<(), LogError> {
        for intent in self.book.in_state(&[State::Done]) {
            let Some(check) = due(&intent, snapshot) else { continue };
            let add = |intent: &mut Intent| {
                intent.checks.push(check);
                Ok::<_, LogError>(())
            };
            self.book.change(&intent.id, add).await?;
        }
        Ok(())
    }

    /// Whether something may be to start.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.book.in_state(&[State::Approved, State::Prepared]).is_empty()
    }

    /// Starts what may be started on this snapshot and view, which have to be fresh and of the same look.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn start(&self, mut snapshot: Snapshot, view: &View) -> Result<(), LogError> {
        for intent in self.book.in_state(&[State::Approved, State::Prepared]) {
            let wanted = Candidate { guest: intent.guest, target: intent.target.clone() };
            let judged = objection(&snapshot, &self.policy, &wanted, &intent.source, intent.purpose);
            let objection = match judged {
                Some(why) => Some(why),
                None => self.hypervisor.objection(&intent).await,
            };
            let started = match objection {
                Some(why) => self.hold(&intent, why).await.map(|()| None)?,
                None => self.submit(&intent, &snapshot, view).await?,
            };
            if started.is_some_and(|intent| intent.state.is_under_way()) {
                let (guest, from, to) = (intent.guest, intent.source.clone(), Some(intent.target.clone()));
                snapshot.in_flight.push(InFlight { guest, from, to, by: Mover::Evenkeel });
                // After too many failures one is tried, and this may be the one.
                snapshot.hands_off.extend(holds(&self.book, self.config.rest(), self.clock.now()));
            }
        }
        Ok(())
    }

    /// Waits when what is against it may pass before its time is over; gives it up else.
    async fn hold(&self, intent: &Intent, why: Reason) -> Result<(), LogError> {
        let now = self.clock.now();
        let hold = |intent: &mut Intent| {
            // Once for each cause: how many minutes are left of it changes with every look.
            let cause: String = why.to_string().chars().filter(|c| !c.is_ascii_digit()).collect();
            if intent.state.is_over() {
                return Ok(()); // Given up by an operator meanwhile.
            } else if !passes(&why) {
                intent.end(now, State::Aborted, why);
            } else if intent.waits_for.as_ref() != Some(&cause) {
                intent.waits_for = Some(cause);
                intent.note(now, format!("waits: {why}"));
            }
            Ok::<_, LogError>(())
        };
        self.book.change(&intent.id, hold).await.map(drop)
    }

    /// Prepares, looks at the switches, writes down that it calls, looks at them again, and calls once. What it is now
    /// is handed out.
    async fn submit(
        &self,
        intent: &Intent,
        snapshot: &Snapshot,
        view: &View,
    ) -> Result<Option<Intent>, LogError> {
        let id = &intent.id;
        let caller = match self.hypervisor.caller().await {
            Ok(caller) => caller,
            Err(why) => return self.hold(intent, why).await.map(|()| None),
        };
        let now = self.clock.now();
        let prepare = |intent: &mut Intent| {
            if intent.state == State::Approved {
                intent.enter(now, State::Prepared, "the last look found nothing against it");
            }
            intent.identity = view.guests.get(&intent.guest).and_then(|placed| placed.identity.clone());
            intent.tasks_before = view.tasks_of(intent.guest).map(|task| task.upid.clone()).collect();
            intent.submitted_as.clone_from(&caller);
            intent.before = Figures::of(snapshot, &intent.source, &intent.target);
            intent.expected_relief = expected_relief(snapshot, intent.guest);
            Ok::<_, LogError>(())
        };
        self.book.change(id, prepare).await?;
        let _open = self.gate.hold().await;
        if let Some(why) = self.switches.off() {
            return self.hold(intent, why).await.map(|()| None);
        }
        let (now, mut mine) = (self.clock.now(), false);
        let submitting = |intent: &mut Intent| {
            mine = intent.enter(now, State::Submitting, "Proxmox VE is asked to start it");
            intent.submitted_at = Some(now).filter(|_| mine).or(intent.submitted_at);
            Ok::<_, LogError>(())
        };
        let written = self.book.change(id, submitting).await?;
        // Only whoever wrote down that it calls may call: an operator, or an expiry, may have been faster.
        let Some(written) = written.filter(|_| mine) else { return Ok(None) };
        let answer = match self.switches.off() {
            Some(why) => return self.end(intent, why).await,
            None => self.hypervisor.migrate(&order(&written)).await,
        };
        self.answered(intent, answer).await
    }

    async fn end(&self, intent: &Intent, why: Reason) -> Result<Option<Intent>, LogError> {
        let now = self.clock.now();
        let end = |intent: &mut Intent| {
            intent.end(now, State::Aborted, why);
            Ok::<_, LogError>(())
        };
        self.book.change(&intent.id, end).await
    }

    async fn answered(&self, intent: &Intent, answer: Answer) -> Result<Option<Intent>, LogError> {
        let now = self.clock.now();
        let answered = |intent: &mut Intent| {
            intent.answered_at = Some(now);
            match answer {
                Answer::Taken(upid) => {
                    intent.enter(now, State::Submitted, format!("Proxmox VE has taken it: {upid}"));
                    intent.upid = Some(upid);
                }
                Answer::Refused(detail) => {
                    intent.end(now, State::Failed, Reason::NotAccepted { detail });
                }
                Answer::Unclear(detail) => intent.note(now, detail),
            }
            Ok::<_, LogError>(())
        };
        self.book.change(&intent.id, answered).await
    }
}

/// The look that is due, where the guest still is where it was brought. One that could not be made in time is left out.
fn due(intent: &Intent, snapshot: &Snapshot) -> Option<Check> {
    let age = snapshot.at.since(intent.ended_at()?);
    let of_now = |after: &&Duration| age >= **after && age < **after * 2;
    let after_s = AFTER.iter().rev().find(of_now)?.as_secs();
    let made = intent.checks.iter().any(|check| check.after_s >= after_s);
    let stays = snapshot.guests.iter().any(|guest| guest.vmid == intent.guest && guest.node == intent.target);
    let figures = Figures::of(snapshot, &intent.source, &intent.target).filter(|_| stays && !made)?;
    Some(Check { after_s, at: snapshot.at, figures })
}

fn order(intent: &Intent) -> Order {
    Order {
        source: intent.source.clone(),
        kind: intent.kind,
        guest: intent.guest,
        target: intent.target.clone(),
        caller: intent.submitted_as.clone(),
    }
}

/// Whether what is against a move says nothing of the move itself and may be over in a moment.
fn passes(why: &Reason) -> bool {
    matches!(
        why,
        Reason::Paused { .. }
            | Reason::NoExecute { .. }
            | Reason::NoExecToken { .. }
            | Reason::ModeAdvises {}
            | Reason::Starting { .. }
            | Reason::Unresolved { .. }
            | Reason::BreakerOpen { .. }
            | Reason::BreakerTrial { .. }
            | Reason::NoPveInventory { .. }
            | Reason::PveInventoryStale { .. }
            | Reason::PveInventoryPartial { .. }
            | Reason::NoQuorum {}
            | Reason::AgentStale { .. }
            | Reason::AgentMissing { .. }
            | Reason::PlacementDisputed { .. }
            | Reason::ForeignMigration { .. }
            | Reason::OtherBalancer { .. }
            | Reason::ClockSkew { .. }
            | Reason::DataInjected { .. }
            | Reason::BackupRunning { .. }
            | Reason::GuestLocked { .. }
            | Reason::GuestUnknownLoad {}
            | Reason::LimitConcurrent { .. }
            | Reason::LimitNode { .. }
            | Reason::LimitRoom { .. }
            | Reason::LimitDay { .. }
    )
}

/// Migrations of evenkeel that are under way, as a snapshot has them.
#[must_use]
pub fn in_flight(book: &Book) -> Vec<InFlight> {
    let under_way = book.all().into_iter().filter(|intent| intent.state.is_under_way());
    under_way
        .flat_map(|intent| {
            let along = intent.along.iter().copied();
            let (from, to) = (intent.source.clone(), Some(intent.target.clone()));
            let flight =
                move |guest| InFlight { guest, from: from.clone(), to: to.clone(), by: Mover::Evenkeel };
            std::iter::once(intent.guest).chain(along).map(flight).collect::<Vec<_>>()
        })
        .collect()
}
