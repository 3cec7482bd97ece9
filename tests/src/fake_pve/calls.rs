//! The calls that the fake serves, each with what it needs, what it knows and what answers it. A test holds this
//! list against Proxmox' own schema.

use std::borrow::Cow;

use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};
use http::Method;
use serde_json::Value;

use super::api::{Answer, Context, Outcome};
use super::cluster::{FakeGuest, FakeNode, FakeTask, PveVersion};
use super::params::{Kind, Param, optional, required, since_9};
use super::{preconditions, render, render_ha, render_tasks, rrd};

/// A call.
pub(super) struct Call {
    pub(super) method: Method,
    /// As Proxmox' schema writes it: `/nodes/{node}/qemu`.
    pub(super) path: &'static str,
    /// Path and privilege without which it is refused; `None`: any token will do.
    pub(super) need: Option<(&'static str, &'static str)>,
    /// Parameters beside those of the path.
    pub(super) known: &'static [Param],
    /// Whether 8 does not have it.
    pub(super) since_9: bool,
    pub(super) answer: Answers,
}

/// What answers a call, by what it is about.
#[derive(Clone, Copy)]
pub(super) enum Answers {
    Cluster(fn(&Context<'_>) -> Value),
    /// As `Cluster`, where the answer may be a refusal.
    Checked(fn(&Context<'_>) -> Outcome),
    Node(fn(&Context<'_>, &NodeId, &FakeNode) -> Value),
    Task(fn(&Context<'_>, &FakeTask) -> Answer),
    Guest(GuestKind, fn(&Context<'_>, Vmid, &FakeGuest) -> Outcome),
    /// Starts a migration.
    Migrate(GuestKind),
}

type Need = Option<(&'static str, &'static str)>;

const ALL: Need = None;
const ROOT: Need = Some(("/", "Sys.Audit"));
const NODE: Need = Some(("/nodes/{node}", "Sys.Audit"));
const AUDIT: Need = Some(("/vms/{vmid}", "VM.Audit"));
const MIGRATE: Need = Some(("/vms/{vmid}", "VM.Migrate"));

const NONE: &[Param] = &[];
const CF: Param = optional("cf", Kind::OneOf(&["AVERAGE", "MAX"]));
const NODE_RRD: &[Param] =
    &[required("timeframe", Kind::OneOf(&["hour", "day", "week", "month", "year", "decade"])), CF];
const GUEST_RRD: &[Param] =
    &[required("timeframe", Kind::OneOf(&["hour", "day", "week", "month", "year"])), CF];
const PERMISSIONS: &[Param] = &[optional("path", Kind::Text), optional("userid", Kind::Text)];
const RESOURCES: &[Param] = &[optional("type", Kind::OneOf(&["vm", "storage", "node", "sdn"]))];
const HA_RESOURCES: &[Param] = &[optional("type", Kind::OneOf(&["ct", "vm"]))];
const HA_RULES: &[Param] = &[
    optional("type", Kind::OneOf(&["node-affinity", "resource-affinity"])),
    optional("resource", Kind::Text),
];
const STORAGES: &[Param] = &[
    optional("content", Kind::Text),
    optional("storage", Kind::Text),
    optional("target", Kind::Text),
    optional("enabled", Kind::Boolean),
    optional("format", Kind::Boolean),
];
const LOG: &[Param] = &[
    optional("start", Kind::Integer(Some(0))),
    optional("limit", Kind::Integer(Some(0))),
    optional("download", Kind::Boolean),
];
const GUESTS: &[Param] = &[optional("full", Kind::Boolean)];
const CONFIG: &[Param] = &[optional("current", Kind::Boolean), optional("snapshot", Kind::Text)];
const PRECONDITIONS: &[Param] = &[optional("target", Kind::Text)];
const MIGRATE_VM: &[Param] = &[
    required("target", Kind::Text),
    optional("online", Kind::Boolean),
    optional("with-local-disks", Kind::Boolean),
    optional("targetstorage", Kind::Text),
    optional("bwlimit", Kind::Integer(Some(0))),
    since_9("with-conntrack-state", Kind::Boolean),
    optional("force", Kind::Boolean),
    optional("migration_type", Kind::OneOf(&["secure", "insecure"])),
    optional("migration_network", Kind::Text),
];
const MIGRATE_CT: &[Param] = &[
    required("target", Kind::Text),
    optional("restart", Kind::Boolean),
    optional("online", Kind::Boolean),
    optional("timeout", Kind::Integer(None)),
    optional("target-storage", Kind::Text),
    optional("bwlimit", Kind::Number),
];

use Answers::{Checked, Cluster, Guest, Node, Task};
use GuestKind::{Lxc, Qemu};

/// All calls.
pub(super) static CALLS: &[Call] = &[
    get("/version", ALL, NONE, Cluster(render::version)),
    get("/access/permissions", ALL, PERMISSIONS, Cluster(render::permissions)),
    get("/cluster/status", ROOT, NONE, Cluster(render::cluster_status)),
    get("/cluster/resources", ALL, RESOURCES, Cluster(|c| render::resources(c, c.param("type")))),
    get("/cluster/options", ALL, NONE, Cluster(render::options)),
    get("/cluster/tasks", ALL, NONE, Cluster(render_tasks::list)),
    get("/cluster/replication", ALL, NONE, Cluster(render::replications)),
    get("/cluster/ha/resources", ROOT, HA_RESOURCES, Cluster(render_ha::ha_resources)),
    get_since_9("/cluster/ha/rules", ROOT, HA_RULES, Cluster(render_ha::ha_rules)),
    get("/cluster/ha/groups", ROOT, NONE, Checked(ha_groups)),
    get("/cluster/ha/status/current", ROOT, NONE, Cluster(render_ha::ha_current)),
    get("/cluster/ha/status/manager_status", ROOT, NONE, Cluster(render_ha::ha_manager)),
    get("/nodes", ALL, NONE, Cluster(render::nodes)),
    get("/nodes/{node}/version", ALL, NONE, Node(|c, _, _| render::version(c))),
    get("/nodes/{node}/status", NODE, NONE, Node(|c, _, node| render::node_status(c, node))),
    get("/nodes/{node}/time", NODE, NONE, Node(|c, _, _| render::time(c))),
    get("/nodes/{node}/rrddata", NODE, NODE_RRD, Node(|c, _, node| rrd::of_node(c, node, timeframe(c)))),
    get("/nodes/{node}/storage", ALL, STORAGES, Node(|c, id, _| render::node_storages(c, id))),
    get("/nodes/{node}/tasks/{upid}/status", ALL, NONE, Task(|_, task| render_tasks::status(task))),
    get("/nodes/{node}/tasks/{upid}/log", ALL, LOG, Task(render_tasks::log)),
    get("/nodes/{node}/qemu", ALL, GUESTS, Node(|c, id, _| render::node_guests(c, id, Qemu))),
    get("/nodes/{node}/lxc", ALL, NONE, Node(|c, id, _| render::node_guests(c, id, Lxc))),
    get("/nodes/{node}/qemu/{vmid}/config", AUDIT, CONFIG, Guest(Qemu, config)),
    get("/nodes/{node}/lxc/{vmid}/config", AUDIT, CONFIG, Guest(Lxc, config)),
    get("/nodes/{node}/qemu/{vmid}/status/current", AUDIT, NONE, Guest(Qemu, current)),
    get("/nodes/{node}/lxc/{vmid}/status/current", AUDIT, NONE, Guest(Lxc, current)),
    get("/nodes/{node}/qemu/{vmid}/rrddata", AUDIT, GUEST_RRD, Guest(Qemu, history)),
    get("/nodes/{node}/lxc/{vmid}/rrddata", AUDIT, GUEST_RRD, Guest(Lxc, history)),
    get("/nodes/{node}/qemu/{vmid}/migrate", MIGRATE, PRECONDITIONS, Guest(Qemu, preconditions::of)),
    get("/nodes/{node}/lxc/{vmid}/migrate", MIGRATE, PRECONDITIONS, Guest(Lxc, preconditions::of)),
    post("/nodes/{node}/qemu/{vmid}/migrate", MIGRATE, MIGRATE_VM, Answers::Migrate(Qemu)),
    post("/nodes/{node}/lxc/{vmid}/migrate", MIGRATE, MIGRATE_CT, Answers::Migrate(Lxc)),
];

const fn get(path: &'static str, need: Need, known: &'static [Param], answer: Answers) -> Call {
    Call { method: Method::GET, path, need, known, since_9: false, answer }
}

const fn get_since_9(path: &'static str, need: Need, known: &'static [Param], answer: Answers) -> Call {
    Call { method: Method::GET, path, need, known, since_9: true, answer }
}

const fn post(path: &'static str, need: Need, known: &'static [Param], answer: Answers) -> Call {
    Call { method: Method::POST, path, need, known, since_9: false, answer }
}

impl Call {
    /// What a path names in the places of this call's; `None` when it is not this call's.
    pub(super) fn named<'p>(&self, segments: &'p [Cow<'_, str>]) -> Option<Vec<(&'static str, &'p str)>> {
        let own: Vec<&'static str> = self.path.split('/').collect();
        if own.len() != segments.len() {
            return None;
        }
        let mut named = Vec::new();
        for (own, given) in own.into_iter().zip(segments) {
            match own.strip_prefix('{').and_then(|own| own.strip_suffix('}')) {
                Some(name) if !given.is_empty() => named.push((name, given.as_ref())),
                Some(_) => return None,
                None if own == given => {}
                None => return None,
            }
        }
        Some(named)
    }
}

fn timeframe<'a>(context: &'a Context<'_>) -> &'a str {
    context.param("timeframe").unwrap_or_default()
}

fn config(context: &Context<'_>, vmid: Vmid, guest: &FakeGuest) -> Outcome {
    Ok(Answer::ok(render::config(context, vmid, guest)))
}

fn current(context: &Context<'_>, vmid: Vmid, guest: &FakeGuest) -> Outcome {
    Ok(Answer::ok(render::current(context, vmid, guest)))
}

fn history(context: &Context<'_>, _: Vmid, guest: &FakeGuest) -> Outcome {
    Ok(Answer::ok(rrd::of_guest(context, guest, timeframe(context))))
}

fn ha_groups(context: &Context<'_>) -> Outcome {
    match context.cluster.version {
        PveVersion::V8 => Ok(Answer::ok(render_ha::ha_groups(context))),
        PveVersion::V9 => {
            Err(Answer::error(500, "cannot index groups: ha groups have been migrated to rules"))
        }
    }
}
