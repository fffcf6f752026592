//! The seam between POP3 sessions and the mailboxes behind them.
//!
//! An upstream is a folder in here that implements [`Upstream`] and
//! [`UpstreamSession`] and passes the contract test (`tests/contract.rs`) as it
//! stands. Nothing else in popgate knows which protocol a mailbox speaks.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::maildrop::{Maildrop, MessageIndex, Outcome, Policy, Portion, Update};
use crate::sasl::{Credentials, Mechanism};
use crate::store::{FolderKey, MessageKey};

mod assembly;
mod calendar;
mod economy;
mod finding;
mod habits;
pub mod imap;
pub mod jmap;
mod listings;
mod notice;
mod pauses;
mod realm;
pub mod screening;
mod snapshots;
pub mod transport;
mod upstreams;

pub use economy::{Economy, ReadAhead, Rest};
pub use finding::Finding;
pub use listings::{Listings, Shown};
pub use notice::{Notice, NoticeSession};
pub use realm::{account_in, realm};
pub use upstreams::{Make, Upstreams};

/// A place where mailboxes are, as configured. Shared by all sessions. Between
/// them it may keep connections that an account has logged in, for logins with
/// the same credentials; it holds no secret of any account.
#[async_trait]
pub trait Upstream: Send + Sync {
    /// Logs in with the client's own credentials. When it returns, the
    /// upstream has said yes to exactly these: now, or when a connection was
    /// logged in that has rested since. The session obeys `policy`.
    async fn login(
        &self,
        credentials: Credentials,
        client: IpAddr,
        policy: Arc<Policy>,
    ) -> Result<Box<dyn UpstreamSession>, UpstreamError>;

    /// Whether credentials of this mechanism can be passed on, as far as is
    /// known by now.
    fn accepts(&self, mechanism: Mechanism) -> bool;

    /// What logs call this upstream, without credentials.
    fn name(&self) -> &str;

    /// Sets its users apart from those of other servers ([`realm()`]); `None`: it is
    /// the gateway's own.
    fn realm(&self) -> Option<&str> {
        None
    }

    /// Whether a bearer token's user name says which mailbox opens, be it the one
    /// whose token it is or one that is shared with him. Otherwise the token decides,
    /// and a shared mailbox is [`Policy::shared`].
    fn opens_by_name(&self) -> bool {
        true
    }

    /// Closes what rests between sessions, briefly. No session begins after it.
    async fn close(&self) {}
}

/// One account's mailbox, logged in. Never shared between accounts.
///
/// A message is named by its index in the maildrop that [`snapshot`] returned;
/// what that means upstream is the session's own affair. A session whose
/// connection broke gets itself a new one where that is safe, or answers with
/// an error; it never answers with another message.
///
/// [`snapshot`]: UpstreamSession::snapshot
#[async_trait]
pub trait UpstreamSession: Send {
    /// Finds the folders of the policy, and gives the names they have upstream:
    /// the same name for the same folder, however it was asked for, and each
    /// once. A maildrop is locked by these. Called once, before [`snapshot`].
    ///
    /// [`snapshot`]: UpstreamSession::snapshot
    async fn folders(&mut self) -> Result<Vec<String>, UpstreamError>;

    /// Opens the folders and lists them. The listing is whole, or it is an
    /// error. Called once, before the methods that follow.
    async fn snapshot(&mut self) -> Result<Maildrop, UpstreamError>;

    /// Begins to fetch a message, or the first part of it. For
    /// [`Portion::Top`] the upstream may send more than was asked for (the
    /// caller cuts); it never sends less.
    async fn retrieve(
        &mut self,
        message: MessageIndex,
        portion: Portion,
    ) -> Result<Box<dyn Body + Send + '_>, UpstreamError>;

    /// What the store knows a message by: for ever, whatever its unique id.
    fn kept_as(&self, message: MessageIndex) -> Option<(FolderKey, MessageKey)>;

    /// A message was delivered whole, every octet of it: `octets` with CRLF
    /// line ends (the upstream may only have estimated them). It is marked as
    /// read where the policy says so. What goes wrong with that is logged, and
    /// no matter of the client's.
    async fn delivered(&mut self, message: MessageIndex, octets: u64);

    /// Removes messages as the delete policy says and verifies that they are
    /// gone, marks as read what was retrieved, moves what has expired; the
    /// outcome is that of the first alone. An error means that none is known to
    /// be gone.
    async fn update(&mut self, update: &Update) -> Result<Outcome, UpstreamError>;

    /// Whether it is sure that the mailbox is that of the user who was named at the
    /// login, and not whoever's token was shown.
    fn names_its_user(&self) -> bool {
        true
    }

    /// Ends the session: its connection rests for the next one, where that may
    /// be, or logs out, politely but briefly.
    async fn close(&mut self);
}

/// A message on its way. Dropped early, it costs the upstream connection, never
/// correctness.
#[async_trait]
pub trait Body: Send {
    /// Octets that the upstream announced for what it sends now, where it did.
    fn announced(&self) -> Option<u64>;

    /// The next octets, as the upstream holds them. `None` comes only when
    /// every octet was delivered and the upstream confirmed the command.
    async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError>;

    /// The rest is not wanted. Leaves the upstream ready for the next command
    /// where that is cheaper than a new connection.
    async fn abandon(&mut self);
}

/// What went wrong upstream, by who is to blame. One table in
/// `server::refusal` makes a POP3 response of it.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The upstream refused the credentials, and nothing suggests an outage.
    #[error("the upstream refused the credentials")]
    Authentication,
    /// An outage, a timeout, a throttle: the same may succeed later.
    #[error("{reason}")]
    Temporary {
        /// For the operator.
        reason: Reason,
        /// The upstream asked not to be tried again before this has passed.
        retry_after: Option<Duration>,
    },
    /// Another session holds the mailbox, or there are too many connections.
    #[error("{0}")]
    InUse(Reason),
    /// Somebody has to change a setting: here, or at the upstream.
    #[error("{0}")]
    Misconfigured(Reason),
    /// A folder that was asked for is not there, or may not be read.
    #[error("{0}")]
    NoFolder(Reason),
    /// This one message is no longer there.
    #[error("the message is gone")]
    Gone,
    /// The upstream broke its protocol.
    #[error("protocol error: {0}")]
    Protocol(Reason),
}

impl UpstreamError {
    /// A temporary failure without a time to wait.
    pub fn temporary(reason: impl Into<Reason>) -> Self {
        Self::Temporary {
            reason: reason.into(),
            retry_after: None,
        }
    }

    /// A breach of the upstream's protocol.
    pub fn protocol(reason: impl Into<Reason>) -> Self {
        Self::Protocol(reason.into())
    }
}

/// A reason in words, for logs and `popgate check`; never for the client.
/// What it quotes from outside is escaped and cut to 160 characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Reason(String);

impl Reason {
    const LONGEST: usize = 160;

    /// `what`, followed by text that came from outside.
    pub fn quoting(what: &str, text: &str) -> Self {
        let mut escaped = text.escape_debug();
        let mut quoted: String = escaped.by_ref().take(Self::LONGEST).collect();
        if escaped.next().is_some() {
            quoted.push('…');
        }
        Self(format!("{what}: {quoted}"))
    }

    /// The words.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Reason {
    fn from(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
