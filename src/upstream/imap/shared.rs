//! What the sessions of one upstream know together, in memory. Keyed by account
//! and folder wherever it is about one.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::ahead::window::Budget;
use super::login::{Capabilities, LoggedIn};
use super::resting::Resting;
use super::vouching::ASKED;
use crate::store::FolderKey;
use crate::upstream::Rest;
use crate::upstream::pauses::Pauses;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Shared {
    tokens: AtomicU8,
    unfinished: Mutex<HashMap<FolderKey, Unfinished>>,
    learned: Mutex<Learned>,
    presumption: Mutex<Presumption>,
    pub pauses: Pauses,
    pub resting: Arc<Resting>,
    /// When messages were last removed, by folder.
    changes: Mutex<Changes>,
    /// What all sessions have on its way ahead of their clients.
    pub ahead: Budget,
}

/// What a server is presumed to be able to do behind the login.
#[derive(Clone, Debug)]
pub(super) struct Presumed {
    pub capabilities: Arc<Capabilities>,
    /// The answer to the login tells them.
    pub are_told: bool,
}

/// Whether anything is presumed.
#[derive(Debug, Default)]
struct Presumption {
    presumed: Option<Presumed>,
    /// Nothing is, before this.
    not_before: Option<Instant>,
    /// How often that was so, one behind the other.
    failures: u32,
}

/// How long nothing is sent early where that was of no use. It may have been
/// another server, or the network: each further time it is twice as long, up to the
/// longest.
const DISTRUST: Duration = Duration::from_secs(3600);
const LONGEST_DISTRUST: Duration = Duration::from_secs(24 * 3600);

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
    folders: HashMap<(FolderKey, u32), HashMap<u32, u64>>,
    entries: usize,
}

/// Changes remembered before the old ones are looked for.
const MOST_CHANGES: usize = 1_000;
/// Between two looks for those that are too old to matter.
const SWEEP: Duration = Duration::from_secs(1);

/// When folders were changed or listed last.
#[derive(Debug, Default)]
struct Changes {
    folders: HashMap<FolderKey, Instant>,
    swept: Option<Instant>,
}
/// Sizes remembered; beyond that all are forgotten and learned anew.
const MOST_LEARNED: usize = 100_000;

const UNKNOWN: u8 = 0;
const TAKEN: u8 = 1;
const REFUSED: u8 = 2;

impl Shared {
    /// Nothing is known yet.
    pub fn new(rest: Rest) -> Self {
        Self {
            resting: Arc::new(Resting::new(rest)),
            ..Self::default()
        }
    }

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

    /// What can be presumed of a login to come, if it is worth while to presume
    /// anything.
    pub fn presumed(&self) -> Option<Presumed> {
        let presumption = lock(&self.presumption);
        let is_distrusted = presumption.not_before.is_some_and(|it| Instant::now() < it);
        presumption.presumed.clone().filter(|_| !is_distrusted)
    }

    /// A login succeeded, and this was told.
    pub fn learn_capabilities(&self, logged_in: &LoggedIn) {
        let mut presumption = lock(&self.presumption);
        let is_known = presumption.presumed.as_ref().is_some_and(|it| {
            it.are_told == logged_in.are_told && *it.capabilities == logged_in.capabilities
        });
        if !is_known {
            presumption.presumed = Some(Presumed {
                capabilities: Arc::new(logged_in.capabilities.clone()),
                are_told: logged_in.are_told,
            });
        }
    }

    /// The server does not hear what is sent behind a login before that is
    /// answered, or not all users' logins are alike.
    pub fn send_nothing_early(&self) {
        let mut presumption = lock(&self.presumption);
        let now = Instant::now();
        // Those that logged in at the same time found out the same.
        if presumption.not_before.is_some_and(|it| now < it) {
            return;
        }
        let doubled = DISTRUST * 2_u32.pow(presumption.failures.min(8));
        presumption.not_before = Some(now + doubled.min(LONGEST_DISTRUST));
        presumption.failures = presumption.failures.saturating_add(1);
    }

    /// It does.
    pub fn sent_early_to_good_effect(&self) {
        lock(&self.presumption).failures = 0;
    }

    /// A session is about to change the folder, or has changed it: what others
    /// know of it may be wrong before their server has said so.
    pub fn change(&self, folder: &FolderKey) {
        self.outdate(folder, Instant::now());
    }

    /// A session lists the folder as it was when the server was `asked`. What was
    /// asked before is of no use any more: a connection that is told of changes
    /// late would show less than was shown already.
    pub fn listed(&self, folder: &FolderKey, asked: Instant) {
        self.outdate(folder, asked);
    }

    fn outdate(&self, folder: &FolderKey, before: Instant) {
        let mut changes = lock(&self.changes);
        let Changes { folders, swept } = &mut *changes;
        if folders.len() >= MOST_CHANGES && swept.is_none_or(|at| at.elapsed() > SWEEP) {
            folders.retain(|_, at| at.elapsed() < ASKED);
            *swept = Some(Instant::now());
        }
        let at = folders.entry(folder.clone()).or_insert(before);
        *at = (*at).max(before);
    }

    /// Whether it was changed, or listed by another session, since then, which is
    /// no longer ago than [`ASKED`].
    pub fn has_changed(&self, folder: &FolderKey, since: Instant) -> bool {
        let changes = lock(&self.changes);
        changes.folders.get(folder).is_some_and(|at| *at > since)
    }

    /// Messages that are shown although they carry `\Deleted`.
    pub fn unfinished(&self, folder: &FolderKey, uid_validity: u32) -> HashSet<u32> {
        match lock(&self.unfinished).get(folder) {
            Some(it) if it.uid_validity == uid_validity => it.uids.clone(),
            _ => HashSet::new(),
        }
    }

    /// An update marks these.
    pub fn add_unfinished(&self, folder: &FolderKey, uid_validity: u32, uids: &[u32]) {
        let mut unfinished = lock(&self.unfinished);
        let fresh = || Unfinished {
            uid_validity,
            uids: HashSet::new(),
        };
        let entry = unfinished.entry(folder.clone()).or_insert_with(fresh);
        if entry.uid_validity != uid_validity {
            *entry = fresh();
        }
        entry.uids.extend(uids);
    }

    /// These are gone, or no longer marked.
    pub fn settle_unfinished(&self, folder: &FolderKey, uids: &[u32]) {
        let mut unfinished = lock(&self.unfinished);
        if let Some(entry) = unfinished.get_mut(folder) {
            for uid in uids {
                entry.uids.remove(uid);
            }
            if entry.uids.is_empty() {
                unfinished.remove(folder);
            }
        }
    }

    /// True sizes by UID.
    pub fn learned(&self, folder: &FolderKey, uid_validity: u32) -> HashMap<u32, u64> {
        lock(&self.learned)
            .folders
            .get(&(folder.clone(), uid_validity))
            .cloned()
            .unwrap_or_default()
    }

    /// The true size of a message, in octets.
    pub fn learn(&self, folder: &FolderKey, uid_validity: u32, uid: u32, octets: u64) {
        let mut learned = lock(&self.learned);
        if learned.entries >= MOST_LEARNED {
            *learned = Learned::default();
        }
        let sizes = learned
            .folders
            .entry((folder.clone(), uid_validity))
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
    async fn distrust_grows_until_something_is_of_use() {
        let shared = Shared::default();
        lock(&shared.presumption).presumed = Some(Presumed {
            capabilities: Arc::default(),
            are_told: true,
        });
        let is_trusted_after = async |hours: u64| {
            tokio::time::advance(Duration::from_secs(hours * 3600 - 1)).await;
            assert!(shared.presumed().is_none(), "{hours}");
            tokio::time::advance(Duration::from_secs(1)).await;
            shared.presumed().is_some()
        };
        for hours in [1, 2, 4, 8, 16, 24, 24] {
            // Several logins were under way.
            shared.send_nothing_early();
            shared.send_nothing_early();
            assert!(is_trusted_after(hours).await, "{hours}");
        }
        shared.sent_early_to_good_effect();
        shared.send_nothing_early();
        assert!(is_trusted_after(1).await);
    }

    #[test]
    fn what_one_update_left_is_not_forgotten_by_the_next() {
        let shared = Shared::default();
        let key = |account: &str, folder: &str| FolderKey {
            account: account.to_owned(),
            folder: folder.to_owned(),
        };
        let alice = &key("alice", "INBOX");
        shared.add_unfinished(alice, 7, &[1, 2]);
        shared.add_unfinished(alice, 7, &[5]);
        shared.settle_unfinished(alice, &[5]);
        assert_eq!(shared.unfinished(alice, 7), HashSet::from([1, 2]));
        assert!(shared.unfinished(alice, 8).is_empty());
        assert!(shared.unfinished(&key("bob", "INBOX"), 7).is_empty());
        assert!(shared.unfinished(&key("alice", "Junk"), 7).is_empty());
        shared.settle_unfinished(alice, &[1, 2]);
        assert!(lock(&shared.unfinished).is_empty());
    }

    #[test]
    fn what_was_asked_before_a_listing_or_a_change_is_of_no_use() {
        let shared = Shared::default();
        let alice = &FolderKey {
            account: "alice".to_owned(),
            folder: "INBOX".to_owned(),
        };
        let asked = Instant::now();
        let earlier = asked - Duration::from_secs(1);
        assert!(!shared.has_changed(alice, earlier));
        shared.listed(alice, asked);
        assert!(shared.has_changed(alice, earlier));
        // The listing itself is the last.
        assert!(!shared.has_changed(alice, asked));
        shared.listed(alice, earlier);
        assert!(shared.has_changed(alice, earlier));
        shared.change(alice);
        assert!(shared.has_changed(alice, asked));
    }
}
