//! Tests of [`super`] with certificates made on the spot.

use super::*;
use rcgen::{CertificateParams, KeyPair, SanType, SerialNumber};
use std::fs;

fn certificate(uris: &[&str]) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["pve1.lan".to_owned()]).unwrap();
    params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
    params.serial_number = Some(SerialNumber::from_slice(&[0x0a, 0xbc]));
    params.not_after = rcgen::date_time_ymd(2027, 1, 1);
    (params.self_signed(&key).unwrap(), key)
}

fn identity(uris: &[&str]) -> Result<AgentIdentity, IdentityError> {
    peer_identity(certificate(uris).0.der())
}

#[test]
fn an_agent_is_who_its_certificate_says() {
    let (cluster, node) = (ClusterId::new("lab").unwrap(), NodeId::new("pve-1").unwrap());
    let identity = identity(&["https://example.org/x", &agent_uri(&cluster, &node)]).unwrap();
    let not_after = Timestamp::from_millis(1_798_761_600_000);
    assert_eq!(identity, AgentIdentity { cluster, node, serial: "0abc".into(), not_after });
    assert_eq!(identity.not_after.to_string(), "2027-01-01T00:00:00.000Z");
}

#[test]
fn anything_but_one_well_formed_name_is_nobody() {
    assert_eq!(identity(&[]), Err(IdentityError::NotOneAgent { found: 0 }));
    assert_eq!(identity(&["https://agent/lab/pve1"]), Err(IdentityError::NotOneAgent { found: 0 }));
    let two = ["evenkeel://agent/lab/pve1", "evenkeel://agent/lab/pve2"];
    assert_eq!(identity(&two), Err(IdentityError::NotOneAgent { found: 2 }));
    assert_eq!(identity(&["evenkeel://agent/lab"]), Err(IdentityError::Shape("lab".into())));
    for bad in ["lab/pve1/", "lab/pve1/x", "/pve1", "lab/", "lab/../x", "l%61b/pve1", "lab/pve1?x", "lab/p 1"]
    {
        let uri = format!("{AGENT_URI}{bad}");
        assert!(matches!(identity(&[&uri]), Err(IdentityError::Name(_))), "{bad}");
    }
}

#[test]
fn damaged_certificates_are_errors_not_panics() {
    let der = certificate(&["evenkeel://agent/lab/pve1"]).0.der().to_vec();
    for end in 0..der.len() {
        assert!(matches!(peer_identity(&der[..end]), Err(IdentityError::Malformed(_))), "{end}");
    }
    let mut longer = der.clone();
    longer.push(0);
    assert!(matches!(peer_identity(&longer), Err(IdentityError::Malformed(_))));
    for at in 0..der.len() {
        let mut bent = der.clone();
        bent[at] ^= 0x55;
        let _ = peer_identity(&bent); // Any answer will do; a panic will not.
    }
}

#[test]
fn fingerprints_read_as_openssl_prints_them() {
    // SHA-256 of nothing, from FIPS 180-4 test vectors.
    let empty = fingerprint(b"");
    assert!(empty.starts_with("E3:B0:C4:42:98:FC:1C:14:") && empty.ends_with(":78:52:B8:55"), "{empty}");
}

#[test]
fn material_is_checked_before_use_and_errors_name_file_and_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let [cert, key, ca] = ["a.pem", "a.key", "ca.pem"].map(|name| dir.path().join(name));
    let (certificate, pair) = certificate(&[]);
    fs::write(&cert, certificate.pem()).unwrap();
    fs::write(&ca, certificate.pem()).unwrap();
    files::write_atomic(&key, pair.serialize_pem().as_bytes(), 0o600).unwrap();
    let material = TlsMaterial::read(&cert, &key, &ca).unwrap();
    assert_eq!(material.key_pem, pair.serialize_pem());
    assert!(!format!("{material:?}").contains("PRIVATE"));

    let error = || TlsMaterial::read(&cert, &key, &ca).unwrap_err().to_string();
    files::write_atomic(&key, pair.serialize_pem().as_bytes(), 0o644).unwrap();
    assert!(error().contains("chmod 0600"), "{}", error());
    let other = KeyPair::generate().unwrap().serialize_pem();
    files::write_atomic(&key, other.as_bytes(), 0o600).unwrap();
    assert!(
        error().contains("a.key does not fit the certificate in") && error().contains("a.pem"),
        "{}",
        error()
    );
    files::write_atomic(&key, certificate.pem().as_bytes(), 0o600).unwrap();
    assert!(error().contains("a.key holds no private key"), "{}", error());
    fs::write(&cert, "hello").unwrap();
    assert!(error().contains("a.pem holds no certificate"), "{}", error());
    fs::write(&cert, "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n").unwrap();
    assert!(error().contains("damaged certificate"), "{}", error());
    fs::remove_file(&ca).unwrap();
    assert!(error().contains("can not read") && error().contains("ca.pem"), "{}", error());
}
