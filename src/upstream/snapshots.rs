//! Snapshots of folders between logins: in memory, and in the store where there
//! is one. What is missing, damaged or another upstream's is as if it were not
//! there; whoever uses a snapshot proves it against the upstream each time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::digest::{SHA256, digest};

pub use crate::store::{Block, Snapshot};
use crate::store::{FolderKey, Store};

/// Octets of the snapshots in memory, those of the store apart.
const MOST_OCTETS: u64 = 8 << 20;

/// What one costs in memory beyond its octets.
const OVERHEAD: u64 = 256;
const BLOCK_OVERHEAD: u64 = 128;

/// The form of all heads. With another one, nothing that was kept is of use.
const FORM: &str = "popgate snapshot 1\n";

/// Names an upstream in the head of each of its snapshots.
type Owner = [u8; 16];

/// The snapshots of one upstream. Its methods are atomic each: of two sessions
/// that keep one of the same folder, the last one wins.
#[derive(Debug)]
pub struct Snapshots {
    store: Option<Store>,
    owner: Owner,
    memory: Mutex<Memory>,
}

impl Snapshots {
    /// Those of the upstream that is configured as `upstream` (the URL). Without
    /// a store they are lost with the process.
    pub fn new(store: Option<Store>, upstream: &str) -> Self {
        let whole = digest(&SHA256, [FORM, upstream].concat().as_bytes());
        let mut owner = Owner::default();
        for (octet, of_whole) in owner.iter_mut().zip(whole.as_ref()) {
            *octet = *of_whole;
        }
        Self {
            store,
            owner,
            memory: Mutex::new(Memory::new(MOST_OCTETS)),
        }
    }

    /// The snapshot that was kept last of a folder, if it is still there and
    /// whole.
    pub async fn get(&self, folder: &FolderKey) -> Option<Arc<Snapshot>> {
        let found = self.lock().get(folder);
        let store = self.store.as_ref().filter(|store| store.is_usable());
        if found.is_some() {
            if let Some(store) = store {
                store.used_snapshot(folder);
            }
            return found;
        }
        let stored = match store?.snapshot(folder).await {
            Ok(stored) => stored?,
            Err(error) => {
                tracing::warn!(%error, "going on without snapshots of folders");
                return None;
            }
        };
        let snapshot = Arc::new(Snapshot {
            head: stored.head.strip_prefix(&self.owner)?.to_vec().into(),
            blocks: stored.blocks.clone(),
        });
        // Unless another session was quicker.
        Some(self.lock().put_if_absent(folder, snapshot))
    }

    /// Keeps a snapshot in the place of the folder's last. Returns what
    /// [`Snapshots::get`] gives until another one is kept, or there is no more room
    /// for it.
    ///
    /// The store writes it later, and of it what has changed. Where that fails it
    /// is logged, and costs nothing else.
    pub fn keep(&self, folder: &FolderKey, snapshot: Snapshot) -> Arc<Snapshot> {
        // Held until the store knows it: the last one in memory is the last there.
        let mut memory = self.lock();
        let (snapshot, is_new) = memory.put(folder, snapshot);
        if let Some(store) = self.store.as_ref().filter(|store| store.is_usable())
            && is_new
        {
            let stored = Snapshot {
                head: [&self.owner, &*snapshot.head].concat().into(),
                blocks: snapshot.blocks.clone(),
            };
            store.keep_snapshot(folder, Arc::new(stored));
        }
        snapshot
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Snapshots in memory. Those not used for longest go first.
#[derive(Debug)]
struct Memory {
    entries: HashMap<FolderKey, Entry>,
    /// Folders by their last use.
    order: BTreeMap<u64, FolderKey>,
    uses: u64,
    octets: u64,
    most: u64,
}

#[derive(Debug)]
struct Entry {
    snapshot: Arc<Snapshot>,
    used: u64,
    octets: u64,
}

impl Memory {
    fn new(most: u64) -> Self {
        Self {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
            octets: 0,
            most,
        }
    }

    fn get(&mut self, folder: &FolderKey) -> Option<Arc<Snapshot>> {
        let entry = self.entries.get_mut(folder)?;
        let place = self.order.remove(&entry.used);
        self.uses += 1;
        entry.used = self.uses;
        self.order
            .insert(self.uses, place.unwrap_or_else(|| folder.clone()));
        Some(Arc::clone(&entry.snapshot))
    }

    fn put_if_absent(&mut self, folder: &FolderKey, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        if let Some(there) = self.get(folder) {
            return there;
        }
        self.insert(folder, Arc::clone(&snapshot));
        snapshot
    }

    /// Gives what is there now, and whether it is new. One that equals the last
    /// is the last.
    fn put(&mut self, folder: &FolderKey, snapshot: Snapshot) -> (Arc<Snapshot>, bool) {
        match self.get(folder) {
            Some(there) if *there == snapshot => return (there, false),
            Some(_) => self.remove(folder),
            None => {}
        }
        let snapshot = Arc::new(snapshot);
        self.insert(folder, Arc::clone(&snapshot));
        (snapshot, true)
    }

    fn insert(&mut self, folder: &FolderKey, snapshot: Arc<Snapshot>) {
        let names = folder.account.len() + folder.folder.len();
        let octets = snapshot.octets()
            + OVERHEAD
            + 2 * names as u64
            + BLOCK_OVERHEAD * snapshot.blocks.len() as u64;
        if octets > self.most {
            return;
        }
        self.uses += 1;
        let used = self.uses;
        let entry = Entry {
            snapshot,
            used,
            octets,
        };
        self.entries.insert(folder.clone(), entry);
        self.order.insert(used, folder.clone());
        self.octets += octets;
        while self.octets > self.most
            && let Some((_, folder)) = self.order.first_key_value()
        {
            let folder = folder.clone();
            self.remove(&folder);
        }
    }

    fn remove(&mut self, folder: &FolderKey) {
        if let Some(entry) = self.entries.remove(folder) {
            self.order.remove(&entry.used);
            self.octets -= entry.octets;
        }
    }
}

#[cfg(test)]
mod tests;
