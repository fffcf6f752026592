//! The IMAP upstream (RFC 3501, RFC 9051).
//!
//! From the socket upwards: `transport` (TCP, TLS) → `tap` (octets framed by
//! `framing` and `fetch`) → async-imap's decoder → `connection` (commands and
//! their ends) → `login`, `mailbox`, `retrieval`, `removal` → `session`, which
//! is the seam's other side. `docs/decisions/0001-async-imap-as-decoder.md`
//! says why.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;

use crate::sasl::{Credentials, Mechanism};
use crate::upstream::{Upstream, UpstreamError, UpstreamSession};

mod command;
mod config;
mod connection;
mod diagnosis;
mod fetch;
mod framing;
#[cfg(fuzzing)]
pub mod fuzzing;
mod listing;
mod login;
mod mailbox;
mod removal;
mod retrieval;
mod session;
mod shared;
mod status;
mod tap;
mod transport;
mod uid_set;
mod untagged;

pub use config::{Config, Limits, Security, Timeouts};
pub use diagnosis::diagnose;
use shared::Shared;

/// An IMAP server as configured.
#[derive(Debug)]
pub struct Imap {
    config: Arc<Config>,
    shared: Arc<Shared>,
}

impl Imap {
    /// The upstream; it is first connected to when somebody logs in.
    pub fn new(config: Config) -> Self {
        Self {
            config: Arc::new(config),
            shared: Arc::default(),
        }
    }
}

#[async_trait]
impl Upstream for Imap {
    async fn login(
        &self,
        credentials: Credentials,
        client: IpAddr,
    ) -> Result<Box<dyn UpstreamSession>, UpstreamError> {
        let config = Arc::clone(&self.config);
        let shared = Arc::clone(&self.shared);
        let session = session::ImapSession::login(config, shared, credentials, client).await?;
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
}
