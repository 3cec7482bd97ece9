//! Which call gets which answer: token, path, privilege and parameters, checked in Proxmox' order.

use axum::extract::Query;
use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};
use http::{Method, Request};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::cluster::{FakeCluster, FakeGuest, FakeNode, FakeToken, PveVersion};
use super::params::{self, Kind, Param, optional, required};
use super::{preconditions, render, render_ha, render_tasks, rrd};

/// An answer before it is sent.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) reason: String,
    /// `None`: no body at all, as Proxmox does for 401.
    body: Option<Value>,
}

impl Answer {
    fn ok(data: Value) -> Self {
        Self { status: 200, reason: "OK".into(), body: Some(json!({ "data": data })) }
    }

    pub(super) fn bare(status: u16, reason: &str) -> Self {
        Self { status, reason: reason.into(), body: None }
    }

    pub(super) fn error(status: u16, text: &str) -> Self {
        let body = json!({ "data": null, "message": format!("{text}\n") });
        Self { status, reason: text.into(), body: Some(body) }
    }

    fn invalid(errors: Map<String, Value>) -> Self {
        let text = "Parameter verification failed.";
        let body = json!({ "data": null, "message": format!("{text}\n"), "errors": errors });
        Self { status: 400, reason: text.into(), body: Some(body) }
    }

    pub(super) fn text(&self) -> String {
        self.body.as_ref().map(Value::to_string).unwrap_or_default()
    }

    /// Changes what a good answer holds.
    pub(super) fn map_data(mut self, change: impl FnOnce(Value) -> Value) -> Self {
        if let Some(data) = self.body.as_mut().and_then(|body| body.get_mut("data")) {
            *data = change(data.take());
        }
        self
    }
}

/// Everything an answer depends on.
pub(super) struct Context<'a> {
    pub(super) cluster: &'a FakeCluster,
    /// The node that was asked.
    pub(super) local: &'a NodeId,
    pub(super) token: &'a FakeToken,
    path: &'a str,
    query: Vec<(String, String)>,
}

/// Answers a request to `path` (below `/api2/json`) that reached `local`.
pub(super) fn answer<B>(cluster: &FakeCluster, local: &NodeId, path: &str, request: &Request<B>) -> Answer {
    let header = request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(given) = header.and_then(|value| value.strip_prefix("PVEAPIToken=")) else {
        return Answer::bare(401, "No ticket");
    };
    let known =
        |token: &&FakeToken| given.split_once('=') == Some((token.id.as_str(), token.secret.as_str()));
    let Some(token) = cluster.tokens.iter().find(known) else {
        return Answer::bare(401, "Authentication failed!");
    };
    let query = Query::try_from_uri(request.uri()).map_or_else(|_| Vec::new(), |Query(pairs)| pairs);
    let context = Context { cluster, local, token, path, query };
    let segments: Vec<String> = path
        .split('/')
        .skip(1)
        .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let answered = match *request.method() {
        Method::GET => context.get(&segments),
        Method::POST => context.post(&segments),
        _ => None,
    };
    answered.unwrap_or_else(|| context.not_implemented(request.method())).unwrap_or_else(|refused| refused)
}

type Outcome = Result<Answer, Answer>;

const NONE: &[Param] = &[];
const RRD: &[Param] = &[
    required("timeframe", Kind::OneOf(&["hour", "day", "week", "month", "year", "decade"])),
    optional("cf", Kind::OneOf(&["AVERAGE", "MAX"])),
];
const RESOURCES: &[Param] = &[optional("type", Kind::OneOf(&["vm", "storage", "node", "sdn"]))];
const CONFIG: &[Param] = &[optional("current", Kind::Boolean), optional("snapshot", Kind::Text)];

impl Context<'_> {
    /// `None`: there is no such call.
    fn get(&self, segments: &[&str]) -> Option<Outcome> {
        Some(match segments {
            ["version"] => self.all(NONE, || render::version(self)),
            ["access", "permissions"] => self
                .all(&[optional("path", Kind::Text), optional("userid", Kind::Text)], || {
                    render::permissions(self)
                }),
            ["cluster", "status"] => self.audited(NONE, || render::cluster_status(self)),
            ["cluster", "resources"] => self.all(RESOURCES, || render::resources(self, self.param("type"))),
            ["cluster", "options"] => self.all(NONE, || render::options(self)),
            ["cluster", "tasks"] => self.all(NONE, || render_tasks::list(self)),
            ["cluster", "ha", "resources"] => self
                .audited(&[optional("type", Kind::OneOf(&["ct", "vm"]))], || render_ha::ha_resources(self)),
            ["cluster", "ha", "rules"] if self.cluster.version == PveVersion::V9 => self
                .audited(&[optional("type", Kind::Text), optional("resource", Kind::Text)], || {
                    render_ha::ha_rules(self)
                }),
            ["cluster", "ha", "groups"] => self.audited(NONE, || ()).and_then(|_| self.ha_groups()),
            ["cluster", "ha", "status", "current"] => self.audited(NONE, || render_ha::ha_current(self)),
            ["cluster", "ha", "status", "manager_status"] => {
                self.audited(NONE, || render_ha::ha_manager(self))
            }
            ["nodes"] => self.all(NONE, || render::nodes(self)),
            ["nodes", node, rest @ ..] => return self.node(node, rest),
            _ => return None,
        })
    }

    /// Starting a migration is not played yet; that a token may not is.
    fn post(&self, segments: &[&str]) -> Option<Outcome> {
        match segments {
            ["nodes", _, "qemu" | "lxc", vmid, "migrate"] => {
                self.need(&format!("/vms/{vmid}"), "VM.Migrate").err().map(Err)
            }
            _ => None,
        }
    }

    fn node(&self, name: &str, rest: &[&str]) -> Option<Outcome> {
        let on_node = |need: Result<(), Answer>, answer: &dyn Fn(&NodeId, &FakeNode) -> Outcome| {
            need.and_then(|()| self.reach(name)).and_then(|(id, node)| answer(id, node))
        };
        let audit = || self.need(&format!("/nodes/{name}"), "Sys.Audit");
        Some(match rest {
            ["version"] => on_node(Ok(()), &|_, _| self.all(NONE, || render::version(self))),
            ["status"] => on_node(audit(), &|_, node| self.all(NONE, || render::node_status(self, node))),
            ["time"] => on_node(audit(), &|_, _| self.all(NONE, || render::time(self))),
            ["rrddata"] => on_node(audit(), &|_, node| {
                self.all(RRD, || rrd::of_node(self, node, self.param("timeframe").unwrap_or_default()))
            }),
            ["storage"] => on_node(Ok(()), &|id, _| {
                let known = ["content", "storage", "target"].map(|name| optional(name, Kind::Text));
                let flags = ["enabled", "format"].map(|name| optional(name, Kind::Boolean));
                let known: Vec<Param> = known.into_iter().chain(flags).collect();
                self.all(&known, || render::node_storages(self, id))
            }),
            ["tasks", upid, "status"] => on_node(Ok(()), &|_, _| self.task(upid)),
            ["qemu"] => on_node(Ok(()), &|id, _| {
                self.all(&[optional("full", Kind::Boolean)], || {
                    render::node_guests(self, id, GuestKind::Qemu)
                })
            }),
            ["lxc"] => {
                on_node(Ok(()), &|id, _| self.all(NONE, || render::node_guests(self, id, GuestKind::Lxc)))
            }
            ["qemu", vmid, rest @ ..] => return self.guest(name, GuestKind::Qemu, vmid, rest),
            ["lxc", vmid, rest @ ..] => return self.guest(name, GuestKind::Lxc, vmid, rest),
            _ => return None,
        })
    }

    fn guest(&self, node: &str, kind: GuestKind, vmid: &str, rest: &[&str]) -> Option<Outcome> {
        let privilege = if rest == ["migrate"] { "VM.Migrate" } else { "VM.Audit" };
        let found = || {
            self.need(&format!("/vms/{vmid}"), privilege)?;
            self.reach(node)?;
            self.find(node, kind, vmid)
        };
        let on_guest =
            |answer: &dyn Fn(Vmid, &FakeGuest) -> Outcome| found().and_then(|(id, guest)| answer(id, guest));
        Some(match rest {
            ["config"] => on_guest(&|id, guest| self.all(CONFIG, || render::config(self, id, guest))),
            ["status", "current"] => {
                on_guest(&|id, guest| self.all(NONE, || render::current(self, id, guest)))
            }
            ["rrddata"] => on_guest(&|_, guest| {
                self.all(RRD, || rrd::of_guest(self, guest, self.param("timeframe").unwrap_or_default()))
            }),
            ["migrate"] => on_guest(&|id, guest| {
                if let Some(lock) = &guest.lock {
                    let what = if kind == GuestKind::Qemu { "VM" } else { "CT" };
                    return Err(Answer::error(500, &format!("{what} is locked ({lock})")));
                }
                self.all(&[optional("target", Kind::Text)], || preconditions::of(self, id, guest))
            }),
            _ => return None,
        })
    }

    fn ha_groups(&self) -> Outcome {
        match self.cluster.version {
            PveVersion::V8 => Ok(Answer::ok(render_ha::ha_groups(self))),
            PveVersion::V9 => {
                Err(Answer::error(500, "cannot index groups: ha groups have been migrated to rules"))
            }
        }
    }

    fn task(&self, upid: &str) -> Outcome {
        let task = self.cluster.tasks.iter().find(|task| task.upid == upid);
        let task = task.ok_or_else(|| Answer::error(400, "Parameter verification failed."))?;
        let own = task.user.split('!').next() == self.token.id.split('!').next();
        if !own {
            self.need(&format!("/nodes/{}", task.node), "Sys.Audit")?;
        }
        self.all(NONE, || render_tasks::status(task))
    }

    /// The node a path names, when it can be reached.
    fn reach(&self, name: &str) -> Result<(&NodeId, &FakeNode), Answer> {
        let found = self.cluster.nodes.iter().find(|(id, _)| id.as_str() == name);
        match found {
            None => {
                let why = format!("failed to get address info for: {name}: Name or service not known");
                Err(Answer::error(500, &format!("hostname lookup '{name}' failed - {why}")))
            }
            Some((_, node)) if !node.online => Err(Answer::bare(595, "No route to host")),
            Some(found) => Ok(found),
        }
    }

    fn find(&self, node: &str, kind: GuestKind, vmid: &str) -> Result<(Vmid, &FakeGuest), Answer> {
        let folder = if kind == GuestKind::Qemu { "qemu-server" } else { "lxc" };
        let guest = vmid.parse().ok().and_then(|vmid: Vmid| Some((vmid, self.cluster.guests.get(&vmid)?)));
        guest.filter(|(_, guest)| guest.kind == kind && guest.node.as_str() == node).ok_or_else(|| {
            let file = format!("nodes/{node}/{folder}/{vmid}.conf");
            Answer::error(500, &format!("Configuration file '{file}' does not exist"))
        })
    }

    /// A call that everybody with a token may make; what it shows may depend on privileges.
    fn all(&self, known: &[Param], data: impl FnOnce() -> Value) -> Outcome {
        let errors = params::check(&self.query, known);
        if errors.is_empty() { Ok(Answer::ok(data())) } else { Err(Answer::invalid(errors)) }
    }

    /// A call that needs Sys.Audit on the root.
    fn audited<T: Into<Value>>(&self, known: &[Param], data: impl FnOnce() -> T) -> Outcome {
        self.need("/", "Sys.Audit")?;
        self.all(known, || data().into())
    }

    fn need(&self, path: &str, privilege: &str) -> Result<(), Answer> {
        if self.may(path, privilege) {
            return Ok(());
        }
        Err(Answer::error(403, &format!("Permission check failed ({path}, {privilege})")))
    }

    /// Whether the token has `privilege` on `path`; a guest also inherits from its pool.
    pub(super) fn may(&self, path: &str, privilege: &str) -> bool {
        let pool = path
            .strip_prefix("/vms/")
            .and_then(|vmid| self.cluster.guests.get(&vmid.parse().ok()?)?.pool.as_ref())
            .map(|pool| format!("/pool/{pool}"));
        let by_pool = pool.and_then(|pool| self.token.acl.get(&pool)).is_some_and(|p| p.contains(privilege));
        by_pool || self.token.on(path).contains(privilege)
    }

    fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn not_implemented(&self, method: &Method) -> Outcome {
        Err(Answer::error(501, &format!("Method '{method} {}' not implemented", self.path)))
    }
}
