//! Orders to migrate over the wire: every way to be refused, in which order, and what is kept of them.

use http::Method;

use super::super::recorded::{request, sent};
use super::*;

/// A server of pve1 with the small cluster: VM 401 and 404 are there, VM 402 on pve2, CT 501 on pve3.
async fn served() -> (FakePve, Arc<Mutex<FakeCluster>>) {
    let cluster = Arc::new(Mutex::new(small_cluster()));
    (FakePve::start(Arc::clone(&cluster)).await.unwrap(), cluster)
}

async fn post(server: &FakePve, guest: &str, form: &[(&str, &str)]) -> (String, Value) {
    let path = format!("/nodes/{guest}/migrate");
    sent(request(server, &server.exec_token(), Method::POST, &path).form(form)).await.unwrap()
}

const LIVE: &[(&str, &str)] = &[("target", "pve2"), ("online", "1")];

#[tokio::test]
async fn an_accepted_order_is_a_task_of_the_tokens_user_and_a_lock() {
    let (server, cluster) = served().await;
    let (line, body) = post(&server, "pve1/qemu/401", LIVE).await;
    assert_eq!(line, "200 OK");
    let upid = body["data"].as_str().unwrap();
    assert!(upid.starts_with("UPID:pve1:") && upid.ends_with(":qmigrate:401:evenkeel@pve!rw:"), "{upid}");
    // JSON does as well, with its own types, and for a container the word is another.
    let path = "/nodes/pve3/lxc/501/migrate";
    let json = json!({ "target": "pve1", "restart": true, "timeout": 60, "bwlimit": 10.5, "online": null });
    let order = request(&server, &server.exec_token(), Method::POST, path).json(&json);
    let (line, body) = sent(order).await.unwrap();
    assert_eq!(line, "200 OK");
    let c = lock(&cluster);
    assert_eq!((c.tasks[0].upid.as_str(), c.tasks[1].kind.as_str()), (upid, "vzmigrate"));
    assert_eq!(c.accepted(), [upid, body["data"].as_str().unwrap()]);
    assert_eq!(c.guests[&vmid(401)].lock.as_deref(), Some("migrate"));
    assert_eq!(
        (c.guests[&vmid(401)].node.as_str(), c.guests[&vmid(501)].status.as_str()),
        ("pve1", "stopped")
    );
    let first = &c.posts[0];
    assert_eq!(
        (first.at, &first.node, first.kind, first.vmid),
        (START, &node("pve1"), GuestKind::Qemu, vmid(401))
    );
    assert_eq!((first.token.as_str(), first.answered), ("evenkeel@pve!rw", true));
    assert_eq!(first.parameters["online"], "1");
    let given: Vec<_> = c.posts[1].parameters.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(given, ["bwlimit=10.5", "restart=1", "target=pve1", "timeout=60"]);
}

/// What is changed before, the guest in the path, the parameters, and status with text.
type Case = (fn(&mut FakeCluster), &'static str, &'static [(&'static str, &'static str)], &'static str);

fn nothing(_: &mut FakeCluster) {}

const REPLICATED: &str = "500 Cannot live-migrate replicated VM to node 'pve2' - not a replication target. Use 'force' \
                          to override.";

const REFUSALS: &[Case] = &[
    (
        |c| c.tokens[1].revoke("VM.Migrate"),
        "pve9/qemu/999",
        &[],
        "403 Permission check failed (/vms/999, VM.Migrate)",
    ),
    (|c| c.set_online(&node("pve3"), false), "pve3/qemu/403", &[], "595 No route to host"),
    (nothing, "pve2/qemu/401", LIVE, "400 Parameter verification failed. target: target is local node."),
    (nothing, "pve1/qemu/401", &[("target", "pve9")], "500 no such cluster node 'pve9'"),
    (
        |c| c.set_online(&node("pve2"), false),
        "pve1/qemu/401",
        LIVE,
        "500 unable to get IP for node 'pve2' - node offline?",
    ),
    (|c| c.quorate = false, "pve1/qemu/401", LIVE, "500 cluster not ready - no quorum?"),
    (
        nothing,
        "pve1/qemu/403",
        LIVE,
        "500 Configuration file 'nodes/pve1/qemu-server/403.conf' does not exist",
    ),
    (
        nothing,
        "pve1/qemu/999",
        LIVE,
        "500 Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist",
    ),
    (
        nothing,
        "pve3/qemu/501",
        LIVE,
        "500 Configuration file 'nodes/pve3/qemu-server/501.conf' does not exist",
    ),
    (nothing, "pve1/lxc/501", LIVE, "500 Configuration file 'nodes/pve1/lxc/501.conf' does not exist"),
    (|c| drop(c.start_backup(vmid(401), "root@pam")), "pve1/qemu/401", LIVE, "500 VM is locked (backup)"),
    (|c| drop(c.start_backup(vmid(501), "root@pam")), "pve3/lxc/501", LIVE, "500 CT is locked (backup)"),
    (nothing, "pve1/qemu/401", &[("target", "pve2")], "500 can't migrate running VM without --online"),
    (
        nothing,
        "pve1/qemu/401",
        &[("target", "pve2"), ("online", "0")],
        "500 can't migrate running VM without --online",
    ),
    (
        nothing,
        "pve3/lxc/501",
        &[("target", "pve2")],
        "500 can't migrate running container without --online or --restart",
    ),
    (replicate, "pve1/qemu/401", LIVE, REPLICATED),
    (
        |c| c.storages.get_mut("shared1").unwrap().nodes = Some([node("pve1")].into()),
        "pve1/qemu/401",
        LIVE,
        "500 storage 'shared1' is not available on node 'pve2'",
    ),
    (
        nothing,
        "pve1/qemu/401",
        &[("target", "pve2"), ("online", "1"), ("targetstorage", "local")],
        "403 Permission check failed (/vms/401, VM.Config.Disk)",
    ),
    (
        nothing,
        "pve1/qemu/401",
        &[("target", "pve2"), ("online", "1"), ("force", "1")],
        "400 Parameter verification failed. force: Only root may use this option.",
    ),
    (
        nothing,
        "pve1/qemu/401",
        &[("target", "pve2"), ("online", "1"), ("migration_type", "insecure")],
        "400 Parameter verification failed. migration_type: Only root may use this option.",
    ),
    (
        nothing,
        "pve1/qemu/401",
        &[
            ("target", "pve2"),
            ("online", "yes"),
            ("bwlimit", "-1"),
            ("restart", "1"),
            ("migration_type", "x"),
        ],
        "400 Parameter verification failed. bwlimit: value must have a minimum value of 0 migration_type: value 'x' \
         does not have a value in the enumeration 'secure, insecure' online: type check ('boolean') failed - got 'yes' \
         restart: property is not defined in schema and the schema does not allow additional properties",
    ),
    (
        nothing,
        "pve3/lxc/501",
        &[("timeout", "soon"), ("bwlimit", "all")],
        "400 Parameter verification failed. bwlimit: type check ('number') failed - got 'all' target: property is \
         missing and it is not optional timeout: type check ('integer') failed - got 'soon'",
    ),
    (
        |c| c.version = PveVersion::V8,
        "pve1/qemu/401",
        &[("target", "pve2"), ("online", "1"), ("with-conntrack-state", "1")],
        "400 Parameter verification failed. with-conntrack-state: property is not defined in schema and the schema \
         does not allow additional properties",
    ),
];

fn replicate(c: &mut FakeCluster) {
    let job = FakeReplication { guest: vmid(401), number: 0, target: node("pve3"), schedule: "*/15".into() };
    c.replications.push(job);
}

#[tokio::test]
async fn every_refusal_has_its_status_and_text_and_starts_nothing() {
    for (change, guest, form, expected) in REFUSALS {
        let (server, cluster) = served().await;
        change(&mut lock(&cluster));
        let before = lock(&cluster).tasks.len();
        let (line, body) = post(&server, guest, form).await;
        assert!(expected.starts_with(&line), "{guest} {form:?}: {line}");
        assert_eq!(body["data"], Value::Null);
        let c = lock(&cluster);
        let status = expected[..3].parse().unwrap();
        let refused = PostOutcome::Refused { status, text: expected[4..].to_owned() };
        assert_eq!((&c.posts[0].outcome, c.posts[0].answered), (&refused, true), "{guest} {form:?}");
        assert_eq!((c.tasks.len(), c.accepted().len()), (before, 0), "{guest} {form:?}");
    }
}

#[tokio::test]
async fn what_8_and_9_know_and_what_the_replication_target_allows_is_accepted() {
    let (server, cluster) = served().await;
    replicate(&mut lock(&cluster));
    let conntrack = &[("target", "pve3"), ("online", "1"), ("with-conntrack-state", "1")];
    assert_eq!(post(&server, "pve1/qemu/401", conntrack).await.0, "200 OK");
    lock(&cluster).advance(START.after(Duration::from_mins(1)));
    let rows = || sent(request(&server, &server.token(), Method::GET, "/cluster/replication"));
    let (_, body) = rows().await.unwrap();
    let job = json!([{ "id": "401-0", "guest": 401, "jobnum": 0, "type": "local", "source": "pve3", "target": "pve1",
                       "schedule": "*/15" }]);
    assert_eq!(body["data"], job, "replication goes on the other way round");
    lock(&cluster).tokens[0].revoke("VM.Audit");
    assert_eq!(rows().await.unwrap().1["data"], json!([]), "it is not refused, it is not there");
}

#[tokio::test]
async fn without_a_token_that_is_known_nothing_is_even_looked_at() {
    let (server, cluster) = served().await;
    for (token, line) in [("", "401 No ticket"), ("evenkeel@pve!rw=wrong", "401 Authentication failed!")] {
        let order = request(&server, token, Method::POST, "/nodes/pve1/qemu/401/migrate").form(LIVE);
        assert_eq!(sent(order).await.unwrap().0, line);
    }
    let c = lock(&cluster);
    let claimed: Vec<&str> = c.posts.iter().map(|post| post.token.as_str()).collect();
    assert_eq!((claimed, c.tasks.len()), (vec!["", "evenkeel@pve!rw"], 0));
    assert!(!format!("{:?}", c.posts).contains("wrong"));
}

#[tokio::test]
async fn the_second_order_for_a_guest_finds_it_locked() {
    let (server, cluster) = served().await;
    assert_eq!(post(&server, "pve1/qemu/401", LIVE).await.0, "200 OK");
    assert_eq!(post(&server, "pve1/qemu/401", LIVE).await.0, "500 VM is locked (migrate)");
    lock(&cluster).advance(START.after(Duration::from_mins(1)));
    let moved = "500 Configuration file 'nodes/pve1/qemu-server/401.conf' does not exist";
    assert_eq!(post(&server, "pve1/qemu/401", &[("target", "pve3"), ("online", "1")]).await.0, moved);
    let c = lock(&cluster);
    assert_eq!((c.posts.len(), c.accepted().len()), (3, 1));
}

#[tokio::test]
async fn without_a_majority_not_even_the_preconditions_are_told() {
    let (server, cluster) = served().await;
    lock(&cluster).quorate = false;
    let get = request(&server, &server.exec_token(), Method::GET, "/nodes/pve1/qemu/401/migrate");
    assert_eq!(sent(get).await.unwrap().0, "500 cluster not ready - no quorum?");
}

#[tokio::test]
async fn a_token_that_loses_sight_gets_lists_without_guests_and_no_error() {
    let (server, cluster) = served().await;
    lock(&cluster).tokens[0].revoke("VM.Audit");
    let get = |path| sent(request(&server, &server.token(), Method::GET, path));
    for path in ["/cluster/resources?type=vm", "/nodes/pve1/qemu", "/nodes/pve3/lxc"] {
        let (line, body) = get(path).await.unwrap();
        assert_eq!((line.as_str(), &body["data"]), ("200 OK", &json!([])), "{path}");
    }
    let (_, body) = get("/cluster/resources").await.unwrap();
    let kinds: BTreeSet<&str> =
        body["data"].as_array().unwrap().iter().map(|row| row["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, BTreeSet::from(["node", "storage"]));
}
