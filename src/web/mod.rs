//! HTTP for the operator: `/live`, `/ready` and `/metrics`; and, where it is
//! configured, [`autoconfig`] for mail clients.
//!
//! It belongs on loopback or behind a firewall; a reverse proxy publishes the
//! paths of `autoconfig`, and no others. What the operator's paths say holds no
//! user, address or content.

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

use bounded::Bounded;

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
}

impl Server {
    /// Takes the socket; nothing is answered before [`Server::run`].
    pub async fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let failed = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(protocol = "http", %address, "listening");
        Ok(Self { listener, address })
    }

    /// Where it listens, with the port that was chosen for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown`.
    pub fn run(self, site: Site, shutdown: CancellationToken) -> impl Future<Output = ()> + Send {
        let listener = Bounded::new(self.listener);
        let serve =
            axum::serve(listener, router(site)).with_graceful_shutdown(shutdown.cancelled_owned());
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
        enrolment: _,
    } = site;
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
    all.layer(map_response(close))
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
