//! What agents send: gRPC streams to live state and durable rows. Knows the wire; nothing behind it does.

pub mod block;
pub mod config;
pub mod dictionary;
pub mod greeting;
pub mod histories;
pub mod ledger;
pub mod live;
pub mod past;
pub mod recent;
pub mod service;
pub mod session;
pub mod steering;
pub mod wide;
pub mod writer;

#[cfg(test)]
mod tests;

pub use config::IngestConfig;
pub use histories::Histories;
pub use ledger::{AnomalyNews, Counts, Ledger};
pub use live::Live;
pub use service::AgentService;
pub use steering::Steering;
pub use writer::Writer;
