//! What `/proc/<pid>` tells of a guest's process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_common::id::Vmid;
use evenkeel_common::time::Timestamp;
use evenkeel_common::units::Bytes;

use super::file::{CollectError, Files, RECORD_LIMIT, TABLE_LIMIT};
use super::guest_config::{MAX_NAME, memory_mib};
use super::parse::{lines, number, numbers, shown, words};

/// Clock ticks a second in `/proc/<pid>/stat`: fixed at 100 for user space on every architecture Proxmox
/// VE runs on.
const TICKS_PER_S: u64 = 100;

/// A process and its birth; a re-used pid has another birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    /// Clock ticks from boot to its start.
    pub(crate) start_ticks: u64,
    /// Its number.
    pub(crate) pid: u32,
}

impl Process {
    /// Time from boot to its start.
    pub(crate) fn since_boot(self) -> Duration {
        Duration::from_millis(self.start_ticks.saturating_mul(1000 / TICKS_PER_S))
    }
}

/// The part of `/proc/<pid>/stat` that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessStat {
    /// CPU time of all its threads, in microseconds.
    pub(crate) cpu_us: u64,
    /// Clock ticks from boot to its start.
    pub(crate) start_ticks: u64,
}

/// What the command line of a QEMU process tells of its guest.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct QemuArgs {
    /// It waits for a migration to arrive, or once did.
    pub(crate) incoming: bool,
    /// Name, cut and stripped like that of a configuration.
    pub(crate) name: Option<String>,
    /// CPUs.
    pub(crate) vcpus: Option<f64>,
    /// Memory; unknown with memory hot-plug.
    pub(crate) memory: Option<Bytes>,
}

/// A file of a process.
pub(crate) fn path(root: &Path, pid: u32, file: &str) -> PathBuf {
    root.join(format!("proc/{pid}/{file}"))
}

/// When a process began; `None` when there is no such process.
pub(crate) fn find(files: &mut Files, root: &Path, pid: u32) -> Result<Option<Process>, CollectError> {
    let path = path(root, pid, "stat");
    let Some(text) = files.read_once(&path, RECORD_LIMIT)? else { return Ok(None) };
    let stat = parse_stat(text).ok_or(CollectError::Format { path, expected: STAT })?;
    Ok(Some(Process { pid, start_ticks: stat.start_ticks }))
}

/// What `/proc/<pid>/stat` should be.
pub(crate) const STAT: &str = "a process's state of at least 22 fields";

/// The command may hold blanks and parentheses, so fields are counted from the last closing one.
pub(crate) fn parse_stat(text: &[u8]) -> Option<ProcessStat> {
    let line = lines(text)?.next_back()?;
    let close = line.iter().rposition(|&byte| byte == b')')?;
    let mut fields = words(&line[close + 1..]).skip(11).map(number);
    let (user, system) = (fields.next()??, fields.next()??);
    let start_ticks = fields.nth(6)??;
    let cpu_us = user.checked_add(system)?.checked_mul(1_000_000 / TICKS_PER_S)?;
    Some(ProcessStat { cpu_us, start_ticks })
}

/// Pages in memory, from `/proc/<pid>/statm`.
pub(crate) fn parse_statm(text: &[u8]) -> Option<u64> {
    let mut words = words(lines(text)?.next()?).map(number);
    let (size, resident) = (words.next()??, words.next()??);
    (resident <= size && words.count() >= 5).then_some(resident)
}

/// Bytes really read from and written to disks, from `/proc/<pid>/io`.
pub(crate) fn parse_io(text: &[u8]) -> Option<(u64, u64)> {
    let [read, written] = numbers(text, [b"read_bytes:", b"write_bytes:"])?;
    Some((read?, written?))
}

/// The pids of a `cgroup.procs`.
pub(crate) fn parse_pids(text: &[u8]) -> Option<Vec<u32>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    lines(text)?.map(|line| u32::try_from(number(line)?).ok()).collect()
}

/// Wall-clock time of the node's boot. `stat`: contents of `/proc/stat`, whose `btime` has whole seconds and
/// follows corrections of the clock: what is derived from it is computed once and kept.
pub(crate) fn boot_time(stat: &[u8]) -> Option<Timestamp> {
    // Near the end of a file whose line of interrupts can be very long.
    let btime = lines(stat)?.rev().find_map(|line| line.strip_prefix(b"btime "))?;
    let ms = number(btime)?.checked_mul(1000)?;
    Some(Timestamp::from_millis(i64::try_from(ms).ok()?))
}

/// Reads the command line of a process; `None` unless it is the QEMU of this guest.
pub(crate) fn qemu_args(
    files: &mut Files,
    root: &Path,
    pid: u32,
    vmid: Vmid,
) -> Result<Option<QemuArgs>, CollectError> {
    let text = files.read_once(&path(root, pid, "cmdline"), TABLE_LIMIT)?;
    Ok(text.and_then(|text| parse_qemu_args(text, vmid)))
}

/// Proxmox starts `/usr/bin/kvm -id <vmid> -name <name>,debug-threads=on ... -pidfile
/// /var/run/qemu-server/<vmid>.pid ... -smp <n>,... -m <MiB>`; words end in NUL.
fn parse_qemu_args(text: &[u8], vmid: Vmid) -> Option<QemuArgs> {
    let mut words = text.split(|&byte| byte == 0);
    let program = words.next()?.rsplit(|&byte| byte == b'/').next()?;
    if program != b"kvm" && !program.starts_with(b"qemu-system-") {
        return None;
    }
    let (mut args, mut is_this_guest) = (QemuArgs::default(), false);
    let pidfile = format!("/qemu-server/{vmid}.pid");
    while let Some(word) = words.next() {
        // `--option` is the same to QEMU.
        match word.strip_prefix(b"-").map(|word| word.strip_prefix(b"-").unwrap_or(word)) {
            Some(b"id") => is_this_guest |= words.next().and_then(number) == Some(vmid.get().into()),
            Some(b"pidfile") => is_this_guest |= words.next()?.ends_with(pidfile.as_bytes()),
            Some(b"incoming") => args.incoming = true,
            Some(b"name") => {
                let name = first_of(words.next()?, b"guest=");
                args.name = Some(shown(name, MAX_NAME)).filter(|name| !name.is_empty());
            }
            Some(b"smp") => {
                let cpus = number(first_of(words.next()?, b"cpus="));
                args.vcpus = cpus.filter(|n| (1..=65_536).contains(n)).map(|n| n as f64);
            }
            Some(b"m") => args.memory = number(words.next()?).and_then(memory_mib),
            _ => {}
        }
    }
    is_this_guest.then_some(args)
}

/// The first item of a comma list, which may be given with or without its key.
fn first_of<'a>(list: &'a [u8], key: &[u8]) -> &'a [u8] {
    let first = list.split(|&byte| byte == b',').next().unwrap_or_default();
    first.strip_prefix(key).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vmid(n: u32) -> Vmid {
        Vmid::new(n).unwrap()
    }

    fn cmdline(words: &[&str]) -> Vec<u8> {
        words.iter().flat_map(|word| word.bytes().chain([0])).collect()
    }

    #[test]
    fn a_command_can_not_forge_the_fields_behind_it() {
        let text = b"7 (kvm) R 9 9) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 6 0 9000 1 2\n";
        assert_eq!(parse_stat(text), Some(ProcessStat { cpu_us: 3_000_000, start_ticks: 9000 }));
        assert_eq!(parse_stat(b"7 (kvm) S 1 7 7 0 -1 4194560 1 0 0 0 250 50\n"), None);
        assert_eq!(parse_stat(b"7 (kvm) S 1 7 7 0 -1 4194560 1 0 0 0 -250 50 0 0 20 0 6 0 9000\n"), None);
    }

    #[test]
    fn the_boot_time_is_found_at_the_end() {
        let stat = b"cpu 1 2\nintr 5 0 0\nctxt 9\nbtime 1763719500\nprocesses 8\n";
        assert_eq!(boot_time(stat), Some(Timestamp::from_millis(1_763_719_500_000)));
        assert_eq!(boot_time(b"cpu 1\nbtime 18446744073709551615\n"), None);
        assert_eq!(Process { pid: 1, start_ticks: 250 }.since_boot(), Duration::from_millis(2500));
    }

    #[test]
    fn only_the_guests_own_qemu_is_taken() {
        let line = |words: &[&str]| parse_qemu_args(&cmdline(words), vmid(100));
        let args = line(&[
            "/usr/bin/kvm",
            "-id",
            "100",
            "-name",
            "web,debug-threads=on",
            "-smp",
            "4,sockets=1,cores=4",
            "-m",
            "2048",
        ]);
        let expected = QemuArgs {
            incoming: false,
            name: Some("web".into()),
            vcpus: Some(4.0),
            memory: Some(Bytes::gib(2)),
        };
        assert_eq!(args, Some(expected));
        assert!(line(&["qemu-system-x86_64", "--pidfile", "/var/run/qemu-server/100.pid"]).is_some());
        assert!(line(&["kvm", "-id", "100", "-incoming", "tcp:1"]).unwrap().incoming);
        for stranger in [
            &["kvm", "-id", "101"][..],
            &["swtpm", "-id", "100"],
            &["kvm", "-pidfile", "/var/run/qemu-server/1100.pid"],
            &["kvm", "-name", "-id", "100"],
            &["kvm"],
        ] {
            assert_eq!(line(stranger), None, "{stranger:?}");
        }
    }

    #[test]
    fn memory_and_disk_of_a_process() {
        assert_eq!(parse_statm(b"2000 500 100 10 0 900 0\n"), Some(500));
        assert_eq!(parse_statm(b"2000 500\n"), None);
        let io = b"rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 0\n";
        assert_eq!(parse_io(io), Some((4096, 8192)));
        assert_eq!(parse_pids(b"12\n7\n"), Some(vec![12, 7]));
        assert_eq!(parse_pids(b"12\n-7\n"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(text: Vec<u8>) {
            let _ = (parse_stat(&text), parse_statm(&text), parse_io(&text), parse_pids(&text), boot_time(&text));
            let line = [b"kvm\0-id\0".as_slice(), b"100\0-name\0", &text].concat();
            if let Some(name) = parse_qemu_args(&line, vmid(100)).and_then(|args| args.name) {
                prop_assert!(name.chars().count() <= MAX_NAME && !name.chars().any(char::is_control));
            }
        }
    }
}
