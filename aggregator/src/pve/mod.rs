//! What Proxmox VE says about a cluster, read through its HTTP API, and the one call that changes it ([`migrate`]).
//!
//! Only this module knows the API's shapes; what leaves it is [`inventory::Inventory`], one consistent view of
//! one cluster. Reading is lenient with types and words (Proxmox mixes numbers and texts, and adds words with
//! every version) and strict with completeness: a view that may be a half one is an error, not a smaller
//! cluster. The types of the answers are our own, so that a new Proxmox release does not break the client.

pub mod client;
pub mod cluster;
pub mod config;
pub mod error;
pub mod guest_config;
pub mod ha;
pub mod inventory;
mod lenient;
pub mod local_time;
pub mod migrate;
pub mod permissions;
pub mod reader;
pub mod resources;
pub mod rrd;
pub mod secret;
pub mod storage;
pub mod tasks;
pub mod tls;

pub use client::PveClient;
pub use config::PveConfig;
pub use error::PveError;
pub use inventory::Inventory;
pub use reader::InventoryReader;
pub use tls::Fingerprint;
