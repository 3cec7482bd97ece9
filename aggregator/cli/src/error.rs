//! How a command fails: one closed list, so that exit codes stay a contract that scripts can rely on.

use std::io;

use crate::config::ConfigError;

/// Why a command did not do what was asked. Displays as one or two lines that name the remedy.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line does not make sense; exit code 2.
    #[error("{0}")]
    Usage(String),
    /// `ctl.toml` or a file it names can not be used; exit code 2.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The aggregator can not be reached, or is not the one the configuration trusts; exit code 3.
    #[error("{0}")]
    Unreachable(String),
    /// The aggregator does not allow it; exit code 4.
    #[error("{0}")]
    NotAllowed(String),
    /// It was asked and the answer is no; exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Someone pressed Ctrl-C; exit code 130.
    #[error("interrupted")]
    Interrupted,
    /// Whoever read the output went away (`evenkeelctl ... | head -1`); exit code 0, without a word.
    #[error("the reader of the output went away")]
    OutputClosed,
}

impl CliError {
    /// The exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) | Self::Config(_) => 2,
            Self::Unreachable(_) => 3,
            Self::NotAllowed(_) => 4,
            Self::Interrupted => 130,
        }
    }

    /// Whether there is anything to tell the person.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Interrupted | Self::OutputClosed)
    }

    /// What a failed write to standard output means.
    pub fn from_output(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::Failed(format!("can not write to standard output: {error}"))
        }
    }
}
