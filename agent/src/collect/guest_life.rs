//! One life of a guest on this node, from its start to its end: its facts and its samples. A restart begins
//! another life, so that no rate ever spans two.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_common::guest::{GuestFacts, GuestKind};
use evenkeel_common::id::Vmid;
use evenkeel_common::sample::{Metric, SeriesKey};
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Bytes;

use super::file::{CollectError, Files, RECORD_LIMIT};
use super::guest_cgroup::{BlockDevices, GuestCgroup};
use super::guest_config::{self, GuestConfig};
use super::guest_net::{GuestNet, GuestNic};
use super::guest_qemu::QemuProcess;
use super::process::{self, Process, QemuArgs};
use super::round::{Counter, Out, Round, Series};

/// A guest while it runs.
#[derive(Debug)]
pub(super) struct Life {
    /// What it is.
    pub(super) facts: GuestFacts,
    /// When process and configuration are looked at again.
    pub(super) check_at: Duration,
    /// Whether the last reading found its disk figures.
    pub(super) has_disk: bool,
    process: Option<Process>,
    args: QemuArgs,
    config: ConfigFile,
    fallback: Option<QemuProcess>,
    cpu: Series,
    memory: Series,
    disk: [Series; 2],
    net: [Series; 2],
    pressure: [Series; 3],
    cpu_counters: [Counter; 2],
    disk_counters: [[Counter; 2]; 2],
    pressure_counters: [Counter; 3],
    nics: GuestNet,
}

/// Places in pairs of counters: a figure's two sources count from different starts.
const CGROUP: usize = 0;
const PROCESS: usize = 1;

impl Life {
    /// Begins a life. `process`: its main process if it can be seen; `args`: of a qemu guest.
    pub(super) fn new(
        root: &Path,
        vmid: Vmid,
        kind: GuestKind,
        started_at: Timestamp,
        process: Option<Process>,
        args: QemuArgs,
    ) -> Self {
        let series = |metric| Series::from(SeriesKey::guest(vmid, metric));
        let facts = GuestFacts {
            vmid,
            kind,
            name: args.name.clone(),
            vcpus: args.vcpus,
            memory_max: args.memory,
            tags: Vec::new(),
            started_at,
        };
        let is_qemu = kind == GuestKind::Qemu;
        Self {
            facts,
            check_at: Duration::ZERO,
            has_disk: false,
            process,
            args,
            config: ConfigFile::new(root, vmid, kind),
            fallback: process.filter(|_| is_qemu).map(|process| QemuProcess::new(root, process)),
            cpu: series(Metric::GuestCpu),
            memory: series(Metric::GuestMem),
            disk: [Metric::GuestDiskRead, Metric::GuestDiskWrite].map(series),
            net: [Metric::GuestNetIn, Metric::GuestNetOut].map(series),
            pressure: GuestCgroup::PRESSURE.map(series),
            cpu_counters: Default::default(),
            disk_counters: Default::default(),
            pressure_counters: Default::default(),
            nics: GuestNet::default(),
        }
    }

    /// Gives up its series.
    pub(super) fn end(mut self, out: &mut Out<'_>) {
        let several = self.disk.iter_mut().chain(&mut self.net).chain(&mut self.pressure);
        [&mut self.cpu, &mut self.memory].into_iter().chain(several).for_each(|series| out.retire(series));
    }

    /// Whether its main process is still the same.
    pub(super) fn goes_on(&self, files: &mut Files, root: &Path) -> Result<bool, CollectError> {
        match self.process {
            Some(process) => Ok(process::find(files, root, process.pid)? == Some(process)),
            None => Ok(true),
        }
    }

    /// Reads the configuration again if it changed; true when that changed the facts.
    /// `host_cpus`: what a container without a limit sees.
    pub(super) fn read_config(&mut self, files: &mut Files, host_cpus: u32) -> bool {
        let Some(config) = self.config.read(files) else { return false };
        let sees_all = self.facts.kind == GuestKind::Lxc && !config.bad.contains(&"cores");
        let all = (sees_all && host_cpus > 0).then(|| f64::from(host_cpus));
        let facts = GuestFacts {
            name: config.name.or_else(|| self.args.name.clone()),
            vcpus: config.vcpus.or(self.args.vcpus).or(all),
            memory_max: config.memory.or(self.args.memory),
            tags: config.tags,
            ..self.facts.clone()
        };
        let changed = facts != self.facts;
        self.facts = facts;
        changed
    }

    /// Hands out its samples; false when nothing of it is left to read.
    pub(super) fn sample(
        &mut self,
        round: &mut Round<'_>,
        mut cgroup: Option<&mut GuestCgroup>,
        devices: &mut BlockDevices,
        nics: &[GuestNic],
    ) -> bool {
        let collector = collector(self.facts.kind);
        if let Some(problem) = &self.config.problem {
            round.out.fault("guest_config", problem);
        }
        match self.cpu(round, cgroup.as_deref_mut()) {
            Ok(true) => {}
            Ok(false) => match &cgroup {
                Some(cgroup) if cgroup.dir.is_dir() => {
                    round.out.fault(collector, CollectError::Absent { path: cgroup.dir.join("cpu.stat") });
                }
                _ => return false,
            },
            Err(error) => round.out.fault(collector, error),
        }
        let memory = self.memory(round, cgroup.as_deref_mut());
        let disk = self.disk(round, cgroup.as_deref_mut(), devices);
        let stalls = cgroup.map_or(Ok(()), |cgroup| self.stalls(round, cgroup));
        for error in [memory, disk, stalls].into_iter().filter_map(Result::err) {
            round.out.fault(collector, error);
        }
        if let Some((received, sent)) = self.nics.rates(&round.now, self.facts.vmid, nics) {
            round.out.put(&mut self.net[0], received);
            round.out.put(&mut self.net[1], sent);
        }
        true
    }

    /// CPU from the cgroup, else from the process; false when there is neither.
    fn cpu(&mut self, round: &mut Round<'_>, cgroup: Option<&mut GuestCgroup>) -> Result<bool, CollectError> {
        let Round { now, files, out } = round;
        let mut source = CGROUP;
        let mut used = cgroup.map_or(Ok(None), |cgroup| cgroup.cpu_us(files, now.uptime))?;
        if used.is_none() {
            source = PROCESS;
            used = self.fallback.as_mut().map_or(Ok(None), |process| process.cpu_us(files, now.uptime))?;
        }
        let Some(used) = used else { return Ok(false) };
        let rate = self.cpu_counters[source].rate(now, used);
        out.put_some(&mut self.cpu, rate.map(|us_per_s| us_per_s / 1e6));
        Ok(true)
    }

    fn memory(
        &mut self,
        round: &mut Round<'_>,
        cgroup: Option<&mut GuestCgroup>,
    ) -> Result<(), CollectError> {
        let Round { now, files, out } = round;
        let mut held = cgroup.map_or(Ok(None), |cgroup| cgroup.memory(files, now.uptime))?;
        if held.is_none() {
            held = self.fallback.as_mut().map_or(Ok(None), |process| process.memory(files, now.uptime))?;
        }
        out.put_some(&mut self.memory, held.map(|bytes| Bytes(bytes).as_f64()));
        Ok(())
    }

    fn disk(
        &mut self,
        round: &mut Round<'_>,
        cgroup: Option<&mut GuestCgroup>,
        devices: &mut BlockDevices,
    ) -> Result<(), CollectError> {
        let Round { now, files, out } = round;
        let mut source = CGROUP;
        let mut bytes = cgroup.map_or(Ok(None), |cgroup| cgroup.disk_bytes(files, now.uptime, devices))?;
        if bytes.is_none() {
            source = PROCESS;
            bytes =
                self.fallback.as_mut().map_or(Ok(None), |process| process.disk_bytes(files, now.uptime))?;
        }
        self.has_disk = bytes.is_some();
        let Some((read, written)) = bytes else { return Ok(()) };
        let [read_counter, written_counter] = &mut self.disk_counters[source];
        out.put_some(&mut self.disk[0], read_counter.rate(now, read));
        out.put_some(&mut self.disk[1], written_counter.rate(now, written));
        Ok(())
    }

    fn stalls(&mut self, round: &mut Round<'_>, cgroup: &mut GuestCgroup) -> Result<(), CollectError> {
        let Round { now, files, out } = round;
        let counters = self.pressure_counters.iter_mut().zip(&mut self.pressure);
        for (which, (counter, series)) in counters.enumerate() {
            if let Some(total) = cgroup.stalls(files, now.uptime, which)? {
                out.put_some(series, counter.share(now, total, 1e6));
            }
        }
        Ok(())
    }
}

/// Name of the collector of a kind of guest, in faults.
pub(super) fn collector(kind: GuestKind) -> &'static str {
    match kind {
        GuestKind::Qemu => "guest_qemu",
        GuestKind::Lxc => "guest_lxc",
    }
}

/// Folder of a kind's configurations.
pub(super) fn config_folder(root: &Path, kind: GuestKind) -> PathBuf {
    root.join("etc/pve").join(match kind {
        GuestKind::Qemu => "qemu-server",
        GuestKind::Lxc => "lxc",
    })
}

/// Path of a guest's configuration.
pub(super) fn config_path(root: &Path, vmid: Vmid, kind: GuestKind) -> PathBuf {
    config_folder(root, kind).join(format!("{vmid}.conf"))
}

/// A guest's configuration, read when it changed. Opening a file of `/etc/pve` asks another process, so its
/// date is looked at first.
#[derive(Debug)]
struct ConfigFile {
    path: PathBuf,
    kind: GuestKind,
    seen: Option<(i64, i64, u64)>,
    /// What is wrong with it; told at each tick. That it may not be read at all is a blind spot of the node.
    problem: Option<String>,
}

impl ConfigFile {
    fn new(root: &Path, vmid: Vmid, kind: GuestKind) -> Self {
        Self { path: config_path(root, vmid, kind), kind, seen: None, problem: None }
    }

    /// The configuration if it changed. While it is missing (the guest is moving away) the last one holds.
    fn read(&mut self, files: &mut Files) -> Option<GuestConfig> {
        let meta = std::fs::metadata(&self.path).ok()?;
        let seen = (meta.mtime(), meta.mtime_nsec(), meta.size());
        if self.seen == Some(seen) {
            return None;
        }
        match files.read_once(&self.path, RECORD_LIMIT) {
            Ok(text) => {
                let config = guest_config::parse(text?, self.kind);
                self.seen = Some(seen);
                self.problem = (!config.bad.is_empty()).then(|| {
                    let (path, keys) = (self.path.display(), config.bad.join(", "));
                    format!("{path} has no sensible value for {keys}: correct it with `qm set` or `pct set`")
                });
                Some(config)
            }
            Err(CollectError::Read { kind: ErrorKind::PermissionDenied, .. }) => None,
            Err(error) => {
                self.problem = Some(error.to_string());
                None
            }
        }
    }
}
