//! What stands between guesses and the upstream: delays after failures, and a
//! memory of credentials that the upstream has refused.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ring::hmac;
use ring::rand::SystemRandom;
use tokio::time::Instant;

use crate::sasl::Credentials;

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

/// Names credentials without holding them: keyed anew in each process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Digest([u8; 32]);

/// Failed logins, by address and by credentials.
#[derive(Debug)]
pub(super) struct Guard {
    key: hmac::Key,
    most_refusals: u32,
    addresses: Mutex<HashMap<IpAddr, Failures>>,
    refused: Mutex<HashMap<Digest, Refused>>,
}

#[derive(Debug)]
struct Failures {
    count: usize,
    last: Instant,
    recent: VecDeque<Digest>,
}

#[derive(Debug)]
struct Refused {
    times: u32,
    since: Instant,
}

impl Guard {
    /// A guard that lets the upstream refuse the same credentials so many times
    /// an hour.
    pub fn new(most_refusals: u32) -> Result<Self, ring::error::Unspecified> {
        Ok(Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?,
            most_refusals,
            addresses: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    /// The digest of credentials.
    pub fn digest(&self, credentials: &Credentials) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        let mut field = |text: &str| {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        };
        match credentials {
            Credentials::Password {
                user,
                authorize_as,
                password,
            } => {
                field("password");
                field(user);
                field(authorize_as.as_deref().unwrap_or_default());
                field(password.reveal());
            }
            Credentials::Bearer { user, token } => {
                field("bearer");
                field(user);
                field(token.reveal());
            }
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        Digest(digest)
    }

    /// Whether the upstream has refused these credentials so often that it is
    /// not asked again for a while.
    pub fn is_refused(&self, digest: &Digest) -> bool {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused
            .get(digest)
            .is_some_and(|it| it.times >= self.most_refusals && it.since.elapsed() < REMEMBERED)
    }

    /// The upstream refused these credentials.
    pub fn remember_refusal(&self, digest: Digest) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= MOST {
            refused.retain(|_, it| it.since.elapsed() < REMEMBERED);
            if refused.len() >= MOST {
                refused.clear();
            }
        }
        let fresh = Refused {
            times: 0,
            since: Instant::now(),
        };
        let entry = refused.entry(digest).or_insert(fresh);
        if entry.since.elapsed() >= REMEMBERED {
            *entry = Refused {
                times: 0,
                since: Instant::now(),
            };
        }
        entry.times += 1;
    }

    /// The upstream accepted these credentials.
    pub fn forget_refusal(&self, digest: &Digest) {
        self.refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(digest);
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
            assert!(!guard.is_refused(&stale));
            guard.remember_refusal(stale);
        }
        assert!(guard.is_refused(&stale));
        assert!(!guard.is_refused(&guard.digest(&password("alice", "new"))));
        tokio::time::advance(REMEMBERED).await;
        assert!(!guard.is_refused(&stale));
    }

    #[test]
    fn digests_do_not_run_fields_together() {
        let guard = Guard::new(3).unwrap();
        let one = guard.digest(&password("ab", "c"));
        assert_ne!(one, guard.digest(&password("a", "bc")));
        assert_eq!(one, guard.digest(&password("ab", "c")));
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
