//! The cluster behind the fake API: plain data that a test or the lab changes while the server answers from it.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Bytes;
use serde_json::Value;

use super::behaviour::Behaviour;
use super::fault::Armed;
use super::migration::Move;
use super::post::FakePost;
pub use super::token::{AUDIT, FakeToken};

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
    /// Lines of its log.
    pub log: Vec<String>,
}

/// A replication job. Its source is where the guest is.
#[derive(Clone, Debug)]
pub struct FakeReplication {
    /// Guest.
    pub guest: Vmid,
    /// Number among the guest's jobs.
    pub number: u32,
    /// Node that gets the copy.
    pub target: NodeId,
    /// When it runs: `*/15`.
    pub schedule: String,
}

/// A simulated Proxmox cluster. All fields may be changed at any time; answers follow at once.
#[derive(Clone, Debug)]
pub struct FakeCluster {
    /// Name; `None` plays a lone node.
    pub name: Option<String>,
    /// What it plays.
    pub version: PveVersion,
    /// Whether a majority is there.
    pub quorate: bool,
    /// Its time; figures such as uptimes follow from it. The driver moves it on, by `advance` where migrations are
    /// to go on as well.
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
    /// Tokens. The first is what `FakePve::token` hands out, the second what `FakePve::exec_token` does.
    pub tokens: Vec<FakeToken>,
    /// Replication jobs.
    pub replications: Vec<FakeReplication>,
    /// How the migrations of guests go that are not to go well. Looked at whenever something is to become of one.
    pub behaviours: BTreeMap<Vmid, Behaviour>,
    /// How fast memory is copied by a migration, in 10^6 bytes a second.
    pub migration_mb_s: f64,
    /// Every order to migrate a guest that reached a server, in order.
    pub posts: Vec<FakePost>,
    /// Requests answered so far, by path.
    pub requests: BTreeMap<String, u64>,
    pub(super) faults: Vec<Armed>,
    pub(super) task_number: u32,
    pub(super) moves: Vec<Move>,
    pub(super) changed: Vec<Vmid>,
}

impl FakeCluster {
    /// A quorate cluster of `nodes` equal nodes `pve1`, `pve2`, ... (16 CPUs, 64 GiB each) without guests, with
    /// the storages `local` and `shared1`, the token `evenkeel@pve!ro` that may read everything, and the token
    /// `evenkeel@pve!rw` that may migrate as well.
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
                FakeToken::new("evenkeel@pve!rw", "c7d20e61-0000-4000-8000-00000000beef")
                    .with("/", &format!("{AUDIT} VM.Migrate")),
            ],
            replications: Vec::new(),
            behaviours: BTreeMap::new(),
            migration_mb_s: 120.0,
            posts: Vec::new(),
            requests: BTreeMap::new(),
            faults: Vec::new(),
            task_number: 0,
            moves: Vec::new(),
            changed: Vec::new(),
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

    /// Whether HA is in use, which is when nodes and guests show a state in it.
    #[must_use]
    pub fn has_ha(&self) -> bool {
        !self.ha_resources.is_empty()
    }
}
