//! The event log: torn and damaged files, full disks, restarts.

use super::*;

const CAP: u64 = 8 << 20;

fn stand_in(gap: &Gap<'_>) -> Vec<u8> {
    let text = |payload: Option<&[u8]>| String::from_utf8(payload.unwrap_or(b"-").to_vec()).unwrap();
    format!("lost {}..{}{}", text(gap.before), text(gap.after), if gap.torn { " torn" } else { "" })
        .into_bytes()
}

fn open(folder: &Path) -> EventLog {
    EventLog::open(folder, CAP, &stand_in).unwrap()
}

fn texts(log: &mut EventLog, from: u64) -> Vec<String> {
    let payloads = log.read(from, 1000, &stand_in).unwrap();
    payloads.into_iter().map(|payload| String::from_utf8(payload).unwrap()).collect()
}

fn with_events(folder: &Path, events: &[&str]) -> EventLog {
    let mut log = open(folder);
    for event in events {
        log.append(&[event.as_bytes().to_vec()]).unwrap();
    }
    log
}

#[test]
fn a_write_cut_at_any_byte_keeps_what_was_before_and_tells_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let log = with_events(folder.path(), &["one", "two"]);
    let sound = log.used();
    drop(log);
    drop(with_events(folder.path(), &["three"]));
    let name = path(folder.path(), 1);
    let whole = fs::read(&name).unwrap();
    for cut in usize::try_from(sound).unwrap()..=whole.len() {
        fs::write(&name, &whole[..cut]).unwrap();
        let mut log = open(folder.path());
        let expected: &[&str] = match cut as u64 {
            cut if cut == sound => &["one", "two"],
            cut if cut == whole.len() as u64 => &["one", "two", "three"],
            _ => &["one", "two", "lost two..- torn"],
        };
        assert_eq!(texts(&mut log, 1), expected, "cut at {cut}");
        log.append(&[b"next".to_vec()]).unwrap();
        let last = log.next() - 1;
        assert_eq!(texts(&mut log, last), ["next"]);
    }
}

#[test]
fn a_flipped_bit_costs_one_event_and_never_a_number() {
    let folder = tempfile::tempdir().unwrap();
    drop(with_events(folder.path(), &["one", "two", "three", "four"]));
    let name = path(folder.path(), 1);
    let whole = fs::read(&name).unwrap();
    for place in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[place] ^= 0x40;
        fs::write(&name, &flipped).unwrap();
        let texts = texts(&mut open(folder.path()), 1);
        assert_eq!(texts.len(), 4, "byte {place}: {texts:?}");
        assert_eq!(
            texts.iter().filter(|text| text.starts_with("lost")).count(),
            1,
            "byte {place}: {texts:?}"
        );
    }
}

#[test]
fn damage_while_running_is_repaired_on_reading() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = with_events(folder.path(), &["one", "two", "three"]);
    assert_eq!(texts(&mut log, 1).len(), 3);
    let name = path(folder.path(), 1);
    let mut bytes = fs::read(&name).unwrap();
    let length = bytes.len();
    bytes[length / 2] ^= 1;
    fs::write(&name, bytes).unwrap();
    assert_eq!(texts(&mut log, 1), ["one", "lost one..three", "three"]);
    log.append(&[b"four".to_vec()]).unwrap();
    assert_eq!(texts(&mut log, 4), ["four"]);
    assert_eq!(texts(&mut open(folder.path()), 1).len(), 4);
}

#[test]
fn numbers_go_on_after_everything_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    let big = vec![b'x'; 40 << 10];
    for _ in 0..20 {
        log.append(std::slice::from_ref(&big)).unwrap();
    }
    log.free_to(7).unwrap();
    assert_eq!((log.first(), log.next()), (8, 21));
    log.free_to(20).unwrap();
    assert_eq!((log.used(), fs::read_dir(folder.path()).unwrap().count()), (0, 1));
    assert_eq!(open(folder.path()).next(), 21);
}

#[test]
fn reading_goes_on_across_segments_and_starts_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    for number in 0..3000_u32 {
        log.append(&[format!("{number:0300}").into_bytes()]).unwrap();
    }
    assert!(fs::read_dir(folder.path()).unwrap().count() > 2);
    let mut next = 1;
    while next < log.next() {
        for payload in log.read(next, 100, &stand_in).unwrap() {
            assert_eq!(payload, format!("{:0300}", next - 1).into_bytes());
            next += 1;
        }
    }
    assert_eq!(log.read(1500, 1, &stand_in).unwrap(), [format!("{:0300}", 1499).into_bytes()]);
}

#[test]
fn a_full_disk_costs_no_number_and_is_survived() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = with_events(folder.path(), &["one"]);
    log.active = OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert!(matches!(log.append(&[b"lost".to_vec()]), Err(AppendError::Write(_))));
    assert_eq!(log.next(), 2);
    log.append(&[b"two".to_vec()]).unwrap();
    assert_eq!(texts(&mut log, 1), ["one", "two"]);
    assert_eq!(texts(&mut open(folder.path()), 1), ["one", "two"]);
}

#[test]
fn the_cap_holds() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = EventLog::open(folder.path(), 1000, &stand_in).unwrap();
    let mut stored = 0;
    while log.append(&[vec![b'x'; 100]]).is_ok() {
        stored += 1;
        assert!(fs::metadata(path(folder.path(), 1)).unwrap().len() <= 1000);
    }
    assert_eq!(stored, 1000 / 116);
}
