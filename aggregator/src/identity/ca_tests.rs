//! Tests of [`super`]; what is issued is judged by rustls, as in a real handshake.

use super::*;
use evenkeel_runtime::random::SystemEntropy;
use evenkeel_runtime::tls::{IdentityError, peer_identity};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::UnixTime;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn open(dir: &Path, now: Timestamp) -> Result<Ca, CaError> {
    Ca::open(dir, now, Arc::new(SystemEntropy))
}

fn names() -> (ClusterId, NodeId) {
    (ClusterId::new("lab").unwrap(), NodeId::new("pve1").unwrap())
}

fn agent(ca: &Ca) -> Issued {
    let (cluster, node) = names();
    ca.issue_agent(&cluster, &node, DAY, NOW).unwrap()
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn roots(ca: &Ca) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(der(ca.ca_pem())).unwrap();
    Arc::new(roots)
}

fn unix(at: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(at.as_secs().try_into().unwrap()))
}

/// Whether a server that trusts `ca` lets this client in.
fn client_accepted(ca: &Ca, cert_pem: &str, at: Timestamp) -> bool {
    let provider = Arc::new(tls::provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(ca), provider).build().unwrap();
    verifier.verify_client_cert(&der(cert_pem), &[], unix(at)).is_ok()
}

/// Whether a client that trusts `ca` believes the server to be `name`.
fn server_accepted(ca: &Ca, cert_pem: &str, name: &str, at: Timestamp) -> bool {
    let provider = Arc::new(tls::provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(ca), provider).build().unwrap();
    let name = ServerName::try_from(name).unwrap();
    verifier.verify_server_cert(&der(cert_pem), &[], &name, &[], unix(at)).is_ok()
}

#[test]
fn an_agents_certificate_names_its_node_and_holds_for_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let ca = open(dir.path(), NOW).unwrap();
    let issued = agent(&ca);
    let identity = peer_identity(&der(&issued.cert_pem)).unwrap();
    assert_eq!((identity.cluster, identity.node), names());
    assert_eq!((identity.not_after, identity.serial.len()), (NOW.after(DAY), 32));
    let second = Duration::from_secs(1);
    for (at, accepted) in [
        (NOW, true),
        (NOW.before(SKEW), true),
        (NOW.before(SKEW + second), false),
        (NOW.after(DAY), true),
        (NOW.after(DAY + second), false),
    ] {
        assert_eq!(client_accepted(&ca, &issued.cert_pem, at), accepted, "{at}");
    }
    assert!(!server_accepted(&ca, &issued.cert_pem, "pve1", NOW), "an agent's certificate is no server's");
    let again = peer_identity(&der(&agent(&ca).cert_pem)).unwrap();
    assert_ne!(again.serial, identity.serial);
    assert!(!format!("{issued:?}").contains("PRIVATE"));
}

#[test]
fn a_servers_certificate_holds_for_its_names_only() {
    let dir = tempfile::tempdir().unwrap();
    let ca = open(dir.path(), NOW).unwrap();
    let names = ["localhost", "ek.example.org", "127.0.0.1", "::1"].map(String::from);
    let issued = ca.issue_server(&names, NOW).unwrap();
    for name in &names {
        assert!(server_accepted(&ca, &issued.cert_pem, name, NOW), "{name}");
    }
    for name in ["example.org", "127.0.0.2"] {
        assert!(!server_accepted(&ca, &issued.cert_pem, name, NOW), "{name}");
    }
    assert!(!client_accepted(&ca, &issued.cert_pem, NOW), "the server's certificate is no agent's");
    let found = peer_identity(&der(&issued.cert_pem));
    assert_eq!(found, Err(IdentityError::NotOneAgent { found: 0 }));
    assert!(matches!(ca.issue_server(&[], NOW), Err(CaError::NoNames)));
    for bad in ["", "https://x", "a b", "host:8443", "ä.org", "[::1]"] {
        let made = ca.issue_server(&[bad.to_owned()], NOW);
        assert!(matches!(made, Err(CaError::BadName(_))), "{bad:?}");
    }
}

#[test]
fn a_foreign_authority_is_not_trusted() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, theirs) = (open(ours.path(), NOW).unwrap(), open(theirs.path(), NOW).unwrap());
    assert!(!client_accepted(&ours, &agent(&theirs).cert_pem, NOW));
    assert_ne!(ours.fingerprint(), theirs.fingerprint());
}

#[test]
fn the_files_are_private_and_the_authority_stays_the_same() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data/ca");
    let first = open(&dir, NOW).unwrap();
    let early = agent(&first);
    let again = open(&dir, NOW.after(DAY)).unwrap();
    assert_eq!(first.fingerprint(), again.fingerprint());
    assert!(client_accepted(&again, &early.cert_pem, NOW));
    assert!(client_accepted(&first, &agent(&again).cert_pem, NOW));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&dir), mode(&dir.join("ca.key")), mode(&dir.join("ca.pem"))), (0o700, 0o600, 0o644));
}

#[test]
fn certificates_do_not_outlive_the_authority() {
    let dir = tempfile::tempdir().unwrap();
    let ca = open(dir.path(), NOW).unwrap();
    let (cluster, node) = names();
    let issued = ca.issue_agent(&cluster, &node, CA_VALIDITY * 2, NOW.after(DAY)).unwrap();
    assert_eq!(peer_identity(&der(&issued.cert_pem)).unwrap().not_after, ca.not_after());
    let error = open(dir.path(), ca.not_after()).map(drop).unwrap_err();
    assert!(matches!(error, CaError::Expired { .. }), "{error}");
    assert!(matches!(ca.issue_server(&["x".into()], Timestamp::default()), Err(CaError::BadTime(_))));
}

#[test]
fn a_start_that_was_killed_half_way_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap().serialize_pem();
    files::write_atomic(&dir.path().join("ca.key"), key.as_bytes(), 0o600).unwrap();
    fs::write(dir.path().join("ca.pem.new"), "-----BEGIN CERT").unwrap();
    let ca = open(dir.path(), NOW).unwrap();
    assert!(client_accepted(&ca, &agent(&ca).cert_pem, NOW));
    assert_eq!(fs::read_to_string(dir.path().join("ca.key")).unwrap(), key);
}

#[test]
fn damaged_files_are_named_and_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("ca.pem"), dir.path().join("ca.key"));
    let good = open(dir.path(), NOW).unwrap();
    let (cert_pem, key_pem) = (fs::read_to_string(&cert).unwrap(), fs::read_to_string(&key).unwrap());
    let other = KeyPair::generate().unwrap();
    let leaf = {
        let mut params = params("x");
        hold(&mut params, NOW, NOW.after(DAY)).unwrap();
        params.self_signed(&KeyPair::from_pem(&key_pem).unwrap()).unwrap().pem()
    };
    // One character in the middle of the signature, the last part of the certificate.
    let mut bent = cert_pem.clone().into_bytes();
    let at = cert_pem.find("-----END").unwrap() - 30;
    bent[at] = if bent[at] == b'A' { b'B' } else { b'A' };
    let bent = String::from_utf8(bent).unwrap();
    for (cert_text, key_text, expected) in [
        ("", key_pem.as_str(), "ca.pem is damaged"),
        (&cert_pem[..200], &key_pem, "ca.pem is damaged"),
        (&bent, &key_pem, "ca.pem is damaged"),
        (&leaf, &key_pem, "ca.pem is damaged (it is not the certificate of an authority)"),
        (&cert_pem, "", "ca.key is damaged"),
        (&cert_pem, &key_pem[..100], "ca.key is damaged"),
        (&cert_pem, &other.serialize_pem(), "does not belong to the certificate"),
    ] {
        fs::write(&cert, cert_text).unwrap();
        fs::write(&key, key_text).unwrap();
        let error = open(dir.path(), NOW).map(drop).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("restore"), "{expected}: {error}");
        assert_eq!(
            (fs::read_to_string(&cert).unwrap().as_str(), fs::read_to_string(&key).unwrap().as_str()),
            (cert_text, key_text)
        );
    }
    fs::write(&cert, &cert_pem).unwrap();
    fs::remove_file(&key).unwrap();
    let error = open(dir.path(), NOW).map(drop).unwrap_err();
    assert!(matches!(error, CaError::KeyMissing { .. }) && !key.exists(), "{error}");
    files::write_atomic(&key, key_pem.as_bytes(), 0o644).unwrap();
    assert!(open(dir.path(), NOW).map(drop).unwrap_err().to_string().contains("chmod 0600"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(open(dir.path(), NOW).unwrap().fingerprint(), good.fingerprint());
}
