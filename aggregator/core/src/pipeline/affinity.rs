//! Filter 10: what tags, HA rules, devices, storage and maintenance allow. Never makes a violation.
//!
//! Proxmox VE's own precondition check knows neither node-affinity rules nor CPU types nor maintenance, so they are
//! judged here. A non-strict node-affinity rule counts like a strict one while one of its nodes is available: the HA
//! manager would move the guest back. Where failback is switched off it would not; such a guest still goes to no node
//! of lower priority than the one it is on.
//!
//! Guests that stay apart are spread over rooms too, where the policy names any: none moves into a room that holds more
//! of its group than the one it leaves. A node that is in no room is a room of its own.
//!
//! Of guests that move as one (see [`crate::bundle`]) each is judged as if the others were with it already.

use evenkeel_common::decision::{Step, Verdict};
use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::reason::Reason;

use super::{Context, Filter};
use crate::plan::not_a_candidate;
use crate::snapshot::{HaRule, Move, NodeState, takes_part};

pub(super) struct Affinity;

impl Filter for Affinity {
    fn step(&self) -> Step {
        Step::Affinity
    }

    fn judge(&self, migration: &Move<'_>, context: &Context<'_>) -> Verdict {
        let objection = closed_to_all(migration.target)
            .or_else(|| tags(migration, context))
            .or_else(|| ha(migration, context))
            .or_else(|| groups(migration, context))
            .or_else(|| rooms(migration, context))
            .or_else(|| hardware(migration));
        objection.map_or(Verdict::PASS, Verdict::Filtered)
    }
}

/// Whether the reason holds for every target, so that asking about others is useless.
pub(crate) fn concerns_guest(reason: &Reason) -> bool {
    if let Reason::GroupHeld { why, .. } = reason {
        return concerns_guest(why);
    }
    matches!(
        reason,
        Reason::TagIgnore { .. }
            | Reason::TagUnknown { .. }
            | Reason::HaState { .. }
            | Reason::PveRebalances {}
            | Reason::Passthrough { .. }
            | Reason::LocalDisks { .. }
            | Reason::ContainerRestart {}
            | Reason::CooldownActive { .. }
            | Reason::GuestLocked { .. }
            | Reason::GuestUnknownLoad {}
            | Reason::ConflictInFlight { .. }
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

/// Why a node takes no guest, whichever it is.
pub(crate) fn closed_to_all(target: &NodeState) -> Option<Reason> {
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
    if let Some(ignore) = &tags.ignore {
        return Some(ignore.clone());
    }
    if !tags.pin_tags.is_empty() && !tags.pins.contains(&migration.target.id) {
        return Some(Reason::TagPin { tags: tags.pin_tags.clone(), nodes: tags.pins.clone() });
    }
    if migration.guest.kind == GuestKind::Lxc && !tags.restart_ok {
        return Some(Reason::ContainerRestart {});
    }
    None
}

/// Members of a group on source and target; the guest, and who moves with it, left out.
struct Peers {
    source: Vec<Vmid>,
    target: Vec<Vmid>,
}

fn peers(migration: &Move<'_>, context: &Context<'_>, members: impl Iterator<Item = usize>) -> Peers {
    let mut peers = Peers { source: Vec::new(), target: Vec::new() };
    let unit = context.facts.bundles.unit(&migration.guest_index);
    for member in members.filter(|member| !unit.contains(member)) {
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
    if context.facts.bundles.bundle(migration.guest_index).is_some()
        && let Some(objection) = not_a_candidate(migration.guest)
    {
        return Some(objection); // Who can not move keeps those who would have to take it along.
    }
    for group in &tags.together {
        // Who does not run is with nobody, and can not come along.
        let running = members(group).filter(|&member| context.snapshot.guests[member].running);
        let peers = peers(migration, context, running);
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
        HaRule::NodeAffinity { rule, nodes, strict, no_failback, .. }
            if no_failback.contains(&vmid) && !migration.source.maintenance =>
        {
            ranked_lower(migration, rule, nodes, *strict)
        }
        HaRule::NodeAffinity { rule, guests, nodes, strict, .. } if guests.contains(&vmid) => {
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

/// Without failback: whether the target is not allowed, or ranks lower than where the guest is. Nodes that the rule does
/// not name rank lowest.
fn ranked_lower(migration: &Move<'_>, rule: &str, nodes: &[(NodeId, u32)], strict: bool) -> Option<Reason> {
    let priority = |node: &NodeId| nodes.iter().find(|(id, _)| id == node).map(|&(_, priority)| priority);
    let (source, target) = (priority(&migration.source.id), priority(&migration.target.id));
    let rule = rule.to_owned();
    if strict && target.is_none() {
        let nodes = nodes.iter().map(|(id, _)| id.clone()).collect();
        return Some(Reason::HaNodeAffinity { rule, nodes, strict });
    }
    let (from, to) = (migration.source.id.clone(), migration.target.id.clone());
    (target < source).then_some(Reason::HaNodePriority { rule, source: from, target: to })
}

/// Rooms: whether the target's holds more of a group that stays apart than the one that the guest leaves.
fn rooms(migration: &Move<'_>, context: &Context<'_>) -> Option<Reason> {
    if context.policy.rooms.is_empty() {
        return None;
    }
    let tags = &context.facts.tags[migration.guest_index];
    let tagged =
        tags.apart.iter().map(|tag| (tag, context.facts.groups.get(tag).cloned().unwrap_or_default()));
    let vmid = migration.guest.vmid;
    let ruled = context.snapshot.rules.iter().filter_map(|rule| match rule {
        HaRule::ResourceAffinity { rule, guests, together: false }
            if migration.guest.ha_state.is_some() && guests.contains(&vmid) =>
        {
            Some((rule, guests.iter().filter_map(|guest| context.snapshot.guest_index(*guest)).collect()))
        }
        _ => None,
    });
    tagged.chain(ruled).find_map(|(group, members)| crowded(migration, context, group, &members))
}

fn crowded(migration: &Move<'_>, context: &Context<'_>, group: &str, members: &[usize]) -> Option<Reason> {
    let (nodes, policy) = (&context.snapshot.nodes, context.policy);
    let unit = context.facts.bundles.unit(&migration.guest_index);
    let in_room_of = |node: &NodeState| -> Vec<Vmid> {
        let here = |member: &usize| {
            !unit.contains(member) && policy.same_room(&nodes[context.fleet.place[*member]].id, &node.id)
        };
        members.iter().copied().filter(here).map(|member| context.snapshot.guests[member].vmid).collect()
    };
    let there = in_room_of(migration.target);
    // A guest that is nowhere yet leaves no room: what counts is where there are fewest.
    let open = nodes.iter().filter(|node| closed_to_all(node).is_none());
    let here = if migration.source.online {
        in_room_of(migration.source).len()
    } else {
        open.map(|node| in_room_of(node).len()).min().unwrap_or_default()
    };
    let room = policy.room_of(&migration.target.id)?.to_owned();
    let same = policy.same_room(&migration.source.id, &migration.target.id);
    (!same && there.len() > here).then(|| Reason::RoomApart {
        target: migration.target.id.clone(),
        room,
        group: group.to_owned(),
        guests: there,
        here: u32::try_from(here).unwrap_or(u32::MAX),
    })
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
