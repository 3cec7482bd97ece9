//! What in a guest's configuration binds it to its node: `GET /nodes/{n}/{qemu|lxc}/{vmid}/config`.
//!
//! Proxmox can say this itself (preconditions of `migrate`), but only to a token with VM.Migrate, and not for
//! containers. Advice has to do with VM.Audit, so the rules are kept here, on the cautious side: what is not
//! known to move is a blocker.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use evenkeel_common::guest::GuestKind;
use evenkeel_common::id::{NodeId, Vmid};
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Bytes;
use serde::Deserialize;

use super::client::PveClient;
use super::error::PveError;
use super::lenient::{FromScalar, Scalar, properties, property_flag};
use super::storage::Storage;

/// Longest identity of a guest: a UUID has 36 characters.
const MAX_IDENTITY: usize = 40;
/// Network cards looked at for one; Proxmox allows 32.
const MAX_CARDS: u32 = 32;

/// Something that keeps a guest from moving. `key` is the option of its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocker {
    /// A device of this very node: hostpci, usb, serial, parallel, ivshmem, virtiofs, dev.
    LocalDevice {
        /// Option.
        key: String,
    },
    /// A mapped device: Proxmox may know one like it elsewhere, but a running guest can not take it along.
    MappedDevice {
        /// Option.
        key: String,
        /// Name of the mapping.
        mapping: String,
    },
    /// A disk on a storage that only this node has.
    LocalDisk {
        /// Option.
        key: String,
        /// The storage.
        storage: String,
    },
    /// A CD image on a storage that only this node has.
    LocalCdrom {
        /// Option.
        key: String,
        /// The storage.
        storage: String,
    },
    /// A storage that the token does not see, so whether it is shared is not known.
    UnknownStorage {
        /// Option.
        key: String,
        /// The storage.
        storage: String,
    },
    /// A device or folder of the node, given by path, not marked as shared.
    HostPath {
        /// Option.
        key: String,
    },
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LocalDevice { key } => write!(f, "{key} is a device of its node"),
            Self::MappedDevice { key, mapping } => write!(f, "{key} is a device mapped as {mapping}"),
            Self::LocalDisk { key, storage } => write!(f, "{key} is a disk on the local storage {storage}"),
            Self::LocalCdrom { key, storage } => {
                write!(f, "{key} is a CD image on the local storage {storage}")
            }
            Self::UnknownStorage { key, storage } => {
                write!(f, "{key} is on the storage {storage}, which the API token does not see")
            }
            Self::HostPath { key } => write!(f, "{key} is a path of its node"),
        }
    }
}

/// A guest's configuration as far as a move depends on it.
#[derive(Clone, Debug, PartialEq)]
pub struct GuestConfig {
    /// SHA-1 of the configuration file, by Proxmox.
    pub digest: String,
    /// CPUs; `None` for a container that may use all of its node.
    pub cores: Option<f64>,
    /// Memory it may use.
    pub memory: Option<Bytes>,
    /// CPU type of a VM, such as `host` or `x86-64-v2-AES`; `None` for containers and Proxmox' default.
    pub cpu_type: Option<String>,
    /// Number of disks, CD drives not counted.
    pub disks: u32,
    /// Size of those of them that only its node has; a disk whose size is not noted counts nothing.
    pub local_disk_bytes: Bytes,
    /// Storages that hold something of it.
    pub storages: BTreeSet<String>,
    /// What keeps it from moving.
    pub blockers: Vec<Blocker>,
    /// What tells it from another guest that had its number before, and stays with it when it moves or is changed:
    /// the UUID of a VM, else the address of the first network card. `None` where it has neither.
    pub identity: Option<String>,
    /// When a VM was created, where Proxmox noted it.
    pub created: Option<Timestamp>,
    /// When this was read, by the clock of the one who asked.
    pub read_at: Timestamp,
}

impl GuestConfig {
    /// A VM that sees its node's very CPU may only move to the same model.
    #[must_use]
    pub fn needs_same_cpu(&self) -> bool {
        self.cpu_type.as_deref() == Some("host")
    }
}

/// Options as Proxmox answers them: mostly scalars; the raw `lxc` entries of a container are a list of pairs.
pub(super) type Options = BTreeMap<String, OptionValue>;

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OptionValue {
    Scalar(Scalar),
    Pairs(Vec<Vec<String>>),
    Other(serde::de::IgnoredAny),
}

impl OptionValue {
    fn text(&self) -> Option<String> {
        match self {
            Self::Scalar(scalar) => String::from_scalar(scalar),
            Self::Pairs(_) | Self::Other(_) => None,
        }
    }
}

/// Reads a guest's configuration. `storages` of all nodes tell which are shared.
///
/// # Errors
/// As [`PveClient::get`]; [`PveError::NotFound`] when the guest is not on `node` any more.
pub async fn read(
    client: &PveClient,
    node: &NodeId,
    kind: GuestKind,
    vmid: Vmid,
    storages: &[Storage],
) -> Result<GuestConfig, PveError> {
    let options: Options = client.get(&format!("/nodes/{node}/{kind}/{vmid}/config"), &[]).await?;
    Ok(parse(kind, &options, node, storages))
}

/// `scsi12` -> ("scsi", true); the name and whether a number follows.
fn stem(key: &str) -> (&str, bool) {
    let name = key.trim_end_matches(|c: char| c.is_ascii_digit());
    (name, name.len() < key.len())
}

pub(super) fn parse(kind: GuestKind, options: &Options, node: &NodeId, storages: &[Storage]) -> GuestConfig {
    let text = |key: &str| options.get(key).and_then(OptionValue::text);
    let number = |key: &str| text(key).and_then(|t| f64::from_scalar(&Scalar::Text(t)));
    let cores = match kind {
        GuestKind::Qemu => Some(
            number("vcpus")
                .unwrap_or_else(|| number("cores").unwrap_or(1.0) * number("sockets").unwrap_or(1.0)),
        ),
        GuestKind::Lxc => number("cores").or_else(|| number("cpulimit").filter(|limit| *limit > 0.0)),
    };
    let mut config = GuestConfig {
        digest: text("digest").unwrap_or_default(),
        cores,
        memory: memory(text("memory").as_deref()),
        cpu_type: text("cpu").as_deref().filter(|_| kind == GuestKind::Qemu).and_then(cpu_type),
        disks: 0,
        local_disk_bytes: Bytes(0),
        storages: BTreeSet::new(),
        blockers: Vec::new(),
        identity: identity(&text),
        created: text("meta").as_deref().and_then(created),
        read_at: Timestamp::default(),
    };
    for (key, value) in options {
        match value {
            OptionValue::Scalar(_) => {
                let value = value.text().unwrap_or_default();
                match device(kind, key, &value) {
                    Some(blocker) => config.blockers.push(blocker),
                    None if is_volume(kind, key) => config.add_volume(key, &value, node, storages),
                    None => {}
                }
            }
            // Raw entries of a container: a mount or a device of the node, written by hand.
            OptionValue::Pairs(pairs) => {
                let bound =
                    |name: &&String| name.starts_with("lxc.mount.entry") || name.contains(".devices.");
                let names = pairs.iter().filter_map(|pair| pair.first()).filter(bound);
                config.blockers.extend(names.map(|name| Blocker::HostPath { key: name.clone() }));
            }
            OptionValue::Other(_) => {}
        }
    }
    config
}

fn identity(text: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let part = |option: &str, names: &[&str]| {
        let text = text(option)?;
        let (name, value) = properties(&text).find(|(name, _)| names.contains(name))?;
        let plain =
            value.len() <= MAX_IDENTITY && value.chars().all(|c| c.is_ascii_hexdigit() || "-:".contains(c));
        let kind = if name == "uuid" { "uuid" } else { "mac" };
        (plain && !value.is_empty()).then(|| format!("{kind} {}", value.to_ascii_lowercase()))
    };
    // The name of the card's model is the key of its address, for a VM; containers name it.
    let cards = ["hwaddr", "virtio", "e1000", "e1000e", "rtl8139", "vmxnet3", "macaddr"];
    part("smbios1", &["uuid"]).or_else(|| (0..MAX_CARDS).find_map(|n| part(&format!("net{n}"), &cards)))
}

/// `creation-qemu=9.0.2,ctime=1700000000`.
fn created(meta: &str) -> Option<Timestamp> {
    let (_, seconds) = properties(meta).find(|(key, _)| *key == "ctime")?;
    seconds.parse::<u32>().ok().map(|seconds| Timestamp::from_millis(i64::from(seconds) * 1000))
}

/// MiB, plain or as `current=2048`; 512 is what Proxmox gives a guest that says nothing.
fn memory(text: Option<&str>) -> Option<Bytes> {
    let text = text.unwrap_or("512");
    let (_, mib) = properties(text).find(|(key, _)| key.is_empty() || *key == "current")?;
    mib.parse().ok().map(Bytes::mib)
}

/// `32G`, `528K` or plain bytes, in powers of 1024; a fraction may stand before the unit.
fn size(text: &str) -> Option<Bytes> {
    let (number, unit) = match text.char_indices().next_back()? {
        (_, digit) if digit.is_ascii_digit() => (text, 1.0),
        (at, unit) => {
            let power = "KMGT".find(unit.to_ascii_uppercase())?;
            (&text[..at], [1024.0, 1_048_576.0, 1_073_741_824.0, 1_099_511_627_776.0][power])
        }
    };
    let number: f64 = number.parse().ok()?;
    (0.0..1e9).contains(&number).then(|| Bytes::from_f64(number * unit))
}

/// `host,flags=+aes` or `cputype=host`.
fn cpu_type(text: &str) -> Option<String> {
    properties(text).find(|(key, _)| key.is_empty() || *key == "cputype").map(|(_, name)| name.to_owned())
}

fn device(kind: GuestKind, key: &str, value: &str) -> Option<Blocker> {
    let local = || Some(Blocker::LocalDevice { key: key.to_owned() });
    let first = properties(value).next().map_or("", |(_, first)| first);
    match (kind, stem(key)) {
        (GuestKind::Qemu, ("hostusb" | "ivshmem", _)) => local(),
        (GuestKind::Qemu, ("usb", true)) if first == "spice" => None,
        (GuestKind::Qemu, ("serial", true)) if first == "socket" => None,
        (GuestKind::Qemu, ("hostpci" | "usb", true)) => {
            match properties(value).find(|(k, _)| *k == "mapping") {
                Some((_, mapping)) => {
                    Some(Blocker::MappedDevice { key: key.to_owned(), mapping: mapping.to_owned() })
                }
                None => local(),
            }
        }
        (GuestKind::Qemu, ("serial" | "parallel" | "virtiofs", true)) | (GuestKind::Lxc, ("dev", true)) => {
            local()
        }
        _ => None,
    }
}

fn is_volume(kind: GuestKind, key: &str) -> bool {
    match kind {
        GuestKind::Qemu => matches!(
            stem(key),
            ("ide" | "sata" | "scsi" | "virtio" | "efidisk" | "tpmstate" | "unused", true)
                | ("vmstate", false)
        ),
        GuestKind::Lxc => matches!(stem(key), ("mp" | "unused", true) | ("rootfs", false)),
    }
}

impl GuestConfig {
    fn add_volume(&mut self, key: &str, value: &str, node: &NodeId, storages: &[Storage]) {
        let file = properties(value).find(|(name, _)| matches!(*name, "" | "file" | "volume"));
        let volume = file.map_or("", |(_, volume)| volume);
        let cdrom = properties(value).any(|part| part == ("media", "cdrom"));
        if matches!(volume, "" | "none" | "cdrom") && cdrom {
            // "cdrom" is the node's own drive; an empty one holds nothing.
            if volume == "cdrom" {
                self.blockers.push(Blocker::HostPath { key: key.to_owned() });
            }
            return;
        }
        if !cdrom {
            self.disks += 1;
        }
        let key = key.to_owned();
        let Some((storage, name)) = volume.split_once(':').filter(|_| !volume.starts_with('/')) else {
            if !property_flag(value, "shared") {
                self.blockers.push(Blocker::HostPath { key });
            }
            return;
        };
        self.storages.insert(storage.to_owned());
        let storage = storage.to_owned();
        // A cloud-init drive is marked as CD but is a volume of the guest.
        let image = cdrom && !name.contains("cloudinit");
        let seen = storages.iter().find(|s| s.node == *node && s.id == storage);
        match seen {
            Some(seen) if seen.shared => {}
            Some(_) if image => self.blockers.push(Blocker::LocalCdrom { key, storage }),
            Some(_) => {
                self.blockers.push(Blocker::LocalDisk { key, storage });
                let size =
                    properties(value).find(|(name, _)| *name == "size").and_then(|(_, text)| size(text));
                self.local_disk_bytes = self.local_disk_bytes.saturating_add(size.unwrap_or_default());
            }
            None => self.blockers.push(Blocker::UnknownStorage { key, storage }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(kind: GuestKind, json: &str) -> GuestConfig {
        let node = NodeId::new("n1").unwrap();
        let storage = |id: &str, shared| Storage {
            node: node.clone(),
            id: id.into(),
            shared,
            available: true,
            kind: "dir".into(),
            content: vec![],
            size: None,
            used: None,
        };
        let storages = [storage("local", false), storage("ceph", true)];
        parse(kind, &serde_json::from_str(json).unwrap(), &node, &storages)
    }

    #[test]
    fn a_vm_on_shared_storage_has_no_blocker() {
        let config = config(
            GuestKind::Qemu,
            r#"{"name":"web","cores":2,"sockets":"2","memory":"4096","cpu":"x86-64-v2-AES,flags=+aes","digest":"ab",
                "scsi0":"ceph:vm-110-disk-0,size=32G","efidisk0":"file=ceph:vm-110-disk-1,size=4M","ide2":"none,media=cdrom",
                "net0":"virtio=BC:24:11:00:00:01,bridge=vmbr0","serial0":"socket","usb0":"spice,usb3=1","scsihw":"virtio-scsi-single",
                "boot":"order=scsi0;ide2","numa":1,"vga":"serial0","meta":"creation-qemu=10.1.2"}"#,
        );
        assert_eq!(config.blockers, []);
        assert_eq!((config.cores, config.memory, config.disks), (Some(4.0), Some(Bytes::gib(4)), 2));
        assert_eq!((config.cpu_type.as_deref(), config.needs_same_cpu()), (Some("x86-64-v2-AES"), false));
        assert_eq!(config.storages, BTreeSet::from(["ceph".to_owned()]));
    }

    #[test]
    fn everything_that_binds_a_vm_is_named() {
        for (option, expected) in [
            (r#""hostpci0":"0000:01:00.0,pcie=1""#, "hostpci0 is a device of its node"),
            (r#""hostpci1":"mapping=gpu,pcie=1""#, "hostpci1 is a device mapped as gpu"),
            (r#""usb1":"host=1234:abcd""#, "usb1 is a device of its node"),
            (r#""serial1":"/dev/ttyS0""#, "serial1 is a device of its node"),
            (r#""parallel0":"/dev/parport0""#, "parallel0 is a device of its node"),
            (r#""virtiofs0":"dirid=share""#, "virtiofs0 is a device of its node"),
            (r#""ivshmem":"size=32""#, "ivshmem is a device of its node"),
            (
                r#""scsi1":"local:110/vm-110-disk-0.qcow2,size=8G""#,
                "scsi1 is a disk on the local storage local",
            ),
            (r#""unused0":"local:110/vm-110-disk-7.raw""#, "unused0 is a disk on the local storage local"),
            (
                r#""tpmstate0":"local:110/vm-110-disk-2.raw""#,
                "tpmstate0 is a disk on the local storage local",
            ),
            (
                r#""ide2":"local:iso/debian.iso,media=cdrom,size=600M""#,
                "ide2 is a CD image on the local storage local",
            ),
            (r#""ide0":"local:vm-110-cloudinit,media=cdrom""#, "ide0 is a disk on the local storage local"),
            (r#""ide2":"cdrom,media=cdrom""#, "ide2 is a path of its node"),
            (r#""virtio3":"/dev/disk/by-id/ata-X,size=1T""#, "virtio3 is a path of its node"),
            (r#""scsi2":"secret:vm-110-disk-3,size=1G""#, "scsi2 is on the storage secret, which"),
        ] {
            let config = config(GuestKind::Qemu, &format!("{{{option}}}"));
            assert_eq!(config.blockers.len(), 1, "{option}");
            assert!(config.blockers[0].to_string().starts_with(expected), "{}", config.blockers[0]);
        }
        assert!(config(GuestKind::Qemu, r#"{"cpu":"cputype=host,hidden=1"}"#).needs_same_cpu());
    }

    #[test]
    fn containers_are_bound_by_mounts_and_devices() {
        let ct = config(
            GuestKind::Lxc,
            r#"{"rootfs":"ceph:vm-300-disk-0,size=8G","mp0":"ceph:vm-300-disk-1,mp=/data","mp1":"/srv/pool,mp=/pool,shared=1",
                "mp2":"/srv/own,mp=/own","dev0":"/dev/dri/renderD128,gid=104","memory":512,"swap":0,"unprivileged":1,
                "lxc":[["lxc.mount.entry","/a b none bind"],["lxc.apparmor.profile","x"]],"net0":"name=eth0,bridge=vmbr0"}"#,
        );
        let blockers: Vec<String> = ct.blockers.iter().map(Blocker::to_string).collect();
        let expected = [
            "dev0 is a device of its node",
            "lxc.mount.entry is a path of its node",
            "mp2 is a path of its node",
        ];
        assert_eq!(blockers, expected);
        assert_eq!((ct.cores, ct.memory, ct.disks), (None, Some(Bytes::mib(512)), 4));
        assert_eq!(config(GuestKind::Lxc, r#"{"cores":"2"}"#).cores, Some(2.0));
    }

    #[test]
    fn a_guest_is_told_from_its_predecessor() {
        let of = |kind, json| config(kind, json).identity;
        let vm =
            r#"{"smbios1":"uuid=0A00-4b,manufacturer=x","net0":"virtio=BC:24:11:00:00:01,bridge=vmbr0"}"#;
        assert_eq!(of(GuestKind::Qemu, vm).as_deref(), Some("uuid 0a00-4b"));
        let cards = r#"{"net1":"e1000=BC:24:11:00:00:01,bridge=vmbr0"}"#;
        assert_eq!(of(GuestKind::Qemu, cards).as_deref(), Some("mac bc:24:11:00:00:01"));
        let ct = r#"{"net0":"name=eth0,hwaddr=BC:24:11:00:00:02,type=veth"}"#;
        assert_eq!(of(GuestKind::Lxc, ct).as_deref(), Some("mac bc:24:11:00:00:02"));
        for nothing in
            [r#"{"smbios1":"uuid=<b>"}"#, r#"{"smbios1":"uuid="}"#, r#"{"net0":"name=eth0"}"#, "{}"]
        {
            assert_eq!(of(GuestKind::Lxc, nothing), None, "{nothing}");
        }
        let created = |meta: &str| config(GuestKind::Qemu, &format!(r#"{{"meta":"{meta}"}}"#)).created;
        assert_eq!(
            created("creation-qemu=9.0.2,ctime=1700000000").map(Timestamp::as_secs),
            Some(1_700_000_000)
        );
        assert_eq!((created("ctime=soon"), created("ctime=-1"), created("x")), (None, None, None));
    }

    #[test]
    fn only_what_is_on_storage_of_its_node_has_to_cross_the_network() {
        let of = |disks: &str| config(GuestKind::Qemu, disks).local_disk_bytes;
        let mixed = r#"{"scsi0":"ceph:vm-1-disk-0,size=32G","scsi1":"local:1/a.raw,size=8G","efidisk0":"local:1/b,size=528K"}"#;
        assert_eq!(of(mixed), Bytes((8 << 30) + (528 << 10)));
        for (noted, bytes) in [("1.5T", 3 << 39), ("512", 512), ("4m", 4 << 20)] {
            assert_eq!(of(&format!(r#"{{"scsi1":"local:1/a,size={noted}"}}"#)), Bytes(bytes), "{noted}");
        }
        for unknown in [",size=G", ",size=", ",size=-1G", ",size=1e99G", ",size=9X", ",size=é", ""] {
            assert_eq!(of(&format!(r#"{{"scsi1":"local:1/a{unknown}"}}"#)), Bytes(0), "{unknown}");
        }
    }

    #[test]
    fn memory_is_read_in_every_form() {
        for (text, mib) in [("2048", 2048), ("current=2048", 2048), ("current=64,max=128", 64)] {
            assert_eq!(memory(Some(text)), Some(Bytes::mib(mib)), "{text}");
        }
        assert_eq!((memory(None), memory(Some("lots"))), (Some(Bytes::mib(512)), None));
    }
}
