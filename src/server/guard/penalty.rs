//! How long the answers to failures wait: longer from one to the next, by the
//! client's address and by the user it asks for.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::network::network;
use crate::sasl::Digest;

/// Delays of the answer to the first, second … failure.
const DELAYS: [Duration; 4] = [
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
];
/// After so long without a failure everything begins anew.
const FORGIVEN: Duration = Duration::from_secs(29);
/// So many of the last credentials count once: a client that repeats one stale
/// password is no guesser.
const REPEATED: usize = 10;
/// Addresses, and users, that are remembered.
const MOST: usize = 20_000;

/// Failures that are not forgiven yet. What it knows of users it knows of those
/// that do not exist, too.
#[derive(Debug, Default)]
pub(super) struct Penalties {
    addresses: Mutex<HashMap<IpAddr, Failures>>,
    users: Mutex<HashMap<Digest, Failures>>,
}

#[derive(Debug)]
struct Failures {
    count: usize,
    last: Instant,
    recent: VecDeque<Digest>,
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Penalty {
    /// How long its answer waits.
    pub delay: Duration,
    /// The same address has shown the same credentials lately.
    pub is_repeated: bool,
}

impl Penalties {
    /// A login from `address` as `user` failed.
    pub fn failed(&self, address: IpAddr, user: Digest, credentials: Digest) -> Penalty {
        let (of_address, is_repeated) = note(&self.addresses, network(address), credentials);
        let (of_user, _) = note(&self.users, user, credentials);
        Penalty {
            delay: of_address.max(of_user),
            is_repeated,
        }
    }
}

/// Counts a failure. How long its answer waits, and whether it is one of the last
/// once more.
fn note<K: Eq + Hash>(
    all: &Mutex<HashMap<K, Failures>>,
    whose: K,
    credentials: Digest,
) -> (Duration, bool) {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    if all.len() >= MOST && !all.contains_key(&whose) {
        make_room(&mut all);
    }
    let failures = all.entry(whose).or_insert_with(|| Failures {
        count: 0,
        last: now,
        recent: VecDeque::new(),
    });
    if now.saturating_duration_since(failures.last) >= FORGIVEN {
        failures.count = 0;
        failures.recent.clear();
    }
    failures.last = now;
    let is_repeated = failures.recent.contains(&credentials);
    if !is_repeated {
        failures.count = failures.count.saturating_add(1);
        if failures.recent.len() == REPEATED {
            failures.recent.pop_front();
        }
        failures.recent.push_back(credentials);
    }
    let step = failures.count.clamp(1, DELAYS.len()) - 1;
    let delay = DELAYS.get(step).copied().unwrap_or_default();
    (delay, is_repeated)
}

/// Forgets what is forgiven, or else the older half: that is cheap, however many
/// come.
fn make_room<K: Eq + Hash>(all: &mut HashMap<K, Failures>) {
    all.retain(|_, it| it.last.elapsed() < FORGIVEN);
    if all.len() < MOST {
        return;
    }
    let mut times: Vec<Instant> = all.values().map(|it| it.last).collect();
    let half = times.len() / 2;
    let (_, middle, _) = times.select_nth_unstable(half);
    let middle = *middle;
    all.retain(|_, it| it.last > middle);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u32) -> Digest {
        let mut octets = [0; 32];
        octets[..4].copy_from_slice(&number.to_be_bytes());
        Digest::of(octets)
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[tokio::test(start_paused = true)]
    async fn delays_grow_with_other_guesses_and_are_forgiven() {
        let penalties = Penalties::default();
        let delay = |guess| {
            let penalty = penalties.failed(address(1), digest(0), digest(guess));
            penalty.delay.as_secs()
        };
        assert_eq!([1, 2, 3, 4, 5].map(delay), [2, 4, 8, 15, 15]);
        tokio::time::advance(FORGIVEN).await;
        assert_eq!([1, 1, 1].map(delay), [2, 2, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_at_one_user_are_slow_wherever_they_come_from() {
        let penalties = Penalties::default();
        let delay = |from, user, guess| {
            let penalty = penalties.failed(address(from), digest(user), digest(guess));
            penalty.delay.as_secs()
        };
        let guesses = [
            delay(1, 0, 1),
            delay(2, 0, 2),
            delay(3, 0, 3),
            delay(4, 0, 4),
        ];
        assert_eq!(guesses, [2, 4, 8, 15]);
        // Somebody else is not slower for it.
        assert_eq!(delay(5, 7, 1), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_wrong_password_counts_once() {
        let penalties = Penalties::default();
        for repeated in [false, true, true] {
            let penalty = penalties.failed(address(1), digest(0), digest(1));
            assert_eq!(penalty.delay.as_secs(), 2);
            assert_eq!(penalty.is_repeated, repeated);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let penalties = Penalties::default();
        for number in 0..u32::try_from(MOST).unwrap() + 10 {
            tokio::time::advance(Duration::from_micros(1)).await;
            penalties.failed(address(1), digest(number), digest(0));
        }
        let users = penalties.users.lock().unwrap().len();
        assert!(users <= MOST / 2 + 10, "{users}");
        // Those that were guessed at last are still known.
        let last = u32::try_from(MOST).unwrap();
        assert!(penalties.users.lock().unwrap().contains_key(&digest(last)));
    }
}
