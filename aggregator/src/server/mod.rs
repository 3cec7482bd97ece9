//! What people and programs ask: the gRPC control service, behind one layer that knows who is asking.

pub mod auth;
pub mod control;
mod export;
mod stored;
mod views;
mod watch;
