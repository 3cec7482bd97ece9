//! Reads a configuration file; the rules themselves are in `evenkeel_common::config`.

use std::io;
use std::path::{Path, PathBuf};

use evenkeel_common::config::{self, Validate};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::files::{self, FileError};

/// No sensible configuration comes near it.
const LIMIT: u64 = 1 << 20;

/// Why a configuration file can not be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such file.
    #[error("there is no configuration file {}; create it (the package brings an example) or name another with --config", .0.display())]
    Missing(PathBuf),
    /// It may not be read.
    #[error("configuration file {} may not be read by this user; give it to the service's group: chgrp and chmod 0640", .0.display())]
    Forbidden(PathBuf),
    /// It can not be read for another reason.
    #[error(transparent)]
    File(FileError),
    /// It can be read, and is wrong.
    #[error("the configuration is not valid; correct this and start again:\n{0}")]
    Config(config::ConfigError),
}

/// Reads, parses and validates a file of at most 1 MiB.
///
/// # Errors
/// [`LoadError`]: file, line, option and remedy, everything that is wrong at once.
pub fn load<T: DeserializeOwned + JsonSchema + Validate>(path: &Path) -> Result<T, LoadError> {
    let text = files::read_text(path, LIMIT).map_err(|error| match &error {
        FileError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            LoadError::Missing(path.into())
        }
        FileError::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            LoadError::Forbidden(path.into())
        }
        _ => LoadError::File(error),
    })?;
    config::parse_valid(&text, &path.display().to_string()).map_err(LoadError::Config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_common::config::Violation;
    use serde::Deserialize;
    use std::fs;

    #[derive(Debug, Default, PartialEq, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Config {
        interval: u8,
    }
    impl Validate for Config {
        fn validate(&self) -> Result<(), Vec<Violation>> {
            if self.interval < 9 {
                Ok(())
            } else {
                Err(vec![Violation::new("interval", self.interval, "below 9")])
            }
        }
    }

    #[test]
    fn files_are_read_and_errors_name_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        let load = || load::<Config>(&path).map_err(|error| error.to_string());
        assert!(load().unwrap_err().contains("a.toml; create it"));
        fs::write(&path, "interval = 5\n").unwrap();
        assert_eq!(load(), Ok(Config { interval: 5 }));
        fs::write(&path, "\nintervall = 5\n").unwrap();
        assert!(load().unwrap_err().contains("a.toml:2: unknown option \"intervall\""));
        fs::write(&path, "interval = 9\n").unwrap();
        assert!(load().unwrap_err().contains("a.toml:1: interval = 9 is not valid: expected below 9"));
        fs::write(&path, "#".repeat(LIMIT as usize + 1)).unwrap();
        assert!(load().unwrap_err().contains("a.toml is larger than"));
    }
}
