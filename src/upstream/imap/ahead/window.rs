//! How far ahead is read: what bandwidth × round trip asks for, found while
//! messages are read. Pure: the clock is passed in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Octets ahead of a client who may yet want no more than one message.
const FIRST: u64 = 256 * 1024;
/// Messages ahead of such a client, and headers.
const FIRST_MESSAGES: usize = 32;
const FIRST_HEADERS: usize = 16;
/// Commands that a server is given at a time.
const MOST_MESSAGES: usize = 512;
/// What is measured is judged no more often.
const SHORTEST_PERIOD: Duration = Duration::from_millis(10);
/// A server that takes longer to begin an answer is not far away, but slow.
const LONGEST_ROUND_TRIP: Duration = Duration::from_secs(2);

/// The window of one session. It grows with each message that the client reads
/// in order, as far as its pace can use it.
#[derive(Debug)]
pub(super) struct Window {
    most: u64,
    octets: u64,
    messages: usize,
    round_trip: Duration,
    period: Option<Period>,
    /// In the first period it is not known yet what the pace is.
    starting: bool,
}

/// What was read since `began`.
#[derive(Debug)]
struct Period {
    began: Instant,
    octets: u64,
    /// Time in which the client waited for the upstream.
    waited: Duration,
}

impl Window {
    /// Never more than `most` octets.
    pub fn new(most: u64) -> Self {
        Self {
            most,
            octets: FIRST.min(most),
            messages: FIRST_MESSAGES,
            round_trip: Duration::ZERO,
            period: None,
            starting: true,
        }
    }

    /// Small again: for messages, or for headers.
    pub fn restart(&mut self, headers: bool) {
        self.octets = FIRST.min(self.most);
        self.messages = if headers {
            FIRST_HEADERS
        } else {
            FIRST_MESSAGES
        };
        self.period = None;
        self.starting = true;
    }

    /// An answer that nothing was in front of began so long after its command.
    pub fn answered(&mut self, after: Duration) {
        let after = after.min(LONGEST_ROUND_TRIP);
        if self.round_trip.is_zero() || after < self.round_trip {
            self.round_trip = after;
        }
    }

    /// The client has read another message in order, for which it waited so long.
    pub fn used(&mut self, octets: u64, waited: Duration, now: Instant) {
        self.messages = (self.messages * 2).min(MOST_MESSAGES);
        let Some(period) = &mut self.period else {
            // The pace shows from the first message to the next.
            self.period = Some(Period {
                began: now,
                octets: 0,
                waited: Duration::ZERO,
            });
            return;
        };
        period.octets += octets;
        period.waited += waited;
        let elapsed = now.saturating_duration_since(period.began);
        let wanted = FIRST + 2 * in_a_round_trip(period.octets, self.round_trip, elapsed);
        let is_over = elapsed >= self.round_trip.max(SHORTEST_PERIOD);
        if self.starting || is_over {
            let grown = wanted.min(self.octets * 2).min(self.most);
            self.octets = self.octets.max(grown);
        }
        if is_over {
            // Only a client who did not wait shows that less would do.
            if !self.starting && period.waited < elapsed / 8 {
                let shrunk = wanted.max(self.octets / 2);
                self.octets = self.octets.min(shrunk);
            }
            self.starting = false;
            self.period = Some(Period {
                began: now,
                octets: 0,
                waited: Duration::ZERO,
            });
        }
    }

    /// Octets that may be on their way.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Messages that may be on their way.
    pub fn messages(&self) -> usize {
        self.messages
    }
}

/// Octets that come in a round trip where `octets` have come in `elapsed`.
fn in_a_round_trip(octets: u64, round_trip: Duration, elapsed: Duration) -> u64 {
    let elapsed = elapsed.as_micros().max(1);
    let octets = u128::from(octets) * round_trip.as_micros() / elapsed;
    u64::try_from(octets.min(u128::from(u32::MAX))).unwrap_or(0)
}

/// Octets that all sessions of an upstream have on their way, ahead of their
/// clients.
#[derive(Debug, Default)]
pub(in super::super) struct Budget(AtomicU64);

impl Budget {
    /// Takes octets, unless that makes more than `most`.
    pub fn take(&self, octets: u64, most: u64) -> bool {
        let taken = |now: u64| now.checked_add(octets).filter(|then| *then <= most);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
            .is_ok()
    }

    /// Gives back what was taken.
    pub fn give_back(&self, octets: u64) {
        self.0.fetch_sub(octets, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KB: u64 = 1024;
    const MB: u64 = 1024 * KB;

    /// A client that reads messages of 10 KB over a link of so many octets a second
    /// in so many milliseconds each way and back. Returns the window in the end.
    fn read(window: &mut Window, round_trip: u64, rate: u64, seconds: u64) -> u64 {
        let round_trip = Duration::from_millis(round_trip);
        window.answered(round_trip);
        let start = Instant::now();
        let mut now = Duration::ZERO;
        while now < Duration::from_secs(seconds) {
            // What is on its way comes in a round trip, or as fast as the link is.
            let burst = window.octets();
            let takes = Duration::from_micros(burst * 1_000_000 / rate).max(round_trip);
            for _ in 0..burst / (10 * KB) {
                window.used(10 * KB, Duration::ZERO, start + now);
                now += Duration::from_micros(10 * KB * 1_000_000 / rate);
            }
            now = now.max(takes);
            window.used(0, takes, start + now);
        }
        window.octets()
    }

    #[test]
    fn it_grows_to_what_a_round_trip_takes_and_no_further_than_it_may() {
        let mut window = Window::new(4 * MB);
        assert_eq!(window.octets(), FIRST);
        assert_eq!(read(&mut window, 50, 1000 * MB, 1), 4 * MB);
        let mut window = Window::new(100 * KB);
        assert_eq!(read(&mut window, 50, 1000 * MB, 1), 100 * KB);
    }

    #[test]
    fn a_near_server_or_a_slow_link_needs_no_large_one() {
        let mut window = Window::new(4 * MB);
        assert!(read(&mut window, 1, 10 * MB, 1) < 2 * FIRST);
        let mut window = Window::new(4 * MB);
        assert!(read(&mut window, 20, MB, 1) < 2 * FIRST);
    }

    #[test]
    fn a_client_that_has_become_slow_needs_less() {
        let mut window = Window::new(4 * MB);
        read(&mut window, 50, 1000 * MB, 1);
        let mut now = Instant::now();
        for _ in 0..20 {
            window.used(10 * KB, Duration::ZERO, now);
            now += Duration::from_millis(100);
        }
        assert!(window.octets() < 2 * FIRST, "{}", window.octets());
    }

    #[test]
    fn it_begins_anew() {
        let mut window = Window::new(4 * MB);
        read(&mut window, 50, 1000 * MB, 1);
        assert_eq!(window.messages(), MOST_MESSAGES);
        window.restart(true);
        assert_eq!((window.octets(), window.messages()), (FIRST, FIRST_HEADERS));
    }

    #[test]
    fn a_budget_is_never_exceeded_and_comes_back() {
        let budget = Budget::default();
        assert!(budget.take(60, 100));
        assert!(!budget.take(41, 100));
        assert!(budget.take(40, 100));
        assert!(!budget.take(u64::MAX, u64::MAX));
        budget.give_back(60);
        assert!(budget.take(60, 100));
    }
}
