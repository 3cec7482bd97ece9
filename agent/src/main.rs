//! The daemon: arguments, configuration, log, signals, and then [`evenkeel_agent::run::run`].

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use clap::Parser;
use evenkeel_agent::check::Sight;
use evenkeel_agent::collect::{CollectConfig, NodeSource};
use evenkeel_agent::config::AgentConfig;
use evenkeel_agent::run::{Agent, look, run};
use evenkeel_runtime::clock::{Clock as _, SystemClock};
use evenkeel_runtime::random::SystemEntropy;
use evenkeel_runtime::{config_file, log, service, shutdown, tls};

/// Without a tick for this long the watchdog lets systemd restart the agent: three of the longest intervals.
const STUCK_S: u64 = 180;

/// Samples this Proxmox VE node and its guests, finds anomalies, and streams to the evenkeel aggregator.
#[derive(Parser)]
#[command(
    version,
    after_help = "First `evenkeel-agent check`, then `systemctl enable --now evenkeel-agent`."
)]
enum Command {
    /// Run in the foreground until SIGTERM, as systemd starts it.
    Run(WithConfig),
    /// Check the configuration, and say what the agent can and can not see on this node and how to fix it.
    Check(WithConfig),
}

#[derive(clap::Args)]
struct WithConfig {
    /// The configuration file.
    #[arg(long, default_value = "/etc/evenkeel/agent/agent.toml")]
    config: PathBuf,
}

#[allow(clippy::print_stderr)] // Before there is a log, and for whoever typed the command.
fn main() -> ExitCode {
    tls::install_provider();
    let done = match Command::parse() {
        Command::Run(WithConfig { config }) => load(&config).and_then(daemon),
        Command::Check(WithConfig { config }) => load(&config).and_then(|config| check(&config)),
    };
    done.unwrap_or_else(|error| {
        eprintln!("evenkeel-agent: {error:#}");
        ExitCode::FAILURE
    })
}

fn load(path: &Path) -> anyhow::Result<AgentConfig> {
    Ok(config_file::load(path)?)
}

fn daemon(config: AgentConfig) -> anyhow::Result<ExitCode> {
    log::init(&config.log)?;
    let clock = Arc::new(SystemClock::new());
    let agent =
        Agent { source: source(&config), config, clock: clock.clone(), entropy: Arc::new(SystemEntropy) };
    runtime()?.block_on(async {
        let stop = shutdown::on_signal().context("signals can not be handled")?;
        let last_tick = Arc::new(AtomicU64::new(0));
        let (seen, now) = (last_tick.clone(), clock.clone());
        let alive = move || now.uptime().as_secs() < seen.load(Ordering::Relaxed) + STUCK_S;
        run(agent, stop.clone(), |uptime| {
            if last_tick.swap(uptime.as_secs(), Ordering::Relaxed) == 0 {
                service::ready();
                tokio::spawn(service::watchdog(clock.clone(), stop.clone(), alive.clone()));
            }
        })
        .await?;
        service::stopping();
        Ok(ExitCode::SUCCESS)
    })
}

/// Prints what is seen and what is not; fails when something that evenkeel needs is missing.
#[allow(clippy::print_stdout)] // This is the command's answer.
fn check(config: &AgentConfig) -> anyhow::Result<ExitCode> {
    let findings = runtime()?.block_on(look(source(config), config, &SystemClock::new()));
    findings.iter().for_each(|finding| println!("{finding}"));
    let missing = findings.iter().any(|finding| finding.sight == Sight::Missing);
    Ok(if missing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn source(config: &AgentConfig) -> Box<NodeSource> {
    Box::new(NodeSource::new(CollectConfig { root: config.root.clone(), ..CollectConfig::default() }))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")
}
