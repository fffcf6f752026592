//! One request at a time for one thing: whoever comes meanwhile waits, and gets
//! what came of it.

use std::future::Future;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::TokenError;

/// Something that is asked for and kept.
#[derive(Debug)]
pub(super) struct Flight<T> {
    /// Held by who asks.
    failure: Mutex<Option<(Instant, TokenError)>>,
    /// Seen by everybody meanwhile.
    kept: std::sync::Mutex<Option<T>>,
}

impl<T: Clone> Flight<T> {
    pub fn new() -> Self {
        Self {
            failure: Mutex::new(None),
            kept: std::sync::Mutex::new(None),
        }
    }

    /// What is kept, if it is still good, else what `ask` brings. Those who waited
    /// while it failed fail as well, and so does everybody while the server wants to
    /// be left alone. Whoever asks may be dropped at any time.
    pub async fn get(
        &self,
        is_good: impl Fn(&T) -> bool,
        ask: impl Future<Output = Result<T, TokenError>>,
    ) -> Result<T, TokenError> {
        let came = Instant::now();
        let mut failure = self.failure.lock().await;
        if let Some(kept) = self.kept().filter(|kept| is_good(kept)) {
            return Ok(kept);
        }
        if let Some((failed, error)) = &*failure {
            let left = left_alone(*failed, error);
            if *failed >= came || !left.is_zero() {
                return Err(with_retry_after(error.clone(), left));
            }
        }
        match ask.await {
            Ok(got) => {
                *failure = None;
                *self.lock() = Some(got.clone());
                Ok(got)
            }
            Err(error) => {
                *failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// What is kept, good or not.
    pub fn kept(&self) -> Option<T> {
        self.lock().clone()
    }

    /// Whether somebody asks now.
    pub fn is_asking(&self) -> bool {
        self.failure.try_lock().is_err()
    }

    /// Throws away what is kept, if it is `bad`.
    pub fn forget(&self, is_bad: impl Fn(&T) -> bool) {
        self.lock().take_if(|kept| is_bad(kept));
    }

    /// Whether nothing good is kept, and nobody asks.
    pub fn is_idle(&self, is_good: impl Fn(&T) -> bool) -> bool {
        !self.is_asking() && !self.lock().as_ref().is_some_and(is_good)
    }

    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl<T: Clone> Flight<T> {
    /// Makes something else of what is kept.
    pub fn alter(&self, alter: impl Fn(&mut T)) {
        if let Some(kept) = &mut *self.lock() {
            alter(kept);
        }
    }
}

/// How long the server still wants to be left alone.
fn left_alone(failed: Instant, error: &TokenError) -> Duration {
    match error {
        TokenError::Temporary {
            retry_after: Some(wait),
            ..
        } => wait.saturating_sub(failed.elapsed()),
        _ => Duration::ZERO,
    }
}

fn with_retry_after(mut error: TokenError, left: Duration) -> TokenError {
    if let TokenError::Temporary { retry_after, .. } = &mut error {
        *retry_after = retry_after.map(|_| left);
    }
    error
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::oauth2::http::temporary;

    #[tokio::test(start_paused = true)]
    async fn many_ask_once() {
        let flight = Flight::new();
        let asked = AtomicUsize::new(0);
        let ask = || async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(asked.fetch_add(1, Ordering::Relaxed))
        };
        let all = futures_util::future::join_all((0..50).map(|_| flight.get(|_| true, ask())));
        assert!(all.await.into_iter().all(|it| it == Ok(0)));
        // It is no longer good.
        assert_eq!(flight.get(|it| *it > 0, ask()).await, Ok(1));
        flight.forget(|it| *it == 0);
        assert_eq!(flight.get(|_| true, ask()).await, Ok(1));
        flight.forget(|it| *it == 1);
        assert_eq!(flight.get(|_| true, ask()).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_waited_fail_together_and_the_next_one_asks() {
        let flight = Flight::<usize>::new();
        let asked = AtomicUsize::new(0);
        let ask = || async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            asked.fetch_add(1, Ordering::Relaxed);
            Err(temporary("down"))
        };
        let all = futures_util::future::join_all((0..50).map(|_| flight.get(|_| true, ask())));
        assert!(all.await.into_iter().all(|it| it == Err(temporary("down"))));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let _ = flight.get(|_| true, ask()).await;
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_wants_to_be_left_alone_is() {
        let flight = Flight::new();
        let busy = |seconds| TokenError::Temporary {
            reason: "busy".into(),
            retry_after: Some(Duration::from_secs(seconds)),
        };
        let refuse = async { Err(busy(30)) };
        assert_eq!(flight.get(|_| true, refuse).await, Err(busy(30)));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(flight.get(|_| true, async { Ok(1) }).await, Err(busy(20)));
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(flight.get(|_| true, async { Ok(1) }).await, Ok(1));
    }

    #[tokio::test]
    async fn what_is_kept_is_there_while_somebody_asks() {
        let flight = Flight::new();
        assert_eq!(flight.get(|_| true, async { Ok(1) }).await, Ok(1));
        assert!(!flight.is_asking());
        let mut asks = Box::pin(flight.get(|_| false, std::future::pending()));
        assert!(futures_util::poll!(asks.as_mut()).is_pending());
        assert!(flight.is_asking());
        assert_eq!(flight.kept(), Some(1));
        drop(asks);
        assert!(!flight.is_asking());
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_may_be_dropped() {
        let flight = Flight::new();
        let never = flight.get(|_| true, std::future::pending());
        let dropped = tokio::time::timeout(Duration::from_secs(1), never).await;
        assert!(dropped.is_err());
        assert!(flight.is_idle(|_| true));
        assert_eq!(flight.get(|_| true, async { Ok(1) }).await, Ok(1));
        assert!(!flight.is_idle(|_| true));
    }
}
