//! What can go wrong between evenkeel and the Proxmox VE API: a variant per cause, each with its remedy.

use std::fmt;
use std::path::PathBuf;

use evenkeel_common::id::Vmid;

use super::tls::Fingerprint;

/// One call of the API, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Base address of the node that was asked.
    pub endpoint: Box<str>,
    /// Path below `/api2/json`, without the query.
    pub path: Box<str>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.path, self.endpoint)
    }
}

/// Why the Proxmox VE API could not be used, or its answer not be trusted.
///
/// Texts that Proxmox sent are cut to 500 characters and hold no control characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PveError {
    /// The configuration can not work.
    #[error("pve.{option}: {problem}")]
    Config {
        /// Name of the option.
        option: &'static str,
        /// What is wrong, and what to write instead.
        problem: String,
    },
    /// A file that the configuration names can not be used.
    #[error("{}: {problem}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong, with the remedy.
        problem: String,
    },
    /// 401: the token does not exist, has expired, or its secret is wrong.
    #[error(
        "{call}: the API token {token} was refused; look for it and its expiry with `pveum user token list {}`, \
         and replace the token file when its secret has changed", .token.split('!').next().unwrap_or_default()
    )]
    Unauthorized {
        /// What was asked.
        call: Call,
        /// The token's name (never its secret).
        token: String,
    },
    /// 403: the token lacks a privilege.
    #[error("{call}: {message}; grant it with `{repair}`")]
    Forbidden {
        /// What was asked.
        call: Call,
        /// Proxmox's words; they name path and privilege.
        message: String,
        /// Commands that grant it.
        repair: String,
    },
    /// The node or guest is not, or no longer, where it was looked for.
    #[error("{call}: {message}; it has moved or is gone, the next inventory tells where it is")]
    NotFound {
        /// What was asked.
        call: Call,
        /// Proxmox's words.
        message: String,
    },
    /// 400: this version of Proxmox does not take what was sent.
    #[error("{call}: {message}; this version of Proxmox VE does not take that request, please report it")]
    BadRequest {
        /// What was asked.
        call: Call,
        /// Proxmox's words, with each parameter it objects to.
        message: String,
    },
    /// The guest is locked by a task.
    #[error("{call}: the guest is locked ({lock}); wait for that task, or, if none runs, `{}`", unlock(*.guest, .container))]
    Locked {
        /// What was asked.
        call: Call,
        /// The guest, where the path names one.
        guest: Option<Vmid>,
        /// Whether it is a container.
        container: bool,
        /// Kind of lock: backup, migrate, snapshot, ...
        lock: String,
    },
    /// No complete answer in time.
    #[error(
        "{call}: no complete answer within {timeout_secs} s; is the node overloaded, or a firewall between?"
    )]
    Timeout {
        /// What was asked.
        call: Call,
        /// The limit, option `timeout_secs`.
        timeout_secs: u32,
    },
    /// The server's certificate is not one that the configuration trusts.
    #[error(
        "{call}: the server's certificate is not trusted ({problem}); expected {expected}, seen {seen}. Compare with \
         `openssl x509 -noout -fingerprint -sha256 -in /etc/pve/local/pve-ssl.pem` on that node before you trust it"
    )]
    Tls {
        /// What was asked.
        call: Call,
        /// What verification said.
        problem: String,
        /// The pinned fingerprints, or the certificate authority's file.
        expected: String,
        /// Fingerprint of the certificate the server showed.
        seen: Fingerprint,
    },
    /// 595, 596, 599: the node that was asked could not reach the node in question.
    #[error("{call}: status {status}, the node it concerns does not answer the one that was asked{}", detail(.message))]
    NodeUnreachable {
        /// What was asked.
        call: Call,
        /// Proxmox's status.
        status: u16,
        /// Proxmox's words, often none.
        message: String,
    },
    /// No connection, or it broke.
    #[error(
        "{call}: no working connection ({problem}); is pveproxy running there (`systemctl status pveproxy`)?"
    )]
    Unavailable {
        /// What was asked.
        call: Call,
        /// What the network said.
        problem: String,
    },
    /// 501: this version of Proxmox has no such call.
    #[error("{call}: this version of Proxmox VE does not have this call{}", detail(.message))]
    NotImplemented {
        /// What was asked.
        call: Call,
        /// Proxmox's words.
        message: String,
    },
    /// Any other refusal.
    #[error("{call}: status {status}{}; see `journalctl -u pvedaemon -u pveproxy` on that node", detail(.message))]
    Refused {
        /// What was asked.
        call: Call,
        /// HTTP status.
        status: u16,
        /// Proxmox's words.
        message: String,
    },
    /// The answer is longer than allowed.
    #[error(
        "{call}: the answer is longer than {limit_mib} MiB; raise `max_answer_mib` if the cluster is that large"
    )]
    TooLarge {
        /// What was asked.
        call: Call,
        /// The limit, option `max_answer_mib`.
        limit_mib: u32,
    },
    /// The answer is not what this call answers in any version known.
    #[error(
        "{call}: the answer can not be understood ({what}); is this a Proxmox VE API? If so, please report it"
    )]
    Decode {
        /// What was asked.
        call: Call,
        /// What is wrong with it.
        what: String,
    },
    /// The answer is well formed but too little to be the whole truth; deciding on it would be wrong.
    #[error("{path}: {what}")]
    HalfAnswer {
        /// The call whose answer is doubted.
        path: &'static str,
        /// What is missing, and what to look at.
        what: String,
    },
}

fn detail(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

fn unlock(guest: Option<Vmid>, container: &bool) -> String {
    let tool = if *container { "pct" } else { "qm" };
    guest.map_or_else(|| format!("{tool} unlock VMID"), |guest| format!("{tool} unlock {guest}"))
}

impl PveError {
    /// Whether the same call may succeed later without a person's help. No `_` arm, on purpose.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Locked { .. }
            | Self::Timeout { .. }
            | Self::NodeUnreachable { .. }
            | Self::Unavailable { .. }
            | Self::HalfAnswer { .. } => true,
            // "no quorum" and an overloaded daemon come as 500; a 4xx stays what it is.
            Self::Refused { status, .. } => *status >= 500,
            Self::Config { .. }
            | Self::File { .. }
            | Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::BadRequest { .. }
            | Self::Tls { .. }
            | Self::NotImplemented { .. }
            | Self::TooLarge { .. }
            | Self::Decode { .. } => false,
        }
    }

    /// Stable name of the cause, for logs and metric labels.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Config { .. } => "config",
            Self::File { .. } => "file",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Forbidden { .. } => "forbidden",
            Self::NotFound { .. } => "not_found",
            Self::BadRequest { .. } => "bad_request",
            Self::Locked { .. } => "locked",
            Self::Timeout { .. } => "timeout",
            Self::Tls { .. } => "tls",
            Self::NodeUnreachable { .. } => "node_unreachable",
            Self::Unavailable { .. } => "unavailable",
            Self::NotImplemented { .. } => "not_implemented",
            Self::Refused { .. } => "refused",
            Self::TooLarge { .. } => "too_large",
            Self::Decode { .. } => "decode",
            Self::HalfAnswer { .. } => "half_answer",
        }
    }

    /// Whether another node of the cluster may answer where this one did not. Only what the asked node itself
    /// is to blame for: a refused token or a missing guest is the same everywhere.
    pub(super) fn another_endpoint_may_help(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Unavailable { .. } | Self::Tls { .. })
    }
}

/// A text from outside made fit for a log line: one line, at most 500 characters.
pub(super) fn plain(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}
