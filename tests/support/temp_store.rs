//! A store in a folder of its own, which goes when it does.

use std::ops::Deref;

use popgate::store::Store;

/// See the module.
pub struct TempStore {
    store: Store,
    _folder: tempfile::TempDir,
}

impl TempStore {
    /// An empty store.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            store: Store::open(folder.path()).unwrap(),
            _folder: folder,
        }
    }
}

impl Deref for TempStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}
