//! The exclusive lock on a maildrop (RFC 1939 §4): no folder is in two sessions
//! at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// A client that hangs up and comes back at once must not find its own lock:
/// its old session may not have been told yet.
const LETTING_GO: Duration = Duration::from_millis(500);
/// How long a session that is to be taken over may take to let go.
const TAKEOVER: Duration = Duration::from_secs(10);

/// The folders that are locked now.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<HashMap<Folder, Holder>>);

/// A folder of somebody's mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Folder {
    /// In lower case: most upstreams take names that differ only by case for
    /// one, and where not, nothing worse comes of it than `[IN-USE]`.
    mailbox: String,
    /// As the upstream calls it.
    name: String,
}

#[derive(Clone, Debug)]
struct Holder {
    evicted: CancellationToken,
    released: CancellationToken,
}

/// A maildrop, each folder of it, held by this session until dropped.
#[derive(Debug)]
pub(super) struct Lock {
    locks: Arc<Locks>,
    folders: Vec<Folder>,
    holder: Holder,
}

impl Locks {
    /// Locks these folders of a mailbox, by the names they have upstream: all
    /// of them, or none where another session holds one and keeps it.
    pub async fn acquire(self: &Arc<Self>, mailbox: &str, folders: &[String]) -> Option<Lock> {
        self.acquire_within(LETTING_GO, mailbox, folders, |_| {})
            .await
    }

    /// Locks them, after asking the sessions that hold any of them to end.
    pub async fn take_over(self: &Arc<Self>, mailbox: &str, folders: &[String]) -> Option<Lock> {
        let evict = |holder: &Holder| holder.evicted.cancel();
        self.acquire_within(TAKEOVER, mailbox, folders, evict).await
    }

    async fn acquire_within(
        self: &Arc<Self>,
        patience: Duration,
        mailbox: &str,
        folders: &[String],
        ask: impl Fn(&Holder),
    ) -> Option<Lock> {
        let deadline = Instant::now() + patience;
        let mailbox = mailbox.to_lowercase();
        let folders: Vec<Folder> = folders
            .iter()
            .map(|name| Folder {
                mailbox: mailbox.clone(),
                name: if name.eq_ignore_ascii_case("INBOX") {
                    "INBOX".to_owned()
                } else {
                    name.clone()
                },
            })
            .collect();
        loop {
            match self.try_acquire(&folders) {
                Ok(lock) => return Some(lock),
                Err(holders) => {
                    holders.iter().for_each(&ask);
                    for holder in holders {
                        timeout_at(deadline, holder.released.cancelled())
                            .await
                            .ok()?;
                    }
                }
            }
        }
    }

    /// All at once, so that no two logins ever wait for each other's folders;
    /// or who holds some of them.
    fn try_acquire(self: &Arc<Self>, folders: &[Folder]) -> Result<Lock, Vec<Holder>> {
        let mut held = self.held();
        let holders: Vec<Holder> = folders
            .iter()
            .filter_map(|folder| held.get(folder))
            .cloned()
            .collect();
        if !holders.is_empty() {
            return Err(holders);
        }
        let holder = Holder {
            evicted: CancellationToken::new(),
            released: CancellationToken::new(),
        };
        for folder in folders {
            held.insert(folder.clone(), holder.clone());
        }
        Ok(Lock {
            locks: Arc::clone(self),
            folders: folders.to_vec(),
            holder,
        })
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Folder, Holder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lock {
    /// Cancelled when another session takes the maildrop over.
    pub fn evicted(&self) -> &CancellationToken {
        &self.holder.evicted
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut held = self.locks.held();
        for folder in &self.folders {
            held.remove(folder);
        }
        self.holder.released.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn one_session_a_maildrop() {
        let (locks, inbox) = (Arc::new(Locks::default()), names(&["INBOX"]));
        let lock = locks.acquire("alice@example.org", &inbox).await.unwrap();
        let again = locks.acquire("Alice@Example.org", &inbox).await;
        assert!(again.is_none());
        assert!(locks.acquire("bob@example.org", &inbox).await.is_some());
        assert!(!lock.evicted().is_cancelled());
        drop(lock);
        let again = locks.acquire("alice@example.org", &names(&["Inbox"])).await;
        assert!(again.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn one_session_a_folder() {
        let locks = Arc::new(Locks::default());
        let inbox = locks.acquire("alice", &names(&["INBOX"])).await.unwrap();
        let junk = locks.acquire("alice", &names(&["Junk"])).await.unwrap();
        let joined = names(&["Archive", "INBOX", "Junk"]);
        assert!(locks.acquire("alice", &joined).await.is_none());
        // It has taken none of them.
        assert!(locks.acquire("alice", &joined[..1]).await.is_some());
        drop(inbox);
        assert!(locks.acquire("alice", &joined).await.is_none());
        drop(junk);
        let joined = locks.acquire("alice", &joined).await.unwrap();
        assert!(locks.acquire("alice", &names(&["Junk"])).await.is_none());
        drop(joined);
        assert!(locks.held().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_about_to_let_go_is_waited_for() {
        let (locks, inbox) = (Arc::new(Locks::default()), names(&["INBOX"]));
        let lock = locks.acquire("alice", &inbox).await.unwrap();
        let ends = async {
            tokio::time::sleep(LETTING_GO / 2).await;
            drop(lock);
        };
        let (_, next) = tokio::join!(ends, locks.acquire("alice", &inbox));
        assert!(next.is_some());
    }

    #[tokio::test]
    async fn a_takeover_waits_until_all_other_sessions_let_go() {
        let locks = Arc::new(Locks::default());
        let mut others = Vec::new();
        for folder in ["INBOX", "Junk"] {
            let lock = locks.acquire("alice", &names(&[folder])).await.unwrap();
            let evicted = lock.evicted().clone();
            others.push(tokio::spawn(async move {
                evicted.cancelled().await;
                drop(lock);
            }));
        }
        let bystander = locks.acquire("alice", &names(&["Sent"])).await.unwrap();
        let joined = names(&["Junk", "INBOX"]);
        assert!(locks.take_over("alice", &joined).await.is_some());
        for other in others {
            other.await.unwrap();
        }
        assert!(!bystander.evicted().is_cancelled());
    }

    #[tokio::test]
    async fn logins_that_want_the_same_folders_in_another_order_all_get_them() {
        let locks = Arc::new(Locks::default());
        let opened = |folders: &[&str]| {
            let (locks, folders) = (Arc::clone(&locks), names(folders));
            async move {
                for _ in 0..100 {
                    let lock = locks.acquire("alice", &folders).await.unwrap();
                    tokio::task::yield_now().await;
                    drop(lock);
                }
            }
        };
        tokio::join!(opened(&["a", "b"]), opened(&["b", "a"]));
    }
}
