//! `POST .../migrate`: what Proxmox looks at before it starts a task, in its order. What it does not look at (devices,
//! node rules, maintenance, memory) only shows in the task, if at all.

use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};

use super::api::{Answer, Context};
use super::cluster::FakeGuest;
use super::preconditions;

/// An order that was accepted.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) vmid: Vmid,
    pub(super) target: NodeId,
    /// Who gave it: a user or a token.
    pub(super) user: String,
    pub(super) online: bool,
    pub(super) with_local_disks: bool,
}

/// Options that Proxmox keeps to root. A token is never root, not even one of root's.
const ROOT_ONLY: [&str; 3] = ["force", "migration_type", "migration_network"];

/// The order that a request amounts to, or why it is refused. Its privilege and parameters have been checked.
pub(super) fn judge(context: &Context<'_>, node: &NodeId, kind: GuestKind) -> Result<Order, Answer> {
    let target = context.param("target").unwrap_or_default();
    if target == node.as_str() {
        return Err(Answer::invalid_parameter("target", "target is local node."));
    }
    need_quorum(context)?;
    let target = reachable(context, target)?;
    let set = |name: &&&str| context.param(name).is_some_and(|value| value != "0");
    if let Some(name) = ROOT_ONLY.iter().find(set).filter(|_| context.token.id != "root@pam") {
        return Err(Answer::invalid_parameter(name, "Only root may use this option."));
    }
    let (vmid, guest) = context.find(node, kind)?;
    unlocked(guest)?;
    if guest.runs() {
        may_run(context, vmid, guest, target)?;
    }
    may_use_storages(context, vmid, guest, target)?;
    Ok(Order {
        vmid,
        target: target.clone(),
        user: context.token.id.clone(),
        online: context.flag("online"),
        with_local_disks: context.flag("with-local-disks"),
    })
}

/// Without a majority nothing may be written, and a lock is written.
pub(super) fn need_quorum(context: &Context<'_>) -> Result<(), Answer> {
    if context.cluster.quorate {
        return Ok(());
    }
    Err(Answer::error(500, "cluster not ready - no quorum?"))
}

fn reachable<'a>(context: &'a Context<'_>, target: &str) -> Result<&'a NodeId, Answer> {
    let found = context.cluster.nodes.iter().find(|(id, _)| id.as_str() == target);
    match found {
        None => Err(Answer::error(500, &format!("no such cluster node '{target}'"))),
        Some((_, node)) if !node.online => {
            Err(Answer::error(500, &format!("unable to get IP for node '{target}' - node offline?")))
        }
        Some((id, _)) => Ok(id),
    }
}

/// A guest that a task holds is left alone.
pub(super) fn unlocked(guest: &FakeGuest) -> Result<(), Answer> {
    let Some(lock) = &guest.lock else { return Ok(()) };
    let what = if guest.kind == GuestKind::Qemu { "VM" } else { "CT" };
    Err(Answer::error(500, &format!("{what} is locked ({lock})")))
}

/// What must be said, and must not stand against it, to move a guest that runs.
fn may_run(context: &Context<'_>, vmid: Vmid, guest: &FakeGuest, target: &NodeId) -> Result<(), Answer> {
    if guest.kind == GuestKind::Lxc {
        // With `online` alone it is accepted, and fails in its task.
        return if context.flag("online") || context.flag("restart") {
            Ok(())
        } else {
            Err(Answer::error(500, "can't migrate running container without --online or --restart"))
        };
    }
    if !context.flag("online") {
        return Err(Answer::error(500, "can't migrate running VM without --online"));
    }
    let mut jobs = context.cluster.replications.iter().filter(|job| job.guest == vmid).peekable();
    if jobs.peek().is_some() && !jobs.any(|job| job.target == *target) {
        let why = "not a replication target. Use 'force' to override.";
        let text = format!("Cannot live-migrate replicated VM to node '{target}' - {why}");
        return Err(Answer::error(500, &text));
    }
    Ok(())
}

/// Disks may only be put elsewhere by who may put them there; and where nothing is put elsewhere, the target must have
/// a VM's storages.
fn may_use_storages(
    context: &Context<'_>,
    vmid: Vmid,
    guest: &FakeGuest,
    target: &NodeId,
) -> Result<(), Answer> {
    let name = if guest.kind == GuestKind::Qemu { "targetstorage" } else { "target-storage" };
    let Some(mapping) = context.param(name) else {
        let missing = preconditions::missing_storages(context.cluster, guest, target);
        return match missing.first().filter(|_| guest.kind == GuestKind::Qemu) {
            Some(missing) => {
                let text = format!("storage '{missing}' is not available on node '{target}'");
                Err(Answer::error(500, &text))
            }
            None => Ok(()),
        };
    };
    if mapping != "1" {
        context.need(&format!("/vms/{vmid}"), "VM.Config.Disk")?;
        for pair in mapping.split(',') {
            let storage = pair.split_once(':').map_or(pair, |(_, storage)| storage);
            context.need(&format!("/storage/{storage}"), "Datastore.AllocateSpace")?;
        }
    }
    Ok(())
}
