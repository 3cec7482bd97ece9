//! `status`: how the aggregator and its clusters are, on one screen.

use evenkeel_proto::v1::{ClusterStatus, GetStatusResponse};

use super::{Context, or_dash};
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Cell, Column, Table};
use crate::render::tone::{ACTIONS, Tone};
use crate::render::{Screen, ago, bytes, count, counted, span};

/// Asks and shows.
pub async fn run(context: &Context) -> Result<(), CliError> {
    let mut answer = context.client.status().await?;
    if !context.cluster.is_empty() {
        answer.clusters.retain(|cluster| cluster.cluster == context.cluster);
        if answer.clusters.is_empty() {
            return Err(CliError::Failed(format!(
                "no cluster {} reports here; `evenkeelctl status` lists those that do",
                context.cluster
            )));
        }
    }
    let endpoint = context.client.target().endpoint.clone();
    context.show(&answer, |screen| page(screen, &answer, &endpoint))
}

fn page(screen: &Screen, status: &GetStatusResponse, endpoint: &str) -> String {
    let mut page = Page::new(screen);
    let up = span(status.now_ms.saturating_sub(status.started_ms));
    page.line(Tone::Strong, &format!("evenkeel {} at {endpoint}, up {up}", status.version));
    page.line(Tone::Normal, &format!("{}; you are {}", screen.at(status.now_ms), or_dash(&status.role)));
    if !status.warnings.is_empty() {
        page.gap();
        page.line(Tone::Amber, "Needs a look");
        for warning in &status.warnings {
            page.bullet(warning);
        }
    }
    page.gap();
    if status.clusters.is_empty() {
        page.line(
            Tone::Normal,
            "No cluster reports here yet: enrol a node with `evenkeel-agent enroll TOKEN`.",
        );
    } else {
        page.table(&clusters(status));
    }
    for cluster in &status.clusters {
        details(&mut page, screen, cluster, status.now_ms);
    }
    if let Some(store) = &status.store {
        page.section("Store");
        page.fields(&[
            ("backend", format!("{}, schema {}", or_dash(&store.backend), store.schema)),
            ("on disk", bytes(store.bytes_on_disk)),
            (
                "since start",
                format!("{}, {}", counted(store.samples, "sample"), counted(store.events, "event")),
            ),
            ("duplicates", format!("{} received again and dropped", count(store.duplicates))),
        ]);
    }
    page.finish()
}

fn clusters(status: &GetStatusResponse) -> Table {
    let mut table = Table::new([
        Column::text("CLUSTER"),
        Column::text("MODE"),
        Column::text("PRESET").rank(3),
        Column::text("STATE"),
        Column::number("NODES"),
        Column::number("GUESTS"),
        Column::number("ANOMALIES"),
        Column::text("INVENTORY").rank(1),
        Column::number("LAST RUN").rank(2),
    ]);
    for cluster in &status.clusters {
        let all_fresh = cluster.nodes_fresh == cluster.nodes;
        let state = if cluster.paused { "paused" } else { "active" };
        table.row([
            cluster.cluster.as_str().into(),
            or_dash(&cluster.mode).into(),
            or_dash(&cluster.preset).into(),
            Cell::word(state),
            Cell::toned(
                format!("{}/{}", cluster.nodes_fresh, cluster.nodes),
                if all_fresh { Tone::Normal } else { Tone::Amber },
            ),
            cluster.guests.to_string().into(),
            Cell::toned(
                cluster.open_anomalies.to_string(),
                if cluster.open_anomalies > 0 { Tone::Amber } else { Tone::Normal },
            ),
            Cell::word(&cluster.inventory),
            cluster.last_run_ms.map_or_else(|| "never".to_owned(), |ms| ago(ms, status.now_ms)).into(),
        ]);
    }
    table
}

fn details(page: &mut Page<'_>, screen: &Screen, cluster: &ClusterStatus, now_ms: i64) {
    let mut fields = Vec::new();
    if cluster.paused {
        let by = if cluster.paused_by.is_empty() { "someone" } else { &cluster.paused_by };
        let since = cluster.paused_ms.map(|ms| format!(", since {}", screen.at_and_ago(ms, now_ms)));
        fields
            .push(("paused", format!("by {by}{}; `evenkeelctl resume` ends it", since.unwrap_or_default())));
    }
    if cluster.nodes_fresh < cluster.nodes {
        let stale = cluster.nodes - cluster.nodes_fresh;
        fields.push((
            "stale",
            format!("{} left out of decisions; see `evenkeelctl nodes`", counted(stale, "node")),
        ));
    }
    if !cluster.last_run.is_empty() {
        fields.push(("last run", cluster.last_run.clone()));
    }
    let actions: Vec<String> = ACTIONS
        .iter()
        .filter_map(|(action, _)| cluster.actions.get(*action).map(|n| format!("{n} {action}")))
        .collect();
    if !actions.is_empty() {
        fields.push(("actions", actions.join(", ")));
    }
    if cluster.moves_waiting > 0 {
        let waiting = counted(cluster.moves_waiting, "migration");
        fields.push(("waiting", format!("{waiting} for approval; see `evenkeelctl moves --state proposed`")));
    }
    if cluster.moves_under_way > 0 {
        let moves = counted(cluster.moves_under_way, "migration");
        fields.push(("under way", format!("{moves}; see `evenkeelctl moves --open`")));
    }
    for held in &cluster.held {
        fields.push(("held", held.clone()));
    }
    if !cluster.inventory_detail.is_empty() {
        fields.push(("inventory", cluster.inventory_detail.clone()));
    }
    if cluster.gaps > 0 {
        fields.push(("gaps", format!("{} kept: stretches without data", counted(cluster.gaps, "record"))));
    }
    if !fields.is_empty() {
        page.section(&cluster.cluster);
        page.fields(&fields);
    }
}
