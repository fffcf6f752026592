//! Backups of the durable part: lines of JSON, so that anybody can read them.
//!
//! The first line has the version and the counts, then there is one for each
//! record, and the last has the SHA-256 of all lines before it: a backup that was
//! cut off or changed is recognised.

use std::fs;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use redb::ReadTransaction;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::accounts::is_row;
use super::durable::{self, Durable};
use super::marker::{Mark, Marker, hex, new_id};
use super::part::{self, Part};
use super::records::{self, Counts, Record};
use super::{AccountRow, FolderKey, Frozen, OpenError};
use crate::maildrop::UniqueId;

/// Of the text.
const VERSION: u64 = 1;

/// No line of a backup is longer.
const LONGEST_LINE: u64 = 1 << 20;

/// A backup cannot be restored; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is no such store, or it cannot be replaced.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Something would be overwritten.
    #[error("{0}: --replace puts the backup in its place, and keeps it beside")]
    NotEmpty(String),
    /// The backup is not whole.
    #[error("line {line}: {problem}")]
    Wrong {
        /// From 1.
        line: u64,
        /// What is wrong there.
        problem: String,
    },
    /// It cannot be read.
    #[error("cannot read the backup: {0}")]
    Read(io::Error),
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Header {
    popgate_state: u64,
    hidden: u64,
    frozen: u64,
    /// Not in backups of earlier versions.
    #[serde(default, skip_serializing_if = "is_zero")]
    accounts: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Line {
    account: String,
    folder: String,
    /// In base64.
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    unique_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rank: Option<u32>,
}

/// An account. Its secrets are sealed.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct AccountLine {
    address: String,
    version: u64,
    value: Box<RawValue>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct End {
    sha256: String,
}

/// Whether `folder` has a store, be it damaged.
pub fn exists(folder: &Path) -> bool {
    Marker::exists(folder) || folder.join(durable::FILE).exists()
}

/// Writes a backup of what the transaction sees.
pub(super) fn write(
    transaction: &ReadTransaction,
    to: &mut dyn Write,
) -> part::Result<io::Result<Counts>> {
    let counts = records::counts(transaction)?;
    let mut lines = Lines {
        to,
        sum: Context::new(&SHA256),
    };
    let header = Header {
        popgate_state: VERSION,
        hidden: counts.hidden,
        frozen: counts.frozen,
        accounts: counts.accounts,
    };
    if let Err(error) = lines.write(&header) {
        return Ok(Err(error));
    }
    if let Err(error) = records::each(transaction, |record| lines.record(record))? {
        return Ok(Err(error));
    }
    Ok(lines.finish().map(|()| counts))
}

struct Lines<'a> {
    to: &'a mut dyn Write,
    sum: Context,
}

impl Lines<'_> {
    fn write(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(line)?;
        line.push(b'\n');
        self.sum.update(&line);
        self.to.write_all(&line)
    }

    fn record(&mut self, record: Record) -> io::Result<()> {
        let (folder, message, frozen) = match record {
            Record::Account(address, AccountRow { version, value }) => {
                return self.write(&AccountLine {
                    address,
                    version,
                    value: serde_json::from_slice(&value)?,
                });
            }
            Record::Hidden(folder, message) => (folder, message, None),
            Record::Frozen(folder, frozen) => {
                let kept = (frozen.rank, frozen.unique_id.as_str().to_owned());
                (folder, frozen.message, Some(kept))
            }
        };
        let (rank, unique_id) = frozen.unzip();
        self.write(&Line {
            account: folder.account,
            folder: folder.folder,
            message: STANDARD.encode(message),
            unique_id,
            rank,
        })
    }

    fn finish(mut self) -> io::Result<()> {
        let sha256 = hex(self.sum.clone().finish().as_ref());
        self.write(&End { sha256 })?;
        self.to.flush()
    }
}

impl AccountLine {
    fn record(self) -> Result<Record, String> {
        let value: Box<[u8]> = String::from(Box::<str>::from(self.value))
            .into_bytes()
            .into();
        if !is_row(&self.address, &value) || self.version == 0 {
            return Err("this is no account".to_owned());
        }
        let version = self.version;
        Ok(Record::Account(self.address, AccountRow { version, value }))
    }
}

impl Line {
    fn record(self) -> Result<Record, String> {
        let folder = FolderKey {
            account: self.account,
            folder: self.folder,
        };
        let message = STANDARD
            .decode(self.message)
            .map_err(|_| "the message is not base64".to_owned())?
            .into_boxed_slice();
        match (self.rank, self.unique_id) {
            (None, None) => Ok(Record::Hidden(folder, message)),
            (Some(rank), Some(id)) => {
                let unique_id =
                    UniqueId::new(id).ok_or_else(|| "this is no unique id".to_owned())?;
                let frozen = Frozen {
                    message,
                    rank,
                    unique_id,
                };
                Ok(Record::Frozen(folder, frozen))
            }
            _ => Err("rank and unique_id go together".to_owned()),
        }
    }
}

/// Reads a whole backup, and shows its records one by one.
fn read<E: From<BackupError>>(
    from: &mut dyn BufRead,
    mut see: impl FnMut(Record) -> Result<(), E>,
) -> Result<Counts, E> {
    let mut sum = Context::new(&SHA256);
    let mut number = 0;
    let mut next = || -> Result<(u64, Vec<u8>), BackupError> {
        number += 1;
        let mut line = Vec::new();
        io::Read::take(&mut *from, LONGEST_LINE)
            .read_until(b'\n', &mut line)
            .map_err(BackupError::Read)?;
        if line.last() != Some(&b'\n') {
            return Err(wrong(number, "the backup is cut off here"));
        }
        Ok((number, line))
    };
    let (number, line) = next()?;
    let not_one = |_| wrong(number, "this is not a backup of popgate's state");
    let value: serde_json::Value = serde_json::from_slice(&line).map_err(not_one)?;
    match value
        .get("popgate_state")
        .and_then(serde_json::Value::as_u64)
    {
        Some(VERSION) => {}
        Some(version) => {
            let problem =
                format!("the backup has version {version}; this popgate knows version {VERSION}");
            return Err(wrong(number, problem).into());
        }
        None => return Err(wrong(number, "this is not a backup of popgate's state").into()),
    }
    let header: Header = serde_json::from_value(value).map_err(not_one)?;
    sum.update(&line);
    let mut counts = Counts::default();
    loop {
        let (number, line) = next()?;
        if let Ok(End { sha256 }) = serde_json::from_slice(&line) {
            let expected = Counts {
                hidden: header.hidden,
                frozen: header.frozen,
                accounts: header.accounts,
            };
            if sha256 != hex(sum.finish().as_ref()) || counts != expected {
                return Err(wrong(number, "the backup was changed: its sum is not right").into());
            }
            return Ok(counts);
        }
        sum.update(&line);
        let record = match serde_json::from_slice::<AccountLine>(&line) {
            Ok(account) => account.record(),
            Err(_) => serde_json::from_slice(&line)
                .map_err(|error| {
                    let text = error.to_string();
                    // It counts within this line.
                    let problem = text.split(" at line ").next();
                    problem.unwrap_or_default().to_owned()
                })
                .and_then(Line::record),
        };
        let record = record.map_err(|problem| wrong(number, problem))?;
        match record {
            Record::Account(..) => counts.accounts += 1,
            Record::Hidden(..) => counts.hidden += 1,
            Record::Frozen(..) => counts.frozen += 1,
        }
        see(record)?;
    }
}

fn wrong(line: u64, problem: impl Into<String>) -> BackupError {
    BackupError::Wrong {
        line,
        problem: problem.into(),
    }
}

/// What happens between redb and the backup.
enum Trouble {
    Backup(BackupError),
    Database(redb::Error),
}

impl From<BackupError> for Trouble {
    fn from(error: BackupError) -> Self {
        Self::Backup(error)
    }
}

/// Puts a backup in the place of the durable part of `folder`: all of it, or
/// nothing is changed. What was there stays as `durable.redb.before-import`, or with
/// a number behind that, if `replace` allows it at all.
pub fn restore(
    folder: &Path,
    from: &mut dyn BufRead,
    replace: bool,
) -> Result<Counts, BackupError> {
    let marker = Arc::new(Marker::lock(folder)?);
    let path = folder.join(durable::FILE);
    let io = |error: io::Error| OpenError::io(&path, &error);
    let there = path.try_exists().map_err(io)?;
    if there && fs::File::open(&path).map_err(io)?.try_lock().is_err() {
        // Its marker was deleted.
        return Err(OpenError::InUse {
            folder: folder.to_owned(),
        }
        .into());
    }
    // A store that is replaced stays the same one, further on.
    let mut mark = marker.mark().unwrap_or_else(|| Mark {
        id: new_id(),
        generation: 0,
    });
    mark.generation = mark.generation.saturating_add(1);
    if there && !replace {
        refuse_all_but_empty(folder, &marker)?;
    }

    let new = folder.join("durable.redb.import");
    let counts = fill(&new, mark, from).inspect_err(|_| {
        // It is not there, or of no use.
        let _ = fs::remove_file(&new);
    })?;
    if there {
        keep_beside(&path).map_err(io)?;
    }
    part::put(&new, &path).map_err(io)?;
    let written = marker.advance(mark).and_then(|()| marker.sync());
    written.map_err(|error| OpenError::io(marker.path(), &error))?;
    Ok(counts)
}

/// Makes a durable part of a backup.
fn fill(path: &Path, mark: Mark, from: &mut dyn BufRead) -> Result<Counts, BackupError> {
    let mut read_all = None;
    let made = Part::create_at(path, mark, |transaction| {
        records::durable_tables(transaction)?;
        let restored = read(from, |record| {
            records::restore(transaction, &record).map_err(Trouble::Database)
        });
        let (outcome, end) = match restored {
            Ok(counts) => (Ok(counts), Ok(())),
            Err(Trouble::Database(error)) => return Err(error),
            Err(Trouble::Backup(error)) => {
                let give_up = redb::Error::Io(io::ErrorKind::InvalidData.into());
                (Err(error), Err(give_up))
            }
        };
        read_all = Some(outcome);
        end
    });
    match read_all {
        Some(Err(error)) => Err(error),
        Some(Ok(counts)) => Ok(made.map(|()| counts)?),
        None => Err(made.err().map_or_else(
            || wrong(1, "this is not a backup of popgate's state"),
            BackupError::Store,
        )),
    }
}

/// Refuses a durable part with anything in it, or of which that is not known.
fn refuse_all_but_empty(folder: &Path, marker: &Arc<Marker>) -> Result<(), BackupError> {
    let not_empty = |file: String| Err(BackupError::NotEmpty(file));
    match Durable::open(folder, Arc::clone(marker), false, &part::files()) {
        Ok(durable) => match durable.counts() {
            Ok(counts) if counts == Counts::default() => Ok(()),
            _ => not_empty(format!(
                "{} is not empty",
                folder.join(durable::FILE).display()
            )),
        },
        Err(error @ OpenError::Damaged { .. }) => not_empty(error.to_string()),
        Err(error) => Err(error.into()),
    }
}

/// Keeps the file under another name, too: one that nothing has.
fn keep_beside(path: &Path) -> io::Result<()> {
    let mut beside: PathBuf = path.with_extension("redb.before-import");
    for number in 2_u64.. {
        // A link that leads nowhere is something, too.
        match fs::symlink_metadata(&beside) {
            Ok(_) => beside = path.with_extension(format!("redb.before-import-{number}")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    // Not every file system has links; then it is gone for a moment, which is
    // seen as damage, and mended by another import.
    fs::hard_link(path, &beside).or_else(|_| fs::rename(path, &beside))
}

/// How much is in a backup that has come to its end.
pub(super) fn counts(backup: &[u8]) -> Option<Counts> {
    let header = backup.split(|octet| *octet == b'\n').next()?;
    let header: Header = serde_json::from_slice(header).ok()?;
    let last = backup.strip_suffix(b"\n")?.rsplit(|octet| *octet == b'\n');
    let _: End = serde_json::from_slice(last.take(1).next()?).ok()?;
    Some(Counts {
        hidden: header.hidden,
        frozen: header.frozen,
        accounts: header.accounts,
    })
}
