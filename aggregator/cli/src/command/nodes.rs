//! `nodes`: load, score and how fresh the data is; with a name, everything about one node.

use evenkeel_common::id::NodeId;
use evenkeel_proto::v1::{ListNodesRequest, Node};

use super::{Context, node_or_all, or_dash, spans_clusters};
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Cell, Column, Table};
use crate::render::tone::Tone;
use crate::render::{NO_DATA, Screen, bytes, number, span, with_unit};

/// Asks and shows.
pub async fn run(context: &Context, node: Option<NodeId>) -> Result<(), CliError> {
    let wanted = node_or_all(node);
    let question = ListNodesRequest { cluster: context.cluster.clone(), node: wanted.clone() };
    let answer =
        context.client.ask(question, async |mut control, request| control.list_nodes(request).await).await?;
    if !wanted.is_empty() && answer.nodes.is_empty() {
        return Err(CliError::Failed(format!("there is no node {wanted}; `evenkeelctl nodes` lists them")));
    }
    context.show(&answer, |screen| {
        if wanted.is_empty() { list(screen, &answer.nodes) } else { details(screen, &answer.nodes) }
    })
}

fn list(screen: &Screen, nodes: &[Node]) -> String {
    let mut page = Page::new(screen);
    if nodes.is_empty() {
        page.line(Tone::Normal, "No nodes yet: enrol one with `evenkeel-agent enroll TOKEN`.");
        return page.finish();
    }
    let several = spans_clusters(nodes.iter().map(|n| n.cluster.as_str()));
    let mut table = Table::new([
        Column::text("CLUSTER").only_if(several),
        Column::text("NODE"),
        Column::text("STATUS"),
        Column::number("DATA AGE").rank(2),
        Column::number("SCORE"),
        Column::number("CPU %"),
        Column::number("NOW %").rank(6),
        Column::number("IOWAIT %").rank(5),
        Column::number("MEM %"),
        Column::number("PRESSURE %").rank(3),
        Column::number("GUESTS").rank(1),
        Column::number("ANOMALIES").rank(4),
    ]);
    for node in nodes {
        table.row([
            node.cluster.as_str().into(),
            node.node.as_str().into(),
            Cell::word(&node.status),
            node.data_age_ms.map_or_else(|| NO_DATA.to_owned(), span).into(),
            number(node.score, 1).into(),
            number(node.cpu_percent, 1).into(),
            number(node.cpu_now_percent, 1).into(),
            number(node.iowait_percent, 1).into(),
            number(node.mem_percent, 1).into(),
            number(node.pressure_percent, 1).into(),
            node.guests.to_string().into(),
            Cell::toned(
                node.open_anomalies.to_string(),
                if node.open_anomalies > 0 { Tone::Amber } else { Tone::Normal },
            ),
        ]);
    }
    page.table(&table);
    let left_out: Vec<&Node> = nodes.iter().filter(|node| !node.not_decidable.is_empty()).collect();
    if !left_out.is_empty() {
        page.section("Left out of decisions");
        for node in left_out {
            page.bullet(&format!("{}: {}", node.node, node.not_decidable.join("; ")));
        }
    }
    page.finish()
}

fn details(screen: &Screen, nodes: &[Node]) -> String {
    let mut page = Page::new(screen);
    for node in nodes {
        page.gap();
        page.line(Tone::Strong, &format!("Node {} of cluster {}: {}", node.node, node.cluster, node.status));
        let memory = match node.mem_used_bytes {
            Some(used) => {
                format!(
                    "{} of {} ({})",
                    bytes(used),
                    bytes(node.memory_bytes),
                    with_unit(node.mem_percent, 1, "%")
                )
            }
            None => format!("{} of {}", NO_DATA, bytes(node.memory_bytes)),
        };
        let age = node.data_age_ms.map_or_else(|| "no data".to_owned(), |ms| format!("{} old", span(ms)));
        let skew = node.skew_ms.map_or_else(|| NO_DATA.to_owned(), |ms| format!("{ms} ms"));
        page.fields(&[
            ("data", age),
            ("clock skew", skew),
            ("score", with_unit(node.score, 1, "of 100, higher = closer to its limit")),
            (
                "cpu",
                format!(
                    "{} of {} CPUs, now {}",
                    percent(node.cpu_percent),
                    node.cpus,
                    percent(node.cpu_now_percent)
                ),
            ),
            ("iowait", percent(node.iowait_percent)),
            ("memory", memory),
            ("pressure", percent(node.pressure_percent)),
            ("guests", node.guests.to_string()),
            ("anomalies", format!("{} open", node.open_anomalies)),
            ("agent", or_dash(&node.agent_version)),
            ("Proxmox VE", or_dash(&node.pve_version)),
        ]);
        for (title, sentences) in [
            ("Left out of decisions", &node.not_decidable),
            ("What the agent can not see", &node.blind_spots),
        ] {
            if !sentences.is_empty() {
                page.section(title);
                sentences.iter().for_each(|sentence| page.bullet(sentence));
            }
        }
    }
    page.finish()
}

fn percent(value: Option<f64>) -> String {
    with_unit(value, 1, "%")
}
