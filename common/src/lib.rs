//! The vocabulary of evenkeel. No I/O, no async, no clock.
//!
//! | noun | meaning | type |
//! |---|---|---|
//! | cluster | one Proxmox VE cluster (or a lone node) | [`id::ClusterId`] |
//! | node | one hypervisor of a cluster | [`id::NodeId`] |
//! | guest | a qemu or lxc guest, identified by cluster + vmid | [`id::Vmid`], [`guest::GuestFacts`] |
//! | series | one metric of one subject (and device) | [`sample::SeriesKey`] |
//! | sample | one value of a series at one time | [`sample::Tick`] |
//! | anomaly | a stretch in which a series was not itself: one opening, one closing | [`anomaly::Anomaly`] |
//! | profile | how a guest usually behaves | [`guest::GuestProfile`] |
//! | recommendation | a move that would help | [`decision::Recommendation`] |
//! | filter | a rule that may object to a recommendation | [`decision::Step`] |
//! | decision | what became of a recommendation in one run | [`decision::Decision`] |
//! | reason | why, typed, with numbers | [`reason::Reason`] |
//! | trace | one migration from its recommendation to what came of it | [`id::DecisionId::trace_id`] |
//!
//! Incident and root cause join this table when they exist.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod anomaly;
pub mod columns;
pub mod config;
pub mod decision;
pub mod drill;
pub mod event;
pub mod fingerprint;
pub mod guest;
pub mod id;
pub mod node;
#[macro_use]
mod reason_table;
pub mod reason;
pub mod sample;
pub mod time;
pub mod units;
