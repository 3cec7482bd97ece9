//! Which guests run here: discovery and lifecycle, without asking the Proxmox API.
//!
//! At each reading the directories `qemu.slice` and `lxc` of the cgroup tree are listed; a guest's cgroup
//! has a number of its own (its inode), so that a restart shows even when the name stays. Less often, pid
//! files are looked at for guests outside the slice, each guest's process for a change of identity, and its
//! configuration for new facts.
//!
//! | what happens | how it shows | what follows |
//! |---|---|---|
//! | start, migration in | a scope with a live process | a new life; rates from the second reading |
//! | a migration that is still arriving | process waits with `-incoming`, configuration is elsewhere | not listed yet |
//! | stop, migration out | the scope is gone or empty | the life ends, its series are retired |
//! | restart, vmid used again | another inode, or another process | the life ends, another begins |

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_common::guest::{GuestFacts, GuestKind};
use evenkeel_common::id::Vmid;
use evenkeel_common::time::Timestamp;

use super::cpu;
use super::file::{CollectError, Files, TABLE_LIMIT};
use super::filesystem;
use super::guest_cgroup::{BlockDevices, GuestCgroup};
use super::guest_life::{Life, collector, config_folder, config_path};
use super::guest_lxc;
use super::guest_net::GuestNic;
use super::guest_qemu::{self, Search};
use super::process::{self, QemuArgs};
use super::round::Round;

/// Time between two looks at what changes rarely.
const SLOW: Duration = Duration::from_secs(10);

/// Finds and samples the guests.
#[derive(Debug)]
pub(crate) struct Guests {
    root: PathBuf,
    limit: usize,
    cgroups: Option<PathBuf>,
    guests: BTreeMap<(Vmid, GuestKind), Guest>,
    found: Vec<Found>,
    devices: BlockDevices,
    host: Host,
    slow_at: Duration,
    told: bool,
}

/// A place where a guest may be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    vmid: Vmid,
    kind: GuestKind,
    /// Inode of its cgroup; 0 for a pid file without one.
    inode: u64,
}

/// A guest's place, and its life if it has one.
#[derive(Debug)]
struct Guest {
    found: Found,
    cgroup: Option<GuestCgroup>,
    seen: u64,
    life: Option<Life>,
}

/// What is needed of `/proc/stat` when a guest starts; read at most once a reading.
#[derive(Debug, Default)]
struct Host {
    round: u64,
    boot: Option<Timestamp>,
    cpus: u32,
}

impl Guests {
    /// Watches at most `limit` guests.
    pub(crate) fn new(root: &Path, limit: usize) -> Self {
        Self {
            root: root.to_owned(),
            limit,
            cgroups: None,
            guests: BTreeMap::new(),
            found: Vec::new(),
            devices: BlockDevices::new(root),
            host: Host::default(),
            slow_at: Duration::ZERO,
            told: false,
        }
    }

    /// Samples all guests. `nics`: the NICs of all guests, ascending. Gives the list of running guests at
    /// first and whenever it or a fact in it changed.
    pub(crate) fn collect(&mut self, round: &mut Round<'_>, nics: &[GuestNic]) -> Option<Vec<GuestFacts>> {
        let slow = round.now.uptime >= self.slow_at;
        if slow {
            self.slow_at = round.now.uptime + SLOW;
        }
        self.look_around(round, slow);
        let mut changed = !std::mem::replace(&mut self.told, true);
        changed |= self.settle(round, slow);
        for guest in self.guests.values_mut() {
            changed |= guest.live(round, &self.root, &mut self.host, slow);
            if let Some(life) = &mut guest.life
                && !life.sample(round, guest.cgroup.as_mut(), &mut self.devices, nics)
            {
                changed |= guest.end(round);
            }
        }
        changed.then(|| self.running().map(|life| life.facts.clone()).collect())
    }

    /// The lives of the guests that run now.
    pub(super) fn running(&self) -> impl Iterator<Item = &Life> {
        self.guests.values().filter_map(|guest| guest.life.as_ref())
    }

    /// Where cgroup v2 is mounted: at `/sys/fs/cgroup`, or below it in a hybrid tree.
    pub(super) fn cgroup_root(&mut self, files: &mut Files) -> Option<&Path> {
        if self.cgroups.is_none() {
            let mounts = files.read_once(&self.root.join("proc/mounts"), TABLE_LIMIT).ok().flatten();
            let point = mounts.and_then(|text| filesystem::mount_point_of(text, b"cgroup2"));
            self.cgroups = point.map(|point| filesystem::under(&self.root, &point));
        }
        self.cgroups.as_deref()
    }

    /// Lists the places where guests may be.
    fn look_around(&mut self, round: &mut Round<'_>, slow: bool) {
        self.found.clear();
        if slow {
            self.cgroup_root(round.files);
        }
        let mut places = Vec::with_capacity(3);
        if let Some(cgroups) = &self.cgroups {
            places.push((
                cgroups.join("qemu.slice"),
                GuestKind::Qemu,
                guest_qemu::parse_scope as fn(&[u8]) -> _,
                true,
            ));
            places.push((cgroups.join("lxc"), GuestKind::Lxc, guest_qemu::parse_vmid, true));
        }
        if slow {
            places.push((
                self.root.join(guest_qemu::PIDFILES),
                GuestKind::Qemu,
                guest_qemu::parse_pidfile,
                false,
            ));
        }
        for (path, kind, parse, is_cgroup) in places {
            let Err(source) = list(&path, kind, parse, is_cgroup, &mut self.found) else { continue };
            if !is_cgroup {
                continue; // Pid files are an addition; some versions show them to root only.
            }
            // Which guests of this kind run is unknown now; those known are not gone for that.
            self.guests
                .values_mut()
                .filter(|guest| guest.found.kind == kind)
                .for_each(|g| g.seen = round.now.round);
            round.out.fault(collector(kind), CollectError::Read { path, kind: source.kind(), source });
        }
    }

    /// Matches what was found with what is known: new places are added, lost ones end. True when a life ended.
    fn settle(&mut self, round: &mut Round<'_>, slow: bool) -> bool {
        let mut changed = false;
        for &found in &self.found {
            let key = (found.vmid, found.kind);
            if let Some(guest) = self.guests.get_mut(&key) {
                let has_cgroup = guest.seen == round.now.round && guest.found.inode != 0;
                if guest.found == found || (found.inode == 0 && has_cgroup) {
                    guest.seen = round.now.round;
                    continue;
                }
                changed |= guest.end(round);
            } else if self.guests.len() >= self.limit {
                let error = CollectError::TooMany { what: "guests", limit: self.limit };
                round.out.fault(collector(found.kind), error);
                continue;
            }
            self.guests.insert(key, Guest::new(found, self.cgroups.as_deref(), round.now.round));
        }
        self.guests.retain(|_, guest| {
            // Pid files are listed only now and then; in between, the process tells.
            let stays = guest.seen == round.now.round || (guest.found.inode == 0 && !slow);
            if !stays {
                changed |= guest.end(round);
            }
            stays
        });
        changed
    }
}

impl Guest {
    fn new(found: Found, cgroups: Option<&Path>, round: u64) -> Self {
        let dir = cgroups.filter(|_| found.inode != 0).map(|root| match found.kind {
            GuestKind::Qemu => root.join(format!("qemu.slice/{}.scope", found.vmid)),
            GuestKind::Lxc => root.join(format!("lxc/{}", found.vmid)),
        });
        Self { found, cgroup: dir.map(GuestCgroup::new), seen: round, life: None }
    }

    /// Brings its life up to date; true when the list of running guests or a fact in it changed.
    fn live(&mut self, round: &mut Round<'_>, root: &Path, host: &mut Host, slow: bool) -> bool {
        let before = self.life.is_some();
        match self.try_live(round, root, host, slow) {
            Ok(changed) => changed,
            Err(error) => {
                round.out.fault(collector(self.found.kind), error);
                before != self.life.is_some()
            }
        }
    }

    fn try_live(
        &mut self,
        round: &mut Round<'_>,
        root: &Path,
        host: &mut Host,
        slow: bool,
    ) -> Result<bool, CollectError> {
        let now = round.now;
        let mut changed = false;
        if let Some(cgroup) = &mut self.cgroup
            && !cgroup.is_populated(round.files, now.uptime)?
        {
            return Ok(self.end(round));
        }
        let due = self.life.as_ref().is_some_and(|life| now.uptime >= life.check_at);
        if due {
            let goes_on =
                self.life.as_ref().is_some_and(|life| life.goes_on(round.files, root).unwrap_or(true));
            if !goes_on {
                changed |= self.end(round);
            }
        }
        // A pid file without a process is looked at only as often as the pid files are listed.
        if self.life.is_none() && (self.cgroup.is_some() || slow) {
            self.life = self.begin(round, root, host)?;
            changed |= self.life.is_some();
        }
        if let Some(life) = self.life.as_mut().filter(|life| now.uptime >= life.check_at) {
            // Spread over the interval, so that the guests are not all looked at in the same tick.
            let spread = Duration::from_secs(u64::from(self.found.vmid.get()) % SLOW.as_secs());
            life.check_at = now.uptime + if due { SLOW } else { SLOW + spread };
            host.read(round.files, root, now.round);
            changed |= life.read_config(round.files, host.cpus);
        }
        Ok(changed)
    }

    /// A new life, if its process runs here.
    fn begin(
        &self,
        round: &mut Round<'_>,
        root: &Path,
        host: &mut Host,
    ) -> Result<Option<Life>, CollectError> {
        let (vmid, kind, files) = (self.found.vmid, self.found.kind, &mut *round.files);
        let dir = self.cgroup.as_ref().map(|cgroup| cgroup.dir.as_path());
        let (process, args) = match (kind, dir) {
            (GuestKind::Qemu, dir) => match guest_qemu::find(files, root, vmid, dir)? {
                Search::Found(_, args) if args.incoming && is_elsewhere(root, vmid) => return Ok(None),
                Search::Found(process, args) => (Some(process), args),
                Search::Hidden => (None, QemuArgs::default()),
                Search::Nothing => return Ok(None),
            },
            (GuestKind::Lxc, Some(dir)) => (guest_lxc::find(files, root, dir)?, QemuArgs::default()),
            (GuestKind::Lxc, None) => return Ok(None),
        };
        host.read(files, root, round.now.round);
        let started = process.zip(host.boot).map(|(process, boot)| boot.after(process.since_boot()));
        Ok(Some(Life::new(root, vmid, kind, started.unwrap_or(round.now.at), process, args)))
    }

    /// Ends its life; true when it had one.
    fn end(&mut self, round: &mut Round<'_>) -> bool {
        self.life.take().map(|life| life.end(&mut round.out)).is_some()
    }
}

impl Host {
    fn read(&mut self, files: &mut Files, root: &Path, round: u64) {
        if self.round == round {
            return;
        }
        self.round = round;
        if let Ok(Some(text)) = files.read_once(&root.join("proc/stat"), TABLE_LIMIT) {
            (self.boot, self.cpus) = (process::boot_time(text), cpu::count(text));
        }
    }
}

/// Whether a guest's configuration is readable in principle but not on this node: it has not arrived yet.
fn is_elsewhere(root: &Path, vmid: Vmid) -> bool {
    let kind = GuestKind::Qemu;
    let missing =
        std::fs::metadata(config_path(root, vmid, kind)).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
    missing && config_folder(root, kind).is_dir()
}

/// Adds the guests that have an entry in a directory; one that is not there has none.
fn list(
    path: &Path,
    kind: GuestKind,
    parse: fn(&[u8]) -> Option<Vmid>,
    is_cgroup: bool,
    found: &mut Vec<Found>,
) -> io::Result<()> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if let Some(vmid) = parse(entry.file_name().as_bytes()) {
            found.push(Found { vmid, kind, inode: if is_cgroup { entry.ino() } else { 0 } });
        }
    }
    Ok(())
}
