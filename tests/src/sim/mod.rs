//! A simulated Proxmox cluster: every figure is a pure function of seed, placement and time, so that a run can be
//! repeated at any speed and read at any moment.

pub mod fault;
pub mod fleet;
pub mod links;
pub mod source;
pub mod workload;

pub use fault::Fault;
pub use fleet::{Fleet, SimGuest, SimNode};
pub use source::SimSource;
