//! Figures of the store on this machine: `cargo test -p evenkeel-aggregator --release store::tests::measure --
//! --ignored --nocapture`.

use std::time::Instant;

use super::{block_key, cluster, node, noise, open};
use crate::store::records::{Cursor, NodeKey};
use crate::store::trees::{BLOCKS, CURSORS};
use crate::store::{Batch, Store};

#[test]
#[ignore = "measures, and takes a minute"]
#[allow(clippy::print_stdout)]
fn figures() {
    let dir = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    let store = open(dir.path());
    let key = NodeKey { cluster: cluster("lab"), node: node("pve1") };
    let mut laps = Vec::new();
    for sample in 0..500 {
        let start = Instant::now();
        let mut batch = Batch::new();
        batch.put(&CURSORS, &key, &Cursor { epoch: [1; 16], event: 0, sample }).unwrap();
        store.apply(batch).unwrap();
        store.flush().unwrap();
        laps.push(start.elapsed());
    }
    laps.sort();
    println!("put + flush: p50 {:?}, p99 {:?}", laps[250], laps[495]);
    for (size, minutes) in [(2_000, 600_i64), (20_000, 200), (96_000, 60)] {
        let before = store.size_on_disk().unwrap();
        let (nodes, start) = (20_i64, Instant::now());
        for minute in 0..minutes {
            for n in 0..nodes {
                let name = format!("n{size}-{n}");
                let mut batch = Batch::new();
                let block = noise((minute * nodes + n).cast_unsigned(), size);
                batch.put(&BLOCKS, &block_key(&name, minute), &block).unwrap();
                let key = NodeKey { cluster: cluster("lab"), node: node(&name) };
                let sample = minute.cast_unsigned();
                batch.put(&CURSORS, &key, &Cursor { epoch: [1; 16], event: 0, sample }).unwrap();
                store.apply(batch).unwrap();
            }
            store.flush().unwrap();
        }
        let blocks = (nodes * minutes) as f64;
        let grown = (store.size_on_disk().unwrap() - before) as f64;
        println!(
            "blocks of {size} B from {nodes} nodes, a flush a minute: {:.0} blocks/s, {:.1} MB/s, {:.0} B on disk a block",
            blocks / start.elapsed().as_secs_f64(),
            blocks * size as f64 / 1e6 / start.elapsed().as_secs_f64(),
            grown / blocks
        );
    }
    drop(store);
    let start = Instant::now();
    let store = open(dir.path());
    println!("open with {} MiB: {:?}", store.size_on_disk().unwrap() >> 20, start.elapsed());
}
