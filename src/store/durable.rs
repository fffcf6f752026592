//! The durable part: never begun anew where there was one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::Durability;

use super::account_rows::{self, AccountRows};
use super::accounts::{AccountRow, Change};
use super::marker::{Mark, Marker, StoreId, new_id};
use super::part::{Open, Opener, Part};
use super::records::{self, Counts};
use super::{FolderKey, Freezing, Kept, MessageKey, OpenError, StoreError, backup};

pub(super) const FILE: &str = "durable.redb";

pub(super) struct Durable {
    part: Part,
    marker: Arc<Marker>,
    id: StoreId,
    accounts: AccountRows,
}

impl Durable {
    /// Opens the part in `folder`, or makes it if nothing tells of an earlier one.
    pub(super) fn open(
        folder: &Path,
        marker: Arc<Marker>,
        has_cache: bool,
        opener: &Opener,
    ) -> Result<Self, OpenError> {
        let path = folder.join(FILE);
        let missing = |path: PathBuf| OpenError::Damaged {
            file: path,
            problem: "it is missing, and this folder had one".to_owned(),
        };
        if !path
            .try_exists()
            .map_err(|error| OpenError::io(&path, &error))?
        {
            if marker.used() || has_cache {
                return Err(missing(path));
            }
            let mark = Mark {
                id: new_id(),
                generation: 0,
            };
            Part::create(&path, mark, records::durable_tables)?;
        }
        let part = {
            let (path, marker, opener) = (path.clone(), Arc::clone(&marker), Arc::clone(opener));
            Part::new(&path.clone(), move || {
                Open::new(&path, &opener, marker.mark())
            })
        };
        let mark = part.open()?;
        let io = |error| OpenError::io(marker.path(), &error);
        if marker.mark().is_none() {
            marker.advance(mark).map_err(io)?;
            marker.sync().map_err(io)?;
        }
        let id = mark.id;
        let accounts = AccountRows::default();
        let durable = Self {
            part,
            marker,
            id,
            accounts,
        };
        // Read now rather than at the first login; an error comes again there.
        let _ = durable.with_accounts(|_| ());
        Ok(durable)
    }

    pub(super) fn id(&self) -> StoreId {
        self.id
    }

    pub(super) fn folder(&self, folder: &FolderKey) -> Result<Kept, StoreError> {
        self.part
            .read(|transaction| records::durable(transaction, folder))
    }

    pub(super) fn hide(
        &self,
        folder: &FolderKey,
        messages: &[MessageKey],
    ) -> Result<(), StoreError> {
        if messages.is_empty() {
            return Ok(());
        }
        self.write(|transaction| records::hide(transaction, folder, messages))
    }

    pub(super) fn freeze(
        &self,
        folder: &FolderKey,
        freezing: &Freezing,
    ) -> Result<usize, StoreError> {
        if freezing.ids.is_empty() {
            return Ok(0);
        }
        self.write(|transaction| records::freeze(transaction, folder, freezing))
    }

    /// Where the rows are in memory.
    pub(super) fn known_account(&self, name: &str) -> Option<Option<Arc<AccountRow>>> {
        self.accounts.known(name)
    }

    pub(super) fn account(&self, name: &str) -> Result<Option<Arc<AccountRow>>, StoreError> {
        self.with_accounts(|rows| rows.get(name).cloned())
    }

    pub(super) fn accounts(&self) -> Result<Vec<(String, Arc<AccountRow>)>, StoreError> {
        self.with_accounts(|rows| {
            let rows = rows.iter();
            rows.map(|(name, row)| (name.clone(), Arc::clone(row)))
                .collect()
        })
    }

    pub(super) fn put_account(
        &self,
        name: &str,
        read: u64,
        value: Vec<u8>,
    ) -> Result<Change, StoreError> {
        self.change_account(name, read, |transaction| {
            let version = account_rows::put(transaction, name, read, &value)?;
            let value = value.into();
            Ok((Change::Done(version), Some(AccountRow { version, value })))
        })
    }

    pub(super) fn remove_account(&self, name: &str, read: u64) -> Result<Change, StoreError> {
        self.change_account(name, read, |transaction| {
            Ok((account_rows::remove(transaction, name, read)?, None))
        })
    }

    /// Changes a row, if it is the one that was read.
    fn change_account(
        &self,
        name: &str,
        read: u64,
        change: impl FnOnce(
            &redb::WriteTransaction,
        ) -> super::part::Result<(Change, Option<AccountRow>)>,
    ) -> Result<Change, StoreError> {
        let _changing = self.accounts.changing();
        if !self.with_accounts(|rows| account_rows::is_version(rows, name, read))? {
            return Ok(Change::Conflict);
        }
        let (change, row) = self.write(change).inspect_err(|_| self.accounts.forget())?;
        self.accounts.put(name, row);
        Ok(change)
    }

    fn with_accounts<T>(
        &self,
        see: impl FnOnce(&std::collections::BTreeMap<String, Arc<AccountRow>>) -> T,
    ) -> Result<T, StoreError> {
        self.accounts
            .with(|| self.part.read(account_rows::all), see)
    }

    pub(super) fn counts(&self) -> Result<Counts, StoreError> {
        self.part.read(records::counts)
    }

    pub(super) fn export(&self, to: &mut dyn std::io::Write) -> Result<Counts, StoreError> {
        let written = self
            .part
            .read(|transaction| backup::write(transaction, to))?;
        written.map_err(|error| StoreError::failed(Path::new("the backup"), error))
    }

    fn write<T>(
        &self,
        write: impl FnOnce(&redb::WriteTransaction) -> super::part::Result<T>,
    ) -> Result<T, StoreError> {
        self.marker
            .in_place()
            .map_err(|error| StoreError::failed(self.marker.path(), error))?;
        let (outcome, mark) = self.part.write(Durability::Immediate, write)?;
        // It is durable; the marker only guards it.
        if let Err(error) = self.marker.advance(mark) {
            tracing::warn!(%error, "the store's marker cannot be written");
        }
        Ok(outcome)
    }
}
