//! What an account shows to its upstream, kept fresh.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::pauses::Failure;
use super::renewal::{LAST, Need, name_of};
use super::{
    Account, Accounts, AccountsError, Admitted, Credential, Credentials, Entry, Home,
    OpenedCredential, Opener, Provider, Secret, Trouble, now,
};
use crate::metrics::RefreshResult;
use crate::oauth2::{Client, Grant, Tokens};

/// How many seconds a login waits for new tokens while the old one is good still: a
/// client waits less long than a provider may take.
const SLOW: u32 = 5;

/// There is nothing to show to the upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Somebody has to sign in again.
    #[error("the provider refuses: sign in again")]
    SignInNeeded,
    /// The same may succeed later.
    #[error("{0}")]
    Temporary(String),
    /// A setting must be changed.
    #[error("{0}")]
    Misconfigured(String),
    /// The operator has shut the account.
    #[error("the account is disabled")]
    Disabled,
    /// The accounts cannot be asked.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
}

impl Accounts {
    /// What opens the mailbox of an account. An access token that ends within ten
    /// minutes is renewed before, one request at a time for each account, and on
    /// disk before it is used. While the provider fails, or takes its time, a token
    /// that has not ended does.
    pub async fn credentials(&self, admitted: &Admitted) -> Result<Credentials, CredentialError> {
        let account = &admitted.account;
        if account.disabled {
            return Err(CredentialError::Disabled);
        }
        match &account.credential {
            Credential::Provider => {
                self.provider_credentials(&account.home, account.mailbox())
                    .await
            }
            Credential::Password(_) | Credential::ApiToken(_) => {
                self.at_rest(account, &admitted.opener)
            }
            Credential::OAuth(_) if account.trouble.is_some() => Err(CredentialError::SignInNeeded),
            Credential::OAuth(tokens) if !tokens.is_due(now()) => {
                self.at_rest(account, &admitted.opener)
            }
            Credential::OAuth(tokens) => {
                let renewed = self.renewed(&account.address, &admitted.opener, Need::Fresh);
                let renewed = match tokens.expires_at > now() + LAST + i64::from(SLOW) {
                    // The renewal goes on, for the logins to come.
                    true => match timeout(Duration::from_secs(SLOW.into()), renewed).await {
                        Ok(renewed) => renewed,
                        Err(_) => return self.at_rest(account, &admitted.opener),
                    },
                    false => renewed.await,
                };
                renewed?.ok_or(CredentialError::SignInNeeded)
            }
        }
    }

    /// The upstream refused `used`: something newer to try once, or `None`. Where
    /// the provider refuses, too, it is [`CredentialError::SignInNeeded`], and the
    /// account is in trouble. A password or a token without an end is all that
    /// there is: the account is in trouble until it works again
    /// ([`Accounts::worked`]).
    pub async fn after_refusal(
        &self,
        admitted: &Admitted,
        used: &Credentials,
    ) -> Result<Option<Credentials>, CredentialError> {
        let account = &admitted.account;
        match (&account.credential, used) {
            (Credential::OAuth(_), Credentials::Bearer { token, .. }) => {
                let need = Need::Other(token.clone());
                self.renewed(&account.address, &admitted.opener, need).await
            }
            (Credential::Password(_) | Credential::ApiToken(_), _) => {
                let known = (account.version, &account.credential);
                let stored = self
                    .change(&account.address, |row| {
                        let same = row.version == known.0 || &row.credential == known.1;
                        let is_news = same && row.trouble.is_none();
                        if is_news {
                            row.trouble = Some(Trouble {
                                since: now(),
                                reason: "the mail server refuses the password or token".to_owned(),
                                told: false,
                            });
                        }
                        is_news
                    })
                    .await?;
                if let (row, true) = stored {
                    let reason = row.trouble.as_ref().map_or("", |it| it.reason.as_str());
                    self.mourn(&row, reason);
                }
                Ok(None)
            }
            (Credential::Provider, Credentials::Bearer { user, token }) => {
                self.provider_refused(&account.home, user, token).await
            }
            _ => Ok(None),
        }
    }

    /// The upstream has taken what the account showed: what it refused before is
    /// good again. Costs nothing where the account was not in trouble.
    pub async fn worked(&self, admitted: &Admitted) {
        if admitted.account.trouble.is_none() {
            return;
        }
        let address = admitted.account.address.as_str();
        let cured = self
            .change(address, |row| row.trouble.take().is_some())
            .await;
        match cured {
            Ok((_, true)) => {
                tracing::info!(
                    account = address,
                    "the mail server takes the credentials again"
                );
                self.renewals.news.notify_one();
            }
            Ok((_, false)) => {}
            Err(error) => {
                tracing::warn!(account = address, %error, "cannot store that the account is well again");
            }
        }
    }

    /// What opens somebody's mailbox where the provider needs nothing of an account
    /// (`Entry::needs_nobody`): for users whose password was judged elsewhere. While
    /// the provider fails, a token that has not ended does.
    pub async fn provider_credentials(
        &self,
        home: &Home,
        mailbox: &str,
    ) -> Result<Credentials, CredentialError> {
        let provider = self.provider_of(home)?;
        match &provider.entry {
            Entry::Master { user, password } => Ok(Credentials::Password {
                user: user.clone(),
                authorize_as: Some(mailbox.to_owned()),
                password: password.clone(),
            }),
            Entry::OAuth(client) if provider.entry.needs_nobody() => {
                let pauses = &self.renewals.pauses;
                let name = provider.name.as_str();
                let whose = holder(name, client, mailbox);
                let shown = |tokens: Tokens| Credentials::Bearer {
                    user: mailbox.to_owned(),
                    token: tokens.access,
                };
                let spare = match client.kept_for_mailbox(mailbox) {
                    Some((tokens, true)) => return Ok(shown(tokens)),
                    Some((tokens, false)) if tokens.expires_at > now() + LAST => {
                        Some(shown(tokens))
                    }
                    _ => None,
                };
                // An answer may be long in coming: one login waits for it, and not all.
                if client.is_asking_for_mailbox(mailbox)
                    && let Some(spare) = spare
                {
                    return Ok(spare);
                }
                if let Err(failure) = pauses.check(name, &whose) {
                    return spare.ok_or_else(|| failure.into());
                }
                match client.for_mailbox(mailbox).await {
                    Ok(tokens) => {
                        pauses.answered(name, &whose);
                        Ok(shown(tokens))
                    }
                    Err(error) => {
                        let (why, retry_after) = Failure::of(&error).unwrap_or_else(|| {
                            self.count(RefreshResult::Refused);
                            // Nobody signs in here: the operator has to see to it.
                            (Failure::Misconfigured(error.to_string()), None)
                        });
                        let error = self.refresh_failed(name, &whose, why, retry_after);
                        spare.ok_or(error)
                    }
                }
            }
            Entry::OAuth(_) | Entry::Password | Entry::ApiToken => {
                Err(CredentialError::Misconfigured(format!(
                    "[provider.{}] lets popgate in only with something of each account",
                    provider.name
                )))
            }
        }
    }

    /// The upstream has refused a token of the provider's own: another one, unless
    /// that was one itself a moment ago.
    async fn provider_refused(
        &self,
        home: &Home,
        mailbox: &str,
        refused: &Secret,
    ) -> Result<Option<Credentials>, CredentialError> {
        let provider = self.provider_of(home)?;
        let Entry::OAuth(client) = &provider.entry else {
            return Ok(None);
        };
        let is_newer = |there: &Credentials| !matches!(there, Credentials::Bearer { token, .. } if token == refused);
        // One after the other: many mailboxes may have shown the token that is no
        // longer good, and what one of them gets for it is for all.
        let flight = self
            .renewals
            .flight(&holder(&provider.name, client, mailbox));
        let mut flight = flight.lock().await;
        let there = self.provider_credentials(home, mailbox).await?;
        if is_newer(&there) {
            return Ok(Some(there));
        }
        if !flight.may_force() {
            return Ok(None);
        }
        flight.forced = Some(Instant::now());
        client.forget_for_mailbox(mailbox, refused);
        let newer = self.provider_credentials(home, mailbox).await?;
        Ok(is_newer(&newer).then_some(newer))
    }

    /// What the account has of its own, as it is stored.
    pub(super) fn at_rest(
        &self,
        account: &Account,
        opener: &Opener,
    ) -> Result<Credentials, CredentialError> {
        let user = account.mailbox().to_owned();
        let opened = self.open_credential(account, opener);
        match opened.map_err(AccountsError::from)? {
            OpenedCredential::Password(password) => Ok(Credentials::Password {
                user,
                authorize_as: None,
                password,
            }),
            OpenedCredential::ApiToken(token) | OpenedCredential::OAuth { access: token, .. } => {
                Ok(Credentials::Bearer { user, token })
            }
            OpenedCredential::Provider => Err(changed()),
        }
    }

    fn provider_of(&self, home: &Home) -> Result<&Arc<Provider>, CredentialError> {
        let Home::Provider(name) = home else {
            let reason = format!("{} is no provider", name_of(home));
            return Err(CredentialError::Misconfigured(reason));
        };
        self.provider(name)
            .ok_or_else(|| CredentialError::Misconfigured(format!("there is no [provider.{name}]")))
    }

    /// The provider that gives an account its tokens.
    pub(super) fn oauth_provider(&self, home: &Home) -> Result<Arc<Provider>, CredentialError> {
        let provider = self.provider_of(home)?;
        match &provider.entry {
            Entry::OAuth(_) => Ok(Arc::clone(provider)),
            _ => Err(CredentialError::Misconfigured(format!(
                "[provider.{}] gives no tokens",
                provider.name
            ))),
        }
    }
}

/// The way into the mailbox is another one now.
pub(super) fn changed() -> CredentialError {
    let reason = "the account was changed while it was being used";
    CredentialError::Temporary(reason.to_owned())
}

/// Who has the token for a mailbox, where nobody signs in: the provider for all of
/// them, or each. No address of an account has a line end.
fn holder(provider: &str, client: &Client, mailbox: &str) -> String {
    match client.registration().grant {
        Grant::ClientCredentials => format!("{provider}\n"),
        Grant::ServiceAccount | Grant::User => format!("{provider}\n{mailbox}"),
    }
}
