//! Certificates and keys, checked before a connection fails on them, and the identity a certificate proves.
//!
//! tonic takes PEM text and builds its own rustls configuration, so this hands out checked PEM ([`TlsMaterial`])
//! and not a configuration. Call [`install_provider`] first: tonic's server asks rustls for the process-wide one.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use evenkeel_common::id::{ClusterId, InvalidId, NodeId};
use evenkeel_common::time::Timestamp;
use rustls::crypto::{CryptoProvider, ring as ring_provider};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::files::{self, FileError};

/// Start of the one URI an agent's certificate carries: `evenkeel://agent/<cluster>/<node>`.
const AGENT_URI: &str = "evenkeel://agent/";

/// Certificates and keys are a few kilobytes; a bundle of authorities may be some hundred.
const PEM_LIMIT: u64 = 1 << 20;

/// Why certificates or a key can not be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, unreadable or exposed.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no certificate in the file.
    #[error("{} holds no certificate; expected PEM text with BEGIN CERTIFICATE", path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// There is no private key in the file.
    #[error("{} holds no private key; expected PEM text with BEGIN PRIVATE KEY", path.display())]
    NoKey {
        /// Which file.
        path: PathBuf,
    },
    /// A certificate in the file is damaged.
    #[error("{} holds a damaged certificate: {detail}", path.display())]
    BadCertificate {
        /// Which file.
        path: PathBuf,
        /// What the parser said.
        detail: String,
    },
    /// Key and certificate are not a pair.
    #[error("the key in {} does not fit the certificate in {}: {detail}; give the two that were issued together", key.display(), cert.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls said.
        detail: String,
    },
}

/// Makes ring the process's cryptography. Call it at the start of `main`; calling it again is fine.
pub fn install_provider() {
    // An error means that one is installed already, and all our crates are built with ring alone.
    drop(ring_provider::default_provider().install_default());
}

/// A certificate chain, its key and the authorities to trust, as checked PEM text. Debug output hides the key.
#[derive(Clone)]
pub struct TlsMaterial {
    /// The chain, our own certificate first.
    pub cert_pem: String,
    /// The key of the first certificate.
    pub key_pem: String,
    /// The authorities that the other side's certificate must come from.
    pub ca_pem: String,
}

impl std::fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsMaterial").finish_non_exhaustive()
    }
}

impl TlsMaterial {
    /// Reads and checks the three files: text, readable, key private and fitting its certificate.
    ///
    /// # Errors
    /// [`TlsError`], naming the file and the remedy. Whether a certificate is still valid is not judged here: an agent
    /// with an expired one must start, so that it can say so and renew.
    pub fn read(cert: &Path, key: &Path, ca: &Path) -> Result<Self, TlsError> {
        let ca_pem = read_authorities(ca)?;
        let cert_pem = files::read_text(cert, PEM_LIMIT)?;
        let chain = certificates(&cert_pem, cert)?;
        files::check_private(key)?;
        let key_pem = files::read_text(key, PEM_LIMIT)?;
        let private = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|_| TlsError::NoKey { path: key.into() })?;
        CertifiedKey::from_der(chain, private, &provider()).map_err(|error| TlsError::Mismatch {
            cert: cert.into(),
            key: key.into(),
            detail: error.to_string(),
        })?;
        Ok(Self { cert_pem, key_pem, ca_pem })
    }
}

/// Reads the PEM text of the authorities to trust, for a client without a certificate of its own.
///
/// # Errors
/// [`TlsError`] when the file can not be read or holds no sound certificate.
pub fn read_authorities(path: &Path) -> Result<String, TlsError> {
    let pem = files::read_text(path, PEM_LIMIT)?;
    certificates(&pem, path)?;
    Ok(pem)
}

/// ring, passed explicitly where rustls takes a provider.
#[must_use]
pub fn provider() -> CryptoProvider {
    ring_provider::default_provider()
}

/// Every certificate of a PEM text; `path` is for the error.
fn certificates(pem: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |detail: String| TlsError::BadCertificate { path: path.into(), detail };
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| bad(error.to_string()))?;
    for der in &found {
        X509Certificate::from_der(der).map_err(|error| bad(error.to_string()))?;
    }
    if found.is_empty() { Err(TlsError::NoCertificate { path: path.into() }) } else { Ok(found) }
}

/// Who an agent is, by the certificate of its connection and by nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentIdentity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its node.
    pub node: NodeId,
    /// Serial number of the certificate, in lower-case hex.
    pub serial: String,
    /// End of the certificate's validity.
    pub not_after: Timestamp,
}

/// Why a certificate is no agent's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not an X.509 certificate.
    #[error("the client certificate can not be read: {0}")]
    Malformed(String),
    /// Not exactly one agent name in it.
    #[error(
        "the client certificate names {found} agents; expected exactly one URI {AGENT_URI}CLUSTER/NODE. Issue one for this node"
    )]
    NotOneAgent {
        /// How many it names.
        found: usize,
    },
    /// The agent's name has more or fewer parts than cluster and node.
    #[error("the client certificate's name {0:?} is not {AGENT_URI}CLUSTER/NODE")]
    Shape(String),
    /// Cluster or node name is not one.
    #[error("the client certificate's name is not valid: {0}")]
    Name(#[from] InvalidId),
}

/// The URI that stands for an agent in its certificate.
#[must_use]
pub fn agent_uri(cluster: &ClusterId, node: &NodeId) -> String {
    format!("{AGENT_URI}{cluster}/{node}")
}

/// Who the peer is. `cert_der` is the first certificate of a chain that the TLS handshake has verified already;
/// nothing here checks signatures or dates.
///
/// # Errors
/// [`IdentityError`] unless it names exactly one agent by well-formed names.
pub fn peer_identity(cert_der: &[u8]) -> Result<AgentIdentity, IdentityError> {
    let malformed = |detail: String| IdentityError::Malformed(detail);
    let (rest, certificate) =
        X509Certificate::from_der(cert_der).map_err(|error| malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed(format!("{} bytes follow it", rest.len())));
    }
    let names = certificate.subject_alternative_name().map_err(|error| malformed(error.to_string()))?;
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let agents: Vec<_> = names
        .iter()
        .filter_map(|name| if let GeneralName::URI(uri) = name { uri.strip_prefix(AGENT_URI) } else { None })
        .collect();
    let [agent] = agents[..] else { return Err(IdentityError::NotOneAgent { found: agents.len() }) };
    let (cluster, node) =
        agent.split_once('/').ok_or_else(|| IdentityError::Shape(agent.chars().take(128).collect()))?;
    Ok(AgentIdentity {
        cluster: ClusterId::new(cluster)?,
        node: NodeId::new(node)?, // Refuses a further '/', '?' or '#' as well.
        serial: hex(certificate.raw_serial()),
        not_after: Timestamp::from_millis(certificate.validity().not_after.timestamp().saturating_mul(1000)),
    })
}

/// SHA-256 of a DER certificate as admins compare it: upper-case hex, bytes parted by colons.
#[must_use]
pub fn fingerprint(cert_der: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, cert_der);
    let bytes: Vec<_> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // Writing to a String can not fail.
        text
    })
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
