//! What became of a migration, by what is seen of the guest.
//!
//! Tasks say what Proxmox VE tried; where the guest is says what came of it. A task that ended well proves nothing (a
//! request to HA is only queued), and one that ended badly neither (the guest may have moved all the same). So a
//! migration is done when the guest is seen on its target with nobody moving it any more, failed when it is seen
//! elsewhere likewise, and unknown when neither can be said for long.
//!
//! Nothing here asks or changes Proxmox VE: the same intent and view give the same answer, after a crash too.

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_common::reason::Reason;
use evenkeel_common::time::Timestamp;

use super::intent::{Intent, State};
use super::view::{Placed, Task, View};

/// Time after the call in which a task must have shown up. A request that the network held back longer shows up later,
/// and is taken up then.
const ACCEPT: Duration = Duration::from_secs(20);
/// Time after its task ended in which a lock goes away and agents see the guest.
const SETTLE: Duration = Duration::from_mins(1);
/// Time after a request in which HA begins, or drops it.
const HA: Duration = Duration::from_mins(3);
/// Time after which nothing more is expected.
const LOST: Duration = Duration::from_mins(10);
/// Time in which a task of a call that nobody seemed to have taken is still looked for.
const LATE: Duration = Duration::from_hours(1);

/// The intent as it is after a look; `None` when nothing has changed. `claimed`: tasks of other intents.
#[must_use]
pub fn follow(intent: &Intent, view: &View, claimed: &BTreeSet<String>) -> Option<Intent> {
    let look = Look { view, claimed };
    if !is_open(intent, view.at) || !(intent.state.is_under_way() || look.own_task(intent).is_some()) {
        return None;
    }
    let mut next = intent.clone();
    look.step(&mut next);
    (next != *intent).then_some(next)
}

/// Whether something may still be seen of it: it is under way, or its call seemed to be lost a short while ago.
#[must_use]
pub fn is_open(intent: &Intent, now: Timestamp) -> bool {
    let lost = matches!(intent.why, Some(Reason::NotAccepted { .. }));
    let recent = intent.ended_at().is_some_and(|ended| now.since(ended) < LATE);
    intent.state.is_under_way() || (lost && recent)
}

struct Look<'a> {
    view: &'a View,
    claimed: &'a BTreeSet<String>,
}

impl Look<'_> {
    /// The task of the call: the one it is known by, else a new one of the same guest by the same token.
    fn own_task(&self, intent: &Intent) -> Option<&Task> {
        let mut tasks = self.view.tasks_of(intent.guest);
        if let Some(upid) = &intent.upid {
            return tasks.find(|task| task.upid == *upid);
        }
        let new =
            |task: &&Task| !intent.tasks_before.contains(&task.upid) && !self.claimed.contains(&task.upid);
        tasks.find(|task| {
            new(task) && task.user == intent.submitted_as && (task.request || task.node == intent.source)
        })
    }

    /// Whatever moves the guest since the call, its own task or HA's.
    fn carriers(&self, intent: &Intent) -> impl DoubleEndedIterator<Item = &Task> {
        let before = intent.tasks_before.clone();
        let new = move |task: &&Task| !task.request && !before.contains(&task.upid);
        self.view.tasks_of(intent.guest).filter(new)
    }

    fn step(&self, intent: &mut Intent) {
        let own = self.own_task(intent);
        if let Some(task) = own.filter(|_| intent.upid.is_none()) {
            intent.upid = Some(task.upid.clone());
            intent.why = None;
            to(intent, self.view.at, State::Submitted, &format!("its task was found: {}", task.upid));
        }
        let running = self.carriers(intent).find(|task| task.runs()).map(|task| task.upid.clone());
        if let Some(upid) = running {
            let detail = format!("task {upid} runs");
            to(intent, self.view.at, State::Running, &detail);
            return;
        }
        if own.is_some_and(Task::runs) {
            return; // A request to HA that is being taken in.
        }
        let Some(placed) = self.view.guests.get(&intent.guest) else {
            self.missing(intent);
            return;
        };
        intent.missing_since = None;
        let other = |was: &String| placed.identity.as_ref().is_some_and(|is| is != was);
        if intent.identity.as_ref().is_some_and(other) {
            end(intent, self.view.at, State::Failed, Reason::AnotherGuest { guest: intent.guest });
        } else if placed.node == intent.target {
            self.arrived(intent, placed);
        } else if placed.node == intent.source {
            self.stayed(intent, placed, own);
        } else {
            let detail = format!("the guest is on {}", placed.node);
            end(intent, self.view.at, State::Failed, Reason::MigrationFailed { detail });
        }
    }

    /// Not listed any more: deleted, or between two nodes for a moment.
    fn missing(&self, intent: &mut Intent) {
        let since = *intent.missing_since.get_or_insert(self.view.at);
        if self.view.at.since(since) >= SETTLE {
            let (guest, expected) = (intent.guest, intent.source.clone());
            let why = Reason::GuestElsewhere { guest, expected, found: None };
            end(intent, self.view.at, State::Failed, why);
        }
    }

    fn arrived(&self, intent: &mut Intent, placed: &Placed) {
        let now = self.view.at;
        let ended = self.carriers(intent).filter_map(|task| task.ended.as_ref()).map(|(at, _)| *at).max();
        let waited = now.since(ended.or(intent.answered_at).unwrap_or(now));
        let locked = placed.lock.as_deref() == Some("migrate");
        let unseen = !placed.seen_on.is_empty() && placed.seen_on != [intent.target.clone()];
        if (locked && waited < SETTLE) || (unseen && waited < LOST) {
            to(
                intent,
                now,
                State::Verifying,
                "the guest is on its target; the last signs of the move are awaited",
            );
            return;
        }
        if unseen {
            let seen: Vec<_> = placed.seen_on.iter().map(|node| node.as_str()).collect();
            let detail =
                format!("Proxmox VE has it on {}, agents see it on {}", placed.node, seen.join(", "));
            end(intent, now, State::Unknown, Reason::MigrationUnknown { detail });
            return;
        }
        let start = intent.submitted_at.unwrap_or(now);
        let seconds = ended.filter(|at| *at >= start).unwrap_or(now).since(start).as_secs();
        to(intent, now, State::Verifying, "the guest was seen on its target");
        if end(intent, now, State::Done, Reason::Arrived { target: intent.target.clone(), seconds }) && locked
        {
            intent.note(now, format!("it is still locked (migrate): {}", unlock(intent)));
        }
    }

    fn stayed(&self, intent: &mut Intent, placed: &Placed, own: Option<&Task>) {
        let now = self.view.at;
        let locked = placed.lock.as_deref() == Some("migrate");
        let Some((ended, words, request)) = own.and_then(|task| {
            let (at, words) = task.ended.as_ref()?;
            Some((*at, words.clone(), task.request))
        }) else {
            self.without_task(intent, locked);
            return;
        };
        let moved = self.carriers(intent).rev().find_map(|task| task.ended.clone());
        match (request, moved) {
            (true, None) => self.queued(intent, placed, now.since(ended), words),
            (true, Some((at, words))) | (false, Some((at, words))) => {
                self.failed(intent, now.since(at), words, locked);
            }
            (false, None) => self.failed(intent, now.since(ended), words, locked),
        }
    }

    /// Its task has ended and the guest is where it was.
    fn failed(&self, intent: &mut Intent, ago: Duration, words: Option<String>, locked: bool) {
        let now = self.view.at;
        // A lock goes away a moment after the task; and a place may be told later than an end.
        if (locked || words.is_none()) && ago < SETTLE {
            to(intent, now, State::Verifying, "its task has ended; the guest is still on its source");
            return;
        }
        let Some(mut detail) = words else {
            let detail = "its task ended well, yet the guest is on its source".to_owned();
            end(intent, now, State::Unknown, Reason::MigrationUnknown { detail });
            return;
        };
        if locked {
            detail.push_str(&format!("; the guest is still locked (migrate): {}", unlock(intent)));
        }
        end(intent, now, State::Failed, Reason::MigrationFailed { detail });
    }

    /// HA was asked and has not begun.
    fn queued(&self, intent: &mut Intent, placed: &Placed, ago: Duration, words: Option<String>) {
        let now = self.view.at;
        if let Some(detail) = words {
            end(intent, now, State::Failed, Reason::MigrationFailed { detail });
            return;
        }
        let moving = matches!(placed.ha.as_deref(), Some("migrate" | "relocate"));
        if moving && ago >= LOST {
            let detail = "HA has been about to move it for long".to_owned();
            end(intent, now, State::Unknown, Reason::MigrationUnknown { detail });
        } else if !moving && ago >= HA {
            let detail = "HA took the request and did not move the guest; the HA manager's log says why \
                          (`journalctl -u pve-ha-crm`)";
            end(intent, now, State::Failed, Reason::MigrationFailed { detail: detail.to_owned() });
        }
    }

    /// The guest is where it was, and no task of the call is listed.
    fn without_task(&self, intent: &mut Intent, locked: bool) {
        let now = self.view.at;
        let patience = if intent.upid.is_some() { SETTLE } else { ACCEPT };
        let waited = now.since(intent.answered_at.or(intent.submitted_at).unwrap_or(now));
        let away = intent.upid.is_some() && !self.view.online.contains(&intent.source);
        if waited < patience || ((locked || away) && waited < LOST) {
            return;
        }
        if locked || away {
            let what = if away { "its node is away" } else { "the guest is locked (migrate)" };
            let detail = format!("{what}, and no task is listed that moves it; {}", unlock(intent));
            end(intent, now, State::Unknown, Reason::MigrationUnknown { detail });
        } else if intent.upid.is_some() {
            let detail = "its task is no longer listed, and the guest is on its source".to_owned();
            end(intent, now, State::Failed, Reason::MigrationFailed { detail });
        } else {
            let said = intent.log.last().filter(|step| step.state == State::Submitting);
            let detail =
                said.map_or_else(|| "no task of it is listed".to_owned(), |step| step.detail.clone());
            end(intent, now, State::Failed, Reason::NotAccepted { detail });
        }
    }
}

/// The next state, where the intent is not in it and it is one that may follow.
fn to(intent: &mut Intent, at: Timestamp, state: State, detail: &str) {
    if intent.state != state && intent.state.may_become(state) {
        intent.enter(at, state, detail);
    }
}

/// The end, where it is one that may follow; whether it was.
fn end(intent: &mut Intent, at: Timestamp, state: State, why: Reason) -> bool {
    if intent.state == state && intent.why.is_none() {
        // It had failed for another reason, before its task was found.
        intent.note(at, why.to_string());
        intent.why = Some(why);
        return false;
    }
    intent.state != state && intent.state.may_become(state) && intent.end(at, state, why)
}

fn unlock(intent: &Intent) -> String {
    let tool = match intent.kind {
        evenkeel_common::guest::GuestKind::Qemu => "qm",
        evenkeel_common::guest::GuestKind::Lxc => "pct",
    };
    format!("when no task runs, `{tool} unlock {}`", intent.guest)
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
