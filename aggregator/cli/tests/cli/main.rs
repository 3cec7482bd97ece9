//! The binary against an aggregator of canned answers: what it prints, and how it fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod export;
mod failures;
mod golden;
mod history;
mod moves;
mod support;
mod watching;
