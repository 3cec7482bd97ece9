//! Asks the API: over verified TLS, within a time and a size, at the next node when one does not answer.
//!
//! What reads may be repeated, which is what makes the fail-over safe. The one call that may not be, starting a
//! migration, is made once and at one node.

use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use evenkeel_common::id::Vmid;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::config::PveConfig;
use super::error::{Call, PveError, plain};
use super::permissions;
use super::secret::{Token, read_token};
use super::tls::{self, Fingerprint, Pins, Refused, Trust};

/// Longest error answer read; Proxmox' are a line or two.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// A client of one cluster's API. Cheap to share by `Arc`; holds its connections open.
#[derive(Debug)]
pub struct PveClient {
    http: reqwest::Client,
    endpoints: Vec<Endpoint>,
    /// Index of the endpoint that answered last.
    preferred: AtomicUsize,
    caller: Caller,
    pins: Option<Arc<Pins>>,
    timeout_secs: u32,
    max_answer_mib: u32,
    startup_warnings: Vec<String>,
}

/// As whom a call is made.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    authorization: HeaderValue,
    pub(super) token_id: String,
}

impl Caller {
    /// The token of a file, and a warning when others can read it.
    pub(super) fn read(option: &'static str, path: &Path) -> Result<(Self, Option<String>), PveError> {
        let (Token { id, secret }, warning) = read_token(path)?;
        let mut authorization = HeaderValue::from_str(&format!("PVEAPIToken={id}={}", secret.expose()))
            .map_err(|_| PveError::Config {
                option,
                problem: "the token holds characters that no HTTP header can".into(),
            })?;
        authorization.set_sensitive(true);
        Ok((Self { authorization, token_id: id }, warning))
    }
}

#[derive(Debug)]
struct Endpoint {
    base: Url,
    shown: String,
}

impl Endpoint {
    fn call(&self, path: &str) -> Call {
        Call { endpoint: self.shown.as_str().into(), path: path.into() }
    }
}

/// Proxmox wraps every answer.
#[derive(Deserialize)]
struct Envelope<T> {
    data: T,
}

impl PveClient {
    /// Reads token and trust from the files that `config` names. Does not connect yet.
    ///
    /// # Errors
    /// [`PveError::Config`] and [`PveError::File`], naming option or file.
    pub fn new(config: &PveConfig) -> Result<Self, PveError> {
        let broken = |option: &'static str, problem: String| PveError::Config { option, problem };
        let endpoints: Vec<Endpoint> = config
            .base_urls()?
            .into_iter()
            .map(|base| Endpoint { shown: base.as_str().trim_end_matches('/').to_owned(), base })
            .collect();
        let (caller, warning) = Caller::read("token_file", &config.token_file)?;
        let (trust, pins) = if config.fingerprints.is_empty() {
            (Trust::authority(&config.ca_file)?, None)
        } else {
            let pins = Arc::new(Pins::new(config.fingerprints.iter().copied()));
            (Trust::Pins(Arc::clone(&pins)), Some(pins))
        };
        let tls = tls::client_config(trust).map_err(|error| broken("ca_file", error.to_string()))?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("evenkeel/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| broken("endpoints", format!("no HTTPS client: {error}")))?;
        Ok(Self {
            http,
            endpoints,
            preferred: AtomicUsize::new(0),
            caller,
            pins,
            timeout_secs: config.timeout_secs,
            max_answer_mib: config.max_answer_mib,
            startup_warnings: warning.into_iter().collect(),
        })
    }

    /// What was not as it should be when the client was made, a sentence with remedy each.
    #[must_use]
    pub fn startup_warnings(&self) -> &[String] {
        &self.startup_warnings
    }

    /// Name of the token, `user@realm!tokenid`, without its secret.
    #[must_use]
    pub fn token_id(&self) -> &str {
        &self.caller.token_id
    }

    /// Whether certificates are pinned, so that new ones have to be learned.
    pub(super) fn is_pinned(&self) -> bool {
        self.pins.is_some()
    }

    /// Trusts, from now on, the configured pins and these.
    pub(super) fn learn_pins(&self, fingerprints: impl IntoIterator<Item = Fingerprint>) {
        if let Some(pins) = &self.pins {
            pins.learn(fingerprints.into_iter().collect());
        }
    }

    /// Asks for `path` (below `/api2/json`, segments already encoded) and reads `data` of the answer.
    ///
    /// Starts at the node that answered last; goes on to the next when a node is to blame, not the question.
    ///
    /// # Errors
    /// The first node's error when none answers, else that of the node that did; see [`PveError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, PveError> {
        self.get_as(&self.caller, path, query).await
    }

    /// The same as somebody else.
    pub(super) async fn get_as<T: DeserializeOwned>(
        &self,
        caller: &Caller,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, PveError> {
        let count = self.endpoints.len();
        let start = self.preferred.load(Ordering::Relaxed);
        let mut first_error = None;
        for index in (0..count).map(|step| (start + step) % count) {
            match self.ask(&self.endpoints[index], caller, path, |http, url| http.get(url).query(query)).await
            {
                Err(error) if error.another_endpoint_may_help() => {
                    tracing::warn!(cause = error.cause(), %error, "A Proxmox VE node did not answer.");
                    first_error.get_or_insert(error);
                }
                answer => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        Err(first_error
            .unwrap_or_else(|| PveError::Config { option: "endpoints", problem: "no node is named".into() }))
    }

    /// For an answer that is good JSON and still makes no sense.
    pub(super) fn misunderstood(&self, path: &str, what: &str) -> PveError {
        let endpoint = &self.endpoints[self.preferred.load(Ordering::Relaxed) % self.endpoints.len()];
        PveError::Decode { call: endpoint.call(path), what: plain(what) }
    }

    /// Makes a call that changes something, once: at the node that answered last, and at no other.
    pub(super) async fn post_once<T: DeserializeOwned>(
        &self,
        caller: &Caller,
        path: &str,
        form: &[(&str, &str)],
    ) -> Result<T, PveError> {
        let endpoint = &self.endpoints[self.preferred.load(Ordering::Relaxed) % self.endpoints.len()];
        self.ask(endpoint, caller, path, |http, url| http.post(url).form(form)).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        endpoint: &Endpoint,
        caller: &Caller,
        path: &str,
        request: impl Fn(&reqwest::Client, Url) -> reqwest::RequestBuilder,
    ) -> Result<T, PveError> {
        let call = endpoint.call(path);
        let mut url = endpoint.base.clone();
        url.set_path(&format!("/api2/json{path}"));
        let limit = Duration::from_secs(self.timeout_secs.into());
        let request = request(&self.http, url).header(AUTHORIZATION, caller.authorization.clone());
        let response =
            request.timeout(limit).send().await.map_err(|error| self.transport_error(&call, &error))?;
        let status = response.status();
        if status != StatusCode::OK {
            let message = self.error_message(&call, response).await;
            return Err(refusal(caller, call, status, message));
        }
        let body = self.body(&call, response).await?;
        serde_json::from_slice::<Envelope<T>>(&body)
            .map(|envelope| envelope.data)
            .map_err(|error| PveError::Decode { call, what: plain(&error.to_string()) })
    }

    /// Reads the answer, never more than the limit.
    async fn body(&self, call: &Call, mut response: Response) -> Result<Vec<u8>, PveError> {
        let limit = (self.max_answer_mib as usize) << 20;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.transport_error(call, &error))? {
            if body.len() + chunk.len() > limit {
                return Err(PveError::TooLarge { call: call.clone(), limit_mib: self.max_answer_mib });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Proxmox' words out of an error answer; empty when it sent none or they can not be read: the status
    /// alone tells enough.
    async fn error_message(&self, call: &Call, mut response: Response) -> String {
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_ERROR_BYTES => {
                    body.extend_from_slice(&chunk)
                }
                Ok(_) => break,
                Err(error) => {
                    tracing::debug!(%call, %error, "An error answer broke off.");
                    break;
                }
            }
        }
        message_of(&body)
    }

    fn transport_error(&self, call: &Call, error: &reqwest::Error) -> PveError {
        let call = call.clone();
        if error.is_timeout() {
            return PveError::Timeout { call, timeout_secs: self.timeout_secs };
        }
        if let Some(Refused { problem, expected, seen }) = find_refused(error) {
            return PveError::Tls { call, problem, expected, seen };
        }
        // The outermost text only repeats the address; the innermost names the cause.
        let innermost = std::iter::successors(error.source(), |&e| e.source()).last();
        PveError::Unavailable {
            call,
            problem: plain(&innermost.map_or(error.to_string(), ToString::to_string)),
        }
    }
}

fn refusal(caller: &Caller, call: Call, status: StatusCode, message: String) -> PveError {
    match status.as_u16() {
        401 => PveError::Unauthorized { call, token: caller.token_id.clone() },
        403 => {
            let repair = permissions::repair_denied(&caller.token_id, &message);
            PveError::Forbidden { call, message, repair }
        }
        400 => PveError::BadRequest { call, message },
        501 => PveError::NotImplemented { call, message },
        status @ (595 | 596 | 599) => PveError::NodeUnreachable { call, status, message },
        // What a proxy before Proxmox says when Proxmox is away.
        status @ (502..=504) => PveError::Unavailable { call, problem: format!("status {status}") },
        status => by_message(call, status, message),
    }
}

/// Proxmox answers most refusals with 500 and tells them apart by text only.
fn by_message(call: Call, status: u16, message: String) -> PveError {
    let locked = ["VM is locked (", "CT is locked ("].iter().find_map(|start| message.split_once(start));
    if let Some((_, rest)) = locked {
        let lock = rest.split(')').next().unwrap_or_default().to_owned();
        let container = message.contains("CT is locked");
        let guest = call.path.split('/').nth(4).and_then(|vmid| vmid.parse::<Vmid>().ok());
        return PveError::Locked { call, guest, container, lock };
    }
    let gone = message.contains("Configuration file '") && message.contains("does not exist");
    if status == 404
        || gone
        || message.starts_with("hostname lookup")
        || message.contains("no such cluster node")
    {
        return PveError::NotFound { call, message };
    }
    PveError::Refused { call, status, message }
}

/// `message` and the parameters' `errors` of an error answer, as one line.
fn message_of(body: &[u8]) -> String {
    let Ok(answer) = serde_json::from_slice::<serde_json::Value>(body) else { return String::new() };
    let mut text = answer["message"].as_str().map(plain).unwrap_or_default();
    for (parameter, problem) in answer["errors"].as_object().into_iter().flatten() {
        text.push_str(&format!(" {parameter}: {}", problem.as_str().unwrap_or_default().trim()));
    }
    plain(&text)
}

/// Finds our own verifier's refusal inside what hyper and rustls wrapped round it.
fn find_refused(error: &reqwest::Error) -> Option<Refused> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) =
            error.downcast_ref()
        {
            return other.0.downcast_ref::<Refused>().cloned();
        }
        next = match error.downcast_ref::<std::io::Error>() {
            // `io::Error::source` skips the error it wraps, so that one has to be taken out by hand.
            Some(wrapper) => wrapper.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(path: &str) -> Call {
        Call { endpoint: "https://pve1:8006".into(), path: path.into() }
    }

    #[test]
    fn error_answers_become_one_line() {
        let body = br#"{"data":null,"errors":{"online":"type check ('boolean') failed - got 'yes'\n"},
                        "message":"Parameter verification failed.\n"}"#;
        let line = "Parameter verification failed. online: type check ('boolean') failed - got 'yes'";
        assert_eq!(message_of(body), line);
        for silent in [&b""[..], b"<html>", b"{\"data\":null}", b"[]", b"{\"message\":7,\"errors\":[1]}"] {
            assert_eq!(message_of(silent), "");
        }
        let hostile = format!(r#"{{"message":"{}\u001b[31m\nroot logged in"}}"#, "x".repeat(600));
        assert!(message_of(hostile.as_bytes()).chars().all(|c| !c.is_control()));
        assert_eq!(message_of(hostile.as_bytes()).len(), 500);
    }

    #[test]
    fn refusals_by_text_are_told_apart() {
        let of = |path: &str, text: &str| by_message(call(path), 500, text.into());
        let locked = of("/nodes/pve2/lxc/310/migrate", "CT is locked (backup)");
        assert!(locked.to_string().contains("pct unlock 310"), "{locked}");
        assert!(locked.is_transient());
        let locked = of("/nodes/pve2/qemu/210/migrate", "VM is locked (migrate)");
        assert!(locked.to_string().contains("(migrate)") && locked.to_string().contains("qm unlock 210"));
        for gone in [
            "Configuration file 'nodes/pve2/qemu-server/100.conf' does not exist",
            "hostname lookup 'nope' failed - failed to get address info",
            "no such cluster node 'pve9'",
        ] {
            assert!(matches!(of("/nodes/pve2/qemu/100/config", gone), PveError::NotFound { .. }), "{gone}");
        }
        let other = of("/cluster/options", "cluster not ready - no quorum?");
        assert!(matches!(other, PveError::Refused { status: 500, .. }) && other.is_transient());
    }
}
