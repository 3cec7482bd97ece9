//! Filter 10: what tags, HA rules, devices, storage and maintenance allow. Never makes a violation.
//!
//! Proxmox VE's own precondition check knows neither node-affinity rules nor CPU types nor maintenance, so they are
//! judged here. A non-strict node-affinity rule counts like a strict one while one of its nodes is available: the HA
//! manager would move the guest back.

use evenkeel_common::decision::{Step, Verdict};
use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::reason::Reason;

use super::{Context, Filter};
use crate::snapshot::{HaRule, Move, NodeState, takes_part};

pub(super) struct Affinity;

impl Filter for Affinity {
    fn step(&self) -> Step {
        Step::Affinity
    }

    fn judge(&self, migration: &Move<'_>, context: &Context<'_>) -> Verdict {
        let objection = target(migration.target)
            .or_else(|| tags(migration, context))
            .or_else(|| ha(migration, context))
            .or_else(|| groups(migration, context))
            .or_else(|| hardware(migration));
        objection.map_or(Verdict::PASS, Verdict::Filtered)
    }
}

/// Whether the reason holds for every target, so that asking about others is useless.
pub(crate) const fn concerns_guest(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::TagIgnore { .. }
            | Reason::HaState { .. }
            | Reason::PveRebalances {}
            | Reason::Passthrough { .. }
            | Reason::LocalDisks { .. }
            | Reason::ContainerRestart {}
            | Reason::CooldownActive { .. }
            | Reason::ConflictInFlight { .. }
            | Reason::ConflictSameGuest { .. }
            | Reason::TrendFalling { .. }
            | Reason::PeakGuest { .. }
            | Reason::PeakSource { .. }
            | Reason::GuestPoor { .. }
            // The best target is asked first, and no other one improves the cluster more.
            | Reason::ConfidenceTooLow { .. }
            | Reason::RiskTooHigh { .. }
            | Reason::CostTooHigh { .. }
    )
}

fn target(target: &NodeState) -> Option<Reason> {
    let id = || target.id.clone();
    if !target.online {
        Some(Reason::TargetOffline { target: id() })
    } else if let Some(why) = &target.barred {
        Some(Reason::TargetBarred { target: id(), why: Box::new(why.clone()) })
    } else if target.maintenance {
        Some(Reason::TargetMaintenance { target: id() })
    } else {
        None
    }
}

fn tags(migration: &Move<'_>, context: &Context<'_>) -> Option<Reason> {
    let tags = &context.facts.tags[migration.guest_index];
    if let Some(tag) = &tags.ignore {
        return Some(Reason::TagIgnore { tag: tag.clone() });
    }
    if !tags.pin_tags.is_empty() && !tags.pins.contains(&migration.target.id) {
        return Some(Reason::TagPin { tags: tags.pin_tags.clone(), nodes: tags.pins.clone() });
    }
    if migration.guest.kind == GuestKind::Lxc && !tags.restart_ok {
        return Some(Reason::ContainerRestart {});
    }
    None
}

/// How many members of a group, the guest itself left out, are on source and target; and one of each.
struct Peers {
    source: Vec<Vmid>,
    target: Vec<Vmid>,
}

fn peers(migration: &Move<'_>, context: &Context<'_>, members: impl Iterator<Item = usize>) -> Peers {
    let mut peers = Peers { source: Vec::new(), target: Vec::new() };
    for member in members.filter(|&member| member != migration.guest_index) {
        let place = context.fleet.place[member];
        let vmid = context.snapshot.guests[member].vmid;
        if place == migration.source_index {
            peers.source.push(vmid);
        } else if place == migration.target_index {
            peers.target.push(vmid);
        }
    }
    peers
}

/// A group that stays together may only be left by a guest that joins the larger part of it.
fn splits(peers: &Peers) -> bool {
    !peers.source.is_empty() && peers.target.len() <= peers.source.len()
}

fn groups(migration: &Move<'_>, context: &Context<'_>) -> Option<Reason> {
    let tags = &context.facts.tags[migration.guest_index];
    let members = |group: &String| context.facts.groups.get(group).into_iter().flatten().copied();
    for group in &tags.apart {
        if let Some(&peer) = peers(migration, context, members(group)).target.first() {
            return Some(Reason::TagApart {
                group: group.clone(),
                peer,
                target: migration.target.id.clone(),
            });
        }
    }
    for group in &tags.together {
        let peers = peers(migration, context, members(group));
        if splits(&peers) {
            let source = migration.source.id.clone();
            return Some(Reason::TagTogether { group: group.clone(), peers: peers.source, source });
        }
    }
    None
}

fn ha(migration: &Move<'_>, context: &Context<'_>) -> Option<Reason> {
    let state = migration.guest.ha_state.as_ref()?;
    if state != "started" {
        return Some(Reason::HaState { state: state.clone() });
    }
    if context.snapshot.pve_rebalances {
        return Some(Reason::PveRebalances {});
    }
    let vmid = migration.guest.vmid;
    context.snapshot.rules.iter().find_map(|rule| match rule {
        HaRule::NodeAffinity { rule, guests, nodes, strict } if guests.contains(&vmid) => {
            let allowed = best_available(nodes, *strict, context);
            let bound = *strict || !allowed.is_empty();
            (bound && !allowed.contains(&migration.target.id)).then(|| Reason::HaNodeAffinity {
                rule: rule.clone(),
                nodes: allowed,
                strict: *strict,
            })
        }
        HaRule::ResourceAffinity { rule, guests, together } if guests.contains(&vmid) => {
            let members = guests.iter().filter_map(|guest| context.snapshot.guest_index(*guest));
            let peers = peers(migration, context, members);
            if *together {
                splits(&peers).then(|| Reason::HaTogether {
                    rule: rule.clone(),
                    peers: peers.source,
                    source: migration.source.id.clone(),
                })
            } else {
                peers.target.first().map(|&peer| Reason::HaApart {
                    rule: rule.clone(),
                    peer,
                    target: migration.target.id.clone(),
                })
            }
        }
        _ => None,
    })
}

/// The nodes of a rule with the highest priority that is available; for a strict rule without any, all its nodes.
fn best_available(nodes: &[(NodeId, u32)], strict: bool, context: &Context<'_>) -> Vec<NodeId> {
    let available = |id: &NodeId| {
        let node = context.snapshot.node_index(id).map(|index| &context.snapshot.nodes[index]);
        node.is_some_and(|node| takes_part(node) && !node.maintenance)
    };
    let best = nodes.iter().filter(|(id, _)| available(id)).map(|&(_, priority)| priority).max();
    let chosen = |(id, priority): &&(NodeId, u32)| match best {
        Some(best) => *priority == best && available(id),
        None => strict,
    };
    let mut ids: Vec<_> = nodes.iter().filter(chosen).map(|(id, _)| id.clone()).collect();
    ids.sort();
    ids
}

fn hardware(migration: &Move<'_>) -> Option<Reason> {
    let Move { guest, source, target, .. } = migration;
    if !guest.devices.is_empty() {
        return Some(Reason::Passthrough { devices: guest.devices.clone() });
    }
    if !guest.local_disks.is_empty() {
        return Some(Reason::LocalDisks { disks: guest.local_disks.clone() });
    }
    if let Some(storage) = guest.storages.iter().find(|&storage| !target.storages.contains(storage)) {
        return Some(Reason::StorageMissing { storage: storage.clone(), target: target.id.clone() });
    }
    if guest.vcpus > target.cores {
        return Some(Reason::TooFewCores {
            vcpus: guest.vcpus,
            cores: target.cores,
            target: target.id.clone(),
        });
    }
    if guest.cpu_host
        && guest.kind == GuestKind::Qemu
        && (source.cpu_model.is_none() || source.cpu_model != target.cpu_model)
    {
        let name = |node: &NodeState| node.cpu_model.clone().unwrap_or_else(|| "an unknown CPU".to_owned());
        return Some(Reason::CpuModel { source: name(source), target: name(target) });
    }
    None
}
