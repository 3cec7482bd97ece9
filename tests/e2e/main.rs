//! The whole path, from agents to the store, with real parts: what is killed, cut off, malformed or foreign.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod agent_reconnects;
mod bad_input;
mod decisions;
mod drills;
mod executing;
mod fleet;
mod history;
mod kill;
mod late_drill;
mod learning;
mod models;
mod mover;
mod pausing;
mod probes;
mod profiles;
mod roles;
mod rules;
mod stale;
mod stories;
mod support;
mod whatif;
