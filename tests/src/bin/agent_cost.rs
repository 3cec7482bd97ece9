//! What the agent costs its node: runs the real `evenkeel-agent`, connected by mTLS to a real aggregator through a
//! proxy that counts bytes, and reads the agent's CPU time and memory from procfs.
//!
//! With `--guests 0` the agent watches this machine. With more it watches a generated tree of files: the Proxmox VE 9
//! fixture's host with so many virtual machines, whose counters and gauges this program moves once a second. Such a
//! tree costs the agent its own work and its system calls, but not what the kernel adds for a real cgroup's files.
#![allow(clippy::print_stdout)] // It is a command for people.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use evenkeel_agent::collect::source::{Registry, Source as _};
use evenkeel_agent::collect::{CollectConfig, NodeSource};
use evenkeel_common::time::Timestamp;
use evenkeel_tests::sim::workload::unit;

/// Share of guests' and devices' counters that move; CPU and memory of guests always do.
const BUSY: f64 = 0.6;

/// Measures CPU, memory and bytes on the wire of a connected agent.
#[derive(Parser)]
struct Arguments {
    /// The agent to be measured: a release build.
    #[arg(long, default_value = "target/release/evenkeel-agent")]
    agent: PathBuf,
    /// The aggregator it talks to; how that is built does not matter.
    #[arg(long, default_value = "target/debug/evenkeel-aggregator")]
    aggregator: PathBuf,
    /// Virtual machines of the generated tree; 0 = watch this machine.
    #[arg(long, default_value_t = 0)]
    guests: u32,
    /// Seconds before anything is counted.
    #[arg(long, default_value_t = 30)]
    warm_up: u64,
    /// Seconds that are counted.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
}

/// A child that ends with this program.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself, which its log tells.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let dir = tempfile::tempdir()?;
    let root = if arguments.guests == 0 { PathBuf::from("/") } else { dir.path().join("root") };
    if arguments.guests > 0 {
        plant(&root, arguments.guests)?;
        let moving = moving_files(&root)?;
        thread::spawn(move || for_ever(&moving));
    }
    let (_aggregator, proxy, wire) = aggregator(&arguments.aggregator, dir.path())?;
    let config = format!(
        "root = {root:?}\nstate_dir = {:?}\n[aggregator]\naddress = \"{proxy}\"\nca = {:?}\ncert = {:?}\nkey = {:?}\n",
        dir.path().join("state"),
        dir.path().join("ca.pem"),
        dir.path().join("agent.pem"),
        dir.path().join("agent.key"),
    );
    fs::write(dir.path().join("agent.toml"), config)?;
    let agent = start(&arguments.agent, dir.path(), "agent.toml")?;
    let proc = PathBuf::from(format!("/proc/{}", agent.0.id()));
    thread::sleep(Duration::from_secs(arguments.warm_up));

    let (cpu, up, down, began) = (
        cpu_time(&proc)?,
        wire.up.load(Ordering::Relaxed),
        wire.down.load(Ordering::Relaxed),
        Instant::now(),
    );
    ensure!(up > 0, "the agent did not connect:\n{}", fs::read_to_string(dir.path().join("agent.toml.log"))?);
    thread::sleep(Duration::from_secs(arguments.seconds));
    let (cpu, took) = (cpu_time(&proc)? - cpu, began.elapsed());
    let (up, down) = (wire.up.load(Ordering::Relaxed) - up, wire.down.load(Ordering::Relaxed) - down);

    let (values, seconds) = (present(&root), took.as_secs_f64());
    let samples = values as f64 * seconds;
    let memory = |name| memory_kb(&proc, name).map(|kb| kb as f64 / 1e3 * 1.024);
    println!("{} guests, {values} series with a value each tick, {seconds:.0} s", arguments.guests);
    println!("CPU      {:.2} s/h ({:.2} s)", cpu.as_secs_f64() * 3600.0 / seconds, cpu.as_secs_f64());
    println!(
        "PSS {:.1} MB, RSS {:.1} MB, Anon {:.1} MB",
        memory("Pss:")?,
        memory("Rss:")?,
        memory("Anonymous:")?
    );
    println!("threads  {}", fs::read_dir(proc.join("task"))?.count());
    println!("wire     {:.2} B/sample up, {:.2} down", up as f64 / samples, down as f64 / samples);
    Ok(())
}

/// Starts a daemon with the configuration file of this name; its log is beside that.
fn start(program: &Path, dir: &Path, config: &str) -> anyhow::Result<Daemon> {
    let log = File::create(dir.join(format!("{config}.log")))?;
    let mut command = Command::new(program);
    command.arg("run").arg("--config").arg(dir.join(config)).stdout(log.try_clone()?).stderr(log);
    Ok(Daemon(command.spawn().with_context(|| format!("can not start {}", program.display()))?))
}

/// Bytes that went through the proxy.
#[derive(Default)]
struct Wire {
    up: AtomicU64,
    down: AtomicU64,
}

/// Starts an aggregator with a certificate for one agent, and the proxy before it.
fn aggregator(program: &Path, dir: &Path) -> anyhow::Result<(Daemon, SocketAddr, Arc<Wire>)> {
    let target = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let config = format!("data_dir = {:?}\nlisten = \"{target}\"\n", dir.join("data"));
    fs::write(dir.join("aggregator.toml"), config)?;
    let mut issue = Command::new(program);
    issue.arg("--config").arg(dir.join("aggregator.toml")).arg("issue-cert");
    issue.args(["--cluster", "main", "--node", "measured", "--out"]).arg(dir);
    ensure!(issue.status()?.success(), "no certificate for the agent");
    let daemon = start(program, dir, "aggregator.toml")?;
    while TcpStream::connect(target).is_err() {
        thread::sleep(Duration::from_millis(100));
    }
    let (listener, wire) = (TcpListener::bind("127.0.0.1:0")?, Arc::new(Wire::default()));
    let (proxy, counted) = (listener.local_addr()?, wire.clone());
    thread::spawn(move || {
        for agent in listener.incoming().flatten() {
            let Ok(aggregator) = TcpStream::connect(target) else { continue };
            let (Ok(from), Ok(back)) = (agent.try_clone(), aggregator.try_clone()) else { continue };
            let (up, down) = (counted.clone(), counted.clone());
            thread::spawn(move || pass(from, aggregator, &up.up));
            thread::spawn(move || pass(back, agent, &down.down));
        }
    });
    Ok((daemon, proxy, wire))
}

fn pass(mut from: TcpStream, mut to: TcpStream, counter: &AtomicU64) {
    let mut buffer = [0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        counter.fetch_add(read as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // The other side may have closed already.
    let _ = to.shutdown(Shutdown::Both);
}

fn cpu_time(proc: &Path) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(proc.join("stat")).context("the agent ended")?;
    let fields = stat.rsplit_once(')').context("no stat")?.1.split_whitespace().skip(11).take(2);
    let hundredths = fields.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(hundredths * 10))
}

fn memory_kb(proc: &Path, name: &str) -> anyhow::Result<u64> {
    let rollup = fs::read_to_string(proc.join("smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Series that have a value at a tick.
fn present(root: &Path) -> usize {
    let config = CollectConfig { root: root.to_owned(), ..CollectConfig::default() };
    let (mut source, mut registry) = (NodeSource::new(config), Registry::new(100_000));
    let readings = (1..=4).map(|second| {
        thread::sleep(Duration::from_secs(1));
        source.read(Timestamp::default(), Duration::from_secs(second), &mut registry).tick.values.len()
    });
    readings.last().unwrap_or_default()
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (path, target) = (entry.as_ref().map(fs::DirEntry::path), to.join(entry?.file_name()));
        let path = path.map_err(|error| anyhow::anyhow!("{error}"))?;
        if path.is_dir() { copy(&path, &target)? } else { fs::copy(&path, target).map(drop)? }
    }
    Ok(())
}

/// The fixture's host, with virtual machines in place of its own guests, each with a NIC behind a firewall bridge.
fn plant(root: &Path, guests: u32) -> anyhow::Result<()> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/fixtures/pve9/t0");
    copy(&fixture, root)?;
    fs::remove_dir_all(root.join("sys/fs/cgroup/lxc"))?;
    fs::remove_dir_all(root.join("sys/fs/cgroup/qemu.slice"))?;
    let mut nics = fs::read_to_string(root.join("proc/net/dev"))?;
    for vmid in 1000..1000 + guests {
        let (scope, pid) = (root.join(format!("sys/fs/cgroup/qemu.slice/{vmid}.scope")), vmid + 10_000);
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
            nics.push_str(&format!(
                "{name}{vmid}{end}: 123456789 1234567 0 0 0 0 0 0 987654321 7654321 0 0 0 0 0 0\n"
            ));
        }
    }
    Ok(fs::write(root.join("proc/net/dev"), nics)?)
}

/// A file whose numbers move.
struct Moving {
    file: File,
    path: PathBuf,
    text: String,
    /// Moves about its first contents instead of growing.
    gauge: bool,
}

fn moving_files(root: &Path) -> anyhow::Result<Vec<Moving>> {
    let host = ["stat", "diskstats", "net/dev", "pressure/cpu", "pressure/io", "pressure/memory", "meminfo"];
    let mut paths: Vec<PathBuf> = host.iter().map(|name| root.join("proc").join(name)).collect();
    for scope in fs::read_dir(root.join("sys/fs/cgroup/qemu.slice"))? {
        let scope = scope?.path();
        let files = ["cpu.stat", "io.stat", "memory.current", "memory.stat", "cpu.pressure", "io.pressure"];
        paths.extend(files.iter().map(|name| scope.join(name)));
    }
    let open = |path: PathBuf| {
        let (file, text) = (File::options().write(true).open(&path)?, fs::read_to_string(&path)?);
        Ok(Moving { file, gauge: path.to_string_lossy().contains("mem"), path, text })
    };
    paths.into_iter().map(open).collect()
}

/// Moves the files once a second, in place, since the agent keeps them open.
fn for_ever(files: &[Moving]) {
    let mut texts: Vec<String> = files.iter().map(|file| file.text.clone()).collect();
    for second in 0.. {
        for (file, text) in files.iter().zip(&mut texts) {
            let moved = moved(if file.gauge { &file.text } else { text }, file, second);
            // A tree that is gone is the end of the measurement.
            let _ = file.file.write_all_at(moved.as_bytes(), 0);
            let _ = file.file.set_len(moved.len() as u64);
            *text = moved;
        }
        thread::sleep(Duration::from_secs(1));
    }
}

/// The text with each number of four or more digits raised by up to 0.02 %, in the lines that are busy.
fn moved(text: &str, file: &Moving, second: i64) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for line in text.lines() {
        let mut hasher = DefaultHasher::new();
        (&file.path, line.split([' ', ':']).find(|word| !word.is_empty())).hash(&mut hasher);
        let salt = hasher.finish();
        let busy = file.gauge || file.path.ends_with("cpu.stat") || unit(salt, -1) < BUSY;
        for (nth, word) in line.split_inclusive([' ', '=']).enumerate() {
            let digits = word.trim_end_matches(' ');
            match digits.parse::<u64>() {
                Ok(number) if busy && digits.len() > 3 => {
                    let step = number as f64 / 5e3 * unit(salt ^ nth as u64, second);
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
