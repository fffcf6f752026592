//! The cache: what may be lost. Damaged, it is put aside and begun anew.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redb::Durability;

use super::marker::{Mark, StoreId};
use super::part::{Open, Opener, Part};
use super::snapshots::{self, Found, Snapshot};
use super::uses::{self, Uses};
use super::{FolderKey, Kept, Learned, OpenError, StoreError, records};

pub(super) const FILE: &str = "cache.redb";

/// After this many writes, or this long, the next one goes to the disk with all
/// before it. A crash loses what came since.
const WRITES: u32 = 64;
const PERIOD: Duration = Duration::from_secs(5);

/// Octets of all snapshots in the file.
const MOST_SNAPSHOTS: u64 = 256 << 20;

/// Octets of snapshots that wait to be written. What comes beyond is not kept.
const MOST_WAITING: u64 = 32 << 20;

/// After a write that failed, no snapshot is kept for so long: the disk is full,
/// and each try has the whole file opened and checked anew, while logins wait.
const PAUSE: Duration = Duration::from_secs(60);

/// Folders of which it is remembered that their snapshots were used.
const MOST_USED: usize = 10_000;

pub(super) struct Cache {
    part: Part,
    unwritten: Mutex<(u32, Instant)>,
    waiting: Mutex<Waiting>,
    /// Held by whoever writes what waits.
    writing: Mutex<()>,
    uses: Uses,
}

/// What the next write is to do.
#[derive(Default)]
struct Waiting {
    snapshots: HashMap<FolderKey, Arc<Snapshot>>,
    octets: u64,
    /// Those that are being written.
    under_way: Arc<HashMap<FolderKey, Arc<Snapshot>>>,
    /// Folders whose snapshots were used as they are.
    used: HashSet<FolderKey>,
    /// Somebody is about to write it.
    is_expected: bool,
    /// Until then nothing is kept.
    paused_until: Option<Instant>,
    /// How often any were not written.
    lost: u64,
}

impl Cache {
    /// Opens the cache of the store with `id`. Only one of a newer version is an
    /// error: where there can be none just now, there is none until it is used.
    pub(super) fn open(path: &Path, id: StoreId, opener: &Opener) -> Result<Self, OpenError> {
        let part = {
            let (path, opener) = (path.to_owned(), Arc::clone(opener));
            Part::new(&path.clone(), move || begin(&path, id, &opener))
        };
        match part.open() {
            Ok(_) => {}
            Err(error @ OpenError::Version { .. }) => return Err(error),
            Err(error) => tracing::warn!("going on without a cache: {error}"),
        }
        Ok(Self {
            part,
            unwritten: Mutex::new((0, Instant::now())),
            waiting: Mutex::default(),
            writing: Mutex::default(),
            uses: Uses::default(),
        })
    }

    /// Adds what is known of a folder. A cache that fails knows nothing, and says
    /// so (`false`).
    pub(super) fn fill(&self, folder: &FolderKey, kept: &mut Kept) -> bool {
        let known = self.part.read(|transaction| {
            let mut known = Kept::default();
            records::cached(transaction, folder, &mut known)?;
            Ok(known)
        });
        match known {
            Ok(known) => {
                kept.octets = known.octets;
                kept.retrieved = known.retrieved;
                true
            }
            Err(error) => {
                tracing::warn!("going on without the cache: {error}");
                false
            }
        }
    }

    pub(super) fn learn(&self, folder: &FolderKey, learned: &[Learned]) -> Result<(), StoreError> {
        if learned.is_empty() {
            return Ok(());
        }
        let durability = self.durability();
        self.part.write(durability, |transaction| {
            records::learn(transaction, folder, learned)
        })?;
        Ok(())
    }

    /// The snapshot of a folder, unless what is there is of no use.
    pub(super) fn snapshot(&self, folder: &FolderKey) -> Result<Option<Snapshot>, StoreError> {
        let found = self
            .part
            .read(|transaction| snapshots::snapshot(transaction, folder))?;
        match found {
            Found::Whole(snapshot) => {
                self.used(folder);
                Ok(Some(snapshot))
            }
            Found::Nothing => Ok(None),
            Found::Broken => {
                tracing::warn!("a snapshot in the cache is damaged, and is forgotten");
                self.part.write(self.durability(), |transaction| {
                    snapshots::forget(transaction, folder)
                })?;
                Ok(None)
            }
        }
    }

    /// A snapshot that is not written yet.
    pub(super) fn waiting(&self, folder: &FolderKey) -> Option<Arc<Snapshot>> {
        let waiting = self.lock_waiting();
        let under_way = || waiting.under_way.get(folder);
        waiting.snapshots.get(folder).or_else(under_way).cloned()
    }

    /// The folder's snapshot was used as it is.
    pub(super) fn used(&self, folder: &FolderKey) {
        let used = &mut self.lock_waiting().used;
        if used.len() < MOST_USED {
            used.insert(folder.clone());
        }
    }

    /// Has a snapshot wait to be written, in the place of one of the same folder.
    /// Returns whether somebody must be sent to write it.
    pub(super) fn keep(&self, folder: &FolderKey, snapshot: Arc<Snapshot>) -> bool {
        let mut waiting = self.lock_waiting();
        let octets = snapshot.octets();
        if let Some(before) = waiting.snapshots.remove(folder) {
            waiting.octets = waiting.octets.saturating_sub(before.octets());
        }
        let is_paused = waiting.paused_until.is_some_and(|it| Instant::now() < it);
        let is_full = waiting.octets > 0 && waiting.octets.saturating_add(octets) > MOST_WAITING;
        if is_paused || is_full {
            waiting.lost += 1;
            return false;
        }
        waiting.octets = waiting.octets.saturating_add(octets);
        waiting.snapshots.insert(folder.clone(), snapshot);
        !std::mem::replace(&mut waiting.is_expected, true)
    }

    /// Writes the snapshots that wait, until none does.
    pub(super) fn write_waiting(&self) {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let (snapshots, used) = {
                let waiting = &mut *self.lock_waiting();
                waiting.under_way = Arc::new(std::mem::take(&mut waiting.snapshots));
                waiting.octets = 0;
                if waiting.under_way.is_empty() {
                    waiting.is_expected = false;
                    return;
                }
                let used = std::mem::take(&mut waiting.used);
                (Arc::clone(&waiting.under_way), used)
            };
            let written = self.part.write(self.durability(), |transaction| {
                snapshots::used(transaction, &used)?;
                for (folder, snapshot) in &*snapshots {
                    snapshots::keep(transaction, folder, snapshot, MOST_SNAPSHOTS)?;
                }
                Ok(())
            });
            if let Err(error) = written {
                tracing::warn!("snapshots of folders are not kept for a while: {error}");
                let mut waiting = self.lock_waiting();
                waiting.paused_until = Some(Instant::now() + PAUSE);
                waiting.lost += 1;
            }
        }
    }

    /// Notes a use. Returns whether somebody must be sent to write it.
    pub(super) fn note_use(&self, account: &str, what: &str, time: i64) -> bool {
        self.uses.note(account, what, time)
    }

    /// Writes the uses that wait, or loses them.
    pub(super) fn write_uses(&self) {
        let times = self.uses.take();
        if times.is_empty() {
            return;
        }
        let written = self.part.write(self.durability(), |transaction| {
            uses::write(transaction, &times)
        });
        if let Err(error) = written {
            tracing::warn!("when passwords were used is not kept: {error}");
        }
    }

    /// When things of an account were used.
    pub(super) fn uses(&self, account: &str) -> Result<HashMap<String, i64>, StoreError> {
        let mut times = self
            .part
            .read(|transaction| uses::of(transaction, account))?;
        self.uses.add_to(account, &mut times);
        Ok(times)
    }

    /// The account is gone.
    pub(super) fn forget_uses(&self, account: &str) {
        self.uses.forget(account);
        let written = self.part.write(self.durability(), |transaction| {
            uses::forget(transaction, account)
        });
        if let Err(error) = written {
            tracing::warn!("when passwords of a removed account were used is kept: {error}");
        }
    }

    /// How often snapshots that were to be kept were not.
    pub(super) fn lost(&self) -> u64 {
        self.lock_waiting().lost
    }

    /// The pause after a failure is over.
    #[cfg(test)]
    pub(super) fn end_pause(&self) {
        self.lock_waiting().paused_until = None;
    }

    fn lock_waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes everything down.
    pub(super) fn close(&self) {
        self.write_waiting();
        self.write_uses();
        self.part.close();
    }

    fn durability(&self) -> Durability {
        let (writes, since) = &mut *self
            .unwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *writes += 1;
        if *writes < WRITES && since.elapsed() < PERIOD {
            return Durability::None;
        }
        (*writes, *since) = (0, Instant::now());
        Durability::Immediate
    }
}

/// Opens the cache at `path`, after putting aside one that is of no use.
fn begin(path: &Path, id: StoreId, opener: &Opener) -> Result<Open, OpenError> {
    let io = |error| OpenError::io(path, &error);
    let least = Mark { id, generation: 0 };
    if path.try_exists().map_err(io)? {
        match Open::new(path, opener, Some(least)) {
            Err(error @ OpenError::Damaged { .. }) => {
                let aside = path.with_extension("redb.damaged");
                tracing::warn!(
                    "{error}; it was moved to {}, and is begun anew",
                    aside.display()
                );
                fs::rename(path, &aside).map_err(io)?;
            }
            outcome => return outcome,
        }
    }
    Part::create(path, least, records::cache_tables)?;
    Open::new(path, opener, Some(least))
}
