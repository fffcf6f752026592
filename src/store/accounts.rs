//! Accounts: rows of octets by name, each with a version, so that nobody
//! overwrites what he has not seen.

use std::sync::Arc;

use super::{Access, Store, StoreError};

/// A stored account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRow {
    /// From 1; each change makes it one more.
    pub version: u64,
    /// What it means is the affair of whoever stores it.
    pub value: Box<[u8]>,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is durable; the row has this version now.
    Done(u64),
    /// The row is not the one that was read.
    Conflict,
}

impl Store {
    /// The account with this name. Costs no read of the disk.
    pub fn account(&self, _name: &str) -> Result<Option<Arc<AccountRow>>, StoreError> {
        todo!()
    }

    /// All accounts, by name.
    pub fn accounts(&self) -> Result<Vec<(String, Arc<AccountRow>)>, StoreError> {
        todo!()
    }

    /// Stores an account in the place of the version that was read; 0: there was
    /// none. Durable when it returns.
    pub async fn put_account(
        &self,
        _name: &str,
        _read: u64,
        _value: Vec<u8>,
    ) -> Result<Change, StoreError> {
        todo!()
    }

    /// Removes an account of the version that was read.
    pub async fn remove_account(&self, _name: &str, _read: u64) -> Result<Change, StoreError> {
        todo!()
    }

    /// Notes when something of an account was last used, in seconds of Unix time:
    /// written soon, or lost.
    pub fn note_use(&self, _account: &str, _what: &str, _time: i64) {
        todo!()
    }

    /// When things of an account were last used.
    pub async fn uses(&self, _account: &str) -> Result<Vec<(String, i64)>, StoreError> {
        todo!()
    }
}

impl Access {
    /// As [`Store::account`].
    pub async fn account(&self, _name: &str) -> Result<Option<Arc<AccountRow>>, StoreError> {
        todo!()
    }

    /// As [`Store::accounts`].
    pub async fn accounts(&self) -> Result<Vec<(String, Arc<AccountRow>)>, StoreError> {
        todo!()
    }

    /// As [`Store::put_account`].
    pub async fn put_account(
        &self,
        _name: &str,
        _read: u64,
        _value: Vec<u8>,
    ) -> Result<Change, StoreError> {
        todo!()
    }

    /// As [`Store::remove_account`].
    pub async fn remove_account(&self, _name: &str, _read: u64) -> Result<Change, StoreError> {
        todo!()
    }

    /// As [`Store::uses`].
    pub async fn uses(&self, _account: &str) -> Result<Vec<(String, i64)>, StoreError> {
        todo!()
    }
}
