//! Drives the shipped decision core from outside: from a simulator that speaks newline-delimited JSON on stdin and
//! stdout, or from a single snapshot of a cluster. The core, its defaults and the guests' profiles are those of the
//! daemons; only where the figures come from differs.

#![allow(clippy::print_stdout)]

mod at_once;
mod config;
mod log;
mod node;
mod protocol;
mod reliability;
mod simulated;

use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use evenkeel_core::Policy;

use protocol::{Answer, Ready, ToPolicy};
use simulated::Simulated;

/// Drives the shipped decision core: without a command, speaks with a cluster simulator on stdin and stdout.
#[derive(Debug, Parser)]
struct Arguments {
    /// Prints the configuration that is in effect, as TOML, and ends.
    #[arg(long)]
    print_config: bool,
    /// Sets an option, as in TOML: `--set min_improvement=1.5`, `--set intelligent_migrations.enabled=false`.
    #[arg(long, value_name = "OPTION=VALUE", global = true)]
    set: Vec<String>,
    /// Writes every move that is made and what came of it to this file, a JSON object a line.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Forgets the guests' past: as on the first day of an installation that finds no records.
    #[arg(long)]
    without_history: bool,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Prints the moves for one snapshot of a cluster, as JSON.
    Plan {
        /// The snapshot, JSON of version 1.
        file: PathBuf,
    },
    /// Prints how often moves helped, by the confidence they were told with.
    Reliability {
        /// Files that `--log` wrote.
        #[arg(required = true)]
        logs: Vec<PathBuf>,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let policy = config::effective(&arguments.set)?;
    match arguments.what {
        _ if arguments.print_config => print!("{}", config::shown(&policy)?),
        Some(What::Plan { file }) => println!("{}", serde_json::to_string(&plan(&file, &policy)?)?),
        Some(What::Reliability { logs }) => println!("{}", reliability::of(&logs)?),
        None => simulate(&policy, arguments.log.as_deref(), arguments.without_history)?,
    }
    Ok(())
}

fn plan(file: &Path, policy: &Policy) -> Result<Answer<String>> {
    let text = fs::read_to_string(file).with_context(|| format!("can not read {}", file.display()))?;
    let cluster = serde_json::from_str(&text)
        .with_context(|| format!("{} is no snapshot of version 1", file.display()))?;
    at_once::plan(&cluster, policy)
}

/// Answers the simulator line by line until it says so.
fn simulate(policy: &Policy, log: Option<&Path>, without_history: bool) -> Result<()> {
    let mut cluster: Option<Simulated> = None;
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line.context("can not read from the simulator")?;
        let message =
            serde_json::from_str(&line).context("the simulator said what is not in the protocol")?;
        match (message, &mut cluster) {
            (ToPolicy::Init(mut init), _) => {
                if without_history {
                    init.guests.iter_mut().for_each(|guest| guest.cpu_history.clear());
                }
                let log = log.map(log::Log::create).transpose()?;
                cluster = Some(Simulated::new(init, policy.clone(), log)?);
                writeln!(out, "{}", serde_json::to_string(&Ready::default())?)?;
            }
            (ToPolicy::Tick(tick), Some(cluster)) => {
                writeln!(out, "{}", serde_json::to_string(&cluster.tick(&tick)?)?)?;
            }
            (ToPolicy::Tick(_), None) => bail!("a tick came before init"),
            (ToPolicy::End {}, _) => return Ok(()),
        }
        out.flush()?;
    }
    Ok(())
}
