//! `guests`: where they run and what they use; with a number, everything about one guest.

use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_proto::v1::{Guest, ListGuestsRequest};

use super::{Context, guest_label, node_or_all, or_dash, spans_clusters, vmid_or_all};
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::table::{Cell, Column, Table};
use crate::render::tone::Tone;
use crate::render::{NO_DATA, Screen, bytes, in_unit, number, span};

/// Asks and shows.
pub async fn run(context: &Context, vmid: Option<Vmid>, node: Option<NodeId>) -> Result<(), CliError> {
    let question = ListGuestsRequest {
        cluster: context.cluster.clone(),
        vmid: vmid_or_all(vmid),
        node: node_or_all(node),
    };
    let answer =
        context.client.ask(question, async |mut control, request| control.list_guests(request).await).await?;
    if let Some(vmid) = vmid
        && answer.guests.is_empty()
    {
        return Err(CliError::Failed(format!(
            "there is no guest {vmid} there; `evenkeelctl guests` lists them"
        )));
    }
    context.show(&answer, |screen| {
        if vmid.is_none() { list(screen, &answer.guests) } else { details(screen, &answer.guests) }
    })
}

fn list(screen: &Screen, guests: &[Guest]) -> String {
    let mut page = Page::new(screen);
    if guests.is_empty() {
        page.line(Tone::Normal, "No guests there.");
        return page.finish();
    }
    let several = spans_clusters(guests.iter().map(|g| g.cluster.as_str()));
    let mut table = Table::new([
        Column::text("CLUSTER").only_if(several),
        Column::number("VMID"),
        Column::name("NAME"),
        Column::text("KIND").rank(7),
        Column::text("NODE"),
        Column::text("STATUS"),
        Column::number("CORES"),
        Column::number("OF").rank(6),
        Column::number("MEMORY"),
        Column::number("DISK/S").rank(4),
        Column::number("NET/S").rank(5),
        Column::text("PROFILE").rank(1),
        Column::text("PLACEMENT").rank(3),
        Column::number("ANOMALIES").rank(2),
    ]);
    for guest in guests {
        table.row([
            guest.cluster.as_str().into(),
            guest.vmid.to_string().into(),
            or_dash(&guest.name).into(),
            or_dash(&guest.kind).into(),
            or_dash(&guest.node).into(),
            Cell::word(&guest.status),
            number(guest.cpu_cores, 2).into(),
            number(guest.vcpus, 0).into(),
            bytes(guest.mem_bytes).into(),
            guest.disk_bytes_per_s.map_or_else(|| NO_DATA.to_owned(), crate::render::float_bytes).into(),
            guest.net_bytes_per_s.map_or_else(|| NO_DATA.to_owned(), crate::render::float_bytes).into(),
            Cell::word(&guest.profile),
            Cell::word(&guest.placement),
            Cell::toned(
                guest.open_anomalies.to_string(),
                if guest.open_anomalies > 0 { Tone::Amber } else { Tone::Normal },
            ),
        ]);
    }
    page.table(&table);
    page.finish()
}

fn details(screen: &Screen, guests: &[Guest]) -> String {
    let mut page = Page::new(screen);
    for guest in guests {
        page.gap();
        let label = guest_label(guest.vmid, &guest.name);
        page.line(
            Tone::Strong,
            &format!("Guest {label} of cluster {}: {}", guest.cluster, or_dash(&guest.status)),
        );
        let rate = |value: Option<f64>| {
            value.map_or_else(|| NO_DATA.to_owned(), |value| in_unit(value, "bytes_per_second"))
        };
        let placement = match guest.placement.as_str() {
            "agreed" => "agents and Proxmox VE agree".to_owned(),
            "agent_only" => "only an agent sees it, Proxmox VE does not".to_owned(),
            "pve_only" => "only Proxmox VE sees it, no agent does".to_owned(),
            "disputed" => "agents and Proxmox VE disagree; it is left out of decisions".to_owned(),
            other => or_dash(other),
        };
        page.fields(&[
            ("node", or_dash(&guest.node)),
            ("kind", or_dash(&guest.kind)),
            ("placement", placement),
            (
                "data",
                guest.data_age_ms.map_or_else(|| "no data".to_owned(), |ms| format!("{} old", span(ms))),
            ),
            ("cpu", format!("{} of {} cores", number(guest.cpu_cores, 2), number(guest.vcpus, 0))),
            ("memory", format!("{} of {}", bytes(guest.mem_bytes), bytes(guest.mem_max_bytes))),
            ("disk", rate(guest.disk_bytes_per_s)),
            ("network", rate(guest.net_bytes_per_s)),
            (
                "profile",
                format!("{}; `evenkeelctl profiles {}` has the figures", or_dash(&guest.profile), guest.vmid),
            ),
            ("tags", or_dash(&guest.tags.join(", "))),
            ("HA", if guest.ha.is_empty() { "not managed".to_owned() } else { guest.ha.clone() }),
            ("anomalies", format!("{} open", guest.open_anomalies)),
        ]);
    }
    page.finish()
}
