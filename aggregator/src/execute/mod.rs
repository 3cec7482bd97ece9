//! Acts on what was decided: starts migrations in Proxmox VE, each at most once, and follows them to where the guest
//! is seen.
//!
//! - [`intent`]: what is to be done and how far it is, written down before each step;
//! - [`book`]: the intents of one cluster, each change durable before anyone sees it;
//! - [`approval`]: what operators say to them;
//! - [`executor`]: the last look, the one call, and nothing else that changes Proxmox;
//! - [`follow`]: what became of a migration, by what is seen of the guest;
//! - [`breaker`]: when failures forbid the next one;
//! - [`holds`]: what earlier migrations forbid;
//! - [`gate`]: after a pause has returned nothing is started.
//!
//! It judges no move: what may be moved is decided in `evenkeel_core`. It knows neither Proxmox' API nor the store: both
//! are traits here, and the decision cycle gives what implements them.

pub mod approval;
pub mod book;
pub mod breaker;
pub mod config;
pub mod executor;
pub mod follow;
pub mod gate;
pub mod holds;
pub mod intent;
pub mod view;

pub use book::{Book, IntentLog, LogError};
pub use config::ExecuteConfig;
pub use executor::{Answer, Executor, Hypervisor, Order, Switches};
pub use gate::Gate;
pub use intent::{Intent, State};
pub use view::View;
