//! HTTP clients at rest between the sessions of an account: their connections
//! serve the next login with the same credentials, and no other. A client holds
//! no secret; each request shows the credentials anew, and is judged by the
//! server.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::metrics::{Counted, Metrics};
use crate::sasl::{Credentials, Digest, DigestKey};
use crate::upstream::Rest;

/// Credentials whose poll interval is known; beyond that all are forgotten.
const MOST_POLLS: usize = 10_000;

/// The clients at rest, in the order in which they came to it.
#[derive(Default)]
pub(super) struct Resting(Arc<Mutex<Inner>>);

struct Inner {
    /// None without randomness: then nothing rests.
    key: Option<DigestKey>,
    clients: VecDeque<Rested>,
    connections: usize,
    polls: HashMap<Digest, Poll>,
}

struct Rested {
    whose: Digest,
    account: String,
    client: reqwest::Client,
    counted: Vec<Counted>,
    /// Ends the rest.
    _timer: AbortOnDropHandle<()>,
    number: u64,
}

/// When the credentials were last used, and how long after the time before.
#[derive(Clone, Copy)]
struct Poll {
    last: Instant,
    interval: Option<Duration>,
    number: u64,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            key: DigestKey::generate().ok(),
            clients: VecDeque::new(),
            connections: 0,
            polls: HashMap::new(),
        }
    }
}

impl std::fmt::Debug for Resting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resting").finish_non_exhaustive()
    }
}

fn lock(inner: &Mutex<Inner>) -> std::sync::MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Resting {
    /// What stands for credentials here.
    pub fn whose(&self, credentials: &Credentials) -> Option<Digest> {
        let key = &lock(&self.0).key;
        key.as_ref().map(|key| key.credentials(credentials))
    }

    /// A login: the client that rests for these credentials, if there is one.
    pub fn take(&self, whose: Digest) -> Option<reqwest::Client> {
        let mut inner = lock(&self.0);
        inner.note_poll(whose);
        let place = inner.clients.iter().position(|it| it.whose == whose)?;
        inner.remove(place).map(|rested| rested.client)
    }

    /// Lets a client rest, with so many connections, after a session of the
    /// account. Those least recently used make room.
    pub fn put(
        &self,
        whose: Digest,
        account: &str,
        (client, connections): (reqwest::Client, usize),
        (rest, metrics): (Rest, &Metrics),
    ) {
        let mut inner = lock(&self.0);
        let Some(period) = inner.period(whose, rest) else {
            return;
        };
        // One client for the same credentials is enough: the last one.
        inner.remove_where(|it| it.whose == whose);
        if connections == 0 || connections > rest.per_account.min(rest.most) {
            return;
        }
        let of_account = |it: &Rested| it.account == account;
        while inner.count(of_account) + connections > rest.per_account {
            inner.remove_first(of_account);
        }
        while inner.connections + connections > rest.most {
            inner.remove_first(|_| true);
        }
        let number = inner.polls.get(&whose).map_or(0, |poll| poll.number);
        let timer = tokio::spawn(end_of_rest(Arc::downgrade(&self.0), whose, number, period));
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

async fn end_of_rest(inner: Weak<Mutex<Inner>>, whose: Digest, number: u64, period: Duration) {
    tokio::time::sleep(period).await;
    if let Some(inner) = inner.upgrade() {
        lock(&inner).remove_where(|it| it.whose == whose && it.number == number);
    }
}

impl Inner {
    fn note_poll(&mut self, whose: Digest) {
        if self.polls.len() >= MOST_POLLS && !self.polls.contains_key(&whose) {
            self.polls.clear();
        }
        let now = Instant::now();
        self.polls
            .entry(whose)
            .and_modify(|poll| {
                poll.interval = Some(now.duration_since(poll.last));
                poll.last = now;
                poll.number += 1;
            })
            .or_insert(Poll {
                last: now,
                interval: None,
                number: 0,
            });
    }

    /// How long connections of these credentials rest: until the next login is
    /// well overdue. None where they would not live to see it.
    fn period(&self, whose: Digest, rest: Rest) -> Option<Duration> {
        const GRACE: Duration = Duration::from_secs(60);
        let interval = self.polls.get(&whose).and_then(|poll| poll.interval);
        match interval {
            _ if rest.longest.is_zero() => None,
            Some(interval) if interval > rest.longest => None,
            Some(interval) => Some((interval + interval / 2 + GRACE).min(rest.longest)),
            None => Some(rest.longest),
        }
    }

    fn count(&self, of: impl Fn(&Rested) -> bool) -> usize {
        let those = self.clients.iter().filter(|it| of(it));
        those.map(|it| it.counted.len()).sum()
    }

    fn remove(&mut self, place: usize) -> Option<Rested> {
        let rested = self.clients.remove(place)?;
        self.connections -= rested.counted.len();
        Some(rested)
    }

    fn remove_first(&mut self, which: impl Fn(&Rested) -> bool) {
        if let Some(place) = self.clients.iter().position(which) {
            self.remove(place);
        }
    }

    fn remove_where(&mut self, which: impl Fn(&Rested) -> bool) {
        while let Some(place) = self.clients.iter().position(&which) {
            self.remove(place);
        }
    }
}
