//! Snapshots of folders, as an upstream packs them: a head, and numbered blocks
//! of which only those that changed are written again.
//!
//! Each snapshot has a seal over its folder's name, its head and the sums of its
//! blocks: what is torn, damaged or another folder's is as if it were not there.

use std::collections::BTreeMap;

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction};
use ring::digest::{Context, SHA256};

use super::FolderKey;
use super::part::Result;
use super::records::{name, number_for, number_of};

/// Folder's number, to its seal, the sums of its blocks and its head.
const SNAPSHOTS: TableDefinition<u64, &[u8]> = TableDefinition::new("snapshots");
/// Folder's number and the block's.
const BLOCKS: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("snapshot_blocks");
/// Folder's number, to its place in [`ORDER`] and to octets in the file.
const USES: TableDefinition<u64, (u64, u64)> = TableDefinition::new("snapshot_uses");
/// Folders' numbers, from the one that was not used for longest.
const ORDER: TableDefinition<u64, u64> = TableDefinition::new("snapshot_order");
/// Octets of all snapshots.
const TOTAL: TableDefinition<(), u64> = TableDefinition::new("snapshot_total");

/// What a row costs beyond what is in it, in octets.
const ROW: u64 = 64;

/// The first half of a SHA-256.
type Sum = [u8; 16];

/// A folder's listing, packed. Only the upstream knows how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What holds for all of it.
    pub head: Bytes,
    /// Its blocks by their numbers.
    pub blocks: BTreeMap<u32, Block>,
}

/// A block of a snapshot: octets whose sum is known. Its clones are one.
#[derive(Clone, Debug)]
pub struct Block {
    octets: Bytes,
    sum: Sum,
}

impl PartialEq for Block {
    fn eq(&self, other: &Self) -> bool {
        self.sum == other.sum
    }
}

impl Eq for Block {}

impl Block {
    /// Octets of a block that fits into the file's pages, which have sizes in
    /// powers of two. More are as good, but take more room.
    pub const FULL: usize = 16_000;

    /// The block of these octets.
    pub fn new(octets: impl Into<Bytes>) -> Self {
        let octets = octets.into();
        let sum = sum(&[&octets]);
        Self { octets, sum }
    }

    /// What is in it.
    pub fn octets(&self) -> &Bytes {
        &self.octets
    }
}

impl Snapshot {
    /// Octets of the head and of all blocks.
    pub fn octets(&self) -> u64 {
        let blocks = self.blocks.values().map(|block| block.octets.len());
        blocks.chain([self.head.len()]).sum::<usize>() as u64
    }

    /// What it takes in the file.
    fn cost(&self) -> u64 {
        let rows = self.blocks.len() as u64;
        // A block's row, and its number and sum in the snapshot's.
        self.octets() + ROW + rows * (ROW + ENTRY as u64)
    }
}

/// What the store has of a folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Whole(Snapshot),
    /// Something that is of no use.
    Broken,
}

/// The row of a snapshot: `seal`, number of blocks, then number and sum of each,
/// then the head.
struct Row<'a> {
    sums: BTreeMap<u32, Sum>,
    head: &'a [u8],
}

/// Octets of a block's number and sum in a row.
const ENTRY: usize = 4 + size_of::<Sum>();

impl<'a> Row<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let sums = snapshot.blocks.iter();
        Self {
            sums: sums.map(|(number, block)| (*number, block.sum)).collect(),
            head: &snapshot.head,
        }
    }

    fn write(&self, folder: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(4 + self.sums.len() * ENTRY + self.head.len());
        sealed.extend((self.sums.len() as u64).to_be_bytes());
        for (number, sum) in &self.sums {
            sealed.extend(number.to_be_bytes());
            sealed.extend(sum);
        }
        sealed.extend(self.head);
        [&seal(folder, &sealed)[..], &sealed].concat()
    }

    /// `None`: it is not as it was written, or another folder's.
    fn read(folder: &[u8], row: &'a [u8]) -> Option<Self> {
        let (found, sealed) = row.split_first_chunk()?;
        if *found != seal(folder, sealed) {
            return None;
        }
        let (count, mut rest) = sealed.split_first_chunk()?;
        let mut sums = BTreeMap::new();
        for _ in 0..u64::from_be_bytes(*count) {
            let (number, after) = rest.split_first_chunk()?;
            let (sum, after) = after.split_first_chunk()?;
            sums.insert(u32::from_be_bytes(*number), *sum);
            rest = after;
        }
        Some(Self { sums, head: rest })
    }
}

fn seal(folder: &[u8], sealed: &[u8]) -> Sum {
    let length = (folder.len() as u64).to_be_bytes();
    sum(&[&length, folder, sealed])
}

fn sum(pieces: &[&[u8]]) -> Sum {
    let mut context = Context::new(&SHA256);
    for piece in pieces {
        context.update(piece);
    }
    let whole = context.finish();
    let mut sum = Sum::default();
    for (octet, of_whole) in sum.iter_mut().zip(whole.as_ref()) {
        *octet = *of_whole;
    }
    sum
}

/// A table that older files do not have.
fn there<T>(table: std::result::Result<T, TableError>) -> Result<Option<T>> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What is kept of the folder.
pub(super) fn snapshot(transaction: &ReadTransaction, folder: &FolderKey) -> Result<Found> {
    let Some(number) = number_of(transaction, folder)? else {
        return Ok(Found::Nothing);
    };
    let (Some(snapshots), Some(table)) = (
        there(transaction.open_table(SNAPSHOTS))?,
        there(transaction.open_table(BLOCKS))?,
    ) else {
        return Ok(Found::Nothing);
    };
    let Some(row) = snapshots.get(number)? else {
        return Ok(Found::Nothing);
    };
    let Some(row) = Row::read(&name(folder), row.value()) else {
        return Ok(Found::Broken);
    };
    let mut blocks = BTreeMap::new();
    for (block, sum) in &row.sums {
        let Some(octets) = table.get((number, *block))? else {
            return Ok(Found::Broken);
        };
        let found = Block::new(octets.value().to_vec());
        if found.sum != *sum {
            return Ok(Found::Broken);
        }
        blocks.insert(*block, found);
    }
    let head = Bytes::copy_from_slice(row.head);
    Ok(Found::Whole(Snapshot { head, blocks }))
}

/// Keeps a snapshot in the place of the folder's last, and writes of it only what
/// is not there yet. Those not used for longest go while all together have more
/// than `most` octets.
pub(super) fn keep(
    transaction: &WriteTransaction,
    folder: &FolderKey,
    snapshot: &Snapshot,
    most: u64,
) -> Result<()> {
    let cost = snapshot.cost();
    if cost > most {
        return forget(transaction, folder);
    }
    let folder_name = name(folder);
    let number = number_for(transaction, folder)?;
    let row = Row::of(snapshot);
    {
        let mut snapshots = transaction.open_table(SNAPSHOTS)?;
        let mut table = transaction.open_table(BLOCKS)?;
        let before = {
            let before = snapshots.get(number)?;
            let before = before.as_ref().map(|before| before.value());
            before.and_then(|before| Some(Row::read(&folder_name, before)?.sums))
        };
        let before = match before {
            Some(before) => before,
            None => {
                table.retain_in((number, 0)..=(number, u32::MAX), |_, _| false)?;
                BTreeMap::new()
            }
        };
        for block in before.keys().filter(|it| !row.sums.contains_key(it)) {
            table.remove((number, *block))?;
        }
        for (at, block) in &snapshot.blocks {
            if before.get(at) != Some(&block.sum) {
                table.insert((number, *at), &*block.octets)?;
            }
        }
        snapshots.insert(number, row.write(&folder_name).as_slice())?;
    }
    let total = account(transaction, number, Some(cost))?;
    shrink(transaction, total, most)
}

/// Forgets the folder's snapshot.
pub(super) fn forget(transaction: &WriteTransaction, folder: &FolderKey) -> Result<()> {
    let number = number_for(transaction, folder)?;
    remove(transaction, number)?;
    Ok(())
}

/// The snapshots of these folders were used, the last one last.
pub(super) fn used<'a>(
    transaction: &WriteTransaction,
    folders: impl IntoIterator<Item = &'a FolderKey>,
) -> Result<()> {
    for folder in folders {
        let number = number_for(transaction, folder)?;
        let cost = match transaction.open_table(USES)?.get(number)? {
            Some(it) => it.value().1,
            None => continue,
        };
        account(transaction, number, Some(cost))?;
    }
    Ok(())
}

/// A folder's snapshot is the one used last and has `cost` octets now, or is no
/// more. Gives the octets of all.
fn account(transaction: &WriteTransaction, number: u64, cost: Option<u64>) -> Result<u64> {
    let mut uses = transaction.open_table(USES)?;
    let mut order = transaction.open_table(ORDER)?;
    let mut totals = transaction.open_table(TOTAL)?;
    let mut total = totals.get(())?.map_or(0, |total| total.value());
    if let Some(before) = uses.remove(number)? {
        let (place, octets) = before.value();
        order.remove(place)?;
        total = total.saturating_sub(octets);
    }
    if let Some(cost) = cost {
        let last = order.last()?.map_or(0, |(place, _)| place.value());
        let place = last.saturating_add(1);
        order.insert(place, number)?;
        uses.insert(number, (place, cost))?;
        total = total.saturating_add(cost);
    }
    totals.insert((), total)?;
    Ok(total)
}

fn shrink(transaction: &WriteTransaction, mut total: u64, most: u64) -> Result<()> {
    while total > most {
        let first = {
            let order = transaction.open_table(ORDER)?;
            order.first()?.map(|(_, number)| number.value())
        };
        match first {
            Some(number) => total = remove(transaction, number)?,
            None => break,
        }
    }
    Ok(())
}

fn remove(transaction: &WriteTransaction, number: u64) -> Result<u64> {
    transaction.open_table(SNAPSHOTS)?.remove(number)?;
    transaction
        .open_table(BLOCKS)?
        .retain_in((number, 0)..=(number, u32::MAX), |_, _| false)?;
    account(transaction, number, None)
}
