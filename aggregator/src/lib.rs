//! The aggregator: takes in what agents send, asks Proxmox, decides, explains. All I/O is here; the decision itself is
//! in `evenkeel-core`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod admin;
pub mod app;
pub mod config;
pub mod cycle;
pub mod execute;
pub mod fleet;
pub mod history;
pub mod identity;
pub mod ingest;
pub mod pve;
pub mod server;
pub mod store;
mod upkeep;
