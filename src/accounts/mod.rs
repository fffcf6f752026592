//! Accounts of popgate's own: a password for each device in front; tokens, an app
//! password or nothing behind.
//!
//! The store keeps them; what is secret is sealed (`vault`). A wrong password, a
//! failed refresh or a crash never destroys a token.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use url::Url;

use crate::metrics::Metrics;
use crate::sasl::Credentials;
use crate::secret::Secret;
use crate::store::{Access, AccountRow, Change, StoreError};

mod account;
mod address;
mod alarm;
mod authentication;
mod device_password;
mod enrolment;
#[cfg(fuzzing)]
pub mod fuzzing;
mod hashing;
mod http_check;
mod owner;
mod pauses;
mod provider;
mod renewal;
mod secrets;
#[cfg(test)]
mod testing;
mod tokens;
mod vault;
mod watch;

pub use account::{
    Account, Claim, Credential, Device, Home, Rules, SealedTokens, Trouble, Verifier,
};
pub use authentication::{Admitted, Verdict};
pub use device_password::DevicePassword;
pub use enrolment::{Enrolled, EnrolmentError, NewCredential, Probe, ProbeError};
pub use http_check::{HttpCheck, HttpCheckConfig, HttpVerdict};
pub use provider::{Entry, Provider, Providers};
pub use secrets::{OpenedCredential, PlainTokens, Rekeyed};
pub use tokens::CredentialError;
pub use vault::{Context, KeyRing, Opener, PasswordLock, Sealed, VaultError};

/// What the configuration says of accounts.
#[derive(Debug)]
pub struct Config {
    /// What seals; `None`: no account can have a secret.
    pub keys: Option<KeyRing>,
    /// Secrets of new accounts open only with a device password.
    pub locked_by_password: bool,
    /// By name.
    pub providers: Providers,
    /// The URL of the gateway's own upstream.
    pub gateway_upstream: Option<String>,
    /// What happens when a token dies.
    pub alarm: Alarm,
}

/// Who is told when a token dies.
#[derive(Debug)]
pub struct Alarm {
    /// Gets a POST of JSON: https, or http on loopback.
    pub webhook: Option<Url>,
    /// A program and its arguments; JSON on its standard input.
    pub command: Option<Vec<String>>,
    /// How long either may take.
    pub patience: Duration,
    /// Whom the webhook's certificate must come from.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Where people sign in again.
    pub sign_in: Option<Url>,
}

impl Default for Alarm {
    fn default() -> Self {
        Self {
            webhook: None,
            command: None,
            patience: Duration::from_secs(10),
            tls: None,
            sign_in: None,
        }
    }
}

/// The accounts of a gateway. Its clones are one.
#[derive(Clone, Debug)]
pub struct Accounts {
    access: Access,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    hashing: Arc<hashing::Hashing>,
    /// Some account has a password that a person chose.
    any_chosen: Arc<AtomicBool>,
    /// All accounts were looked at for that.
    all_seen: Arc<AtomicBool>,
    renewals: Arc<renewal::Renewals>,
}

/// The accounts cannot be asked, or not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountsError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A secret cannot be sealed or opened.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// What is stored is no account.
    #[error("the account {0} cannot be read")]
    Unreadable(String),
    /// Somebody else has changed the account meanwhile.
    #[error("the account {0} was changed meanwhile")]
    Changed(String),
    /// There is no such account.
    #[error("there is no account {0}")]
    Missing(String),
    /// There is one already.
    #[error("there is an account {0} already")]
    Exists(String),
    /// What is sealed with this key could not be opened by the popgate that runs.
    #[error(
        "restart popgate first: the one that is running does not have the key that seals now ({0}), and could open nothing that is sealed with it"
    )]
    KeyNotRunning(String),
    /// Too many passwords are being compared just now.
    #[error("too many passwords are being compared")]
    Busy,
    /// An address, a name or a password will not do; in words, for whoever gave it.
    #[error("{0}")]
    Unsuitable(String),
}

impl Accounts {
    /// The accounts in a store.
    pub fn new(access: Access, config: impl Into<Arc<Config>>, metrics: Arc<Metrics>) -> Self {
        Self {
            access,
            config: config.into(),
            metrics,
            hashing: Arc::default(),
            any_chosen: Arc::default(),
            all_seen: Arc::default(),
            renewals: Arc::default(),
        }
    }

    /// What is configured.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The provider of this name.
    pub fn provider(&self, name: &str) -> Option<&Arc<Provider>> {
        self.config.providers.get(name)
    }

    /// The account with this address, in any case of letters. Costs no read of the
    /// disk where the store is the process's own.
    pub async fn find(&self, address: &str) -> Result<Option<Account>, AccountsError> {
        let address = key(address);
        let row = self.access.account(&address).await?;
        row.map(|row| account(address, &row)).transpose()
    }

    /// Every account, by address. One that cannot be read ([`AccountsError::Unreadable`]
    /// to whoever asks for it) is left out, and the log says so: the others go on.
    pub async fn all(&self) -> Result<Vec<Account>, AccountsError> {
        let rows = self.access.accounts().await?.into_iter();
        let readable = rows.filter_map(|(address, row)| {
            account(address, &row)
                .inspect_err(|error| {
                    tracing::error!("{error}: remove it, or restore a backup");
                })
                .ok()
        });
        Ok(readable.collect())
    }

    /// Stores an account, durably, if nobody has changed it since it was read
    /// ([`AccountsError::Changed`]); a new one if there is none
    /// ([`AccountsError::Exists`]). Its version is the new one then.
    pub async fn save(&self, account: &mut Account) -> Result<(), AccountsError> {
        let address = key(&account.address);
        if address.is_empty() {
            let problem = "an account has an address".to_owned();
            return Err(AccountsError::Unsuitable(problem));
        }
        let value =
            serde_json::to_vec(account).map_err(|_| AccountsError::Unreadable(address.clone()))?;
        let change = self.access.put_account(&address, account.version, value);
        match change.await? {
            Change::Done(version) => {
                (account.address, account.version) = (address, version);
                Ok(())
            }
            Change::Conflict if account.version == 0 => Err(AccountsError::Exists(address)),
            Change::Conflict => Err(AccountsError::Changed(address)),
        }
    }

    /// Reads, changes and stores an account; again where somebody else was quicker.
    /// Nothing is written where `change` changes nothing.
    pub async fn change<T: Send>(
        &self,
        address: &str,
        mut change: impl FnMut(&mut Account) -> T + Send,
    ) -> Result<(Account, T), AccountsError> {
        let mut tries = 0;
        loop {
            let Some(mut account) = self.find(address).await? else {
                return Err(AccountsError::Missing(key(address)));
            };
            let before = account.clone();
            let outcome = change(&mut account);
            if account == before {
                return Ok((account, outcome));
            }
            tries += 1;
            match self.save(&mut account).await {
                Err(AccountsError::Changed(_)) if tries < MOST_TRIES => {}
                saved => return saved.map(|()| (account, outcome)),
            }
        }
    }

    /// Removes an account and everything sealed for it. `false`: there was none.
    pub async fn remove(&self, address: &str) -> Result<bool, AccountsError> {
        let address = key(address);
        for _ in 0..MOST_TRIES {
            let Some(row) = self.access.account(&address).await? else {
                return Ok(false);
            };
            let change = self.access.remove_account(&address, row.version).await?;
            if change != Change::Conflict {
                return Ok(true);
            }
        }
        Err(AccountsError::Changed(address))
    }

    /// The URL of the server that holds the mailbox.
    pub fn upstream_of<'a>(&'a self, home: &'a Home) -> Option<&'a str> {
        match home {
            Home::Gateway => self.config.gateway_upstream.as_deref(),
            Home::Provider(name) => self.provider(name).map(|it| it.upstream.as_str()),
            Home::Upstream(url) => Some(url),
        }
    }
}

/// How often a change is tried where others are quicker each time.
const MOST_TRIES: u32 = 100;

/// The name of an account's row.
fn key(address: &str) -> String {
    // Blanks around it are a slip: what is typed with it is no affair of any upstream's.
    address.trim().to_lowercase()
}

/// The account in a row.
fn account(address: String, row: &AccountRow) -> Result<Account, AccountsError> {
    let account: Result<Account, _> = serde_json::from_slice(&row.value);
    match account {
        Ok(account) => Ok(Account {
            version: row.version,
            address,
            ..account
        }),
        Err(_) => Err(AccountsError::Unreadable(address)),
    }
}

/// In seconds of Unix time.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |it| i64::try_from(it.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
