//! The kill loop: a child process writes and acknowledges, and is killed at any time, start-up included. Whatever it
//! acknowledged must be there afterwards, once and whole.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{block_key, cluster, config, node, noise, open, open_sled};
use crate::store::key::KeyRange;
use crate::store::records::{Cursor, NodeKey};
use crate::store::trees::{BLOCKS, CURSORS};
use crate::store::{Batch, Direction, INLINE_MAX, OnDamage, SledStore, Store};

const CHILD_DIR: &str = "EVENKEEL_CRASH_CHILD";
/// Number of kills; the long version sets it to 500.
const KILLS: &str = "EVENKEEL_KILLS";

/// The block of a number: small, large or chunked in turn.
fn block(number: u64) -> Vec<u8> {
    noise(number, [50, 3000, 20_000, 90_000][(number % 4) as usize])
}

fn cursor_key() -> NodeKey {
    NodeKey { cluster: cluster("lab"), node: node("pve1") }
}

/// Writes numbered blocks, each in one batch with its cursor, and prints a number only when it is flushed.
#[allow(clippy::print_stdout)]
fn child(dir: &Path) -> ! {
    let store = SledStore::open(dir, &config(), super::NOW).unwrap();
    let mut number = CURSORS.get(&store, &cursor_key()).unwrap().map_or(0, |cursor| cursor.sample);
    loop {
        for _ in 0..3 {
            number += 1;
            let mut batch = Batch::new();
            batch.put(&BLOCKS, &block_key("pve1", number.cast_signed()), &block(number)).unwrap();
            // Every fifth block is written over an earlier one, as a correction would be.
            if number.is_multiple_of(5) {
                let old = number - 4;
                batch.put(&BLOCKS, &block_key("pve1", old.cast_signed()), &block(old)).unwrap();
            }
            let cursor = Cursor { epoch: [1; 16], event: 0, sample: number };
            batch.put(&CURSORS, &cursor_key(), &cursor).unwrap();
            store.apply(batch).unwrap();
        }
        store.flush().unwrap();
        println!("\nacked {number}");
        std::io::stdout().flush().unwrap();
    }
}

fn spawn(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::crash::kill_loop", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Everything up to the cursor is there, once and whole; nothing beyond it, and no chunk that nobody needs.
fn check(dir: &Path, acked: u64) -> u64 {
    let store = open(dir);
    let cursor = CURSORS.get(&store, &cursor_key()).unwrap().map_or(0, |cursor| cursor.sample);
    assert!(cursor >= acked, "acknowledged {acked}, but the cursor is at {cursor}");
    let mut expected = 1_u32;
    BLOCKS
        .scan(&store, &KeyRange::all(), Direction::Forward, OnDamage::Fail, |key, value| {
            assert_eq!(key, block_key("pve1", i64::from(expected)));
            assert!(value == block(expected.into()), "block {expected}");
            expected += 1;
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(u64::from(expected) - 1, cursor, "blocks and cursor are one batch");
    let scrubbed = store.scrub(usize::MAX).unwrap();
    assert!(scrubbed.damaged.is_empty(), "{:?}", scrubbed.damaged);
    store.flush().unwrap();
    drop(store);
    let chunks = (1..=cursor).map(|number| block(number).len()).filter(|&len| len > INLINE_MAX);
    let expected: usize = chunks.map(|len| len.div_ceil(INLINE_MAX)).sum();
    assert_eq!(open_sled(dir).range([0xF0]..).count(), expected, "a chunk is missing, or nobody needs it");
    cursor
}

#[test]
fn kill_loop() {
    if let Some(dir) = std::env::var_os(CHILD_DIR) {
        child(Path::new(&dir));
    }
    let kills: u64 = std::env::var(KILLS).map_or(30, |kills| kills.parse().unwrap());
    let root = tempfile::tempdir().unwrap();
    let (mut generation, mut acked, mut written) = (0, 0, 0);
    for kill in 0..kills {
        // A new store now and then: creating one is part of starting up. And blocks stay few enough to check all.
        if kill % 15 == 0 {
            (generation, acked) = (kill, 0);
        }
        let dir = root.path().join(generation.to_string());
        let mut child = spawn(&dir);
        // By turns within the start (some 30 ms) and within the work.
        let span = if kill % 3 == 0 { 40_000 } else { 200_000 };
        let wait = noise(kill, 8).iter().fold(0_u64, |sum, &byte| sum * 31 + u64::from(byte)) % span;
        std::thread::sleep(Duration::from_micros(wait));
        child.kill().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line.strip_prefix("acked ").and_then(|number| number.parse().ok()) {
                acked = number;
            }
        }
        child.wait().unwrap();
        if kill % 2 == 0 {
            // Else the next child is the first to open what this one left.
            let before = acked;
            acked = check(&dir, acked);
            written += acked - before.min(acked);
        }
        written += acked;
    }
    assert!(written > 0, "no child lived long enough to write anything");
}
