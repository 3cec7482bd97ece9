//! Qemu guests: scopes `qemu.slice/<vmid>.scope`, pid files, the kvm process, and what it tells where the
//! scope's controllers do not.
//!
//! QMP is left alone on purpose: it serves one client, and that is Proxmox.

use std::path::Path;
use std::time::Duration;

use evenkeel_common::id::Vmid;

use super::file::{CollectError, Files, KeptFile, RECORD_LIMIT, TABLE_LIMIT};
use super::parse::number;
use super::process::{self, Process, QemuArgs};

/// Where Proxmox keeps pid files.
pub(super) const PIDFILES: &str = "var/run/qemu-server";
/// Processes of a scope that are looked at to find the guest's own.
const MAX_PROCESSES: usize = 256;

/// The vmid of a scope's directory.
pub(super) fn parse_scope(name: &[u8]) -> Option<Vmid> {
    parse_vmid(name.strip_suffix(b".scope")?)
}

/// The vmid of a pid file.
pub(super) fn parse_pidfile(name: &[u8]) -> Option<Vmid> {
    parse_vmid(name.strip_suffix(b".pid")?)
}

/// A vmid as Proxmox writes it, without leading zeros.
pub(super) fn parse_vmid(text: &[u8]) -> Option<Vmid> {
    if text.starts_with(b"0") {
        return None;
    }
    Vmid::new(u32::try_from(number(text)?).ok()?).ok()
}

/// Whether a guest's process was found.
#[derive(Debug, PartialEq)]
pub(super) enum Search {
    /// Here it is.
    Found(Process, QemuArgs),
    /// There are processes, but the kernel does not show them to the agent (`hidepid`, `ProtectProc`).
    Hidden,
    /// It does not run.
    Nothing,
}

/// Finds the guest's QEMU by its pid file, or among the processes of its scope.
pub(super) fn find(
    files: &mut Files,
    root: &Path,
    vmid: Vmid,
    scope: Option<&Path>,
) -> Result<Search, CollectError> {
    let pidfile = root.join(PIDFILES).join(format!("{vmid}.pid"));
    // Only root may read it on some versions; the scope then tells.
    let pid =
        files.read_once(&pidfile, RECORD_LIMIT).ok().flatten().and_then(|text| number(text.trim_ascii()));
    if let Some(pid) = pid.and_then(|pid| u32::try_from(pid).ok())
        && let Some(args) = process::qemu_args(files, root, pid, vmid)?
        && let Some(process) = process::find(files, root, pid)?
    {
        return Ok(Search::Found(process, args));
    }
    let Some(scope) = scope else { return Ok(Search::Nothing) };
    let path = scope.join("cgroup.procs");
    let Some(text) = files.read_once(&path, TABLE_LIMIT)? else { return Ok(Search::Nothing) };
    let pids =
        process::parse_pids(text).ok_or(CollectError::Format { path, expected: "a list of processes" })?;
    let mut visible = pids.is_empty();
    for pid in pids.into_iter().take(MAX_PROCESSES) {
        let Some(process) = process::find(files, root, pid)? else { continue };
        visible = true;
        if let Some(args) = process::qemu_args(files, root, pid, vmid)? {
            return Ok(Search::Found(process, args));
        }
    }
    Ok(if visible { Search::Nothing } else { Search::Hidden })
}

/// Files of the QEMU process, for what its scope does not tell.
#[derive(Debug)]
pub(super) struct QemuProcess {
    start_ticks: u64,
    page_size: u64,
    stat: KeptFile,
    statm: KeptFile,
    /// `None` once the kernel refused it: that takes the same user or a capability.
    io: Option<KeptFile>,
}

impl QemuProcess {
    pub(super) fn new(root: &Path, process: Process) -> Self {
        let file = |name| KeptFile::record(process::path(root, process.pid, name));
        Self {
            start_ticks: process.start_ticks,
            page_size: rustix::param::page_size() as u64,
            stat: file("stat"),
            statm: file("statm"),
            io: Some(file("io")),
        }
    }

    /// CPU time of its threads in microseconds, without that of the kernel's vhost threads; `None` when it ended.
    pub(super) fn cpu_us(
        &mut self,
        files: &mut Files,
        uptime: Duration,
    ) -> Result<Option<u64>, CollectError> {
        let Some(text) = files.read(&mut self.stat, uptime)? else { return Ok(None) };
        let stat = process::parse_stat(text).ok_or_else(|| self.stat.malformed(process::STAT))?;
        Ok((stat.start_ticks == self.start_ticks).then_some(stat.cpu_us))
    }

    /// Its resident memory in bytes.
    pub(super) fn memory(
        &mut self,
        files: &mut Files,
        uptime: Duration,
    ) -> Result<Option<u64>, CollectError> {
        let Some(text) = files.read(&mut self.statm, uptime)? else { return Ok(None) };
        let pages =
            process::parse_statm(text).ok_or_else(|| self.statm.malformed("seven numbers of pages"))?;
        Ok(pages.checked_mul(self.page_size))
    }

    /// Bytes it read from and wrote to disks.
    pub(super) fn disk_bytes(
        &mut self,
        files: &mut Files,
        uptime: Duration,
    ) -> Result<Option<(u64, u64)>, CollectError> {
        let Some(file) = &mut self.io else { return Ok(None) };
        match files.read(file, uptime) {
            Ok(Some(text)) => {
                let bytes = process::parse_io(text);
                bytes.map(Some).ok_or_else(|| file.malformed("lines with read_bytes and write_bytes"))
            }
            Ok(None) => Ok(None),
            Err(CollectError::Read { kind: std::io::ErrorKind::PermissionDenied, .. }) => {
                self.io = None;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_scopes_and_pid_files() {
        let vmid = |n| Some(Vmid::new(n).unwrap());
        assert_eq!(parse_scope(b"100.scope"), vmid(100));
        assert_eq!(parse_pidfile(b"999999999.pid"), vmid(999_999_999));
        for other in [
            "99.scope",
            "0100.scope",
            "100",
            "scope",
            ".scope",
            "100.service",
            "-100.scope",
            "4294967396.scope",
        ] {
            assert_eq!(parse_scope(other.as_bytes()), None, "{other}");
        }
    }
}
