//! The marker: says that a folder has a store, which, and how far it had come.
//!
//! A durable part that is missing, or older than the marker, was lost or rolled
//! back: redb alone could not tell. The marker is also the store's lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{OpenError, part};

pub(super) const FILE: &str = "store";

/// Names a store for ever: a restored one keeps it.
pub(super) type StoreId = [u8; 16];

/// What is written in a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub id: StoreId,
    /// Counts the commits of the durable part.
    pub generation: u64,
}

/// Locked as long as it is there.
#[derive(Debug)]
pub(super) struct Marker {
    path: PathBuf,
    written: Mutex<(File, Option<Mark>)>,
    /// Something is written in it, be it readable or not.
    used: bool,
}

impl Marker {
    /// The marker in `folder`, made where it is missing.
    pub(super) fn lock(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join(FILE);
        let io = |error| OpenError::io(&path, &error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::InUse {
                folder: folder.to_owned(),
            },
            TryLockError::Error(error) => io(error),
        })?;
        part::give_to_owner_of_folder(&file, &path).map_err(io)?;
        let mut text = Vec::new();
        (&mut file).take(1024).read_to_end(&mut text).map_err(io)?;
        let mark = parse(&text);
        let used = !text.is_empty();
        if used && mark.is_none() {
            tracing::warn!(file = %path.display(), "the store's marker is not readable, and will be written anew");
        }
        Ok(Self {
            path,
            written: Mutex::new((file, mark)),
            used,
        })
    }

    /// Whether `folder` has one, so that there was a store.
    pub(super) fn exists(folder: &Path) -> bool {
        std::fs::metadata(folder.join(FILE)).is_ok_and(|metadata| metadata.len() > 0)
    }

    pub(super) fn used(&self) -> bool {
        self.used
    }

    pub(super) fn mark(&self) -> Option<Mark> {
        self.lock_written().1
    }

    /// Writes `mark` down, unless a later one is. One write within one sector:
    /// it is there, or the one before it.
    pub(super) fn advance(&self, mark: Mark) -> io::Result<()> {
        let (file, written) = &mut *self.lock_written();
        if written.is_some_and(|it| it.id == mark.id && it.generation >= mark.generation) {
            return Ok(());
        }
        let text = print(mark);
        file.seek(SeekFrom::Start(0))?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)?;
        *written = Some(mark);
        Ok(())
    }

    /// Fails where the folder's marker is not this one any more: what is written
    /// now would be gone with the process.
    pub(super) fn in_place(&self) -> io::Result<()> {
        let there = std::fs::metadata(&self.path)?;
        let own = self.lock_written().0.metadata()?;
        if (there.dev(), there.ino()) == (own.dev(), own.ino()) {
            Ok(())
        } else {
            Err(io::Error::other(
                "it was replaced while popgate was using it",
            ))
        }
    }

    /// Makes the marker itself durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.lock_written().0.sync_all()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn lock_written(&self) -> std::sync::MutexGuard<'_, (File, Option<Mark>)> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn print(mark: Mark) -> String {
    format!(
        "popgate store {} generation {:020}\n",
        hex(&mark.id),
        mark.generation
    )
}

fn parse(text: &[u8]) -> Option<Mark> {
    let text = std::str::from_utf8(text).ok()?;
    let (id, generation) = text
        .strip_prefix("popgate store ")?
        .strip_suffix('\n')?
        .split_once(" generation ")?;
    let id = u128::from_str_radix(id, 16).ok()?.to_be_bytes();
    let mark = Mark {
        id,
        generation: generation.parse().ok()?,
    };
    (print(mark) == text).then_some(mark)
}

pub(super) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// An id that no other store has.
pub(super) fn new_id() -> StoreId {
    let mut id = [0; 16];
    let random = ring::rand::SystemRandom::new();
    if ring::rand::SecureRandom::fill(&random, &mut id).is_err() {
        // Without randomness: time and process, which are as good as unique.
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        id[..12].copy_from_slice(&now.as_nanos().to_be_bytes()[4..]);
        id[12..].copy_from_slice(&std::process::id().to_be_bytes());
    }
    id
}
