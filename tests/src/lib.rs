//! What tests and the lab are made of: a simulated fleet, a fake Proxmox API, and a harness that starts real agents and a
//! real aggregator in one process.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod fake_pve;
pub mod harness;
pub mod lab;
pub mod quick;
pub mod sim;
pub mod tree;
