//! What the sessions of one upstream know together, in memory. Keyed by account
//! wherever it is about one.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::login::Capabilities;
use crate::upstream::UpstreamError;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Shared {
    tokens: AtomicU8,
    unfinished: Mutex<HashMap<String, Unfinished>>,
    learned: Mutex<Learned>,
    held_off: Mutex<HashMap<String, Instant>>,
}

/// Messages that an update marked `\Deleted` and could neither remove nor
/// unmark. The client was told that they are still there, so they stay visible.
#[derive(Debug)]
struct Unfinished {
    uid_validity: u32,
    uids: HashSet<u32>,
}

/// True sizes that differ from the listed ones.
#[derive(Debug, Default)]
struct Learned {
    accounts: HashMap<(String, u32), HashMap<u32, u64>>,
    entries: usize,
}

/// Sizes remembered; beyond that all are forgotten and learned anew.
const MOST_LEARNED: usize = 100_000;
/// Accounts that are held off at once.
const MOST_HELD_OFF: usize = 10_000;
/// An upstream that asks for more is obeyed so far.
const LONGEST_HOLD: Duration = Duration::from_secs(24 * 3600);

const UNKNOWN: u8 = 0;
const TAKEN: u8 = 1;
const REFUSED: u8 = 2;

impl Shared {
    /// Looks at what an upstream announces before a login.
    pub fn learn_mechanisms(&self, capabilities: &Capabilities) {
        let tokens = ["AUTH=XOAUTH2", "AUTH=OAUTHBEARER"]
            .iter()
            .any(|it| capabilities.has(it));
        self.tokens
            .store(if tokens { TAKEN } else { REFUSED }, Ordering::Relaxed);
    }

    /// Whether the upstream takes bearer tokens; it may, until it was asked.
    pub fn takes_tokens(&self) -> bool {
        matches!(self.tokens.load(Ordering::Relaxed), UNKNOWN | TAKEN)
    }

    /// The upstream asked not to be tried again for `account` before `period`
    /// has passed.
    pub fn hold_off(&self, account: &str, period: Duration) {
        let mut held_off = lock(&self.held_off);
        let now = Instant::now();
        if held_off.len() >= MOST_HELD_OFF {
            held_off.retain(|_, until| *until > now);
            if held_off.len() >= MOST_HELD_OFF {
                held_off.clear();
            }
        }
        let until = now + period.min(LONGEST_HOLD);
        let held = held_off.entry(account.to_owned()).or_insert(until);
        *held = until.max(*held);
    }

    /// An error as long as the upstream is not to be tried for `account`.
    pub fn may_try(&self, account: &str) -> Result<(), UpstreamError> {
        let mut held_off = lock(&self.held_off);
        let Some(until) = held_off.get(account) else {
            return Ok(());
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            held_off.remove(account);
            return Ok(());
        }
        Err(UpstreamError::Temporary {
            reason: "the upstream asked not to be tried again yet".into(),
            retry_after: Some(left),
        })
    }

    /// Messages that are shown although they carry `\Deleted`.
    pub fn unfinished(&self, account: &str, uid_validity: u32) -> HashSet<u32> {
        match lock(&self.unfinished).get(account) {
            Some(it) if it.uid_validity == uid_validity => it.uids.clone(),
            _ => HashSet::new(),
        }
    }

    /// An update marks these.
    pub fn add_unfinished(&self, account: &str, uid_validity: u32, uids: &[u32]) {
        let mut unfinished = lock(&self.unfinished);
        let fresh = || Unfinished {
            uid_validity,
            uids: HashSet::new(),
        };
        let entry = unfinished.entry(account.to_owned()).or_insert_with(fresh);
        if entry.uid_validity != uid_validity {
            *entry = fresh();
        }
        entry.uids.extend(uids);
    }

    /// These are gone, or no longer marked.
    pub fn settle_unfinished(&self, account: &str, uids: &[u32]) {
        let mut unfinished = lock(&self.unfinished);
        if let Some(entry) = unfinished.get_mut(account) {
            for uid in uids {
                entry.uids.remove(uid);
            }
            if entry.uids.is_empty() {
                unfinished.remove(account);
            }
        }
    }

    /// True sizes by UID.
    pub fn learned(&self, account: &str, uid_validity: u32) -> HashMap<u32, u64> {
        lock(&self.learned)
            .accounts
            .get(&(account.to_owned(), uid_validity))
            .cloned()
            .unwrap_or_default()
    }

    /// The true size of a message, in octets.
    pub fn learn(&self, account: &str, uid_validity: u32, uid: u32, octets: u64) {
        let mut learned = lock(&self.learned);
        if learned.entries >= MOST_LEARNED {
            *learned = Learned::default();
        }
        let sizes = learned
            .accounts
            .entry((account.to_owned(), uid_validity))
            .or_default();
        if sizes.insert(uid, octets).is_none() {
            learned.entries += 1;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_account_is_held_off_as_long_as_was_asked_for() {
        let shared = Shared::default();
        shared.hold_off("alice", Duration::from_millis(1500));
        shared.hold_off("alice", Duration::from_millis(10));
        assert!(shared.may_try("bob").is_ok());
        tokio::time::advance(Duration::from_millis(1400)).await;
        let Err(UpstreamError::Temporary { retry_after, .. }) = shared.may_try("alice") else {
            panic!("tried again too early");
        };
        assert_eq!(retry_after, Some(Duration::from_millis(100)));
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(shared.may_try("alice").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_of_throttles_is_bounded() {
        let shared = Shared::default();
        for number in 0..2 * MOST_HELD_OFF {
            shared.hold_off(&number.to_string(), Duration::from_secs(u64::MAX));
        }
        assert!(lock(&shared.held_off).len() <= MOST_HELD_OFF);
        tokio::time::advance(LONGEST_HOLD).await;
        assert!(shared.may_try(&(2 * MOST_HELD_OFF - 1).to_string()).is_ok());
    }

    #[test]
    fn what_one_update_left_is_not_forgotten_by_the_next() {
        let shared = Shared::default();
        shared.add_unfinished("alice", 7, &[1, 2]);
        shared.add_unfinished("alice", 7, &[5]);
        shared.settle_unfinished("alice", &[5]);
        assert_eq!(shared.unfinished("alice", 7), HashSet::from([1, 2]));
        assert!(shared.unfinished("alice", 8).is_empty());
        assert!(shared.unfinished("bob", 7).is_empty());
        shared.settle_unfinished("alice", &[1, 2]);
        assert!(lock(&shared.unfinished).is_empty());
    }
}
