//! The table of accounts, and its rows in memory: a login costs no read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use redb::{
    ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, TableError,
    WriteTransaction,
};

use super::StoreError;
use super::accounts::{AccountRow, Change};
use super::part::Result;

/// Name to version and value. A store that an earlier popgate made has no such
/// table until there is an account.
const ACCOUNTS: TableDefinition<&str, (u64, &[u8])> = TableDefinition::new("accounts");
/// The highest version that a removed account had: one of that name that is made
/// later is never taken for it.
const REMOVED: TableDefinition<(), u64> = TableDefinition::new("removed_accounts");

type Rows = BTreeMap<String, Arc<AccountRow>>;

/// All rows, as the table has them.
#[derive(Default)]
pub(super) struct AccountRows {
    /// `None`: to be read from the table.
    rows: RwLock<Option<Rows>>,
    /// Held by whoever changes the table, until the rows in memory are the same.
    changing: Mutex<()>,
}

impl AccountRows {
    /// The row of that name, where the rows are known, and nobody changes or reads
    /// them just now.
    pub fn known(&self, name: &str) -> Option<Option<Arc<AccountRow>>> {
        let rows = self.rows.try_read().ok()?;
        rows.as_ref().map(|rows| rows.get(name).cloned())
    }

    /// Shows the rows to `see`, after `read` has read them where they are not known.
    pub fn with<T>(
        &self,
        read: impl FnOnce() -> std::result::Result<Rows, StoreError>,
        see: impl FnOnce(&Rows) -> T,
    ) -> std::result::Result<T, StoreError> {
        if let Some(rows) = &*self.rows.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(see(rows));
        }
        let known = &mut *self.rows.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(rows) = known {
            return Ok(see(rows));
        }
        let rows = read()?;
        Ok(see(known.insert(rows)))
    }

    /// Nobody else changes the table as long as it is held.
    pub fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table has this row now; `None`: it has none of that name.
    pub fn put(&self, name: &str, row: Option<AccountRow>) {
        if let Some(rows) = &mut *self.rows.write().unwrap_or_else(PoisonError::into_inner) {
            match row {
                Some(row) => rows.insert(name.to_owned(), Arc::new(row)),
                None => rows.remove(name),
            };
        }
    }

    /// A change failed: it may be in the table, or not.
    pub fn forget(&self) {
        *self.rows.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Whether the row is the one that was read.
pub(super) fn is_version(rows: &Rows, name: &str, read: u64) -> bool {
    rows.get(name).map_or(0, |row| row.version) == read
}

/// What the table holds.
pub(super) fn all(transaction: &ReadTransaction) -> Result<Rows> {
    let mut rows = Rows::new();
    each::<std::convert::Infallible>(transaction, |name, row| {
        rows.insert(name, Arc::new(row));
        Ok(())
    })?
    .unwrap_or_else(|never| match never {});
    Ok(rows)
}

/// How many rows the table holds.
pub(super) fn count(transaction: &ReadTransaction) -> Result<u64> {
    match transaction.open_table(ACCOUNTS) {
        Err(TableError::TableDoesNotExist(_)) => Ok(0),
        table => Ok(table?.len()?),
    }
}

/// Shows each row to `see`, by name.
pub(super) fn each<E>(
    transaction: &ReadTransaction,
    mut see: impl FnMut(String, AccountRow) -> std::result::Result<(), E>,
) -> Result<std::result::Result<(), E>> {
    let table = match transaction.open_table(ACCOUNTS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(Ok(())),
        table => table?,
    };
    for row in table.iter()? {
        let (name, row) = row?;
        let (version, value) = row.value();
        let row = AccountRow {
            version,
            value: value.into(),
        };
        if let Err(error) = see(name.value().to_owned(), row) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

/// Puts a value in the place of the version that was read, and gives the new one.
pub(super) fn put(
    transaction: &WriteTransaction,
    name: &str,
    read: u64,
    value: &[u8],
) -> Result<u64> {
    let before = match read {
        0 => {
            let removed = transaction.open_table(REMOVED)?;
            removed.get(())?.map_or(0, |version| version.value())
        }
        read => read,
    };
    let version = before.saturating_add(1);
    let row = AccountRow {
        version,
        value: value.into(),
    };
    restore(transaction, name, &row)?;
    Ok(version)
}

/// Puts a row as it is.
pub(super) fn restore(transaction: &WriteTransaction, name: &str, row: &AccountRow) -> Result<()> {
    transaction
        .open_table(ACCOUNTS)?
        .insert(name, (row.version, &*row.value))?;
    Ok(())
}

/// Removes a row.
pub(super) fn remove(transaction: &WriteTransaction, name: &str, read: u64) -> Result<Change> {
    transaction.open_table(ACCOUNTS)?.remove(name)?;
    let mut removed = transaction.open_table(REMOVED)?;
    let highest = removed.get(())?.map_or(0, |version| version.value());
    removed.insert((), highest.max(read))?;
    Ok(Change::Done(read))
}
