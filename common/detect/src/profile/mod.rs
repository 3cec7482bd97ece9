//! How a guest usually behaves: summaries that can be merged, and the class that follows from them.
//!
//! A profile follows its guest from node to node and can be joined with what Proxmox's RRD knows of the past, so
//! everything here merges: in any order, to the same result up to rounding. It is made of pieces, one for each stretch
//! that somebody saw, and what has a piece in common is not merged: so however often a history arrives, and from
//! wherever, it counts once (the idea of a set that only grows: Shapiro, Preguiça, Baquero and Zawirski 2011).

mod class;
mod guest;
mod history;
mod outlook;
mod sketch;
mod statistics;
mod summary;

pub use class::classify;
pub use guest::{GuestProfiler, RrdMean};
pub use history::HistoryError;
pub use sketch::Sketch;
pub use summary::{HourMean, Hours, Moments, Summary};
