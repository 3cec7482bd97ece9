//! How a request comes to its answer: token, call, privilege, node, parameters and subject, looked at in Proxmox'
//! order. Which calls there are says `calls`.

use std::borrow::Cow;

use axum::extract::Query;
use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};
use http::request::Parts;
use http::{Method, Uri};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::calls::{Answers, CALLS, Call};
use super::cluster::{FakeCluster, FakeGuest, FakeNode, FakeTask, FakeToken, PveVersion};
use super::migrate::{self, Order};
use super::params;

/// An answer before it is sent.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) reason: String,
    /// `None`: no body at all, as Proxmox does for 401.
    body: Option<Value>,
}

impl Answer {
    pub(super) fn ok(data: Value) -> Self {
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

    /// A 400 that complains of one parameter.
    pub(super) fn invalid_parameter(name: &str, problem: &str) -> Self {
        Self::invalid(Map::from_iter([(name.to_owned(), problem.into())]))
    }

    pub(super) fn text(&self) -> String {
        self.body.as_ref().map(Value::to_string).unwrap_or_default()
    }

    pub(super) fn data(&self) -> Option<&Value> {
        self.body.as_ref()?.get("data")
    }

    /// The text of a refusal, with the parameters it complains of.
    pub(super) fn complaint(&self) -> String {
        let errors = self.body.as_ref().and_then(|body| body.get("errors")?.as_object());
        let each = errors.into_iter().flatten();
        let told = each.map(|(name, why)| format!(" {name}: {}", why.as_str().unwrap_or_default()));
        std::iter::once(self.reason.clone()).chain(told).collect()
    }

    /// Beside the data, how much there is of it in all.
    pub(super) fn with_total(mut self, total: usize) -> Self {
        if let Some(body) = self.body.as_mut().and_then(Value::as_object_mut) {
            body.insert("total".into(), json!(total));
        }
        self
    }

    /// Changes what a good answer holds.
    pub(super) fn map_data(mut self, change: impl FnOnce(Value) -> Value) -> Self {
        if let Some(data) = self.body.as_mut().and_then(|body| body.get_mut("data")) {
            *data = change(data.take());
        }
        self
    }
}

/// A request, as far as an answer depends on it.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) authorization: Option<String>,
    /// From query and body alike.
    pub(super) parameters: Vec<(String, String)>,
}

impl Asked {
    pub(super) fn of(parts: &Parts, body: &[u8]) -> Self {
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let mut parameters = pairs(&parts.uri);
        if header(http::header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json")) {
            parameters.extend(from_json(body));
        } else if let Ok(form) = Uri::try_from(format!("/?{}", String::from_utf8_lossy(body))) {
            parameters.extend(pairs(&form)); // A form is written like a query.
        }
        let authorization = header(http::header::AUTHORIZATION).map(str::to_owned);
        Self { method: parts.method.clone(), authorization, parameters }
    }
}

fn pairs(uri: &Uri) -> Vec<(String, String)> {
    Query::try_from_uri(uri).map_or_else(|_| Vec::new(), |Query(pairs)| pairs)
}

/// Values as Perl writes them out: that is what their types are checked on.
fn from_json(body: &[u8]) -> Vec<(String, String)> {
    let fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let text = |value| match value {
        Value::Null => None,
        Value::Bool(flag) => Some(u8::from(flag).to_string()),
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    fields.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect()
}

/// Everything an answer depends on.
pub(super) struct Context<'a> {
    pub(super) cluster: &'a FakeCluster,
    /// The node that was asked.
    pub(super) local: &'a NodeId,
    pub(super) token: &'a FakeToken,
    /// What the path names, by the names of the call's path.
    named: Vec<(&'static str, &'a str)>,
    parameters: &'a [(String, String)],
}

/// An answer, or why there is none.
pub(super) type Outcome = Result<Answer, Answer>;

/// What a request comes to.
enum Verdict {
    Answer(Answer),
    Start(Order),
}

/// Answers a request to `path` (below `/api2/json`) that reached `local`. Only a POST changes the cluster.
pub(super) fn answer(cluster: &mut FakeCluster, local: &NodeId, path: &str, asked: &Asked) -> Answer {
    match judge(cluster, local, path, asked) {
        Ok(Verdict::Answer(answer)) | Err(answer) => answer,
        Ok(Verdict::Start(order)) => Answer::ok(json!(cluster.start(order))),
    }
}

fn judge(cluster: &FakeCluster, local: &NodeId, path: &str, asked: &Asked) -> Result<Verdict, Answer> {
    let given = asked.authorization.as_deref().and_then(|value| value.strip_prefix("PVEAPIToken="));
    let given = given.ok_or_else(|| Answer::bare(401, "No ticket"))?;
    let known =
        |token: &&FakeToken| given.split_once('=') == Some((token.id.as_str(), token.secret.as_str()));
    let token = cluster.tokens.iter().find(known);
    let token = token.ok_or_else(|| Answer::bare(401, "Authentication failed!"))?;
    let segments: Vec<Cow<'_, str>> =
        path.split('/').map(|part| percent_decode_str(part).decode_utf8_lossy()).collect();
    let found = CALLS
        .iter()
        .filter(|call| call.method == asked.method)
        .filter(|call| !call.since_9 || cluster.version == PveVersion::V9)
        .find_map(|call| Some((call, call.named(&segments)?)));
    let Some((call, named)) = found else {
        return Err(Answer::error(501, &format!("Method '{} {path}' not implemented", asked.method)));
    };
    Context { cluster, local, token, named, parameters: &asked.parameters }.judge(call)
}

impl Context<'_> {
    fn judge(&self, call: &Call) -> Result<Verdict, Answer> {
        if let Some((path, privilege)) = call.need {
            self.need(&self.filled(path), privilege)?;
        }
        let node = match self.named("node") {
            "" => None,
            name => Some(self.reach(name)?),
        };
        let errors = params::check(self.parameters, call.known, self.cluster.version);
        if !errors.is_empty() {
            return Err(Answer::invalid(errors));
        }
        let answer = match (call.answer, node) {
            (Answers::Cluster(answer), _) => Answer::ok(answer(self)),
            (Answers::Checked(answer), _) => answer(self)?,
            (Answers::Node(answer), Some((id, node))) => Answer::ok(answer(self, id, node)),
            (Answers::Task(answer), _) => answer(self, self.task()?),
            (Answers::Guest(kind, answer), Some((id, _))) => {
                let (vmid, guest) = self.find(id, kind)?;
                answer(self, vmid, guest)?
            }
            (Answers::Migrate(kind), Some((id, _))) => {
                return migrate::judge(self, id, kind).map(Verdict::Start);
            }
            (Answers::Node(_) | Answers::Guest(..) | Answers::Migrate(_), None) => {
                Answer::error(500, "the path of this call names no node")
            }
        };
        Ok(Verdict::Answer(answer))
    }

    /// What the path names; empty when it does not.
    fn named(&self, name: &str) -> &str {
        self.named.iter().find(|(key, _)| *key == name).map(|(_, value)| *value).unwrap_or_default()
    }

    fn filled(&self, path: &str) -> String {
        let fill = |path: String, (key, value): &(&str, &str)| path.replace(&format!("{{{key}}}"), value);
        self.named.iter().fold(path.to_owned(), fill)
    }

    fn task(&self) -> Result<&FakeTask, Answer> {
        let task = self.cluster.tasks.iter().find(|task| task.upid == self.named("upid"));
        let task = task.ok_or_else(|| Answer::invalid_parameter("upid", "no such task"))?;
        if task.user.split('!').next() != self.token.id.split('!').next() {
            self.need(&format!("/nodes/{}", task.node), "Sys.Audit")?;
        }
        Ok(task)
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

    /// The guest that the path names, when it is on this node and of this kind.
    pub(super) fn find(&self, node: &NodeId, kind: GuestKind) -> Result<(Vmid, &FakeGuest), Answer> {
        let folder = if kind == GuestKind::Qemu { "qemu-server" } else { "lxc" };
        let name = self.named("vmid");
        let guest = name.parse().ok().and_then(|vmid: Vmid| Some((vmid, self.cluster.guests.get(&vmid)?)));
        guest.filter(|(_, guest)| guest.kind == kind && guest.node == *node).ok_or_else(|| {
            let file = format!("nodes/{node}/{folder}/{name}.conf");
            Answer::error(500, &format!("Configuration file '{file}' does not exist"))
        })
    }

    pub(super) fn need(&self, path: &str, privilege: &str) -> Result<(), Answer> {
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

    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a flag is given and set.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.param(name) == Some("1")
    }
}
