//! Tests of the store: what every backend must do, what sled's wrapper must survive, and the kill loop.

mod conformance;
mod crash;
mod hazards;
mod measure;

use std::path::Path;

use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_common::time::Timestamp;

use super::records::BlockKey;
use super::{SledStore, StoreConfig, StoreError};

const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

fn config() -> StoreConfig {
    StoreConfig { cache_mib: 8, ballast_mib: 1, ..StoreConfig::default() }
}

/// A process that another test starts holds a copy of our lock from its fork to its exec, so a store that was dropped
/// may be locked for a moment.
fn open(dir: &Path) -> SledStore {
    loop {
        match SledStore::open(dir, &config(), NOW) {
            Err(StoreError::Locked { .. }) => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

/// What sled itself holds. Its own lock stays taken for a moment after a store is dropped.
fn open_sled(dir: &Path) -> ::sled::Db {
    loop {
        match ::sled::Config::new().path(dir).flush_every_ms(None).open() {
            Err(error) if error.to_string().contains("could not acquire lock") => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

fn cluster(name: &str) -> ClusterId {
    ClusterId::new(name).unwrap()
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn block_key(node_name: &str, minute: i64) -> BlockKey {
    let start = Timestamp::from_millis(NOW.as_millis() + minute * 60_000);
    BlockKey { cluster: cluster("lab"), node: node(node_name), start }
}

/// Bytes that do not compress and differ with the seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
