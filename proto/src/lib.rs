//! The wire of evenkeel, and nothing else: generated messages and services, and their conversion to `common`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

/// Version 1 of the protocol.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("evenkeel.v1");
}

pub mod convert;

/// The descriptors of every service, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The protocol versions this build speaks, inclusive.
pub const VERSIONS: (u32, u32) = (1, 1);

/// Capability bit: columns may be compressed with zstd.
pub const CAPABILITY_ZSTD: u64 = 1;
