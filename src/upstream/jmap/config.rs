//! What a JMAP upstream is told by the configuration.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::origin::Origins;
use crate::upstream::Economy;

/// One JMAP server.
#[derive(Clone, Debug)]
pub struct Config {
    /// The URL as configured; it holds no credentials.
    pub name: String,
    /// Sets its users apart from those of other servers; `None`: it is the gateway's
    /// own.
    pub realm: Option<Arc<str>>,
    /// The session resource, or `/.well-known/jmap` of a host (RFC 8620 §2.2).
    pub resource: Url,
    /// Where credentials may go: the resource's own origin, and hosts that the
    /// operator trusts beside it.
    pub origins: Origins,
    /// Roots and parameters of TLS. Chain and host name are always verified.
    pub tls: Arc<rustls::ClientConfig>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How large things may be.
    pub limits: Limits,
    /// What may be spent to save round trips.
    pub economy: Economy,
}

/// Deadlines upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP and TLS together.
    pub connect: Duration,
    /// The longest silence while an answer is due.
    pub silence: Duration,
    /// One request, downloads apart.
    pub command: Duration,
}

/// Bounds on what an upstream may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Octets of one message.
    pub message: u64,
    /// Octets of one answer, downloads apart.
    pub answer: usize,
    /// Messages in one mailbox.
    pub messages: usize,
}

impl Limits {
    /// The largest answer read, in octets.
    pub const ANSWER: usize = 10 * 1024 * 1024;
}
