//! `evenkeelctl`: asks the aggregator, shows what it says, pauses and resumes it. Decides nothing itself.

mod args;
mod client;
mod command;
mod config;
mod error;
mod render;
mod watch;
mod whole_file;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Cli;
use crate::error::CliError;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            render::note(&format!("evenkeelctl: can not start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = command::run(cli) => outcome,
            Ok(()) = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
        }
    });
    // A name look-up that hangs must not keep the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_silent() {
                render::note(&format!("evenkeelctl: {error}"));
            }
            ExitCode::from(error.exit_code())
        }
    }
}
