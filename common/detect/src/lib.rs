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
//! A whole node is judged at once by [`node`]; [`habit`] says what of it happens every night.
//!
//! The fleet's side, per node, on seven metrics:
//!
//! | part | what it does | file |
//! |---|---|---|
//! | seven metrics | names, units, domains, floors | [`seven`] |
//! | detectors | isolation forest, LSTM autoencoder, seasonal ESD | [`isolation_forest`], [`lstm_autoencoder`], [`seasonal_esd`] |
//! | tail | each statistic becomes a probability by its own past | [`tail`] |
//! | ensemble | vote or calibrated fusion; training from history | [`ensemble`] |
//! | models | what was learned as a file; drift | [`model`] |
//! | peers | a node against the other nodes of its cluster, at the same time | [`peers`] |
//! | feedback | answers of people move thresholds, within bounds | [`feedback`] |
//!
//! [`scale`] says per metric what difference an admin would care about at all. [`profile`] summarises guests.
//! [`forecast`] tells when a growing figure reaches its limit.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod calibrate;
mod chance;
pub mod config;
pub mod detector;
pub mod ensemble;
pub mod ewma;
pub mod feedback;
pub mod forecast;
pub mod habit;
pub mod isolation_forest;
pub mod lstm_autoencoder;
pub mod model;
pub mod node;
pub mod peers;
pub mod percentile;
pub mod profile;
mod ring;
pub mod scale;
pub mod seasonal_esd;
pub mod series;
pub mod seven;
pub mod step;
mod student;
pub mod table;
pub mod tail;
pub mod vote;
pub mod watch;
pub mod zscore;

pub use node::{NodeConfig, NodeDetector, NodeScore};
