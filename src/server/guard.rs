//! What stands between guesses and the upstream: delays after failures, and a
//! memory of credentials that the upstream has refused.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::maildrop::FolderName;
use crate::sasl::{Credentials, Digest, DigestKey};

/// Delays of the answer to the first, second … failure from an address.
const DELAYS: [Duration; 4] = [
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
];
/// After so long without a failure an address begins anew.
const FORGIVEN: Duration = Duration::from_secs(29);
/// So many of the last credentials from an address count once: a client that
/// repeats one stale password is no guesser.
const REPEATED: usize = 10;
/// How long refused credentials are remembered.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// Entries in either memory, beyond which old ones make room.
const MOST: usize = 20_000;

/// Failed logins, by address, by credentials and by account.
#[derive(Debug)]
pub(super) struct Guard {
    key: DigestKey,
    most_refusals: usize,
    addresses: Mutex<HashMap<IpAddr, Failures>>,
    asked: Mutex<HashMap<Digest, Asked>>,
}

#[derive(Debug)]
struct Failures {
    count: usize,
    last: Instant,
    recent: VecDeque<Digest>,
}

/// What the upstream was asked about one set of credentials.
#[derive(Debug, Default)]
struct Asked {
    /// When it refused them, within the time that is remembered.
    refusals: VecDeque<Instant>,
    /// Attempts under way: each may become a refusal.
    under_way: usize,
    changed: Arc<Notify>,
}

impl Asked {
    fn forget_old(&mut self) {
        while let Some(first) = self.refusals.front()
            && first.elapsed() >= REMEMBERED
        {
            self.refusals.pop_front();
        }
    }

    fn is_idle(&self) -> bool {
        self.refusals.is_empty() && self.under_way == 0
    }
}

/// Leave to ask the upstream about credentials. Dropped without a verdict, it
/// counts for nothing.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    guard: &'a Guard,
    digest: Digest,
}

impl Attempt<'_> {
    /// The upstream refused the credentials.
    pub fn refused(self) {
        let mut asked = self.guard.asked();
        if let Some(asked) = asked.get_mut(&self.digest) {
            asked.refusals.push_back(Instant::now());
        }
    }

    /// The upstream accepted the credentials.
    pub fn accepted(self) {
        let mut asked = self.guard.asked();
        if let Some(asked) = asked.get_mut(&self.digest) {
            asked.refusals.clear();
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut all = self.guard.asked();
        if let Some(asked) = all.get_mut(&self.digest) {
            asked.under_way -= 1;
            asked.changed.notify_waiters();
            if asked.is_idle() {
                all.remove(&self.digest);
            }
        }
    }
}

impl Guard {
    /// A guard that lets the upstream refuse the same credentials so many times
    /// an hour.
    pub fn new(most_refusals: u32) -> Result<Self, ring::error::Unspecified> {
        Ok(Self {
            key: DigestKey::generate()?,
            most_refusals: usize::try_from(most_refusals).unwrap_or(usize::MAX),
            addresses: Mutex::default(),
            asked: Mutex::default(),
        })
    }

    /// The digest of credentials.
    pub fn digest(&self, credentials: &Credentials) -> Digest {
        self.key.credentials(credentials)
    }

    /// The digest of a maildrop: a user, and the folders as they were asked
    /// for, in any case of letters.
    pub fn maildrop(&self, user: &str, folders: &[FolderName]) -> Digest {
        let user = user.to_lowercase();
        let folders: Vec<String> = folders
            .iter()
            .map(|it| it.as_str().to_lowercase())
            .collect();
        let mut fields = vec!["maildrop", user.as_str()];
        fields.extend(folders.iter().map(String::as_str));
        self.key.fields(&fields)
    }

    /// Leave to ask the upstream about credentials; `None` where it has refused
    /// them so often that it is not asked again for a while. Waits while other
    /// attempts with the same credentials could still make it so.
    pub async fn attempt(&self, digest: Digest) -> Option<Attempt<'_>> {
        loop {
            let changed;
            let verdict = {
                let mut all = self.asked();
                if all.len() >= MOST {
                    make_room(&mut all);
                }
                let asked = all.entry(digest).or_default();
                asked.forget_old();
                if asked.refusals.len() >= self.most_refusals {
                    return None;
                }
                if asked.refusals.len() + asked.under_way < self.most_refusals {
                    asked.under_way += 1;
                    return Some(Attempt {
                        guard: self,
                        digest,
                    });
                }
                changed = Arc::clone(&asked.changed);
                changed.notified()
            };
            verdict.await;
        }
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<Digest, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A login from `address` failed: how long its answer is to wait.
    pub fn delay(&self, address: IpAddr, digest: Digest) -> Duration {
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if addresses.len() >= MOST {
            addresses.retain(|_, it| it.last.elapsed() < FORGIVEN);
            if addresses.len() >= MOST {
                addresses.clear();
            }
        }
        let now = Instant::now();
        let entry = addresses
            .entry(network(address))
            .or_insert_with(|| Failures {
                count: 0,
                last: now,
                recent: VecDeque::with_capacity(REPEATED),
            });
        if entry.last.elapsed() >= FORGIVEN {
            entry.count = 0;
            entry.recent.clear();
        }
        entry.last = now;
        if !entry.recent.contains(&digest) {
            entry.count += 1;
            if entry.recent.len() == REPEATED {
                entry.recent.pop_front();
            }
            entry.recent.push_back(digest);
        }
        let step = entry.count.clamp(1, DELAYS.len()) - 1;
        DELAYS.get(step).copied().unwrap_or_default()
    }
}

/// Forgets what is old, or else whatever is not under way.
fn make_room(asked: &mut HashMap<Digest, Asked>) {
    asked.retain(|_, asked| {
        asked.forget_old();
        !asked.is_idle()
    });
    if asked.len() >= MOST {
        asked.retain(|_, asked| asked.under_way > 0);
    }
}

/// The address, or its /64: that is what one IPv6 customer has.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Credentials {
        Credentials::Password {
            user: user.to_owned(),
            authorize_as: None,
            password: password.into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn delays_grow_with_other_guesses_and_are_forgiven() {
        let guard = Guard::new(3).unwrap();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let mut delay = |guess: &str| {
            guard
                .delay(address, guard.digest(&password("alice", guess)))
                .as_secs()
        };
        assert_eq!(["a", "b", "c", "d", "e"].map(&mut delay), [2, 4, 8, 15, 15]);
        tokio::time::advance(FORGIVEN).await;
        assert_eq!(["a", "a", "a"].map(&mut delay), [2, 2, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_upstream_is_spared_credentials_it_refused() {
        let guard = Guard::new(3).unwrap();
        let stale = guard.digest(&password("alice", "old"));
        for _ in 0..3 {
            guard.attempt(stale).await.unwrap().refused();
        }
        assert!(guard.attempt(stale).await.is_none());
        let new = guard.digest(&password("alice", "new"));
        assert!(guard.attempt(new).await.is_some());
        tokio::time::advance(REMEMBERED).await;
        assert!(guard.attempt(stale).await.is_some());
        assert!(guard.asked().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_three_refusals_fall_into_any_hour() {
        let guard = Guard::new(3).unwrap();
        let stale = guard.digest(&password("alice", "old"));
        let minutes = |count: u64| Duration::from_secs(60 * count);
        guard.attempt(stale).await.unwrap().refused();
        tokio::time::advance(minutes(50)).await;
        for _ in 0..2 {
            guard.attempt(stale).await.unwrap().refused();
        }
        tokio::time::advance(minutes(11)).await;
        guard.attempt(stale).await.unwrap().refused();
        assert!(guard.attempt(stale).await.is_none());
    }

    #[tokio::test]
    async fn attempts_at_once_wait_for_the_verdict_on_the_first() {
        let guard = Guard::new(3).unwrap();
        let stale = guard.digest(&password("alice", "old"));
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let attempt = || async {
            if let Some(attempt) = guard.attempt(stale).await {
                asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                tokio::task::yield_now().await;
                attempt.refused();
            }
        };
        futures_util::future::join_all((0..50).map(|_| attempt())).await;
        assert_eq!(asked.into_inner(), 3);
    }

    #[tokio::test]
    async fn attempts_that_succeed_or_are_given_up_let_others_in() {
        let guard = Guard::new(1).unwrap();
        let good = guard.digest(&password("alice", "good"));
        let attempt = |accepted: bool| {
            let guard = &guard;
            async move {
                let attempt = guard.attempt(good).await.unwrap();
                tokio::task::yield_now().await;
                if accepted {
                    attempt.accepted();
                }
            }
        };
        futures_util::future::join_all((0..20).map(|n| attempt(n % 2 == 0))).await;
        assert!(guard.asked().is_empty());
    }

    #[test]
    fn maildrops_are_told_apart_by_user_and_folders() {
        let guard = Guard::new(3).unwrap();
        let maildrop = |user: &str, folders: &[&str]| {
            let folders: Vec<_> = folders.iter().map(|it| it.parse().unwrap()).collect();
            guard.maildrop(user, &folders)
        };
        let inbox = maildrop("alice", &["INBOX"]);
        assert_eq!(inbox, maildrop("Alice", &["Inbox"]));
        assert_ne!(inbox, maildrop("bob", &["INBOX"]));
        assert_ne!(inbox, maildrop("alice", &["Junk"]));
        assert_ne!(inbox, maildrop("alice", &["INBOX", "Junk"]));
    }

    #[test]
    fn one_ipv6_customer_is_one_address() {
        let one: IpAddr = "2001:db8:1:2:3::4".parse().unwrap();
        let other: IpAddr = "2001:db8:1:2:ffff::1".parse().unwrap();
        assert_eq!(network(one), network(other));
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(network(mapped), "192.0.2.1".parse::<IpAddr>().unwrap());
    }
}
