//! Who may do what, against the real server: by certificate, by token, by role; and what is written down of it.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_aggregator::config::ClusterConfig;
use evenkeel_aggregator::identity::audit::{self, Entry, Outcome};
use evenkeel_aggregator::identity::roles::Role;
use evenkeel_aggregator::identity::tokens::Tokens;
use evenkeel_aggregator::store::{KeyRange, SledStore, Store, trees};
use evenkeel_common::time::Timestamp;
use evenkeel_proto::v1;
use evenkeel_proto::v1::agent_client::AgentClient;
use evenkeel_proto::v1::control_client::ControlClient;
use evenkeel_runtime::random::SystemEntropy;
use evenkeel_tests::harness::{Site, real_time};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use crate::support::{
    Bearer, Wire, bearer, certificate, channel, config, control, control_as, ctl, event, hello, said, site,
};

type Control = ControlClient<InterceptedService<Channel, Bearer>>;

/// A site with one cluster that is configured, though without Proxmox.
async fn site_with_cluster(dir: &Path) -> Site {
    let mut config = config();
    config.clusters.push(ClusterConfig { name: "lab".into(), ..ClusterConfig::default() });
    site(dir, config).await
}

async fn status_of(client: &mut Control) -> Result<v1::GetStatusResponse, Status> {
    Ok(client.get_status(v1::GetStatusRequest {}).await?.into_inner())
}

async fn pause(client: &mut Control) -> Result<v1::PauseResponse, Status> {
    Ok(client.pause(v1::PauseRequest { cluster: "lab".into(), why: "a test".into() }).await?.into_inner())
}

async fn resume(client: &mut Control) -> Result<v1::ResumeResponse, Status> {
    Ok(client.resume(v1::ResumeRequest { cluster: "lab".into() }).await?.into_inner())
}

async fn export(client: &mut Control) -> Result<Vec<u8>, Status> {
    let mut chunks = client.export(v1::ExportRequest {}).await?.into_inner();
    let mut all = Vec::new();
    while let Some(chunk) = chunks.message().await? {
        all.extend(chunk.data);
    }
    Ok(all)
}

#[track_caller]
fn denied<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, words: &[&str]) {
    let status = outcome.expect_err("it must not be allowed");
    assert_eq!(status.code(), code, "{status:?}");
    assert!(
        words.iter().all(|word| status.message().contains(word)),
        "{}: expected {words:?}",
        status.message()
    );
}

/// The audit log, entry by entry.
fn audited(dir: &Path) -> Vec<Entry> {
    let path = dir.join("aggregator/audit.log");
    let text = std::fs::read_to_string(&path).unwrap();
    let entries: Vec<Entry> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(audit::verify(&path).unwrap().entries, entries.len() as u64, "the chain holds");
    entries
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_do_its_part_and_what_changes_something_is_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let site = site_with_cluster(dir.path()).await;
    let mut nobody = control(&site, "").await;
    let remedy = &["viewer", "authorization: Bearer ekt_"];
    denied(status_of(&mut nobody).await, Code::Unauthenticated, remedy);
    denied(pause(&mut nobody).await, Code::Unauthenticated, &["operator"]);
    denied(export(&mut nobody).await, Code::Unauthenticated, &["admin"]);

    let mut viewer = control_as(&site, Role::Viewer).await;
    assert_eq!(status_of(&mut viewer).await.unwrap().role, "viewer");
    viewer.list_nodes(v1::ListNodesRequest::default()).await.unwrap();
    viewer.list_decisions(v1::ListDecisionsRequest::default()).await.unwrap();
    let explained =
        viewer.explain(v1::ExplainRequest::default()).await.map_or_else(|s| s.code(), |_| Code::Ok);
    assert!([Code::Ok, Code::Unavailable].contains(&explained), "{explained:?}"); // Before the first run: unavailable.
    denied(
        pause(&mut viewer).await,
        Code::PermissionDenied,
        &["role operator", "(the viewer)", "ask an admin"],
    );
    denied(resume(&mut viewer).await, Code::PermissionDenied, &["role operator"]);
    denied(export(&mut viewer).await, Code::PermissionDenied, &["role admin"]);

    let mut operator = control_as(&site, Role::Operator).await;
    assert_eq!(pause(&mut operator).await.unwrap().clusters, ["lab"]);
    assert!(status_of(&mut viewer).await.unwrap().clusters[0].paused);
    assert_eq!(resume(&mut operator).await.unwrap().clusters, ["lab"]);
    denied(export(&mut operator).await, Code::PermissionDenied, &["role admin", "has role operator"]);

    let mut admin = control_as(&site, Role::Admin).await;
    assert!(export(&mut admin).await.unwrap().ends_with(b"}\n"));
    site.shut_down().await;

    let entries = audited(dir.path());
    let calls: Vec<(&str, Option<Role>, Outcome)> = entries
        .iter()
        .map(|entry| (entry.call.rsplit('/').next().unwrap(), entry.role, entry.outcome))
        .filter(|(.., outcome)| *outcome == Outcome::Done)
        .collect();
    let (operator, admin) = (Some(Role::Operator), Some(Role::Admin));
    let done = Outcome::Done;
    assert_eq!(calls, [("Pause", operator, done), ("Resume", operator, done), ("Export", admin, done)]);
    let first = entries.iter().find(|entry| entry.call.ends_with("Pause")).unwrap();
    assert!(first.who.starts_with("the operator ("), "{first:?}");
    assert!(first.detail.contains("lab") && first.detail.contains("a test"), "{first:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_for_agents_and_tokens_for_people() {
    let dir = tempfile::tempdir().unwrap();
    let site = site_with_cluster(dir.path()).await;
    let agent = certificate(dir.path(), "pve1");
    let with_certificate = channel(&site, Some(&agent)).await.unwrap();
    let mut client = ControlClient::with_interceptor(with_certificate, bearer(""));
    denied(status_of(&mut client).await, Code::Unauthenticated, &["token", "viewer"]);
    denied(pause(&mut client).await, Code::Unauthenticated, &["token", "operator"]);

    let token = site.token(Role::Admin, "root").unwrap();
    let with_token = channel(&site, None).await.unwrap();
    let mut stream = AgentClient::with_interceptor(with_token, bearer(&token));
    let opened = stream.stream(tokio_stream::pending::<v1::FromAgent>()).await;
    denied(opened.map(drop), Code::Unauthenticated, &["certificate", "a token does not help"]);

    let (mut wire, _) = Wire::greet(&site, &agent, hello(1, 2, 1)).await.unwrap();
    wire.say(event(1)).await;
    wire.acknowledged(1, 0).await;
    site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_revoked_expired_or_made_up_is_worth_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let site = site_with_cluster(dir.path()).await;
    let tokens = Tokens::open(&dir.path().join("aggregator/identity")).unwrap();
    let make = |label, validity, at| tokens.create(Role::Admin, label, validity, at, &SystemEntropy).unwrap();

    let (token, info) = make("leaver", None, real_time());
    let mut client = control(&site, &token).await;
    assert_eq!(status_of(&mut client).await.unwrap().role, "admin");
    tokens.revoke(&info.id, real_time()).unwrap();
    denied(status_of(&mut client).await, Code::Unauthenticated, &["revoked"]);

    let hour = Duration::from_hours(1);
    let (token, _) = make("guest", Some(hour), real_time().before(2 * hour));
    denied(status_of(&mut control(&site, &token).await).await, Code::Unauthenticated, &["expired"]);

    let good = site.token(Role::Admin, "root").unwrap();
    let mut forged = good.clone();
    let last = forged.pop().unwrap();
    forged.push(if last == '0' { '1' } else { '0' });
    denied(status_of(&mut control(&site, &forged).await).await, Code::Unauthenticated, &[]);
    for rubbish in ["ekt_", "ekt_x_y", "root", &"a".repeat(5_000)] {
        denied(status_of(&mut control(&site, rubbish).await).await, Code::Unauthenticated, &[]);
    }
    assert!(status_of(&mut control(&site, &good).await).await.is_ok());
    site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_open_and_reflection_is_for_viewers() {
    let dir = tempfile::tempdir().unwrap();
    let site = site_with_cluster(dir.path()).await;
    for service in ["", "evenkeel.v1.Agent", "evenkeel.v1.Control"] {
        let mut health = HealthClient::new(channel(&site, None).await.unwrap());
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.unwrap();
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "{service:?}");
    }
    let ask = || {
        let message_request = Some(MessageRequest::ListServices(String::new()));
        tokio_stream::once(ServerReflectionRequest { host: String::new(), message_request })
    };
    let mut nobody = ServerReflectionClient::new(channel(&site, None).await.unwrap());
    denied(nobody.server_reflection_info(ask()).await.map(drop), Code::Unauthenticated, &["viewer"]);
    let token = site.token(Role::Viewer, "reader").unwrap();
    let plain = channel(&site, None).await.unwrap();
    let mut viewer = ServerReflectionClient::with_interceptor(plain, bearer(&token));
    let mut answers = viewer.server_reflection_info(ask()).await.unwrap().into_inner();
    let answer = format!("{:?}", answers.message().await.unwrap());
    assert!(answer.contains("evenkeel.v1.Control") && answer.contains("grpc.health.v1.Health"), "{answer}");
    site.shut_down().await;
}

/// A `ctl.toml` beside the site's own one, for another token or port.
fn ctl_toml(site: &Site, name: &str, token: &str, port: u16) -> PathBuf {
    use std::os::unix::fs::OpenOptionsExt as _;
    let (path, file) = (site.dir.join(format!("{name}.toml")), format!("{name}.token"));
    let mut private = std::fs::OpenOptions::new();
    let private = private.write(true).create_new(true).mode(0o600).open(site.dir.join(&file)).unwrap();
    std::io::Write::write_all(&mut &private, token.as_bytes()).unwrap();
    let text =
        format!("endpoint = \"https://127.0.0.1:{port}\"\nca_file = \"ca.pem\"\ntoken_file = {file:?}\n");
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn evenkeelctl_tells_by_its_exit_code_what_was_the_matter() {
    let dir = tempfile::tempdir().unwrap();
    let site = site_with_cluster(dir.path()).await;
    let port = site.aggregator.address.port();
    let own = dir.path().join("ctl.toml");
    let good = ctl(own.clone(), &["status"]).await;
    assert_eq!(good.status.code(), Some(0), "{}", said(&good));
    assert!(said(&good).contains("lab"), "{}", said(&good));

    let viewer = ctl_toml(&site, "viewer", &site.token(Role::Viewer, "reader").unwrap(), port);
    assert_eq!(ctl(viewer.clone(), &["nodes"]).await.status.code(), Some(0));
    let not_allowed = ctl(viewer, &["pause", "--why", "curious"]).await;
    assert_eq!(not_allowed.status.code(), Some(4), "{}", said(&not_allowed));
    assert!(said(&not_allowed).contains("operator"), "{}", said(&not_allowed));
    let unknown = ctl_toml(&site, "unknown", "ekt_0011223344556677_00", port);
    let unknown = ctl(unknown, &["status"]).await;
    assert_eq!(unknown.status.code(), Some(4), "{}", said(&unknown));

    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let nobody = ctl_toml(&site, "nobody", &site.token(Role::Viewer, "lost").unwrap(), free);
    let nobody = ctl(nobody, &["status"]).await;
    assert_eq!(nobody.status.code(), Some(3), "{}", said(&nobody));
    assert!(said(&nobody).contains(&free.to_string()), "{}", said(&nobody));
    site.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_read_into_an_empty_store_gives_the_same_rows() {
    let dir = tempfile::tempdir().unwrap();
    let site = site_with_cluster(dir.path()).await;
    let (mut wire, _) = Wire::greet(&site, &certificate(dir.path(), "pve1"), hello(1, 51, 1)).await.unwrap();
    for seq in 1..=50 {
        wire.say(event(seq)).await;
    }
    wire.acknowledged(50, 0).await;
    drop(wire);
    let file = dir.path().join("out.ndjson");
    let exported = ctl(dir.path().join("ctl.toml"), &["export", file.to_str().unwrap()]).await;
    assert_eq!(exported.status.code(), Some(0), "{}", said(&exported));

    let copy = SledStore::open(&dir.path().join("copy"), &config().store, Timestamp::from_millis(0)).unwrap();
    let rows = copy.import(&mut BufReader::new(std::fs::File::open(&file).unwrap())).unwrap();
    assert!(rows >= 50, "{rows} rows");
    let text = std::fs::read(&file).unwrap();
    let mut again = Vec::new();
    assert_eq!(copy.export(&mut again).unwrap(), rows);
    assert!(again == text, "exported again it is the same, byte for byte");
    let count = |store: &dyn Store| {
        trees::EVENTS
            .page(store, &KeyRange::all(), evenkeel_aggregator::store::Direction::Forward, 100)
            .unwrap()
    };
    assert_eq!(count(&copy), count(site.aggregator.store.as_ref()));
    assert_eq!(count(&copy).len(), 50);
    let entries = audited(dir.path());
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert!(entries[0].call.ends_with("Export") && entries[0].who.contains("lab"), "{entries:?}");
    site.shut_down().await;
}
