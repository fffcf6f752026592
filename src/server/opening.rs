//! A login under way: the credentials are judged (`judging`), the maildrop is locked
//! and listed.

use std::fmt::Arguments;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::claim::{Claim, Unclear};
use super::connection::Context;
use super::lock::Lock;
use super::policies::Rules;
use super::record::shown;
use super::refusal;
use crate::maildrop::{Maildrop, Policy};
use crate::metrics::{Counted, LoginResult};
use crate::pop3::{Refusal, Terms};
use crate::sasl::{Credentials, Digest};
use crate::upstream::{NoticeSession, Shown, Upstream, UpstreamError, UpstreamSession, account_in};

/// A login under way. It owns all it needs, so that it can be given up.
pub(super) struct Opening {
    pub context: Arc<Context>,
    /// Where the client connects from.
    pub client: IpAddr,
    /// It is protected by TLS.
    pub tls_active: bool,
    /// How many logins the connection has tried, this one included.
    pub attempt: u32,
    /// For logs: who logs in, and whose maildrop he asks for where it is not his own.
    pub user: String,
    pub maildrop: Option<String>,
}

/// A maildrop that is open.
pub(super) struct Opened {
    pub upstream: UpstreamConnection,
    pub lock: Lock,
    pub maildrop: Maildrop,
    pub terms: Terms,
    /// By the names they have upstream.
    pub folders: Vec<String>,
    /// Whose they are, where another user shares them.
    pub shared: Option<String>,
}

/// An upstream session, counted while it is there.
pub(super) struct UpstreamConnection {
    /// Where it is.
    pub upstream: Arc<dyn Upstream>,
    pub session: Box<dyn UpstreamSession>,
    /// What it obeys.
    pub policy: Arc<Policy>,
    /// Whose listing is kept.
    pub listing: Option<Shown>,
    /// It only shows why there is no other; nothing is removed by it.
    pub is_notice: bool,
    _counted: Option<Counted>,
}

impl UpstreamConnection {
    /// A session there, under this policy.
    pub fn new(
        context: &Context,
        upstream: Arc<dyn Upstream>,
        session: Box<dyn UpstreamSession>,
        policy: &Arc<Policy>,
    ) -> Self {
        Self {
            upstream,
            session,
            policy: Arc::clone(policy),
            listing: None,
            is_notice: false,
            _counted: Some(Counted::new(&context.metrics.upstream_connections)),
        }
    }

    /// Shows why there is no session there.
    pub fn notice(
        upstream: Arc<dyn Upstream>,
        session: NoticeSession,
        policy: &Arc<Policy>,
    ) -> Self {
        Self {
            upstream,
            session: Box::new(session),
            policy: Arc::clone(policy),
            listing: None,
            is_notice: true,
            _counted: None,
        }
    }
}

/// A login that failed.
pub(super) struct Refused {
    pub refusal: Refusal,
    /// When the answer may leave: that does not tell how long it took to find out.
    pub not_before: Option<Instant>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            not_before: None,
        }
    }
}

enum Denied {
    Upstream(UpstreamError),
    Locked,
}

impl From<UpstreamError> for Denied {
    fn from(error: UpstreamError) -> Self {
        Self::Upstream(error)
    }
}

/// A mailbox whose door is open.
pub(super) struct Entered {
    pub upstream: UpstreamConnection,
    pub rules: Rules,
    /// What they mean to the session in front.
    pub terms: Terms,
    /// Whose mailbox it is, as the upstream calls him.
    pub mailbox: String,
    /// For LOGIN-DELAY: the maildrop, and what opened it.
    pub maildrop: Digest,
    pub credentials: Digest,
}

impl Opening {
    /// Opens the maildrop, or says why not. `claimed` is what the credentials claim.
    pub async fn open(
        self,
        credentials: Credentials,
        claimed: Result<Claim, Unclear>,
    ) -> Result<Opened, Refused> {
        let user = self.user.as_str();
        let Entered {
            upstream,
            rules,
            terms,
            mailbox,
            maildrop,
            credentials,
        } = self.enter(user, &credentials, claimed).await?;
        let delays = &self.context.delays;
        if let Some(wait) = delays.early(maildrop) {
            dismiss(upstream);
            return Err(self.early(user, wait));
        }
        let place = Arc::clone(&upstream.upstream);
        match self.lock_and_list(upstream, &mailbox, &rules.policy).await {
            Ok((upstream, lock, folders, listed)) => {
                if upstream.is_notice {
                    self.count(LoginResult::Notice);
                } else {
                    self.count(LoginResult::Success);
                }
                if let Some(shown) = &upstream.listing {
                    let listings = self.context.upstreams.listings();
                    listings.keep(shown, &folders, listed.iter());
                }
                if let Some(delay) = rules.login_delay {
                    delays.logged_in(maildrop, credentials, delay);
                }
                Ok(Opened {
                    upstream,
                    lock,
                    maildrop: listed,
                    terms,
                    folders,
                    shared: rules.policy.shared.clone(),
                })
            }
            Err(Denied::Locked) => {
                self.log(
                    user,
                    format_args!("the maildrop is locked by another session"),
                );
                self.count(LoginResult::InUse);
                Err(refusal::locked().into())
            }
            Err(Denied::Upstream(UpstreamError::Authentication)) => {
                // The credentials were good a moment ago.
                let error = UpstreamError::temporary("refused behind the login");
                Err(self.failed(user, place.name(), &error))
            }
            Err(Denied::Upstream(error)) => Err(self.failed(user, place.name(), &error)),
        }
    }

    /// The credentials were judged first: only who knows the password learns
    /// that the maildrop is locked, or what folders there are.
    async fn lock_and_list(
        &self,
        mut upstream: UpstreamConnection,
        mailbox: &str,
        policy: &Policy,
    ) -> Result<(UpstreamConnection, Lock, Vec<String>, Maildrop), Denied> {
        let folders = upstream.session.folders().await?;
        let locks = &self.context.locks;
        let mut locked = folders.clone();
        let mailbox = match &policy.shared {
            Some(owner) => {
                // Over IMAP the owner knows them by other names: his own.
                locked.extend(policy.folders.iter().map(ToString::to_string));
                owner
            }
            None => mailbox,
        };
        let mailbox = account_in(upstream.upstream.realm(), mailbox);
        let lock = if self.context.config.session_takeover {
            locks.take_over(&mailbox, &locked).await
        } else {
            locks.acquire(&mailbox, &locked).await
        };
        let Some(lock) = lock else {
            dismiss(upstream);
            return Err(Denied::Locked);
        };
        let listed = tokio::select! {
            listed = upstream.session.snapshot() => listed?,
            () = lock.evicted().cancelled() => return Err(Denied::Locked),
        };
        Ok((upstream, lock, folders, listed))
    }

    /// The last login to the maildrop was too recent.
    pub(super) fn early(&self, user: &str, wait: Duration) -> Refused {
        self.log(user, format_args!("the last one was too recent"));
        self.count(LoginResult::TooEarly);
        refusal::early(wait).into()
    }

    /// Why popgate itself does not let somebody in.
    pub(super) fn log(&self, user: &str, reason: Arguments<'_>) {
        let maildrop = self.maildrop.as_deref().map(shown);
        info!(user = shown(user), maildrop, client = %self.client, "login refused: {reason}");
    }

    /// The answer to a failure at this upstream.
    pub(super) fn failed(&self, user: &str, upstream: &str, error: &UpstreamError) -> Refused {
        let whose = (user, self.maildrop.as_deref());
        note(&self.context, upstream, whose, self.client, "login", error);
        self.count(match error {
            UpstreamError::Authentication => LoginResult::Refused,
            UpstreamError::InUse(_) => LoginResult::InUse,
            UpstreamError::NoFolder(_) => LoginResult::NoFolder,
            UpstreamError::Temporary { .. }
            | UpstreamError::Misconfigured(_)
            | UpstreamError::Gone
            | UpstreamError::Protocol(_) => LoginResult::Failed,
        });
        refusal::refusal(error).into()
    }

    pub(super) fn count(&self, result: LoginResult) {
        self.context.metrics.logins.get_or_create(&result).inc();
    }
}

/// Ends an upstream session that is not needed. The answer does not wait for
/// its farewell.
fn dismiss(upstream: UpstreamConnection) {
    tokio::spawn(async move {
        // All of it, so that it counts until it is gone.
        let mut upstream = upstream;
        upstream.session.close().await;
    });
}

/// Logs and counts what went wrong upstream, for whom, and in whose maildrop, where that
/// is not his own.
pub(super) fn note(
    context: &Context,
    upstream: &str,
    (user, maildrop): (&str, Option<&str>),
    client: IpAddr,
    what: &str,
    error: &UpstreamError,
) {
    let kind = refusal::kind(error);
    context.metrics.upstream_errors.get_or_create(&kind).inc();
    let (user, maildrop) = (shown(user), maildrop.map(shown));
    let kind = kind.as_str();
    match error {
        UpstreamError::Misconfigured(_) => {
            error!(user, maildrop, %client, upstream, kind, reason = %error, "{what} failed: a setting must be changed");
        }
        UpstreamError::Authentication | UpstreamError::Gone => {
            info!(user, maildrop, %client, upstream, kind, "{what} failed");
        }
        // Any user can bring it about.
        UpstreamError::NoFolder(_) => {
            info!(user, maildrop, %client, upstream, kind, reason = %error, "{what} failed");
        }
        UpstreamError::Temporary { .. } | UpstreamError::InUse(_) | UpstreamError::Protocol(_) => {
            warn!(user, maildrop, %client, upstream, kind, reason = %error, "{what} failed");
        }
    }
}
