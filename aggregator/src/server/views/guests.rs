//! Guests and their profiles.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_common::guest::{GuestProfile, UsageSummary};
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::sample::Subject;
use evenkeel_proto::v1;

use super::{ClusterView, count, whole};
use crate::ingest::live::GuestLive;
use crate::pve::Inventory;
use crate::pve::resources::{Guest, GuestStatus};
use crate::store::records::ProfileRecord;

/// What an agent says about a guest, copied out of the live state.
struct Seen {
    node: NodeId,
    view: v1::Guest,
}

/// All guests of a cluster, or the one asked for, or those of one node.
#[must_use]
pub fn list(view: &ClusterView, only: Option<Vmid>, on: Option<&NodeId>) -> Vec<v1::Guest> {
    let inventory = view.inventory();
    let mut seen = seen(view);
    let listed = inventory.iter().flat_map(|i| i.guests.keys().copied());
    let vmids: BTreeSet<Vmid> = listed.chain(seen.keys().copied()).collect();
    vmids
        .into_iter()
        .filter(|vmid| only.is_none_or(|wanted| *vmid == wanted))
        .map(|vmid| {
            let seen = seen.remove(&vmid).unwrap_or_default();
            guest(view, vmid, seen, inventory.as_deref())
        })
        .filter(|guest| on.is_none_or(|node| guest.node == node.as_str()))
        .collect()
}

fn seen(view: &ClusterView) -> BTreeMap<Vmid, Vec<Seen>> {
    let mut seen: BTreeMap<Vmid, Vec<Seen>> = BTreeMap::new();
    for (node, cell) in &view.agents {
        let live = cell.lock();
        for (&vmid, guest) in &live.guests {
            let mut shown = measured(view, guest);
            shown.data_age_ms = view.age_ms(live.received);
            let open = live.open.values().filter(|a| a.series.subject == Subject::Guest(vmid));
            shown.open_anomalies = count(open.count());
            seen.entry(vmid).or_default().push(Seen { node: node.clone(), view: shown });
        }
    }
    seen
}

fn measured(view: &ClusterView, guest: &GuestLive) -> v1::Guest {
    let window = view.window();
    let both = |pair: &[crate::ingest::recent::Recent; 2]| {
        let parts: Vec<f64> = pair.iter().filter_map(|recent| recent.mean(window)).collect();
        (!parts.is_empty()).then(|| parts.iter().sum())
    };
    v1::Guest {
        kind: guest.facts.kind.to_string(),
        name: guest.facts.name.clone().unwrap_or_default(),
        status: "running".into(),
        vcpus: guest.facts.vcpus,
        cpu_cores: guest.cpu.mean(window),
        mem_bytes: guest.mem.mean(window).map(whole),
        mem_max_bytes: guest.facts.memory_max.map(|m| m.0),
        disk_bytes_per_s: both(&guest.disk),
        net_bytes_per_s: both(&guest.net),
        profile: guest.profile.as_ref().map_or("unknown", |p| p.class.name()).into(),
        tags: guest.facts.tags.clone(),
        ..v1::Guest::default()
    }
}

fn guest(view: &ClusterView, vmid: Vmid, seen: Vec<Seen>, inventory: Option<&Inventory>) -> v1::Guest {
    let listed = inventory.and_then(|i| i.guests.get(&vmid));
    let placement = placement(&seen, listed, inventory.is_some());
    // Several agents may claim it; the one Proxmox agrees with is shown.
    let best = seen.iter().position(|s| listed.is_some_and(|l| l.node == s.node)).unwrap_or(0);
    let (node, mut shown) = match seen.into_iter().nth(best) {
        Some(seen) => (Some(seen.node), seen.view),
        None => (None, v1::Guest { profile: "unknown".into(), ..v1::Guest::default() }),
    };
    if let Some(listed) = listed {
        shown.kind = listed.kind.to_string();
        shown.name = listed.name.clone().unwrap_or(shown.name);
        shown.status = match listed.status {
            GuestStatus::Running => "running",
            GuestStatus::Stopped => "stopped",
            _ => "unknown",
        }
        .into();
        shown.vcpus = listed.max_cpu.or(shown.vcpus);
        shown.mem_max_bytes = listed.max_mem.map(|m| m.0).or(shown.mem_max_bytes);
        shown.tags.clone_from(&listed.tags);
        shown.ha = listed.hastate.as_ref().map(ToString::to_string).unwrap_or_default();
    }
    shown.cluster = view.id.to_string();
    shown.vmid = vmid.get();
    shown.node = listed.map(|l| &l.node).or(node.as_ref()).map(ToString::to_string).unwrap_or_default();
    shown.placement = placement.into();
    shown
}

fn placement(seen: &[Seen], listed: Option<&Guest>, has_inventory: bool) -> &'static str {
    match (seen, listed) {
        ([only], Some(listed)) if only.node == listed.node => "agreed",
        ([], Some(listed)) if listed.status != GuestStatus::Running => "agreed",
        ([], Some(_)) => "pve_only",
        ([_], None) if !has_inventory => "agent_only",
        _ => "disputed",
    }
}

/// Profiles: the agents' own where they have sent one, otherwise what the store remembers.
#[must_use]
pub fn profiles(
    view: &ClusterView,
    stored: BTreeMap<Vmid, ProfileRecord>,
    only: Option<Vmid>,
) -> Vec<v1::Profile> {
    let mut profiles: BTreeMap<Vmid, (NodeId, GuestProfile)> =
        stored.into_iter().map(|(vmid, record)| (vmid, (record.node, record.profile))).collect();
    let mut names = BTreeMap::new();
    for (node, cell) in &view.agents {
        for (&vmid, guest) in &cell.lock().guests {
            names.insert(vmid, guest.facts.name.clone().unwrap_or_default());
            if let Some(profile) = &guest.profile {
                profiles.insert(vmid, (node.clone(), profile.clone()));
            }
        }
    }
    profiles
        .into_iter()
        .filter(|(vmid, _)| only.is_none_or(|wanted| *vmid == wanted))
        .map(|(vmid, (node, profile))| {
            let (rrd_s, earlier_s, here_s) = profile.origins();
            v1::Profile {
                cluster: view.id.to_string(),
                vmid: vmid.get(),
                name: names.remove(&vmid).unwrap_or_default(),
                node: node.to_string(),
                class: profile.class.to_string(),
                observed_s: profile.observed_s,
                cpu_cores: Some(figures(profile.cpu)),
                memory_bytes: Some(figures(profile.memory)),
                cpu_by_hour: hours(&profile.cpu_by_hour),
                rrd_s,
                earlier_s,
                here_s,
            }
        })
        .collect()
}

fn figures(summary: UsageSummary) -> v1::UsageFigures {
    let UsageSummary { min, max, mean, std_dev, p95, slope_per_hour } = summary;
    v1::UsageFigures { min, mean, p95, max, std_dev, slope_per_hour }
}

fn hours(by_hour: &[Option<f64>]) -> Vec<v1::HourFigure> {
    let known = (0u32..).zip(by_hour).filter_map(|(hour, value)| Some((hour, (*value)?)));
    known.map(|(hour, value)| v1::HourFigure { hour, value }).collect()
}
