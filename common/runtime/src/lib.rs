//! What both daemons and the CLI need from the outside world, injected so that tests and the lab can replace it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod clock;
pub mod config_file;
pub mod files;
pub mod log;
pub mod random;
pub mod seal;
pub mod service;
pub mod shutdown;
pub mod tls;
