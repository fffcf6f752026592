//! When a provider may be asked for tokens again: for one account, and for any.
//!
//! A failure that passes makes its account wait. When several accounts in a row
//! fail at one provider it is the provider that fails: all of its accounts wait
//! then, and behind the pause one of them tries first.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::oauth2::TokenError;

/// The first pause, doubled by each failure that follows.
const FIRST: Duration = Duration::from_secs(2);
/// The longest that popgate chooses.
const LONGEST_OWN: Duration = Duration::from_secs(60);
/// The longest that a provider is granted.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// A pause for a setting that somebody has to change.
const SETTING: Duration = Duration::from_secs(30);
/// So many accounts in a row make it the provider's failure.
const SEVERAL: usize = 3;
/// How long others wait for the one that tries first.
const TRIAL: Duration = Duration::from_secs(30);
/// Accounts remembered. Pauses that are over go first; where that is not enough,
/// no more are taken.
const MOST: usize = 10_000;

/// Why there were no tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The same may succeed later.
    Temporary(String),
    /// A setting must be changed.
    Misconfigured(String),
}

impl Failure {
    /// The failure, with the time to wait that the provider named; `None`: the
    /// provider has judged.
    pub fn of(error: &TokenError) -> Option<(Self, Option<Duration>)> {
        match error {
            TokenError::Refused(_) | TokenError::NotSignedIn(_) => None,
            TokenError::Temporary {
                reason,
                retry_after,
            } => Some((Self::Temporary(reason.clone()), *retry_after)),
            TokenError::Misconfigured(reason) => Some((Self::Misconfigured(reason.clone()), None)),
        }
    }
}

/// Accounts and providers for which nothing is asked for a while.
#[derive(Debug, Default)]
pub(super) struct Pauses(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    accounts: HashMap<String, Pause>,
    providers: HashMap<String, Provider>,
}

#[derive(Debug)]
struct Pause {
    until: Instant,
    failures: u32,
    why: Failure,
    /// It is the wait for this account, which tries first.
    trial: Option<String>,
}

#[derive(Debug, Default)]
struct Provider {
    /// Those that failed since one succeeded.
    failed: HashSet<String>,
    pause: Option<Pause>,
    /// The operator knows that a setting must be changed.
    told: bool,
}

impl Pauses {
    /// Leave to ask `provider` for tokens of `account`, or why it must wait.
    pub fn check(&self, provider: &str, account: &str) -> Result<(), Failure> {
        let now = Instant::now();
        let mut state = self.lock();
        if let Some(pause) = state.accounts.get(account)
            && pause.until > now
        {
            return Err(pause.why.clone());
        }
        if let Some(Provider {
            pause: Some(pause), ..
        }) = state.providers.get_mut(provider)
        {
            // Whoever tries may come back for it: its row was changed meanwhile.
            if pause.until > now && pause.trial.as_deref() != Some(account) {
                return Err(pause.why.clone());
            }
            pause.until = now + TRIAL;
            pause.trial = Some(account.to_owned());
        }
        Ok(())
    }

    /// It failed. `true`: a setting must be changed, and the operator has not
    /// been told yet.
    pub fn failed(
        &self,
        provider: &str,
        account: &str,
        why: Failure,
        retry_after: Option<Duration>,
    ) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        if state.accounts.len() >= MOST {
            state.accounts.retain(|_, pause| pause.until > now);
        }
        if state.accounts.len() < MOST || state.accounts.contains_key(account) {
            let before = state.accounts.get(account);
            let pause = Pause::new(now, before, why.clone(), retry_after);
            state.accounts.insert(account.to_owned(), pause);
        }
        let at = state.providers.entry(provider.to_owned()).or_default();
        if at.failed.len() < SEVERAL {
            at.failed.insert(account.to_owned());
        }
        let news = matches!(why, Failure::Misconfigured(_)) && !at.told;
        at.told |= news;
        if at.failed.len() >= SEVERAL {
            at.pause = Some(Pause::new(now, at.pause.as_ref(), why, retry_after));
        }
        news
    }

    /// The provider has answered: with tokens, or that it gives none to this
    /// account.
    pub fn answered(&self, provider: &str, account: &str) {
        let mut state = self.lock();
        state.accounts.remove(account);
        state.providers.remove(provider);
    }

    /// Somebody has signed in for the account: it need not wait.
    pub fn forget(&self, account: &str) {
        self.lock().accounts.remove(account);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pause {
    /// Behind the last pause. While that lasts nobody asks: who fails now asked before
    /// it began, and it is one failure, for which the longest pause counts.
    fn new(
        now: Instant,
        before: Option<&Self>,
        why: Failure,
        retry_after: Option<Duration>,
    ) -> Self {
        let lasting = before.filter(|it| it.until > now && it.trial.is_none());
        let failures = before.map_or(0, |it| it.failures - u32::from(lasting.is_some()));
        let own = match why {
            Failure::Temporary(_) => FIRST.saturating_mul(1 << failures.min(8)).min(LONGEST_OWN),
            Failure::Misconfigured(_) => SETTING,
        };
        let until = now + retry_after.unwrap_or_default().clamp(own, LONGEST);
        Self {
            until: lasting.map_or(until, |it| it.until.max(until)),
            failures: failures + 1,
            why,
            trial: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn outage() -> Failure {
        Failure::Temporary("503".to_owned())
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_waits_longer_after_each_failure() {
        let pauses = Pauses::default();
        for pause in [2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(pauses.check("p", "alice"), Ok(()));
            pauses.failed("p", "alice", outage(), None);
            advance(seconds(pause - 1)).await;
            assert_eq!(pauses.check("p", "alice"), Err(outage()));
            assert_eq!(pauses.check("p", "bob"), Ok(()));
            advance(seconds(1)).await;
        }
        pauses.answered("p", "alice");
        pauses.failed("p", "alice", outage(), None);
        advance(seconds(2)).await;
        assert_eq!(pauses.check("p", "alice"), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_provider_asks_for_counts_within_reason() {
        let pauses = Pauses::default();
        for (asked, granted) in [
            (seconds(1), seconds(2)),
            (seconds(90), seconds(90)),
            (Duration::MAX, LONGEST),
        ] {
            pauses.forget("alice");
            pauses.failed("p", "alice", outage(), Some(asked));
            advance(granted - seconds(1)).await;
            assert_eq!(pauses.check("p", "alice"), Err(outage()), "{asked:?}");
            advance(seconds(1)).await;
            assert_eq!(pauses.check("p", "alice"), Ok(()), "{asked:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_for_many_at_once_has_failed_once() {
        let pauses = Pauses::default();
        // They waited for one answer.
        for asked in [Some(seconds(9)), None, None, None, None] {
            pauses.failed("p", "all", outage(), asked);
        }
        advance(seconds(8)).await;
        assert_eq!(pauses.check("p", "all"), Err(outage()));
        advance(seconds(1)).await;
        assert_eq!(pauses.check("p", "all"), Ok(()));
        pauses.failed("p", "all", outage(), None);
        advance(seconds(4)).await;
        assert_eq!(pauses.check("p", "all"), Ok(()), "the second one");
        // So it is where each asked for itself.
        for account in ["a", "b", "c", "d", "e", "f"] {
            pauses.failed("q", account, outage(), None);
        }
        advance(seconds(2)).await;
        assert_eq!(pauses.check("q", "g"), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_fails_for_several_is_tried_by_one() {
        let pauses = Pauses::default();
        for account in ["a", "a", "b"] {
            pauses.failed("p", account, outage(), None);
        }
        assert_eq!(pauses.check("p", "d"), Ok(()));
        pauses.failed("p", "c", outage(), None);
        assert_eq!(pauses.check("p", "d"), Err(outage()));
        assert_eq!(pauses.check("q", "d"), Ok(()));
        advance(seconds(2)).await;
        assert_eq!(pauses.check("p", "d"), Ok(()), "the trial");
        assert_eq!(pauses.check("p", "e"), Err(outage()));
        assert_eq!(pauses.check("p", "d"), Ok(()), "the same one");
        pauses.failed("p", "d", outage(), None);
        advance(seconds(3)).await;
        assert_eq!(pauses.check("p", "e"), Err(outage()));
        advance(seconds(1)).await;
        assert_eq!(pauses.check("p", "e"), Ok(()));
        // Given up without a word.
        advance(TRIAL).await;
        assert_eq!(pauses.check("p", "f"), Ok(()));
        pauses.answered("p", "f");
        assert_eq!(pauses.check("p", "g"), Ok(()));
        assert_eq!(pauses.check("p", "h"), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_operator_is_told_once_that_a_setting_is_wrong() {
        let pauses = Pauses::default();
        let wrong = || Failure::Misconfigured("invalid_client".to_owned());
        assert!(pauses.failed("p", "alice", wrong(), None));
        assert!(!pauses.failed("p", "bob", wrong(), None));
        assert!(pauses.failed("q", "carol", wrong(), None));
        pauses.answered("p", "alice");
        assert!(pauses.failed("p", "alice", wrong(), None));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let pauses = Pauses::default();
        for number in 0..2 * MOST {
            pauses.failed("p", &number.to_string(), outage(), None);
        }
        assert_eq!(pauses.lock().accounts.len(), MOST);
        assert_eq!(pauses.lock().providers["p"].failed.len(), SEVERAL);
    }
}
