//! Tokens for people and scripts: `ekt_<id>_<secret>`, each with a role.
//!
//! The file keeps only the SHA-256 of each secret. A slow password hash would add nothing: the secret is 256 random
//! bits, which no dictionary holds and no speed of hashing finds, and a slow hash in front of every call would let
//! strangers spend our CPU. The fixed start lets secret scanners find a token that leaked into a repository.
//!
//! The daemon and an admin's command may use the file at the same time: writers take turns by a lock file, and a
//! reader looks whether the file was replaced.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use evenkeel_common::time::Timestamp;
use evenkeel_runtime::files::{self, FileError};
use evenkeel_runtime::random::{self, Entropy, NoEntropy};
use evenkeel_runtime::tls::hex;
use serde::{Deserialize, Serialize};

use super::roles::Role;
use super::sha256_hex;

/// Tokens kept at most, dead ones included.
const MAX_TOKENS: usize = 1000;
const MAX_LABEL: usize = 64;
const FILE_LIMIT: u64 = 1 << 20;
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// Why tokens could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file can not be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The lock file can not be used.
    #[error("can not lock {}", path.display())]
    Lock {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is damaged.
    #[error("{} is damaged; restore it from a backup, or remove it and create all tokens anew", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// The file was written by a newer evenkeel.
    #[error("{} was written by a newer evenkeel (version {version}, this one knows {VERSION}); upgrade", path.display())]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The label is empty, too long or not printable.
    #[error("a token's label is 1 to {MAX_LABEL} printable characters: who or what uses it")]
    Label,
    /// There are too many.
    #[error("there are {MAX_TOKENS} live tokens already; revoke some first")]
    TooMany,
    /// There is none with this id.
    #[error("there is no token {0:?}; `token list` shows their ids")]
    NoSuchToken(String),
    /// The machine gave no random bytes.
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
}

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    /// It does not look like a token.
    #[error(
        "this is not a token of evenkeel; it looks like ekt_{{id}}_{{secret}}, as `token create` printed it"
    )]
    Malformed,
    /// Unknown, or its secret is wrong; which of the two is nobody's business.
    #[error(
        "this token is not known here; check that it belongs to this aggregator, or ask an admin for a new one"
    )]
    Unknown,
    /// Its time is over.
    #[error("token {id} expired at {at}; ask an admin for a new one")]
    Expired {
        /// Which.
        id: String,
        /// When.
        at: Timestamp,
    },
    /// An admin revoked it.
    #[error("token {id} was revoked at {at}; ask an admin for a new one")]
    Revoked {
        /// Which.
        id: String,
        /// When.
        at: Timestamp,
    },
    /// The tokens can not be read, so nobody is let in.
    #[error("the aggregator can not read its tokens; its log says why")]
    Unavailable(#[source] TokenError),
}

/// Whom a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// What it may do.
    pub role: Role,
    /// The token's id, not secret.
    pub id: String,
    /// Who or what uses it.
    pub label: String,
}

/// What is known of a token; nothing of it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// 16 hex digits.
    pub id: String,
    /// What it may do.
    pub role: Role,
    /// Who or what uses it.
    pub label: String,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it is refused; `None` = never.
    pub expires: Option<Timestamp>,
    /// Since when it is refused, if it was revoked.
    pub revoked: Option<Timestamp>,
}

impl TokenInfo {
    fn is_dead(&self, now: Timestamp) -> bool {
        self.revoked.is_some() || self.expires.is_some_and(|at| at <= now)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    info: TokenInfo,
    secret_sha256: String,
}

/// Version of the file's form.
const VERSION: u32 = 1;

#[derive(Default, Serialize, Deserialize)]
struct Content {
    version: u32,
    tokens: Vec<Stored>,
}

/// Tells one content of the file from the next: every write makes a new file.
type Stamp = (u64, i64, i64, u64);

/// The tokens of one aggregator: `tokens.json` in its data directory.
pub struct Tokens {
    path: PathBuf,
    lock: PathBuf,
    read: Mutex<(Option<Stamp>, Vec<Stored>)>,
}

impl Tokens {
    /// Reads the tokens in `dir`, which exists. No file means no tokens.
    ///
    /// # Errors
    /// [`TokenError`] when the file is exposed, damaged or newer.
    pub fn open(dir: &Path) -> Result<Self, TokenError> {
        let tokens =
            Self { path: dir.join("tokens.json"), lock: dir.join("tokens.lock"), read: Mutex::default() };
        tokens.current(|_| ())?;
        Ok(tokens)
    }

    /// Makes a token. The text is shown once and kept nowhere. `validity`: `None` = until it is revoked.
    ///
    /// # Errors
    /// [`TokenError`]; no token is made then.
    pub fn create(
        &self,
        role: Role,
        label: &str,
        validity: Option<Duration>,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<(String, TokenInfo), TokenError> {
        if label.trim().is_empty() || label.chars().count() > MAX_LABEL || label.contains(char::is_control) {
            return Err(TokenError::Label);
        }
        let id = hex(&random::bytes::<ID_BYTES>(entropy)?);
        let secret = hex(&random::bytes::<SECRET_BYTES>(entropy)?);
        let info = TokenInfo {
            id,
            role,
            label: label.into(),
            created: now,
            expires: validity.map(|span| now.after(span)),
            revoked: None,
        };
        let stored = Stored { info: info.clone(), secret_sha256: sha256_hex(secret.as_bytes()) };
        self.change(|tokens| {
            if tokens.len() >= MAX_TOKENS {
                // The dead are kept for the record as long as there is room.
                tokens.retain(|token| !token.info.is_dead(now));
            }
            if tokens.len() >= MAX_TOKENS {
                return Err(TokenError::TooMany);
            }
            tokens.push(stored);
            Ok(())
        })?;
        Ok((format!("ekt_{}_{secret}", info.id), info))
    }

    /// All tokens, revoked and expired ones included, oldest first.
    ///
    /// # Errors
    /// [`TokenError`] when the file can not be read.
    pub fn list(&self) -> Result<Vec<TokenInfo>, TokenError> {
        self.current(|tokens| tokens.iter().map(|token| token.info.clone()).collect())
    }

    /// Makes a token worthless from now on, for every aggregator that reads this file. Revoking again changes nothing.
    ///
    /// # Errors
    /// [`TokenError::NoSuchToken`], or when the file can not be written.
    pub fn revoke(&self, id: &str, now: Timestamp) -> Result<(), TokenError> {
        self.change(|tokens| {
            let missing = || TokenError::NoSuchToken(id.chars().take(64).collect());
            let token = tokens.iter_mut().find(|token| token.info.id == id).ok_or_else(missing)?;
            token.info.revoked.get_or_insert(now);
            Ok(())
        })
    }

    /// Whom a token stands for.
    ///
    /// # Errors
    /// [`Rejected`], with a text for the caller.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Principal, Rejected> {
        let (id, secret) = split(token).ok_or(Rejected::Malformed)?;
        let hash = sha256_hex(secret.as_bytes());
        let found = self
            .current(|tokens| tokens.iter().find(|token| token.info.id == id).cloned())
            .map_err(Rejected::Unavailable)?
            .ok_or(Rejected::Unknown)?;
        if !same(found.secret_sha256.as_bytes(), hash.as_bytes()) {
            return Err(Rejected::Unknown);
        }
        let TokenInfo { id, role, label, expires, revoked, .. } = found.info;
        match (revoked, expires) {
            (Some(at), _) => Err(Rejected::Revoked { id, at }),
            (None, Some(at)) if at <= now => Err(Rejected::Expired { id, at }),
            _ => Ok(Principal { role, id, label }),
        }
    }

    /// Looks at the tokens as the file has them now; reads it only when it was replaced.
    fn current<T>(&self, look: impl FnOnce(&[Stored]) -> T) -> Result<T, TokenError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.stamp()?;
        if read.0 != stamp {
            *read = (stamp, self.load()?);
        }
        Ok(look(&read.1))
    }

    /// `None`: there is no file.
    fn stamp(&self) -> Result<Option<Stamp>, TokenError> {
        match fs::metadata(&self.path) {
            Ok(m) => Ok(Some((m.ino(), m.mtime(), m.mtime_nsec(), m.size()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError::Read { path: self.path.clone(), source }.into()),
        }
    }

    fn load(&self) -> Result<Vec<Stored>, TokenError> {
        match files::check_private(&self.path) {
            Err(FileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(Vec::new());
            }
            checked => checked?,
        }
        let text = files::read_text(&self.path, FILE_LIMIT)?;
        let content: Content = serde_json::from_str(&text)
            .map_err(|source| TokenError::Damaged { path: self.path.clone(), source })?;
        if content.version > VERSION {
            return Err(TokenError::Newer { path: self.path.clone(), version: content.version });
        }
        Ok(content.tokens)
    }

    /// Reads, changes and replaces the file while no other writer can.
    fn change(
        &self,
        edit: impl FnOnce(&mut Vec<Stored>) -> Result<(), TokenError>,
    ) -> Result<(), TokenError> {
        let failed = |source| TokenError::Lock { path: self.lock.clone(), source };
        let mut options = File::options();
        let lock = options.create(true).truncate(false).write(true).open(&self.lock).map_err(failed)?;
        lock.lock().map_err(failed)?; // Let go when the file is closed, also by a process that dies.
        let mut tokens = self.load()?;
        edit(&mut tokens)?;
        let content = Content { version: VERSION, tokens };
        let text = serde_json::to_vec_pretty(&content)
            .map_err(|source| TokenError::Damaged { path: self.path.clone(), source })?;
        Ok(files::write_atomic(&self.path, &text, 0o600)?)
    }
}

/// Id and secret of a token of the right shape.
fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.strip_prefix("ekt_")?.split_once('_')?;
    let hex_of = |text: &str, bytes: usize| {
        text.len() == 2 * bytes && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    (hex_of(id, ID_BYTES) && hex_of(secret, SECRET_BYTES)).then_some((id, secret))
}

/// Compares in a time that does not tell where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |difference, (a, b)| std::hint::black_box(difference | (a ^ b)));
    a.len() == b.len() && difference == 0
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
