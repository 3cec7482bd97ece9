//! `completions` and `man`: what the command line says about itself, for shells and for `man`.

use std::path::Path;

use clap::CommandFactory as _;

use crate::args::Cli;
use crate::error::CliError;
use crate::render::print;

/// Prints the completion script of a shell.
pub fn completions(shell: clap_complete::Shell) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "evenkeelctl", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Prints the manual page, or writes the pages of all commands into a directory.
pub fn man(dir: Option<&Path>) -> Result<(), CliError> {
    let Some(dir) = dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(CliError::from_output)?;
        return print(&String::from_utf8_lossy(&page));
    };
    let failed = |error: std::io::Error| {
        CliError::Failed(format!("can not write manual pages to {}: {error}", dir.display()))
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(failed)
}
