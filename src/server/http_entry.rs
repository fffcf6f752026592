//! Who is let in by an HTTP service: it judges the password, and may say where the
//! mailbox is and what opens it.

use std::sync::Arc;

use tokio::time::Instant;

use super::account_entry::no_credentials;
use super::judging::Case;
use super::opening::{Entered, Opening, Refused, UpstreamConnection};
use super::policies::Login;
use super::refusal;
use crate::accounts::{Entry, Home, HttpVerdict};
use crate::metrics::LoginResult;
use crate::sasl::{Credentials, Digest};
use crate::secret::Secret;
use crate::upstream::{Upstream, UpstreamError, account_in};

/// What logs call the service.
const SERVICE: &str = "auth_http";

/// Where the mailbox of somebody is who was let in, and what opens it.
struct Way {
    upstream: Arc<dyn Upstream>,
    credentials: Credentials,
    /// What is refused, should it be.
    key: Digest,
}

impl Opening {
    /// The service decides; then the provider's credentials open the mailbox, or the
    /// password does.
    pub(super) async fn by_http(&self, case: Case<'_>, login: &Login) -> Result<Entered, Refused> {
        let context = &self.context;
        let (user, guard) = (case.user, &context.guard);
        let (
            Some(check),
            Credentials::Password {
                user: name,
                password,
                ..
            },
        ) = (&context.http_check, &case.claim.credentials)
        else {
            let error = UpstreamError::Misconfigured("no auth_http is configured".into());
            return Err(self.failed(user, SERVICE, &error));
        };
        let typed = guard.digest_in(Some(SERVICE), &case.claim.credentials);
        let Some(attempt) = guard.attempt(typed, None).await else {
            self.log(user, format_args!("as by auth_http before"));
            self.count(LoginResult::Suppressed);
            return Err(self.wrong(case).await);
        };
        let verdict = check
            .check(name, password, self.client, self.attempt, self.tls_active)
            .await;
        let (name, password, url) = match verdict {
            Ok(HttpVerdict::Admitted {
                user: other,
                password: another,
                upstream,
            }) => {
                let name = other.unwrap_or_else(|| name.clone());
                (name, another.unwrap_or_else(|| password.clone()), upstream)
            }
            Ok(HttpVerdict::Refused { wait }) => {
                attempt.refused(None);
                self.log(user, format_args!("refused by auth_http"));
                self.count(LoginResult::Refused);
                let told = wait.map(|wait| Instant::now() + wait);
                let refused = self.wrong(case).await;
                return Err(Refused {
                    not_before: refused.not_before.max(told),
                    ..refused
                });
            }
            Err(error) => return Err(self.failed(user, SERVICE, &no_credentials(&error))),
        };
        attempt.accepted();
        let (rules, terms) = self.rules_of(&case.claim);
        let way = self
            .way(login, url.as_deref(), name.clone(), &password)
            .await
            .map_err(|error| self.failed(user, SERVICE, &error))?;
        case.guess.succeeded();
        let maildrop = account_in(way.upstream.realm(), &name);
        let maildrop = guard.maildrop(&maildrop, &rules.policy.folders);
        if let Some(wait) = context.delays.early(maildrop) {
            return Err(self.early(user, wait));
        }
        let Some(attempt) = guard.attempt(way.key, None).await else {
            self.log(user, format_args!("as by the upstream before"));
            self.count(LoginResult::Suppressed);
            let refused = refusal::refusal(&UpstreamError::Authentication);
            return Err(refused.into());
        };
        let policy = Arc::clone(&rules.policy);
        let session = way.upstream.login(way.credentials, self.client, policy);
        match session.await {
            Ok(session) => {
                attempt.accepted();
                let policy = &rules.policy;
                Ok(Entered {
                    upstream: UpstreamConnection::new(context, way.upstream, session, policy),
                    rules,
                    terms,
                    mailbox: name,
                    maildrop,
                    credentials: typed,
                })
            }
            Err(error) => {
                if matches!(error, UpstreamError::Authentication) {
                    attempt.refused(None);
                }
                Err(self.failed(user, way.upstream.name(), &error))
            }
        }
    }

    /// Where the service, or else the rules, say that the mailbox is.
    async fn way(
        &self,
        login: &Login,
        url: Option<&str>,
        name: String,
        password: &Secret,
    ) -> Result<Way, UpstreamError> {
        let (context, guard) = (&self.context, &self.context.guard);
        let upstream = match url {
            Some(url) => context.upstreams.at(url)?,
            None => context.upstream_of(&login.home)?,
        };
        if let (None, Home::Provider(provider), Some(accounts)) =
            (url, &login.home, &context.accounts)
            && accounts
                .provider(provider)
                .is_some_and(|it| Entry::needs_nobody(&it.entry))
        {
            let credentials = accounts.provider_credentials(&login.home, &name).await;
            let credentials = credentials.map_err(|error| no_credentials(&error))?;
            // Whatever the token.
            let key = guard.user(&account_in(upstream.realm(), &name));
            return Ok(Way {
                upstream,
                credentials,
                key,
            });
        }
        let unfit = |_| {
            UpstreamError::Misconfigured(
                "auth_http gave no user name or password that can be".into(),
            )
        };
        let credentials = Credentials::password(&name, password.reveal()).map_err(unfit)?;
        let key = guard.digest_in(upstream.realm(), &credentials);
        Ok(Way {
            upstream,
            credentials,
            key,
        })
    }
}
