//! What an IMAP upstream is told by the configuration.

use std::sync::Arc;
use std::time::Duration;

use crate::upstream::Economy;

/// One IMAP server.
#[derive(Clone, Debug)]
pub struct Config {
    /// The URL as configured; it holds no credentials.
    pub name: String,
    /// Sets its users apart from those of other servers; `None`: it is the gateway's
    /// own.
    pub realm: Option<Arc<str>>,
    /// Host name or address; also what the certificate must be for.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// How the connection is protected.
    pub security: Security,
    /// Roots and parameters of TLS. Chain and host name are always verified.
    pub tls: Arc<rustls::ClientConfig>,
    /// The upstream trusts us: tell it the client's address by ID
    /// (`x-originating-ip`).
    pub send_client_address: bool,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How large things may be.
    pub limits: Limits,
    /// What may be spent to save round trips.
    pub economy: Economy,
}

/// Protection of the upstream connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first octet (RFC 8314), `imaps://`.
    ImplicitTls,
    /// STARTTLS, required (RFC 3501 §6.2.1), `imap+starttls://`.
    StartTls,
    /// None, `imap+plain://`.
    Cleartext,
}

/// Deadlines upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP, TLS and greeting together.
    pub connect: Duration,
    /// The longest silence while an answer is due.
    pub silence: Duration,
    /// One command, bodies apart.
    pub command: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            silence: Duration::from_secs(60),
            command: Duration::from_secs(300),
        }
    }
}

/// Bounds on what an upstream may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Octets of one literal: the largest message.
    pub literal: u64,
    /// Octets of one line.
    pub line: usize,
    /// Messages in one mailbox.
    pub messages: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            literal: 150 * 1024 * 1024,
            line: 1024 * 1024,
            messages: 5_000_000,
        }
    }
}
