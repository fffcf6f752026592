//! The IMAP upstream (RFC 3501, RFC 9051).
//!
//! From the socket upwards: `transport` (TCP, TLS) → `tap` (octets framed by
//! `framing` and `fetch`) → async-imap's decoder → `connection` (commands and
//! their ends) → `login`, `mailbox`, `retrieval`, `removal` → `session`, which
//! is the seam's other side. `docs/decisions/0001-async-imap-as-decoder.md`
//! says why.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::sasl::{Credentials, Mechanism};
use crate::upstream::{Upstream, UpstreamError, UpstreamSession};

mod command;
mod config;
mod connection;
mod diagnosis;
mod fetch;
mod framing;
mod listing;
mod login;
mod mailbox;
mod removal;
mod retrieval;
mod session;
mod status;
mod tap;
mod transport;
mod uid_set;

pub use config::{Config, Limits, Security, Timeouts};
pub use diagnosis::diagnose;

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

/// What the sessions of one upstream know together. Keyed by account wherever
/// it is about one.
#[derive(Debug, Default)]
struct Shared {
    tokens: AtomicU8,
    unfinished: Mutex<HashMap<String, Unfinished>>,
    learned: Mutex<Learned>,
}

/// Messages that an update marked `\Deleted` and could neither remove nor
/// unmark. The client was told that they are still there, so they stay visible.
#[derive(Debug)]
struct Unfinished {
    uid_validity: u32,
    uids: HashSet<u32>,
}

/// True sizes that differ from the listed ones.
#[derive(Debug, Default)]
struct Learned {
    accounts: HashMap<(String, u32), HashMap<u32, u64>>,
    entries: usize,
}

/// Sizes remembered; beyond that all are forgotten and learned anew.
const MOST_LEARNED: usize = 100_000;

const UNKNOWN: u8 = 0;
const TAKEN: u8 = 1;
const REFUSED: u8 = 2;

impl Shared {
    fn learn_mechanisms(&self, capabilities: &login::Capabilities) {
        let tokens = ["AUTH=XOAUTH2", "AUTH=OAUTHBEARER"]
            .iter()
            .any(|it| capabilities.has(it));
        self.tokens
            .store(if tokens { TAKEN } else { REFUSED }, Ordering::Relaxed);
    }

    /// Whether the upstream takes bearer tokens; it may, until it was asked.
    fn takes_tokens(&self) -> bool {
        matches!(self.tokens.load(Ordering::Relaxed), UNKNOWN | TAKEN)
    }

    fn unfinished(&self, account: &str, uid_validity: u32) -> HashSet<u32> {
        let unfinished = self
            .unfinished
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match unfinished.get(account) {
            Some(it) if it.uid_validity == uid_validity => it.uids.clone(),
            _ => HashSet::new(),
        }
    }

    fn set_unfinished(&self, account: &str, uid_validity: u32, uids: HashSet<u32>) {
        let mut unfinished = self
            .unfinished
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if uids.is_empty() {
            unfinished.remove(account);
        } else {
            unfinished.insert(account.to_owned(), Unfinished { uid_validity, uids });
        }
    }

    fn learned(&self, account: &str, uid_validity: u32) -> HashMap<u32, u64> {
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        learned
            .accounts
            .get(&(account.to_owned(), uid_validity))
            .cloned()
            .unwrap_or_default()
    }

    fn learn(&self, account: &str, uid_validity: u32, uid: u32, octets: u64) {
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        if learned.entries >= MOST_LEARNED {
            *learned = Learned::default();
        }
        let sizes = learned
            .accounts
            .entry((account.to_owned(), uid_validity))
            .or_default();
        if sizes.insert(uid, octets).is_none() {
            learned.entries += 1;
        }
    }
}
