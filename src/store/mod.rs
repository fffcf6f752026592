//! The store: what must last, and what may be lost, of all maildrops.
//!
//! In the state folder:
//!
//! | file | holds |
//! |---|---|
//! | `durable.redb` | accounts, hidden messages, frozen unique ids: what must last |
//! | `cache.redb` | true sizes, when messages were first retrieved, snapshots of folders, when device passwords were used: what may be lost |
//! | `store` | the marker: which store this is, and how far it had come; locked by the process that has it |
//! | `control.sock` | how other processes reach the one that has it |
//!
//! A durable part that is damaged, missing or older than the marker is an error,
//! and is left as it is: it never starts over empty.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::maildrop::UniqueId;

mod access;
mod account_rows;
mod accounts;
mod backup;
mod cache;
pub mod control;
mod durable;
mod held_file;
mod marker;
mod part;
mod records;
mod snapshots;
mod unkept;
mod uses;
mod whole_file;

pub use access::Access;
pub use accounts::{AccountRow, Change};
pub use backup::{BackupError, exists, restore};
pub use records::Counts;
pub use snapshots::{Block, Snapshot};
pub use whole_file::write_whole;

use cache::Cache;
use durable::Durable;
use marker::Marker;
use unkept::Unkept;

/// What must last, and what may be lost, of all maildrops. Its clones are one.
#[derive(Clone)]
pub struct Store(Arc<std::result::Result<Inner, OpenError>>);

struct Inner {
    durable: Durable,
    cache: Cache,
    unkept: Unkept,
}

/// A folder of an account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FolderKey {
    /// In lower case.
    pub account: String,
    /// As the upstream names it.
    pub folder: String,
}

/// Names a message within its folder, for ever: octets chosen by the upstream (8
/// for IMAP: UIDVALIDITY and UID; a blobId for JMAP).
pub type MessageKey = Box<[u8]>;

/// A unique id that a message keeps, whatever the configured format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// Which message.
    pub message: MessageKey,
    /// Its place among the frozen ones of its folder.
    pub rank: u32,
    /// Its unique id.
    pub unique_id: UniqueId,
}

/// How long snapshots wait for others, to be written together.
const GATHERED: Duration = Duration::from_millis(250);

/// What the key of a unique id begins with that is no message's. Longer than any
/// key of IMAP; no blobId has a NUL.
const NOBODY: &[u8] = b"\0nobody's\0";

impl Frozen {
    /// A unique id that clients know, and that is no message's now: it never
    /// becomes another's.
    pub fn nobodys(unique_id: UniqueId) -> Self {
        Self {
            message: [NOBODY, unique_id.as_str().as_bytes()].concat().into(),
            rank: u32::MAX,
            unique_id,
        }
    }

    /// Whether it is no message's.
    pub fn is_nobodys(&self) -> bool {
        self.message.starts_with(NOBODY)
    }
}

/// What is frozen at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freezing {
    /// The unique ids.
    pub ids: Vec<Frozen>,
    /// Those that give up theirs before: messages that are gone, and nobody.
    pub released: Vec<MessageKey>,
}

impl From<Vec<Frozen>> for Freezing {
    fn from(ids: Vec<Frozen>) -> Self {
        let released = Vec::new();
        Self { ids, released }
    }
}

/// Everything kept of one folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Messages that POP3 does not show.
    pub hidden: HashSet<MessageKey>,
    /// Ranks and unique ids.
    pub frozen: HashMap<MessageKey, (u32, UniqueId)>,
    /// True sizes with CRLF line ends, where they were learned.
    pub octets: HashMap<MessageKey, u64>,
    /// When messages were first retrieved, in seconds of Unix time.
    pub retrieved: HashMap<MessageKey, i64>,
}

/// Something learned of a message, that may be lost again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Which message.
    pub message: MessageKey,
    /// Its true size.
    pub octets: Option<u64>,
    /// When it was retrieved, in seconds of Unix time; the first time stays.
    pub retrieved: Option<i64>,
}

/// A store cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("another popgate is using the state folder {}", folder.display())]
    InUse {
        /// The state folder.
        folder: PathBuf,
    },
    /// It is not what was stored: broken, cut off, gone, rolled back.
    #[error("{} is damaged: {problem}", file.display())]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A later popgate wrote it.
    #[error("{} was written by a newer popgate (version {found}; this one knows {})", file.display(), part::VERSION)]
    Version {
        /// Which file.
        file: PathBuf,
        /// Its version.
        found: u64,
    },
    /// The system refuses.
    #[error("cannot use {}: {problem}", file.display())]
    Io {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        problem: String,
    },
}

impl OpenError {
    fn io(file: &Path, error: &std::io::Error) -> Self {
        Self::Io {
            file: file.to_owned(),
            problem: error.to_string(),
        }
    }

    /// What an operator can do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "each popgate needs a state folder of its own",
            Self::Damaged { .. } => {
                "nothing was changed; stop popgate and restore a backup with `popgate state import --replace`"
            }
            Self::Version { .. } => {
                "start the newer popgate again, or give this one another folder"
            }
            Self::Io { .. } => "check its permissions, and the space on the disk",
        }
    }
}

/// The store could not do what it was asked; nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be used at all.
    #[error("{0}")]
    Unusable(OpenError),
    /// It failed this time; the disk may be full.
    #[error("{} failed: {problem}", file.display())]
    Failed {
        /// Which file.
        file: PathBuf,
        /// Why.
        problem: String,
    },
    /// The process that has the store could not be asked, or refused.
    #[error("the running popgate: {0}")]
    Remote(String),
}

impl StoreError {
    fn failed(file: &Path, problem: impl std::fmt::Display) -> Self {
        Self::Failed {
            file: file.to_owned(),
            problem: problem.to_string(),
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Opens the store in `folder`, or makes one where there was none. Reads all
    /// of it.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        Self::open_with(folder, &part::files())
    }

    fn open_with(folder: &Path, opener: &part::Opener) -> Result<Self, OpenError> {
        let marker = Arc::new(Marker::lock(folder)?);
        let cache = folder.join(cache::FILE);
        let durable = Durable::open(folder, marker, cache.exists(), opener)?;
        let cache = Cache::open(&cache, durable.id(), opener)?;
        Ok(Self(Arc::new(Ok(Inner {
            durable,
            cache,
            unkept: Unkept::default(),
        }))))
    }

    /// A store that cannot be used: each call gives the error again.
    pub fn broken(error: OpenError) -> Self {
        Self(Arc::new(Err(error)))
    }

    /// Whether it was opened.
    pub fn is_usable(&self) -> bool {
        self.0.is_ok()
    }

    /// Everything kept of one folder of one account, read once at login.
    pub async fn folder(&self, folder: &FolderKey) -> Result<Kept, StoreError> {
        if let Ok(inner) = &*self.0
            && inner.unkept.contains(folder)
        {
            return Ok(Kept::default());
        }
        let folder = folder.clone();
        self.blocking(move |inner| {
            let before = inner.unkept.before();
            let mut kept = inner.durable.folder(&folder)?;
            let is_known = inner.cache.fill(&folder, &mut kept);
            if is_known && kept == Kept::default() {
                inner.unkept.add(&folder, &before);
            }
            Ok(kept)
        })
        .await
    }

    /// Hides messages for ever. Durable when it returns.
    pub async fn hide(
        &self,
        folder: &FolderKey,
        messages: Vec<MessageKey>,
    ) -> Result<(), StoreError> {
        self.writing(folder, move |inner, folder| {
            inner.durable.hide(folder, &messages)
        })
        .await
    }

    /// Freezes unique ids: a message that has one already keeps it, and an id that
    /// belongs to another message of the folder stays there. All or nothing,
    /// durable when it returns. Returns how many messages were new.
    pub async fn freeze(
        &self,
        folder: &FolderKey,
        freezing: impl Into<Freezing>,
    ) -> Result<usize, StoreError> {
        let freezing = freezing.into();
        self.writing(folder, move |inner, folder| {
            inner.durable.freeze(folder, &freezing)
        })
        .await
    }

    /// Keeps what was learned, for a while at least.
    pub async fn learn(&self, folder: &FolderKey, learned: Vec<Learned>) -> Result<(), StoreError> {
        self.writing(folder, move |inner, folder| {
            inner.cache.learn(folder, &learned)
        })
        .await
    }

    /// The snapshot that was kept last of a folder. One that was lost, torn or
    /// damaged is none; one of another time may come back after a crash.
    pub async fn snapshot(&self, folder: &FolderKey) -> Result<Option<Arc<Snapshot>>, StoreError> {
        if let Ok(inner) = &*self.0
            && let Some(snapshot) = inner.cache.waiting(folder)
        {
            return Ok(Some(snapshot));
        }
        let folder = folder.clone();
        self.blocking(move |inner| Ok(inner.cache.snapshot(&folder)?.map(Arc::new)))
            .await
    }

    /// Keeps the snapshot of a folder, for a while at least, in the place of the
    /// one before. Returns at once: it is written soon, at the latest by
    /// [`Store::close`], and of it what has changed.
    pub fn keep_snapshot(&self, folder: &FolderKey, snapshot: Arc<Snapshot>) {
        let Ok(inner) = &*self.0 else {
            return;
        };
        if !inner.cache.keep(folder, snapshot) {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let store = Arc::downgrade(&self.0);
            // Not at once: by then others wait, too, and the login that has listed
            // the folder has given back the memory that it took.
            runtime.spawn(async move {
                tokio::time::sleep(GATHERED).await;
                let written = tokio::task::spawn_blocking(move || {
                    let store = store.upgrade();
                    if let Some(Ok(inner)) = store.as_deref() {
                        inner.cache.write_waiting();
                    }
                });
                // Cancelled where the process ends.
                let _ = written.await;
            });
        } else {
            inner.cache.write_waiting();
        }
    }

    /// How often snapshots of any folders that were to be kept were not: for whoever
    /// counts on what he gave to be kept.
    pub fn lost_snapshots(&self) -> u64 {
        match &*self.0 {
            Ok(inner) => inner.cache.lost(),
            Err(_) => 0,
        }
    }

    /// The snapshot of a folder, as it was kept, was of use: others go before it.
    pub fn used_snapshot(&self, folder: &FolderKey) {
        if let Ok(inner) = &*self.0 {
            inner.cache.used(folder);
        }
    }

    /// Writes a backup of what must last, as it is now, and says how much that is.
    pub async fn export(
        &self,
        mut to: impl std::io::Write + Send + 'static,
    ) -> Result<Counts, StoreError> {
        self.blocking(move |inner| inner.durable.export(&mut to))
            .await
    }

    /// The same, in memory.
    async fn backup(&self) -> Result<(Vec<u8>, Counts), StoreError> {
        self.blocking(move |inner| {
            let mut backup = Vec::new();
            let counts = inner.durable.export(&mut backup)?;
            Ok((backup, counts))
        })
        .await
    }

    /// Writes down what was learned last: for the end of the process.
    pub async fn close(&self) {
        // Where it cannot be used, nothing was learned.
        let _ = self
            .blocking(|inner| {
                inner.cache.close();
                Ok(())
            })
            .await;
    }

    /// Writes something of a folder.
    async fn writing<T: Send + 'static>(
        &self,
        folder: &FolderKey,
        write: impl FnOnce(&Inner, &FolderKey) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let folder = folder.clone();
        self.blocking(move |inner| {
            let _written = inner.unkept.writing(&folder);
            write(inner, &folder)
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = Arc::clone(&self.0);
        let task = tokio::task::spawn_blocking(move || match &*store {
            Ok(inner) => act(inner),
            Err(error) => Err(StoreError::Unusable(error.clone())),
        });
        // It is cancelled where the process ends.
        task.await
            .unwrap_or_else(|error| Err(StoreError::failed(Path::new("the store"), error)))
    }
}

#[cfg(test)]
impl Store {
    /// The store in `folder`, on a disk that fails after so many changes.
    pub(crate) fn on_disk(
        folder: &Path,
        left: &Arc<std::sync::atomic::AtomicI64>,
    ) -> Result<Self, OpenError> {
        Self::open_with(folder, &tests::faults::disk(left))
    }

    /// What could not be written is tried again at once.
    pub(crate) fn end_pause(&self) {
        if let Ok(inner) = &*self.0 {
            inner.cache.end_pause();
        }
    }
}

#[cfg(test)]
mod tests;
