//! The IMAP upstream (RFC 3501, RFC 9051).
//!
//! From the socket upwards: `transport` (TCP, TLS) → `tap` (octets framed by
//! `framing` and `fetch`) → async-imap's decoder → `connection` (commands and
//! their ends; `idle`) → `login`, `folders`, `mailbox`, `contents`, `opening`,
//! `retrieval`, `removal` → `snapshot`, `update` → `session`, which is the seam's
//! other side. `docs/decisions/0001-async-imap-as-decoder.md` says why.
//!
//! What saves round trips: `early` sends an opening behind the login, `warm` brings
//! a folder up to date that is `known` (`docs/decisions/0011-opening-in-one-flight.md`);
//! `ahead` asks for the next messages (`docs/decisions/0012-reading-ahead.md`).
//! Between sessions `resting` holds connections: `takeover` is a session's way from
//! and to there, `vouching` what it may do without asking
//! (`docs/decisions/0013-connections-at-rest.md`).

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;

use crate::maildrop::Policy;
use crate::metrics::Metrics;
use crate::sasl::{Credentials, Mechanism};
use crate::store::Store;
use crate::upstream::snapshots::Snapshots;
use crate::upstream::{Upstream, UpstreamError, UpstreamSession};

mod ahead;
mod command;
mod config;
mod connection;
mod contents;
mod date;
mod diagnosis;
mod disposal;
mod early;
mod fetch;
mod folders;
mod found_uids;
mod framing;
#[cfg(fuzzing)]
pub mod fuzzing;
mod idle;
mod known;
mod listing;
mod login;
mod mailbox;
mod opening;
mod removal;
mod resting;
mod retrieval;
mod round_trips;
mod session;
mod shared;
mod snapshot;
mod special_use;
mod status;
mod takeover;
mod tap;
mod transport;
mod uid_set;
mod untagged;
mod update;
mod utf7;
mod vouching;
mod warm;

pub use config::{Config, Limits, Security, Timeouts};
pub use diagnosis::diagnose;
use shared::Shared;

/// An IMAP server as configured.
#[derive(Debug)]
pub struct Imap {
    config: Arc<Config>,
    shared: Arc<Shared>,
    store: Option<Store>,
    snapshots: Arc<Snapshots>,
    metrics: Arc<Metrics>,
}

impl Imap {
    /// The upstream; it is first connected to when somebody logs in. Without a
    /// store nothing is kept beyond this process.
    pub fn new(config: Config, store: Option<Store>) -> Self {
        Self {
            shared: Arc::new(Shared::new(config.economy.rest)),
            snapshots: Arc::new(Snapshots::new(store.clone(), &config.name)),
            config: Arc::new(config),
            store,
            metrics: Arc::default(),
        }
    }

    /// Counts where the program's metrics are.
    pub fn counting(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }
}

#[async_trait]
impl Upstream for Imap {
    async fn login(
        &self,
        credentials: Credentials,
        client: IpAddr,
        policy: Arc<Policy>,
    ) -> Result<Box<dyn UpstreamSession>, UpstreamError> {
        let place = session::Place {
            config: Arc::clone(&self.config),
            shared: Arc::clone(&self.shared),
            store: self.store.clone(),
            snapshots: Arc::clone(&self.snapshots),
            metrics: Arc::clone(&self.metrics),
            has_store: self.store.is_some(),
            policy,
        };
        let session = session::ImapSession::begin(place, credentials, client).await?;
        Ok(Box::new(session))
    }

    fn accepts(&self, mechanism: Mechanism) -> bool {
        match mechanism {
            Mechanism::Plain | Mechanism::Login => true,
            Mechanism::XOauth2 | Mechanism::OAuthBearer => self.shared.takes_tokens(),
        }
    }

    fn name(&self) -> &str {
        &self.config.name
    }

    fn realm(&self) -> Option<&str> {
        self.config.realm.as_deref()
    }

    async fn close(&self) {
        self.shared.resting.close().await;
    }
}
