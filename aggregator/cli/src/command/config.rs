//! `config check`: a ctl.toml is checked here, a daemon's file by the daemon that knows its options.

use std::path::Path;

use crate::args::{Cli, ConfigCommand, ConfigKind};
use crate::config::{ConfigError, CtlConfig, find, load};
use crate::error::CliError;
use crate::render::page::Page;
use crate::render::tone::Tone;
use crate::render::{Screen, note, print};

/// Does what was asked.
pub fn run(cli: &Cli, command: &ConfigCommand) -> Result<(), CliError> {
    let ConfigCommand::Check { file, kind } = command;
    let path = find(file.as_deref().or(cli.config.as_deref()))?;
    let shown = path.display();
    match kind.map_or_else(|| guess(&path), Some) {
        Some(ConfigKind::Ctl) => check(cli, &path),
        Some(ConfigKind::Agent) => Err(CliError::Usage(format!(
            "{shown} is a file of the agent, which knows its options best: run `evenkeel-agent check --config {shown}` on the node"
        ))),
        Some(ConfigKind::Aggregator) => Err(CliError::Usage(format!(
            "{shown} is a file of the aggregator, which knows its options best: run `evenkeel-aggregator check --config {shown}` there"
        ))),
        None => Err(CliError::Usage(format!(
            "can not tell whose file {shown} is; say it with --kind ctl, agent or aggregator"
        ))),
    }
}

fn check(cli: &Cli, path: &Path) -> Result<(), CliError> {
    // What was asked for is the check: a bad file is a failed check, not a wrong use.
    let target = load(path, None).map_err(|error| match error {
        missing @ ConfigError::Missing { .. } => CliError::Config(missing),
        bad => CliError::Failed(bad.to_string()),
    })?;
    for warning in &target.warnings {
        note(&format!("evenkeelctl: warning: {warning}"));
    }
    crate::client::endpoint(&target).map_err(|error| CliError::Failed(error.to_string()))?;
    if cli.output == crate::args::Output::Json {
        let answer = serde_json::json!({ "file": path, "ok": true, "warnings": target.warnings });
        return super::print_json(&answer);
    }
    let screen = Screen::detect(cli.utc);
    let mut page = Page::new(&screen);
    page.line(Tone::Green, &format!("{} is good.", path.display()));
    page.fields(&[
        ("endpoint", target.endpoint),
        ("ca_file", target.ca_file.display().to_string()),
        ("token_file", target.token_file.display().to_string()),
    ]);
    print(&page.finish())
}

/// Whose file it is: by its keys, then by its name.
fn guess(path: &Path) -> Option<ConfigKind> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    if let Ok(table) = text.parse::<toml::Table>() {
        let known = CtlConfig::keys();
        if table.keys().any(|key| known.contains(key)) && !table.values().any(toml::Value::is_table) {
            return Some(ConfigKind::Ctl);
        }
    }
    let name = path.file_name()?.to_str()?;
    [("ctl", ConfigKind::Ctl), ("aggregator", ConfigKind::Aggregator), ("agent", ConfigKind::Agent)]
        .into_iter()
        .find_map(|(word, kind)| name.contains(word).then_some(kind))
}
