//! Migrations as they go on: what has been ordered becomes tasks, locks and guests elsewhere as time passes.

use std::time::Duration;

use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Bytes;
use serde_json::json;

use super::behaviour::{Behaviour, Course};
use super::cluster::{FakeCluster, FakeGuest};
use super::migrate::Order;
use super::preconditions;

/// How long the task takes that only hands a request to HA.
const HA_REQUEST: Duration = Duration::from_secs(2);
/// How long HA takes from a request to the task that moves the guest.
const HA_QUEUE: Duration = Duration::from_secs(20);
/// How long a task takes to find out that it can not be done.
const REFUSAL: Duration = Duration::from_secs(1);
/// The shortest move.
const SHORTEST: Duration = Duration::from_secs(3);

/// A migration that has not come to its end.
#[derive(Clone, Debug)]
pub(super) struct Move {
    order: Order,
    /// The task that is at it, or was last.
    pub(super) upid: String,
    /// When this stage began; when it was requested, while HA has it.
    since: Timestamp,
    stage: Stage,
    in_ha: bool,
}

#[derive(Clone, Debug)]
enum Stage {
    /// The request is being handed to HA.
    Requested,
    /// HA has it.
    Queued,
    /// Its task moves the guest.
    Moving {
        /// Whether it is a container that is started again at the end.
        restarts: bool,
    },
    /// Its task is about to find this out.
    Refused(String),
}

impl FakeCluster {
    /// Carries all migrations as far as they are at `now`, which becomes the cluster's time. Nothing moves otherwise.
    pub fn advance(&mut self, now: Timestamp) {
        while let Some((at, next)) = self.next_event().filter(|(at, _)| *at <= now) {
            self.now = self.now.max(at);
            let going = self.moves.remove(next);
            match going.stage.clone() {
                Stage::Requested => self.end_request(going),
                Stage::Queued => self.end_queue(going),
                Stage::Refused(why) => self.abort(&going, &why),
                Stage::Moving { restarts } => self.end_move(&going, restarts),
            }
        }
        self.now = now;
    }

    /// Orders a migration as a well-formed POST by the second token would, past all checks and without a trace in
    /// `posts`. Gives the UPID of the task it starts.
    pub fn order(&mut self, vmid: Vmid, target: &NodeId) -> String {
        let user = self.tokens.get(1).map(|token| token.id.clone()).unwrap_or_default();
        let online =
            self.guests.get(&vmid).is_some_and(|guest| guest.kind == GuestKind::Qemu && guest.runs());
        self.start(Order { vmid, target: target.clone(), user, online, with_local_disks: false })
    }

    /// The guests that played migrations have moved, removed or replaced since this was last called.
    pub fn take_changed(&mut self) -> Vec<Vmid> {
        std::mem::take(&mut self.changed)
    }

    /// What the HA manager says of a service: `migrate` from a request until it is done, its own state otherwise.
    /// A request that is going to be dropped never shows.
    pub(super) fn ha_state(&self, vmid: Vmid) -> Option<(&str, Option<&NodeId>)> {
        let own = self.ha_resources.get(&vmid)?.state.as_str();
        let going = self.moves.iter().find(|going| going.order.vmid == vmid && going.in_ha);
        Some(
            match going.filter(|going| !self.is_dropped(&going.order) && self.ha_objection(going).is_none()) {
                Some(going) => ("migrate", Some(&going.order.target)),
                None => (own, None),
            },
        )
    }

    /// Starts what has been ordered and gives the UPID of its first task.
    pub(super) fn start(&mut self, order: Order) -> String {
        let managed = self.ha_resources.get(&order.vmid).is_some_and(|ha| ha.state != "ignored");
        let node = self.guests.get(&order.vmid).map(|guest| guest.node.clone());
        let Some(node) = node.filter(|_| managed) else {
            return self.begin(order, false);
        };
        let upid = self.add_task(&node, "hamigrate", &order.vmid.to_string(), &order.user);
        let line = format!("Requesting HA migration for {} to node {}", self.title(order.vmid), order.target);
        self.tell(&upid, line);
        let since = self.now;
        self.moves.push(Move { order, upid: upid.clone(), since, stage: Stage::Requested, in_ha: true });
        upid
    }

    /// Starts the task that moves the guest.
    fn begin(&mut self, order: Order, in_ha: bool) -> String {
        let stage = match self.obstacle(&order) {
            Some(why) => Stage::Refused(why),
            None => Stage::Moving { restarts: self.stop_container(order.vmid) },
        };
        let upid = self.start_migration(order.vmid, &order.user).unwrap_or_default();
        let line = format!("starting migration of {} to node '{}'", self.title(order.vmid), order.target);
        self.tell(&upid, line);
        let since = self.now;
        self.moves.push(Move { order, upid: upid.clone(), since, stage, in_ha });
        upid
    }

    fn title(&self, vmid: Vmid) -> String {
        let kind = self.guests.get(&vmid).map(|guest| guest.kind);
        if kind == Some(GuestKind::Lxc) { format!("CT {vmid}") } else { format!("VM {vmid}") }
    }

    /// What Proxmox looks at in the task only.
    fn obstacle(&self, order: &Order) -> Option<String> {
        let guest = self.guests.get(&order.vmid)?;
        if guest.kind == GuestKind::Lxc {
            let live = guest.runs() && order.online;
            return live.then(|| "lxc live migration is currently not implemented".to_owned());
        }
        let devices = preconditions::local_resources(guest);
        if !devices.is_empty() {
            return Some(format!("can't migrate VM which uses local devices: {}", devices.join(", ")));
        }
        let local = guest.runs() && preconditions::has_local_disk(self, guest);
        (local && !order.with_local_disks)
            .then(|| "can't live migrate attached local disks without with-local-disks option".to_owned())
    }

    /// A container does not run while it is moved. Gives whether it did.
    fn stop_container(&mut self, vmid: Vmid) -> bool {
        let guest = self.guests.get_mut(&vmid).filter(|guest| guest.kind == GuestKind::Lxc && guest.runs());
        guest.map(|guest| guest.status = "stopped".into()).is_some()
    }

    fn run(&mut self, vmid: Vmid) {
        if let Some(guest) = self.guests.get_mut(&vmid) {
            guest.status = "running".into();
        }
    }

    /// A played task that has been ended by hand is played no further.
    pub(super) fn forget_move(&mut self, upid: &str) {
        let Some(place) = self.moves.iter().position(|going| going.upid == upid) else { return };
        let going = self.moves.remove(place);
        if matches!(going.stage, Stage::Moving { restarts: true }) {
            self.run(going.order.vmid);
        }
    }

    /// The next migration that comes to something, and when.
    fn next_event(&self) -> Option<(Timestamp, usize)> {
        let moves = self.moves.iter().enumerate();
        moves.filter_map(|(index, going)| Some((self.due(going)?, index))).min()
    }

    /// `None`: never, as things are.
    fn due(&self, going: &Move) -> Option<Timestamp> {
        let span = match going.stage {
            Stage::Requested => HA_REQUEST,
            Stage::Queued => HA_QUEUE,
            Stage::Refused(_) => REFUSAL,
            Stage::Moving { .. } => {
                let guest = self.guests.get(&going.order.vmid);
                // A task ends with its node, and nobody is left to say so.
                if guest.is_some_and(|guest| self.nodes.get(&guest.node).is_none_or(|node| !node.online)) {
                    return None;
                }
                let behaviour = self.behaviours.get(&going.order.vmid).cloned().unwrap_or_default();
                let usual = guest.map_or(SHORTEST, |guest| self.usual_span(guest));
                let usual = match behaviour.course {
                    Course::Hangs => return None,
                    Course::FailsHalfway(_) | Course::VanishesMidway | Course::Reused => usual / 2,
                    Course::Succeeds
                    | Course::ProblemsButMoves
                    | Course::HaDrops
                    | Course::LandsElsewhere(_) => usual,
                };
                behaviour.after.unwrap_or(usual)
            }
        };
        Some(going.since.after(span))
    }

    fn usual_span(&self, guest: &FakeGuest) -> Duration {
        let seconds = guest.max_mem.as_f64() / (self.migration_mb_s * 1e6);
        Duration::try_from_secs_f64(seconds).map_or(SHORTEST, |span| span.max(SHORTEST))
    }

    /// Why HA does not even take a request: it keeps the guest apart from one on the target.
    fn ha_objection(&self, going: &Move) -> Option<String> {
        let Order { vmid, target, .. } = &going.order;
        let early = matches!(going.stage, Stage::Requested);
        let blocked = early && !preconditions::peers_on(self, *vmid, target).is_empty();
        let kind = self.guests.get(vmid).map_or("vm", |guest| preconditions::ha_kind(guest));
        blocked.then(|| format!("command 'ha-manager migrate {kind}:{vmid} {target}' failed: exit code 2"))
    }

    /// Whether HA forgets a request. Nobody is told.
    fn is_dropped(&self, order: &Order) -> bool {
        let forgets = self.behaviours.get(&order.vmid).is_some_and(|b| b.course == Course::HaDrops);
        forgets || self.nodes.get(&order.target).is_none_or(|node| !node.online || node.maintenance)
    }

    fn end_request(&mut self, going: Move) {
        match self.ha_objection(&going) {
            Some(why) => self.end_task(&going.upid, &why, None),
            None => {
                self.end_task(&going.upid, "OK", None);
                self.moves.push(Move { stage: Stage::Queued, ..going });
            }
        }
    }

    /// The local resource manager does what was queued, as root and in its own way: VMs live, containers by restart.
    fn end_queue(&mut self, going: Move) {
        if self.is_dropped(&going.order) {
            return;
        }
        let Some(guest) = self.guests.get(&going.order.vmid) else { return };
        if guest.node == going.order.target {
            return;
        }
        let held = guest.lock.clone();
        let online = guest.kind == GuestKind::Qemu;
        let order = Order { user: "root@pam".into(), online, with_local_disks: false, ..going.order };
        let Some(lock) = held else {
            self.begin(order, true);
            return;
        };
        // Whoever holds the guest goes on holding it.
        let (kind, node) = (if online { "qmigrate" } else { "vzmigrate" }, guest.node.clone());
        let upid = self.add_task(&node, kind, &order.vmid.to_string(), &order.user);
        let what = if online { "VM" } else { "CT" };
        self.tell(&upid, format!("ERROR: migration aborted: {what} is locked ({lock})"));
        let ended = Some((self.now, "migration aborted".to_owned()));
        if let Some(task) = self.tasks.iter_mut().find(|task| task.upid == upid) {
            task.ended = ended;
        }
    }

    fn abort(&mut self, going: &Move, why: &str) {
        self.tell(&going.upid, format!("ERROR: migration aborted (duration 00:00:00): {why}"));
        self.end_task(&going.upid, "migration aborted", None);
    }

    fn end_move(&mut self, going: &Move, restarts: bool) {
        let Order { vmid, target, .. } = going.order.clone();
        let Behaviour { course, stays_locked, .. } = self.behaviours.get(&vmid).cloned().unwrap_or_default();
        let source = self.guests.get(&vmid).map(|guest| guest.node.clone());
        let online = |node: &NodeId| self.nodes.get(node).is_some_and(|node| node.online);
        let (status, moved_to) = match course {
            Course::FailsHalfway(ref text) => (text.clone(), None),
            Course::VanishesMidway | Course::Reused | Course::Hangs => ("migration aborted".into(), None),
            _ if !online(&target) => ("migration aborted".into(), None),
            Course::ProblemsButMoves => ("migration problems".into(), Some(target)),
            Course::LandsElsewhere(ref node) => ("OK".into(), Some(node.clone())),
            Course::Succeeds | Course::HaDrops => ("OK".into(), Some(target)),
        };
        self.end_task(&going.upid, &status, moved_to.as_ref());
        if let Some(guest) = self.guests.get_mut(&vmid) {
            guest.lock = stays_locked.then(|| "migrate".into());
        }
        if restarts {
            self.run(vmid);
        }
        match course {
            Course::VanishesMidway => self.remove(vmid),
            Course::Reused => self.replace(vmid),
            _ => {}
        }
        if let (Some(source), Some(node)) = (source, moved_to) {
            // Replication goes on the other way round.
            for job in self.replications.iter_mut().filter(|job| job.guest == vmid && job.target == node) {
                job.target.clone_from(&source);
            }
            self.changed.push(vmid);
        }
    }

    fn remove(&mut self, vmid: Vmid) {
        self.guests.remove(&vmid);
        self.ha_resources.remove(&vmid);
        self.replications.retain(|job| job.guest != vmid);
        self.changed.push(vmid);
    }

    /// Puts a stranger of the same number and kind in a guest's place.
    fn replace(&mut self, vmid: Vmid) {
        let Some((kind, node)) = self.guests.get(&vmid).map(|guest| (guest.kind, guest.node.clone())) else {
            return;
        };
        self.remove(vmid);
        let name = format!("stranger-{vmid}");
        let mut stranger = FakeGuest::new(kind, &name, &node, 1, Bytes::gib(1), "shared1");
        let number = vmid.get();
        let mac = format!("BC:24:11:FE:{:02X}:{:02X}", number >> 8 & 255, number & 255);
        let own = match kind {
            GuestKind::Qemu => vec![
                ("net0", format!("virtio={mac},bridge=vmbr0,firewall=1")),
                ("smbios1", format!("uuid=ffffffff-0000-4000-8000-{number:012}")),
                ("vmgenid", format!("ffffffff-0000-4000-9000-{number:012}")),
            ],
            GuestKind::Lxc => {
                vec![("net0", format!("name=eth0,bridge=vmbr0,hwaddr={mac},ip=dhcp,type=veth"))]
            }
        };
        stranger.options.extend(own.into_iter().map(|(key, value)| (key.to_owned(), json!(value))));
        self.add_guest(vmid, stranger);
    }
}
