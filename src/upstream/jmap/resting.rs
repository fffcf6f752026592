//! HTTP clients at rest between the sessions of an account: their connections
//! serve the next login with the same credentials, and no other. A client holds
//! no secret; each request shows the credentials anew, and is judged by the
//! server.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::metrics::{Counted, Metrics};
use crate::sasl::{Credentials, Digest, DigestKey};
use crate::upstream::Rest;
use crate::upstream::habits::Habits;

/// The clients at rest, in the order in which they came to it.
pub(super) struct Resting<T = reqwest::Client>(Arc<Mutex<Inner<T>>>);

struct Inner<T> {
    /// None without randomness: then nothing rests.
    key: Option<DigestKey>,
    clients: VecDeque<Rested<T>>,
    connections: usize,
    /// By credentials.
    habits: Habits,
    last_number: u64,
}

struct Rested<T> {
    whose: Digest,
    account: String,
    client: T,
    counted: Vec<Counted>,
    /// Ends the rest.
    _timer: AbortOnDropHandle<()>,
    number: u64,
}

impl<T> Default for Resting<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Default for Inner<T> {
    fn default() -> Self {
        Self {
            key: DigestKey::generate().ok(),
            clients: VecDeque::new(),
            connections: 0,
            habits: Habits::default(),
            last_number: 0,
        }
    }
}

impl<T> std::fmt::Debug for Resting<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resting").finish_non_exhaustive()
    }
}

fn lock<T>(inner: &Mutex<Inner<T>>) -> MutexGuard<'_, Inner<T>> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Send + 'static> Resting<T> {
    /// What stands for credentials here.
    pub fn whose(&self, credentials: &Credentials) -> Option<Digest> {
        let key = &lock(&self.0).key;
        key.as_ref().map(|key| key.credentials(credentials))
    }

    /// A login: the client that rests for these credentials, if there is one.
    pub fn take(&self, whose: Digest) -> Option<T> {
        let mut inner = lock(&self.0);
        inner.habits.logged_in(whose, Instant::now());
        let place = inner.clients.iter().position(|it| it.whose == whose)?;
        inner.remove(place).map(|rested| rested.client)
    }

    /// Lets a client rest, with so many connections, after a session of the
    /// account. Those least recently used make room.
    pub fn put(
        &self,
        whose: Digest,
        account: &str,
        (client, connections): (T, usize),
        (rest, metrics): (Rest, &Metrics),
    ) {
        let mut inner = lock(&self.0);
        let now = Instant::now();
        let plan = inner.habits.plan(whose, rest.longest, now);
        let Some(plan) = plan.filter(|plan| plan.until > now) else {
            return;
        };
        // One client for the same credentials is enough: the last one.
        inner.remove_where(|it| it.whose == whose);
        if connections == 0 || connections > rest.per_account.min(rest.most) {
            return;
        }
        let of_account = |it: &Rested<T>| it.account == account;
        while inner.count(of_account) + connections > rest.per_account {
            inner.remove_first(of_account);
        }
        while inner.connections + connections > rest.most {
            inner.remove_first(|_| true);
        }
        inner.last_number += 1;
        let number = inner.last_number;
        let timer = tokio::spawn(end_of_rest(Arc::downgrade(&self.0), number, plan.until));
        inner.connections += connections;
        inner.clients.push_back(Rested {
            whose,
            account: account.to_owned(),
            client,
            counted: (0..connections)
                .map(|_| Counted::new(&metrics.upstream_resting))
                .collect(),
            _timer: AbortOnDropHandle::new(timer),
            number,
        });
    }
}

async fn end_of_rest<T>(inner: Weak<Mutex<Inner<T>>>, number: u64, until: Instant) {
    sleep_until(until).await;
    if let Some(inner) = inner.upgrade() {
        lock(&inner).remove_where(|it| it.number == number);
    }
}

impl<T> Inner<T> {
    fn count(&self, of: impl Fn(&Rested<T>) -> bool) -> usize {
        let those = self.clients.iter().filter(|it| of(it));
        those.map(|it| it.counted.len()).sum()
    }

    fn remove(&mut self, place: usize) -> Option<Rested<T>> {
        let rested = self.clients.remove(place)?;
        self.connections -= rested.counted.len();
        Some(rested)
    }

    fn remove_first(&mut self, which: impl Fn(&Rested<T>) -> bool) {
        if let Some(place) = self.clients.iter().position(which) {
            self.remove(place);
        }
    }

    fn remove_where(&mut self, which: impl Fn(&Rested<T>) -> bool) {
        while let Some(place) = self.clients.iter().position(&which) {
            self.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const REST: Rest = Rest {
        longest: Duration::from_secs(900),
        most: 5,
        per_account: 3,
    };

    struct Rig {
        resting: Resting<&'static str>,
        metrics: Metrics,
    }

    impl Rig {
        fn new() -> Self {
            Self {
                resting: Resting::default(),
                metrics: Metrics::default(),
            }
        }

        fn whose(&self, account: &str, password: &str) -> Digest {
            let credentials = Credentials::password(account, password).unwrap();
            self.resting.whose(&credentials).unwrap()
        }

        fn put(&self, account: &str, password: &str, client: &'static str, connections: usize) {
            let whose = self.whose(account, password);
            let terms = (REST, &self.metrics);
            self.resting
                .put(whose, account, (client, connections), terms);
        }

        fn take(&self, account: &str, password: &str) -> Option<&'static str> {
            self.resting.take(self.whose(account, password))
        }

        fn count(&self) -> i64 {
            self.metrics.upstream_resting.get()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_same_credentials_get_what_rests() {
        let rig = Rig::new();
        rig.put("alice", "pw", "a", 2);
        assert_eq!(rig.count(), 2);
        assert_eq!(rig.take("alice", "other"), None);
        assert_eq!(rig.take("bob", "pw"), None);
        assert_eq!(rig.take("alice", "pw"), Some("a"));
        assert_eq!((rig.take("alice", "pw"), rig.count()), (None, 0));
        // The last one of several.
        rig.put("alice", "pw", "b", 1);
        rig.put("alice", "pw", "c", 1);
        assert_eq!((rig.count(), rig.take("alice", "pw")), (1, Some("c")));
    }

    #[tokio::test(start_paused = true)]
    async fn those_least_recently_used_make_room() {
        let rig = Rig::new();
        rig.put("alice", "one", "a1", 2);
        rig.put("bob", "pw", "b", 2);
        rig.put("alice", "two", "a2", 2);
        assert_eq!(rig.take("alice", "one"), None, "three of an account");
        rig.put("carol", "pw", "c", 3);
        assert_eq!(rig.take("bob", "pw"), None, "five in all");
        assert_eq!(rig.count(), 5);
        rig.put("dave", "pw", "d", 4);
        assert_eq!(rig.take("dave", "pw"), None, "too many of its own");
        assert_eq!(rig.take("alice", "two"), Some("a2"));
        assert_eq!(rig.take("carol", "pw"), Some("c"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_is_as_long_as_the_next_login_may_be_waited_for() {
        let rig = Rig::new();
        let pass = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        // Nothing is known yet.
        rig.take("alice", "pw");
        rig.put("alice", "pw", "a", 1);
        pass(359).await;
        assert_eq!(rig.count(), 1);
        pass(2).await;
        assert_eq!(rig.count(), 0);
        // Later than anything rests: it is not tried again.
        pass(600).await;
        assert_eq!(rig.take("alice", "pw"), None);
        rig.put("alice", "pw", "a", 1);
        assert_eq!(rig.count(), 0);
        // Every minute: well overdue after two.
        pass(60).await;
        rig.take("alice", "pw");
        rig.put("alice", "pw", "a", 1);
        pass(119).await;
        assert_eq!(rig.count(), 1);
        pass(2).await;
        assert_eq!(rig.count(), 0);
    }
}
