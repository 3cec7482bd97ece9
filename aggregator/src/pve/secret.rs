//! The API token: read from a file, kept out of every log.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::error::PveError;

/// A text that never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// An API token of Proxmox VE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// `user@realm!tokenid`: may be shown.
    pub id: String,
    /// The value that Proxmox showed once.
    pub secret: Secret,
}

/// Where systemd puts credentials: readable by the service only, though the mode bits look wider.
const CREDENTIALS: &str = "/run/credentials/";

/// Reads a token file: one line `user@realm!tokenid=secret`, with or without `PVEAPIToken=` before it.
/// The second value warns when others than its owner can read the file.
///
/// # Errors
/// [`PveError::File`] when it can not be read or does not hold a token. The message never quotes its content.
pub fn read_token(path: &Path) -> Result<(Token, Option<String>), PveError> {
    let problem = |problem: String| PveError::File { path: path.to_owned(), problem };
    let unreadable = |error: std::io::Error| {
        problem(format!(
            "the token file can not be read ({error}); it must exist and belong to evenkeel's user"
        ))
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
    let mut text = String::new();
    file.by_ref().take(4096).read_to_string(&mut text).map_err(unreadable)?;
    let token = parse_token(&text).ok_or_else(|| {
        problem(
            "the file holds no API token; write one line `user@realm!tokenid=secret` into it, as \
                 `pveum user token add` printed it"
                .into(),
        )
    })?;
    let too_open = mode & 0o077 != 0 && !path.starts_with(CREDENTIALS);
    let warning = too_open.then(|| {
        let path = path.display();
        format!("{path}: others can read the API token (mode {mode:04o}); run `chmod 600 {path}`")
    });
    Ok((token, warning))
}

fn parse_token(text: &str) -> Option<Token> {
    let line = text.trim();
    let line = line.strip_prefix("PVEAPIToken=").unwrap_or(line);
    let (id, secret) = line.split_once('=')?;
    let (user, token) = id.split_once('!')?;
    let (name, realm) = user.rsplit_once('@')?;
    let word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_graphic() && c != '=');
    ([name, realm, token, secret].into_iter().all(word))
        .then(|| Token { id: id.to_owned(), secret: Secret::new(secret) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn write(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn a_token_is_read_and_never_shown() {
        for text in ["ek@pve!ro=s3cr3t-value\n", "PVEAPIToken=ek@pve!ro=s3cr3t-value"] {
            let (token, warning) = read_token(write(text, 0o600).path()).unwrap();
            assert_eq!((token.id.as_str(), token.secret.expose()), ("ek@pve!ro", "s3cr3t-value"));
            assert_eq!(warning, None);
            assert!(!format!("{token:?}").contains("s3cr3t"));
        }
    }

    #[test]
    fn a_readable_token_file_is_pointed_out_with_the_remedy() {
        for (mode, warned) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
            let (_, warning) = read_token(write("ek@pve!ro=x", mode).path()).unwrap();
            assert_eq!(warning.is_some_and(|w| w.contains("chmod 600")), warned, "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_without_quoting_it() {
        for text in [
            "",
            "hunter2",
            "ek@pve=hunter2",
            "ek!ro=hunter2",
            "@pve!ro=hunter2",
            "ek@pve!ro=",
            "a@b!c=hunt er2",
        ] {
            let error = read_token(write(text, 0o600).path()).unwrap_err();
            assert!(matches!(error, PveError::File { .. }) && !error.to_string().contains("hunt"), "{error}");
        }
        assert!(read_token(Path::new("/nonexistent/token")).is_err());
    }
}
