//! Who is let in by an HTTP service: it judges the password, and may say where the
//! mailbox is and what opens it.

use std::sync::Arc;

use tokio::time::Instant;

use super::account_entry::no_credentials;
use super::judging::Case;
use super::opening::{Entered, Opening, Refused, UpstreamConnection};
use super::policies::Login;
use super::refusal;
use crate::accounts::{Accounts, CredentialError, Entry, Home, HttpVerdict};
use crate::metrics::LoginResult;
use crate::sasl::Credentials;
use crate::secret::Secret;
use crate::upstream::{UpstreamError, account_in};

/// What logs call the service.
const SERVICE: &str = "auth_http";

/// Where the mailbox of somebody is who was let in, and what opens it.
#[derive(Debug)]
pub struct LetIn {
    /// Where it is.
    pub home: Home,
    /// What opens it.
    pub credentials: Credentials,
    /// They are of popgate's own registration at the provider.
    is_by_provider: bool,
}

impl LetIn {
    /// The mailbox of `name` is at `url`, where the service names a server, or else
    /// where the rules say; this password opens it, unless the provider lets popgate in.
    pub async fn of(
        accounts: Option<&Accounts>,
        login: &Login,
        url: Option<String>,
        name: &str,
        password: &Secret,
    ) -> Result<Self, CredentialError> {
        if let (None, Home::Provider(provider), Some(accounts)) = (&url, &login.home, accounts)
            && accounts
                .provider(provider)
                .is_some_and(|it| Entry::needs_nobody(&it.entry))
        {
            return Ok(Self {
                credentials: accounts.provider_credentials(&login.home, name).await?,
                home: login.home.clone(),
                is_by_provider: true,
            });
        }
        let unfit = |_| {
            let problem = "auth_http gave no user name or password that can be";
            CredentialError::Misconfigured(problem.to_owned())
        };
        Ok(Self {
            credentials: Credentials::password(name, password.reveal()).map_err(unfit)?,
            home: url.map_or_else(|| login.home.clone(), Home::Upstream),
            is_by_provider: false,
        })
    }
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
        let (rules, terms, _) = context.config.policies.of_anybody(&case.claim.asked);
        let way = LetIn::of(context.accounts.as_deref(), login, url, &name, &password).await;
        let way = way.map_err(|error| self.failed(user, SERVICE, &no_credentials(&error)))?;
        let upstream = context
            .upstream_of(&way.home)
            .map_err(|error| self.failed(user, SERVICE, &error))?;
        case.guess.succeeded();
        let mailbox = account_in(upstream.realm(), &name);
        let key = match way.is_by_provider {
            // Whatever the token.
            true => guard.user(&mailbox),
            false => guard.digest_in(upstream.realm(), &way.credentials),
        };
        let maildrop = guard.maildrop(&mailbox, &rules.policy.folders);
        if let Some(wait) = context.delays.early(maildrop) {
            return Err(self.early(user, wait));
        }
        let Some(attempt) = guard.attempt(key, None).await else {
            self.log(user, format_args!("as by the upstream before"));
            self.count(LoginResult::Suppressed);
            let refused = refusal::refusal(&UpstreamError::Authentication);
            return Err(refused.into());
        };
        let policy = Arc::clone(&rules.policy);
        let session = upstream.login(way.credentials, self.client, policy);
        match session.await {
            Ok(session) => {
                attempt.accepted();
                let policy = &rules.policy;
                Ok(Entered {
                    upstream: UpstreamConnection::new(context, upstream, session, policy),
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
                Err(self.failed(user, upstream.name(), &error))
            }
        }
    }
}
