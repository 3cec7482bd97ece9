//! The way to the aggregator: one verified TLS connection, a token with every call, and errors a person can act on.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use evenkeel_proto::v1::control_client::ControlClient;
use evenkeel_proto::v1::execution_client::ExecutionClient;
use evenkeel_proto::v1::fleet_client::FleetClient;
use evenkeel_proto::v1::history_client::HistoryClient;
use evenkeel_proto::v1::whatif_client::WhatifClient;
use evenkeel_proto::v1::{GetStatusRequest, GetStatusResponse};
use rustls::{CertificateError, Error as TlsError};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status};

use crate::config::{ConfigError, Target};
use crate::error::CliError;
use crate::render::plain;

/// How long to wait for the connection, TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one question may take. Streams have no limit; keep-alive finds a peer that is gone.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
/// Largest answer taken: a thousand decisions with their trails are a few MiB.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// A connection to the aggregator's control service.
pub struct Client {
    control: ControlClient<Channel>,
    execution: ExecutionClient<Channel>,
    fleet: FleetClient<Channel>,
    history: HistoryClient<Channel>,
    whatif: WhatifClient<Channel>,
    bearer: MetadataValue<Ascii>,
    target: Target,
}

impl Client {
    /// Connects and verifies the aggregator's certificate against the configured CA.
    ///
    /// # Errors
    /// [`CliError::Unreachable`] with the likely cause; [`CliError::Config`] for an address that is none.
    pub async fn connect(target: Target) -> Result<Self, CliError> {
        let endpoint = endpoint(&target)?;
        let channel = match tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(CliError::Unreachable(unreachable(&target, &error))),
            Err(_) => {
                return Err(CliError::Unreachable(format!(
                    "the aggregator at {} did not answer within {} s; check the address in {} and the firewall between",
                    target.endpoint,
                    CONNECT_TIMEOUT.as_secs(),
                    target.path.display()
                )));
            }
        };
        let mut bearer = MetadataValue::try_from(format!("Bearer {}", target.token))
            .map_err(|_| ConfigError::NoToken(target.token_file.display().to_string()))?;
        bearer.set_sensitive(true);
        let control = ControlClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let execution = ExecutionClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let fleet = FleetClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let history = HistoryClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let whatif = WhatifClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(Self { control, execution, fleet, history, whatif, bearer, target })
    }

    /// Where this client is connected to, and as what.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The fleet service on the same connection; call it inside [`Client::ask`] or [`Client::open`], which add the token.
    #[must_use]
    pub fn fleet(&self) -> FleetClient<Channel> {
        self.fleet.clone()
    }

    /// The execution service, in the same way.
    #[must_use]
    pub fn execution(&self) -> ExecutionClient<Channel> {
        self.execution.clone()
    }

    /// The history service, in the same way.
    #[must_use]
    pub fn history(&self) -> HistoryClient<Channel> {
        self.history.clone()
    }

    /// The what-if service, in the same way.
    #[must_use]
    pub fn whatif(&self) -> WhatifClient<Channel> {
        self.whatif.clone()
    }

    /// Asks one question, within [`REQUEST_DEADLINE`].
    ///
    /// # Errors
    /// The aggregator's refusal or the connection's end, see [`Client::explain`].
    pub async fn ask<Q, A>(
        &self,
        question: Q,
        call: impl AsyncFnOnce(ControlClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, CliError> {
        let mut request = self.request(question);
        request.set_timeout(REQUEST_DEADLINE);
        match tokio::time::timeout(REQUEST_DEADLINE, call(self.control.clone(), request)).await {
            Ok(answer) => answer.map(Response::into_inner).map_err(|status| self.explain(&status)),
            Err(_) => Err(self.explain(&Status::deadline_exceeded(""))),
        }
    }

    /// Opens a stream; it may last as long as it likes.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn open<Q, A>(
        &self,
        question: Q,
        call: impl AsyncFnOnce(ControlClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, CliError> {
        let request = self.request(question);
        call(self.control.clone(), request)
            .await
            .map(Response::into_inner)
            .map_err(|status| self.explain(&status))
    }

    /// The aggregator's status; carries its clock, by which everything here counts: a lab may run in virtual time.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn status(&self) -> Result<GetStatusResponse, CliError> {
        self.ask(GetStatusRequest {}, async |mut control, request| control.get_status(request).await).await
    }

    fn request<Q>(&self, question: Q) -> Request<Q> {
        let mut request = Request::new(question);
        request.metadata_mut().insert("authorization", self.bearer.clone());
        request
    }

    /// What a refusal means to the person who asked.
    pub fn explain(&self, status: &Status) -> CliError {
        let target = &self.target;
        // Remote text: it must not steer the terminal.
        let said = plain(status.message());
        let because = if said.is_empty() { String::new() } else { format!(": {said}") };
        if let Some(source) = status.source() {
            return CliError::Unreachable(unreachable(target, source));
        }
        match status.code() {
            Code::Unauthenticated => CliError::NotAllowed(format!(
                "the aggregator does not know the token in {}{because}\nask its admin for a new one and put it into that file",
                target.token_file.display()
            )),
            Code::PermissionDenied => CliError::NotAllowed(format!(
                "not allowed{because}\nuse a token with a higher role: set token_file in {}, or name another file with --config",
                target.path.display()
            )),
            Code::DeadlineExceeded | Code::Cancelled => CliError::Unreachable(format!(
                "the aggregator at {} took longer than {} s to answer; try again, or look at its log (journalctl -u evenkeel-aggregator)",
                target.endpoint,
                REQUEST_DEADLINE.as_secs()
            )),
            Code::Unavailable => CliError::Unreachable(format!(
                "the aggregator at {} is not ready{because}; try again in a moment",
                target.endpoint
            )),
            Code::InvalidArgument => CliError::Usage(said),
            Code::Unimplemented => CliError::Failed(
                "this aggregator does not know the command yet: upgrade evenkeel-aggregator to the version of evenkeelctl"
                    .to_owned(),
            ),
            Code::ResourceExhausted => CliError::Failed(format!(
                "too much at once{because}\nnarrow the question, for example with --since, --node or --guest"
            )),
            Code::Internal | Code::Unknown | Code::DataLoss => CliError::Failed(format!(
                "the aggregator failed{because}\nits log has more (journalctl -u evenkeel-aggregator)"
            )),
            _ => CliError::Failed(if said.is_empty() { status.code().to_string() } else { said }),
        }
    }
}

/// The checked address with TLS set up; does not connect.
///
/// # Errors
/// [`CliError::Config`] for an address that is none.
pub fn endpoint(target: &Target) -> Result<Endpoint, CliError> {
    let bad = || ConfigError::Endpoint(target.endpoint.clone());
    let endpoint = Endpoint::from_shared(target.endpoint.clone()).map_err(|_| bad())?;
    let uri = endpoint.uri();
    if uri.scheme_str() != Some("https") || !matches!(uri.path(), "" | "/") {
        return Err(bad().into());
    }
    // An IPv6 address stands in brackets in an address, but not in a certificate.
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&target.ca_pem))
        .domain_name(target.server_name.clone().unwrap_or(host));
    endpoint
        .tls_config(tls)
        .map(|endpoint| {
            endpoint
                .http2_keep_alive_interval(Duration::from_secs(15))
                .keep_alive_timeout(Duration::from_secs(10))
                .keep_alive_while_idle(true)
        })
        .map_err(|_| bad().into())
}

/// Says why the aggregator can not be reached, from the innermost cause that tells something.
fn unreachable(target: &Target, error: &(dyn StdError + 'static)) -> String {
    let (endpoint, config) = (&target.endpoint, target.path.display());
    if let Some(tls) = find::<TlsError>(error) {
        return not_trusted(target, tls);
    }
    match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => format!(
            "nothing listens at {endpoint}; start the aggregator (systemctl start evenkeel-aggregator) or correct endpoint in {config}"
        ),
        Some(
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected,
        ) => format!(
            "the connection to {endpoint} broke off; is that the aggregator's gRPC port, and is it up?"
        ),
        _ => {
            let mut cause = error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            format!(
                "can not reach the aggregator at {endpoint}: {}; check endpoint in {config}",
                plain(&cause.to_string())
            )
        }
    }
}

/// Says why the other side is not the aggregator that the configuration trusts.
fn not_trusted(target: &Target, error: &TlsError) -> String {
    let (endpoint, ca_file) = (&target.endpoint, target.ca_file.display());
    match error {
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            format!(
                "the server at {endpoint} is not vouched for by the CA in {ca_file}\nif the aggregator got a new CA, copy its ca.pem there; otherwise this is another server: do not trust it"
            )
        }
        TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!(
            "the certificate of {endpoint} is made for another name; set server_name in {} to a name it is made for",
            target.path.display()
        ),
        TlsError::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => format!(
            "the certificate of {endpoint} is not valid at this time; check this machine's clock, then restart the aggregator to renew it"
        ),
        TlsError::InvalidMessage(_) => {
            format!("{endpoint} does not speak TLS; is that the aggregator's gRPC port?")
        }
        other => format!("no trusted connection to {endpoint}: {}", plain(&other.to_string())),
    }
}

/// The first error of a kind in a chain of causes, also where an I/O error wraps it.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = wrapped.and_then(|inner| find(inner)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}
