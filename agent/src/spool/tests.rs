//! The spool as a whole: restarts, kills, caps.

use super::*;

const CAP: u64 = 64 << 20;
const EVENTS_CAP: u64 = 8 << 20;

fn open(folder: &Path) -> Spool {
    Spool::open(folder, CAP, EVENTS_CAP, [1; 16]).unwrap()
}

fn event(second: i64) -> AgentEvent {
    AgentEvent {
        at: Timestamp::from_millis(second * 1000),
        uptime_ms: second.unsigned_abs() * 1000,
        kind: EventKind::ClockJumped { by_ms: second },
    }
}

fn events(spool: &mut Spool) -> Vec<AgentEvent> {
    spool.events_from(1, 10_000).into_iter().map(|event| event.try_into().unwrap()).collect()
}

#[test]
fn two_agents_can_not_share_a_spool() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    let second = Spool::open(folder.path(), CAP, EVENTS_CAP, [2; 16]);
    assert!(matches!(second, Err(SpoolError::InUse { .. })));
    drop(first);
    open(folder.path());
}

#[test]
fn numbers_go_on_exactly_after_an_orderly_end_and_skip_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    assert!(spool.clean_start());
    for expected in 1..=1000 {
        assert_eq!(spool.take_sample_number(), expected);
    }
    spool.emit([event(1), event(2)]);
    spool.close();

    let mut spool = open(folder.path());
    assert!(spool.clean_start());
    assert_eq!((spool.next_sample(), spool.next_event(), spool.epoch()), (1001, 3, [1; 16]));
    let mut highest = 0;
    for ticks in [0_u64, 1, 5, 127, 128, 129, 1000] {
        for _ in 0..ticks {
            let number = spool.take_sample_number();
            assert!(number > highest, "{number} was used before");
            highest = number;
        }
        drop(spool); // A kill: nothing is written at the end.
        spool = open(folder.path());
        assert!(!spool.clean_start());
        assert!(spool.next_sample() > highest && spool.next_sample() <= highest.max(1000) + 2 * RESERVE + 1);
        highest = spool.next_sample() - 1;
    }
}

#[test]
fn a_torn_event_is_told_under_its_own_number() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    spool.emit([event(1)]);
    spool.emit([event(2)]);
    drop(spool);
    let path = folder.path().join(format!("events-{:020}.log", 1));
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let mut spool = open(folder.path());
    spool.emit([event(3)]);
    let at = Timestamp::from_millis(1000);
    let loss = Loss { count: 1, window: Window { from: at, to: at }, how: LossKind::Unwritten };
    let kinds: Vec<_> = events(&mut spool).into_iter().map(|event| event.kind).collect();
    assert_eq!(
        kinds,
        [
            EventKind::ClockJumped { by_ms: 1 },
            EventKind::EventsLost(loss),
            EventKind::ClockJumped { by_ms: 3 }
        ]
    );
}

#[test]
fn past_the_cap_events_are_lost_with_one_record_even_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let cap = 16 << 10;
    let reopen = || Spool::open(folder.path(), CAP, cap, [1; 16]).unwrap();
    let mut spool = reopen();
    (1..=1000).for_each(|second| spool.emit([event(second)]));
    let kept = spool.next_event() - 1;
    assert!(kept < 1000 && spool.used() <= cap);
    spool.close();
    let mut spool = reopen();
    spool.emit([event(1001)]);
    let all = events(&mut spool);
    assert_eq!(all.len() as u64, kept, "still full");
    spool.free(kept, 0);
    (2..=300).for_each(|_| spool.retry());
    spool.emit([event(1002)]);
    let rest: Vec<AgentEvent> =
        spool.events_from(kept + 1, 10).into_iter().map(|event| event.try_into().unwrap()).collect();
    let window = Window {
        from: Timestamp::from_millis((kept.cast_signed() + 1) * 1000),
        to: Timestamp::from_millis(1_001_000),
    };
    let loss = Loss { count: 1001 - kept, window, how: LossKind::Dropped };
    assert_eq!(rest[0].kind, EventKind::EventsLost(loss));
    assert_eq!(rest[1], event(1002));
    assert_eq!(rest.len(), 2);
}

#[test]
fn samples_that_can_not_be_stored_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    fs::remove_dir_all(folder.path().join("samples")).unwrap();
    let losses = spool.store(&sample_chunk(1, 60, 3));
    let window = sample_chunk(1, 60, 3).window();
    assert_eq!(losses, [Loss { count: 60, window, how: LossKind::Dropped }]);
}

#[test]
fn a_lost_meta_file_begins_a_new_epoch_and_keeps_the_events() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    spool.emit([event(1)]);
    assert!(spool.store(&sample_chunk(1, 60, 3)).is_empty());
    spool.close();
    fs::remove_file(folder.path().join("meta")).unwrap();
    let mut spool = Spool::open(folder.path(), CAP, EVENTS_CAP, [2; 16]).unwrap();
    assert_eq!((spool.epoch(), spool.next_sample(), spool.clean_start()), ([2; 16], 61, false));
    assert_eq!(events(&mut spool), [event(1)]);
}
