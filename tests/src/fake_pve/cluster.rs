//! The cluster behind the fake API: plain data that a test or the lab changes while the server answers from it.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Bytes;
use serde_json::Value;

use super::fault::{Armed, Fault};

/// Which Proxmox VE the fake plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PveVersion {
    /// 8.4: HA groups, no HA rules, options as property strings, fewer figures.
    V8,
    /// 9.2: HA rules, no HA groups.
    V9,
}

/// A node.
#[derive(Clone, Debug)]
pub struct FakeNode {
    /// In the cluster's membership. While it is not, it has no figures and its API endpoint drops connections.
    pub online: bool,
    /// In maintenance.
    pub maintenance: bool,
    /// Logical CPUs.
    pub max_cpu: u32,
    /// Share of them in use, 0 to 1.
    pub cpu: f64,
    /// Memory.
    pub max_mem: Bytes,
    /// Memory in use.
    pub mem: Bytes,
    /// Load averages.
    pub load: [f64; 3],
    /// When it booted.
    pub booted_at: Timestamp,
    /// CPU model.
    pub cpu_model: String,
    /// Fingerprint of its API certificate, once a server plays it.
    pub ssl_fingerprint: Option<String>,
}

/// From when on something was recorded, and a share of CPUs at a second since 1970.
pub type Recorded = (Timestamp, fn(i64) -> f64);

/// A guest.
#[derive(Clone, Debug)]
pub struct FakeGuest {
    /// Kind.
    pub kind: GuestKind,
    /// Name.
    pub name: String,
    /// Where it is.
    pub node: NodeId,
    /// `running`, `stopped`, `paused`, ...
    pub status: String,
    /// Whether it is a template.
    pub template: bool,
    /// Lock, such as `backup`.
    pub lock: Option<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// Pool.
    pub pool: Option<String>,
    /// CPUs.
    pub max_cpu: u32,
    /// Share of them in use, 0 to 1.
    pub cpu: f64,
    /// Memory it may use.
    pub max_mem: Bytes,
    /// Memory it uses.
    pub mem: Bytes,
    /// Size of its disks.
    pub max_disk: Bytes,
    /// When it was started where it is.
    pub started_at: Timestamp,
    /// Bytes received, sent, read and written since then.
    pub traffic: [u64; 4],
    /// What was recorded of its CPUs; `None`: what they do now, since it was started.
    pub recorded: Option<Recorded>,
    /// More options of its configuration (`hostpci0`, `cpu`, ...), overriding those made from the fields above.
    pub options: BTreeMap<String, Value>,
}

impl FakeGuest {
    /// A running guest with one disk on `storage`.
    #[must_use]
    pub fn new(kind: GuestKind, name: &str, node: &NodeId, cores: u32, memory: Bytes, storage: &str) -> Self {
        let disk = match kind {
            GuestKind::Qemu => "scsi0",
            GuestKind::Lxc => "rootfs",
        };
        let volume = Value::from(format!("{storage}:{name}-disk-0,size=32G"));
        Self {
            kind,
            name: name.to_owned(),
            node: node.clone(),
            status: "running".into(),
            template: false,
            lock: None,
            tags: Vec::new(),
            pool: None,
            max_cpu: cores,
            cpu: 0.05,
            max_mem: memory,
            mem: Bytes(memory.0 / 2),
            max_disk: Bytes::gib(32),
            started_at: Timestamp::default(),
            traffic: [0; 4],
            recorded: None,
            options: BTreeMap::from([(disk.to_owned(), volume)]),
        }
    }

    /// Whether it runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.status != "stopped"
    }
}

/// A storage of the cluster.
#[derive(Clone, Debug)]
pub struct FakeStorage {
    /// Whether all its nodes see the same content.
    pub shared: bool,
    /// Type: dir, rbd, ...
    pub kind: String,
    /// Content types, separated by commas.
    pub content: String,
    /// Nodes that have it; `None` = all.
    pub nodes: Option<BTreeSet<NodeId>>,
    /// Size.
    pub size: Bytes,
    /// In use.
    pub used: Bytes,
}

impl FakeStorage {
    /// Whether `node` has it.
    #[must_use]
    pub fn is_on(&self, node: &NodeId) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| nodes.contains(node))
    }
}

/// A guest in HA.
#[derive(Clone, Debug)]
pub struct FakeHaResource {
    /// State: started, stopped, error, ...
    pub state: String,
    /// Group (PVE 8 only).
    pub group: Option<String>,
}

/// An HA rule (PVE 9).
#[derive(Clone, Debug)]
pub struct FakeRule {
    /// Name.
    pub id: String,
    /// Guests.
    pub guests: Vec<Vmid>,
    /// What it says.
    pub kind: FakeRuleKind,
}

/// What an HA rule says.
#[derive(Clone, Debug)]
pub enum FakeRuleKind {
    /// `nodes` as Proxmox writes them: `pve1,pve2:5`.
    NodeAffinity {
        /// Nodes with priorities.
        nodes: String,
        /// Whether nothing else will do.
        strict: bool,
    },
    /// Together.
    Positive,
    /// Apart.
    Negative,
}

/// An HA group (PVE 8).
#[derive(Clone, Debug)]
pub struct FakeGroup {
    /// Name.
    pub id: String,
    /// Nodes with priorities.
    pub nodes: String,
    /// Whether nothing else will do.
    pub restricted: bool,
    /// Whether guests stay when a better node returns.
    pub nofailback: bool,
}

/// A task.
#[derive(Clone, Debug)]
pub struct FakeTask {
    /// Its name.
    pub upid: String,
    /// Where it runs.
    pub node: NodeId,
    /// Type.
    pub kind: String,
    /// What it works on.
    pub id: String,
    /// `user@realm` or `user@realm!tokenid`.
    pub user: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When and how it ended.
    pub ended: Option<(Timestamp, String)>,
}

/// An API token with its privileges by path. A deeper path replaces what a higher one gives.
#[derive(Clone, Debug)]
pub struct FakeToken {
    /// `user@realm!tokenid`.
    pub id: String,
    /// Its value.
    pub secret: String,
    /// Privileges.
    pub acl: BTreeMap<String, BTreeSet<String>>,
}

impl FakeToken {
    /// A token with no privilege.
    #[must_use]
    pub fn new(id: &str, secret: &str) -> Self {
        Self { id: id.into(), secret: secret.into(), acl: BTreeMap::new() }
    }

    /// With these privileges (separated by blanks) on `path`.
    #[must_use]
    pub fn with(mut self, path: &str, privileges: &str) -> Self {
        self.acl.insert(path.into(), privileges.split(' ').map(str::to_owned).collect());
        self
    }

    /// Privileges on `path`: those of the deepest path that has any.
    #[must_use]
    pub fn on(&self, path: &str) -> BTreeSet<String> {
        let mut path = path;
        loop {
            if let Some(found) = self.acl.get(if path.is_empty() { "/" } else { path }) {
                return found.clone();
            }
            match path.rfind('/') {
                Some(end) if !path.is_empty() && path != "/" => path = &path[..end],
                _ => return BTreeSet::new(),
            }
        }
    }
}

/// All privileges that reading needs.
pub const AUDIT: &str = "VM.Audit Sys.Audit Datastore.Audit Pool.Audit";

/// A simulated Proxmox cluster. All fields may be changed at any time; answers follow at once.
#[derive(Clone, Debug)]
pub struct FakeCluster {
    /// Name; `None` plays a lone node.
    pub name: Option<String>,
    /// What it plays.
    pub version: PveVersion,
    /// Whether a majority is there.
    pub quorate: bool,
    /// Its time; figures such as uptimes follow from it. The driver moves it on.
    pub now: Timestamp,
    /// Seconds that its local time is ahead of UTC.
    pub utc_offset_s: i32,
    /// Nodes.
    pub nodes: BTreeMap<NodeId, FakeNode>,
    /// Guests.
    pub guests: BTreeMap<Vmid, FakeGuest>,
    /// Storages.
    pub storages: BTreeMap<String, FakeStorage>,
    /// Guests in HA.
    pub ha_resources: BTreeMap<Vmid, FakeHaResource>,
    /// HA rules.
    pub ha_rules: Vec<FakeRule>,
    /// HA groups.
    pub ha_groups: Vec<FakeGroup>,
    /// Option `crs` of the datacenter.
    pub crs: BTreeMap<String, Value>,
    /// Tasks, oldest first.
    pub tasks: Vec<FakeTask>,
    /// Tokens. The first is what `FakePve::token` hands out.
    pub tokens: Vec<FakeToken>,
    /// Requests answered so far, by path.
    pub requests: BTreeMap<String, u64>,
    pub(super) faults: Vec<Armed>,
    task_number: u32,
}

impl FakeCluster {
    /// A quorate cluster of `nodes` equal nodes `pve1`, `pve2`, ... (16 CPUs, 64 GiB each) without guests, with
    /// the storages `local` and `shared1` and the token `evenkeel@pve!ro` that may read everything.
    ///
    /// # Panics
    /// Never: the names made here are valid.
    #[must_use]
    pub fn new(name: &str, nodes: u32, now: Timestamp) -> Self {
        let node = FakeNode {
            online: true,
            maintenance: false,
            max_cpu: 16,
            cpu: 0.1,
            max_mem: Bytes::gib(64),
            mem: Bytes::gib(8),
            load: [1.0, 0.9, 0.8],
            booted_at: now.before(std::time::Duration::from_hours(24)),
            cpu_model: "AMD EPYC 7313 16-Core Processor".into(),
            ssl_fingerprint: None,
        };
        let storage = |shared, content: &str| FakeStorage {
            shared,
            kind: "dir".into(),
            content: content.into(),
            nodes: None,
            size: Bytes::gib(4096),
            used: Bytes::gib(1024),
        };
        let names = (1..=nodes).filter_map(|number| NodeId::new(format!("pve{number}")).ok());
        Self {
            name: Some(name.to_owned()),
            version: PveVersion::V9,
            quorate: true,
            now,
            utc_offset_s: 3600,
            nodes: names.map(|name| (name, node.clone())).collect(),
            guests: BTreeMap::new(),
            storages: BTreeMap::from([
                ("local".to_owned(), storage(false, "backup,images,iso,rootdir,vztmpl")),
                ("shared1".to_owned(), storage(true, "images,rootdir")),
            ]),
            ha_resources: BTreeMap::new(),
            ha_rules: Vec::new(),
            ha_groups: Vec::new(),
            crs: BTreeMap::new(),
            tasks: Vec::new(),
            tokens: vec![
                FakeToken::new("evenkeel@pve!ro", "5b1c9a52-0000-4000-8000-00000000feed").with("/", AUDIT),
            ],
            requests: BTreeMap::new(),
            faults: Vec::new(),
            task_number: 0,
        }
    }

    /// Adds a guest, started now.
    pub fn add_guest(&mut self, vmid: Vmid, guest: FakeGuest) {
        self.guests.insert(vmid, FakeGuest { started_at: self.now, ..guest });
    }

    /// Takes a node out of the membership, or back in. Its guests stay where they are, without figures.
    pub fn set_online(&mut self, node: &NodeId, online: bool) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.online = online;
        }
    }

    /// Starts a task by `user` on the guest's node that migrates it, and locks the guest. Gives its UPID;
    /// `None` when there is no such guest.
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

    /// Ends a task as `status` (`OK` or an error text). For a migration, `moved_to` is where the guest is now,
    /// whatever the status says.
    pub fn end_task(&mut self, upid: &str, status: &str, moved_to: Option<&NodeId>) {
        let Some(task) = self.tasks.iter_mut().find(|task| task.upid == upid) else { return };
        task.ended = Some((self.now, status.to_owned()));
        let guest = task.id.parse().ok().and_then(|vmid: Vmid| self.guests.get_mut(&vmid));
        if let Some(guest) = guest.filter(|_| task.kind.ends_with("migrate")) {
            guest.lock = None;
            if let Some(node) = moved_to {
                guest.node = node.clone();
                guest.started_at = self.now;
                guest.traffic = [0; 4];
            }
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
        });
        upid
    }

    /// Makes every request whose path (below `/api2/json`) starts with `prefix` fail, until [`Self::heal`].
    pub fn fail(&mut self, prefix: &str, fault: Fault) {
        self.faults.push(Armed { prefix: prefix.to_owned(), fault, left: None });
    }

    /// The same for the next `times` requests only.
    pub fn fail_times(&mut self, prefix: &str, fault: Fault, times: u32) {
        self.faults.push(Armed { prefix: prefix.to_owned(), fault, left: Some(times) });
    }

    /// Ends all faults.
    pub fn heal(&mut self) {
        self.faults.clear();
    }

    /// Takes the fault for a request to `path`, if one is armed.
    pub(super) fn strike(&mut self, path: &str) -> Option<Fault> {
        let armed =
            self.faults.iter_mut().find(|armed| armed.left != Some(0) && path.starts_with(&armed.prefix))?;
        armed.left = armed.left.map(|left| left - 1);
        Some(armed.fault.clone())
    }

    /// Whether HA is in use, which is when nodes and guests show a state in it.
    #[must_use]
    pub fn has_ha(&self) -> bool {
        !self.ha_resources.is_empty()
    }
}
