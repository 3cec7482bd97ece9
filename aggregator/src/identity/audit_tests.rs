//! Tests of [`super`]: the log is cut, bent and written by several at once.

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

fn entry(detail: &str) -> Entry {
    Entry {
        at: Timestamp::from_millis(1_800_000_000_000),
        who: "0011 (anna)".into(),
        role: Some(Role::Operator),
        call: "/evenkeel.v1.Control/Pause".into(),
        detail: detail.into(),
        outcome: Outcome::Done,
    }
}

fn log(dir: &tempfile::TempDir, entries: usize) -> PathBuf {
    let path = dir.path().join("audit.log");
    let audit = Audit::open(&path).unwrap();
    (0..entries).for_each(|n| audit.record(entry(&format!("entry {n}"))).unwrap());
    path
}

#[test]
fn entries_are_kept_in_order_privately_and_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let path = log(&dir, 2);
    log(&dir, 1);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<Line> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line.n).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(lines[1].entry, entry("entry 1"));
    let verified = verify(&path).unwrap();
    assert_eq!((verified.entries, verified.unfinished_bytes), (3, 0));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    fs::write(&path, "").unwrap();
    assert_eq!(verify(&path).unwrap(), Verified { entries: 0, head: GENESIS.into(), unfinished_bytes: 0 });
}

#[test]
fn any_changed_byte_but_the_last_lines_end_shows() {
    let dir = tempfile::tempdir().unwrap();
    let path = log(&dir, 3);
    let (good, head) = (fs::read(&path).unwrap(), verify(&path).unwrap().head);
    for at in 0..good.len() {
        let mut bent = good.clone();
        bent[at] ^= 0x01;
        fs::write(&path, &bent).unwrap();
        // The last line has none after it: only the head tells.
        let unchanged = verify(&path).is_ok_and(|found| found.head == head && found.entries == 3);
        assert!(!unchanged, "byte {at} {:?}", char::from(good[at]));
    }
}

#[test]
fn a_line_taken_out_or_moved_shows() {
    let dir = tempfile::tempdir().unwrap();
    let path = log(&dir, 4);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    for (kept, at_line) in
        [(vec![1, 2, 3], 1), (vec![0, 2, 3], 2), (vec![0, 2, 1, 3], 2), (vec![0, 1, 1, 2, 3], 3)]
    {
        let changed: String = kept.iter().map(|n| format!("{}\n", lines[*n])).collect();
        fs::write(&path, changed).unwrap();
        match verify(&path) {
            Err(AuditError::Damaged { line, .. }) => assert_eq!(line, at_line, "{kept:?}"),
            other => panic!("{kept:?}: {other:?}"),
        }
    }
}

#[test]
fn a_line_torn_at_any_byte_is_cut_and_the_cut_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let path = log(&dir, 3);
    let good = fs::read(&path).unwrap();
    let second_ends = good.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0 + 1;
    for end in second_ends + 1..good.len() {
        fs::write(&path, &good[..end]).unwrap();
        assert_eq!(verify(&path).unwrap().unfinished_bytes, (end - second_ends) as u64);
        Audit::open(&path).unwrap().record(entry("after")).unwrap();
        assert_eq!(verify(&path).unwrap().entries, 4, "two good, the cut, the new one");
        let text = fs::read_to_string(&path).unwrap();
        let cut: Line = serde_json::from_str(text.lines().nth(2).unwrap()).unwrap();
        assert_eq!(
            cut.entry.detail,
            format!("cut {} bytes of a line that was never finished", end - second_ends)
        );
    }
}

#[test]
fn several_writers_keep_one_chain() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let audit = Audit::open(&path).unwrap();
                (0..10).for_each(|n| audit.record(entry(&n.to_string())).unwrap());
            });
        }
    });
    assert_eq!(verify(&path).unwrap().entries, 40);
}

#[test]
fn hostile_text_makes_one_bounded_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let audit = Audit::open(&path).unwrap();
    let long = "\u{1}\n\"é".repeat(10_000);
    audit.record(Entry { who: long.clone(), call: long.clone(), ..entry(&long) }).unwrap();
    audit.record(entry("next")).unwrap();
    assert_eq!(verify(&path).unwrap().entries, 2);
    assert!(fs::metadata(&path).unwrap().len() < MAX_LINE);
}

#[test]
fn a_log_that_is_not_ours_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    for content in
        ["hello\n".to_owned(), "x".repeat(3 * MAX_LINE as usize), format!("{}\n", "x".repeat(200_000))]
    {
        fs::write(&path, &content).unwrap();
        assert!(matches!(Audit::open(&path), Err(AuditError::Damaged { .. })));
        assert!(matches!(verify(&path), Err(AuditError::Damaged { line: 1, .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
}

#[test]
fn a_full_disk_refuses_this_and_every_further_entry() {
    // /dev/full takes no byte, as a full disk; it can be locked and has length 0.
    let file = OpenOptions::new().read(true).append(true).open("/dev/full").unwrap();
    let tail = Some(Tail { length: 0, torn: 0, n: 0, hash: GENESIS.into() });
    let state = Mutex::new(State { file, tail, broken: false });
    let audit = Audit { path: "/dev/full".into(), state };
    assert!(matches!(audit.record(entry("x")), Err(AuditError::Io { .. })));
    assert!(matches!(audit.record(entry("x")), Err(AuditError::Broken { .. })));
}
