//! How an account's own credentials open its mailbox: kept fresh, tried again once
//! where the upstream refuses them, and not for ever.

use std::sync::Arc;

use tracing::error;

use super::guard::{Attempt, State};
use super::notice;
use super::opening::{Opening, Refused, UpstreamConnection};
use super::record::shown;
use super::refusal;
use crate::accounts::{
    Account, Accounts, AccountsError, Admitted, Credential, CredentialError, Home, VaultError,
};
use crate::maildrop::Policy;
use crate::metrics::LoginResult;
use crate::sasl::{Credentials, Digest};
use crate::upstream::{
    NoticeSession, Reason, Shown, Upstream, UpstreamError, UpstreamSession, account_in,
};

/// Why a mailbox does not open to its account.
pub(super) enum Shut {
    /// The provider no longer lets popgate in: somebody has to sign in again.
    Dead,
    Refused(Refused),
}

/// An account at the door of its mailbox.
pub(super) struct Visit<'a> {
    /// As the client wrote it.
    pub user: &'a str,
    pub accounts: &'a Accounts,
    pub admitted: &'a Admitted,
    pub upstream: &'a Arc<dyn Upstream>,
    pub policy: &'a Arc<Policy>,
}

impl Opening {
    /// Logs an account in. Nobody is asked anything for it, neither the provider nor
    /// the upstream, where they have refused it too often.
    pub(super) async fn enter_account(
        &self,
        visit: &Visit<'_>,
    ) -> Result<Box<dyn UpstreamSession>, Shut> {
        let Visit {
            user,
            accounts,
            admitted,
            ..
        } = *visit;
        let guard = &self.context.guard;
        let (whose, state) = self.asked_about(visit);
        let Some(attempt) = guard.attempt(whose, Some(state)).await else {
            self.log(user, format_args!("as by the upstream before"));
            self.count(LoginResult::Suppressed);
            return Err(Shut::Dead);
        };
        let mut shown = match accounts.credentials(admitted).await {
            Ok(credentials) => credentials,
            Err(error) => return Err(self.without_credentials(visit, attempt, error).await),
        };
        // To show once more what was refused would leave no attempt for what cures it.
        let may_be_newer = matches!(
            admitted.account.credential,
            Credential::OAuth(_) | Credential::Provider
        );
        if may_be_newer && attempt.wants_newer() {
            match accounts.after_refusal(admitted, &shown).await {
                Ok(Some(newer)) => shown = newer,
                Ok(None) => {}
                Err(error) => return Err(self.without_credentials(visit, attempt, error).await),
            }
        }
        if let Some(session) = self.knock(visit, attempt, shown.clone()).await? {
            return Ok(session);
        }
        // Something newer, once.
        if let Some(attempt) = guard.attempt_with_newer(whose, state).await {
            match accounts.after_refusal(admitted, &shown).await {
                Ok(None) => {}
                Ok(Some(newer)) => {
                    if let Some(session) = self.knock(visit, attempt, newer).await? {
                        return Ok(session);
                    }
                }
                Err(error) => return Err(self.without_credentials(visit, attempt, error).await),
            }
        }
        self.failed(user, visit.upstream.name(), &UpstreamError::Authentication);
        Err(Shut::Dead)
    }

    /// Where it is wanted, and known what the mailbox showed last: a maildrop that says
    /// why the mailbox does not open.
    pub(super) async fn notice(&self, visit: &Visit<'_>) -> Option<UpstreamConnection> {
        if !self.context.config.notice {
            return None;
        }
        let Visit {
            accounts, admitted, ..
        } = visit;
        let shown = maildrop_of(&admitted.account, visit.upstream.realm(), visit.policy);
        let listing = self.context.upstreams.listings().get(&shown).await?;
        // It may be in trouble only since now.
        let account = &self.stored(visit).await;
        let provider = match &account.home {
            Home::Provider(name) => accounts.provider(name).map(|it| it.title.as_str()),
            Home::Gateway | Home::Upstream(_) => None,
        };
        let sign_in = accounts.config().alarm.sign_in.as_ref();
        let notice = notice::compose(account, provider.unwrap_or("The mail server"), sign_in);
        let session = NoticeSession::new(notice, listing)?;
        let upstream = Arc::clone(visit.upstream);
        Some(UpstreamConnection::notice(upstream, session, visit.policy))
    }

    /// What the provider and the upstream are asked about.
    fn asked_about(&self, visit: &Visit<'_>) -> (Digest, State) {
        let account = &visit.admitted.account;
        let guard = &self.context.guard;
        let whose = guard.account(&account.address, account.created);
        (whose, self.state(account))
    }

    /// `None`: the upstream refuses.
    async fn knock(
        &self,
        visit: &Visit<'_>,
        attempt: Attempt<'_>,
        credentials: Credentials,
    ) -> Result<Option<Box<dyn UpstreamSession>>, Shut> {
        // What is refused is what there was before it was tried: whatever is renewed
        // meanwhile is not.
        let stored = self.stored(visit).await;
        let upstream = visit.upstream;
        let credentials = as_delegate(upstream.as_ref(), &visit.admitted.account, credentials);
        let policy = Arc::clone(visit.policy);
        match upstream.login(credentials, self.client, policy).await {
            Ok(session) => {
                attempt.accepted();
                visit.accounts.worked(visit.admitted).await;
                Ok(Some(session))
            }
            Err(UpstreamError::Authentication) => {
                self.refused(visit, attempt, &stored);
                Ok(None)
            }
            Err(error) => {
                let refused = self.failed(visit.user, upstream.name(), &error);
                Err(Shut::Refused(refused))
            }
        }
    }

    /// There is nothing to show to the upstream.
    async fn without_credentials(
        &self,
        visit: &Visit<'_>,
        attempt: Attempt<'_>,
        error: CredentialError,
    ) -> Shut {
        let error = match error {
            CredentialError::SignInNeeded => {
                let stored = self.stored(visit).await;
                self.refused(visit, attempt, &stored);
                let error = UpstreamError::Authentication;
                self.failed(visit.user, visit.upstream.name(), &error);
                return Shut::Dead;
            }
            CredentialError::Disabled => {
                self.log(visit.user, format_args!("the account is disabled"));
                self.count(LoginResult::Failed);
                return Shut::Refused(refusal::disabled().into());
            }
            other => no_credentials(&other),
        };
        Shut::Refused(self.failed(visit.user, visit.upstream.name(), &error))
    }

    /// Counts a refusal of the account as it was `stored`. The operator hears of it
    /// once, when there are no more attempts, unless he knows of the trouble already.
    fn refused(&self, visit: &Visit<'_>, attempt: Attempt<'_>, stored: &Account) {
        let is_last = attempt.refused(Some(self.state(stored)));
        if is_last && stored.trouble.is_none() {
            error!(
                account = shown(&stored.address),
                upstream = visit.upstream.name(),
                refusals = self.context.config.limits.upstream_refusals,
                "THE ACCOUNT IS REFUSED AGAIN AND AGAIN: nothing more is asked for it within the hour, or until its credentials are renewed (popgate account reauthorize ADDRESS)"
            );
        }
    }

    /// The account as it is stored now.
    async fn stored(&self, visit: &Visit<'_>) -> Account {
        let known = &visit.admitted.account;
        let found = visit.accounts.find(&known.address).await;
        found.ok().flatten().unwrap_or_else(|| known.clone())
    }

    fn state(&self, account: &Account) -> State {
        State {
            version: account.version,
            credential: self.credential(account),
        }
    }

    /// Names what opens the account's mailbox.
    fn credential(&self, account: &Account) -> Digest {
        self.context.guard.state(&sign_in(account))
    }
}

/// Names what an account shows: this one's, where its mailbox is now.
pub(super) fn maildrop_of(account: &Account, realm: Option<&str>, policy: &Policy) -> Shown {
    let mailbox = account_in(realm, account.mailbox());
    let which = format!("{} {mailbox}", account.created);
    Shown::of(&account.address, &which, policy)
}

/// Where the token decides what opens, the mailbox of somebody else is one that he
/// shares: such an account's policy says so.
pub fn share(upstream: &dyn Upstream, account: &Account, policy: &mut Arc<Policy>) {
    if !upstream.opens_by_name()
        && let Some(delegate) = &account.delegate
        && !delegate.eq_ignore_ascii_case(account.mailbox())
    {
        Arc::make_mut(policy).shared = Some(account.mailbox().to_owned());
    }
}

/// An account's credentials as its upstream takes them: where the token decides what
/// opens, they are the delegate's.
pub fn as_delegate(
    upstream: &dyn Upstream,
    account: &Account,
    credentials: Credentials,
) -> Credentials {
    match &account.delegate {
        Some(delegate) if !upstream.opens_by_name() => credentials.for_mailbox(delegate.clone()),
        _ => credentials,
    }
}

/// Names how an account came to its credentials: by whoever signed in, and what was
/// got since; or as they are stored, sealed.
fn sign_in(account: &Account) -> String {
    match &account.credential {
        Credential::OAuth(tokens) => format!("{} {}", tokens.signed_in, tokens.generation),
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}

/// What it means to a client that an account has no credentials.
pub(super) fn no_credentials(error: &CredentialError) -> UpstreamError {
    match error {
        CredentialError::SignInNeeded => UpstreamError::Authentication,
        CredentialError::Temporary(reason) => {
            UpstreamError::temporary(Reason::quoting("no token", reason))
        }
        CredentialError::Misconfigured(reason) => {
            UpstreamError::Misconfigured(Reason::quoting("no token", reason))
        }
        CredentialError::Disabled => UpstreamError::Misconfigured("the account is disabled".into()),
        CredentialError::Accounts(error) => unusable(error),
    }
}

/// What it means to a client that accounts cannot be read.
pub(super) fn unusable(error: &AccountsError) -> UpstreamError {
    let reason = Reason::quoting("accounts", &error.to_string());
    match error {
        AccountsError::Vault(VaultError::Random) => UpstreamError::temporary(reason),
        AccountsError::Vault(_) | AccountsError::Unreadable(_) => {
            UpstreamError::Misconfigured(reason)
        }
        _ => UpstreamError::temporary(reason),
    }
}
