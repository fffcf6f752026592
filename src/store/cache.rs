//! The cache: what may be lost. Damaged, it is put aside and begun anew.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redb::Durability;

use super::marker::{Mark, StoreId};
use super::part::{Open, Opener, Part};
use super::{FolderKey, Kept, Learned, OpenError, StoreError, records};

pub(super) const FILE: &str = "cache.redb";

/// After this many writes, or this long, the next one goes to the disk with all
/// before it. A crash loses what came since.
const WRITES: u32 = 64;
const PERIOD: Duration = Duration::from_secs(5);

pub(super) struct Cache {
    part: Part,
    unwritten: Mutex<(u32, Instant)>,
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
        })
    }

    /// Adds what is known of a folder. A cache that fails knows nothing.
    pub(super) fn fill(&self, folder: &FolderKey, kept: &mut Kept) {
        let known = self.part.read(|transaction| {
            let mut known = Kept::default();
            records::cached(transaction, folder, &mut known)?;
            Ok(known)
        });
        match known {
            Ok(known) => {
                kept.octets = known.octets;
                kept.retrieved = known.retrieved;
            }
            Err(error) => tracing::warn!("going on without the cache: {error}"),
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

    /// Writes everything down.
    pub(super) fn close(&self) {
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
