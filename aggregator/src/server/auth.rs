//! The one gate in front of every call: who is calling, by certificate and token, and may they. It denies what it does
//! not know, so a new call without a row in the table of roles can not be reached.

use std::sync::Arc;
use std::task::{Context, Poll};

use evenkeel_runtime::clock::Clock;
use evenkeel_runtime::tls::{AgentIdentity, peer_identity};
use futures_util::future::BoxFuture;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tower::{Layer, Service};

use crate::identity::authorise::{Peer, authorise};
use crate::identity::tokens::{Principal, Rejected, Tokens};

/// Puts the gate in front of a service. What it found out travels in the request's extensions: an
/// [`AgentIdentity`], a [`Principal`], or both.
#[derive(Clone)]
pub struct AuthLayer {
    tokens: Arc<Tokens>,
    clock: Arc<dyn Clock>,
}

impl AuthLayer {
    /// A gate that knows these tokens.
    #[must_use]
    pub fn new(tokens: Arc<Tokens>, clock: Arc<dyn Clock>) -> Self {
        Self { tokens, clock }
    }

    /// Finds out who calls, and whether they may.
    fn admit<B>(&self, request: &mut http::Request<B>) -> Result<(), Status> {
        let agent = agent_of(request)?;
        let principal = self.principal_of(request)?;
        let peer = Peer { agent, principal };
        authorise(request.uri().path(), &peer).map_err(|denied| {
            let text = denied.to_string();
            if denied.is_unauthenticated() {
                Status::unauthenticated(text)
            } else {
                Status::permission_denied(text)
            }
        })?;
        let extensions = request.extensions_mut();
        peer.agent.map(|agent| extensions.insert(agent));
        peer.principal.map(|principal| extensions.insert(principal));
        Ok(())
    }

    fn principal_of<B>(&self, request: &http::Request<B>) -> Result<Option<Principal>, Status> {
        let Some(header) = request.headers().get(http::header::AUTHORIZATION) else { return Ok(None) };
        let token =
            header.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")).ok_or_else(|| {
                Status::unauthenticated("the authorization header must be `Bearer ekt_...`")
            })?;
        match self.tokens.verify(token, self.clock.now()) {
            Ok(principal) => Ok(Some(principal)),
            Err(error @ Rejected::Unavailable(_)) => Err(Status::unavailable(error.to_string())),
            Err(error) => Err(Status::unauthenticated(error.to_string())),
        }
    }
}

/// Identity of the client certificate, which the TLS layer has verified against our authority.
fn agent_of<B>(request: &http::Request<B>) -> Result<Option<AgentIdentity>, Status> {
    let Some(info) = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>() else { return Ok(None) };
    let Some(certificates) = info.peer_certs() else { return Ok(None) };
    let Some(own) = certificates.first() else { return Ok(None) };
    peer_identity(own).map(Some).map_err(|error| Status::unauthenticated(error.to_string()))
}

impl<S> Layer<S> for AuthLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate { layer: self.clone(), inner }
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub struct Gate<S> {
    layer: AuthLayer,
    inner: S,
}

impl<S, B> Service<http::Request<B>> for Gate<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        if let Err(status) = self.layer.admit(&mut request) {
            tracing::info!(path = request.uri().path(), reason = status.message(), "call denied");
            return Box::pin(std::future::ready(Ok(status.into_http())));
        }
        // The clone that was polled ready must be the one that is called.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        Box::pin(async move { inner.call(request).await })
    }
}
