//! Credentials that were good lately: whoever shows them is nobody who guesses.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::sasl::Digest;

/// How long they are remembered.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);
/// How many of them.
const MOST: usize = 50_000;

/// Names of credentials that were good, and when. Only logins that succeed add to
/// them.
#[derive(Debug, Default)]
pub(super) struct Proven(Mutex<HashMap<Digest, Instant>>);

impl Proven {
    /// These were good just now.
    pub fn add(&self, credentials: Digest) {
        let mut all = self.all();
        if all.len() >= MOST && !all.contains_key(&credentials) {
            let mut times: Vec<Instant> = all.values().copied().collect();
            let (_, middle, _) = times.select_nth_unstable(MOST / 2);
            let middle = *middle;
            all.retain(|_, at| *at > middle);
        }
        all.insert(credentials, Instant::now());
    }

    /// Whether these were good lately.
    pub fn has(&self, credentials: Digest) -> bool {
        let at = self.all().get(&credentials).copied();
        at.is_some_and(|at| at.elapsed() < REMEMBERED)
    }

    /// They are no longer good.
    pub fn remove(&self, credentials: Digest) {
        self.all().remove(&credentials);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Digest, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u32) -> Digest {
        let mut octets = [0; 32];
        octets[..4].copy_from_slice(&number.to_be_bytes());
        Digest::of(octets)
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_good_is_remembered_for_a_while() {
        let proven = Proven::default();
        assert!(!proven.has(digest(1)));
        proven.add(digest(1));
        assert!(proven.has(digest(1)));
        tokio::time::advance(REMEMBERED).await;
        assert!(!proven.has(digest(1)));
        proven.add(digest(1));
        proven.remove(digest(1));
        assert!(!proven.has(digest(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded_and_forgets_the_oldest() {
        let proven = Proven::default();
        let most = u32::try_from(MOST).unwrap();
        for number in 0..=most {
            tokio::time::advance(Duration::from_micros(1)).await;
            proven.add(digest(number));
        }
        assert!(proven.all().len() <= MOST);
        assert!(!proven.has(digest(0)));
        assert!(proven.has(digest(most)));
    }
}
