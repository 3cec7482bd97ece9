//! Whom the client believes: a certificate authority or pinned certificates, never everybody.
//!
//! Proxmox nodes carry certificates of their cluster's own authority, so the system's authorities would not
//! help. A pin replaces the check of name, dates and issuer, not the check that the server holds the key: the
//! handshake's signature is always verified.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::PveError;

/// SHA-256 of a certificate (DER), as `pvenode cert info` and the web interface show it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(#[schemars(with = "String")] [u8; 32]);

/// Not a fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a SHA-256 fingerprint: expected 64 hex digits, with or without colons, as `pvenode cert info` shows them"
)]
pub struct InvalidFingerprint;

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, certificate).as_ref());
        Self(bytes)
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;
    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        let digits: Vec<u8> = text
            .trim()
            .chars()
            .filter(|&c| c != ':')
            .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
            .collect::<Option<_>>()
            .ok_or(InvalidFingerprint)?;
        let pairs: Vec<u8> =
            digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, d| byte << 4 | d)).collect();
        if digits.len() != 64 {
            return Err(InvalidFingerprint);
        }
        pairs.try_into().map(Self).map_err(|_| InvalidFingerprint)
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = InvalidFingerprint;
    fn try_from(text: String) -> Result<Self, InvalidFingerprint> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02X}", if i == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The pinned certificates: those of the configuration, and those the cluster names over a pinned connection.
#[derive(Debug)]
pub(super) struct Pins {
    configured: BTreeSet<Fingerprint>,
    learned: RwLock<BTreeSet<Fingerprint>>,
}

impl Pins {
    pub(super) fn new(configured: impl IntoIterator<Item = Fingerprint>) -> Self {
        Self { configured: configured.into_iter().collect(), learned: RwLock::default() }
    }

    /// Replaces what was learned: a certificate that the cluster no longer names is no longer trusted.
    pub(super) fn learn(&self, fingerprints: BTreeSet<Fingerprint>) {
        *self.learned.write().unwrap_or_else(PoisonError::into_inner) = fingerprints;
    }

    fn holds(&self, seen: &Fingerprint) -> bool {
        self.configured.contains(seen)
            || self.learned.read().unwrap_or_else(PoisonError::into_inner).contains(seen)
    }
}

/// What a server's certificate is held against.
#[derive(Clone, Debug)]
pub(super) enum Trust {
    Pins(Arc<Pins>),
    Authority { verifier: Arc<WebPkiServerVerifier>, file: String },
}

impl Trust {
    /// Reads the authority's certificates (PEM, one or more).
    pub(super) fn authority(path: &Path) -> Result<Self, PveError> {
        let fail = |problem: String| PveError::File { path: path.to_owned(), problem };
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| {
            fail(format!("the CA file can not be read ({error}); copy /etc/pve/pve-root-ca.pem from a node"))
        })?;
        for certificate in certificates {
            let certificate =
                certificate.map_err(|error| fail(format!("not a PEM certificate ({error})")))?;
            roots.add(certificate).map_err(|error| fail(format!("not a usable certificate ({error})")))?;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider()))
            .build()
            .map_err(|error| {
                fail(format!("no certificate in it ({error}); copy /etc/pve/pve-root-ca.pem from a node"))
            })?;
        Ok(Self::Authority { verifier, file: path.display().to_string() })
    }
}

/// Why a certificate was refused; travels inside rustls' error and is found again by the client.
#[derive(Clone, Debug, thiserror::Error)]
#[error("certificate {seen} refused: {problem}")]
pub(super) struct Refused {
    pub(super) problem: String,
    pub(super) expected: String,
    pub(super) seen: Fingerprint,
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: CryptoProvider,
}

impl Verifier {
    fn refuse(&self, problem: String, seen: Fingerprint) -> rustls::Error {
        let expected = match &self.trust {
            Trust::Pins(pins) => {
                pins.configured.iter().map(Fingerprint::to_string).collect::<Vec<_>>().join(" or ")
            }
            Trust::Authority { file, .. } => format!("one signed by {file}"),
        };
        CertificateError::Other(OtherError(Arc::new(Refused { problem, expected, seen }))).into()
    }

    fn signed(
        &self,
        certificate: &CertificateDer<'_>,
        verified: Result<HandshakeSignatureValid, rustls::Error>,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verified.map_err(|error| {
            let problem = format!("the server does not hold its private key: {error}");
            self.refuse(problem, Fingerprint::of(certificate))
        })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let seen = Fingerprint::of(end_entity);
        match &self.trust {
            Trust::Pins(pins) if pins.holds(&seen) => Ok(ServerCertVerified::assertion()),
            Trust::Pins(_) => Err(self.refuse("it is not pinned".into(), seen)),
            Trust::Authority { verifier, .. } => verifier
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .map_err(|error| self.refuse(error.to_string(), seen)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let verified = crypto::verify_tls12_signature(message, certificate, signature, algorithms);
        self.signed(certificate, verified)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let verified = crypto::verify_tls13_signature(message, certificate, signature, algorithms);
        self.signed(certificate, verified)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn provider() -> CryptoProvider {
    crypto::ring::default_provider()
}

/// TLS settings that believe `trust` and nobody else.
pub(super) fn client_config(trust: Trust) -> Result<ClientConfig, rustls::Error> {
    let verifier = Verifier { trust, provider: provider() };
    Ok(ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .dangerous() // rustls' name for "own verifier"; the one above refuses what is not pinned or signed.
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_with_and_without_colons_and_shown_as_proxmox_does() {
        let shown = Fingerprint::of(b"certificate").to_string();
        assert_eq!(shown.len(), 95);
        for text in [shown.clone(), shown.replace(':', ""), shown.to_lowercase(), format!(" {shown}\n")] {
            assert_eq!(text.parse::<Fingerprint>().unwrap().to_string(), shown);
        }
        for bad in ["", "AB", &shown[3..], &format!("{shown}:00"), &shown.replace(':', "-")] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(InvalidFingerprint), "{bad}");
        }
    }
}
