//! The client of the aggregator against the fake: what an inventory holds, and what comes of every way to fail.

mod faults;
mod history;
mod lost;
mod migrations;
mod orders;
mod trust;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_aggregator::pve::guest_config::Blocker;
use evenkeel_aggregator::pve::ha::RuleKind;
use evenkeel_aggregator::pve::inventory::Warning;
use evenkeel_aggregator::pve::permissions;
use evenkeel_aggregator::pve::resources::NodeStatus;
use evenkeel_aggregator::pve::{Inventory, InventoryReader, PveClient, PveConfig, PveError};
use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cluster::{AUDIT, FakeGroup, FakeHaResource, FakeRule, FakeRuleKind};
use super::*;

const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

pub(super) fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

pub(super) fn vmid(number: u32) -> Vmid {
    Vmid::new(number).unwrap()
}

/// Three nodes; 401 to 406 are VMs spread over them, 501 a container on pve3.
pub(super) fn small_cluster() -> FakeCluster {
    let mut cluster = FakeCluster::new("harbour", 3, START);
    for number in 401..=406 {
        let on = node(&format!("pve{}", (number - 401) % 3 + 1));
        let name = format!("vm-{number}");
        cluster.add_guest(
            vmid(number),
            FakeGuest::new(GuestKind::Qemu, &name, &on, 2, Bytes::gib(4), "shared1"),
        );
    }
    let container = FakeGuest::new(GuestKind::Lxc, "ct-501", &node("pve3"), 1, Bytes::gib(1), "shared1");
    cluster.add_guest(vmid(501), container);
    cluster
}

/// A served cluster and what a client needs to reach it.
struct Rig {
    cluster: Arc<Mutex<FakeCluster>>,
    server: FakePve,
    config: PveConfig,
    dir: TempDir,
}

impl Rig {
    async fn of(cluster: FakeCluster) -> Self {
        let cluster = Arc::new(Mutex::new(cluster));
        let server = FakePve::start(Arc::clone(&cluster)).await.unwrap();
        let dir = TempDir::new().unwrap();
        let token_file = dir.path().join("token");
        write_secret(&token_file, &server.token());
        let config = PveConfig {
            endpoints: vec![server.endpoint()],
            fingerprints: vec![server.fingerprint],
            token_file,
            timeout_secs: 1,
            ..PveConfig::default()
        };
        Self { cluster, server, config, dir }
    }

    async fn small() -> Self {
        Self::of(small_cluster()).await
    }

    fn client(&self) -> Arc<PveClient> {
        Arc::new(PveClient::new(&self.config).unwrap())
    }

    fn reader(&self) -> InventoryReader {
        InventoryReader::new(self.client())
    }

    async fn fetch(&self) -> Result<Inventory, PveError> {
        self.reader().fetch(START).await
    }

    /// Changes the cluster.
    fn change<T>(&self, change: impl FnOnce(&mut FakeCluster) -> T) -> T {
        change(&mut lock(&self.cluster))
    }

    fn asked(&self, path: &str) -> u64 {
        self.change(|cluster| cluster.requests.get(path).copied().unwrap_or(0))
    }
}

fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn the_whole_cluster_is_read() {
    let rig = Rig::small().await;
    rig.change(|c| {
        let guest = c.guests.get_mut(&vmid(401)).unwrap();
        (guest.cpu, guest.tags) = (0.5, vec!["web".into(), "plb_pin_pve2".into()]);
        guest.pool = Some("front".into());
        c.guests.get_mut(&vmid(402)).unwrap().lock = Some("backup".into());
        c.guests.get_mut(&vmid(403)).unwrap().status = "stopped".into();
        c.nodes.get_mut(&node("pve2")).unwrap().maintenance = true;
        c.ha_resources.insert(vmid(404), FakeHaResource { state: "started".into(), group: None });
        let kind = FakeRuleKind::NodeAffinity { nodes: "pve1,pve2:5".into(), strict: true };
        c.ha_rules.push(FakeRule { id: "pin".into(), guests: vec![vmid(404)], kind });
        c.crs = [("ha", json!("dynamic")), ("ha-auto-rebalance", json!(1))]
            .map(|(k, v)| (k.to_owned(), v))
            .into();
    });
    let inventory = rig.fetch().await.unwrap();
    assert_eq!((inventory.taken_at, inventory.cluster_name.as_deref()), (START, Some("harbour")));
    assert!(inventory.quorate && inventory.auto_rebalance());
    assert_eq!((inventory.nodes.len(), inventory.guests.len(), inventory.storages.len()), (3, 7, 6));
    let web = &inventory.guests[&vmid(401)];
    assert_eq!((web.cpu, web.max_mem, web.node.as_str()), (Some(0.5), Some(Bytes::gib(4)), "pve1"));
    assert_eq!(
        (web.tags.as_slice(), web.pool.as_deref()),
        (&["web".into(), "plb_pin_pve2".into()][..], Some("front"))
    );
    assert_eq!(inventory.guests[&vmid(402)].lock.as_deref(), Some("backup"));
    assert_eq!(inventory.guests[&vmid(403)].mem, Some(Bytes(0)), "a stopped guest does use nothing");
    assert_eq!(inventory.guests[&vmid(501)].kind, GuestKind::Lxc);
    let maintenance: Vec<bool> = inventory.nodes.values().map(|node| node.maintenance).collect();
    assert_eq!(maintenance, [false, true, false]);
    let info = inventory.nodes[&node("pve1")].info.as_ref().unwrap();
    assert_eq!((info.version.as_str(), info.cpu_model.contains("EPYC")), ("9.2.11", true));
    assert!(matches!(inventory.ha.rules[0].kind, RuleKind::NodeAffinity { strict: true, .. }));
    assert_eq!(inventory.ha.armed.as_deref(), Some("armed"));
    assert_eq!(inventory.ha.services[&vmid(404)].node, Some(node("pve1")));
    assert_eq!(inventory.warnings, []);
}

#[tokio::test]
async fn a_node_that_is_away_has_no_figures_and_neither_have_its_guests() {
    let rig = Rig::small().await;
    rig.change(|c| c.set_online(&node("pve3"), false));
    let inventory = rig.fetch().await.unwrap();
    let away = &inventory.nodes[&node("pve3")];
    assert_eq!((&away.status, away.cpu, away.mem), (&NodeStatus::Offline, None, None));
    let guest = &inventory.guests[&vmid(403)];
    assert_eq!((guest.status.as_str(), guest.cpu, guest.mem), ("unknown", None, None));
    assert_eq!(inventory.warnings, [], "an offline node is not asked for its version");
}

#[tokio::test]
async fn missing_privileges_are_named_with_the_command_that_grants_them() {
    let rig = Rig::small().await;
    assert_eq!(permissions::check(&rig.client()).await.unwrap(), []);
    // A role on /vms replaces what / gives: the classic way to lose sight of all guests.
    rig.change(|c| c.tokens[0] = c.tokens[0].clone().with("/vms", "VM.Migrate"));
    let missing = permissions::check(&rig.client()).await.unwrap();
    assert_eq!(missing.len(), 1);
    let error = rig.fetch().await.unwrap_err();
    let command = "pveum acl modify /vms --tokens 'evenkeel@pve!ro' --roles EvenkeelAudit";
    assert!(matches!(error, PveError::HalfAnswer { .. }) && error.to_string().contains(command), "{error}");
}

#[tokio::test]
async fn a_token_for_some_guests_gives_a_partial_view_that_says_so() {
    let rig = Rig::small().await;
    rig.change(|c| {
        c.tokens[0] =
            c.tokens[0].clone().with("/vms", "VM.Migrate").with("/vms/401", AUDIT).with("/pool/front", AUDIT);
        c.guests.get_mut(&vmid(405)).unwrap().pool = Some("front".into());
    });
    let inventory = rig.fetch().await.unwrap();
    assert_eq!(inventory.guests.keys().copied().collect::<Vec<_>>(), [vmid(401), vmid(405)]);
    assert!(
        matches!(&inventory.warnings[..], [Warning::PartialView(missing)] if missing.only_on == ["/vms/401"])
    );
}

#[tokio::test]
async fn without_sys_audit_the_refusal_says_what_to_grant() {
    let rig = Rig::small().await;
    rig.change(|c| c.tokens[0] = c.tokens[0].clone().with("/", "VM.Audit"));
    let error = rig.fetch().await.unwrap_err();
    assert!(
        matches!(&error, PveError::Forbidden { message, .. } if message.contains("(/, Sys.Audit)")),
        "{error}"
    );
    assert!(error.to_string().contains("pveum acl modify / --tokens 'evenkeel@pve!ro'"), "{error}");
}

#[tokio::test]
async fn a_token_file_open_to_others_is_a_warning() {
    let rig = Rig::small().await;
    fs::set_permissions(&rig.config.token_file, fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = rig.fetch().await.unwrap().warnings;
    assert!(matches!(&warnings[..], [Warning::Startup(text)] if text.contains("chmod 600")), "{warnings:?}");
}

#[tokio::test]
async fn pve_8_has_groups_instead_of_rules_and_options_as_text() {
    let rig = Rig::small().await;
    rig.change(|c| {
        c.version = PveVersion::V8;
        let nodes = "pve2,pve1:2".to_owned();
        c.ha_groups.push(FakeGroup { id: "fast".into(), nodes, restricted: true, nofailback: true });
        c.ha_resources
            .insert(vmid(401), FakeHaResource { state: "started".into(), group: Some("fast".into()) });
        c.crs = [("ha", json!("static")), ("ha-rebalance-on-start", json!(1))]
            .map(|(k, v)| (k.to_owned(), v))
            .into();
    });
    let inventory = rig.fetch().await.unwrap();
    assert_eq!(inventory.warnings, [Warning::HaGroups]);
    assert_eq!(inventory.ha.rules[0].guests, BTreeSet::from([vmid(401)]));
    assert!(!inventory.ha.resources[&vmid(401)].failback);
    assert!(inventory.crs.rebalance_on_start && !inventory.auto_rebalance());
}

#[tokio::test]
async fn a_lone_node_does_without_ha_but_a_cluster_does_not() {
    let rig = Rig::of(FakeCluster::new("", 1, START)).await;
    rig.change(|c| c.name = None);
    let inventory = rig.fetch().await.unwrap();
    assert!(inventory.quorate && inventory.cluster_name.is_none() && inventory.warnings.is_empty());
    rig.change(|c| c.fail("/cluster/ha", Fault::Internal("no such cluster".into())));
    let inventory = rig.fetch().await.unwrap();
    assert!(matches!(inventory.warnings[..], [Warning::NoHa { .. }]));
    rig.change(|c| c.name = Some("harbour".into()));
    assert_eq!(rig.fetch().await.unwrap_err().cause(), "refused");
}

#[tokio::test]
async fn foreign_migrations_are_seen_while_they_run_and_remembered_for_two_days() {
    let rig = Rig::small().await;
    let mut reader = rig.reader();
    let upid = rig.change(|c| {
        c.move_guest(vmid(402), &node("pve3"));
        c.add_task(&node("pve1"), "vzdump", "", "root@pam");
        c.now = c.now.after(Duration::from_secs(10));
        c.start_migration(vmid(401), "root@pam").unwrap()
    });
    let inventory = reader.fetch(START).await.unwrap();
    let running: Vec<&str> = inventory.running.iter().map(|task| task.upid.as_str()).collect();
    assert_eq!(running, [upid.as_str()]);
    assert_eq!((inventory.running[0].vmid, inventory.running[0].source().as_str()), (vmid(401), "pve1"));
    assert_eq!(inventory.guests[&vmid(401)].lock.as_deref(), Some("migrate"));
    let led: Vec<_> =
        inventory.history.iter().map(|task| (task.source().as_str(), task.moved_to.clone())).collect();
    assert_eq!(led, [("pve2", Some(node("pve3")))]);
    // It ends in "problems" and has moved nevertheless; then Proxmox forgets both.
    rig.change(|c| c.end_task(&upid, "migration problems", Some(&node("pve2"))));
    let inventory = reader.fetch(START.after(Duration::from_mins(1))).await.unwrap();
    assert!(inventory.running.is_empty() && inventory.history[1].moved_to == Some(node("pve2")));
    rig.change(|c| c.tasks.clear());
    assert_eq!(reader.fetch(START.after(Duration::from_hours(47))).await.unwrap().history, inventory.history);
    assert_eq!(reader.fetch(START.after(Duration::from_hours(49))).await.unwrap().history, []);
}

#[tokio::test]
async fn configurations_are_read_when_wanted_and_again_only_when_they_may_have_changed() {
    let rig = Rig::small().await;
    rig.change(|c| {
        let guest = c.guests.get_mut(&vmid(401)).unwrap();
        guest.options.insert("hostpci0".into(), json!("0000:01:00.0"));
        guest.options.insert("scsi1".into(), json!("local:401/vm-401-disk-1.raw,size=8G"));
        guest.options.insert("cpu".into(), json!("host"));
        c.guests.get_mut(&vmid(501)).unwrap().options.insert("mp0".into(), json!("/srv/data,mp=/data"));
    });
    let mut reader = rig.reader();
    let mut inventory = reader.fetch(START).await.unwrap();
    assert!(inventory.configs.is_empty(), "nothing is asked for unasked");
    let everyone: Vec<Vmid> = inventory.guests.keys().copied().chain([vmid(999)]).collect();
    reader.add_configs(&mut inventory, everyone.clone(), START).await.unwrap();
    assert_eq!((inventory.configs.len(), &inventory.warnings[..]), (7, &[][..]));
    let bound = &inventory.configs[&vmid(401)];
    let device = Blocker::LocalDevice { key: "hostpci0".into() };
    let disk = Blocker::LocalDisk { key: "scsi1".into(), storage: "local".into() };
    assert_eq!(bound.blockers, [device, disk]);
    assert_eq!((bound.cores, bound.disks, bound.needs_same_cpu()), (Some(2.0), 2, true));
    assert_eq!(inventory.configs[&vmid(501)].blockers, [Blocker::HostPath { key: "mp0".into() }]);
    assert_eq!(inventory.configs[&vmid(402)].blockers, []);

    let path = "/nodes/pve2/qemu/402/config";
    let mut inventory = reader.fetch(START.after(Duration::from_mins(1))).await.unwrap();
    reader.add_configs(&mut inventory, everyone.clone(), START).await.unwrap();
    assert_eq!((inventory.configs.len(), rig.asked(path)), (7, 1));
    rig.change(|c| {
        c.guests.get_mut(&vmid(402)).unwrap().tags.push("new".into());
        c.move_guest(vmid(401), &node("pve2"));
    });
    let mut inventory = reader.fetch(START.after(Duration::from_mins(2))).await.unwrap();
    assert_eq!(inventory.configs.len(), 5);
    reader.add_configs(&mut inventory, everyone, START.after(Duration::from_mins(2))).await.unwrap();
    assert_eq!((inventory.configs.len(), rig.asked(path)), (7, 2));
    let inventory = reader.fetch(START.after(Duration::from_mins(6))).await.unwrap();
    assert_eq!(inventory.configs.len(), 2, "after five minutes they are asked for again");
}

#[tokio::test]
async fn a_configuration_that_can_not_be_read_leaves_its_guest_alone() {
    let rig = Rig::small().await;
    let mut reader = rig.reader();
    let mut inventory = reader.fetch(START).await.unwrap();
    let everyone: Vec<Vmid> = inventory.guests.keys().copied().collect();
    rig.change(|c| {
        c.fail("/nodes/pve1/qemu/401", Fault::Internal("unable to read".into()));
        c.move_guest(vmid(402), &node("pve3")); // Since the inventory was taken.
        c.set_online(&node("pve3"), false);
    });
    reader.add_configs(&mut inventory, everyone.clone(), START).await.unwrap();
    let read: Vec<u32> = inventory.configs.keys().map(|vmid| vmid.get()).collect();
    assert_eq!(read, [404, 405]);
    let shown: Vec<String> = inventory.warnings.iter().map(ToString::to_string).collect();
    assert!(shown.iter().any(|text| text.starts_with("guest 401 can not be moved")), "{shown:?}");
    assert!(!shown.iter().any(|text| text.contains("402")), "moved is no fault: {shown:?}");
    let later = START.after(Duration::from_mins(10));
    let mut inventory = reader.fetch(later).await.unwrap();
    rig.change(|c| c.fail("/nodes/pve1", Fault::Reset));
    let error = reader.add_configs(&mut inventory, everyone, later).await.unwrap_err();
    assert_eq!(error.cause(), "unavailable", "no connection concerns all, not one guest");
}

#[tokio::test]
async fn a_parameter_that_this_version_does_not_know_is_a_bad_request() {
    let rig = Rig::small().await;
    let client = rig.client();
    let error =
        client.get::<Value>("/cluster/resources", &[("type", "cake"), ("foo", "1")]).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, PveError::BadRequest { .. }), "{text}");
    assert!(
        text.contains("foo: property is not defined in schema") && text.contains("type: value 'cake'"),
        "{text}"
    );
    let error = client.get::<Value>("/cluster/cake", &[]).await.unwrap_err();
    assert!(matches!(error, PveError::NotImplemented { .. }), "{error}");
    let rows: Value = client.get("/cluster/resources", &[("type", "node")]).await.unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn history_in_figures_is_there_at_the_resolution_of_the_version() {
    let rig = Rig::small().await;
    rig.change(|c| c.now = c.now.after(Duration::from_mins(30)));
    let points: Vec<Value> =
        rig.client().get("/nodes/pve1/qemu/401/rrddata", &[("timeframe", "hour")]).await.unwrap();
    assert_eq!(points.len(), 60);
    assert_eq!(
        points[0].as_object().unwrap().len(),
        1,
        "before the guest was started there is only the time"
    );
    assert!(points[59]["cpu"].is_number() && points[59]["time"].as_i64() > points[58]["time"].as_i64());
    let error = rig.client().get::<Value>("/nodes/pve1/rrddata", &[]).await.unwrap_err();
    assert!(error.to_string().contains("timeframe: property is missing"), "{error}");
}
