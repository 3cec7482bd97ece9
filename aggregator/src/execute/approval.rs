//! What operators say to proposals: yes, no, or nothing in time.

use std::time::Duration;

use evenkeel_common::id::{DecisionId, NodeId, Vmid};
use evenkeel_common::reason::Reason;
use evenkeel_common::time::Timestamp;
use evenkeel_core::preflight::Purpose;

use super::book::{Book, LogError};
use super::intent::{Intent, State};

/// Time that an approved evacuation has: its guests leave one after the other.
const EVACUATION: Duration = Duration::from_hours(24);

/// Why an operator's word does not count.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    /// There is no such proposal.
    #[error("{0} waits for nobody's approval: see `evenkeelctl decisions --action awaiting_approval`")]
    NotProposed(DecisionId),
    /// It is past that.
    #[error("{id} is {state} already: {detail}")]
    Past {
        /// Which.
        id: DecisionId,
        /// Its state.
        state: &'static str,
        /// What happened last.
        detail: String,
    },
    /// No run has wanted it for too long.
    #[error(
        "{id} is stale: the last run that wanted this move was {minutes} min ago, and after {limit} it no longer counts; \
         see `evenkeelctl decisions` for what is wanted now"
    )]
    Stale {
        /// Which.
        id: DecisionId,
        /// How long ago.
        minutes: u64,
        /// How long it counts, in minutes.
        limit: u64,
    },
    /// It could not be kept.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Book {
    /// An operator says yes. What was approved is started with the next look at Proxmox VE, if that finds nothing
    /// against it.
    ///
    /// # Errors
    /// [`ApprovalError`].
    pub async fn approve(
        &self,
        id: &DecisionId,
        by: &str,
        at: Timestamp,
        patience: Duration,
    ) -> Result<Intent, ApprovalError> {
        let approve = |intent: &mut Intent| {
            waits(intent)?;
            let age = at.since(intent.confirmed_at);
            if age > patience {
                let (minutes, limit) = (age.as_secs() / 60, patience.as_secs() / 60);
                return Err(ApprovalError::Stale { id: intent.id.clone(), minutes, limit });
            }
            intent.approved = Some((by.to_owned(), at));
            intent.enter(at, State::Approved, Reason::Approved { by: by.to_owned() }.to_string());
            Ok(())
        };
        let changed = self.change(id, approve).await?;
        changed.ok_or_else(|| ApprovalError::NotProposed(id.clone()))
    }

    /// An operator says no.
    ///
    /// # Errors
    /// [`ApprovalError`].
    pub async fn reject(
        &self,
        id: &DecisionId,
        by: &str,
        why: &str,
        at: Timestamp,
    ) -> Result<Intent, ApprovalError> {
        let reject = |intent: &mut Intent| {
            waits(intent)?;
            intent.end(at, State::Aborted, Reason::Rejected { by: by.to_owned(), why: why.to_owned() });
            Ok::<_, ApprovalError>(())
        };
        let changed = self.change(id, reject).await?;
        changed.ok_or_else(|| ApprovalError::NotProposed(id.clone()))
    }

    /// Whether a guest is free for another proposal: one that waits gives way, one that is on its way does not.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn make_room(&self, guest: Vmid, target: &NodeId, now: Timestamp) -> Result<bool, LogError> {
        for open in self.all().into_iter().filter(|i| i.guest == guest && !i.state.is_over()) {
            let give_way = |intent: &mut Intent| {
                // Looked at as it is now: it may have been called since.
                if !intent.state.is_under_way() && !intent.state.is_over() {
                    intent.end(now, State::Aborted, Reason::Superseded { target: target.clone() });
                }
                Ok::<_, LogError>(())
            };
            let left = self.change(&open.id, give_way).await?;
            if left.is_some_and(|intent| !intent.state.is_over()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives up what is unknown: an operator has looked, and what was under way is no longer waited for.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn give_up_unknown(&self, by: &str, at: Timestamp) -> Result<(), LogError> {
        for intent in self.in_state(&[State::Unknown]) {
            let give_up = |intent: &mut Intent| {
                let detail = format!("{by} has looked and armed anew");
                intent.end(at, State::Failed, Reason::MigrationUnknown { detail });
                Ok::<_, LogError>(())
            };
            self.change(&intent.id, give_up).await?;
        }
        Ok(())
    }

    /// Ends what was neither approved nor started in time.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn expire(&self, now: Timestamp, patience: Duration) -> Result<(), LogError> {
        for intent in self.in_state(&[State::Proposed, State::Approved, State::Prepared]) {
            let approved = intent.approved.as_ref().map(|(_, at)| *at);
            let since = approved.unwrap_or(intent.confirmed_at);
            let patience = match intent.purpose {
                Purpose::Evacuation if approved.is_some() => patience.max(EVACUATION),
                _ => patience,
            };
            if now.since(since) <= patience {
                continue;
            }
            let minutes = u32::try_from(patience.as_secs() / 60).unwrap_or(u32::MAX);
            let expire = |intent: &mut Intent| {
                // An operator may have been faster than this look.
                let meanwhile = intent.approved.as_ref().is_some_and(|(_, at)| now.since(*at) <= patience);
                if !meanwhile {
                    let why = Reason::Expired { minutes, approved: intent.approved.is_some() };
                    intent.end(now, State::Aborted, why);
                }
                Ok::<_, LogError>(())
            };
            self.change(&intent.id, expire).await?;
        }
        Ok(())
    }
}

fn waits(intent: &Intent) -> Result<(), ApprovalError> {
    if intent.state == State::Proposed {
        return Ok(());
    }
    let detail = intent.log.last().map(|step| step.detail.clone()).unwrap_or_default();
    Err(ApprovalError::Past { id: intent.id.clone(), state: intent.state.name(), detail })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execute::book::tests::Forgetful;
    use crate::execute::intent::tests::intent;
    use std::sync::Arc;

    const PATIENCE: Duration = Duration::from_mins(30);

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_millis(60_000 * minute)
    }

    /// One proposal of minute 0.
    fn book() -> (Book, DecisionId) {
        let intent = intent(0);
        let id = intent.id.clone();
        (Book::new(Arc::new(Forgetful::default()), vec![intent], None), id)
    }

    #[tokio::test]
    async fn a_proposal_is_approved_once_and_then_no_more() {
        let (book, id) = book();
        let approved = book.approve(&id, "ann", at(1), PATIENCE).await.unwrap();
        assert_eq!((approved.state, approved.approved), (State::Approved, Some(("ann".into(), at(1)))));
        let again = book.approve(&id, "bob", at(2), PATIENCE).await.unwrap_err().to_string();
        assert!(again.starts_with("lab-0-1 is approved already: approved by ann"), "{again}");
        let reject = book.reject(&id, "bob", "", at(2)).await.unwrap_err().to_string();
        assert!(reject.contains("approved already"), "{reject}");
        let other: DecisionId = "lab-7-1".parse().unwrap();
        let none = book.approve(&other, "ann", at(1), PATIENCE).await.unwrap_err().to_string();
        assert!(none.contains("awaiting_approval"), "{none}");
    }

    #[tokio::test]
    async fn what_no_run_has_wanted_for_long_is_stale_and_expires() {
        let (book, id) = book();
        let stale = book.approve(&id, "ann", at(31), PATIENCE).await.unwrap_err().to_string();
        assert!(stale.contains("31 min ago, and after 30"), "{stale}");
        book.expire(at(30), PATIENCE).await.unwrap();
        assert_eq!(book.get(&id).unwrap().state, State::Proposed);
        book.expire(at(31), PATIENCE).await.unwrap();
        let expired = book.get(&id).unwrap();
        assert_eq!(expired.state, State::Aborted);
        assert_eq!(expired.why, Some(Reason::Expired { minutes: 30, approved: false }));
    }

    #[tokio::test]
    async fn what_was_approved_has_its_time_from_then_on() {
        let (book, id) = book();
        book.approve(&id, "ann", at(29), PATIENCE).await.unwrap();
        book.expire(at(58), PATIENCE).await.unwrap();
        assert_eq!(book.get(&id).unwrap().state, State::Approved);
        book.expire(at(60), PATIENCE).await.unwrap();
        assert_eq!(book.get(&id).unwrap().why, Some(Reason::Expired { minutes: 30, approved: true }));
    }

    #[tokio::test]
    async fn what_is_unknown_is_waited_for_until_an_operator_has_looked() {
        let (book, id) = book();
        let lose = |intent: &mut Intent| {
            for state in [State::Approved, State::Prepared, State::Submitting, State::Unknown] {
                intent.enter(at(1), state, "");
            }
            Ok::<_, LogError>(())
        };
        book.change(&id, lose).await.unwrap();
        assert!(book.get(&id).unwrap().state.is_under_way());
        book.give_up_unknown("ann", at(9)).await.unwrap();
        book.rearm(at(9));
        let given_up = book.get(&id).unwrap();
        assert_eq!((given_up.state, given_up.ended_at()), (State::Failed, Some(at(9))));
        assert_eq!(book.unresolved(), []);
    }

    #[tokio::test]
    async fn who_waits_gives_way_to_another_proposal_and_who_is_on_its_way_does_not() {
        let (book, id) = book();
        let (guest, target) = (book.get(&id).unwrap().guest, NodeId::new("pve3").unwrap());
        let go = |intent: &mut Intent| {
            for state in [State::Approved, State::Prepared, State::Submitting] {
                intent.enter(at(1), state, "");
            }
            Ok::<_, LogError>(())
        };
        book.change(&id, go).await.unwrap();
        assert!(!book.make_room(guest, &target, at(2)).await.unwrap());
        assert_eq!(book.get(&id).unwrap().state, State::Submitting, "a call that is made is never given up");
        let (book, id) = self::book();
        assert!(book.make_room(guest, &target, at(2)).await.unwrap());
        assert_eq!(book.get(&id).unwrap().why, Some(Reason::Superseded { target }));
    }

    #[tokio::test]
    async fn a_no_has_its_author_and_words() {
        let (book, id) = book();
        let rejected = book.reject(&id, "ann", "not tonight", at(1)).await.unwrap();
        assert_eq!(rejected.why.unwrap().to_string(), "rejected by ann: not tonight");
    }
}
