//! Disks of the node from `/proc/diskstats`: throughput, utilisation and await.
//!
//! Whole physical disks only: `sd*`, `vd*`, `xvd*`, `nvme*n*`, `mmcblk*`. Partitions are part of them; what
//! is stacked on them (`dm-*`, `md*`, `zd*`, `rbd*`, `loop*`) would count the same bytes again.
//!
//! # Source
//! Linux `Documentation/admin-guide/iostats.rst`.

use std::path::Path;

use evenkeel_common::sample::{Metric, SeriesKey};

use super::file::{CollectError, KeptFile};
use super::parse::{instance, lines, number, words};
use super::round::{Collector, Counter, Now, Out, Round, Series};

/// The kernel counts in sectors of this size, whatever the disk's own is.
const SECTOR: u64 = 512;

/// Counters of a disk since it appeared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counters {
    requests: u64,
    read_sectors: u64,
    written_sectors: u64,
    /// Time that requests took, added up. This one and the next are 32 bits wide and wrap after 49 days' worth.
    request_ms: [u32; 2],
    /// Time with a request in flight.
    busy_ms: u32,
}

/// Reads the per-disk metrics of the node.
#[derive(Debug)]
pub(crate) struct Disks {
    file: KeptFile,
    limit: usize,
    disks: Vec<Disk>,
}

#[derive(Debug)]
struct Disk {
    name: Box<[u8]>,
    current: Option<Counters>,
    last: Option<(u64, Counters)>,
    read: (Series, Counter),
    written: (Series, Counter),
    util: Series,
    wait: Series,
}

impl Disks {
    /// Watches at most `limit` disks.
    pub(crate) fn new(root: &Path, limit: usize) -> Self {
        Self { file: KeptFile::table(root.join("proc/diskstats")), limit, disks: Vec::new() }
    }

    /// Notes the counters of every whole disk; tells whether there were more than are watched.
    fn gather(&mut self, text: &[u8]) -> Result<bool, CollectError> {
        let damaged =
            |file: &KeptFile| file.malformed("a table of disks with eleven counters and no name twice");
        let mut too_many = false;
        for line in lines(text).ok_or_else(|| damaged(&self.file))? {
            let mut words = words(line).skip(2);
            let name = words.next().ok_or_else(|| damaged(&self.file))?;
            if !is_whole_disk(name) {
                continue;
            }
            let counters = parse(words).ok_or_else(|| damaged(&self.file))?;
            if let Some(disk) = self.disks.iter_mut().find(|disk| *disk.name == *name) {
                if disk.current.replace(counters).is_some() {
                    return Err(damaged(&self.file));
                }
            } else if self.disks.len() >= self.limit {
                too_many = true;
            } else {
                self.disks.push(Disk::new(name, counters));
            }
        }
        Ok(too_many)
    }
}

impl Collector for Disks {
    const NAME: &'static str = "disk";

    fn collect(&mut self, Round { now, files, out }: &mut Round<'_>) -> Result<(), CollectError> {
        self.disks.iter_mut().for_each(|disk| disk.current = None);
        let text = files.need(&mut self.file, now.uptime)?;
        let too_many = self.gather(text)?;
        self.disks.retain_mut(|disk| disk.report(now, out));
        if too_many { Err(CollectError::TooMany { what: "disks", limit: self.limit }) } else { Ok(()) }
    }
}

impl Disk {
    fn new(name: &[u8], counters: Counters) -> Self {
        let instance = instance(name);
        let series = |metric| Series::from(SeriesKey::device(metric, instance.as_str()));
        Self {
            name: name.into(),
            current: Some(counters),
            last: None,
            read: (series(Metric::DiskRead), Counter::default()),
            written: (series(Metric::DiskWrite), Counter::default()),
            util: series(Metric::DiskUtil),
            wait: series(Metric::DiskAwait),
        }
    }

    /// Hands out what happened since the previous reading; false when the disk is gone.
    fn report(&mut self, now: &Now, out: &mut Out<'_>) -> bool {
        let Some(counters) = self.current else {
            for series in [&mut self.read.0, &mut self.written.0, &mut self.util, &mut self.wait] {
                out.retire(series);
            }
            return false;
        };
        let read = self.read.1.rate(now, counters.read_sectors);
        let written = self.written.1.rate(now, counters.written_sectors);
        out.put_some(&mut self.read.0, read.map(|sectors| sectors * SECTOR as f64));
        out.put_some(&mut self.written.0, written.map(|sectors| sectors * SECTOR as f64));
        let last = self.last.replace((now.round, counters));
        // Without both rates the disk was reset, and a small time counter is no wrap.
        let (Some((round, last)), Some(elapsed_s), Some(_), Some(_)) = (last, now.elapsed_s, read, written)
        else {
            return true;
        };
        if round + 1 == now.round {
            out.put_some(&mut self.util, utilisation(last, counters, elapsed_s));
            out.put_some(&mut self.wait, mean_wait(last, counters));
        }
        true
    }
}

/// Percent of the time with a request in flight.
fn utilisation(before: Counters, after: Counters, elapsed_s: f64) -> Option<f64> {
    let busy = growth(before.busy_ms, after.busy_ms)?;
    Some((f64::from(busy) / (elapsed_s * 1000.0) * 100.0).min(100.0))
}

/// Mean time that a request took, in milliseconds; `None` when there was none.
fn mean_wait(before: Counters, after: Counters) -> Option<f64> {
    let requests = after.requests.checked_sub(before.requests).filter(|&n| n > 0)?;
    let mut spent = 0.0;
    for (before, after) in before.request_ms.into_iter().zip(after.request_ms) {
        spent += f64::from(growth(before, after)?);
    }
    Some(spent / requests as f64)
}

/// Growth of a counter that wraps at 32 bits; `None` when it can only have been reset.
fn growth(before: u32, after: u32) -> Option<u32> {
    let growth = after.wrapping_sub(before);
    (growth < u32::MAX / 2).then_some(growth)
}

fn is_whole_disk(name: &[u8]) -> bool {
    let letters_after = |prefix: &[u8]| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.iter().all(u8::is_ascii_lowercase))
    };
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let namespace = |rest: &[u8]| {
        let split = rest.iter().position(|&byte| byte == b'n');
        split.is_some_and(|split| digits(&rest[..split]) && digits(&rest[split + 1..]))
    };
    letters_after(b"sd")
        || letters_after(b"vd")
        || letters_after(b"xvd")
        || name.strip_prefix(b"nvme").is_some_and(namespace)
        || name.strip_prefix(b"mmcblk").is_some_and(digits)
}

/// What follows the name: reads, merged, sectors, ms; writes, merged, sectors, ms; in flight, busy ms,
/// weighted ms; then discards and flushes, which are not used.
fn parse<'a>(words: impl Iterator<Item = &'a [u8]>) -> Option<Counters> {
    let mut all = [0; 11];
    let mut words = words;
    for place in &mut all {
        *place = number(words.next()?)?;
    }
    let [reads, _, read_sectors, read_ms, writes, _, written_sectors, write_ms, _, busy_ms, _] = all;
    // Some kernels print these times in 64 bits; the low half is the same counter.
    let low = |n: u64| (n & u64::from(u32::MAX)) as u32;
    Some(Counters {
        requests: reads.checked_add(writes)?,
        read_sectors,
        written_sectors,
        request_ms: [low(read_ms), low(write_ms)],
        busy_ms: low(busy_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn whole_physical_disks_only() {
        for name in ["sda", "sdaa", "vda", "xvdb", "nvme0n1", "nvme10n12", "mmcblk0"] {
            assert!(is_whole_disk(name.as_bytes()), "{name}");
        }
        for name in [
            "sda1",
            "sd",
            "nvme0n1p2",
            "nvme0c0n1",
            "nvme0",
            "dm-0",
            "md127",
            "zd16",
            "loop0",
            "sr0",
            "rbd0",
            "zram0",
            "mmcblk0p1",
        ] {
            assert!(!is_whole_disk(name.as_bytes()), "{name}");
        }
    }

    fn counters(requests: u64, request_ms: [u32; 2], busy_ms: u32) -> Counters {
        Counters { requests, read_sectors: 0, written_sectors: 0, request_ms, busy_ms }
    }

    #[test]
    fn await_is_per_request_and_missing_without_one() {
        assert_eq!(mean_wait(counters(10, [5, 5], 0), counters(14, [11, 7], 0)), Some(2.0));
        assert_eq!(mean_wait(counters(10, [5, 5], 0), counters(10, [5, 5], 0)), None);
        assert_eq!(mean_wait(counters(10, [5, 5], 0), counters(3, [1, 1], 0)), None);
    }

    #[test]
    fn times_wrap_at_32_bits_but_a_reset_is_no_wrap() {
        let before = counters(10, [u32::MAX - 1, 0], u32::MAX - 299);
        assert_eq!(mean_wait(before, counters(12, [2, 0], 200)), Some(2.0));
        assert_eq!(utilisation(before, counters(12, [2, 0], 200), 1.0), Some(50.0));
        assert_eq!(utilisation(counters(0, [0, 0], 5000), counters(0, [0, 0], 10), 1.0), None);
        assert_eq!(utilisation(counters(0, [0, 0], 0), counters(0, [0, 0], 1003), 1.0), Some(100.0));
    }

    #[test]
    fn lines_of_old_and_new_kernels_parse() {
        let line = b"58900 10410 7978650 50615 22800 32042 5302280 13696 0 11168 65415";
        let old = parse(words(line)).unwrap();
        assert_eq!((old.requests, old.read_sectors, old.busy_ms), (81_700, 7_978_650, 11_168));
        assert_eq!(parse(words(&[line.as_slice(), b" 7580 74 937824 856 4011 247"].concat())), Some(old));
        assert_eq!(parse(words(b"1 2 3 4 5 6 7 8 9 10")), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(text: Vec<u8>) {
            let mut disks = Disks::new(Path::new("/nonexistent"), 4);
            let _ = (disks.gather(&text), disks.gather(&[b"8 0 sda ", text.as_slice(), b"\n"].concat()));
        }
    }
}
