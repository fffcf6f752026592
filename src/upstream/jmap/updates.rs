//! Which accounts were changed by sessions of this process, and when: what was
//! asked for before a maildrop was locked may be older than the lock.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Accounts share a count where their hashes do: that costs a request, no more.
const COUNTS: usize = 256;

/// Counts the updates of accounts.
#[derive(Debug)]
pub(super) struct Updates {
    hasher: RandomState,
    counts: [AtomicU64; COUNTS],
}

impl Default for Updates {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

/// Counts an update when it is over, however it ends.
pub(super) struct Updating<'a>(Option<&'a AtomicU64>);

impl Drop for Updating<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0 {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Updates {
    /// Updates of the account that are over.
    pub fn count(&self, account: &str) -> u64 {
        self.of(account).map_or(0, |it| it.load(Ordering::SeqCst))
    }

    /// An update begins.
    pub fn begin(&self, account: &str) -> Updating<'_> {
        Updating(self.of(account))
    }

    fn of(&self, account: &str) -> Option<&AtomicU64> {
        let hash = self.hasher.hash_one(account);
        let place = usize::try_from(hash % COUNTS as u64).ok()?;
        self.counts.get(place)
    }
}
