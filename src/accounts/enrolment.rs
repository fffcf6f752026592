//! How an account comes to its credentials: the same for the command line and the
//! page.

use async_trait::async_trait;
use tracing::{info, warn};

use super::address::normalized;
use super::renewal::name_of;
use super::{
    Account, Accounts, AccountsError, Credential, CredentialError, Entry, Home, PlainTokens,
    Secret, now,
};
use crate::oauth2::Tokens;
use crate::sasl::{self, Credentials};

/// How often the row may change while it is stored.
const ROUNDS: usize = 8;
/// Octets of a token.
const LONGEST_TOKEN: usize = 16 << 10;

/// What somebody brings who enrols.
#[derive(Debug)]
pub enum NewCredential {
    /// Nothing: the provider lets popgate in.
    Provider,
    /// A password upstream.
    Password(Secret),
    /// A token without an end.
    ApiToken(Secret),
    /// Somebody has signed in.
    OAuth(Tokens),
}

/// Looks whether a mailbox opens.
#[async_trait]
pub trait Probe: Send + Sync {
    /// Logs in at the server with this URL, and out again. `delegate`: who has
    /// signed in for a mailbox that is shared with him.
    async fn probe(
        &self,
        upstream: &str,
        credentials: Credentials,
        delegate: Option<&str>,
    ) -> Result<(), ProbeError>;
}

/// A mailbox does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The credentials are not good for it.
    #[error("the mail server refuses the credentials")]
    Refused,
    /// The same may succeed later.
    #[error("{0}")]
    Temporary(String),
    /// A setting must be changed.
    #[error("{0}")]
    Misconfigured(String),
}

/// What became of it.
#[derive(Debug)]
pub struct Enrolled {
    /// As it is stored now.
    pub account: Account,
    /// It was there before, and has new credentials.
    pub renewed: bool,
}

/// Somebody cannot be enrolled. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// Another mailbox signed in than the one that is to be enrolled.
    #[error("{signed_in} signed in, not {expected}")]
    AnotherMailbox {
        /// Who signed in.
        signed_in: String,
        /// Who should have.
        expected: String,
    },
    /// The mailbox does not open with what was brought.
    #[error("the mailbox does not open: {0}")]
    Mailbox(#[from] ProbeError),
    /// No tokens.
    #[error(transparent)]
    Token(#[from] crate::oauth2::TokenError),
    /// There is no such provider, or what was brought does not go with it.
    #[error("{0}")]
    Unsuitable(String),
    /// The accounts cannot be changed.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
}

impl Accounts {
    /// Enrols `account` (new, or as it was found) with what was brought, or renews
    /// its credentials: sees that the right mailbox signed in, that it opens, seals
    /// and stores. An account in trouble is cured. Devices, policies and whether it
    /// is disabled stay as they are stored. Given up half-way, or after an error,
    /// nothing has changed.
    pub async fn enrol(
        &self,
        account: Account,
        brought: NewCredential,
        probe: &dyn Probe,
    ) -> Result<Enrolled, EnrolmentError> {
        if normalized(&account.address)? != account.address {
            let problem = "an account's address is in lower case".to_owned();
            return Err(AccountsError::Unsuitable(problem).into());
        }
        self.suits(&account, &brought)?;
        if !matches!(brought, NewCredential::Provider) {
            self.may_seal().await?;
        }
        if let NewCredential::OAuth(tokens) = &brought {
            see_who_signed_in(&account, tokens)?;
        }
        if !account.master {
            let credentials = self.brought(&account, &brought).await?;
            let upstream = self.upstream_of(&account.home).ok_or_else(|| {
                let reason = format!("no upstream is configured for {}", name_of(&account.home));
                EnrolmentError::Unsuitable(reason)
            })?;
            let delegate = account.delegate.as_deref();
            probe.probe(upstream, credentials, delegate).await?;
        }
        let address = account.address.clone();
        let stored = self
            .replacing(&address, self.store(account, &brought))
            .await?;
        if let NewCredential::OAuth(Tokens { refresh: None, .. }) = &brought {
            warn!(
                account = address.as_str(),
                "the provider gave no refresh token: somebody has to sign in again when the access ends"
            );
        }
        info!(
            account = address.as_str(),
            provider = name_of(&stored.account.home),
            renewed = stored.renewed,
            "enrolled"
        );
        Ok(stored)
    }

    /// A new account, not stored.
    pub fn new_account(&self, address: &str, home: Home) -> Result<Account, AccountsError> {
        Ok(Account {
            created: now(),
            home,
            ..Account::nobody(&normalized(address)?)
        })
    }

    /// Whether the home lets popgate in with that.
    fn suits(&self, account: &Account, brought: &NewCredential) -> Result<(), EnrolmentError> {
        let unsuitable = |reason: String| Err(EnrolmentError::Unsuitable(reason));
        let home = name_of(&account.home);
        if account.master {
            return match brought {
                NewCredential::Provider => Ok(()),
                _ => unsuitable("a master account has no mailbox of its own".to_owned()),
            };
        }
        let Home::Provider(name) = &account.home else {
            return match brought {
                NewCredential::Password(_) | NewCredential::ApiToken(_) => Ok(()),
                NewCredential::OAuth(_) => {
                    unsuitable(format!("{home} is no provider that gives tokens"))
                }
                NewCredential::Provider => unsuitable(format!(
                    "{home} lets nobody in without a password or a token"
                )),
            };
        };
        let Some(provider) = self.provider(name) else {
            return unsuitable(format!("there is no [provider.{name}]"));
        };
        let entry = &provider.entry;
        match (entry, brought) {
            (Entry::OAuth(_), NewCredential::OAuth(_)) if !entry.needs_nobody() => Ok(()),
            (Entry::OAuth(_) | Entry::Master { .. }, NewCredential::Provider)
                if entry.needs_nobody() =>
            {
                Ok(())
            }
            (Entry::Password, NewCredential::Password(_))
            | (Entry::ApiToken, NewCredential::ApiToken(_)) => Ok(()),
            (Entry::OAuth(_), _) if entry.needs_nobody() => {
                unsuitable(format!("[provider.{name}] needs nothing of an account"))
            }
            (Entry::OAuth(_), _) => unsuitable(format!("at [provider.{name}] people sign in")),
            (Entry::Password, _) => unsuitable(format!("[provider.{name}] takes app passwords")),
            (Entry::ApiToken, _) => unsuitable(format!("[provider.{name}] takes API tokens")),
            (Entry::Master { .. }, _) => {
                unsuitable(format!("[provider.{name}] needs nothing of an account"))
            }
        }
    }

    /// What the upstream will be shown.
    async fn brought(
        &self,
        account: &Account,
        brought: &NewCredential,
    ) -> Result<Credentials, EnrolmentError> {
        let user = account.mailbox();
        let bearer = |token: &Secret| match is_token(token) {
            true => Ok(Credentials::Bearer {
                user: user.to_owned(),
                token: token.clone(),
            }),
            false => Err(EnrolmentError::Unsuitable("that is no token".to_owned())),
        };
        sasl::check_user(user).map_err(|_| {
            EnrolmentError::Unsuitable("no mail server has a user of that name".to_owned())
        })?;
        match brought {
            NewCredential::Provider => {
                let shown = self.provider_credentials(&account.home, user).await;
                shown.map_err(|error| match error {
                    CredentialError::Temporary(reason) => ProbeError::Temporary(reason).into(),
                    CredentialError::Accounts(error) => error.into(),
                    error => ProbeError::Misconfigured(error.to_string()).into(),
                })
            }
            NewCredential::Password(password) => Credentials::password(user, password.reveal())
                .map_err(|error| EnrolmentError::Unsuitable(format!("that password: {error}"))),
            NewCredential::ApiToken(token) => bearer(token),
            NewCredential::OAuth(tokens) => bearer(&tokens.access),
        }
    }

    /// Seals and stores; again where somebody else has changed the account
    /// meanwhile.
    async fn store(
        &self,
        account: Account,
        brought: &NewCredential,
    ) -> Result<Enrolled, EnrolmentError> {
        let renewed = account.version > 0;
        let address = account.address.clone();
        let (home, mailbox, delegate) = (
            account.home.clone(),
            account.mailbox.clone(),
            account.delegate.clone(),
        );
        let mut row = account;
        for _ in 0..ROUNDS {
            self.give(&mut row, brought)?;
            row.trouble = None;
            match self.save(&mut row).await {
                Ok(()) => {
                    return Ok(Enrolled {
                        account: row,
                        renewed,
                    });
                }
                Err(AccountsError::Changed(_)) => {}
                Err(error) => return Err(error.into()),
            }
            let found = self.find(&address).await?;
            row = Account {
                home: home.clone(),
                mailbox: mailbox.clone(),
                delegate: delegate.clone(),
                ..found.ok_or_else(|| AccountsError::Missing(address.clone()))?
            };
        }
        Err(AccountsError::Changed(address).into())
    }

    /// Gives the account what was brought; it is changed, not stored.
    fn give(&self, row: &mut Account, brought: &NewCredential) -> Result<(), AccountsError> {
        match brought {
            NewCredential::Provider => row.credential = Credential::Provider,
            NewCredential::Password(password) => self.set_password(row, password)?,
            NewCredential::ApiToken(token) => self.set_api_token(row, token)?,
            NewCredential::OAuth(tokens) => {
                // No two sign-ins have one time: a renewal under way can tell them
                // apart.
                let signed_in = match &row.credential {
                    Credential::OAuth(before) => now().max(before.signed_in + 1),
                    _ => now(),
                };
                let tokens = PlainTokens {
                    refresh: tokens.refresh.clone(),
                    access: tokens.access.clone(),
                    expires_at: tokens.expires_at,
                    signed_in,
                    refreshed: now(),
                };
                self.set_tokens(row, &tokens)?;
            }
        }
        Ok(())
    }
}

/// The mailbox that signed in must be the one that is enrolled. Where the provider
/// does not say who it was, the mail server is the judge: it opens a mailbox only
/// for its owner's token.
fn see_who_signed_in(account: &Account, tokens: &Tokens) -> Result<(), EnrolmentError> {
    let Some(signed_in) = &tokens.identity else {
        return Ok(());
    };
    let is = |name: &str| name.to_lowercase() == signed_in.to_lowercase();
    let expected = account.signs_in();
    if is(expected) || (account.delegate.is_none() && is(account.mailbox())) {
        return Ok(());
    }
    Err(EnrolmentError::AnotherMailbox {
        signed_in: signed_in.clone(),
        expected: expected.to_owned(),
    })
}

/// Whether a text can be shown as a token (RFC 6750 §2.1).
fn is_token(token: &Secret) -> bool {
    let text = token.reveal().trim_end_matches('=');
    let is_token_octet = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~+/".contains(&octet);
    !text.is_empty() && text.len() <= LONGEST_TOKEN && text.bytes().all(is_token_octet)
}

#[cfg(test)]
mod tests;
