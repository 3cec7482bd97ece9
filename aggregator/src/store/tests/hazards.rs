//! Each hazard of sled, brought about on purpose.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{NOW, block_key, config, noise, open, open_sled};
use crate::store::key::KeyRange;
use crate::store::records::MetaRecord;
use crate::store::trees::{BLOCKS, META};
use crate::store::{Batch, Direction, OnDamage, SledStore, Store, StoreConfig, StoreError};

fn put(store: &dyn Store, minute: i64, size: usize) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    batch.put(&BLOCKS, &block_key("pve1", minute), &noise(minute.cast_unsigned(), size))?;
    store.apply(batch)
}

fn count(store: &dyn Store) -> usize {
    BLOCKS.page(store, &KeyRange::all(), Direction::Forward, usize::MAX).unwrap().len()
}

#[test]
fn the_directory_is_private() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("a/b");
    drop(open(&dir));
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_second_open_is_refused_and_names_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let message = SledStore::open(dir.path(), &config(), NOW).err().unwrap().to_string();
    for words in [dir.path().to_str().unwrap(), &format!("process {}", std::process::id())] {
        assert!(message.contains(words), "{message}");
    }
    put(&first, 1, 10).unwrap();
    drop(first);
    assert_eq!(count(&open(dir.path())), 1);
}

#[test]
fn a_newer_schema_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put(&store, 1, 10).unwrap();
    let mut batch = Batch::new();
    let meta = MetaRecord { schema: 3, evenkeel: "7.1.0".into(), created_at: NOW };
    batch.put(&META, &"store".into(), &meta).unwrap();
    store.apply(batch).unwrap();
    store.flush().unwrap();
    drop(store);
    let message = SledStore::open(dir.path(), &config(), NOW).err().unwrap().to_string();
    for words in [dir.path().to_str().unwrap(), "schema 3", "knows 1", "evenkeel >= 7.1.0", "export"] {
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn data_without_a_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put(&store, 1, 10).unwrap();
    let mut batch = Batch::new();
    batch.delete(&META, &"store".into());
    store.apply(batch).unwrap();
    drop(store);
    let error = SledStore::open(dir.path(), &config(), NOW).err().unwrap();
    assert!(matches!(error, StoreError::DamagedFiles { .. }), "{error}");
}

#[test]
fn leftovers_of_a_killed_start_do_not_matter() {
    let root = tempfile::tempdir().unwrap();
    let origin = root.path().join("origin");
    put(&open(&origin), 1, 10).unwrap();
    drop(open(&origin));
    let leftovers: [(&str, &[u8]); 3] = [
        // Sorts behind every real snapshot, so sled takes it for the newest.
        ("snap.7FFFFFFFFFFFFFFF.generating", b""),
        ("snap.7FFFFFFFFFFFFFFF.generating", b"half a snapshot, without its checksum"),
        ("conf", b"segment_size: 524288\nuse_comp"),
    ];
    for (case, (name, content)) in leftovers.into_iter().enumerate() {
        let [alone, ours] = ["alone", "ours"].map(|kind| root.path().join(format!("{kind}{case}")));
        for dir in [&alone, &ours] {
            copy(&origin, dir);
            fs::write(dir.join(name), content).unwrap();
        }
        assert!(::sled::open(&alone).is_err(), "if sled opens this by itself, the repair can go: {name}");
        assert_eq!(count(&open(&ours)), 1, "{name}");
    }
}

#[test]
fn chunks_that_a_crash_left_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    put(&open(dir.path()), 1, 20_000).unwrap();
    let db = open_sled(dir.path());
    let rows = db.iter().count();
    // As after a kill between the chunks of a value and the batch with its head.
    db.insert([0xFD, 0, 0, 0, 0, 0, 0, 0, 9], &[]).unwrap();
    db.insert([0xFE, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0], b"chunk").unwrap();
    db.insert([0xFE, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1], b"chunk").unwrap();
    drop(db);
    let store = open(dir.path());
    put(&store, 1, 20_000).unwrap();
    assert_eq!(count(&store), 1);
    drop(store);
    assert_eq!(open_sled(dir.path()).iter().count(), rows);
}

static SYNCS: AtomicU32 = AtomicU32::new(0);
static FAILURES: AtomicU32 = AtomicU32::new(0);

#[test]
fn every_flush_syncs_the_database_file() {
    fn counted(file: &fs::File) -> io::Result<()> {
        SYNCS.fetch_add(1, Ordering::SeqCst);
        file.sync_data()
    }
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::open_with(dir.path(), &config(), NOW, counted).unwrap();
    for minute in 0..5 {
        put(&store, minute, 10).unwrap();
        let before = SYNCS.load(Ordering::SeqCst);
        store.flush().unwrap();
        assert_eq!(SYNCS.load(Ordering::SeqCst), before + 1);
    }
}

#[test]
fn after_a_failed_fsync_every_call_fails() {
    fn failing(file: &fs::File) -> io::Result<()> {
        // The first is that of opening; the third would succeed again, as the kernel's does.
        if FAILURES.fetch_add(1, Ordering::SeqCst) == 1 {
            Err(io::Error::other("medium error"))
        } else {
            file.sync_data()
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::open_with(dir.path(), &config(), NOW, failing).unwrap();
    put(&store, 1, 10).unwrap();
    for error in [
        store.flush().unwrap_err(),
        store.flush().unwrap_err(),
        put(&store, 2, 10).unwrap_err(),
        BLOCKS.get(&store, &block_key("pve1", 1)).unwrap_err(),
        store.maintain().unwrap_err(),
    ] {
        assert!(
            matches!(error, StoreError::Poisoned { .. }) && error.to_string().contains("medium error"),
            "{error}"
        );
    }
}

#[test]
fn no_page_grows_into_a_file_that_is_never_synced() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for minute in 0..200 {
        // Rows of the largest size, neighbours, rewritten so that pages are merged and split.
        put(&store, minute, crate::store::INLINE_MAX).unwrap();
        put(&store, minute / 2, crate::store::INLINE_MAX - 1).unwrap();
        put(&store, 1000 + minute, 200_000).unwrap();
    }
    store.flush().unwrap();
    let blobs = |dir: &Path| fs::read_dir(dir.join("blobs")).unwrap().count();
    assert_eq!(blobs(dir.path()), 0);

    // That it would: a few neighbours of 60 KiB are one page, and beyond 128 KiB it becomes such a file.
    let alone = tempfile::tempdir().unwrap();
    let db = ::sled::open(alone.path()).unwrap();
    for row in 0..16_u8 {
        db.insert([row], noise(row.into(), 60 << 10)).unwrap();
    }
    db.flush().unwrap();
    assert!(blobs(alone.path()) > 0, "if sled keeps them in its log, larger rows are fine");
}

#[test]
fn replaced_and_deleted_chunks_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for size in [300_000, 200_000, 10, 100_000] {
        put(&store, 1, size).unwrap();
    }
    let mut batch = Batch::new();
    batch.delete(&BLOCKS, &block_key("pve1", 1));
    store.apply(batch).unwrap();
    drop(store);
    let db = open_sled(dir.path());
    assert_eq!(db.iter().count(), 2, "the rows of schema and ledger only");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn flip(path: &Path, at: u64) {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 0x10]).unwrap();
}

/// What became of one flip.
#[derive(Debug, PartialEq, Eq)]
enum Flip {
    /// Opening failed, a value was told to be damaged, or a scrub found something missing.
    Reported,
    /// Everything is there.
    Harmless,
}

fn size(minute: i64) -> usize {
    [100, 5000, 30_000][(minute % 3).unsigned_abs() as usize]
}

/// Opens a damaged copy and reads everything. Panics on wrong data, and on data missing that nothing tells of.
fn examine(dir: &Path, rows: usize) -> Flip {
    let Ok(store) = SledStore::open(dir, &config(), NOW) else { return Flip::Reported };
    let mut seen = 0;
    let scanned = BLOCKS.scan(&store, &KeyRange::all(), Direction::Forward, OnDamage::Skip, |key, value| {
        let minute = (key.start.as_millis() - NOW.as_millis()) / 60_000;
        assert!(value == noise(minute.cast_unsigned(), size(minute)), "minute {minute}: wrong data");
        seen += 1;
        std::ops::ControlFlow::Continue(())
    });
    if !matches!(scanned, Ok(0)) {
        return Flip::Reported;
    }
    match store.scrub(usize::MAX) {
        Ok(scrubbed) if scrubbed.damaged.is_empty() => {
            assert_eq!(seen, rows, "rows are missing, and nothing tells");
            Flip::Harmless
        }
        _ => Flip::Reported,
    }
}

/// Flips one bit at each of many places of a store that was left behind by `prepare`.
fn flip_all_over(seed: u64, prepare: impl FnOnce(&Path) -> usize) {
    let root = tempfile::tempdir().unwrap();
    let origin = root.path().join("origin");
    let rows = prepare(&origin);
    assert_eq!(examine(&origin, rows), Flip::Harmless);
    let length = fs::metadata(origin.join("db")).unwrap().len();
    let mut reported = 0;
    for case in 0..40_u64 {
        let dir = root.path().join(case.to_string());
        copy(&origin, &dir);
        let at = u64::from_le_bytes(noise(seed * 1000 + case, 8).try_into().unwrap()) % length;
        flip(&dir.join("db"), at);
        reported += u32::from(examine(&dir, rows) == Flip::Reported);
        fs::remove_dir_all(&dir).unwrap();
    }
    // The rest hits what is no longer in use: a log holds every earlier state too.
    assert!(reported >= 4, "only {reported} of 40 flips hit anything");
}

fn put_range(dir: &Path, minutes: std::ops::Range<i64>) {
    let store = open(dir);
    for minute in minutes {
        put(&store, minute, size(minute)).unwrap();
        store.flush().unwrap();
    }
}

#[test]
fn a_bit_flipped_since_the_last_start_is_reported() {
    // sled reads this whole log at the next start, and would cut it off at the first damage.
    flip_all_over(1, |dir| {
        put_range(dir, 0..60);
        60
    });
}

#[test]
fn a_bit_flipped_in_old_data_is_reported() {
    flip_all_over(2, |dir| {
        put_range(dir, 0..60);
        drop(open(dir));
        60
    });
}

#[test]
fn a_bit_flipped_in_a_large_log_is_reported() {
    // Several segments since the last start, and rows written over.
    flip_all_over(3, |dir| {
        put_range(dir, 0..40);
        put_range(dir, 20..150);
        150
    });
}

/// A file system of so many MiB, unmounted when dropped; `None` where mounting is not allowed.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, mib: u32) -> Option<Self> {
        let options = format!("size={mib}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "evenkeel-test"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(at.to_path_buf()))
    }
}

impl SmallDisk {
    fn resize(&self, mib: u32) {
        let options = format!("remount,size={mib}m");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
#[allow(clippy::print_stderr)]
fn a_full_disk_stops_writing_but_not_starting_and_deleting() {
    let root = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(root.path(), 48) else {
        eprintln!("skipped: mounting a small tmpfs is not permitted here");
        return;
    };
    let dir = root.path().join("data");
    let config = StoreConfig { ballast_mib: 6, ..config() };
    let open = || SledStore::open(&dir, &config, NOW);
    let store = open().unwrap();
    let mut acked = 0;
    let error = loop {
        let written = put(&store, acked, 60_000).and_then(|()| store.flush());
        match written {
            Ok(()) => acked += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
    drop(store);
    // Whatever room is left goes to somebody else.
    let _ = fs::write(root.path().join("other"), noise(1, 48 << 20));

    let store = open().unwrap();
    assert!(!dir.join("ballast").exists(), "it was given back");
    assert!(i64::try_from(count(&store)).unwrap() >= acked, "nothing acknowledged is lost");
    let error = put(&store, 0, 10).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { need_mib: 12, .. }), "{error}");
    let mut batch = Batch::new();
    batch.delete(&BLOCKS, &block_key("pve1", 0));
    store.apply(batch).unwrap();
    store.flush().unwrap();
    store.maintain().unwrap_err();

    disk.resize(96);
    store.maintain().unwrap();
    assert!(dir.join("ballast").exists());
    put(&store, 0, 10).unwrap();
    store.flush().unwrap();
    drop(store);
    assert!(count(&open().unwrap()) >= 1);
}
