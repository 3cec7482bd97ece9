//! The HTTPS side: certificate, connections, and the faults that concern them.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use evenkeel_common::id::NodeId;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::api::{self, Answer, Asked};
use super::cluster::FakeCluster;
use super::fault::Fault;
use super::lock;

/// The longest body that is read, in bytes; longer ones end the connection.
const MAX_BODY: usize = 1 << 16;

/// A node's certificate, signed by an authority of its own as in a Proxmox cluster.
pub(super) struct Identity {
    pub(super) ca_pem: String,
    pub(super) certificate: Vec<u8>,
    tls: Arc<ServerConfig>,
}

impl Identity {
    pub(super) fn new() -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "Fake Proxmox Virtual Environment");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(["127.0.0.1".to_owned()])?;
        leaf.distinguished_name.push(DnType::CommonName, "fake node");
        let certificate = leaf.signed_by(&key, &ca)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())?;
        Ok(Self { ca_pem: ca.pem(), certificate: certificate.der().to_vec(), tls: Arc::new(tls) })
    }
}

/// Which node of which cluster a server plays.
#[derive(Clone)]
pub(super) struct Player {
    pub(super) cluster: Arc<Mutex<FakeCluster>>,
    pub(super) node: NodeId,
}

impl Player {
    fn is_up(&self) -> bool {
        lock(&self.cluster).nodes.get(&self.node).is_some_and(|node| node.online)
    }
}

/// Accepts until `stop`.
pub(super) async fn serve(
    listener: TcpListener,
    identity: Identity,
    player: Player,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(identity.tls);
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((tcp, _)) = accepted else { continue };
        if !player.is_up() {
            continue; // Dropping it closes it.
        }
        let (acceptor, player, stop) = (acceptor.clone(), player.clone(), stop.clone());
        tokio::spawn(async move { stop.run_until_cancelled(connection(tcp, acceptor, player)).await });
    }
}

/// Serves one connection to its end. That a client goes away or distrusts the certificate is its own affair.
async fn connection(tcp: TcpStream, acceptor: TlsAcceptor, player: Player) {
    let Ok(tls) = acceptor.accept(tcp).await else { return };
    let service = service_fn(|request| respond(request, &player));
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(tls), service).await {
        tracing::debug!(%error, "A connection to the fake Proxmox ended early.");
    }
}

/// The connection is to end without an answer.
#[derive(Debug)]
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut on demand")
    }
}

impl std::error::Error for Cut {}

async fn respond(request: Request<Incoming>, player: &Player) -> Result<Response<Body>, Cut> {
    if !player.is_up() {
        return Err(Cut);
    }
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(Body::new(body), MAX_BODY).await.map_err(|_| Cut)?;
    let asked = Asked::of(&parts, &body);
    let path = parts.uri.path().strip_prefix("/api2/json").unwrap_or_default().to_owned();
    let (fault, answer) = {
        let mut cluster = lock(&player.cluster);
        *cluster.requests.entry(path.clone()).or_default() += 1;
        let fault = cluster.strike(&asked.method, &path);
        let lost = fault.as_ref().is_some_and(|fault| !fault.strikes_after());
        // A question that is struck may be answered nevertheless, to make half an answer of it; an order may not.
        let answer = if lost && asked.method == Method::POST {
            Answer::ok(json!([]))
        } else {
            api::answer(&mut cluster, &player.node, &path, &asked)
        };
        cluster.remember(&path, &asked, &answer, fault.as_ref());
        (fault, answer)
    };
    let Some(fault) = fault else { return Ok(answer.into_response()) };
    Ok(match fault {
        Fault::Unauthorized => Answer::bare(401, "Authentication failed!").into_response(),
        Fault::Forbidden(text) => Answer::error(403, &text).into_response(),
        Fault::Internal(text) | Fault::InternalAfter(text) => Answer::error(500, &text).into_response(),
        Fault::NodeUnreachable => Answer::bare(595, "No route to host").into_response(),
        Fault::Hang | Fault::HangAfter => std::future::pending().await,
        Fault::Reset | Fault::ResetAfter => return Err(Cut),
        Fault::EmptyList => {
            answer.map_data(|data| if data.is_array() { json!([]) } else { json!({}) }).into_response()
        }
        Fault::HalfList => answer.map_data(halve).into_response(),
        Fault::InvalidJson => Response::new(Body::from("<html><body>Welcome</body></html>")),
        Fault::SlowBody => Response::new(Body::from_stream(stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Some((Ok::<_, Infallible>(" "), ()))
        }))),
        Fault::Oversized => {
            Response::new(Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(" ".repeat(1 << 20)))))
        }
        Fault::TruncatedBody => {
            let mut text = answer.text();
            text.truncate(text.len() / 2);
            Response::new(Body::from_stream(stream::iter([Ok(text), Err(io::Error::other(Cut))])))
        }
    })
}

fn halve(data: Value) -> Value {
    match data {
        Value::Array(mut rows) => {
            rows.truncate(rows.len() / 2);
            Value::Array(rows)
        }
        other => other,
    }
}

impl Answer {
    /// As it goes over the wire: with Proxmox' text as HTTP reason.
    fn into_response(self) -> Response<Body> {
        let text = self.text();
        let mut response = Response::new(Body::from(text));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if let Ok(reason) = ReasonPhrase::try_from(self.reason) {
            response.extensions_mut().insert(reason);
        }
        let json = http::HeaderValue::from_static("application/json;charset=UTF-8");
        response.headers_mut().insert(http::header::CONTENT_TYPE, json);
        response
    }
}
