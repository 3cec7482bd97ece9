//! NICs from `/proc/net/dev`: the node's own, and in the same pass those of its guests.
//!
//! The node's NICs are the physical ones, those with a `/sys/class/net/<name>/device`. Bonds, bridges and
//! VLANs are left out on purpose: what they carry passes a physical NIC, and Proxmox counts the same way.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_common::sample::{Metric, SeriesKey};

use super::file::{CollectError, Files, KeptFile, RECORD_LIMIT};
use super::guest_net::{self, GuestNic};
use super::parse::{instance, lines, number, words};
use super::round::{Collector, Counter, Now, Out, Round, Series};

/// How long a name is taken as not physical before it is looked at again; names can be re-used.
const RECHECK: Duration = Duration::from_secs(60);
/// Names remembered as not physical; beyond it they are forgotten and looked at again.
const MAX_OTHERS: usize = 8192;

/// NICs whose speed is read at most.
const MAX_NICS: usize = 64;
/// Fastest link believed; drivers without an idea say 2^32 - 1.
const MAX_MBPS: u64 = 10_000_000;

/// Counters of one NIC since it appeared, as the host sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counters {
    rx_bytes: u64,
    rx_packets: u64,
    rx_errors: u64,
    rx_drops: u64,
    tx_bytes: u64,
    tx_packets: u64,
    tx_errors: u64,
    tx_drops: u64,
}

/// Reads the per-NIC metrics of the node, and the raw counters of its guests' NICs.
#[derive(Debug)]
pub(crate) struct Net {
    file: KeptFile,
    class: PathBuf,
    limit: usize,
    nics: Vec<Nic>,
    others: HashSet<Box<[u8]>>,
    recheck_at: Duration,
    /// The NICs of guests at this reading, ascending; empty when the table could not be read.
    pub(crate) guest_nics: Vec<GuestNic>,
}

#[derive(Debug)]
struct Nic {
    name: Box<[u8]>,
    current: Option<Counters>,
    rates: [(Series, Counter); 6],
}

impl Net {
    /// Watches at most `limit` physical NICs.
    pub(crate) fn new(root: &Path, limit: usize) -> Self {
        Self {
            file: KeptFile::table(root.join("proc/net/dev")),
            class: root.join("sys/class/net"),
            limit,
            nics: Vec::new(),
            others: HashSet::new(),
            recheck_at: Duration::ZERO,
            guest_nics: Vec::new(),
        }
    }
}

impl Collector for Net {
    const NAME: &'static str = "net";

    fn collect(&mut self, Round { now, files, out }: &mut Round<'_>) -> Result<(), CollectError> {
        self.guest_nics.clear();
        self.nics.iter_mut().for_each(|nic| nic.current = None);
        if now.uptime >= self.recheck_at || self.others.len() >= MAX_OTHERS {
            self.others.clear();
            self.recheck_at = now.uptime + RECHECK;
        }
        let text = files.need(&mut self.file, now.uptime)?;
        let all_in = self.gather(text);
        if all_in.is_err() {
            self.guest_nics.clear();
        }
        let too_many = all_in?;
        self.guest_nics.sort_unstable();
        self.nics.retain_mut(|nic| nic.report(now, out));
        if too_many {
            Err(CollectError::TooMany { what: "physical NICs", limit: self.limit })
        } else {
            Ok(())
        }
    }
}

impl Net {
    /// Notes the counters of every NIC of interest; tells whether there were more NICs than are watched.
    /// A damaged line spoils the whole table, since nobody can tell whose it was.
    fn gather(&mut self, text: &[u8]) -> Result<bool, CollectError> {
        let damaged =
            |file: &KeptFile| file.malformed("a table of interfaces with sixteen counters and no name twice");
        let mut too_many = false;
        let table = lines(text).map(|lines| lines.skip(2)).ok_or_else(|| damaged(&self.file))?;
        for line in table {
            let (name, numbers) = split(line).ok_or_else(|| damaged(&self.file))?;
            let guest = guest_net::parse_name(name);
            if guest.is_none() && (is_internal(name) || self.others.contains(name)) {
                continue;
            }
            let counters = parse(numbers).ok_or_else(|| damaged(&self.file))?;
            if let Some((vmid, index)) = guest {
                let (received, sent) = (counters.tx_bytes, counters.rx_bytes);
                self.guest_nics.push(GuestNic { vmid, index, received, sent });
            } else if let Some(nic) = self.nics.iter_mut().find(|nic| *nic.name == *name) {
                if nic.current.replace(counters).is_some() {
                    return Err(damaged(&self.file));
                }
            } else if !is_physical(&self.class, name) {
                self.others.insert(name.into());
            } else if self.nics.len() >= self.limit {
                too_many = true;
            } else {
                self.nics.push(Nic::new(name, counters));
            }
        }
        Ok(too_many)
    }
}

impl Nic {
    fn new(name: &[u8], counters: Counters) -> Self {
        let instance = instance(name);
        let rates = [
            Metric::NetRx,
            Metric::NetTx,
            Metric::NetRxPackets,
            Metric::NetTxPackets,
            Metric::NetErrors,
            Metric::NetDrops,
        ]
        .map(|metric| (SeriesKey::device(metric, instance.as_str()).into(), Counter::default()));
        Self { name: name.into(), current: Some(counters), rates }
    }

    /// Hands out the rates; false when the NIC is gone.
    fn report(&mut self, now: &Now, out: &mut Out<'_>) -> bool {
        let Some(c) = self.current else {
            self.rates.iter_mut().for_each(|(series, _)| out.retire(series));
            return false;
        };
        let errors = c.rx_errors.saturating_add(c.tx_errors);
        let drops = c.rx_drops.saturating_add(c.tx_drops);
        let values = [c.rx_bytes, c.tx_bytes, c.rx_packets, c.tx_packets, errors, drops];
        for ((series, counter), value) in self.rates.iter_mut().zip(values) {
            out.put_some(series, counter.rate(now, value));
        }
        true
    }
}

/// Interfaces that are never physical: loopback, and what guests and their firewall bridges are made of.
fn is_internal(name: &[u8]) -> bool {
    name == b"lo"
        || [b"tap".as_slice(), b"veth", b"fwbr", b"fwpr", b"fwln"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

fn is_physical(class: &Path, name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    // No honest name has a slash or is ".."; with one of these the path would lead elsewhere.
    !name.contains('/') && name != ".." && class.join(name).join("device").exists()
}

/// Speed of the physical NICs that have a link, in Mbit/s, added up: `speed` is -1 or can not be read without one.
pub(super) fn speed(root: &Path, files: &mut Files) -> u64 {
    let class = root.join("sys/class/net");
    let Ok(names) = std::fs::read_dir(&class) else { return 0 };
    let physical = names.flatten().map(|entry| entry.path()).filter(|nic| nic.join("device").exists());
    let speeds = physical.take(MAX_NICS).filter_map(|nic| {
        let text = files.read_once(&nic.join("speed"), RECORD_LIMIT).ok().flatten()?;
        number(text.trim_ascii()).filter(|&mbps| mbps <= MAX_MBPS)
    });
    speeds.fold(0, u64::saturating_add)
}

/// Name and counters of a line.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let name = line[..colon].trim_ascii();
    (!name.is_empty()).then(|| (name, &line[colon + 1..]))
}

/// Receive: bytes packets errors drops fifo frame compressed multicast; transmit: bytes packets errors drops
/// fifo collisions carrier compressed.
fn parse(text: &[u8]) -> Option<Counters> {
    let mut all = [0; 16];
    let mut words = words(text);
    for place in &mut all {
        *place = number(words.next()?)?;
    }
    let [
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_drops,
        _,
        _,
        _,
        _,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_drops,
        ..,
    ] = all;
    Some(Counters { rx_bytes, rx_packets, rx_errors, rx_drops, tx_bytes, tx_packets, tx_errors, tx_drops })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_split_at_the_colon_even_without_a_blank() {
        let (name, numbers) = split(b"  eno1:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16").unwrap();
        assert_eq!(name, b"eno1");
        let counters = parse(numbers).unwrap();
        assert_eq!(
            (counters.rx_bytes, counters.rx_drops, counters.tx_bytes, counters.tx_drops),
            (1, 4, 9, 12)
        );
        assert_eq!(split(b"no colon"), None);
        assert_eq!(parse(b"1 2 3"), None);
        assert_eq!(parse(b"-1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16"), None);
    }

    #[test]
    fn names_can_not_lead_out_of_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("device")).unwrap();
        std::fs::create_dir_all(dir.path().join("net/eno1/device")).unwrap();
        assert!(is_physical(&dir.path().join("net"), b"eno1"));
        for name in [b"..".as_slice(), b"../net/eno1", b"\xff"] {
            assert!(!is_physical(&dir.path().join("net"), name));
        }
    }

    #[test]
    fn speeds_of_links_that_are_up_add_up() {
        let dir = tempfile::tempdir().unwrap();
        let class = dir.path().join("sys/class/net");
        let nics = [
            ("eno1", "10000\n", true),
            ("eno2", "25000\n", true),
            ("eno3", "-1\n", true),
            ("eno4", "4294967295\n", true),
            ("vmbr0", "10000\n", false),
        ];
        for (name, speed, physical) in nics {
            std::fs::create_dir_all(class.join(name)).unwrap();
            std::fs::write(class.join(name).join("speed"), speed).unwrap();
            if physical {
                std::fs::create_dir(class.join(name).join("device")).unwrap();
            }
        }
        std::fs::create_dir_all(class.join("eno5/device")).unwrap();
        assert_eq!(speed(dir.path(), &mut Files::new(8)), 35_000);
        assert_eq!(speed(&dir.path().join("nowhere"), &mut Files::new(8)), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(text: Vec<u8>) {
            let mut net = Net::new(Path::new("/nonexistent"), 4);
            let _ = (net.gather(&text), parse(&text), net.gather(&[&text, b"\n".as_slice()].concat()));
        }
    }
}
