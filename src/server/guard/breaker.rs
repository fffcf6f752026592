//! How often an upstream may refuse one and the same, before it is not asked again
//! for a while: a stale password must not hammer a provider until it locks the
//! mailbox.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::sasl::Digest;

/// How long a refusal is remembered.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// Entries, beyond which old ones make room.
const MOST: usize = 20_000;

/// A state of credentials that may be renewed: a later one is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct State {
    /// Counts all changes of the account.
    pub version: u64,
    /// Names the credentials.
    pub credential: Digest,
}

impl State {
    /// Whether the credentials were renewed since `other`.
    fn is_newer_than(&self, other: &Self) -> bool {
        self.version > other.version && self.credential != other.credential
    }
}

/// Refusals, by what was refused: credentials that are passed on, or an account
/// whatever its token.
#[derive(Debug)]
pub(super) struct Breakers {
    most: usize,
    asked: Mutex<HashMap<Digest, Asked>>,
}

/// What the upstream was asked about one of them.
#[derive(Debug, Default)]
struct Asked {
    /// When it refused, within the time that is remembered.
    refusals: VecDeque<Instant>,
    /// Attempts under way: each may become a refusal.
    under_way: usize,
    changed: Arc<Notify>,
    /// Which state of the credentials was refused last, where they have states.
    state: Option<State>,
    /// Somebody was told that there are no more attempts.
    is_told: bool,
}

impl Asked {
    fn forget_old(&mut self) {
        while let Some(first) = self.refusals.front()
            && first.elapsed() >= REMEMBERED
        {
            self.refusals.pop_front();
        }
    }

    /// Whether the credentials were renewed since they were refused.
    fn is_outdated(&self, state: Option<State>) -> bool {
        match (&self.state, state) {
            (Some(refused), Some(state)) => state.is_newer_than(refused),
            _ => false,
        }
    }

    fn is_idle(&self) -> bool {
        self.refusals.is_empty() && self.under_way == 0
    }
}

/// Leave to ask the upstream. Dropped without a verdict, it counts for nothing.
#[derive(Debug)]
pub(in crate::server) struct Attempt<'a> {
    breakers: &'a Breakers,
    digest: Digest,
    wants_newer: bool,
}

impl Attempt<'_> {
    /// It is the last one for a while, and the others were refused with these very
    /// credentials: if there is anything newer, it is for that.
    pub fn wants_newer(&self) -> bool {
        self.wants_newer
    }

    /// The upstream refused; `state`: the credentials as they are now, where they
    /// may be renewed. Whether this is the last attempt for a while, and nobody was
    /// told.
    pub fn refused(self, state: Option<State>) -> bool {
        let mut all = self.breakers.asked();
        let Some(asked) = all.get_mut(&self.digest) else {
            return false;
        };
        asked.refusals.push_back(Instant::now());
        asked.state = state;
        let is_open = asked.refusals.len() >= self.breakers.most;
        is_open && !std::mem::replace(&mut asked.is_told, is_open)
    }

    /// The upstream accepted.
    pub fn accepted(self) {
        let mut all = self.breakers.asked();
        if let Some(asked) = all.get_mut(&self.digest) {
            asked.refusals.clear();
            asked.is_told = false;
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut all = self.breakers.asked();
        if let Some(asked) = all.get_mut(&self.digest) {
            asked.under_way -= 1;
            asked.changed.notify_waiters();
            if asked.is_idle() {
                all.remove(&self.digest);
            }
        }
    }
}

impl Breakers {
    /// The upstream may refuse the same so many times an hour.
    pub fn new(most: u32) -> Self {
        Self {
            most: usize::try_from(most).unwrap_or(usize::MAX),
            asked: Mutex::default(),
        }
    }

    /// Leave to ask the upstream; `None` where it has refused so often that it is not
    /// asked again for a while, unless `state` says that the credentials have been
    /// renewed since. Waits while other attempts could still make it so.
    ///
    /// Credentials that may be renewed (`state`) are not shown so often at once that
    /// no attempt would be left for what comes in their place; `is_newer`: this one
    /// is for that.
    pub async fn attempt(
        &self,
        digest: Digest,
        state: Option<State>,
        is_newer: bool,
    ) -> Option<Attempt<'_>> {
        let kept_back = usize::from(state.is_some() && !is_newer);
        let at_once = self.most.saturating_sub(kept_back);
        loop {
            let changed;
            let verdict = {
                let mut all = self.asked();
                if all.len() >= MOST {
                    make_room(&mut all);
                }
                let asked = all.entry(digest).or_default();
                asked.forget_old();
                if asked.refusals.len() >= self.most {
                    if !asked.is_outdated(state) {
                        return None;
                    }
                    asked.refusals.clear();
                    asked.is_told = false;
                }
                let refusals = asked.refusals.len();
                if refusals + asked.under_way < at_once || asked.under_way == 0 {
                    asked.under_way += 1;
                    let was_refused = match (&asked.state, state) {
                        (Some(refused), Some(state)) => refused.credential == state.credential,
                        _ => false,
                    };
                    return Some(Attempt {
                        breakers: self,
                        digest,
                        wants_newer: was_refused && refusals > 0 && refusals + 1 == self.most,
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

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: u8 = 1;
    const NEW: u8 = 2;

    fn digest(number: u8) -> Digest {
        Digest::of([number; 32])
    }

    impl Breakers {
        async fn ask(&self, what: u8) -> Option<Attempt<'_>> {
            self.attempt(digest(what), None, false).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_upstream_is_spared_what_it_refused() {
        let breakers = Breakers::new(3);
        for _ in 0..3 {
            breakers.ask(STALE).await.unwrap().refused(None);
        }
        assert!(breakers.ask(STALE).await.is_none());
        assert!(breakers.ask(NEW).await.is_some());
        tokio::time::advance(REMEMBERED).await;
        assert!(breakers.ask(STALE).await.is_some());
        assert!(breakers.asked().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_three_refusals_fall_into_any_hour() {
        let breakers = Breakers::new(3);
        let minutes = |count: u64| Duration::from_secs(60 * count);
        breakers.ask(STALE).await.unwrap().refused(None);
        tokio::time::advance(minutes(50)).await;
        for _ in 0..2 {
            breakers.ask(STALE).await.unwrap().refused(None);
        }
        tokio::time::advance(minutes(11)).await;
        breakers.ask(STALE).await.unwrap().refused(None);
        assert!(breakers.ask(STALE).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_is_tried_again_when_it_was_renewed() {
        let breakers = Breakers::new(3);
        let state = |version, credential| {
            let credential = digest(credential);
            Some(State {
                version,
                credential,
            })
        };
        let (account, before, after) = (digest(1), state(1, 10), state(2, 11));
        // A refresh between two refusals is no reason to go on.
        for state in [before, after, after] {
            let attempt = breakers.attempt(account, before, false).await.unwrap();
            attempt.refused(state);
        }
        assert!(breakers.attempt(account, after, false).await.is_none());
        // Nor is who has not yet seen it, or a change of something else.
        assert!(breakers.attempt(account, before, false).await.is_none());
        assert!(
            breakers
                .attempt(account, state(3, 11), false)
                .await
                .is_none()
        );
        let renewed = state(4, 12);
        for _ in 0..3 {
            breakers
                .attempt(account, renewed, false)
                .await
                .unwrap()
                .refused(renewed);
        }
        assert!(breakers.attempt(account, renewed, false).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn logins_at_once_leave_an_attempt_for_what_is_newer() {
        let breakers = Breakers::new(3);
        let old = Some(State {
            version: 1,
            credential: digest(10),
        });
        let account = digest(1);
        let first = breakers.attempt(account, old, false).await.unwrap();
        let second = breakers.attempt(account, old, false).await.unwrap();
        assert!(!first.wants_newer() && !second.wants_newer());
        let mut third = Box::pin(breakers.attempt(account, old, false));
        assert!(futures_util::poll!(&mut third).is_pending());
        first.refused(old);
        assert!(futures_util::poll!(&mut third).is_pending());
        second.refused(old);
        let third = third.await.unwrap();
        assert!(third.wants_newer());
        // The others wait for what comes of it.
        let mut again = Box::pin(breakers.attempt(account, old, true));
        assert!(futures_util::poll!(&mut again).is_pending());
        third.accepted();
        assert!(again.await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn somebody_is_told_once() {
        let breakers = Breakers::new(2);
        let refused = async || breakers.ask(STALE).await.unwrap().refused(None);
        assert!(!refused().await);
        assert!(refused().await);
        // Not each hour again, while it goes on.
        tokio::time::advance(REMEMBERED - Duration::from_secs(1)).await;
        assert!(breakers.ask(STALE).await.is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        breakers.ask(STALE).await.unwrap().accepted();
        assert!(!refused().await);
        assert!(refused().await);
    }

    #[tokio::test]
    async fn attempts_at_once_wait_for_the_verdict_on_the_first() {
        let breakers = Breakers::new(3);
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let attempt = || async {
            if let Some(attempt) = breakers.ask(STALE).await {
                asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                tokio::task::yield_now().await;
                attempt.refused(None);
            }
        };
        futures_util::future::join_all((0..50).map(|_| attempt())).await;
        assert_eq!(asked.into_inner(), 3);
    }

    #[tokio::test]
    async fn attempts_that_succeed_or_are_given_up_let_others_in() {
        let breakers = Breakers::new(1);
        let attempt = |accepted: bool| {
            let breakers = &breakers;
            async move {
                let attempt = breakers.ask(NEW).await.unwrap();
                tokio::task::yield_now().await;
                if accepted {
                    attempt.accepted();
                }
            }
        };
        futures_util::future::join_all((0..20).map(|n| attempt(n % 2 == 0))).await;
        assert!(breakers.asked().is_empty());
    }
}
