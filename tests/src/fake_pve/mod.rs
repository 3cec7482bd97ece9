//! A fake Proxmox VE: a simulated cluster whose API is served over real HTTPS.
//!
//! It speaks with the shapes and quirks of the real one (numbers as texts, fields that are absent rather than
//! null, lists that silently leave out what a token may not see, errors told apart by text), so that what works
//! against it has met them. [`cluster::FakeCluster`] is the state, shared with whoever drives it; several
//! servers may play several nodes of one cluster.

mod api;
pub mod behaviour;
mod calls;
pub mod cluster;
pub mod fault;
mod migrate;
mod migration;
mod params;
pub mod post;
mod preconditions;
mod render;
mod render_ha;
mod render_tasks;
mod rrd;
mod server;
mod tasks;
mod token;

#[cfg(test)]
mod recorded;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evenkeel_aggregator::pve::Fingerprint;
use evenkeel_common::id::NodeId;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use behaviour::{Behaviour, Course};
pub use cluster::{FakeCluster, FakeGuest, FakeNode, FakeReplication, FakeToken, PveVersion};
pub use fault::Fault;
pub use post::{FakePost, PostOutcome};

/// A running server. Dropping it ends it and all its connections.
#[derive(Debug)]
pub struct FakePve {
    /// Where it listens: a free port of 127.0.0.1.
    pub addr: SocketAddr,
    /// The node it plays.
    pub node: NodeId,
    /// SHA-256 fingerprint of its certificate.
    pub fingerprint: Fingerprint,
    /// The authority that signed its certificate, in PEM; each server has its own.
    pub ca_pem: String,
    cluster: Arc<Mutex<FakeCluster>>,
    stop: CancellationToken,
}

impl FakePve {
    /// Starts to play the first node of `cluster` that no server has played yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the port can not be bound, no certificate be made, or no node is left to play.
    pub async fn start(cluster: Arc<Mutex<FakeCluster>>) -> io::Result<Self> {
        let identity = server::Identity::new().map_err(io::Error::other)?;
        let fingerprint = Fingerprint::of(&identity.certificate);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let node = {
            let mut state = lock(&cluster);
            let free = state.nodes.iter_mut().find(|(_, node)| node.ssl_fingerprint.is_none());
            let (id, node) =
                free.ok_or_else(|| io::Error::other("every node of the cluster has its server"))?;
            node.ssl_fingerprint = Some(fingerprint.to_string());
            id.clone()
        };
        let stop = CancellationToken::new();
        let ca_pem = identity.ca_pem.clone();
        let player = server::Player { cluster: Arc::clone(&cluster), node: node.clone() };
        tokio::spawn(server::serve(listener, identity, player, stop.clone()));
        Ok(Self { addr, node, fingerprint, ca_pem, cluster, stop })
    }

    /// Its address as the client's configuration wants it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.addr)
    }

    /// The first token of the cluster as a token file holds it, `user@realm!tokenid=secret`; empty without one.
    #[must_use]
    pub fn token(&self) -> String {
        self.token_at(0)
    }

    /// The second token of the cluster, which may migrate, in the same form.
    #[must_use]
    pub fn exec_token(&self) -> String {
        self.token_at(1)
    }

    fn token_at(&self, place: usize) -> String {
        let state = lock(&self.cluster);
        state.tokens.get(place).map(|token| format!("{}={}", token.id, token.secret)).unwrap_or_default()
    }
}

impl Drop for FakePve {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The state; a test that panicked while it held it has not broken it.
pub fn lock(cluster: &Mutex<FakeCluster>) -> MutexGuard<'_, FakeCluster> {
    cluster.lock().unwrap_or_else(PoisonError::into_inner)
}
