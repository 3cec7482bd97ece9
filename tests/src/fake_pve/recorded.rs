//! Holds the fake against answers of the real thing, where these are at hand: same fields, same JSON types.
//!
//! The recorded answers are not part of the repository. Where their folder is absent, the test says so and ends.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_common::guest::GuestKind;
use evenkeel_common::units::Bytes;
use http::Method;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::cluster::{FakeHaResource, FakeRule, FakeRuleKind};
use super::tests::{node, small_cluster, vmid};
use super::*;

/// What was recorded of the real thing, by its place below the folder that holds it all.
pub(super) fn recorded(place: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/proxmox").join(place);
    if folder.exists() {
        return Some(folder);
    }
    #[allow(clippy::print_stderr)] // The one way to say so from a test.
    {
        eprintln!("skipped: no recorded Proxmox answers beside the repository");
    }
    None
}

/// Fields and their JSON types, as `place:type`. Keys that are names rather than fields become `*`; rows of a
/// list count by their type, since a node has other fields than a guest.
fn shape(value: &Value, place: &str, names: &[&str], into: &mut BTreeSet<String>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    into.insert(format!("{place}:{kind}"));
    match value {
        Value::Array(rows) => {
            for row in rows {
                let row_kind = row["type"].as_str().unwrap_or_default();
                shape(row, &format!("{place}[{row_kind}]"), names, into);
            }
        }
        Value::Object(fields) => {
            for (key, field) in fields {
                let key = if names.contains(&place) { "*" } else { key };
                shape(field, &format!("{place}.{key}"), names, into);
            }
        }
        _ => {}
    }
}

/// The places whose keys are names of nodes, guests, privileges or parameters.
const NAMES: [&str; 9] = [
    "permissions.data",
    "permissions.data.*",
    "ha_mgr.data.lrm_status",
    "ha_mgr.data.lrm_status.*.results",
    "ha_mgr.data.manager_status.node_status",
    "ha_mgr.data.manager_status.node_request",
    "ha_mgr.data.manager_status.service_status",
    "qemu_mig_get.data.not_allowed_nodes",
    "e400.errors",
];

fn shape_of(answer: &Value, root: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    shape(answer, root, &NAMES, &mut all);
    // What a local resource manager did last is its own affair; the fake's never did anything.
    all.retain(|place| !place.contains(".results.*"));
    all
}

/// Digits differ with the guests; the words must not.
fn words(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_digit() { '#' } else { c })
        .collect::<String>()
        .replace("##", "#")
        .replace("##", "#")
}

/// The recorded situation with guests of our own: all stopped, one in HA on pve3 to be kept apart from one on
/// pve1, one with a lock, a template, containers, past migrations.
fn situation() -> FakeCluster {
    let mut cluster = small_cluster();
    for guest in cluster.guests.values_mut() {
        guest.status = "stopped".into();
    }
    let with_tags = cluster.guests.get_mut(&vmid(403)).unwrap();
    with_tags.tags = vec!["blue".into(), "web".into()];
    cluster.guests.get_mut(&vmid(405)).unwrap().lock = Some("backup".into());
    cluster.guests.get_mut(&vmid(402)).unwrap().template = true;
    cluster.guests.get_mut(&vmid(501)).unwrap().tags = vec!["files".into()];
    let other = FakeGuest::new(GuestKind::Lxc, "ct-502", &node("pve3"), 1, Bytes::gib(1), "shared1");
    cluster.add_guest(vmid(502), FakeGuest { status: "stopped".into(), ..other });
    for number in [401, 403, 406] {
        cluster.ha_resources.insert(vmid(number), FakeHaResource { state: "stopped".into(), group: None });
    }
    let pin = FakeRuleKind::NodeAffinity { nodes: "pve1,pve2:5".into(), strict: true };
    cluster.ha_rules = vec![
        FakeRule { id: "apart".into(), guests: vec![vmid(401), vmid(403)], kind: FakeRuleKind::Negative },
        FakeRule { id: "pin".into(), guests: vec![vmid(406)], kind: pin },
    ];
    cluster.nodes.get_mut(&node("pve2")).unwrap().maintenance = true;
    for (kind, user) in [
        ("qmigrate", "root@pam"),
        ("hamigrate", "evenkeel@pve!rw"),
        ("qmigrate", "evenkeel@pve!rw"),
        ("vzmigrate", "evenkeel@pve!rw"),
    ] {
        let upid = cluster.add_task(&node("pve1"), kind, "403", user);
        cluster.end_task(&upid, "OK", None);
    }
    cluster
}

/// A client that trusts the server and sends whatever it is told to.
pub(super) fn client(server: &FakePve) -> reqwest::Client {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server.ca_pem.as_bytes()).unwrap()).unwrap();
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy();
    client.timeout(Duration::from_secs(1)).build().unwrap()
}

/// A request that has not been sent yet.
pub(super) fn request(server: &FakePve, token: &str, method: Method, path: &str) -> reqwest::RequestBuilder {
    let request = client(server).request(method, format!("{}/api2/json{path}", server.endpoint()));
    if token.is_empty() { request } else { request.header("authorization", format!("PVEAPIToken={token}")) }
}

/// Sends it, and sees the HTTP reason as well.
pub(super) async fn sent(request: reqwest::RequestBuilder) -> reqwest::Result<(String, Value)> {
    let response = request.send().await?;
    let canonical = response.status().canonical_reason().unwrap_or_default().to_owned();
    let reason = response.extensions().get::<hyper::ext::ReasonPhrase>();
    let reason = reason.map_or(canonical, |r| String::from_utf8_lossy(r.as_bytes()).into_owned());
    let line = format!("{} {reason}", response.status().as_u16());
    let body = response.bytes().await?;
    Ok((line, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

/// Asks as no client of ours would: with any token, method and parameters.
pub(super) async fn ask(server: &FakePve, token: &str, method: Method, path: &str) -> (String, Value) {
    sent(request(server, token, method, path)).await.unwrap()
}

/// What was recorded that is no answer of the API: files of the cluster's file system.
const NO_ANSWERS: [&str; 5] =
    ["etc-pve-ls", "pmxcfs.members", "pmxcfs.rrd", "pmxcfs.version", "pmxcfs.vmlist"];

#[tokio::test]
async fn the_fake_answers_with_the_fields_and_types_of_the_real_one() {
    let Some(folder) = recorded("recorded") else { return };
    let server = FakePve::start(Arc::new(Mutex::new(situation()))).await.unwrap();
    let others: Vec<FakePve> = {
        let second = FakePve::start(Arc::clone(&server.cluster)).await.unwrap();
        vec![second, FakePve::start(Arc::clone(&server.cluster)).await.unwrap()]
    };
    let (ro, rw) = (server.token(), server.exec_token());
    let get = Method::GET;
    let mut compared: BTreeSet<String> = NO_ANSWERS.iter().map(|name| format!("{name}.txt")).collect();
    for (file, token, method, path) in [
        ("version", &ro, &get, "/version"),
        ("perms", &ro, &get, "/access/permissions"),
        ("cluster_status", &ro, &get, "/cluster/status"),
        ("cluster_resources", &ro, &get, "/cluster/resources"),
        ("nodes", &ro, &get, "/nodes"),
        ("node_status", &ro, &get, "/nodes/pve1/status"),
        ("ha_resources", &ro, &get, "/cluster/ha/resources"),
        ("ha_rules", &ro, &get, "/cluster/ha/rules"),
        ("ha_cur", &ro, &get, "/cluster/ha/status/current"),
        ("ha_mgr", &ro, &get, "/cluster/ha/status/manager_status"),
        ("tasks", &ro, &get, "/cluster/tasks"),
        ("qemu_list", &ro, &get, "/nodes/pve1/qemu"),
        ("qemu_cfg", &ro, &get, "/nodes/pve3/qemu/403/config"),
        ("qemu_cur", &ro, &get, "/nodes/pve3/qemu/403/status/current"),
        ("qemu_mig_get", &rw, &get, "/nodes/pve3/qemu/403/migrate"),
        ("lxc_mig_get", &rw, &get, "/nodes/pve3/lxc/502/migrate"),
        ("qemu_mig_locked", &rw, &get, "/nodes/pve2/qemu/405/migrate"),
        ("qemu_mig_get_gpu", &rw, &get, "/nodes/pve1/qemu/406/migrate"),
        ("groups", &ro, &get, "/cluster/ha/groups"),
        ("e403", &ro, &Method::POST, "/nodes/pve1/qemu/401/migrate"),
        ("e400", &rw, &Method::POST, "/nodes/pve3/qemu/403/migrate?target=pve1&foo=1&online=yes"),
    ] {
        compared.insert(format!("{file}.txt"));
        let text = fs::read_to_string(folder.join(format!("{file}.txt"))).unwrap();
        let (line, body) = text.split_once('\n').unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        let (our_line, ours) = ask(&server, token, method.clone(), path).await;
        assert_eq!(words(&our_line), words(line), "{file}: status and reason");
        let root = if file == "perms" { "permissions" } else { file };
        assert_eq!(shape_of(&ours, root), shape_of(&body, root), "{file}: left ours, right recorded");
        let message = |answer: &Value| answer["message"].as_str().map(words);
        assert_eq!(message(&ours), message(&body), "{file}");
    }
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(files.collect::<BTreeSet<_>>(), compared, "left recorded, right compared");
    drop(others);
}

#[tokio::test]
async fn refusals_carry_their_text_as_http_reason() {
    let server = FakePve::start(Arc::new(Mutex::new(situation()))).await.unwrap();
    let (ro, rw) = (server.token(), server.exec_token());
    lock(&server.cluster).set_online(&node("pve2"), false);
    let moved = "500 Configuration file 'nodes/pve1/qemu-server/403.conf' does not exist";
    for (token, method, path, line, has_body) in [
        ("", Method::GET, "/version", "401 No ticket", false),
        ("evenkeel@pve!ro=no", Method::GET, "/version", "401 Authentication failed!", false),
        (
            &ro,
            Method::GET,
            "/nodes/pve1/qemu/401/migrate",
            "403 Permission check failed (/vms/401, VM.Migrate)",
            true,
        ),
        (
            &ro,
            Method::POST,
            "/nodes/pve1/qemu/401/migrate",
            "403 Permission check failed (/vms/401, VM.Migrate)",
            true,
        ),
        (
            &rw,
            Method::POST,
            "/nodes/pve1/qemu/401/status/stop",
            "501 Method 'POST /nodes/pve1/qemu/401/status/stop' not implemented",
            true,
        ),
        (&ro, Method::GET, "/nodes/pve1/qemu/403/config", moved, true),
        (&ro, Method::GET, "/nodes/pve2/status", "595 No route to host", false),
        (&ro, Method::GET, "/cluster/cake", "501 Method 'GET /cluster/cake' not implemented", true),
        (&ro, Method::GET, "/cluster/resources?type=cake", "400 Parameter verification failed.", true),
    ] {
        let (our_line, body) = ask(&server, token, method, path).await;
        assert_eq!((our_line.as_str(), body != Value::Null), (line, has_body), "{path}");
    }
    let (line, body) = ask(&server, &ro, Method::GET, "/nodes/nope/status").await;
    assert!(line.starts_with("500 hostname lookup 'nope' failed"), "{line}");
    assert_eq!(body["data"], json!(null));
}

#[tokio::test]
async fn a_task_is_found_by_its_encoded_name_and_tells_its_end_differently_from_the_list() {
    let server = FakePve::start(Arc::new(Mutex::new(situation()))).await.unwrap();
    let upid = lock(&server.cluster).start_migration(vmid(501), "evenkeel@pve!rw").unwrap();
    let name = percent_encoding::utf8_percent_encode(&upid, percent_encoding::NON_ALPHANUMERIC);
    let path = format!("/nodes/pve3/tasks/{name}/status");
    let (_, running) = ask(&server, &server.token(), Method::GET, &path).await;
    assert_eq!(
        (&running["data"]["status"], &running["data"]["exitstatus"]),
        (&json!("running"), &Value::Null)
    );
    assert_eq!((&running["data"]["type"], &running["data"]["tokenid"]), (&json!("vzmigrate"), &json!("rw")));
    lock(&server.cluster).end_task(&upid, "OK", None);
    let (_, ended) = ask(&server, &server.token(), Method::GET, &path).await;
    assert_eq!((&ended["data"]["status"], &ended["data"]["exitstatus"]), (&json!("stopped"), &json!("OK")));
}
