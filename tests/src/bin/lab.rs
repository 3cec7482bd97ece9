//! `cargo up`: arguments of the lab, and what it tells the person who started it.
#![allow(clippy::print_stdout, clippy::print_stderr)] // It is a command for people.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use evenkeel_core::Mode;
use evenkeel_runtime::log::{self, LogConfig};
use evenkeel_runtime::shutdown;
use evenkeel_tests::harness::Site;
use evenkeel_tests::lab::{self, Options};
use evenkeel_tests::sim::fault::Order;

/// Starts a real aggregator, this machine's real agent and a simulated Proxmox cluster of 8 nodes and 100 guests.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// End by itself after this time of the lab (90s, 5m, 24h).
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
    /// Directory that is kept; without it, a temporary one is used and removed.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Virtual seconds a second, 1 to 600. Above 1 time is virtual, and this machine's own agent is left out.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=600))]
    speed: u32,
    /// What makes this lab differ from others; the same seed repeats a run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds between samples of the simulated agents, 1 to 60. With a larger one virtual days pass sooner.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=60))]
    interval: u32,
    /// Leave the simulated cluster out.
    #[arg(long, conflicts_with = "speed")]
    only_this_host: bool,
    /// Port of the aggregator; 0 takes any free one.
    #[arg(long, default_value_t = 7443)]
    port: u16,
    /// Something that goes wrong: silent:NODE, burst:VMID, mute:VMID, load:NODE, link:NODE:MS:LOSS,
    /// leak:NODE:GIB_PER_HOUR, backup:NODE (every day from then on), api:401, api:500 or api:empty, followed by
    /// @START+LENGTH in seconds after the start, as in silent:pve5@120+60. May be given several times.
    #[arg(long, value_name = "FAULT", conflicts_with = "only_this_host")]
    fault: Vec<Order>,
    /// What is done with moves in the simulated cluster that pass all filters: advise, approve or auto.
    #[arg(long, default_value = "advise", value_parser = mode, conflicts_with = "only_this_host")]
    mode: Mode,
    /// What is logged on standard error.
    #[arg(long, default_value = "warn")]
    log: String,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    log::init(&LogConfig { level: arguments.log.clone(), ..LogConfig::default() })?;
    let temporary =
        tempfile::Builder::new().prefix("evenkeel-").tempdir().context("no temporary directory")?;
    let data = arguments.data.clone().unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&data).with_context(|| format!("can not create {}", data.display()))?;
    let ctl = build_ctl();
    let options = Options {
        data,
        seed: arguments.seed,
        interval_s: arguments.interval,
        speed: arguments.speed,
        time: arguments.time,
        only_this_host: arguments.only_this_host,
        port: arguments.port,
        faults: arguments.fault,
        mode: arguments.mode,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let stop = shutdown::on_signal()?;
        lab::run(&options, stop, &mut |site| tell(site, &options, &ctl)).await
    })
}

/// Builds evenkeelctl beside the lab when cargo started it, so that the lines shown can be typed at once.
fn build_ctl() -> PathBuf {
    #[allow(clippy::disallowed_methods)] // Set by cargo for what it runs.
    let cargo = std::env::var_os("CARGO");
    if let Some(cargo) = cargo {
        let built =
            Command::new(cargo).args(["build", "--locked", "--quiet", "--package", "evenkeel-cli"]).status();
        if !built.is_ok_and(|status| status.success()) {
            eprintln!("lab: evenkeelctl could not be built; `cargo build --package evenkeel-cli` tells why");
        }
    }
    let beside = std::env::current_exe().ok().and_then(|lab| lab.parent().map(|dir| dir.join("evenkeelctl")));
    beside.unwrap_or_else(|| "evenkeelctl".into())
}

fn tell(site: &Site, options: &Options, ctl: &Path) {
    let shown = std::env::current_dir().ok().and_then(|here| ctl.strip_prefix(here).ok()).unwrap_or(ctl);
    let ctl = format!("{} --config {}", shown.display(), site.dir.join("ctl.toml").display());
    println!("evenkeel runs; the aggregator listens on {}", site.aggregator.address);
    if options.speed > 1 {
        println!("virtual time, {} seconds a second; this machine's own agent is left out", options.speed);
    }
    println!("\nTry, in another terminal:");
    let local = ["status", "nodes", "anomalies --watch"];
    let lab =
        ["guests --node pve3", "decisions", "explain --node pve3", "replay \"$(the id of a decision)\""];
    for line in local {
        println!("  {ctl} {line}");
    }
    for line in lab.iter().take_while(|_| !options.only_this_host) {
        println!("  {ctl} {line}");
    }
    println!("\nDecisions come once a minute. End with Ctrl-C.");
}

fn mode(text: &str) -> Result<Mode, String> {
    let word = serde_json::Value::from(text);
    serde_json::from_value(word).map_err(|_| format!("{text:?} is no mode: write advise, approve or auto"))
}

fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no time: write 90s, 5m or 24h");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(scale).map(Duration::from_secs).ok_or_else(bad)
}
