//! Use of the node's local file systems, from `/proc/mounts` and statvfs.
//!
//! Asked rarely, because it changes slowly. Only local types are asked: a network file system whose server
//! is gone would hang the agent. Each device counts once, at the first place it is mounted; the data sets
//! of containers on ZFS (`subvol-<vmid>-disk-<n>`) belong to guests and are left out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_common::sample::{Metric, SeriesKey};
use rustix::fs::StatVfs;

use super::file::{CollectError, KeptFile};
use super::parse::{instance, lines, words};
use super::round::{Collector, Out, Round, Series};

const LOCAL_TYPES: [&[u8]; 9] =
    [b"ext2", b"ext3", b"ext4", b"xfs", b"btrfs", b"zfs", b"vfat", b"f2fs", b"bcachefs"];

/// Reads [`Metric::FsUsed`].
#[derive(Debug)]
pub(crate) struct Filesystems {
    root: PathBuf,
    mounts: KeptFile,
    interval: Duration,
    limit: usize,
    due_at: Duration,
    known: Vec<(Mount, Series)>,
    /// What went wrong when they were last asked; told until they are asked again.
    problem: Option<CollectError>,
}

/// A local file system.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    device: Vec<u8>,
    /// Absolute, as the node sees it.
    point: Vec<u8>,
}

impl Filesystems {
    /// Asks each `interval`, at most `limit` file systems.
    pub(crate) fn new(root: &Path, interval: Duration, limit: usize) -> Self {
        let mounts = KeptFile::table(root.join("proc/mounts"));
        let (root, due_at, known) = (root.to_owned(), Duration::ZERO, Vec::new());
        Self { root, mounts, interval, limit, due_at, known, problem: None }
    }

    /// Brings the list of watched file systems up to date.
    fn watch(&mut self, found: Vec<Mount>, out: &mut Out<'_>) {
        self.known.retain_mut(|(mount, series)| {
            let stays = found.contains(mount);
            if !stays {
                out.retire(series);
            }
            stays
        });
        for mount in found {
            if self.known.iter().any(|(known, _)| *known == mount) {
                continue;
            }
            if self.known.len() >= self.limit {
                self.problem = Some(CollectError::TooMany { what: "file systems", limit: self.limit });
                return;
            }
            let series = SeriesKey::device(Metric::FsUsed, instance(&mount.point)).into();
            self.known.push((mount, series));
        }
    }
}

impl Collector for Filesystems {
    const NAME: &'static str = "filesystem";

    fn collect(&mut self, Round { now, files, out }: &mut Round<'_>) -> Result<(), CollectError> {
        if now.uptime < self.due_at {
            self.problem.iter().for_each(|problem| out.fault(Self::NAME, problem));
            return Ok(());
        }
        let text = files.need(&mut self.mounts, now.uptime)?;
        let found = parse(text).ok_or_else(|| self.mounts.malformed("a table of mounts"))?;
        self.due_at = now.uptime + self.interval;
        self.problem = None;
        self.watch(found, out);
        for (mount, series) in &mut self.known {
            let path = under(&self.root, &mount.point);
            match rustix::fs::statvfs(&path) {
                Ok(stat) => out.put_some(series, used(&stat)),
                Err(errno) => {
                    let source = std::io::Error::from(errno);
                    self.problem = Some(CollectError::Read { path, kind: source.kind(), source });
                }
            }
        }
        self.problem.iter().for_each(|problem| out.fault(Self::NAME, problem));
        Ok(())
    }
}

/// The mount point under the root that is watched.
pub(super) fn under(root: &Path, point: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let relative = point.strip_prefix(b"/").unwrap_or(point);
    root.join(std::ffi::OsStr::from_bytes(relative))
}

/// Percent in use as `df` tells it: what is reserved for root counts as used up when the rest is full.
fn used(stat: &StatVfs) -> Option<f64> {
    used_percent(stat.f_blocks, stat.f_bfree, stat.f_bavail)
}

fn used_percent(blocks: u64, free: u64, available: u64) -> Option<f64> {
    let used = blocks.checked_sub(free)?;
    let usable = used.checked_add(available).filter(|&n| n > 0)?;
    Some(used as f64 / usable as f64 * 100.0)
}

/// The local file systems, each device once.
fn parse(text: &[u8]) -> Option<Vec<Mount>> {
    let mut found: Vec<Mount> = Vec::new();
    for line in lines(text)? {
        let mut words = words(line);
        let (device, point, kind) = (words.next()?, words.next()?, words.next()?);
        let of_a_guest = kind == b"zfs" && device.windows(8).any(|part| part == b"/subvol-");
        if !LOCAL_TYPES.contains(&kind) || of_a_guest || found.iter().any(|mount| mount.device == device) {
            continue;
        }
        found.push(Mount { device: device.to_owned(), point: unescape(point) });
    }
    Some(found)
}

/// Where the first file system of a type is mounted.
pub(super) fn mount_point_of(text: &[u8], wanted: &[u8]) -> Option<Vec<u8>> {
    lines(text)?.find_map(|line| {
        let mut words = words(line).skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        (kind == wanted).then(|| unescape(point))
    })
}

/// Blanks, tabs, line ends and backslashes in mount points come as `\ooo`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let octal = match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                rest = &tail[3..];
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        plain.push(octal.unwrap_or(*first));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn local_file_systems_once_each() {
        let text = b"/dev/mapper/pve-root / ext4 rw 0 0\nproc /proc proc rw 0 0\n\
            nas:/vol /mnt/nas nfs4 rw 0 0\n/dev/mapper/pve-root /srv/bind ext4 rw 0 0\n\
            tank/subvol-300-disk-0 /tank/subvol-300-disk-0 zfs rw 0 0\n/dev/sdb1 /mnt/my\\040disk xfs rw 0 0\n";
        let points: Vec<_> = parse(text).unwrap().into_iter().map(|mount| mount.point).collect();
        assert_eq!(points, [b"/".to_vec(), b"/mnt/my disk".to_vec()]);
        assert_eq!(parse(b"/dev/sda1 / ext4"), None);
    }

    #[test]
    fn use_is_what_df_tells() {
        assert_eq!(used_percent(100, 50, 40), Some(50.0 / 90.0 * 100.0));
        assert_eq!(used_percent(100, 0, 0), Some(100.0));
        assert_eq!(used_percent(0, 0, 0), None);
        assert_eq!(used_percent(1, 2, 0), None);
    }

    #[test]
    fn escapes_are_undone_only_where_they_are_escapes() {
        assert_eq!(unescape(b"a\\040b\\134c"), b"a b\\c");
        assert_eq!(unescape(b"\\9\\04"), b"\\9\\04");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(text: Vec<u8>) {
            let _ = (parse(&text), parse(&[text.as_slice(), b"\n"].concat()));
            prop_assert!(unescape(&text).len() <= text.len());
        }
    }
}
