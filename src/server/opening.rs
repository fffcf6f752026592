//! A login under way: the credentials are judged upstream, the maildrop is
//! locked and listed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::connection::Context;
use super::lock::Lock;
use super::policies::{Admission, Rules};
use super::record::shown;
use super::refusal;
use crate::maildrop::{DeletePolicy, Maildrop, SeenPolicy};
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
}

/// An upstream session, counted while it is there.
pub(super) struct UpstreamConnection {
    pub session: Box<dyn UpstreamSession>,
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

impl Opening {
    /// Opens the maildrop, or says why not.
    pub async fn open(self, credentials: Credentials) -> Result<Opened, Refused> {
        let context = &self.context;
        let guard = &context.guard;
        let user = credentials.user().to_owned();
        let digest = guard.digest(&credentials);
        let admitted = context.config.policies.admit(credentials);
        let Admission { credentials, rules } = match admitted {
            Ok(admission) => admission,
            Err(error) => {
                info!(user = shown(&user), client = %self.client, %error, "login refused");
                return Err(Refused {
                    refusal: refusal::folder(error),
                    delay: Duration::ZERO,
                });
            }
        };
        let Some(attempt) = guard.attempt(digest).await else {
            info!(
                user = shown(&user),
                client = %self.client,
                "login refused as by the upstream before"
            );
            self.count(LoginResult::Suppressed);
            return Err(Refused {
                refusal: refusal::refusal(&UpstreamError::Authentication),
                delay: guard.delay(self.client, digest),
            });
        };
        let mailbox = credentials.mailbox().to_owned();
        let session = match context
            .upstream
            .login(credentials, self.client, Arc::clone(&rules.policy))
            .await
        {
            Ok(session) => {
                attempt.accepted();
                UpstreamConnection {
                    session,
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
        match self.lock_and_list(session, &mailbox, &rules).await {
            Ok(opened) => {
                self.count(LoginResult::Success);
                Ok(opened)
            }
            Err(Denied::Locked) => {
                info!(
                    user = shown(&user),
                    client = %self.client,
                    "login refused: the maildrop is locked by another session"
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
    /// that the maildrop is locked.
    async fn lock_and_list(
        &self,
        mut upstream: UpstreamConnection,
        mailbox: &str,
        rules: &Rules,
    ) -> Result<Opened, Denied> {
        let locks = &self.context.locks;
        let lock = if self.context.config.session_takeover {
            locks.take_over(mailbox).await
        } else {
            locks.acquire(mailbox).await
        };
        let Some(lock) = lock else {
            // The answer does not wait for the farewell.
            tokio::spawn(async move { upstream.session.close().await });
            return Err(Denied::Locked);
        };
        let listed = tokio::select! {
            listed = upstream.session.snapshot() => listed,
            () = lock.evicted().cancelled() => return Err(Denied::Locked),
        };
        match listed {
            Ok(maildrop) => Ok(Opened {
                upstream,
                lock,
                maildrop,
                terms: terms(rules),
            }),
            Err(error) => Err(Denied::Upstream(error)),
        }
    }

    /// The answer to a failure upstream.
    fn failed(&self, user: &str, error: &UpstreamError) -> Refused {
        note(&self.context, user, self.client, "login", error);
        self.count(match error {
            UpstreamError::Authentication => LoginResult::Refused,
            UpstreamError::InUse(_) => LoginResult::InUse,
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

/// What the rules mean to the session in front.
fn terms(rules: &Rules) -> Terms {
    let policy = &rules.policy;
    Terms {
        deletion_refused: policy.delete == DeletePolicy::Refuse,
        updates_always: policy.seen == SeenPolicy::OnQuit || policy.expire_after.is_some(),
    }
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
    let upstream = context.upstream.name();
    let kind = kind.as_str();
    match error {
        UpstreamError::Misconfigured(_) => {
            error!(user, %client, upstream, kind, reason = %error, "{what} failed: a setting must be changed");
        }
        UpstreamError::Authentication | UpstreamError::Gone => {
            info!(user, %client, upstream, kind, "{what} failed");
        }
        UpstreamError::Temporary { .. } | UpstreamError::InUse(_) | UpstreamError::Protocol(_) => {
            warn!(user, %client, upstream, kind, reason = %error, "{what} failed");
        }
    }
}
