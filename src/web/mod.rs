//! HTTP for the operator: `/live`, `/ready` and `/metrics`; and, where they are
//! configured, [`autoconfig`] for mail clients and the pages of [`enrolment`].
//!
//! It belongs on loopback or behind a firewall; a reverse proxy publishes the
//! paths of `autoconfig` and of the pages, and no others. What the operator's
//! paths say holds no user, address or content.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

pub mod autoconfig;
mod bounded;
pub mod enrolment;

use bounded::{Bounded, Peer};

/// Whether clients should be sent here, for `/ready`.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicU8>);

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

impl Readiness {
    /// All sockets listen.
    pub fn ready(&self) {
        // Draining is the end: it is not taken back.
        let _ = self
            .0
            .compare_exchange(STARTING, READY, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// No new sessions; those that are there come to their end.
    pub fn draining(&self) {
        self.0.store(DRAINING, Ordering::Relaxed);
    }
}

/// The HTTP listener cannot be had.
#[derive(Debug)]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

impl std::error::Error for BindError {}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, source } = self;
        match source.kind() {
            io::ErrorKind::AddrInUse => write!(f, "http: {address}: address in use"),
            _ => write!(f, "http: {address}: {source}"),
        }
    }
}

/// What is served.
#[derive(Debug)]
pub struct Site {
    /// What `/metrics` says.
    pub metrics: Arc<Metrics>,
    /// What `/ready` says.
    pub readiness: Readiness,
    /// What mail clients are told.
    pub autoconfig: Option<autoconfig::Config>,
    /// Where people enrol.
    pub enrolment: Option<enrolment::Enrolment>,
}

/// The operator's HTTP server, listening.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl Server {
    /// Takes the socket; nothing is answered before [`Server::run`].
    pub async fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let failed = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(protocol = "http", %address, "listening");
        Ok(Self {
            listener,
            address,
            tls: None,
        })
    }

    /// Speaks TLS from the first octet, with the certificate that `config` has at the
    /// time of each handshake.
    #[must_use]
    pub fn with_tls(mut self, config: &rustls::ServerConfig) -> Self {
        let mut config = config.clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // What a mail client keeps of its session is worth nothing here.
        config.session_storage = rustls::server::ServerSessionMemoryCache::new(256);
        self.tls = Some(Arc::new(config));
        self
    }

    /// Where it listens, with the port that was chosen for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown`.
    pub fn run(self, site: Site, shutdown: CancellationToken) -> impl Future<Output = ()> + Send {
        let connections = match site.enrolment {
            Some(_) => bounded::CONNECTIONS_WITH_PAGES,
            None => bounded::CONNECTIONS,
        };
        let listener = Bounded::new(self.listener, connections, self.tls);
        let service = router(site).into_make_service_with_connect_info::<Peer>();
        let serve =
            axum::serve(listener, service).with_graceful_shutdown(shutdown.cancelled_owned());
        async move {
            // It returns only when it was stopped.
            let _ = serve.await;
        }
    }
}

fn router(site: Site) -> Router {
    let Site {
        metrics,
        readiness,
        autoconfig,
        enrolment,
    } = site;
    let submission = autoconfig.as_ref().and_then(|it| it.submission.clone());
    let pages = enrolment.and_then(|enrolment| {
        let pages = enrolment::router(enrolment, Arc::clone(&metrics), submission);
        if pages.is_none() {
            tracing::error!("no enrolment pages: the system gives no random numbers");
        }
        pages
    });
    let operator = Router::new()
        .route("/live", get(async || "alive\n"))
        .route("/ready", get(ready))
        .with_state(readiness)
        .route("/metrics", get(encode))
        .with_state(metrics);
    let all = match autoconfig {
        Some(config) => operator.merge(autoconfig::router(config)),
        None => operator.fallback(not_found),
    };
    let all = all.layer(map_response(close));
    match pages {
        // What is not below their paths is answered as without them.
        Some(pages) => all.merge(pages),
        None => all,
    }
}

async fn not_found() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "not found\n")
}

/// One request a connection: scrapers come seldom, and permits are few.
async fn close(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    match readiness.0.load(Ordering::Relaxed) {
        READY => (StatusCode::OK, "ready\n"),
        DRAINING => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
    }
}

async fn encode(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, content_type)], metrics.encode())
}

#[cfg(test)]
mod tests;
