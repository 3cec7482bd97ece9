//! The history of migrations: what failed where, how often, together with what else, and who has to know. Pure: records
//! come in one at a time, in any order, and what is kept of them is bounded by the number of hosts, not of records.
//!
//! - [`import`] reads files of any size; [`record`] says what one migration is, [`fault`] why something is none;
//! - [`failures`]: hosts that failed again; [`score`]: how anomalous each is; [`summary`]: all of them together;
//! - [`correlate`]: which fail together, with how much chance there is in that; [`report`]: this week and the one before;
//! - [`heatmap`]: the same as marks; [`trend`]: where archived scores are going;
//! - [`tier`]: who is called for a score, and how soon.

pub mod correlate;
pub mod failures;
pub mod fault;
#[cfg(test)]
mod fixture;
pub mod group;
pub mod heatmap;
pub mod hosts;
pub mod import;
pub mod record;
pub mod report;
pub mod score;
mod significance;
pub mod summary;
pub mod tier;
pub mod trend;
