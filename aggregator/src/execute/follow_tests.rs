//! What is said of a migration, by what is seen.

use super::*;
use crate::execute::intent::tests::intent;
use evenkeel_common::id::{NodeId, Vmid};
use std::collections::BTreeMap;

const TOKEN: &str = "evenkeel@pve!rw";
const CALLED: i64 = 1_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(1000 * second)
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

/// Called at [`CALLED`], without an answer.
fn submitting() -> Intent {
    let mut intent = intent(900);
    intent.identity = Some("uuid-a".into());
    for state in [State::Approved, State::Prepared, State::Submitting] {
        assert!(intent.enter(at(CALLED), state, "on its way"));
    }
    (intent.submitted_at, intent.submitted_as) = (Some(at(CALLED)), TOKEN.into());
    intent.tasks_before = vec!["old".into()];
    intent
}

fn task(upid: &str, ended: Option<(i64, Option<&str>)>) -> Task {
    Task {
        upid: upid.into(),
        node: node("pve1"),
        guest: Vmid::new(101).unwrap(),
        request: false,
        user: TOKEN.into(),
        started: at(CALLED),
        ended: ended.map(|(second, words)| (at(second), words.map(str::to_owned))),
    }
}

fn by_ha(upid: &str, ended: Option<(i64, Option<&str>)>) -> Task {
    Task { user: "root@pam".into(), ..task(upid, ended) }
}

fn request(ended: Option<(i64, Option<&str>)>) -> Task {
    Task { request: true, ..task("request", ended) }
}

/// The guest on a node at a second, with these tasks.
fn seen(second: i64, place: &str, tasks: &[Task]) -> View {
    let placed = Placed {
        node: node(place),
        seen_on: vec![node(place)],
        lock: None,
        identity: Some("uuid-a".into()),
        ha: None,
    };
    let old = Task { upid: "old".into(), started: at(5), ..task("old", Some((9, Some("broken")))) };
    View {
        at: at(second),
        guests: BTreeMap::from([(Vmid::new(101).unwrap(), placed)]),
        tasks: std::iter::once(old).chain(tasks.iter().cloned()).collect(),
        online: ["pve1", "pve2", "pve3"].map(node).to_vec(),
    }
}

fn with(mut view: View, change: impl FnOnce(&mut Placed)) -> View {
    if let Some(placed) = view.guests.values_mut().next() {
        change(placed);
    }
    view
}

/// The intent after these looks.
fn after(intent: &Intent, views: &[View]) -> Intent {
    let mut intent = intent.clone();
    for view in views {
        intent = follow(&intent, view, &BTreeSet::new()).unwrap_or(intent);
    }
    intent
}

fn state(views: &[View]) -> State {
    after(&submitting(), views).state
}

fn why(intent: &Intent) -> String {
    intent.why.as_ref().map(ToString::to_string).unwrap_or_default()
}

#[test]
fn a_move_is_done_when_the_guest_is_seen_on_its_target() {
    let views = [
        seen(1005, "pve1", &[task("new", None)]),
        seen(1020, "pve1", &[task("new", None)]),
        seen(1035, "pve2", &[task("new", Some((1030, None)))]),
    ];
    assert_eq!(state(&views[..1]), State::Running);
    let done = after(&submitting(), &views);
    assert_eq!((done.state, done.upid.as_deref()), (State::Done, Some("new")));
    assert_eq!(why(&done), "moved: it was seen on pve2 30 s after the start");
    let way: Vec<_> = done.log.iter().map(|step| step.state.name()).collect();
    assert_eq!(
        way,
        ["proposed", "approved", "prepared", "submitting", "submitted", "running", "verifying", "done"]
    );
    assert_eq!(follow(&done, &seen(2000, "pve1", &[]), &BTreeSet::new()), None, "what is done stays done");
}

#[test]
fn a_task_that_failed_though_the_guest_moved_is_a_move_and_one_that_ended_well_without_is_none() {
    let problems = task("new", Some((1030, Some("migration problems"))));
    let locked = |view| with(view, |placed| placed.lock = Some("migrate".into()));
    let early = locked(seen(1040, "pve2", std::slice::from_ref(&problems)));
    assert_eq!(state(std::slice::from_ref(&early)), State::Verifying);
    let late = locked(seen(1095, "pve2", std::slice::from_ref(&problems)));
    let done = after(&submitting(), &[early, late]);
    assert_eq!(done.state, State::Done);
    assert!(done.log.last().unwrap().detail.contains("`qm unlock 101`"), "{:?}", done.log.last());
    let well = task("new", Some((1030, None)));
    assert_eq!(state(&[seen(1040, "pve1", std::slice::from_ref(&well))]), State::Verifying);
    let unknown = after(&submitting(), &[seen(1100, "pve1", &[well])]);
    assert_eq!((unknown.state, unknown.unknown_at), (State::Unknown, Some(at(1100))));
}

#[test]
fn a_task_that_failed_where_the_guest_stayed_is_a_failure_in_its_own_words() {
    let failed = task("new", Some((1030, Some("target full"))));
    let ended = after(&submitting(), &[seen(1035, "pve1", std::slice::from_ref(&failed))]);
    assert_eq!((ended.state, why(&ended)), (State::Failed, "the migration failed: target full".into()));
    let locked = |view| with(view, |placed| placed.lock = Some("migrate".into()));
    assert_eq!(state(&[locked(seen(1035, "pve1", std::slice::from_ref(&failed)))]), State::Verifying);
    let ended = after(&submitting(), &[locked(seen(1095, "pve1", &[failed]))]);
    assert!(why(&ended).contains("still locked (migrate)"), "{}", why(&ended));
    let elsewhere = after(&submitting(), &[seen(1035, "pve3", &[task("new", Some((1030, None)))])]);
    assert_eq!(
        (elsewhere.state, why(&elsewhere)),
        (State::Failed, "the migration failed: the guest is on pve3".into())
    );
}

#[test]
fn a_call_without_an_answer_is_looked_for_and_given_up_only_when_nothing_shows_it() {
    assert_eq!(state(&[seen(1015, "pve1", &[])]), State::Submitting);
    let mut lost = submitting();
    lost.note(at(1010), "no complete answer within 10 s");
    lost.answered_at = Some(at(1010));
    let lost = after(&lost, &[seen(1025, "pve1", &[]), seen(1031, "pve1", &[])]);
    assert_eq!(lost.state, State::Failed);
    assert_eq!(why(&lost), "Proxmox VE did not start it: no complete answer within 10 s");
    // Somebody else's task is not ours, nor is one that another intent has.
    let foreign = Task { user: "root@pam".into(), ..task("theirs", Some((1009, Some("no")))) };
    assert_eq!(state(&[seen(1031, "pve1", &[foreign])]), State::Failed);
    let claimed = BTreeSet::from(["new".to_owned()]);
    let view = seen(1031, "pve1", &[task("new", Some((1030, None)))]);
    assert!(follow(&submitting(), &view, &claimed).is_some_and(|intent| intent.upid.is_none()));
    // What shows up after all is taken up.
    let late = after(&lost, &[seen(1040, "pve1", &[task("new", None)])]);
    assert_eq!((late.state, late.upid.as_deref(), late.why.is_none()), (State::Running, Some("new"), true));
    assert_eq!(after(&late, &[seen(1060, "pve2", &[task("new", Some((1055, None)))])]).state, State::Done);
    // One that failed meanwhile tells why.
    let failed = after(&lost, &[seen(1040, "pve1", &[task("new", Some((1030, Some("target full"))))])]);
    assert_eq!((failed.state, why(&failed)), (State::Failed, "the migration failed: target full".into()));
    let too_late = follow(&lost, &seen(5000, "pve1", &[task("new", None)]), &BTreeSet::new());
    assert_eq!(too_late, None);
}

#[test]
fn a_lock_without_a_task_is_waited_for_and_then_needs_a_person() {
    let locked = |second| with(seen(second, "pve1", &[]), |placed| placed.lock = Some("migrate".into()));
    assert_eq!(state(&[locked(1100)]), State::Submitting);
    let unknown = after(&submitting(), &[locked(1100), locked(1601)]);
    assert_eq!(unknown.state, State::Unknown);
    // What is seen later settles it, and that it was unknown stays known.
    let settled = after(&unknown, &[seen(1700, "pve2", &[])]);
    assert_eq!((settled.state, settled.unknown_at), (State::Done, Some(at(1601))));
}

#[test]
fn a_request_to_ha_is_done_by_the_move_that_follows_it() {
    let queued = || request(Some((1002, None)));
    assert_eq!(state(&[seen(1005, "pve1", &[request(None)])]), State::Submitted);
    assert_eq!(state(&[seen(1020, "pve1", &[queued()])]), State::Submitted);
    assert_eq!(state(&[seen(1030, "pve1", &[queued(), by_ha("move", None)])]), State::Running);
    let moved = [queued(), by_ha("move", Some((1050, None)))];
    assert_eq!(state(&[seen(1055, "pve2", &moved)]), State::Done);
    let broken =
        after(&submitting(), &[seen(1055, "pve1", &[queued(), by_ha("move", Some((1050, Some("no"))))])]);
    assert_eq!((broken.state, why(&broken)), (State::Failed, "the migration failed: no".into()));
    let dropped = after(&submitting(), &[seen(1180, "pve1", &[queued()]), seen(1181, "pve1", &[queued()])]);
    assert_eq!(dropped.state, State::Submitted);
    let dropped = after(&dropped, &[seen(1182, "pve1", &[queued()])]);
    assert!(
        dropped.state == State::Failed && why(&dropped).contains("did not move the guest"),
        "{dropped:?}"
    );
    let about_to =
        |second| with(seen(second, "pve1", &[queued()]), |placed| placed.ha = Some("migrate".into()));
    assert_eq!(state(&[about_to(1300)]), State::Submitted);
    assert_eq!(state(&[about_to(1700)]), State::Unknown);
}

#[test]
fn a_guest_that_is_gone_or_another_one_is_no_move() {
    let gone = |second| {
        let mut view = seen(second, "pve1", &[]);
        view.guests.clear();
        view
    };
    assert_eq!(state(&[gone(1010)]), State::Submitting);
    let (first, second) = (gone(1010), gone(1075));
    assert_eq!(state(&[first.clone(), second]), State::Failed);
    let back = seen(1050, "pve2", &[task("new", Some((1045, None)))]);
    assert_eq!(state(&[first, back]), State::Done);
    let other = with(seen(1050, "pve2", &[]), |placed| placed.identity = Some("uuid-b".into()));
    let ended = after(&submitting(), &[other]);
    assert_eq!(
        (ended.state, why(&ended)),
        (State::Failed, "the number 101 belongs to another guest now".into())
    );
}

#[test]
fn agents_have_to_see_it_where_proxmox_has_it() {
    let ended = || task("new", Some((1030, None)));
    let unseen =
        |second| with(seen(second, "pve2", &[ended()]), |placed| placed.seen_on = vec![node("pve1")]);
    assert_eq!(state(&[unseen(1040)]), State::Verifying);
    assert_eq!(state(&[unseen(1040), unseen(1631)]), State::Unknown);
    let silent = with(seen(1040, "pve2", &[ended()]), |placed| placed.seen_on.clear());
    assert_eq!(state(&[silent]), State::Done, "where no agent speaks, Proxmox VE alone has to do");
}

#[test]
fn a_task_that_is_no_longer_listed_leaves_the_place_to_tell() {
    let mut known = submitting();
    known.upid = Some("new".into());
    known.enter(at(1001), State::Submitted, "taken");
    known.answered_at = Some(at(1001));
    assert_eq!(after(&known, &[seen(1030, "pve1", &[])]).state, State::Submitted);
    assert_eq!(after(&known, &[seen(1100, "pve1", &[])]).state, State::Failed);
    assert_eq!(after(&known, &[seen(1100, "pve2", &[])]).state, State::Done);
    let mut away = seen(1100, "pve1", &[]);
    away.online.retain(|name| *name != node("pve1"));
    assert_eq!(after(&known, std::slice::from_ref(&away)).state, State::Submitted);
    away.at = at(1700);
    assert_eq!(after(&known, &[away]).state, State::Unknown);
}
