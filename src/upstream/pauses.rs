//! Pauses that an upstream asks for: throttles, Retry-After. Until one is over
//! the upstream is not tried again for that account, by a login or by anything
//! else.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::UpstreamError;

/// The longest pause that an upstream is granted.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Accounts remembered. Pauses that are over go first; where that is not
/// enough, no more are taken.
const MOST_ACCOUNTS: usize = 10_000;

/// Accounts that an upstream wants to hear nothing of for a while.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    until: Mutex<HashMap<String, Instant>>,
}

impl Pauses {
    /// The upstream asked for a pause.
    pub fn begin(&self, account: &str, wait: Duration) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if until.len() >= MOST_ACCOUNTS {
            until.retain(|_, end| *end > now);
        }
        if until.len() < MOST_ACCOUNTS || until.contains_key(account) {
            let end = until.entry(account.to_owned()).or_insert(now);
            *end = (*end).max(now + wait.min(LONGEST));
        }
    }

    /// An error while a pause lasts.
    pub fn check(&self, account: &str) -> Result<(), UpstreamError> {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(end) = until.get(account) else {
            return Ok(());
        };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            until.remove(account);
            return Ok(());
        }
        Err(UpstreamError::Temporary {
            reason: "the upstream asked not to be tried again yet".into(),
            retry_after: Some(left),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_of_one_account_and_ends() {
        let pauses = Pauses::default();
        pauses.begin("alice", Duration::from_secs(10));
        // A shorter one does not cut it short.
        pauses.begin("alice", Duration::from_secs(1));
        assert!(pauses.check("bob").is_ok());
        tokio::time::advance(Duration::from_secs(9)).await;
        let Err(UpstreamError::Temporary { retry_after, .. }) = pauses.check("alice") else {
            panic!("the pause is not over");
        };
        assert_eq!(retry_after, Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(pauses.check("alice").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_are_bounded_in_number_and_length() {
        let pauses = Pauses::default();
        for number in 0..2 * MOST_ACCOUNTS {
            pauses.begin(&number.to_string(), Duration::MAX);
        }
        let remembered = pauses.until.lock().unwrap().len();
        assert_eq!(remembered, MOST_ACCOUNTS);
        assert!(pauses.check("0").is_err());
        tokio::time::advance(LONGEST).await;
        assert!(pauses.check("0").is_ok());
    }
}
