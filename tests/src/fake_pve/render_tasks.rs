//! The task list, and a task by itself, which tells the same in other words.

use serde_json::{Value, json};

use super::api::{Answer, Context};
use super::cluster::FakeTask;
use super::render::Put;

pub(super) fn list(context: &Context<'_>) -> Value {
    let own = |task: &&FakeTask| {
        context.may(&format!("/nodes/{}", task.node), "Sys.Audit")
            || task.user.split('!').next() == context.token.id.split('!').next()
    };
    // Newest first, and only as many as the nodes announce to each other.
    context
        .cluster
        .tasks
        .iter()
        .rev()
        .filter(own)
        .take(25 * context.cluster.nodes.len())
        .map(row_of)
        .collect()
}

fn row_of(task: &FakeTask) -> Value {
    let (user, token) =
        task.user.split_once('!').map_or((task.user.as_str(), None), |(user, id)| (user, Some(id)));
    let mut row = json!({ "upid": task.upid, "node": task.node, "type": task.kind, "id": task.id, "user": user,
                          "starttime": task.started_at.as_secs() });
    row.put("tokenid", token.map(|id| json!(id)));
    if let Some((at, status)) = &task.ended {
        row.put("endtime", json!(at.as_secs()));
        row.put("status", json!(status));
        row.put("saved", json!("1"));
    }
    row
}

pub(super) fn status(task: &FakeTask) -> Answer {
    let mut row = row_of(task);
    if let Some(object) = row.as_object_mut() {
        object.remove("endtime");
        object.remove("saved");
    }
    let hex =
        |place: usize| task.upid.split(':').nth(place).and_then(|part| i64::from_str_radix(part, 16).ok());
    row.put("pid", json!(hex(2)));
    row.put("pstart", json!(hex(3)));
    row.put("status", json!(if task.ended.is_some() { "stopped" } else { "running" }));
    row.put("exitstatus", task.ended.as_ref().map(|(_, status)| json!(status)));
    Answer::ok(row)
}

/// An empty log has one line that says so.
pub(super) fn log(context: &Context<'_>, task: &FakeTask) -> Answer {
    let number = |name: &str, usual| context.param(name).and_then(|text| text.parse().ok()).unwrap_or(usual);
    let empty = ["no content".to_owned()];
    let lines = if task.log.is_empty() { &empty[..] } else { &task.log };
    let rows = (1..).zip(lines).skip(number("start", 0)).take(number("limit", 50));
    let rows: Value = rows.map(|(n, line)| json!({ "n": n, "t": line })).collect();
    Answer::ok(rows).with_total(lines.len())
}
