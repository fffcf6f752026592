//! The least time between two logins (RFC 2449 §6.5, LOGIN-DELAY).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::sasl::Digest;

/// Maildrops that are remembered at once. Only logins that succeed add to them.
const MOST: usize = 50_000;

/// The last logins, as far as they still hold others up.
#[derive(Debug, Default)]
pub(super) struct LoginDelays(Mutex<HashMap<Digest, Last>>);

/// The last login to a maildrop.
#[derive(Clone, Copy, Debug)]
struct Last {
    /// When the next one may come.
    until: Instant,
    credentials: Digest,
}

impl LoginDelays {
    /// How long a login to `maildrop` is still too early.
    pub fn early(&self, maildrop: Digest) -> Option<Duration> {
        let last = self.lasts().get(&maildrop).copied()?;
        remaining(last.until)
    }

    /// The same where the last login was with exactly these credentials: then
    /// the upstream need not be asked whether they are good. Anybody else is
    /// told nothing before it has said so.
    pub fn early_again(&self, maildrop: Digest, credentials: Digest) -> Option<Duration> {
        let last = self.lasts().get(&maildrop).copied()?;
        remaining(last.until).filter(|_| last.credentials == credentials)
    }

    /// A login succeeded; the next one may come after `delay`.
    pub fn logged_in(&self, maildrop: Digest, credentials: Digest, delay: Duration) {
        let mut lasts = self.lasts();
        if lasts.len() >= MOST && !lasts.contains_key(&maildrop) {
            lasts.retain(|_, last| remaining(last.until).is_some());
            if lasts.len() >= MOST {
                let next = lasts.iter().min_by_key(|(_, last)| last.until);
                if let Some(next) = next.map(|(maildrop, _)| *maildrop) {
                    lasts.remove(&next);
                }
            }
        }
        let until = Instant::now() + delay;
        lasts.insert(maildrop, Last { until, credentials });
    }

    fn lasts(&self) -> MutexGuard<'_, HashMap<Digest, Last>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time that is left, where there is any.
fn remaining(until: Instant) -> Option<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    (!left.is_zero()).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_secs(300);

    fn digest(number: u32) -> Digest {
        let mut octets = [0; 32];
        octets[..4].copy_from_slice(&number.to_be_bytes());
        Digest::of(octets)
    }

    #[tokio::test(start_paused = true)]
    async fn it_counts_from_the_last_login() {
        let delays = LoginDelays::default();
        let (alice, password, other) = (digest(1), digest(2), digest(3));
        assert_eq!(delays.early(alice), None);
        delays.logged_in(alice, password, DELAY);
        tokio::time::advance(DELAY / 3).await;
        assert_eq!(delays.early(alice), Some(DELAY * 2 / 3));
        assert_eq!(delays.early_again(alice, password), Some(DELAY * 2 / 3));
        assert_eq!(delays.early_again(alice, other), None);
        assert_eq!(delays.early(digest(4)), None);
        // What was refused does not begin it anew.
        tokio::time::advance(DELAY * 2 / 3).await;
        assert_eq!(delays.early(alice), None);
        assert_eq!(delays.early_again(alice, password), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded_and_forgets_the_shortest_first() {
        let delays = LoginDelays::default();
        for number in 0..u32::try_from(MOST).unwrap() {
            delays.logged_in(digest(number), digest(0), DELAY);
        }
        let short = digest(7);
        delays.logged_in(short, digest(0), Duration::from_secs(1));
        let newest = digest(u32::MAX);
        delays.logged_in(newest, digest(0), DELAY);
        assert_eq!(delays.lasts().len(), MOST);
        assert_eq!(delays.early(short), None);
        assert!(delays.early(newest).is_some());
        tokio::time::advance(DELAY).await;
        delays.logged_in(short, digest(0), DELAY);
        assert_eq!(delays.lasts().len(), 1);
    }
}
