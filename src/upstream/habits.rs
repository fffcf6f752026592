//! When accounts log in, so that a connection rests for as long as it is of use.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::sasl::Digest;

/// Accounts that are remembered.
const MOST: usize = 10_000;
/// The rest of a connection whose account is not known yet.
const UNKNOWN: Duration = Duration::from_secs(6 * 60);
/// The last times between logins that are known of an account.
const GAPS: usize = 3;
/// Of these, so many decide how long its connection rests.
const PLANNED_BY: usize = 2;
/// What times may differ by that count as one and the same: this, and one part in
/// so many.
const JITTER: (Duration, u32) = (Duration::from_millis(20), 16);
/// So many logins within a second, of all accounts together, are a load that leaves
/// no time to ask.
const BUSY: u32 = 300;
/// For a client that is late.
const LATE: Duration = Duration::from_secs(30);

/// The last logins of accounts.
#[derive(Debug, Default)]
pub(super) struct Habits {
    accounts: HashMap<Digest, Habit>,
    load: Option<Load>,
}

/// Logins of all accounts, second by second.
#[derive(Clone, Copy, Debug)]
struct Load {
    since: Instant,
    logins: u32,
    before: u32,
}

impl Load {
    fn new(since: Instant, before: u32) -> Self {
        let logins = 0;
        Self {
            since,
            logins,
            before,
        }
    }

    /// Takes in a login.
    fn count(&mut self, now: Instant) {
        const SECOND: Duration = Duration::from_secs(1);
        let passed = now.saturating_duration_since(self.since);
        if passed >= SECOND {
            let before = if passed < 2 * SECOND { self.logins } else { 0 };
            *self = Self::new(now, before);
        }
        self.logins += 1;
    }

    /// Whether the last logins were many.
    fn is_high(&self) -> bool {
        self.logins.max(self.before) >= BUSY
    }
}

#[derive(Debug)]
struct Habit {
    last: Instant,
    /// Between the last logins: the last time first.
    gaps: [Option<Duration>; GAPS],
}

/// How a login comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It may be somebody who waits for a message that he knows of.
    Unexpected,
    /// When it was to be expected: it is a program that polls.
    Regular,
    /// Many log in each second: then what the server need not be asked counts for
    /// more.
    OfMany,
}

/// What becomes of a connection that rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// When the next login is expected, where the account has a habit.
    pub expected: Option<Instant>,
    /// When it logs out.
    pub until: Instant,
}

impl Habit {
    /// Whether the last logins came at the same intervals.
    fn is_regular(&self) -> bool {
        let [Some(one), Some(other), Some(third)] = self.gaps else {
            return false;
        };
        let (longest, shortest) = (one.max(other).max(third), one.min(other).min(third));
        let (jitter, part) = JITTER;
        longest - shortest <= jitter + longest / part
    }
}

impl Habits {
    /// An account logs in.
    pub fn logged_in(&mut self, account: Digest, now: Instant) -> Turn {
        self.load
            .get_or_insert_with(|| Load::new(now, 0))
            .count(now);
        match self.note(account, now) {
            _ if self.is_busy() => Turn::OfMany,
            true => Turn::Regular,
            false => Turn::Unexpected,
        }
    }

    /// Whether many have logged in within a second, as of the last login.
    pub fn is_busy(&self) -> bool {
        self.load.is_some_and(|load| load.is_high())
    }

    /// Notes a login. Whether it comes as those before it did.
    fn note(&mut self, account: Digest, now: Instant) -> bool {
        if let Some(habit) = self.accounts.get_mut(&account) {
            let gap = now.saturating_duration_since(habit.last);
            let [first, second, _] = habit.gaps;
            habit.gaps = [Some(gap), first, second];
            habit.last = now;
            return habit.is_regular();
        }
        if self.accounts.len() >= MOST {
            // Half of them at a time: that is cheap, however many come.
            let mut times: Vec<Instant> = self.accounts.values().map(|habit| habit.last).collect();
            let (_, middle, _) = times.select_nth_unstable(MOST / 2);
            let middle = *middle;
            self.accounts.retain(|_, habit| habit.last > middle);
        }
        let gaps = [None; GAPS];
        self.accounts.insert(account, Habit { last: now, gaps });
        false
    }

    /// What becomes of a connection of this account, going by the last two gaps
    /// between its logins: a client may log in twice in a row, and be off at
    /// night. `None`: it comes too seldom.
    pub fn plan(&self, account: Digest, longest: Duration, now: Instant) -> Option<Plan> {
        let habit = self.accounts.get(&account);
        let gaps = habit.map_or([None; GAPS], |habit| habit.gaps);
        let mut known = gaps.into_iter().take(PLANNED_BY).flatten().peekable();
        if known.peek().is_none() {
            return Some(Plan {
                expected: None,
                until: now + UNKNOWN.min(longest),
            });
        }
        let gap = known.filter(|gap| *gap <= longest).max()?;
        Some(Plan {
            expected: habit.map(|habit| habit.last + gap),
            until: now + (gap + gap / 2 + LATE).min(longest),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(15 * 60);

    fn digest(number: u32) -> Digest {
        let mut octets = [0; 32];
        octets[..4].copy_from_slice(&number.to_be_bytes());
        Digest::of(octets)
    }

    /// Logs in after each of these gaps, in seconds; the rest then, and how long
    /// until the next login.
    fn rest_behind(gaps: &[u64]) -> Option<(u64, Option<u64>)> {
        let (mut habits, mut now) = (Habits::default(), Instant::now());
        let account = digest(1);
        habits.logged_in(account, now);
        for gap in gaps {
            now += Duration::from_secs(*gap);
            habits.logged_in(account, now);
        }
        let plan = habits.plan(account, LONGEST, now)?;
        let from_now = |at: Instant| at.duration_since(now).as_secs();
        Some((from_now(plan.until), plan.expected.map(from_now)))
    }

    #[test]
    fn a_rest_reaches_beyond_the_next_login() {
        assert_eq!(rest_behind(&[]), Some((360, None)));
        assert_eq!(rest_behind(&[300]), Some((480, Some(300))));
        assert_eq!(rest_behind(&[300, 300]), Some((480, Some(300))));
        assert_eq!(rest_behind(&[0]), Some((30, Some(0))));
        assert_eq!(rest_behind(&[900]), Some((900, Some(900))));
    }

    #[test]
    fn who_comes_too_seldom_does_not_rest() {
        assert_eq!(rest_behind(&[901]), None);
        assert_eq!(rest_behind(&[300, 3600, 3600]), None);
    }

    #[test]
    fn a_login_twice_in_a_row_and_a_night_are_no_habit() {
        assert_eq!(rest_behind(&[300, 2]), Some((480, Some(300))));
        assert_eq!(rest_behind(&[300, 8 * 3600]), Some((480, Some(300))));
    }

    #[test]
    fn regular_polls_are_told_from_logins_out_of_turn() {
        let last_is_expected = |gaps: &[u64]| {
            let (mut habits, mut now) = (Habits::default(), Instant::now());
            let account = digest(1);
            let mut turn = habits.logged_in(account, now);
            for gap in gaps {
                now += Duration::from_millis(*gap);
                turn = habits.logged_in(account, now);
            }
            turn == Turn::Regular
        };
        for regular in [
            &[1000, 1000, 1000][..],
            &[800, 830, 860],
            &[300_000, 310_000, 318_000],
            &[5, 300_000, 300_000, 300_000],
        ] {
            assert!(last_is_expected(regular), "{regular:?}");
        }
        for irregular in [
            &[][..],
            &[1000],
            &[1000, 1000],
            &[1000, 1000, 900],
            &[1000, 1000, 1100],
            &[300_000, 300_000, 20_000],
            &[300_000, 300_000, 400_000],
            &[120_000, 180_000, 120_000],
            &[300_000, 300_000, 300_000, 5, 300_000],
        ] {
            assert!(!last_is_expected(irregular), "{irregular:?}");
        }
    }

    #[test]
    fn where_many_log_in_nobody_is_out_of_turn() {
        let (mut habits, now) = (Habits::default(), Instant::now());
        let login = |habits: &mut Habits, number: u32, now| {
            habits.logged_in(digest(number), now) == Turn::OfMany
        };
        assert!((1..BUSY).all(|number| !login(&mut habits, number, now)));
        assert!(login(&mut habits, BUSY, now));
        let next = now + Duration::from_millis(1500);
        assert!(login(&mut habits, 0, next));
        // It is quiet again.
        assert!(!login(&mut habits, 1, next + Duration::from_secs(1)));
        assert!(!login(&mut habits, 2, next + Duration::from_secs(60)));
    }

    #[test]
    fn an_unknown_account_rests_no_longer_than_any() {
        let (now, longest) = (Instant::now(), Duration::from_secs(10));
        let plan = Habits::default().plan(digest(1), longest, now).unwrap();
        assert_eq!(plan.until.duration_since(now), longest);
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_the_oldest_first() {
        let (mut habits, start) = (Habits::default(), Instant::now());
        for number in 0..3 * u32::try_from(MOST).unwrap() {
            let now = start + Duration::from_secs(number.into());
            habits.logged_in(digest(number), now);
            assert!(habits.accounts.len() <= MOST);
            assert!(habits.accounts.contains_key(&digest(number)));
        }
        assert!(habits.accounts.len() >= MOST / 2);
        assert!(!habits.accounts.contains_key(&digest(0)));
    }
}
