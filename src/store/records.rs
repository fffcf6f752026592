//! The records of both parts: one for each message, under the number of its
//! folder, so that a folder is one range of keys and a message one small write.

use std::collections::HashSet;

use redb::{
    ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction,
};

use super::account_rows;
use super::part::Result;
use super::{AccountRow, FolderKey, Freezing, Frozen, Kept, Learned, MessageKey};
use crate::maildrop::UniqueId;

/// Account and folder to number; in each part by itself.
const FOLDERS: TableDefinition<&[u8], u64> = TableDefinition::new("folders");
/// Folder's number and message.
const HIDDEN: TableDefinition<&[u8], ()> = TableDefinition::new("hidden");
/// The same, to rank and unique id.
const FROZEN: TableDefinition<&[u8], &[u8]> = TableDefinition::new("frozen");
/// The same, to octets, and seconds of Unix time.
const OCTETS: TableDefinition<&[u8], u64> = TableDefinition::new("octets");
const RETRIEVED: TableDefinition<&[u8], i64> = TableDefinition::new("retrieved");

/// Something in the durable part, for a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Hidden(FolderKey, MessageKey),
    Frozen(FolderKey, Frozen),
    Account(String, AccountRow),
}

/// How much the durable part holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that are hidden.
    pub hidden: u64,
    /// Messages whose unique id is frozen.
    pub frozen: u64,
    /// Accounts.
    pub accounts: u64,
}

/// The tables of the durable part, made with it.
pub(super) fn durable_tables(transaction: &WriteTransaction) -> Result<()> {
    transaction.open_table(FOLDERS)?;
    transaction.open_table(HIDDEN)?;
    transaction.open_table(FROZEN)?;
    Ok(())
}

/// The tables of the cache.
pub(super) fn cache_tables(transaction: &WriteTransaction) -> Result<()> {
    transaction.open_table(FOLDERS)?;
    transaction.open_table(OCTETS)?;
    transaction.open_table(RETRIEVED)?;
    Ok(())
}

pub(super) fn hide(
    transaction: &WriteTransaction,
    folder: &FolderKey,
    messages: &[MessageKey],
) -> Result<()> {
    let number = number_for(transaction, folder)?;
    let mut table = transaction.open_table(HIDDEN)?;
    for message in messages {
        table.insert(key(number, message).as_slice(), ())?;
    }
    Ok(())
}

pub(super) fn freeze(
    transaction: &WriteTransaction,
    folder: &FolderKey,
    Freezing { ids, released }: &Freezing,
) -> Result<usize> {
    let number = number_for(transaction, folder)?;
    let mut table = transaction.open_table(FROZEN)?;
    for message in released {
        table.remove(key(number, message).as_slice())?;
    }
    let mut taken: HashSet<Vec<u8>> = HashSet::new();
    let (from, to) = range(number);
    for row in table.range(from.as_slice()..to.as_slice())? {
        taken.extend(row?.1.value().get(4..).map(<[u8]>::to_vec));
    }
    let mut new = 0;
    for frozen in ids {
        let id = frozen.unique_id.as_str().as_bytes();
        let key = key(number, &frozen.message);
        if taken.contains(id) || table.get(key.as_slice())?.is_some() {
            continue;
        }
        table.insert(key.as_slice(), value(frozen).as_slice())?;
        taken.insert(id.to_vec());
        new += usize::from(!frozen.is_nobodys());
    }
    Ok(new)
}

pub(super) fn learn(
    transaction: &WriteTransaction,
    folder: &FolderKey,
    learned: &[Learned],
) -> Result<()> {
    let number = number_for(transaction, folder)?;
    let mut octets = transaction.open_table(OCTETS)?;
    let mut retrieved = transaction.open_table(RETRIEVED)?;
    for it in learned {
        let key = key(number, &it.message);
        if let Some(count) = it.octets {
            octets.insert(key.as_slice(), count)?;
        }
        if let Some(time) = it.retrieved
            && retrieved.get(key.as_slice())?.is_none()
        {
            retrieved.insert(key.as_slice(), time)?;
        }
    }
    Ok(())
}

/// What the durable part has of a folder.
pub(super) fn durable(transaction: &ReadTransaction, folder: &FolderKey) -> Result<Kept> {
    let mut kept = Kept::default();
    let Some(number) = number_of(transaction, folder)? else {
        return Ok(kept);
    };
    let (from, to) = range(number);
    let range = from.as_slice()..to.as_slice();
    for row in transaction.open_table(HIDDEN)?.range(range.clone())? {
        kept.hidden.insert(message(row?.0.value()));
    }
    for row in transaction.open_table(FROZEN)?.range(range)? {
        let (key, value) = row?;
        kept.frozen
            .insert(message(key.value()), rank_and_id(value.value())?);
    }
    Ok(kept)
}

/// Fills in what the cache has of a folder.
pub(super) fn cached(
    transaction: &ReadTransaction,
    folder: &FolderKey,
    kept: &mut Kept,
) -> Result<()> {
    let Some(number) = number_of(transaction, folder)? else {
        return Ok(());
    };
    let (from, to) = range(number);
    let range = from.as_slice()..to.as_slice();
    for row in transaction.open_table(OCTETS)?.range(range.clone())? {
        let (key, value) = row?;
        kept.octets.insert(message(key.value()), value.value());
    }
    for row in transaction.open_table(RETRIEVED)?.range(range)? {
        let (key, value) = row?;
        kept.retrieved.insert(message(key.value()), value.value());
    }
    Ok(())
}

pub(super) fn counts(transaction: &ReadTransaction) -> Result<Counts> {
    Ok(Counts {
        hidden: transaction.open_table(HIDDEN)?.len()?,
        frozen: transaction.open_table(FROZEN)?.len()?,
        accounts: account_rows::count(transaction)?,
    })
}

/// Shows all records of the durable part to `see`: folder by folder, then the
/// accounts.
pub(super) fn each<E>(
    transaction: &ReadTransaction,
    mut see: impl FnMut(Record) -> std::result::Result<(), E>,
) -> Result<std::result::Result<(), E>> {
    let folders = transaction.open_table(FOLDERS)?;
    let hidden = transaction.open_table(HIDDEN)?;
    let frozen = transaction.open_table(FROZEN)?;
    for row in folders.iter()? {
        let (name, number) = row?;
        let folder = folder_of(name.value())?;
        let (from, to) = range(number.value());
        let range = from.as_slice()..to.as_slice();
        for row in hidden.range(range.clone())? {
            let record = Record::Hidden(folder.clone(), message(row?.0.value()));
            if let Err(error) = see(record) {
                return Ok(Err(error));
            }
        }
        for row in frozen.range(range)? {
            let (key, value) = row?;
            let (rank, unique_id) = rank_and_id(value.value())?;
            let frozen = Frozen {
                message: message(key.value()),
                rank,
                unique_id,
            };
            if let Err(error) = see(Record::Frozen(folder.clone(), frozen)) {
                return Ok(Err(error));
            }
        }
    }
    account_rows::each(transaction, |name, row| see(Record::Account(name, row)))
}

/// Puts a record of a backup back.
pub(super) fn restore(transaction: &WriteTransaction, record: &Record) -> Result<()> {
    match record {
        Record::Account(name, row) => account_rows::restore(transaction, name, row),
        Record::Hidden(folder, message) => hide(transaction, folder, std::slice::from_ref(message)),
        Record::Frozen(folder, frozen) => {
            let number = number_for(transaction, folder)?;
            let key = key(number, &frozen.message);
            transaction
                .open_table(FROZEN)?
                .insert(key.as_slice(), value(frozen).as_slice())?;
            Ok(())
        }
    }
}

pub(super) fn number_for(transaction: &WriteTransaction, folder: &FolderKey) -> Result<u64> {
    let mut folders = transaction.open_table(FOLDERS)?;
    let name = name(folder);
    if let Some(number) = folders.get(name.as_slice())? {
        return Ok(number.value());
    }
    // Folders are never taken out.
    let number = folders.len()?;
    folders.insert(name.as_slice(), number)?;
    Ok(number)
}

pub(super) fn number_of(transaction: &ReadTransaction, folder: &FolderKey) -> Result<Option<u64>> {
    let folders = transaction.open_table(FOLDERS)?;
    let number = folders.get(name(folder).as_slice())?;
    Ok(number.map(|number| number.value()))
}

/// The account's length, then both names.
pub(super) fn name(folder: &FolderKey) -> Vec<u8> {
    let mut name = (folder.account.len() as u64).to_be_bytes().to_vec();
    name.extend(folder.account.as_bytes());
    name.extend(folder.folder.as_bytes());
    name
}

fn folder_of(name: &[u8]) -> Result<FolderKey> {
    let read = || {
        let (length, names) = name.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
        let (account, folder) = names.split_at_checked(length)?;
        Some(FolderKey {
            account: String::from_utf8(account.to_vec()).ok()?,
            folder: String::from_utf8(folder.to_vec()).ok()?,
        })
    };
    read().ok_or_else(|| redb::Error::Corrupted("a folder's name is broken".to_owned()))
}

fn key(number: u64, message: &MessageKey) -> Vec<u8> {
    let mut key = number.to_be_bytes().to_vec();
    key.extend(message);
    key
}

fn message(key: &[u8]) -> MessageKey {
    key.get(8..).unwrap_or_default().into()
}

/// Where the keys of a folder begin, and those of the next.
fn range(number: u64) -> ([u8; 8], [u8; 8]) {
    (number.to_be_bytes(), number.saturating_add(1).to_be_bytes())
}

/// The rank, then the unique id.
fn value(frozen: &Frozen) -> Vec<u8> {
    let mut value = frozen.rank.to_be_bytes().to_vec();
    value.extend(frozen.unique_id.as_str().as_bytes());
    value
}

fn rank_and_id(value: &[u8]) -> Result<(u32, UniqueId)> {
    let read = || {
        let (rank, id) = value.split_first_chunk::<4>()?;
        let id = UniqueId::new(String::from_utf8(id.to_vec()).ok()?)?;
        Some((u32::from_be_bytes(*rank), id))
    };
    read().ok_or_else(|| redb::Error::Corrupted("a frozen unique id is broken".to_owned()))
}
