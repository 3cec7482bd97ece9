//! What the agent costs its node: runs the real `evenkeel-agent`, connected by mTLS to a real aggregator through a
//! proxy that counts bytes, and reads the agent's CPU time and memory from procfs.
//!
//! With `--guests 0` the agent watches this machine. With more it watches a generated tree of files, which this
//! program moves once a second; see [`evenkeel_tests::tree`] for what such a tree leaves out.
#![allow(clippy::print_stdout)] // It is a command for people.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
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
use evenkeel_tests::tree::Tree;

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
        let mut tree = Tree::plant(&root, arguments.guests)?;
        thread::spawn(move || {
            while tree.advance().is_ok() {
                thread::sleep(Duration::from_secs(1));
            }
        });
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
