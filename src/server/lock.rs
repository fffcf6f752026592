//! The exclusive lock on a maildrop (RFC 1939 §4): one session at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// A client that hangs up and comes back at once must not find its own lock:
/// its old session may not have been told yet.
const LETTING_GO: Duration = Duration::from_millis(500);
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
    /// Locks the maildrop of `mailbox`, unless another session holds it and
    /// keeps it. Names that differ only by case are one maildrop: most
    /// upstreams see it so, and where not, nothing worse comes of it than
    /// `[IN-USE]`.
    pub async fn acquire(self: &Arc<Self>, mailbox: &str) -> Option<Lock> {
        self.acquire_within(LETTING_GO, mailbox, |_| {}).await
    }

    /// Locks the maildrop, after asking the session that holds it to end.
    pub async fn take_over(self: &Arc<Self>, mailbox: &str) -> Option<Lock> {
        let evict = |holder: &Holder| holder.evicted.cancel();
        self.acquire_within(TAKEOVER, mailbox, evict).await
    }

    async fn acquire_within(
        self: &Arc<Self>,
        patience: Duration,
        mailbox: &str,
        ask: impl Fn(&Holder),
    ) -> Option<Lock> {
        let deadline = Instant::now() + patience;
        loop {
            match self.try_acquire(mailbox) {
                Ok(lock) => return Some(lock),
                Err(holder) => {
                    ask(&holder);
                    timeout_at(deadline, holder.released.cancelled())
                        .await
                        .ok()?;
                }
            }
        }
    }

    fn try_acquire(self: &Arc<Self>, mailbox: &str) -> Result<Lock, Holder> {
        let key = mailbox.to_lowercase();
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(holder) = held.get(&key) {
            return Err(holder.clone());
        }
        let holder = Holder {
            evicted: CancellationToken::new(),
            released: CancellationToken::new(),
        };
        held.insert(key.clone(), holder.clone());
        Ok(Lock {
            locks: Arc::clone(self),
            key,
            holder,
        })
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

    #[tokio::test(start_paused = true)]
    async fn one_session_a_maildrop() {
        let locks = Arc::new(Locks::default());
        let lock = locks.acquire("alice@example.org").await.unwrap();
        assert!(locks.acquire("Alice@Example.org").await.is_none());
        assert!(locks.acquire("bob@example.org").await.is_some());
        assert!(!lock.evicted().is_cancelled());
        drop(lock);
        assert!(locks.acquire("alice@example.org").await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_about_to_let_go_is_waited_for() {
        let locks = Arc::new(Locks::default());
        let lock = locks.acquire("alice").await.unwrap();
        let ends = async {
            tokio::time::sleep(LETTING_GO / 2).await;
            drop(lock);
        };
        let (_, next) = tokio::join!(ends, locks.acquire("alice"));
        assert!(next.is_some());
    }

    #[tokio::test]
    async fn a_takeover_waits_until_the_other_session_let_go() {
        let locks = Arc::new(Locks::default());
        let lock = locks.acquire("alice").await.unwrap();
        let evicted = lock.evicted().clone();
        let other = tokio::spawn(async move {
            evicted.cancelled().await;
            drop(lock);
        });
        assert!(locks.take_over("alice").await.is_some());
        other.await.unwrap();
    }
}
