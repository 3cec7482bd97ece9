//! The aggregator's daemon: arguments, configuration, run.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use clap::{Parser, Subcommand};
use evenkeel_aggregator::admin;
use evenkeel_aggregator::app::{Aggregator, Outside};
use evenkeel_aggregator::config::AggregatorConfig;
use evenkeel_runtime::clock::{Clock as _, SystemClock};
use evenkeel_runtime::random::SystemEntropy;
use evenkeel_runtime::{config_file, log, service, shutdown, tls};
use tokio_util::sync::CancellationToken;

/// Correlates what the agents of Proxmox VE clusters report, and decides and explains migrations.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file.
    #[arg(long, global = true, default_value = "/etc/evenkeel/aggregator.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run until SIGTERM.
    Run,
    /// Check the configuration and say what it means.
    Check,
    /// Work on certificates and tokens on this machine; needs no running aggregator.
    #[command(flatten)]
    Admin(admin::AdminCommand),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log may not be set up yet, and this is for the person who typed the command.
            #[allow(clippy::print_stderr)]
            {
                eprintln!("evenkeel-aggregator: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    tls::install_provider();
    let config: AggregatorConfig = config_file::load(&arguments.config)?;
    match arguments.command {
        Command::Check => admin::check(&config),
        Command::Admin(command) => admin::run(&config, command),
        Command::Run => {
            log::init(&config.log)?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            runtime.context("the async runtime does not start")?.block_on(serve(config))
        }
    }
}

async fn serve(config: AggregatorConfig) -> anyhow::Result<()> {
    let signals = shutdown::on_signal().context("signals can not be caught")?;
    let clock = Arc::new(SystemClock::new());
    let certificate_time = clock.now();
    let outside = Outside { clock: clock.clone(), certificate_time, entropy: Arc::new(SystemEntropy) };
    let aggregator = Aggregator::start(config, outside).await?;
    tracing::info!(address = %aggregator.address, "ready");
    service::ready();
    let (failed, watching) = (aggregator.failed.clone(), CancellationToken::new());
    let healthy = failed.clone();
    tokio::spawn(service::watchdog(clock, watching.clone(), move || !healthy.is_cancelled()));
    tokio::select! {
        () = signals.cancelled() => {}
        () = failed.cancelled() => {}
    }
    service::stopping();
    let broken = failed.is_cancelled();
    aggregator.shut_down().await;
    watching.cancel();
    if broken {
        Err(anyhow!("a part failed, see the log; systemd starts the aggregator again"))
    } else {
        Ok(())
    }
}
