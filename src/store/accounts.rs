//! Accounts: rows of JSON by name, each with a version, so that nobody overwrites
//! what he has not seen.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::access::{Reached, ask};
use super::control::{Request, Row};
use super::{Access, Store, StoreError, uses};

/// Octets of a value, and of a name. A line of a backup holds both.
const LARGEST: usize = 512 << 10;
const LONGEST_NAME: usize = 1024;

/// A stored account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRow {
    /// From 1; each change makes it one more. One that is made anew after it was
    /// removed begins higher than any that was removed.
    pub version: u64,
    /// One line of JSON. What it means is the affair of whoever stores it.
    pub value: Box<[u8]>,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It is durable; the row has this version now, or had it when it was removed.
    Done(u64),
    /// The row is not the one that was read.
    Conflict,
}

impl Store {
    /// The account with this name. Costs no read of the disk, but for the first
    /// time after a write that failed.
    pub async fn account(&self, name: &str) -> Result<Option<Arc<AccountRow>>, StoreError> {
        if let Ok(inner) = &*self.0
            && let Some(row) = inner.durable.known_account(name)
        {
            return Ok(row);
        }
        let name = name.to_owned();
        self.blocking(move |inner| inner.durable.account(&name))
            .await
    }

    /// All accounts, by name.
    pub async fn accounts(&self) -> Result<Vec<(String, Arc<AccountRow>)>, StoreError> {
        self.blocking(|inner| inner.durable.accounts()).await
    }

    /// Stores an account in the place of the version that was read; 0: there was
    /// none. Durable when it returns; after an error the row is either the old one
    /// or the new one. The value is one line of JSON of at most 512 KiB, the name is
    /// not empty and has at most 1024 octets.
    pub async fn put_account(
        &self,
        name: &str,
        read: u64,
        value: Vec<u8>,
    ) -> Result<Change, StoreError> {
        if !is_row(name, &value) {
            let problem = "an account has a name, and is one line of JSON of at most 512 KiB";
            return Err(StoreError::failed(Path::new("an account"), problem));
        }
        let name = name.to_owned();
        self.blocking(move |inner| inner.durable.put_account(&name, read, value))
            .await
    }

    /// Removes an account of the version that was read, and what is known of its
    /// uses.
    pub async fn remove_account(&self, name: &str, read: u64) -> Result<Change, StoreError> {
        let name = name.to_owned();
        self.blocking(move |inner| {
            let change = inner.durable.remove_account(&name, read)?;
            if change != Change::Conflict {
                inner.cache.forget_uses(&name);
            }
            Ok(change)
        })
        .await
    }

    /// Notes when something of an account was last used, in seconds of Unix time:
    /// written soon, or lost.
    pub fn note_use(&self, account: &str, what: &str, time: i64) {
        let Ok(inner) = &*self.0 else {
            return;
        };
        if !inner.cache.note_use(account, what, time) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            inner.cache.write_uses();
            return;
        };
        let store = Arc::downgrade(&self.0);
        runtime.spawn(async move {
            tokio::time::sleep(uses::GATHERED).await;
            let written = tokio::task::spawn_blocking(move || {
                let store = store.upgrade();
                if let Some(Ok(inner)) = store.as_deref() {
                    inner.cache.write_uses();
                }
            });
            // Cancelled where the process ends.
            let _ = written.await;
        });
    }

    /// When things of an account were last used.
    pub async fn uses(&self, account: &str) -> Result<HashMap<String, i64>, StoreError> {
        let account = account.to_owned();
        self.blocking(move |inner| inner.cache.uses(&account)).await
    }
}

/// Whether a row can be stored, and be a line of a backup.
pub(super) fn is_row(name: &str, value: &[u8]) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && value.len() <= LARGEST
        && !value.contains(&b'\n')
        && serde_json::from_slice::<&RawValue>(value).is_ok()
}

impl Access {
    /// As [`Store::account`].
    pub async fn account(&self, name: &str) -> Result<Option<Arc<AccountRow>>, StoreError> {
        match self.reached().await? {
            Reached::Local(store) => store.account(name).await,
            Reached::Remote(socket) => {
                let request = Request::Account {
                    account: name.to_owned(),
                };
                let row: Option<Row> = ask(socket, request).await?;
                Ok(row.map(|row| Arc::new(row.row().1)))
            }
        }
    }

    /// As [`Store::accounts`].
    pub async fn accounts(&self) -> Result<Vec<(String, Arc<AccountRow>)>, StoreError> {
        match self.reached().await? {
            Reached::Local(store) => store.accounts().await,
            Reached::Remote(socket) => {
                let rows: Vec<Row> = ask(socket, Request::Accounts).await?;
                let rows = rows.into_iter().map(Row::row);
                Ok(rows.map(|(name, row)| (name, Arc::new(row))).collect())
            }
        }
    }

    /// As [`Store::put_account`].
    pub async fn put_account(
        &self,
        name: &str,
        read: u64,
        value: Vec<u8>,
    ) -> Result<Change, StoreError> {
        match self.reached().await? {
            Reached::Local(store) => store.put_account(name, read, value).await,
            Reached::Remote(socket) => {
                let value = String::from_utf8(value)
                    .map_err(|error| StoreError::failed(Path::new(name), error))?;
                let request = Request::PutAccount {
                    account: name.to_owned(),
                    read,
                    value,
                };
                ask(socket, request).await
            }
        }
    }

    /// As [`Store::remove_account`].
    pub async fn remove_account(&self, name: &str, read: u64) -> Result<Change, StoreError> {
        match self.reached().await? {
            Reached::Local(store) => store.remove_account(name, read).await,
            Reached::Remote(socket) => {
                let request = Request::RemoveAccount {
                    account: name.to_owned(),
                    read,
                };
                ask(socket, request).await
            }
        }
    }

    /// The ids of the keys of the process that has the store; `None`: it is this one.
    pub async fn keys(&self) -> Result<Option<Vec<String>>, StoreError> {
        match self.reached().await? {
            Reached::Local(_) => Ok(None),
            Reached::Remote(socket) => ask(socket, Request::Keys).await.map(Some),
        }
    }

    /// As [`Store::note_use`]; by a command it is not noted.
    pub fn note_use(&self, account: &str, what: &str, time: i64) {
        if let Self::Local(store) = self {
            store.note_use(account, what, time);
        }
    }

    /// As [`Store::uses`].
    pub async fn uses(&self, account: &str) -> Result<HashMap<String, i64>, StoreError> {
        match self.reached().await? {
            Reached::Local(store) => store.uses(account).await,
            Reached::Remote(socket) => {
                let request = Request::Uses {
                    account: account.to_owned(),
                };
                ask(socket, request).await
            }
        }
    }
}
