//! A generated node as a tree of files: the Proxmox VE 9 fixture's host with so many virtual machines, whose counters
//! and gauges move. Reading it costs an agent its own work and its system calls, but not what the kernel adds for
//! writing the contents of a real cgroup's files.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::sim::workload::unit;

/// Share of the lines of counters that move at all; CPU and memory of guests always do.
const BUSY: f64 = 0.6;
/// Part of itself by which a number moves in a second, at most.
const STEP: f64 = 2e-4;
/// Files of the host that move.
const HOST: [&str; 7] =
    ["stat", "diskstats", "net/dev", "pressure/cpu", "pressure/io", "pressure/memory", "meminfo"];
/// Files of a guest that move.
const GUEST: [&str; 6] =
    ["cpu.stat", "io.stat", "memory.current", "memory.stat", "cpu.pressure", "io.pressure"];

/// The tree, and what moves in it.
#[derive(Debug)]
pub struct Tree {
    files: Vec<Moving>,
    second: i64,
}

#[derive(Debug)]
struct Moving {
    file: File,
    path: PathBuf,
    text: String,
    /// Moves about its first contents instead of growing.
    gauge: bool,
}

impl Tree {
    /// Makes the tree in a folder that is not there yet.
    ///
    /// # Errors
    /// Of the file system.
    pub fn plant(root: &Path, guests: u32) -> io::Result<Self> {
        plant(root, guests)?;
        let mut paths: Vec<PathBuf> = HOST.iter().map(|name| root.join("proc").join(name)).collect();
        for vmid in vmids(guests) {
            paths.extend(GUEST.iter().map(|name| scope(root, vmid).join(name)));
        }
        let open = |path: PathBuf| {
            let (file, text) = (File::options().write(true).open(&path)?, fs::read_to_string(&path)?);
            Ok(Moving { file, gauge: path.to_string_lossy().contains("/mem"), path, text })
        };
        Ok(Self { files: paths.into_iter().map(open).collect::<io::Result<_>>()?, second: 0 })
    }

    /// Moves it on by a second. The files are written in place, since an agent keeps them open.
    ///
    /// # Errors
    /// Of the file system.
    pub fn advance(&mut self) -> io::Result<()> {
        self.second += 1;
        for moving in &mut self.files {
            let text = moving.at(self.second);
            moving.file.write_all_at(text.as_bytes(), 0)?;
            moving.file.set_len(text.len() as u64)?;
            if !moving.gauge {
                moving.text = text;
            }
        }
        Ok(())
    }
}

impl Moving {
    /// The text with each number of four or more digits raised a little, in the lines that move.
    fn at(&self, second: i64) -> String {
        let mut out = String::with_capacity(self.text.len() + 16);
        for line in self.text.lines() {
            let mut hasher = DefaultHasher::new();
            (&self.path, line.split([' ', ':']).find(|word| !word.is_empty())).hash(&mut hasher);
            let salt = hasher.finish();
            let busy = self.gauge || self.path.ends_with("cpu.stat") || unit(salt, -1) < BUSY;
            for (nth, word) in line.split_inclusive([' ', '=']).enumerate() {
                let digits = word.trim_end_matches(' ');
                match digits.parse::<u64>() {
                    Ok(number) if busy && digits.len() > 3 => {
                        let step = number as f64 * STEP * unit(salt ^ nth as u64, second);
                        out.push_str(&(number + step as u64).to_string());
                        out.push_str(&word[digits.len()..]);
                    }
                    _ => out.push_str(word),
                }
            }
            out.push('\n');
        }
        out
    }
}

fn vmids(guests: u32) -> impl Iterator<Item = u32> {
    1000..1000 + guests
}

fn scope(root: &Path, vmid: u32) -> PathBuf {
    root.join(format!("sys/fs/cgroup/qemu.slice/{vmid}.scope"))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() { copy(&path, &target)? } else { fs::copy(&path, target).map(drop)? }
    }
    Ok(())
}

/// The fixture with virtual machines in place of its own guests, each with a NIC behind a firewall bridge.
fn plant(root: &Path, guests: u32) -> io::Result<()> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/fixtures/pve9/t0");
    copy(&fixture, root)?;
    fs::remove_dir_all(root.join("sys/fs/cgroup/lxc"))?;
    fs::remove_dir_all(root.join("sys/fs/cgroup/qemu.slice"))?;
    let mut nics = fs::read_to_string(root.join("proc/net/dev"))?;
    for vmid in vmids(guests) {
        let (scope, pid) = (scope(root, vmid), vmid + 10_000);
        copy(&fixture.join("sys/fs/cgroup/qemu.slice/101.scope"), &scope)?;
        fs::write(scope.join("cgroup.procs"), format!("{pid}\n"))?;
        let process = root.join(format!("proc/{pid}"));
        fs::create_dir_all(&process)?;
        let stat = format!("{pid} (kvm) S 1 1 1 0 -1 0 0 0 0 0 1 0 0 0 20 0 9 0 100 1 1\n");
        fs::write(process.join("stat"), stat)?;
        fs::write(process.join("cmdline"), format!("kvm\0-id\0{vmid}\0"))?;
        let config = root.join(format!("etc/pve/qemu-server/{vmid}.conf"));
        fs::write(config, format!("name: vm{vmid}\ncores: 2\n"))?;
        for (name, end) in [("tap", "i0"), ("fwbr", "i0"), ("fwpr", "p0"), ("fwln", "i0")] {
            let counters = "123456789 1234567 0 0 0 0 0 0 987654321 7654321 0 0 0 0 0 0";
            nics.push_str(&format!("{name}{vmid}{end}: {counters}\n"));
        }
    }
    fs::write(root.join("proc/net/dev"), nics)
}
