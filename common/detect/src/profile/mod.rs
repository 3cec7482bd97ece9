//! How a guest usually behaves: summaries that can be merged, and the class that follows from them.
//!
//! A profile follows its guest from node to node and can be joined with what Proxmox's RRD knows of the past, so
//! everything here merges: in any order, to the same result up to rounding.

mod class;
mod guest;
mod sketch;
mod statistics;
mod summary;

pub use class::classify;
pub use guest::GuestProfiler;
pub use sketch::Sketch;
pub use summary::{HourMean, Hours, Moments, Summary};
