//! A login under way: the credentials are judged upstream, the maildrop is
//! locked and listed.

use std::fmt::Arguments;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::connection::Context;
use super::lock::Lock;
use super::policies::Admission;
use super::record::shown;
use super::refusal;
use crate::maildrop::{Maildrop, Policy};
use crate::metrics::{Counted, LoginResult};
use crate::pop3::{Refusal, Terms};
use crate::sasl::Credentials;
use crate::upstream::{UpstreamError, UpstreamSession};

/// A login under way. It owns all it needs, so that it can be given up.
pub(super) struct Opening {
    pub context: Arc<Context>,
    /// Where the client connects from.
    pub client: IpAddr,
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
    pub session: Box<dyn UpstreamSession>,
    /// What it obeys.
    pub policy: Arc<Policy>,
    _counted: Counted,
}

/// A login that failed.
pub(super) struct Refused {
    pub refusal: Refusal,
    /// How long the answer is to wait.
    pub delay: Duration,
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

impl Opening {
    /// Opens the maildrop, or says why not.
    pub async fn open(self, credentials: Credentials) -> Result<Opened, Refused> {
        let context = &self.context;
        let guard = &context.guard;
        let user = credentials.user().to_owned();
        let typed = guard.digest(&credentials);
        let admission = match context.config.policies.admit(credentials) {
            Ok(admission) => admission,
            // Whoever the user is: this says nothing about him.
            Err(error) => {
                self.log(&user, format_args!("{error}"));
                self.count(LoginResult::NoFolder);
                return Err(Refused {
                    refusal: refusal::folder(error),
                    delay: guard.delay(self.client, typed),
                });
            }
        };
        let Admission {
            credentials,
            rules,
            terms,
            source: _,
        } = admission;
        // The same password for another folder is no other guess.
        let digest = guard.digest(&credentials);
        let mailbox = credentials.mailbox().to_owned();
        let maildrop = guard.maildrop(&mailbox, &rules.policy.folders);
        if let Some(wait) = context.delays.early_again(maildrop, digest) {
            return Err(self.early(&user, wait));
        }
        let Some(attempt) = guard.attempt(digest).await else {
            self.log(&user, format_args!("as by the upstream before"));
            self.count(LoginResult::Suppressed);
            return Err(Refused {
                refusal: refusal::refusal(&UpstreamError::Authentication),
                delay: guard.delay(self.client, digest),
            });
        };
        let Some(upstream) = context.upstreams.gateway() else {
            let reason = "no upstream is configured";
            return Err(self.failed(&user, &UpstreamError::Misconfigured(reason.into())));
        };
        let session = match upstream
            .login(credentials, self.client, Arc::clone(&rules.policy))
            .await
        {
            Ok(session) => {
                attempt.accepted();
                UpstreamConnection {
                    session,
                    policy: Arc::clone(&rules.policy),
                    _counted: Counted::new(&context.metrics.upstream_connections),
                }
            }
            Err(UpstreamError::Authentication) => {
                attempt.refused();
                let refused = self.failed(&user, &UpstreamError::Authentication);
                return Err(Refused {
                    delay: guard.delay(self.client, digest),
                    ..refused
                });
            }
            Err(error) => {
                return Err(self.failed(&user, &error));
            }
        };
        if let Some(wait) = context.delays.early(maildrop) {
            dismiss(session);
            return Err(self.early(&user, wait));
        }
        match self.lock_and_list(session, &mailbox, &rules.policy).await {
            Ok((upstream, lock, folders, listed)) => {
                self.count(LoginResult::Success);
                if let Some(delay) = rules.login_delay {
                    context.delays.logged_in(maildrop, digest, delay);
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
                    &user,
                    format_args!("the maildrop is locked by another session"),
                );
                self.count(LoginResult::InUse);
                Err(Refused {
                    refusal: refusal::locked(),
                    delay: Duration::ZERO,
                })
            }
            Err(Denied::Upstream(UpstreamError::Authentication)) => {
                // The credentials were good a moment ago.
                let error = UpstreamError::temporary("refused behind the login");
                Err(self.failed(&user, &error))
            }
            Err(Denied::Upstream(error)) => Err(self.failed(&user, &error)),
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
        let lock = if self.context.config.session_takeover {
            locks.take_over(mailbox, &locked).await
        } else {
            locks.acquire(mailbox, &locked).await
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
    fn early(&self, user: &str, wait: Duration) -> Refused {
        self.log(user, format_args!("the last one was too recent"));
        self.count(LoginResult::TooEarly);
        Refused {
            refusal: refusal::early(wait),
            delay: Duration::ZERO,
        }
    }

    /// Why popgate itself does not let somebody in.
    fn log(&self, user: &str, reason: Arguments<'_>) {
        info!(user = shown(user), client = %self.client, "login refused: {reason}");
    }

    /// The answer to a failure upstream.
    fn failed(&self, user: &str, error: &UpstreamError) -> Refused {
        note(&self.context, user, self.client, "login", error);
        self.count(match error {
            UpstreamError::Authentication => LoginResult::Refused,
            UpstreamError::InUse(_) => LoginResult::InUse,
            UpstreamError::NoFolder(_) => LoginResult::NoFolder,
            UpstreamError::Temporary { .. }
            | UpstreamError::Misconfigured(_)
            | UpstreamError::Gone
            | UpstreamError::Protocol(_) => LoginResult::Failed,
        });
        Refused {
            refusal: refusal::refusal(error),
            delay: Duration::ZERO,
        }
    }

    fn count(&self, result: LoginResult) {
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

/// Logs and counts what went wrong upstream.
pub(super) fn note(
    context: &Context,
    user: &str,
    client: IpAddr,
    what: &str,
    error: &UpstreamError,
) {
    let kind = refusal::kind(error);
    context.metrics.upstream_errors.get_or_create(&kind).inc();
    let user = shown(user);
    let upstream = context.upstream_name();
    let kind = kind.as_str();
    match error {
        UpstreamError::Misconfigured(_) => {
            error!(user, %client, upstream, kind, reason = %error, "{what} failed: a setting must be changed");
        }
        UpstreamError::Authentication | UpstreamError::Gone => {
            info!(user, %client, upstream, kind, "{what} failed");
        }
        // Any user can bring it about.
        UpstreamError::NoFolder(_) => {
            info!(user, %client, upstream, kind, reason = %error, "{what} failed");
        }
        UpstreamError::Temporary { .. } | UpstreamError::InUse(_) | UpstreamError::Protocol(_) => {
            warn!(user, %client, upstream, kind, reason = %error, "{what} failed");
        }
    }
}
