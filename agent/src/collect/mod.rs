//! Reads a Proxmox VE node and its guests from `/proc`, `/sys`, the cgroup tree and `/etc/pve`, as an
//! unprivileged user and without asking any service.
//!
//! The list of collectors is [`NodeSource::read`]: one file per source, each with a function that reads and
//! one that parses. Everything is read below one root, so that tests can put a tree of files in its place.
//!
//! What holds for all of them: what can not be read has no value, never zero; what does not parse is a fault
//! that names its file; a counter that steps back, or misses a reading, starts over. `sysinfo` is not used
//! here: it takes no root, and reading through it costs several times as much as re-reading open files;
//! the tests use it to check these collectors against.

mod cpu;
mod disk;
mod facts;
mod file;
mod filesystem;
mod guest_cgroup;
mod guest_config;
mod guest_life;
mod guest_lxc;
mod guest_net;
mod guest_qemu;
mod guests;
mod load;
mod memory;
mod net;
mod parse;
mod pressure;
mod process;
mod round;
pub mod source;
mod zfs;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use evenkeel_common::node::NodeFacts;
use evenkeel_common::sample::Tick;
use evenkeel_common::time::Timestamp;

use self::cpu::Cpu;
use self::disk::Disks;
use self::file::Files;
use self::filesystem::Filesystems;
use self::guests::Guests;
use self::load::Load;
use self::memory::MemoryUse;
use self::net::Net;
use self::pressure::Pressure;
use self::round::{Now, Out, Round};
use self::source::{Reading, Registry, Source};
use self::zfs::ZfsCache;

/// Open files that are left to the rest of the agent: sockets, spool, logs.
const OTHER_OPEN_FILES: usize = 256;

/// What to read, and how much of it at most.
#[derive(Clone, Debug)]
pub struct CollectConfig {
    /// Where the node's files are: `/`, or a tree of test files.
    pub root: PathBuf,
    /// Time between two looks at the file systems, which change slowly.
    pub filesystem_interval: Duration,
    /// Most guests watched.
    pub max_guests: usize,
    /// Most physical NICs watched.
    pub max_nics: usize,
    /// Most disks watched.
    pub max_disks: usize,
    /// Most file systems watched.
    pub max_filesystems: usize,
    /// Most files kept open between readings; more are opened at each reading, which costs more CPU.
    /// A guest takes eight.
    pub max_open_files: usize,
}

impl Default for CollectConfig {
    /// The node itself; as many open files as the process's limit allows, less 256 for the rest of the agent.
    fn default() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let limit = usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        Self {
            root: PathBuf::from("/"),
            filesystem_interval: Duration::from_secs(30),
            max_guests: 1000,
            max_nics: 64,
            max_disks: 256,
            max_filesystems: 64,
            max_open_files: limit.saturating_sub(OTHER_OPEN_FILES),
        }
    }
}

/// A real node, or a tree of files that looks like one.
#[derive(Debug)]
pub struct NodeSource {
    root: PathBuf,
    files: Files,
    cpu: Cpu,
    load: Load,
    memory: MemoryUse,
    zfs: ZfsCache,
    pressure: Pressure,
    net: Net,
    disks: Disks,
    filesystems: Filesystems,
    guests: Guests,
    last: Option<(u64, Duration)>,
    registry_full_until: u64,
    values: usize,
}

impl NodeSource {
    /// Opens nothing yet; the first reading does.
    #[must_use]
    pub fn new(config: CollectConfig) -> Self {
        let root = config.root.as_path();
        Self {
            files: Files::new(config.max_open_files),
            cpu: Cpu::new(root),
            load: Load::new(root),
            memory: MemoryUse::new(root),
            zfs: ZfsCache::new(root),
            pressure: Pressure::new(root),
            net: Net::new(root, config.max_nics),
            disks: Disks::new(root, config.max_disks),
            filesystems: Filesystems::new(root, config.filesystem_interval, config.max_filesystems),
            guests: Guests::new(root, config.max_guests),
            last: None,
            registry_full_until: 0,
            values: 0,
            root: config.root,
        }
    }
}

impl Source for NodeSource {
    /// Facts as they are now. What is told of the guests' files is as of the last reading.
    fn facts(&mut self) -> NodeFacts {
        facts::read(&self.root, &mut self.files, &mut self.guests)
    }

    /// Reads everything once. `registry` must be the same at each call.
    fn read(&mut self, at: Timestamp, uptime: Duration, registry: &mut Registry) -> Reading {
        let last = self.last;
        let number = last.map_or(1, |(number, _)| number + 1);
        let elapsed = last.and_then(|(_, before)| uptime.checked_sub(before)).filter(|time| !time.is_zero());
        self.last = Some((number, uptime));
        let mut round = Round {
            now: Now { at, uptime, round: number, elapsed_s: elapsed.map(|time| time.as_secs_f64()) },
            files: &mut self.files,
            out: Out::new(registry, self.values, number, self.registry_full_until),
        };

        round.run(&mut self.cpu);
        round.run(&mut self.load);
        round.run(&mut self.memory);
        round.run(&mut self.zfs);
        round.run(&mut self.pressure);
        round.run(&mut self.net); // Before the guests: it reads their NICs in the same pass.
        round.run(&mut self.disks);
        round.run(&mut self.filesystems);
        let guests = self.guests.collect(&mut round, &self.net.guest_nics);

        let (values, faults, registry_full_until) = round.out.finish();
        self.registry_full_until = registry_full_until;
        self.values = values.len();
        Reading { tick: Tick { at, uptime, values }, guests, faults }
    }
}
