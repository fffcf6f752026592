//! The exclusive lock on a maildrop (RFC 1939 §4): one session at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How long a session that is to be taken over may take to let go.
const TAKEOVER: Duration = Duration::from_secs(10);

/// The maildrops that are locked now.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<HashMap<String, Holder>>);

#[derive(Clone, Debug)]
struct Holder {
    evicted: CancellationToken,
    released: CancellationToken,
}

/// A maildrop held by this session, until dropped.
#[derive(Debug)]
pub(super) struct Lock {
    locks: Arc<Locks>,
    key: String,
    holder: Holder,
}

impl Locks {
    /// Locks the maildrop of `mailbox`, unless another session holds it. Names
    /// that differ only by case are one maildrop: most upstreams see it so, and
    /// where not, nothing worse comes of it than `[IN-USE]`.
    pub fn acquire(self: &Arc<Self>, mailbox: &str) -> Option<Lock> {
        let key = mailbox.to_lowercase();
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.contains_key(&key) {
            return None;
        }
        let holder = Holder {
            evicted: CancellationToken::new(),
            released: CancellationToken::new(),
        };
        held.insert(key.clone(), holder.clone());
        Some(Lock {
            locks: Arc::clone(self),
            key,
            holder,
        })
    }

    /// Locks the maildrop, after asking the session that holds it to end.
    pub async fn take_over(self: &Arc<Self>, mailbox: &str) -> Option<Lock> {
        if let Some(lock) = self.acquire(mailbox) {
            return Some(lock);
        }
        let holder = {
            let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            held.get(&mailbox.to_lowercase()).cloned()
        };
        if let Some(holder) = holder {
            holder.evicted.cancel();
            let _ = tokio::time::timeout(TAKEOVER, holder.released.cancelled()).await;
        }
        self.acquire(mailbox)
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
        let mut held = self.locks.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(&self.key);
        self.holder.released.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_session_a_maildrop() {
        let locks = Arc::new(Locks::default());
        let lock = locks.acquire("alice@example.org").unwrap();
        assert!(locks.acquire("Alice@Example.org").is_none());
        assert!(locks.acquire("bob@example.org").is_some());
        drop(lock);
        assert!(locks.acquire("alice@example.org").is_some());
    }

    #[tokio::test]
    async fn a_takeover_waits_until_the_other_session_let_go() {
        let locks = Arc::new(Locks::default());
        let lock = locks.acquire("alice").unwrap();
        let evicted = lock.evicted().clone();
        let other = tokio::spawn(async move {
            evicted.cancelled().await;
            drop(lock);
        });
        assert!(locks.take_over("alice").await.is_some());
        other.await.unwrap();
    }
}
