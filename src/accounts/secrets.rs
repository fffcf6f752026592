//! The secrets of an account, sealed where they belong: nobody else says what seals
//! them.

use std::collections::{BTreeMap, BTreeSet};

use super::vault::{Context, KeyRing, Opener, Sealed, VaultError, unlocked};
use super::{Account, Accounts, AccountsError, Credential, Home, SealedTokens, Secret};

/// OAuth tokens that are to be sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainTokens {
    /// Gets the next ones; `None`: there is nothing that does.
    pub refresh: Option<Secret>,
    /// The access token.
    pub access: Secret,
    /// When that ends, in seconds of Unix time.
    pub expires_at: i64,
    /// When somebody signed in, in seconds of Unix time.
    pub signed_in: i64,
    /// When these were got, in seconds of Unix time.
    pub refreshed: i64,
}

/// What an account has to get in with, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenedCredential {
    /// Nothing of its own.
    Provider,
    /// A password upstream.
    Password(Secret),
    /// A token without an end.
    ApiToken(Secret),
    /// OAuth tokens. When they end stands in the account.
    OAuth {
        /// Gets the next ones.
        refresh: Option<Secret>,
        /// The last access token.
        access: Secret,
    },
}

/// What [`Accounts::rekey`] has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rekeyed {
    /// Accounts that are sealed with the first key now, and were not before.
    pub resealed: u64,
    /// Accounts that were already, or have no secret.
    pub current: u64,
    /// Accounts that could not be, by address, with the reason.
    pub failed: Vec<(String, AccountsError)>,
}

const PASSWORD: &str = "password";
const API_TOKEN: &str = "api-token";
const REFRESH: &str = "refresh";
const ACCESS: &str = "access";

impl Accounts {
    /// Gives an account a password upstream. The account is changed, not stored.
    pub fn set_password(&self, account: &mut Account, secret: &Secret) -> Result<(), VaultError> {
        let sealed = self.seal(account, secret, PASSWORD, 0)?;
        account.credential = Credential::Password(sealed);
        Ok(())
    }

    /// Gives an account a token without an end. The account is changed, not stored.
    pub fn set_api_token(&self, account: &mut Account, token: &Secret) -> Result<(), VaultError> {
        let sealed = self.seal(account, token, API_TOKEN, 0)?;
        account.credential = Credential::ApiToken(sealed);
        Ok(())
    }

    /// Gives an account OAuth tokens: the first, or the next generation. Needs no
    /// device password. The account is changed, not stored; not at all after an
    /// error.
    pub fn set_tokens(
        &self,
        account: &mut Account,
        tokens: &PlainTokens,
    ) -> Result<(), VaultError> {
        let before = match &account.credential {
            Credential::OAuth(tokens) => tokens.generation,
            _ => 0,
        };
        let generation = before.saturating_add(1);
        let seal = |secret, purpose| self.seal(account, secret, purpose, generation);
        let refresh = tokens.refresh.as_ref();
        let sealed = SealedTokens {
            refresh: refresh.map(|it| seal(it, REFRESH)).transpose()?,
            access: seal(&tokens.access, ACCESS)?,
            expires_at: tokens.expires_at,
            signed_in: tokens.signed_in,
            refreshed: tokens.refreshed,
            generation,
            claim: None,
        };
        account.credential = Credential::OAuth(sealed);
        Ok(())
    }

    /// Opens what an account has. [`VaultError::Locked`]: it needs a device password,
    /// and `opener` is not of one, or of one from before the account's keys were
    /// made anew.
    pub fn open_credential(
        &self,
        account: &Account,
        opener: &Opener,
    ) -> Result<OpenedCredential, VaultError> {
        let open = |sealed: &Sealed, purpose, generation| {
            let home = home(&account.home);
            let context = context(account, &home, purpose, generation);
            unlocked(self.keys()?, sealed, context, opener)
        };
        Ok(match &account.credential {
            Credential::Provider => OpenedCredential::Provider,
            Credential::Password(it) => OpenedCredential::Password(open(it, PASSWORD, 0)?),
            Credential::ApiToken(it) => OpenedCredential::ApiToken(open(it, API_TOKEN, 0)?),
            Credential::OAuth(tokens) => {
                let refresh = tokens.refresh.as_ref();
                OpenedCredential::OAuth {
                    refresh: refresh
                        .map(|it| open(it, REFRESH, tokens.generation))
                        .transpose()?,
                    access: open(&tokens.access, ACCESS, tokens.generation)?,
                }
            }
        })
    }

    /// Seals what an account has once more, after a change of its home or of its
    /// keys: `before` is the account as it was.
    pub(super) fn seal_again(
        &self,
        account: &mut Account,
        before: &Account,
        opener: &Opener,
    ) -> Result<(), VaultError> {
        match self.open_credential(before, opener)? {
            OpenedCredential::Provider => Ok(()),
            OpenedCredential::Password(secret) => self.set_password(account, &secret),
            OpenedCredential::ApiToken(secret) => self.set_api_token(account, &secret),
            OpenedCredential::OAuth { refresh, access } => {
                let Credential::OAuth(tokens) = &before.credential else {
                    return Ok(());
                };
                let tokens = PlainTokens {
                    refresh,
                    access,
                    expires_at: tokens.expires_at,
                    signed_in: tokens.signed_in,
                    refreshed: tokens.refreshed,
                };
                self.set_tokens(account, &tokens)
            }
        }
    }

    /// Whether what is sealed now can be opened by whoever serves the store: a popgate
    /// that was started before the keys were changed has other ones
    /// ([`AccountsError::KeyNotRunning`]).
    pub async fn may_seal(&self) -> Result<(), AccountsError> {
        let Some(first) = self.config.keys.as_ref().and_then(|it| it.ids().next()) else {
            // What needs a key says so.
            return Ok(());
        };
        match self.access.keys().await? {
            Some(running) if running.iter().all(|it| it != first) => {
                Err(AccountsError::KeyNotRunning(first.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Moves everything sealed to the first key, account by account, while others
    /// use them. Nothing is, where [`Accounts::may_seal`] refuses. Afterwards the other
    /// keys are needed for old backups only.
    pub async fn rekey(&self) -> Result<Rekeyed, AccountsError> {
        self.may_seal().await?;
        let mut done = Rekeyed::default();
        for (address, _) in self.access.accounts().await? {
            let resealed = async {
                self.keys()?;
                let mut resealed = Ok(false);
                self.change(&address, |account| resealed = self.reseal(account))
                    .await?;
                Ok(resealed?)
            };
            match resealed.await {
                Ok(true) => done.resealed += 1,
                Ok(false) => done.current += 1,
                // Removed meanwhile.
                Err(AccountsError::Missing(_)) => {}
                Err(error) => done.failed.push((address, error)),
            }
        }
        Ok(done)
    }

    /// The ids of keys that are needed and not configured, with the number of accounts
    /// that nobody can open without.
    pub async fn missing_keys(&self) -> Result<BTreeMap<String, u64>, AccountsError> {
        let mut missing = BTreeMap::new();
        for account in self.all().await? {
            for id in self.missing_keys_of(&account) {
                *missing.entry(id.to_owned()).or_default() += 1;
            }
        }
        Ok(missing)
    }

    /// The ids of the keys without which nobody opens this account.
    pub fn missing_keys_of<'a>(&self, account: &'a Account) -> BTreeSet<&'a str> {
        sealed(account)
            .filter_map(|sealed| match &self.config.keys {
                Some(keys) => keys.missing_for(sealed),
                None => sealed.key_id(),
            })
            .collect()
    }

    /// Tells the operator of keys that are missing.
    pub(super) async fn tell_of_missing_keys(&self) {
        match self.missing_keys().await {
            Ok(missing) => {
                for (key, accounts) in missing {
                    tracing::error!(
                        key,
                        accounts,
                        "A KEY IS MISSING: these accounts cannot be opened until the key with this id is among those of [accounts]"
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "the accounts cannot be looked at"),
        }
    }

    /// Seals with the first key what is not. The account is as it was after an error.
    fn reseal(&self, account: &mut Account) -> Result<bool, VaultError> {
        let keys = self.keys()?;
        let mut new = account.clone();
        let mut any = false;
        let home = home(&account.home);
        let mut again = |sealed: &mut Sealed, purpose, generation| {
            if !keys.is_current(sealed) {
                let context = context(account, &home, purpose, generation);
                *sealed = keys.reseal(sealed, context)?;
                any = true;
            }
            Ok::<(), VaultError>(())
        };
        match &mut new.credential {
            Credential::Provider => {}
            Credential::Password(sealed) => again(sealed, PASSWORD, 0)?,
            Credential::ApiToken(sealed) => again(sealed, API_TOKEN, 0)?,
            Credential::OAuth(tokens) => {
                if let Some(refresh) = &mut tokens.refresh {
                    again(refresh, REFRESH, tokens.generation)?;
                }
                again(&mut tokens.access, ACCESS, tokens.generation)?;
            }
        }
        if let Some(lock) = &mut new.lock {
            any |= lock.reseal(keys, &account.address)?;
        }
        *account = new;
        Ok(any)
    }

    fn seal(
        &self,
        account: &Account,
        secret: &Secret,
        purpose: &str,
        generation: u64,
    ) -> Result<Sealed, VaultError> {
        let home = home(&account.home);
        let context = context(account, &home, purpose, generation);
        match &account.lock {
            Some(lock) if lock.is_held() => lock.seal(self.keys()?, secret, context),
            // Nobody could open it. It is sealed anew with the next device.
            _ => self.keys()?.seal(secret, context),
        }
    }

    pub(super) fn keys(&self) -> Result<&KeyRing, VaultError> {
        self.config.keys.as_ref().ok_or(VaultError::NoKey)
    }
}

/// Everything sealed of an account.
fn sealed(account: &Account) -> impl Iterator<Item = &Sealed> {
    let (one, other) = match &account.credential {
        Credential::Provider => (None, None),
        Credential::Password(sealed) | Credential::ApiToken(sealed) => (Some(sealed), None),
        Credential::OAuth(tokens) => (Some(&tokens.access), tokens.refresh.as_ref()),
    };
    let lock = account.lock.iter();
    let lock = lock.flat_map(|it| std::iter::once(&it.public_key).chain(it.private_keys.values()));
    one.into_iter().chain(other).chain(lock)
}

fn context<'a>(
    account: &'a Account,
    home: &'a str,
    purpose: &'a str,
    generation: u64,
) -> Context<'a> {
    Context {
        account: &account.address,
        home,
        purpose,
        generation,
    }
}

/// What is sealed in of a home: a token goes to no other server.
fn home(home: &Home) -> String {
    match home {
        Home::Gateway => "gateway".to_owned(),
        Home::Provider(name) => format!("provider {name}"),
        Home::Upstream(url) => format!("upstream {url}"),
    }
}

#[cfg(test)]
mod tests;
