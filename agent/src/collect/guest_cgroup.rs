//! The cgroup (v2) of a guest: CPU time, memory, disk bytes, pressure. Same files for both kinds of guest.
//!
//! Which of them exist depends on the controllers that systemd enabled there, so each may be absent.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_common::sample::Metric;

use super::file::{CollectError, Files, KeptFile};
use super::parse::{lines, number, numbers, words};
use super::pressure;

/// Block devices remembered at most; beyond it they are forgotten and looked up again.
const MAX_DEVICES: usize = 4096;
/// Major number of loop devices, which hold the disks of containers on directory storage.
const LOOP_MAJOR: u64 = 7;

/// The files of a guest's cgroup, kept open.
#[derive(Debug)]
pub(crate) struct GuestCgroup {
    /// Its directory.
    pub(crate) dir: PathBuf,
    events: KeptFile,
    cpu: KeptFile,
    memory_current: KeptFile,
    memory_stat: KeptFile,
    io: KeptFile,
    pressure: [KeptFile; 3],
}

impl GuestCgroup {
    /// The metrics of [`Self::stalls`], in its order.
    pub(crate) const PRESSURE: [Metric; 3] =
        [Metric::GuestPsiCpuSome, Metric::GuestPsiMemSome, Metric::GuestPsiIoSome];

    pub(crate) fn new(dir: PathBuf) -> Self {
        let file = |name: &str| KeptFile::record(dir.join(name));
        Self {
            events: file("cgroup.events"),
            cpu: file("cpu.stat"),
            memory_current: file("memory.current"),
            memory_stat: file("memory.stat"),
            io: file("io.stat"),
            pressure: ["cpu.pressure", "memory.pressure", "io.pressure"].map(file),
            dir,
        }
    }

    /// Whether a process lives in it. True when it does not tell.
    pub(crate) fn is_populated(&mut self, files: &mut Files, uptime: Duration) -> Result<bool, CollectError> {
        let Some(text) = files.read(&mut self.events, uptime)? else { return Ok(true) };
        match numbers(text, [b"populated"]) {
            Some([Some(populated)]) => Ok(populated != 0),
            _ => Err(self.events.malformed("lines of key and number with `populated`")),
        }
    }

    /// CPU time used, in microseconds.
    pub(crate) fn cpu_us(
        &mut self,
        files: &mut Files,
        uptime: Duration,
    ) -> Result<Option<u64>, CollectError> {
        let Some(text) = files.read(&mut self.cpu, uptime)? else { return Ok(None) };
        match numbers(text, [b"usage_usec"]) {
            Some([Some(usage)]) => Ok(Some(usage)),
            _ => Err(self.cpu.malformed("lines of key and number with `usage_usec`")),
        }
    }

    /// Memory held without page cache, in bytes.
    pub(crate) fn memory(
        &mut self,
        files: &mut Files,
        uptime: Duration,
    ) -> Result<Option<u64>, CollectError> {
        let Some(text) = files.read(&mut self.memory_current, uptime)? else { return Ok(None) };
        let current = parse_single(text).ok_or_else(|| self.memory_current.malformed("one number"))?;
        let Some(text) = files.read(&mut self.memory_stat, uptime)? else { return Ok(None) };
        let Some([Some(cache)]) = numbers(text, [b"file"]) else {
            return Err(self.memory_stat.malformed("lines of key and number with `file`"));
        };
        // The two are read one after the other; where the cache grew in between there is no honest figure.
        Ok(current.checked_sub(cache))
    }

    /// Bytes its disks read and wrote.
    pub(crate) fn disk_bytes(
        &mut self,
        files: &mut Files,
        uptime: Duration,
        devices: &mut BlockDevices,
    ) -> Result<Option<(u64, u64)>, CollectError> {
        let Some(text) = files.read(&mut self.io, uptime)? else { return Ok(None) };
        if text.is_empty() {
            return Ok(None); // No device so far: nothing was read, or its disks are on the network.
        }
        let lines = parse_io(text)
            .ok_or_else(|| self.io.malformed("a line for each device with rbytes and wbytes"))?;
        Ok(devices.sum(&lines))
    }

    /// Microseconds in which some task of it waited for CPU, memory or I/O (0, 1, 2).
    pub(crate) fn stalls(
        &mut self,
        files: &mut Files,
        uptime: Duration,
        which: usize,
    ) -> Result<Option<u64>, CollectError> {
        let file = &mut self.pressure[which];
        let Some(text) = files.read(file, uptime)? else { return Ok(None) };
        let stalls = pressure::parse(text).ok_or_else(|| file.malformed(pressure::EXPECTED))?;
        Ok(Some(stalls.some))
    }
}

/// A file of one number.
fn parse_single(text: &[u8]) -> Option<u64> {
    let mut lines = lines(text)?;
    let value = number(lines.next()?)?;
    lines.next().is_none().then_some(value)
}

/// A line of `io.stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DeviceBytes {
    device: (u64, u64),
    read: u64,
    written: u64,
}

/// Lines `<major>:<minor> rbytes=<n> wbytes=<n> ...`; some kernels leave devices without figures in.
fn parse_io(text: &[u8]) -> Option<Vec<DeviceBytes>> {
    let mut found: Vec<DeviceBytes> = Vec::new();
    for line in lines(text)? {
        let mut words = words(line).peekable();
        let device = words.next()?;
        let colon = device.iter().position(|&byte| byte == b':')?;
        let device = (number(&device[..colon])?, number(&device[colon + 1..])?);
        if words.peek().is_none() {
            continue;
        }
        let (mut read, mut written) = (None, None);
        for word in words {
            let (place, value) = match (word.strip_prefix(b"rbytes="), word.strip_prefix(b"wbytes=")) {
                (Some(value), _) => (&mut read, value),
                (_, Some(value)) => (&mut written, value),
                _ => continue,
            };
            if place.replace(number(value)?).is_some() {
                return None;
            }
        }
        if found.iter().any(|other| other.device == device) {
            return None;
        }
        found.push(DeviceBytes { device, read: read?, written: written? });
    }
    Some(found)
}

/// Knows which block devices are stacked on others, so that bytes are not counted once per layer.
///
/// The kernel charges a request to the guest on each layer it passes: a volume of LVM on an NVMe disk shows
/// twice and more. Counted are the devices at the bottom; loop devices only where no other is, because their
/// backing file's requests are charged as well.
#[derive(Debug)]
pub(crate) struct BlockDevices {
    sys: PathBuf,
    stacked: HashMap<(u64, u64), bool>,
}

impl BlockDevices {
    pub(crate) fn new(root: &Path) -> Self {
        Self { sys: root.join("sys/dev/block"), stacked: HashMap::new() }
    }

    fn is_stacked(&mut self, (major, minor): (u64, u64)) -> bool {
        if self.stacked.len() >= MAX_DEVICES {
            self.stacked.clear();
        }
        let sys = &self.sys;
        *self.stacked.entry((major, minor)).or_insert_with(|| {
            let slaves = std::fs::read_dir(sys.join(format!("{major}:{minor}/slaves")));
            slaves.is_ok_and(|mut slaves| slaves.next().is_some())
        })
    }

    /// Bytes read and written; `None` when no device counts.
    fn sum(&mut self, lines: &[DeviceBytes]) -> Option<(u64, u64)> {
        let bottom: Vec<_> = lines.iter().filter(|line| !self.is_stacked(line.device)).collect();
        let is_loop = |line: &&&DeviceBytes| line.device.0 == LOOP_MAJOR;
        let loops_only = bottom.iter().all(|line| is_loop(&line));
        let mut counted = bottom.iter().filter(|line| loops_only || !is_loop(line)).peekable();
        counted.peek()?;
        counted.try_fold((0_u64, 0_u64), |sum, line| {
            Some((sum.0.checked_add(line.read)?, sum.1.checked_add(line.written)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn io_lines_parse() {
        let text =
            b"253:5 rbytes=4096 wbytes=512 rios=1 wios=1 dbytes=0 dios=0\n8:16 \n8:0 rbytes=1 wbytes=2\n";
        let expected = [
            DeviceBytes { device: (253, 5), read: 4096, written: 512 },
            DeviceBytes { device: (8, 0), read: 1, written: 2 },
        ];
        assert_eq!(parse_io(text).as_deref(), Some(&expected[..]));
        for bad in [
            "8:0 rbytes=1 wbytes=2",
            "8:0 rbytes=1\n",
            "8:0 rbytes=-1 wbytes=2\n",
            "8:0 rbytes=1 wbytes=2\n8:0 rbytes=1 wbytes=2\n",
            "8:0 rbytes=1 rbytes=1 wbytes=2\n",
            "8 rbytes=1 wbytes=2\n",
        ] {
            assert_eq!(parse_io(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn bytes_count_once_however_many_layers_they_pass() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("sys/dev/block/253:5/slaves/sda")).unwrap();
        let mut devices = BlockDevices::new(root.path());
        let mut sum = |text: &str| devices.sum(&parse_io(text.as_bytes()).unwrap());
        assert_eq!(sum("253:5 rbytes=10 wbytes=20\n8:0 rbytes=11 wbytes=21\n"), Some((11, 21)));
        assert_eq!(sum("7:0 rbytes=10 wbytes=20\n8:0 rbytes=11 wbytes=21\n"), Some((11, 21)));
        assert_eq!(sum("7:0 rbytes=10 wbytes=20\n7:1 rbytes=1 wbytes=2\n"), Some((11, 22)));
        assert_eq!(sum("230:0 rbytes=10 wbytes=20\n8:0 rbytes=1 wbytes=1\n"), Some((11, 21)));
        assert_eq!(sum("253:5 rbytes=10 wbytes=20\n"), None);
    }

    #[test]
    fn one_number_is_one_number() {
        assert_eq!(parse_single(b"4096\n"), Some(4096));
        for bad in ["", "4096", "max\n", "1\n2\n", "-1\n"] {
            assert_eq!(parse_single(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(text: Vec<u8>) {
            let lines = [b"8:0 rbytes=1 wbytes=".as_slice(), &text, b"\n"].concat();
            let mut devices = BlockDevices::new(Path::new("/nonexistent"));
            for text in [&text, &lines] {
                let _ = (parse_single(text), parse_io(text).map(|lines| devices.sum(&lines)));
            }
        }
    }
}
