//! Streaming detectors and guest profiles. Pure: time and values come in as arguments, nothing is read, no chance.
//!
//! One series is watched in five stages, each in its own file:
//!
//! | stage | what it does | file |
//! |---|---|---|
//! | step | 1 s samples become 5 s medians, and a value counts only once it has been held for 15 s | [`step`] |
//! | detectors | z-score (minutes), EWMA chart (an hour), rolling percentile (a day) judge the held value | [`zscore`], [`ewma`], [`percentile`] |
//! | calibration | each statistic becomes one common confidence by the tail of its own past | [`calibrate`] |
//! | vote | the detectors' confidences become one verdict | [`vote`] |
//! | watch | verdicts become anomalies with one opening and one closing | [`watch`] |
//!
//! [`scale`] says per metric what difference an admin would care about at all. [`profile`] summarises guests.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod calibrate;
pub mod config;
pub mod detector;
pub mod ewma;
pub mod percentile;
pub mod profile;
mod ring;
pub mod scale;
pub mod step;
pub mod vote;
pub mod watch;
pub mod zscore;
