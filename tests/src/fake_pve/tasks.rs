//! Tasks by hand: what others do in the cluster, started and ended by whoever drives it.

use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};

use super::cluster::{FakeCluster, FakeTask};

impl FakeCluster {
    /// Starts a task by `user` on the guest's node that migrates it, and locks the guest. Gives its UPID;
    /// `None` when there is no such guest. It goes on until [`Self::end_task`].
    pub fn start_migration(&mut self, vmid: Vmid, user: &str) -> Option<String> {
        let guest = self.guests.get_mut(&vmid)?;
        guest.lock = Some("migrate".into());
        let kind = match guest.kind {
            GuestKind::Qemu => "qmigrate",
            GuestKind::Lxc => "vzmigrate",
        };
        let node = guest.node.clone();
        Some(self.add_task(&node, kind, &vmid.to_string(), user))
    }

    /// Starts a task by `user` that backs a guest up, and locks it until [`Self::end_task`]. `None` when there is no
    /// such guest.
    pub fn start_backup(&mut self, vmid: Vmid, user: &str) -> Option<String> {
        let guest = self.guests.get_mut(&vmid)?;
        guest.lock = Some("backup".into());
        let node = guest.node.clone();
        Some(self.add_task(&node, "vzdump", &vmid.to_string(), user))
    }

    /// Starts a task by `user` that backs up all of a node: it names no guest, and none is locked before its turn.
    pub fn start_node_backup(&mut self, node: &NodeId, user: &str) -> String {
        self.add_task(node, "vzdump", "", user)
    }

    /// Ends a task as `status` (`OK` or an error text) and gives the guest it holds free. For a migration, `moved_to`
    /// is where the guest is now, whatever the status says.
    pub fn end_task(&mut self, upid: &str, status: &str, moved_to: Option<&NodeId>) {
        let Some(task) = self.tasks.iter_mut().find(|task| task.upid == upid) else { return };
        task.ended = Some((self.now, status.to_owned()));
        task.log.push(if status == "OK" { "TASK OK".into() } else { format!("TASK ERROR: {status}") });
        let migrates = matches!(task.kind.as_str(), "qmigrate" | "vzmigrate");
        let vmid = task.id.parse().ok().filter(|_| migrates || task.kind == "vzdump");
        self.forget_move(upid);
        let Some(guest) = vmid.and_then(|vmid: Vmid| self.guests.get_mut(&vmid)) else { return };
        guest.lock = None;
        if let Some(node) = moved_to.filter(|_| migrates) {
            guest.node = node.clone();
            guest.started_at = self.now;
            guest.traffic = [0; 4];
        }
    }

    /// Moves a guest at once, as somebody else would: leaves a finished task of `root@pam`.
    pub fn move_guest(&mut self, vmid: Vmid, target: &NodeId) {
        if let Some(upid) = self.start_migration(vmid, "root@pam") {
            self.end_task(&upid, "OK", Some(target));
        }
    }

    /// Starts a task and gives its UPID.
    pub fn add_task(&mut self, node: &NodeId, kind: &str, id: &str, user: &str) -> String {
        self.task_number += 1;
        let (number, start) = (self.task_number, self.now.as_secs());
        let upid =
            format!("UPID:{node}:{number:08X}:{:08X}:{start:08X}:{kind}:{id}:{user}:", 0x5_0000 + number);
        self.tasks.push(FakeTask {
            upid: upid.clone(),
            node: node.clone(),
            kind: kind.to_owned(),
            id: id.to_owned(),
            user: user.to_owned(),
            started_at: self.now,
            ended: None,
            log: Vec::new(),
        });
        upid
    }

    /// Writes a line into a task's log.
    pub(super) fn tell(&mut self, upid: &str, line: String) {
        if let Some(task) = self.tasks.iter_mut().find(|task| task.upid == upid) {
            task.log.push(line);
        }
    }
}
