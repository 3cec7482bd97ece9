//! What every backend must do, written against the trait alone.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use evenkeel_common::event::{AgentEvent, EventKind, LossKind};
use evenkeel_common::time::{Timestamp, Window};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{NOW, block_key, cluster, node, noise};
use crate::store::key::KeyRange;
use crate::store::records::{
    AnomalyTimeKey, BlockKey, Cursor, EventKey, EventRecord, GapKey, GapRecord, MoveKey, NodeKey, RunKey,
};
use crate::store::retention::{Expired, expire};
use crate::store::trees::{ANOMALIES_BY_TIME, BLOCKS, CONTROL, CURSORS, EVENTS, GAPS, MOVES, RUNS};
use crate::store::{
    Batch, Direction, INLINE_MAX, MAX_BATCH, MAX_KEY, Store, StoreConfig, StoreError, TreeId, trees,
};

/// Opens the backend's store that belongs to a directory, creating it if need be.
type Open = dyn Fn(&Path) -> Box<dyn Store>;

/// Everything below, for one backend.
fn conformance(open: &Open) {
    let with = |test: fn(&Open, &Path)| test(open, tempfile::tempdir().unwrap().path());
    with(batches_are_whole_and_the_later_change_holds);
    with(scans_are_ordered_and_keep_to_their_range);
    with(values_of_any_size_come_back);
    with(what_is_too_large_is_refused_whole);
    with(flushed_data_survives_closing);
    with(an_export_holds_everything);
    with(a_bad_export_is_refused_by_line);
    with(a_scrub_reads_everything_once_beside_writers);
    with(retention_deletes_what_is_old_and_nothing_else);
    behaves_like_a_map(open);
}

#[test]
fn sled_conforms() {
    conformance(&|dir| Box::new(super::open(dir)));
}

fn cursor(event: u64) -> Cursor {
    Cursor { epoch: [7; 16], event, sample: 0 }
}

fn gap_key(node_name: &str, from: Timestamp, seq: u64) -> GapKey {
    GapKey { cluster: cluster("lab"), node: node(node_name), from, seq }
}

fn gap(from: Timestamp) -> GapRecord {
    let window = Window { from, to: Timestamp::from_millis(from.as_millis() + 1000) };
    GapRecord { window, kind: LossKind::Dropped, count: 3 }
}

fn batches_are_whole_and_the_later_change_holds(open: &Open, dir: &Path) {
    let store = open(dir);
    let key = NodeKey { cluster: cluster("lab"), node: node("pve1") };
    let mut batch = Batch::new();
    batch.put(&CURSORS, &key, &cursor(1)).unwrap();
    batch.put(&BLOCKS, &block_key("pve1", 0), &b"block".to_vec()).unwrap();
    batch.put(&CURSORS, &key, &cursor(2)).unwrap();
    store.apply(batch).unwrap();
    assert_eq!(CURSORS.get(&*store, &key).unwrap(), Some(cursor(2)));
    assert_eq!(BLOCKS.get(&*store, &block_key("pve1", 0)).unwrap(), Some(b"block".to_vec()));

    let mut batch = Batch::new();
    batch.delete(&BLOCKS, &block_key("pve1", 0));
    batch.delete(&BLOCKS, &block_key("pve1", 99));
    batch.put(&CURSORS, &key, &cursor(3)).unwrap();
    batch.delete(&CURSORS, &key);
    store.apply(batch).unwrap();
    assert_eq!(CURSORS.get(&*store, &key).unwrap(), None);
    assert_eq!(BLOCKS.get(&*store, &block_key("pve1", 0)).unwrap(), None);
}

fn scans_are_ordered_and_keep_to_their_range(open: &Open, dir: &Path) {
    let store = open(dir);
    // "pve1" and "pve1-b" share a beginning; minute -1 is before 1970 when seen from the key's own time.
    for (name, minutes) in [("pve1", vec![300, -1, 20]), ("pve1-b", vec![5]), ("pve10", vec![1, 2])] {
        for minute in minutes {
            let mut batch = Batch::new();
            batch.put(&BLOCKS, &block_key(name, minute), &minute.to_string().into_bytes()).unwrap();
            batch.put(&GAPS, &gap_key(name, NOW, 1), &gap(NOW)).unwrap();
            store.apply(batch).unwrap();
        }
    }
    let seen = |range: &KeyRange, direction, limit| -> Vec<String> {
        let rows = BLOCKS.page(&*store, range, direction, limit).unwrap();
        rows.into_iter()
            .map(|(key, value)| format!("{} {}", key.node, String::from_utf8(value).unwrap()))
            .collect()
    };
    let of = |name: &str| KeyRange::under(&(cluster("lab"), node(name)));
    assert_eq!(seen(&of("pve1"), Direction::Forward, 9), ["pve1 -1", "pve1 20", "pve1 300"]);
    assert_eq!(seen(&of("pve1"), Direction::Backward, 2), ["pve1 300", "pve1 20"]);
    assert_eq!(seen(&of("pve2"), Direction::Forward, 9), [""; 0]);
    assert_eq!(seen(&of("pve1"), Direction::Forward, 0), [""; 0]);
    let between = KeyRange::between(&block_key("pve1", -1), &block_key("pve1", 300));
    assert_eq!(seen(&between, Direction::Forward, 9), ["pve1 -1", "pve1 20"]);
    let backwards = KeyRange::between(&block_key("pve1", 300), &block_key("pve1", -1));
    assert_eq!(seen(&backwards, Direction::Forward, 9), [""; 0], "an upside-down range is empty");
    let all = ["pve1 -1", "pve1 20", "pve1 300", "pve1-b 5", "pve10 1", "pve10 2"];
    assert_eq!(seen(&KeyRange::all(), Direction::Forward, 99), all, "and none of another tree");
    let reverse: Vec<_> = all.into_iter().rev().collect();
    assert_eq!(seen(&KeyRange::all(), Direction::Backward, 99), reverse);
}

fn values_of_any_size_come_back(open: &Open, dir: &Path) {
    let sizes =
        [0, 1, 4095, 4096, INLINE_MAX - 1, INLINE_MAX, INLINE_MAX + 1, 2 * INLINE_MAX, 100_000, 1 << 20];
    let expected = |round: usize, i: usize| {
        // Each round gives each key another size, so that small replaces large and the reverse.
        let size = sizes[(i + 3 * round) % sizes.len()];
        if i.is_multiple_of(3) { vec![b'x'; size] } else { noise((round * 100 + i) as u64, size) }
    };
    for round in 0..3 {
        let store = open(dir);
        for i in 0..sizes.len() {
            let mut batch = Batch::new();
            batch.put(&BLOCKS, &block_key("pve1", i as i64), &expected(round, i)).unwrap();
            store.apply(batch).unwrap();
        }
        store.flush().unwrap();
        drop(store);
        let store = open(dir);
        let rows = BLOCKS.page(&*store, &KeyRange::all(), Direction::Forward, 99).unwrap();
        assert_eq!(rows.len(), sizes.len());
        for (i, (key, value)) in rows.into_iter().enumerate() {
            assert!(value == expected(round, i), "round {round}, value {i} of {} bytes", value.len());
            assert!(BLOCKS.get(&*store, &key).unwrap() == Some(value));
        }
    }
}

fn what_is_too_large_is_refused_whole(open: &Open, dir: &Path) {
    let store = open(dir);
    let mut batch = Batch::new();
    let mut told = None;
    for minute in 0..60 {
        batch.put(&BLOCKS, &block_key("pve1", minute), &noise(1, 4000)).unwrap();
        told = told.or(batch.is_full().then_some(minute));
    }
    let told = told.expect("a batch of 240 kB says that it is full");
    assert!((20..32).contains(&told), "{told}");
    let error = store.apply(batch).unwrap_err();
    assert!(matches!(error, StoreError::BatchTooLarge { rows: 60, limit: MAX_BATCH, .. }), "{error}");

    let mut batch = Batch::new();
    batch.put(&BLOCKS, &block_key("pve1", 0), &b"good".to_vec()).unwrap();
    batch.put(&CONTROL, &"k".repeat(MAX_KEY), &serde_json::Value::Null).unwrap();
    let error = store.apply(batch).unwrap_err();
    assert!(matches!(error, StoreError::KeyTooLong { tree: "control", .. }), "{error}");
    assert!(BLOCKS.page(&*store, &KeyRange::all(), Direction::Forward, 9).unwrap().is_empty());

    // Large values count by their head rows, so these fit.
    let mut batch = Batch::new();
    for minute in 0..9 {
        batch.put(&BLOCKS, &block_key("pve1", minute), &noise(1, 100_000)).unwrap();
    }
    store.apply(batch).unwrap();
}

fn flushed_data_survives_closing(open: &Open, dir: &Path) {
    for round in 0..5_u64 {
        let store = open(dir);
        let key = NodeKey { cluster: cluster("lab"), node: node("pve1") };
        assert_eq!(CURSORS.get(&*store, &key).unwrap().map_or(0, |c| c.event), round);
        let mut batch = Batch::new();
        batch.put(&CURSORS, &key, &cursor(round + 1)).unwrap();
        store.apply(batch).unwrap();
        store.flush().unwrap();
    }
}

/// A bit of everything, floats that do not print shortly among it.
fn fill(store: &dyn Store) {
    for i in 0..40_i64 {
        let at = Timestamp::from_millis(NOW.as_millis() + i);
        let seq = i.cast_unsigned();
        let mut batch = Batch::new();
        batch.put(&BLOCKS, &block_key("pve1", i), &noise(seq, 500 * i as usize)).unwrap();
        batch.put(&GAPS, &gap_key("pve1", at, seq), &gap(at)).unwrap();
        let event = AgentEvent { at, uptime_ms: seq, kind: EventKind::ClockJumped { by_ms: -i } };
        let key = EventKey { cluster: cluster("lab"), at, node: node("pve1"), seq };
        let record = EventRecord { node: node("pve1"), epoch: [1; 16], seq, event };
        batch.put(&EVENTS, &key, &record).unwrap();
        let key = AnomalyTimeKey {
            cluster: cluster("lab"),
            opened: at,
            node: node("pve1"),
            epoch: [1; 16],
            number: seq,
        };
        batch.put(&ANOMALIES_BY_TIME, &key, &()).unwrap();
        let run = serde_json::json!({"load": 1.0 / (i + 3) as f64, "text": "ü\n".repeat(200 * i as usize)});
        batch.put(&RUNS, &RunKey { cluster: cluster("lab"), run_s: i }, &run).unwrap();
        store.apply(batch).unwrap();
    }
}

fn everything(store: &dyn Store) -> BTreeMap<(&'static str, Vec<u8>), Vec<u8>> {
    let mut rows = BTreeMap::new();
    for tree in trees::ALL {
        store
            .scan(tree, &KeyRange::all(), Direction::Forward, &mut |key, value| {
                rows.insert((tree.name, key.to_vec()), value.unwrap());
                ControlFlow::Continue(())
            })
            .unwrap();
    }
    rows
}

fn an_export_holds_everything(open: &Open, dir: &Path) {
    let (from, to) = (open(&dir.join("from")), open(&dir.join("to")));
    fill(&*from);
    let mut text = Vec::new();
    assert_eq!(from.export(&mut text).unwrap(), 200);
    assert_eq!(to.import(&mut &text[..]).unwrap(), 200);
    assert!(everything(&*from) == everything(&*to));
    let mut again = Vec::new();
    to.export(&mut again).unwrap();
    assert!(text == again);
}

fn a_bad_export_is_refused_by_line(open: &Open, dir: &Path) {
    let good = {
        let store = open(&dir.join("from"));
        let mut batch = Batch::new();
        batch.put(&CONTROL, &"pause".into(), &serde_json::json!({"by": "root"})).unwrap();
        batch.put(&BLOCKS, &block_key("pve1", 0), &vec![1, 2]).unwrap();
        store.apply(batch).unwrap();
        let mut text = Vec::new();
        store.export(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    };
    let lines: Vec<&str> = good.lines().collect();
    assert_eq!(lines.len(), 4, "{good}");
    let cases = [
        (String::new(), 1, "cut off"),
        (good.replacen("\"schema\":1", "\"schema\":2", 1), 1, "schema 2"),
        (good.replace("\"blocks\"", "\"blocs\""), 2, "blocs"),
        (good.replace("0102", "010"), 2, "hexadecimal"),
        (good.replace("\"value\"", "\"raw\""), 3, "not a row"),
        (good.replace("{\"rows\":2}", "{\"rows\":3}"), 4, "3 rows"),
        (lines[..3].join("\n") + "\n", 4, "cut off"),
        (lines[..2].join("\n"), 2, "cut off"),
    ];
    for (i, (text, line, words)) in cases.into_iter().enumerate() {
        let store = open(&dir.join(format!("to{i}")));
        let error = store.import(&mut text.as_bytes()).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with(&format!("line {line} ")) && message.contains(words), "{message}");
    }
    let store = open(&dir.join("from"));
    let message = store.import(&mut good.as_bytes()).unwrap_err().to_string();
    assert!(message.contains("already holds data"), "{message}");
}

fn a_scrub_reads_everything_once_beside_writers(open: &Open, dir: &Path) {
    let store = open(dir);
    fill(&*store);
    for _ in 0..2 {
        let (mut rows, mut n) = (0, 0);
        let expected = everything(&*store).len();
        loop {
            let part = store.scrub(7).unwrap();
            assert!(part.rows <= 7 && part.damaged.is_empty(), "{:?}", part.damaged);
            rows += part.rows;
            if part.finished {
                break;
            }
            // One row behind the scrub and one before it change their values, sizes or existence.
            let mut batch = Batch::new();
            batch
                .put(&CURSORS, &NodeKey { cluster: cluster("lab"), node: node("pve1") }, &cursor(n))
                .unwrap();
            batch.put(&BLOCKS, &block_key("pve1", 3), &noise(n, 300 * n as usize)).unwrap();
            batch.put(&CONTROL, &"pause".into(), &n.into()).unwrap();
            if n.is_multiple_of(2) {
                batch.delete(&CONTROL, &"pause".into());
            }
            store.apply(batch).unwrap();
            n += 1;
        }
        assert!((expected..=expected + 2).contains(&rows), "{rows} of {expected}");
    }
}

fn retention_deletes_what_is_old_and_nothing_else(open: &Open, dir: &Path) {
    let store = open(dir);
    let days = |n: i64| Timestamp::from_millis(NOW.as_millis() - n * 86_400_000);
    for (name, ages) in [("pve1", vec![0, 1, 2, 3, 40]), ("pve2", vec![0]), ("pve3", (1..200).collect())] {
        for age in ages {
            let mut batch = Batch::new();
            let (cluster, node, at) = (cluster("lab"), node(name), days(age));
            let key = BlockKey { cluster: cluster.clone(), node: node.clone(), start: at };
            batch.put(&BLOCKS, &key, &noise(1, 20_000)).unwrap();
            batch.put(&GAPS, &GapKey { cluster: cluster.clone(), node, from: at, seq: 0 }, &gap(at)).unwrap();
            let vmid = 100.try_into().unwrap();
            batch.put(&MOVES, &MoveKey { cluster, at, vmid }, &serde_json::Value::Null).unwrap();
            store.apply(batch).unwrap();
        }
    }
    let config = StoreConfig { samples_days: 2, events_days: 100, moves_days: 365, ..StoreConfig::default() };
    let done = expire(&*store, &config, NOW).unwrap();
    // pve1 loses 3 and 40, pve3 all from 3 on; exactly two days old is not older than two days.
    assert_eq!(done, Expired { blocks: 2 + 197, events: 99, ..Expired::default() });
    let left = BLOCKS.page(&*store, &KeyRange::all(), Direction::Forward, 999).unwrap();
    let left: Vec<_> = left.iter().map(|(key, _)| (key.node.as_str(), key.start)).collect();
    let expected = [("pve1", 2), ("pve1", 1), ("pve1", 0), ("pve2", 0), ("pve3", 2), ("pve3", 1)];
    assert_eq!(left, expected.map(|(name, age)| (name, days(age))));
    assert_eq!(expire(&*store, &config, NOW).unwrap(), Expired::default());
}

/// Random changes and scans against a map. Keys are made of the bytes that are hardest on an ordered store.
fn behaves_like_a_map(open: &Open) {
    let byte = || prop_oneof![Just(0_u8), Just(1), Just(0xFE), Just(0xFF)];
    let key = || proptest::collection::vec(byte(), 0..9);
    let change = (key(), proptest::option::weighted(0.8, 0..20_000_usize));
    let batches = proptest::collection::vec(proptest::collection::vec(change, 1..6), 1..40);
    let ranges = proptest::collection::vec((key(), proptest::option::of(key())), 8);
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    runner
        .run(&(batches, ranges), |(batches, ranges)| {
            let dir = tempfile::tempdir().unwrap();
            let store = open(dir.path());
            let (tree, mut model) = (BLOCKS.id(), BTreeMap::new());
            for (n, changes) in batches.into_iter().enumerate() {
                let mut batch = Batch::new();
                for (key, size) in changes {
                    let value = size.map(|size| noise(n as u64, size));
                    batch.push(tree, key.clone(), value.clone());
                    match value {
                        Some(value) => model.insert(key, value),
                        None => model.remove(&key),
                    };
                }
                store.apply(batch).unwrap();
            }
            for (start, end) in ranges {
                let range = KeyRange { start, end };
                let mut expected: Vec<_> = model
                    .iter()
                    .filter(|(key, _)| {
                        **key >= range.start && range.end.as_ref().is_none_or(|end| *key < end)
                    })
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                prop_assert!(rows(&*store, tree, &range, Direction::Forward) == expected);
                expected.reverse();
                prop_assert!(rows(&*store, tree, &range, Direction::Backward) == expected);
            }
            Ok(())
        })
        .unwrap();
}

fn rows(store: &dyn Store, tree: TreeId, range: &KeyRange, direction: Direction) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    store
        .scan(tree, range, direction, &mut |key, value| {
            rows.push((key.to_vec(), value.unwrap()));
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}
