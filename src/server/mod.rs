//! The POP3 server: sockets, limits, and a driver for each connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::accounts::{Accounts, HttpCheck};
use crate::metrics::Metrics;
use crate::upstream::{Rest, Upstreams};

mod account_entry;
mod claim;
mod client;
pub mod config;
mod connection;
mod delivery;
mod guard;
mod http_entry;
mod judging;
mod listener;
mod lock;
mod login_delay;
mod notice;
mod opening;
pub mod policies;
mod probe;
mod record;
mod refusal;
pub mod tls;

pub use account_entry::{as_delegate, share};
pub use claim::{By, Claim, Closed, Unclear};
use config::{Config, Security};
use connection::Context;
use guard::{Guard, HeldUp};
pub use http_entry::LetIn;
use listener::{Admission, Listener};
use login_delay::LoginDelays;
pub use probe::UpstreamProbe;

/// Descriptors for everything but connections.
const SPARE_DESCRIPTORS: u64 = 32;

/// For sessions that did not end in time to be given up.
const HALT: Duration = Duration::from_secs(1);

/// A gateway whose sockets are bound.
pub struct Gateway {
    config: Config,
    upstreams: Arc<Upstreams>,
    accounts: Option<Arc<Accounts>>,
    metrics: Arc<Metrics>,
    http_check: Option<HttpCheck>,
    guard: Guard,
    listeners: Vec<Listener>,
}

/// A socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address of a listener.
    #[error("{key}: {address}: {reason}")]
    Address {
        /// The setting.
        key: &'static str,
        /// The address it names.
        address: SocketAddr,
        /// What the system says.
        reason: String,
    },
    /// The HTTP service that judges passwords cannot be asked as it is configured.
    #[error("auth_http: {0}")]
    HttpCheck(String),
    /// The system gives no random numbers.
    #[error("no random numbers from the system")]
    Random,
}

impl Gateway {
    /// Binds all sockets, or none.
    pub fn bind(
        config: Config,
        upstreams: Arc<Upstreams>,
        accounts: Option<Arc<Accounts>>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, BindError> {
        let guard = Guard::new(&config.limits).map_err(|_| BindError::Random)?;
        let http_check = config.http_check.clone().map(HttpCheck::new).transpose();
        let http_check = http_check.map_err(|error| BindError::HttpCheck(error.to_string()))?;
        let mut listeners = Vec::with_capacity(config.listeners.len());
        for listener in &config.listeners {
            let key = key(&listener.security);
            let address = listener.address;
            let failed = |error: io::Error| BindError::Address {
                key,
                address,
                reason: match error.kind() {
                    io::ErrorKind::AddrInUse => "address in use".to_owned(),
                    _ => error.to_string(),
                },
            };
            let only_v6 = address.is_ipv6()
                && config
                    .listeners
                    .iter()
                    .any(|other| other.address.is_ipv4() && other.address.port() == address.port());
            let security = listener.security.clone();
            let bound = Listener::bind(address, security, only_v6).map_err(failed)?;
            listeners.push((key, bound.address().map_err(failed)?, bound));
        }
        for (key, address, _) in &listeners {
            info!(%address, protocol = key, "listening");
        }
        let listeners = listeners
            .into_iter()
            .map(|(_, _, listener)| listener)
            .collect();
        Ok(Self {
            config,
            upstreams,
            accounts,
            metrics,
            http_check,
            guard,
            listeners,
        })
    }

    /// Serves until `shutdown`, then lets sessions end for the time that is
    /// granted to them.
    pub async fn run(self, shutdown: CancellationToken) {
        let limits = self.config.limits;
        let drain = self.config.timeouts.drain;
        let connections = limits.connections.min(descriptors_allow());
        if connections < limits.connections {
            warn!(
                connections,
                configured = limits.connections,
                "limits.connections cannot be reached: raise the limit of open files (LimitNOFILE, ulimit -n)"
            );
        }
        let admission = Admission::new(connections, limits.connections_per_network);
        let halt = CancellationToken::new();
        let context = Arc::new(Context {
            logins: self.config.policies.logins(),
            login_delay: self.config.policies.login_delay(),
            expire: self.config.policies.expire(),
            config: self.config,
            upstreams: self.upstreams,
            accounts: self.accounts,
            metrics: self.metrics,
            http_check: self.http_check,
            locks: Arc::default(),
            guard: self.guard,
            held_up: HeldUp::default(),
            delays: LoginDelays::default(),
            budget: Arc::new(Semaphore::new(limits.buffered_octets / 1024)),
            shutdown: shutdown.clone(),
            halt: halt.clone(),
        });
        let sessions = TaskTracker::new();
        let accepting = TaskTracker::new();
        for listener in self.listeners {
            let accept = listener.accept(
                Arc::clone(&context),
                Arc::clone(&admission),
                sessions.clone(),
            );
            accepting.spawn(async move {
                if let Err(error) = accept.await {
                    error!(%error, "a listener has failed");
                }
            });
        }
        accepting.close();
        shutdown.cancelled().await;
        accepting.wait().await;
        sessions.close();
        if timeout(drain, sessions.wait()).await.is_err() {
            warn!(sessions = sessions.len(), "sessions did not end in time");
            halt.cancel();
            let _ = timeout(HALT, sessions.wait()).await;
        }
    }
}

fn key(security: &Security) -> &'static str {
    match security {
        Security::ImplicitTls(_) => "pop3s",
        Security::Stls(_) => "pop3",
    }
}

/// Connections for which there are descriptors: one to the client, one to the
/// upstream, beside those at rest.
fn descriptors_allow() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.unwrap_or(u64::MAX);
    let connections = (limit - limit / Rest::SHARE).saturating_sub(SPARE_DESCRIPTORS) / 2;
    usize::try_from(connections).unwrap_or(usize::MAX).max(1)
}
