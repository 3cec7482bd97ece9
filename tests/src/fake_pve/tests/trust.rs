//! Whom the client believes, and whom it asks when a node is away.

use rustls::SupportedProtocolVersion;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::*;

#[tokio::test]
async fn only_the_pinned_certificate_is_believed() {
    let mut rig = Rig::small().await;
    rig.fetch().await.unwrap();
    let other = Rig::small().await.server.fingerprint;
    let right = std::mem::replace(&mut rig.config.fingerprints, vec![other]);
    let error = rig.fetch().await.unwrap_err();
    let PveError::Tls { expected, seen, .. } = &error else { panic!("{error}") };
    assert_eq!((expected.as_str(), *seen), (other.to_string().as_str(), right[0]));
    assert!(error.to_string().contains(&right[0].to_string()) && !error.is_transient());
    rig.config.fingerprints.extend(right);
    rig.fetch().await.unwrap();
}

/// A server that shows somebody else's certificate without having its key.
async fn impostor(certificate: Vec<u8>, version: &'static SupportedProtocolVersion) -> std::net::SocketAddr {
    let own_key = PrivatePkcs8KeyDer::from(rcgen::KeyPair::generate().unwrap().serialize_der());
    let key = rustls::crypto::ring::sign::any_ecdsa_type(&own_key.into()).unwrap();
    let shown = SingleCertAndKey::from(CertifiedKey::new(vec![certificate.into()], key));
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let handshake = tokio_rustls::TlsAcceptor::from(Arc::new(tls)).accept(tcp).await;
        assert!(handshake.is_err(), "the client must not finish the handshake");
    });
    addr
}

#[tokio::test]
async fn a_pinned_certificate_without_its_key_is_refused() {
    let mut rig = Rig::small().await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let identity = server::Identity::new().unwrap();
        rig.config.fingerprints = vec![Fingerprint::of(&identity.certificate)];
        rig.config.endpoints = vec![format!("https://{}", impostor(identity.certificate, version).await)];
        let error = rig.fetch().await.unwrap_err();
        let told = matches!(&error, PveError::Tls { problem, .. } if problem.contains("private key"));
        assert!(told, "{version:?}: {error}");
    }
}

#[tokio::test]
async fn the_token_is_not_sent_to_a_server_that_is_not_believed() {
    let mut rig = Rig::small().await;
    rig.config.fingerprints = vec![Rig::small().await.server.fingerprint];
    rig.fetch().await.unwrap_err();
    assert!(rig.change(|c| c.requests.is_empty()), "no request got through the handshake");
}

#[tokio::test]
async fn only_the_named_authority_is_believed() {
    let mut rig = Rig::small().await;
    let other = Rig::small().await;
    let ca_file = rig.dir.path().join("ca.pem");
    (rig.config.fingerprints, rig.config.ca_file) = (vec![], ca_file.clone());
    fs::write(&ca_file, format!("{}{}", other.server.ca_pem, rig.server.ca_pem)).unwrap();
    rig.fetch().await.unwrap();
    fs::write(&ca_file, &other.server.ca_pem).unwrap();
    let error = rig.fetch().await.unwrap_err();
    assert!(matches!(&error, PveError::Tls { seen, .. } if *seen == rig.server.fingerprint), "{error}");
    assert!(error.to_string().contains("ca.pem"), "{error}");
    for (text, remedy) in [("", "pve-root-ca.pem"), ("no PEM at all", "pve-root-ca.pem")] {
        fs::write(&ca_file, text).unwrap();
        let error = PveClient::new(&rig.config).unwrap_err();
        assert!(matches!(error, PveError::File { .. }) && error.to_string().contains(remedy), "{error}");
    }
    fs::remove_file(&ca_file).unwrap();
    assert!(PveClient::new(&rig.config).unwrap_err().to_string().contains("ca.pem"));
}

#[tokio::test]
async fn under_an_authority_the_name_counts_and_under_a_pin_it_does_not() {
    let mut rig = Rig::small().await;
    rig.config.endpoints = vec![format!("https://localhost:{}", rig.server.addr.port())];
    rig.fetch().await.unwrap();
    let ca_file = rig.dir.path().join("ca.pem");
    fs::write(&ca_file, &rig.server.ca_pem).unwrap();
    (rig.config.fingerprints, rig.config.ca_file) = (vec![], ca_file);
    let error = rig.fetch().await.unwrap_err();
    assert!(matches!(&error, PveError::Tls { problem, .. } if problem.contains("localhost")), "{error}");
}

#[tokio::test]
async fn when_a_node_is_away_the_next_one_is_asked_and_its_pin_has_been_learned() {
    let mut rig = Rig::small().await;
    let second = FakePve::start(Arc::clone(&rig.cluster)).await.unwrap();
    assert_eq!((rig.server.node.as_str(), second.node.as_str()), ("pve1", "pve2"));
    rig.config.endpoints.push(second.endpoint());
    let mut reader = rig.reader();
    reader.fetch(START).await.unwrap();
    rig.change(|c| c.set_online(&node("pve1"), false));
    let inventory = reader.fetch(START).await.unwrap();
    assert_eq!(inventory.nodes[&node("pve1")].status, NodeStatus::Offline);
    // Without having learned, the second node's certificate is a stranger's.
    let error = rig.fetch().await.unwrap_err();
    assert_eq!(error.cause(), "unavailable", "the first node's error is told: {error}");
    rig.change(|c| c.set_online(&node("pve2"), false));
    assert_eq!(reader.fetch(START).await.unwrap_err().cause(), "unavailable");
    rig.change(|c| c.set_online(&node("pve1"), true));
    reader.fetch(START).await.unwrap();
}

#[tokio::test]
async fn a_refusal_is_not_asked_again_elsewhere() {
    let mut rig = Rig::small().await;
    let second = FakePve::start(Arc::clone(&rig.cluster)).await.unwrap();
    rig.config.endpoints.push(second.endpoint());
    rig.config.fingerprints.push(second.fingerprint);
    rig.change(|c| c.fail("/version", Fault::Unauthorized));
    rig.client().get::<Value>("/version", &[]).await.unwrap_err();
    assert_eq!(rig.asked("/version"), 1);
    rig.change(|c| {
        c.heal();
        c.fail_times("/version", Fault::Reset, 1);
    });
    rig.client().get::<Value>("/version", &[]).await.unwrap();
    assert_eq!(rig.asked("/version"), 3);
}

#[tokio::test]
async fn a_token_that_is_not_known_or_lost_is_unauthorized() {
    let rig = Rig::small().await;
    for token in ["evenkeel@pve!ro=wrong", "nobody@pve!x=5b1c9a52"] {
        write_secret(&rig.config.token_file, token);
        let error = rig.fetch().await.unwrap_err();
        assert!(matches!(error, PveError::Unauthorized { .. }), "{error}");
        assert!(!error.to_string().contains("wrong") && !format!("{:?}", rig.client()).contains("wrong"));
    }
}

#[tokio::test]
async fn a_dropped_server_is_gone() {
    let rig = Rig::small().await;
    let client = rig.client();
    client.get::<Value>("/version", &[]).await.unwrap();
    drop(rig.server);
    let error = client.get::<Value>("/version", &[]).await.unwrap_err();
    assert!(matches!(error, PveError::Unavailable { .. }), "{error}");
}
