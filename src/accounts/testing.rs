//! Accounts for tests, in a store of their own.

use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::store::Store;

mod token_endpoint;

pub(super) use token_endpoint::TokenEndpoint;

/// Accounts in a folder that goes with them.
pub(super) struct Fixture {
    pub accounts: Accounts,
    pub folder: TempDir,
}

/// A gateway with one key.
pub(super) fn config() -> Config {
    Config {
        keys: Some(keys(&[1])),
        locked_by_password: false,
        providers: Providers::new(),
        gateway_upstream: None,
        alarm: Alarm::default(),
    }
}

/// Keys that are the same each time.
pub(super) fn keys(numbers: &[u8]) -> KeyRing {
    KeyRing::parse(&Secret::new(key_lines(numbers))).unwrap()
}

pub(super) fn key_lines(numbers: &[u8]) -> String {
    use base64::Engine as _;
    let lines = numbers.iter().map(|number| {
        let octets: Vec<u8> = (0..32u8).map(|place| place ^ number).collect();
        base64::engine::general_purpose::STANDARD.encode(octets) + "\n"
    });
    lines.collect()
}

impl Fixture {
    pub fn new() -> Self {
        Self::with(config())
    }

    pub fn locked() -> Self {
        Self::with(Config {
            locked_by_password: true,
            ..config()
        })
    }

    pub fn with(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let accounts = Accounts::new(Access::Local(store), config, Arc::default());
        Self { accounts, folder }
    }

    /// The same store, with another configuration.
    pub fn again(self, config: Config) -> Self {
        let Self { accounts, folder } = self;
        let access = accounts.access.clone();
        drop(accounts);
        let accounts = Accounts::new(access, config, Arc::default());
        Self { accounts, folder }
    }

    /// Stores an account with a generated password, and gives that.
    pub async fn account(&self, address: &str) -> Secret {
        let mut account = Account::nobody(address);
        let added = self.accounts.add_device(&mut account, "phone", None, None);
        let password = added.await.unwrap().password;
        self.accounts.save(&mut account).await.unwrap();
        password
    }

    pub async fn login(&self, address: &str, password: &Secret) -> Verdict {
        self.accounts
            .authenticate(address, password, None)
            .await
            .unwrap()
    }

    /// Logs in, with success.
    pub async fn admitted(&self, address: &str, password: &Secret) -> Admitted {
        match self.login(address, password).await {
            Verdict::Admitted(admitted) => *admitted,
            other => panic!("{address}: {other:?}"),
        }
    }
}

/// Tokens of which one can tell whose they are.
pub(super) fn tokens(name: &str) -> PlainTokens {
    PlainTokens {
        refresh: Some(Secret::new(format!("refresh of {name}"))),
        access: Secret::new(format!("access of {name}")),
        expires_at: 2_000_000_000,
        signed_in: 1_700_000_000,
        refreshed: 1_700_000_001,
    }
}

/// The same, as they are opened.
pub(super) fn opened(name: &str) -> OpenedCredential {
    let PlainTokens {
        refresh, access, ..
    } = tokens(name);
    OpenedCredential::OAuth { refresh, access }
}
