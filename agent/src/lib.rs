//! The agent: samples a Proxmox VE node and its guests, watches every series, and tells the aggregator.
//!
//! [`run::run`] is the one loop, usable in-process with any [`collect::source::Source`] and clock; the daemon
//! in `main.rs` only adds arguments, configuration and signals.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod check;
pub mod collect;
pub mod config;
pub mod drill;
pub mod memory;
pub mod probe;
pub mod run;
pub mod spool;
pub mod uplink;
pub mod watch;
pub mod watch_node;
