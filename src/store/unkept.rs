//! Folders of which nothing is kept: most of them, at each login. To know them
//! spares a read.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::FolderKey;

/// Folders that are remembered; beyond that all are forgotten.
const MOST: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Unkept(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    folders: HashSet<FolderKey>,
    /// How often something was written.
    writes: u64,
}

/// When a read began.
pub(super) struct Before(u64);

impl Unkept {
    /// Whether nothing is kept of the folder, as far as is known.
    pub fn contains(&self, folder: &FolderKey) -> bool {
        self.lock().folders.contains(folder)
    }

    /// A read begins.
    pub fn before(&self) -> Before {
        Before(self.lock().writes)
    }

    /// The read has found nothing. It counts if nothing was written meanwhile.
    pub fn add(&self, folder: &FolderKey, before: &Before) {
        let mut state = self.lock();
        if state.writes != before.0 {
            return;
        }
        if state.folders.len() >= MOST {
            state.folders.clear();
        }
        state.folders.insert(folder.clone());
    }

    /// Something of the folder is being written, until what this gives is dropped:
    /// by an error or a panic, too, as it may have come far enough.
    pub fn writing<'a>(&'a self, folder: &'a FolderKey) -> Writing<'a> {
        Writing(self, folder)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Unkept::writing`].
pub(super) struct Writing<'a>(&'a Unkept, &'a FolderKey);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.writes += 1;
        state.folders.remove(self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(account: &str) -> FolderKey {
        FolderKey {
            account: account.to_owned(),
            folder: "INBOX".to_owned(),
        }
    }

    #[test]
    fn what_is_written_while_a_read_goes_on_is_not_overlooked() {
        let unkept = Unkept::default();
        let before = unkept.before();
        drop(unkept.writing(&key("alice")));
        unkept.add(&key("alice"), &before);
        assert!(!unkept.contains(&key("alice")));
        unkept.add(&key("alice"), &unkept.before());
        assert!(unkept.contains(&key("alice")) && !unkept.contains(&key("bob")));
        drop(unkept.writing(&key("alice")));
        assert!(!unkept.contains(&key("alice")));
    }

    #[test]
    fn no_more_folders_are_remembered_than_are_worth_it() {
        let unkept = Unkept::default();
        for number in 0..=MOST {
            unkept.add(&key(&number.to_string()), &unkept.before());
        }
        assert!(unkept.lock().folders.len() <= MOST);
        assert!(unkept.contains(&key(&MOST.to_string())));
    }
}
