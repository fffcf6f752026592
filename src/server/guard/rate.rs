//! How many logins may fail in a minute, by the networks they come from. What
//! comes beyond waits before it is judged; nobody is shut out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::network::{SIZES, networks};

/// What the rates are about.
const MINUTE: Duration = Duration::from_secs(60);
/// Networks of each size that are remembered.
const MOST: usize = 20_000;
/// Between two looks whether it is time: others may have failed, or succeeded.
const LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Nobody waits for longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Failures by network.
#[derive(Debug)]
pub(super) struct Rates {
    /// The time that makes good for a failure, by size of the network.
    steps: [Duration; SIZES],
    all: Mutex<[HashMap<IpAddr, Failures>; SIZES]>,
}

/// Failures of a network, as time that has to pass until they are made good for.
#[derive(Clone, Copy, Debug)]
struct Failures {
    until: Instant,
    /// Logins that are being judged: each may fail.
    under_way: u32,
}

/// Leave to be judged, until dropped.
#[derive(Debug)]
pub(super) struct Leave<'a> {
    rates: &'a Rates,
    networks: [IpAddr; SIZES],
}

impl Rates {
    /// So many failures a minute, by size of the network.
    pub fn new(most: [u32; SIZES]) -> Self {
        Self {
            steps: most.map(|most| MINUTE / most.max(1)),
            all: Mutex::default(),
        }
    }

    /// Leave to be judged, as soon as that may be; `None`: it would take too long.
    pub async fn leave(&self, address: IpAddr) -> Option<Leave<'_>> {
        let deadline = Instant::now() + PATIENCE;
        let (least, most) = LOOKS;
        loop {
            let wait = match self.try_leave(address) {
                Ok(leave) => return Some(leave),
                Err(wait) => wait.clamp(least, most),
            };
            if Instant::now() + wait > deadline {
                return None;
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Or how long it takes at least.
    fn try_leave(&self, address: IpAddr) -> Result<Leave<'_>, Duration> {
        let networks = networks(address);
        let now = Instant::now();
        let mut all = self.all();
        let known = all.iter().zip(networks).zip(self.steps);
        let wait = known.filter_map(|((known, network), step)| {
            let failures = known.get(&network)?;
            let due = failures.until.saturating_duration_since(now);
            (due + step * (failures.under_way + 1)).checked_sub(MINUTE)
        });
        if let Some(wait) = wait.max().filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        for (known, network) in all.iter_mut().zip(networks) {
            if known.len() >= MOST && !known.contains_key(&network) {
                make_room(known, now);
            }
            let failures = known.entry(network).or_insert(Failures {
                until: now,
                under_way: 0,
            });
            failures.under_way += 1;
        }
        Ok(Leave {
            rates: self,
            networks,
        })
    }

    fn all(&self) -> MutexGuard<'_, [HashMap<IpAddr, Failures>; SIZES]> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leave<'_> {
    /// The login failed.
    pub fn failed(self) {
        let now = Instant::now();
        let mut all = self.rates.all();
        let known = all.iter_mut().zip(self.networks).zip(self.rates.steps);
        for ((known, network), step) in known {
            if let Some(failures) = known.get_mut(&network) {
                failures.until = failures.until.max(now) + step;
            }
        }
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut all = self.rates.all();
        for (known, network) in all.iter_mut().zip(self.networks) {
            let Some(failures) = known.get_mut(&network) else {
                continue;
            };
            failures.under_way = failures.under_way.saturating_sub(1);
            if failures.under_way == 0 && failures.until <= now {
                known.remove(&network);
            }
        }
    }
}

/// Forgets what has been made good for, or else the half that will be first: that
/// is cheap, however many come.
fn make_room(known: &mut HashMap<IpAddr, Failures>, now: Instant) {
    known.retain(|_, it| it.under_way > 0 || it.until > now);
    if known.len() < MOST {
        return;
    }
    let mut times: Vec<Instant> = known.values().map(|it| it.until).collect();
    let half = times.len() / 2;
    let (_, middle, _) = times.select_nth_unstable(half);
    let middle = *middle;
    known.retain(|_, it| it.under_way > 0 || it.until > middle);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many logins fail from addresses, until one has to wait.
    async fn failures(rates: &Rates, from: impl Fn(u8) -> IpAddr) -> u8 {
        for count in 0..u8::MAX {
            match rates.try_leave(from(count)) {
                Ok(leave) => leave.failed(),
                Err(_) => return count,
            }
        }
        u8::MAX
    }

    #[tokio::test(start_paused = true)]
    async fn each_size_of_network_has_its_rate() {
        let rates = Rates::new([10, 30, 90]);
        let one = |_| address("192.0.2.1");
        assert_eq!(failures(&rates, one).await, 10);
        let near = |count| IpAddr::from([192, 0, 2, 2 + count % 32]);
        assert_eq!(failures(&rates, near).await, 20);
        let wider = |count: u8| IpAddr::from([192, 0, 3 + count / 25, count % 25]);
        assert_eq!(failures(&rates, wider).await, 60);
        // Others have nothing to do with it.
        assert_eq!(failures(&rates, |_| address("198.51.100.1")).await, 10);
        assert_eq!(failures(&rates, |_| address("2001:db8::1")).await, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn time_makes_good_for_failures() {
        let rates = Rates::new([10, 30, 90]);
        let one = |_| address("192.0.2.1");
        assert_eq!(failures(&rates, one).await, 10);
        tokio::time::advance(MINUTE / 10).await;
        assert_eq!(failures(&rates, one).await, 1);
        let began = Instant::now();
        rates.leave(address("192.0.2.1")).await.unwrap().failed();
        assert!(began.elapsed() >= MINUTE / 10 - LOOKS.1);
        tokio::time::advance(2 * MINUTE).await;
        assert_eq!(failures(&rates, one).await, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_being_judged_counts_and_success_does_not() {
        let rates = Rates::new([2, 30, 90]);
        let client = address("192.0.2.1");
        let first = rates.try_leave(client).unwrap();
        let second = rates.try_leave(client).unwrap();
        assert!(rates.try_leave(client).is_err());
        drop((first, second));
        assert!(rates.all().iter().all(HashMap::is_empty));
        for _ in 0..5 {
            drop(rates.try_leave(client).unwrap());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let rates = Rates::new([1, 1, 1]);
        let client = address("192.0.2.1");
        let _judged = rates.try_leave(client).unwrap();
        let began = Instant::now();
        assert!(rates.leave(client).await.is_none());
        assert!(began.elapsed() <= PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_that_wait_only_so_many_are_judged_in_a_minute() {
        let rates = Rates::new([10, 30, 90]);
        let client = address("192.0.2.1");
        assert_eq!(failures(&rates, |_| client).await, 10);
        let guess = || async {
            match rates.leave(client).await {
                Some(leave) => {
                    leave.failed();
                    1
                }
                None => 0,
            }
        };
        let judged = futures_util::future::join_all((0..500).map(|_| guess())).await;
        let judged: u32 = judged.into_iter().sum();
        assert!((9..=11).contains(&judged), "{judged}");
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let rates = Rates::new([10, 30, 90]);
        for number in 0..u32::try_from(MOST).unwrap() + 10 {
            let client = IpAddr::V4((0x0A00_0000 + number).into());
            if let Ok(leave) = rates.try_leave(client) {
                leave.failed();
            }
            tokio::time::advance(Duration::from_micros(1)).await;
        }
        let all = rates.all();
        assert!(all.iter().all(|known| known.len() <= MOST));
    }
}
