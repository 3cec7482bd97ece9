//! `ctl.toml`: where the aggregator is, how to know it, and who asks.

use std::error::Error as _;
use std::path::{Path, PathBuf};

use evenkeel_common::config::{self as rules, ConfigError as Problems};
use evenkeel_runtime::files::{FileError, check_private, read_text};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use schemars::JsonSchema;
use serde::Deserialize;

/// Name of the environment variable with the path of a `ctl.toml`.
pub const CONFIG_VARIABLE: &str = "EVENKEEL_CONFIG";
/// No file named here is larger than this.
const MAX_BYTES: u64 = 1 << 20;

/// The file `ctl.toml`. Relative paths in it are relative to the file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CtlConfig {
    /// Address of the aggregator's gRPC port, for example `https://127.0.0.1:7443`.
    pub endpoint: String,
    /// PEM file with the certificate of the aggregator's own CA; no other CA is trusted.
    pub ca_file: PathBuf,
    /// File with the token (`ekt_...`) that says who you are. Keep it readable to you alone.
    pub token_file: PathBuf,
    /// Name the aggregator's certificate is made for, where it is not the host of `endpoint`.
    #[serde(default)]
    pub server_name: Option<String>,
}

impl CtlConfig {
    /// The names of all options, from the schema.
    #[must_use]
    pub fn keys() -> Vec<String> {
        let schema = schemars::schema_for!(Self);
        let properties = schema.get("properties").and_then(|p| p.as_object());
        properties.map(|options| options.keys().cloned().collect()).unwrap_or_default()
    }
}

/// Everything needed to call the aggregator: the configuration with its files read.
#[derive(Clone)]
pub struct Target {
    /// The `ctl.toml` it comes from.
    pub path: PathBuf,
    /// Address of the aggregator.
    pub endpoint: String,
    /// Name to verify the certificate against; `None` = the host of `endpoint`.
    pub server_name: Option<String>,
    /// Where the CA certificate is.
    pub ca_file: PathBuf,
    /// The CA certificates, as PEM.
    pub ca_pem: String,
    /// Where the token is.
    pub token_file: PathBuf,
    /// The token; never shown.
    pub token: String,
    /// What is not as it should be, but no reason to stop; a sentence each.
    pub warnings: Vec<String>,
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file at any of the usual places.
    #[error(
        "no ctl.toml found (looked at {looked_at}); name one with --config FILE\n\
         it holds endpoint, ca_file and token_file: `cargo up` writes one into its data directory, and `evenkeelctl config check` tells what is missing"
    )]
    Missing {
        /// The places, with commas.
        looked_at: String,
    },
    /// A file can not be read.
    #[error("{}; {remedy}", with_cause(.source))]
    Read {
        /// What to do.
        remedy: &'static str,
        /// Which file, and why.
        source: FileError,
    },
    /// `ctl.toml` does not hold what it should.
    #[error(transparent)]
    Content(#[from] Problems),
    /// The address of the aggregator is none.
    #[error(
        "endpoint {0:?} is not an address of an aggregator; write it like https://aggregator.example:7443"
    )]
    Endpoint(String),
    /// The CA file holds no certificate.
    #[error(
        "ca_file {0} holds no PEM certificate; copy the aggregator's ca.pem there (it starts with -----BEGIN CERTIFICATE-----)"
    )]
    NoCertificate(String),
    /// The token file does not hold one plain word.
    #[error("token_file {0} holds no token; it must hold exactly one line that starts with ekt_")]
    NoToken(String),
}

/// Finds `ctl.toml`: the one named, else `$EVENKEEL_CONFIG`, the user's, the machine's.
///
/// # Errors
/// [`ConfigError::Missing`] when there is none. A named file is taken as it is, existing or not.
pub fn find(named: Option<&Path>) -> Result<PathBuf, ConfigError> {
    let set = |variable: &str| std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(path) = named.map(Path::to_path_buf).or_else(|| set(CONFIG_VARIABLE)) {
        return Ok(path);
    }
    let user = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    let places: Vec<PathBuf> =
        user.into_iter().chain([PathBuf::from("/etc")]).map(|dir| dir.join("evenkeel/ctl.toml")).collect();
    places.iter().find(|path| path.exists()).cloned().ok_or_else(|| ConfigError::Missing {
        looked_at: places.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "),
    })
}

/// Reads `ctl.toml` and the files it names. `endpoint` wins over the file's.
///
/// # Errors
/// What is missing or wrong, and how to mend it.
pub fn load(path: &Path, endpoint: Option<&str>) -> Result<Target, ConfigError> {
    let config = parse(path)?;
    let base = path.parent().unwrap_or(Path::new(""));
    let (ca_file, token_file) = (base.join(&config.ca_file), base.join(&config.token_file));
    let ca_pem = read(&ca_file, "copy the aggregator's ca.pem there, or correct ca_file")?;
    if !matches!(CertificateDer::pem_slice_iter(ca_pem.as_bytes()).next(), Some(Ok(_))) {
        return Err(ConfigError::NoCertificate(ca_file.display().to_string()));
    }
    let token =
        read(&token_file, "put a token of this aggregator there, readable to you, or correct token_file")?;
    let token = token.trim();
    if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err(ConfigError::NoToken(token_file.display().to_string()));
    }
    let warnings = check_private(&token_file).err().map(|exposed| exposed.to_string()).into_iter().collect();
    Ok(Target {
        path: path.to_path_buf(),
        endpoint: endpoint.unwrap_or(&config.endpoint).to_owned(),
        server_name: config.server_name,
        ca_file,
        ca_pem,
        token: token.to_owned(),
        token_file,
        warnings,
    })
}

fn parse(path: &Path) -> Result<CtlConfig, ConfigError> {
    let text = read(path, "name a readable ctl.toml with --config FILE")?;
    Ok(rules::parse(&text, &path.display().to_string())?)
}

fn read(path: &Path, remedy: &'static str) -> Result<String, ConfigError> {
    read_text(path, MAX_BYTES).map_err(|source| ConfigError::Read { remedy, source })
}

fn with_cause(error: &FileError) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
