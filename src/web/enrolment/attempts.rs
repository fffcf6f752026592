//! Limits on guessing, and on what costs a provider something. Failures are
//! answered late; nobody is locked out.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::session::{Digest, sha256};

/// How late the first failures are answered, and each further one.
const DELAYS: [Duration; 4] = [
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
];

/// Failures without another one for so long are forgotten.
const FORGOTTEN: Duration = Duration::from_secs(29);

/// What is counted against an address within a minute, before it is refused.
const MOST_IN_A_MINUTE: u32 = 20;

const MINUTE: Duration = Duration::from_secs(60);

/// Wrong guesses that are remembered: each of them counts once.
const REMEMBERED: usize = 10;

/// Rows; the oldest goes when there are more.
const MOST: usize = 20_000;

/// Answers that are held back at once, for one address.
const HELD_BACK: u32 = 4;

/// Whose attempts they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    /// Somebody's at this address: a whole IPv4 address, or a /64.
    Address(IpAddr),
    /// At this account, whether it exists or not.
    Account(Digest),
}

impl Whose {
    pub(super) fn address(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => {
                let network = address.to_bits() >> 64 << 64;
                std::net::Ipv6Addr::from_bits(network).into()
            }
        })
    }

    pub(super) fn account(address: &str) -> Self {
        Self::Account(sha256(address.as_bytes()))
    }

    /// A reverse proxy, or the host itself: many people, so that a limit would
    /// lock them out.
    fn is_everybody(self) -> bool {
        matches!(self, Self::Address(address) if address.is_loopback())
    }
}

#[derive(Debug)]
struct Row {
    failures: usize,
    guesses: VecDeque<Digest>,
    /// Of the last failure.
    failed: Instant,
    counted: u32,
    since: Instant,
    last: Instant,
    held_back: u32,
}

/// Attempts of late.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<HashMap<Whose, Row>>);

impl Attempts {
    fn rows(&self) -> MutexGuard<'_, HashMap<Whose, Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more of what costs something. `false`: that is too many in this
    /// minute.
    pub(super) fn count(&self, whose: Whose) -> bool {
        let mut rows = self.rows();
        let row = row(&mut rows, whose);
        let now = Instant::now();
        if now.duration_since(row.since) >= MINUTE {
            (row.since, row.counted) = (now, 0);
        }
        row.last = now;
        row.counted = row.counted.saturating_add(1);
        whose.is_everybody() || row.counted <= MOST_IN_A_MINUTE
    }

    /// Counts a failure, and says how late it is to be answered. The same wrong
    /// guess counts once.
    pub(super) fn failed(&self, whose: &[Whose], guess: Digest) -> Duration {
        let mut rows = self.rows();
        let mut longest = DELAYS[0];
        for whose in whose {
            let row = row(&mut rows, *whose);
            let now = Instant::now();
            if now.duration_since(row.failed) >= FORGOTTEN {
                row.failures = 0;
            }
            (row.failed, row.last) = (now, now);
            if !row.guesses.contains(&guess) {
                row.guesses.push_back(guess);
                if row.guesses.len() > REMEMBERED {
                    row.guesses.pop_front();
                }
                row.failures += 1;
            }
            let step = row.failures.saturating_sub(1).min(DELAYS.len() - 1);
            longest = longest.max(DELAYS[step]);
        }
        longest
    }

    /// Waits before a failure is answered. `false`: so many answers are held back
    /// for this address that it has to be answered at once, with a refusal.
    pub(super) async fn hold_back(&self, whose: Whose, delay: Duration) -> bool {
        {
            let mut rows = self.rows();
            let row = row(&mut rows, whose);
            if row.held_back >= HELD_BACK && !whose.is_everybody() {
                return false;
            }
            row.held_back += 1;
        }
        let _held = Held { of: self, whose };
        tokio::time::sleep(delay).await;
        true
    }
}

/// An answer that is held back, until it is dropped.
struct Held<'a> {
    of: &'a Attempts,
    whose: Whose,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(row) = self.of.rows().get_mut(&self.whose) {
            row.held_back = row.held_back.saturating_sub(1);
        }
    }
}

fn row(rows: &mut HashMap<Whose, Row>, whose: Whose) -> &mut Row {
    let now = Instant::now();
    if rows.len() >= MOST && !rows.contains_key(&whose) {
        rows.retain(|_, row| row.held_back > 0 || row.last.elapsed() < MINUTE);
        if rows.len() >= MOST {
            let oldest = rows.iter().min_by_key(|(_, row)| row.last);
            if let Some(whose) = oldest.map(|(whose, _)| *whose) {
                rows.remove(&whose);
            }
        }
    }
    rows.entry(whose).or_insert_with(|| Row {
        failures: 0,
        guesses: VecDeque::new(),
        failed: now,
        counted: 0,
        since: now,
        last: now,
        held_back: 0,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn of(address: &str) -> Whose {
        Whose::address(address.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn each_new_wrong_guess_is_answered_later_and_the_same_one_counts_once() {
        let attempts = Attempts::default();
        let mine = [of("192.0.2.1")];
        let seconds = |guess: &str| attempts.failed(&mine, sha256(guess.as_bytes())).as_secs();
        assert_eq!([seconds("a"), seconds("a"), seconds("a")], [2, 2, 2]);
        let more = [
            seconds("b"),
            seconds("c"),
            seconds("d"),
            seconds("e"),
            seconds("a"),
        ];
        assert_eq!(more, [4, 8, 15, 15, 15]);
        tokio::time::advance(FORGOTTEN).await;
        // Whatever is tried is counted first, and is no failure yet.
        assert!(attempts.count(mine[0]));
        assert_eq!(seconds("f"), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_at_one_account_from_everywhere_are_one_row() {
        let attempts = Attempts::default();
        let delay = |number: u8| {
            let from = Whose::address([198, 51, 100, number].into());
            let whose = [from, Whose::account("a@example.com")];
            attempts.failed(&whose, sha256(&[number])).as_secs()
        };
        assert_eq!([delay(1), delay(2), delay(3)], [2, 4, 8]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_refused_for_the_rest_of_the_minute() {
        let attempts = Attempts::default();
        for _ in 0..MOST_IN_A_MINUTE {
            assert!(attempts.count(of("2001:db8::1")));
        }
        assert!(!attempts.count(of("2001:db8::2")), "the same network");
        assert!(attempts.count(of("2001:db8:0:1::1")));
        tokio::time::advance(MINUTE).await;
        assert!(attempts.count(of("2001:db8::1")));
        for _ in 0..10 * MOST_IN_A_MINUTE {
            assert!(attempts.count(of("::ffff:127.0.0.1")), "a proxy's");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn few_answers_are_held_back_for_one_address() {
        let attempts = Attempts::default();
        let hold = |address| attempts.hold_back(of(address), DELAYS[3]);
        let mut held = Vec::new();
        for _ in 0..HELD_BACK {
            held.push(Box::pin(hold("192.0.2.1")));
        }
        for wait in &mut held {
            assert!(futures_util::poll!(wait.as_mut()).is_pending());
        }
        assert!(!hold("192.0.2.1").await);
        assert!(hold("192.0.2.2").await);
        held.clear();
        assert!(hold("192.0.2.1").await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded() {
        let attempts = Attempts::default();
        for number in 0..=MOST {
            attempts.count(Whose::account(&number.to_string()));
        }
        assert!(attempts.rows().len() <= MOST);
    }
}
