//! The aggregator's own certificate authority: it names agents, and the aggregator's server to them.
//!
//! Made once in the data directory, then only read: an authority that came back with a new key would lock every agent
//! out, so files that are damaged, foreign or half there are an error and never replaced. One case is no damage: a key
//! without certificate is what a first start leaves that was killed half way, and nothing can have been issued under
//! it, so the certificate is made from that key.
//!
//! TLS libraries compare certificates with the machine's real time. So `now` here is real time, also in a lab whose
//! own time is virtual.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_common::id::{ClusterId, NodeId};
use evenkeel_common::time::Timestamp;
use evenkeel_runtime::files::{self, FileError};
use evenkeel_runtime::random::{self, Entropy, NoEntropy};
use evenkeel_runtime::{seal, tls};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How far certificates reach back, for machines whose clocks are behind.
const SKEW: Duration = Duration::from_secs(3600);

/// Life of the authority: ten years.
const CA_VALIDITY: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Life of a server certificate, which is issued anew at every start: two years.
const SERVER_VALIDITY: Duration = Duration::from_secs(2 * 365 * 86_400);

/// Size limit of the two files; they have under a kilobyte.
const FILE_LIMIT: u64 = 64 << 10;

/// Why there is no authority, or it does not issue.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file can not be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is a certificate but no key.
    #[error("{} is missing, but its certificate {} is there; restore the key from a backup, or, to start over with new certificates for every agent, remove the certificate", key.display(), cert.display())]
    KeyMissing {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A file is damaged or not what it should be.
    #[error("{} is damaged ({detail}); restore it from a backup", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Key and certificate are not a pair.
    #[error("the key {} does not belong to the certificate {}; restore both from the same backup", key.display(), cert.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// Its time is over.
    #[error("the certificate authority {} expired at {at}; move it and its key away, start again, and issue new certificates to all agents", path.display())]
    Expired {
        /// The certificate's file.
        path: PathBuf,
        /// When.
        at: Timestamp,
    },
    /// A server without names.
    #[error("a server certificate needs at least one name or address by which agents reach the server")]
    NoNames,
    /// Something that is neither a DNS name nor an IP address.
    #[error("{0:?} is neither a DNS name nor an IP address; give it without scheme and port")]
    BadName(String),
    /// The time is not one that a certificate can hold.
    #[error("{0} can not stand in a certificate; is the clock of this machine right?")]
    BadTime(Timestamp),
    /// The machine gave no random bytes.
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
    /// The certificate could not be made.
    #[error("can not make a certificate")]
    Issue(#[from] rcgen::Error),
}

/// A certificate and its key, for the one they were issued to. Debug output hides the key.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub cert_pem: String,
    /// Its key: a secret.
    pub key_pem: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// The authority.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    fingerprint: String,
    not_after: Timestamp,
    entropy: Arc<dyn Entropy>,
}

impl Ca {
    /// Reads `ca.pem` and `ca.key` in `dir`; where there is neither, makes them (and the directory, private).
    ///
    /// # Errors
    /// [`CaError`] when the files are exposed, damaged, no pair or expired; they are left as they are then.
    pub fn open(dir: &Path, now: Timestamp, entropy: Arc<dyn Entropy>) -> Result<Self, CaError> {
        files::private_dir(dir)?;
        let (cert, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        // `try_exists`, because a file that can not be looked at is not a missing one.
        let exists =
            |path: &Path| path.try_exists().map_err(|source| FileError::Read { path: path.into(), source });
        match (exists(&cert)?, exists(&key)?) {
            (true, true) => {}
            (true, false) => return Err(CaError::KeyMissing { cert, key }),
            (false, has_key) => {
                if !has_key {
                    files::write_atomic(&key, KeyPair::generate()?.serialize_pem().as_bytes(), 0o600)?;
                }
                let pem = self_signed(&read_key(&key)?, now, &*entropy)?;
                files::write_atomic(&cert, pem.as_bytes(), 0o644)?;
            }
        }
        Self::load(&cert, &key, now, entropy)
    }

    fn load(cert: &Path, key: &Path, now: Timestamp, entropy: Arc<dyn Entropy>) -> Result<Self, CaError> {
        let damaged =
            |detail: &dyn ToString| CaError::Damaged { path: cert.into(), detail: detail.to_string() };
        let pair = read_key(key)?;
        let pem = files::read_text(cert, FILE_LIMIT)?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| damaged(&error))?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| damaged(&error))?;
        if *parsed.public_key().subject_public_key.data != *pair.public_key_raw() {
            return Err(CaError::Mismatch { cert: cert.into(), key: key.into() });
        }
        parsed.verify_signature(None).map_err(|error| damaged(&error))?;
        if !parsed.is_ca() {
            return Err(damaged(&"it is not the certificate of an authority"));
        }
        let not_after = Timestamp::from_millis(parsed.validity().not_after.timestamp().saturating_mul(1000));
        if not_after <= now {
            return Err(CaError::Expired { path: cert.into(), at: not_after });
        }
        let fingerprint = tls::fingerprint(&der);
        let issuer = Issuer::from_ca_cert_der(&der, pair).map_err(|error| damaged(&error))?;
        Ok(Self { issuer, pem, fingerprint, not_after, entropy })
    }

    /// Issues a certificate that lets an agent speak for one node, and for nothing else.
    ///
    /// It holds from an hour before `now` until `validity` after it, but never longer than the authority itself.
    ///
    /// # Errors
    /// [`CaError`] when the machine gives no randomness or the time does not fit.
    pub fn issue_agent(
        &self,
        cluster: &ClusterId,
        node: &NodeId,
        validity: Duration,
        now: Timestamp,
    ) -> Result<Issued, CaError> {
        let mut params = params(node.as_str());
        params.subject_alt_names = vec![SanType::URI(tls::agent_uri(cluster, node).try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params, validity, now)
    }

    /// Issues a certificate for the aggregator's own server; `names`: the DNS names and IP addresses, at least one,
    /// by which it is reached. It holds two years, so it is to be issued anew at every start.
    ///
    /// # Errors
    /// [`CaError::NoNames`], [`CaError::BadName`], or as [`Self::issue_agent`].
    pub fn issue_server(&self, names: &[String], now: Timestamp) -> Result<Issued, CaError> {
        let mut params = params("evenkeel aggregator");
        params.subject_alt_names = names.iter().map(|name| server_name(name)).collect::<Result<_, _>>()?;
        if params.subject_alt_names.is_empty() {
            return Err(CaError::NoNames);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params, SERVER_VALIDITY, now)
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        validity: Duration,
        now: Timestamp,
    ) -> Result<Issued, CaError> {
        let key = KeyPair::generate()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial(&*self.entropy)?);
        hold(&mut params, now, now.after(validity).min(self.not_after))?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// The authority's certificate, which agents and clients trust.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of the authority's certificate, as `openssl x509 -fingerprint -sha256` prints it.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// What only whoever has the authority's key can know, the same at every start: to make other keys from. It is
    /// not to leave the machine.
    #[must_use]
    pub fn secret(&self) -> Vec<u8> {
        seal::derive(&self.issuer.key().serialize_der(), "evenkeel secret of an aggregator").to_vec()
    }

    /// End of the authority's own validity.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }
}

fn read_key(path: &Path) -> Result<KeyPair, CaError> {
    files::check_private(path)?;
    let damaged = |error: rcgen::Error| CaError::Damaged { path: path.into(), detail: error.to_string() };
    KeyPair::from_pem(&files::read_text(path, FILE_LIMIT)?).map_err(damaged)
}

fn self_signed(key: &KeyPair, now: Timestamp, entropy: &dyn Entropy) -> Result<String, CaError> {
    // The number tells the authorities of several aggregators apart in a browser's or openssl's output.
    let name = format!("evenkeel CA {}", tls::hex(&random::bytes::<4>(entropy)?));
    let mut params = params(&name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial(entropy)?);
    hold(&mut params, now, now.after(CA_VALIDITY))?;
    Ok(params.self_signed(key)?.pem())
}

/// A certificate of this common name, at most 64 characters long, without anything else.
fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

/// 127 random bits: positive, as RFC 5280 section 4.1.2.2 asks, and not to be guessed.
fn serial(entropy: &dyn Entropy) -> Result<SerialNumber, NoEntropy> {
    let mut bytes = random::bytes::<16>(entropy)?;
    bytes[0] = bytes[0] & 0x7f | 0x40; // The bit set keeps it sixteen bytes long.
    Ok(SerialNumber::from_slice(&bytes))
}

/// Sets the validity, which begins earlier than `from` by [`SKEW`].
fn hold(params: &mut CertificateParams, from: Timestamp, to: Timestamp) -> Result<(), CaError> {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let date = |at: Timestamp| {
        let since = u64::try_from(at.as_secs()).ok().map(Duration::from_secs)?;
        epoch.checked_add(since.try_into().ok()?)
    };
    params.not_before = date(from.before(SKEW)).ok_or(CaError::BadTime(from))?;
    params.not_after = date(to).ok_or(CaError::BadTime(to))?;
    Ok(())
}

fn server_name(name: &str) -> Result<SanType, CaError> {
    let bad = || CaError::BadName(name.chars().take(128).collect());
    match ServerName::try_from(name).map_err(|_| bad())? {
        ServerName::IpAddress(address) => Ok(SanType::IpAddress(std::net::IpAddr::from(address))),
        ServerName::DnsName(dns) => Ok(SanType::DnsName(dns.as_ref().try_into().map_err(|_| bad())?)),
        _ => Err(bad()),
    }
}

#[cfg(test)]
#[path = "ca_tests.rs"]
mod tests;
