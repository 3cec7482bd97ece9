//! What people and programs ask: the gRPC control service, behind one layer that knows who is asking.

pub mod auth;
pub mod control;
mod drills;
pub mod execution;
mod explain;
mod export;
pub mod fleet;
pub mod history;
mod import;
mod judged;
mod models;
mod request;
mod stored;
mod views;
mod watch;
pub mod whatif;
