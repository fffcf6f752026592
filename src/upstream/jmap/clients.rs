//! HTTP clients: each has connections of its own, and holds no secret.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::config::Config;
use crate::upstream::UpstreamError;

/// Silence before the kernel asks whether the server is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// An idle connection within a session is kept so long, as by default.
const IDLE: Duration = Duration::from_secs(90);
/// One for what is downloaded ahead, of which there are many: a client that reads
/// on does so sooner.
const IDLE_AHEAD: Duration = Duration::from_secs(5);
/// Connections of one client that have nothing to do, at most: as many as make
/// requests to the API at once.
const MOST_IDLE: usize = 4;

/// Which connections a request goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Those of what the client waits for. They may rest after the session.
    Asked,
    /// Those of what is downloaded ahead. Where a connection carries many
    /// requests at once (HTTP/2), they are the same ones.
    Ahead,
}

/// The clients of one session of one account.
pub(super) struct Clients {
    /// Rested before the session, or made for it.
    first: reqwest::Client,
    /// The first one rested, and has given no answer yet.
    unproven: AtomicBool,
    /// Instead of the first, which turned out to be no good.
    fresh: OnceLock<reqwest::Client>,
    ahead: OnceLock<reqwest::Client>,
    /// Answers come by HTTP/2.
    multiplexed: AtomicBool,
    /// Requests under way on what may rest, and the most there were.
    under_way: AtomicUsize,
    peak: AtomicUsize,
}

/// A request under way.
pub(super) struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Clients {
    /// The one that rested, or a new one.
    pub fn new(config: &Config, rested: Option<reqwest::Client>) -> Result<Self, UpstreamError> {
        let unproven = rested.is_some();
        let first = match rested {
            Some(client) => client,
            None => build(config, MOST_IDLE, idle(config))?,
        };
        Ok(Self {
            first,
            unproven: unproven.into(),
            fresh: OnceLock::new(),
            ahead: OnceLock::new(),
            multiplexed: false.into(),
            under_way: 0.into(),
            peak: 0.into(),
        })
    }

    /// The client for a request.
    pub fn client(&self, config: &Config, lane: Lane) -> Result<&reqwest::Client, UpstreamError> {
        if lane == Lane::Asked || self.is_multiplexed() {
            return Ok(self.fresh.get().unwrap_or(&self.first));
        }
        if let Some(client) = self.ahead.get() {
            return Ok(client);
        }
        let client = build(config, usize::MAX, IDLE_AHEAD)?;
        Ok(self.ahead.get_or_init(|| client))
    }

    /// Whether the connections rested, and none has given an answer yet.
    pub fn is_unproven(&self) -> bool {
        self.unproven.load(Ordering::Relaxed)
    }

    /// From here on, new connections.
    pub fn renew(&self, config: &Config) -> Result<&reqwest::Client, UpstreamError> {
        self.unproven.store(false, Ordering::Relaxed);
        let client = build(config, MOST_IDLE, idle(config))?;
        Ok(self.fresh.get_or_init(|| client))
    }

    /// Counts a request, for as long as what is returned is held.
    pub fn begin(&self, lane: Lane) -> Option<UnderWay<'_>> {
        if lane != Lane::Asked {
            return None;
        }
        let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(now, Ordering::Relaxed);
        Some(UnderWay(&self.under_way))
    }

    /// An answer has come.
    pub fn answered(&self, version: reqwest::Version) {
        self.unproven.store(false, Ordering::Relaxed);
        if version == reqwest::Version::HTTP_2 {
            self.multiplexed.store(true, Ordering::Relaxed);
        }
    }

    /// Whether one connection carries many requests at once.
    pub fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Ordering::Relaxed)
    }

    /// The client that may rest, and how many connections it has, at most.
    pub fn rest(&self) -> Option<(reqwest::Client, usize)> {
        let used = self.peak.load(Ordering::Relaxed);
        if self.is_unproven() || used == 0 {
            return None;
        }
        let connections = if self.is_multiplexed() {
            1
        } else {
            used.min(MOST_IDLE)
        };
        let client = self.fresh.get().unwrap_or(&self.first);
        Some((client.clone(), connections))
    }
}

/// How long connections that may rest are kept.
fn idle(config: &Config) -> Duration {
    config.economy.rest.longest.max(IDLE)
}

/// A client that keeps so many connections which have nothing to do, and for so
/// long.
fn build(
    config: &Config,
    most_idle: usize,
    idle: Duration,
) -> Result<reqwest::Client, UpstreamError> {
    let mut tls = (*config.tls).clone();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .tcp_nodelay(true)
        .tcp_keepalive(KEEPALIVE)
        .connect_timeout(config.timeouts.connect)
        .pool_max_idle_per_host(most_idle)
        .pool_idle_timeout(idle)
        .user_agent("popgate")
        .build()
        .map_err(|_| UpstreamError::Misconfigured("no HTTP client can be made".into()))
}
