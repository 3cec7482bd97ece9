//! Who may talk to the aggregator, as what, and what of it is written down: the aggregator's own certificate
//! authority for agents, tokens with roles for people and scripts, and the audit log.
//!
//! Everything here blocks on small files; call what writes from `spawn_blocking`.

pub mod audit;
pub mod authorise;
pub mod ca;
pub mod roles;
pub mod tokens;

use evenkeel_runtime::tls::hex;

/// SHA-256 in lower-case hex.
fn sha256_hex(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}
