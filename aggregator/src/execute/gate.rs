//! The gate: whoever closes it and has returned may rely on it that nothing is started any more.
//!
//! A call to Proxmox VE takes its time, and a pause can come in the middle of it. The call holds the gate from the last
//! look at the switches to its answer; a pause sets its switch first and then waits until nobody holds the gate.

use tokio::sync::{Mutex, MutexGuard};

/// Passed by one call at a time.
#[derive(Debug, Default)]
pub struct Gate(Mutex<()>);

impl Gate {
    /// Holds it. The switches have to be looked at after that, and the call be over before the guard goes.
    pub async fn hold(&self) -> MutexGuard<'_, ()> {
        self.0.lock().await
    }

    /// Returns when no call that began before is under way. Blocks its thread, which must be one that may.
    pub fn wait(&self) {
        drop(self.0.blocking_lock());
    }
}
