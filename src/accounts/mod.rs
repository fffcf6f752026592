//! Accounts of popgate's own: a password for each device in front; tokens, an app
//! password or nothing behind.
//!
//! The store keeps them; what is secret is sealed (`vault`). A wrong password, a
//! failed refresh or a crash never destroys a token.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::metrics::Metrics;
use crate::sasl::Credentials;
use crate::secret::Secret;
use crate::store::{Access, StoreError};

mod account;
mod authentication;
mod device_password;
mod enrolment;
mod provider;
mod tokens;
mod vault;

pub use account::{Account, Credential, Device, Home, Rules, SealedTokens, Trouble, Verifier};
pub use authentication::{Admitted, Verdict};
pub use device_password::DevicePassword;
pub use enrolment::{Enrolled, EnrolmentError, NewCredential, Probe, ProbeError};
pub use provider::{Entry, Provider, Providers};
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
#[derive(Debug, Default)]
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

/// The accounts of a gateway.
#[derive(Debug)]
pub struct Accounts {
    access: Access,
    config: Config,
    metrics: Arc<Metrics>,
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
}

impl Accounts {
    /// The accounts in a store.
    pub fn new(access: Access, config: Config, metrics: Arc<Metrics>) -> Self {
        Self {
            access,
            config,
            metrics,
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

    /// The account with this address, in any case of letters.
    pub async fn find(&self, _address: &str) -> Result<Option<Account>, AccountsError> {
        todo!()
    }

    /// Every account, by address.
    pub async fn all(&self) -> Result<Vec<Account>, AccountsError> {
        todo!()
    }

    /// Stores an account, durably, if nobody has changed it since it was read
    /// ([`AccountsError::Changed`]); a new one if there is none
    /// ([`AccountsError::Exists`]).
    pub async fn save(&self, _account: &mut Account) -> Result<(), AccountsError> {
        todo!()
    }

    /// Reads, changes and stores an account; again where somebody else was quicker.
    pub async fn change<T: Send>(
        &self,
        _address: &str,
        _change: impl FnMut(&mut Account) -> T + Send,
    ) -> Result<(Account, T), AccountsError> {
        todo!()
    }

    /// Removes an account and everything sealed for it. `false`: there was none.
    pub async fn remove(&self, _address: &str) -> Result<bool, AccountsError> {
        todo!()
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
