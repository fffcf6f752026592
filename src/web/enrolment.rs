//! Pages where people enrol, and where the operator sees how accounts are.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use url::Url;

use crate::accounts::{Accounts, Probe};
use crate::secret::Secret;

/// What the pages are told by the configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where browsers reach the pages: https, or http on loopback; without a path.
    /// Nothing that a browser sends decides it.
    pub public_url: Url,
    /// Whose addresses may enrol by themselves, in lower case; others need an
    /// account that the operator has made.
    pub domains: BTreeSet<String>,
    /// Providers to choose from, by name, in this order.
    pub providers: Vec<String>,
    /// What the operator's page asks for; `None`: there is no such page.
    pub operator_password: Option<Secret>,
    /// What clients are told: host name and ports, as they are reached from outside.
    pub pop3: Reached,
    /// What the service is called.
    pub title: String,
}

/// Where mail clients find POP3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// A name, in ASCII.
    pub host: String,
    /// TLS from the first octet.
    pub pop3s_port: Option<u16>,
    /// STLS.
    pub pop3_port: Option<u16>,
}

/// The pages, with all that they need.
#[derive(Clone)]
pub struct Enrolment {
    /// As configured.
    pub config: Arc<Config>,
    /// Who enrols where.
    pub accounts: Arc<Accounts>,
    /// Looks whether a mailbox opens.
    pub probe: Arc<dyn Probe>,
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrolment").finish_non_exhaustive()
    }
}
