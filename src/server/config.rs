//! What the server is told by the configuration.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::policies::Policies;
use super::tls::Certificates;
use crate::accounts::HttpCheckConfig;

/// The POP3 front.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listeners: Vec<Listener>,
    /// Login is accepted without TLS.
    pub allow_cleartext: bool,
    /// What clients get to see, and what they can do to it.
    pub policies: Policies,
    /// Who judges passwords where the policies say so (`Judge::Http`). Nobody needs an
    /// account for it, nor is there a store for it.
    pub http_check: Option<HttpCheckConfig>,
    /// NUL in messages becomes 0x80 on its way to the client: Outlook hangs on
    /// NUL.
    pub replace_nul: bool,
    /// A new login ends the session that holds the maildrop, instead of being
    /// refused with `[IN-USE]`.
    pub session_takeover: bool,
    /// Where the provider no longer lets popgate into an account's mailbox, the
    /// client finds a message that says so in front of what the mailbox showed last.
    pub notice: bool,
    /// How many of things there may be.
    pub limits: Limits,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// One listening socket.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Address and port (0: any free one).
    pub address: SocketAddr,
    /// What is spoken there.
    pub security: Security,
}

/// How TLS comes about on a listener.
#[derive(Clone, Debug)]
pub enum Security {
    /// From the first octet, port 995 (RFC 8314 §3).
    ImplicitTls(Arc<Certificates>),
    /// By STLS, port 110 (RFC 2595 §4), where there is a certificate.
    Stls(Option<Arc<Certificates>>),
}

/// Bounds of the POP3 front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one network: an IPv4 address, a /26, a /21; for
    /// IPv6 a /64, a /48, a /32. Loopback is exempt.
    pub connections_per_network: [u32; 3],
    /// Failed logins in a minute from one network, of the same sizes, before the
    /// next guess from there has to wait. Loopback is exempt.
    pub failures_per_minute: [u32; 3],
    /// Octets of messages held in memory by all sessions together.
    pub buffered_octets: usize,
    /// A message of up to this many octets is fetched whole before `+OK`.
    pub buffered_message_octets: usize,
    /// Commands in error before the connection is closed.
    pub bad_commands: u32,
    /// A client that reads more slowly, in octets a second, is disconnected.
    pub slowest_reader: u64,
    /// Times that the upstream may refuse the same user and password, or an account
    /// of popgate's own, within an hour, before they are refused here without
    /// asking it again.
    pub upstream_refusals: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1000,
            connections_per_network: [30, 90, 270],
            failures_per_minute: [10, 30, 90],
            buffered_octets: 64 * 1024 * 1024,
            buffered_message_octets: 128 * 1024,
            bad_commands: 20,
            slowest_reader: 500,
            upstream_refusals: 3,
        }
    }
}

/// Deadlines of the POP3 front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A TLS handshake.
    pub handshake: Duration,
    /// From the greeting to a login, upstream's time apart.
    pub login: Duration,
    /// Between commands in TRANSACTION state (RFC 1939 §3: at least 10 minutes).
    pub idle: Duration,
    /// For sessions to end after SIGTERM.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            login: Duration::from_secs(180),
            idle: Duration::from_secs(600),
            drain: Duration::from_secs(30),
        }
    }
}
